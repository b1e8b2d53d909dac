-- Bad input: a clear error with the right SQLSTATE, the transaction state sound, nothing lost.
\a \t \pset null (null)
SELECT state_class_define('bad');
SELECT state_set('doc', '{"n": 1, "list": [1], "section": {"a": 1}, "text": "t"}', class => 'bad');
SELECT state_set('array', '[1]', class => 'bad');
SELECT state_set('number', '1', class => 'bad');

-- The key: 1 to 1000 bytes.
SELECT complaint($$SELECT state_get('', class => 'bad')$$);
SELECT complaint($$SELECT state_get(repeat('k', 1001), class => 'bad')$$);
SELECT complaint($$SELECT state_get(repeat('é', 501), class => 'bad')$$);
SELECT complaint($$SELECT state_get_text('', class => 'bad')$$);
SELECT complaint($$SELECT state_get_path('', '{a}', class => 'bad')$$);
SELECT complaint($$SELECT state_get_section('', 'a', class => 'bad')$$);
SELECT complaint($$SELECT * FROM state_get_many('{doc,""}', class => 'bad')$$);
SELECT complaint($$SELECT * FROM state_get_if_newer('', 0, class => 'bad')$$);
SELECT complaint($$SELECT state_version('', class => 'bad')$$);
SELECT complaint($$SELECT state_exists('', class => 'bad')$$);
SELECT complaint($$SELECT state_set('', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_set(repeat('k', 1001), '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_update('', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('', 's', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_merge('', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_append('', '{}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_delete('', class => 'bad')$$);
SELECT complaint($$SELECT state_touch('', '1 s', class => 'bad')$$);

-- The class: one that is defined.
SELECT complaint($$SELECT state_get('doc', class => 'no such class')$$);
SELECT complaint($$SELECT state_get('doc', class => '')$$);
SELECT complaint($$SELECT state_get('doc', class => repeat('c', 64))$$);
SELECT complaint($$SELECT state_get_text('doc', class => 'no such class')$$);
SELECT complaint($$SELECT state_get_path('doc', '{a}', class => 'no such class')$$);
SELECT complaint($$SELECT state_get_section('doc', 'a', class => 'no such class')$$);
SELECT complaint($$SELECT * FROM state_get_many('{doc}', class => 'no such class')$$);
SELECT complaint($$SELECT * FROM state_get_if_newer('doc', 0, class => 'no such class')$$);
SELECT complaint($$SELECT state_version('doc', class => 'no such class')$$);
SELECT complaint($$SELECT state_exists('doc', class => 'no such class')$$);
SELECT complaint($$SELECT state_set('doc', '{}', class => 'no such class')$$);
SELECT complaint($$SELECT state_update('doc', '{}', class => 'no such class')$$);
SELECT complaint($$SELECT state_update_section('doc', 's', '{}', class => 'no such class')$$);
SELECT complaint($$SELECT state_merge('doc', '{}', class => 'no such class')$$);
SELECT complaint($$SELECT state_append('doc', '{}', '1', class => 'no such class')$$);
SELECT complaint($$SELECT state_delete('doc', class => 'no such class')$$);
SELECT complaint($$SELECT state_touch('doc', '1 s', class => 'no such class')$$);
SELECT complaint($$SELECT state_cache_clear('no such class')$$);
SELECT complaint($$SELECT state_invalidate('*', 'no such class')$$);

-- NULL where it makes no sense. (A NULL key reads as NULL; see read.)
SELECT complaint($$SELECT state_get('doc', class => NULL)$$);
SELECT complaint($$SELECT state_get_text('doc', class => NULL)$$);
SELECT complaint($$SELECT state_get_path('doc', '{a}', class => NULL)$$);
SELECT complaint($$SELECT state_get_section('doc', 'a', class => NULL)$$);
SELECT complaint($$SELECT * FROM state_get_many('{doc}', class => NULL)$$);
SELECT complaint($$SELECT * FROM state_get_if_newer('doc', 0, class => NULL)$$);
SELECT complaint($$SELECT state_version('doc', class => NULL)$$);
SELECT complaint($$SELECT state_exists('doc', class => NULL)$$);
SELECT complaint($$SELECT state_get_section('doc', NULL, class => 'bad')$$);
SELECT complaint($$SELECT * FROM state_get_if_newer('doc', NULL, class => 'bad')$$);
SELECT complaint($$SELECT state_set(NULL, '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_set('doc', NULL, class => 'bad')$$);
SELECT complaint($$SELECT state_set('doc', '{}', class => NULL)$$);
SELECT complaint($$SELECT state_update(NULL, '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_update('doc', NULL, class => 'bad')$$);
SELECT complaint($$SELECT state_update('doc', '{}', class => NULL)$$);
SELECT complaint($$SELECT state_update_section(NULL, 'section', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', NULL, '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', 'section', NULL, class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', 'section', '{}', class => NULL)$$);
SELECT complaint($$SELECT state_merge(NULL, '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_merge('doc', NULL, class => 'bad')$$);
SELECT complaint($$SELECT state_merge('doc', '{}', class => NULL)$$);
SELECT complaint($$SELECT state_append(NULL, '{list}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', NULL, '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{NULL}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list}', NULL, class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list}', '1', class => NULL)$$);
SELECT complaint($$SELECT state_delete(NULL, class => 'bad')$$);
SELECT complaint($$SELECT state_delete('doc', class => NULL)$$);
SELECT complaint($$SELECT state_touch(NULL, '1 s', class => 'bad')$$);
SELECT complaint($$SELECT state_touch('doc', '1 s', class => NULL)$$);
SELECT complaint($$SELECT state_invalidate(NULL)$$);

-- Operations on what they do not fit.
SELECT complaint($$SELECT state_update('doc', '[1]', class => 'bad')$$);
SELECT complaint($$SELECT state_update('doc', '"text"', class => 'bad')$$);
SELECT complaint($$SELECT state_update('array', '{"a": 1}', class => 'bad')$$);
SELECT complaint($$SELECT state_update('number', '{"a": 1}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', 'section', '[1]', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', 'list', '{"a": 1}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', 'text', '{"a": 1}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', 'missing', '{"a": 1}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('array', 'section', '{"a": 1}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('no such key', 'section', '{"a": 1}', class => 'bad')$$);
SELECT complaint($$SELECT state_get_section('doc', 'missing', class => 'bad')$$);
SELECT complaint($$SELECT state_get_section('doc', 'list', class => 'bad')$$);
SELECT complaint($$SELECT state_get_section('array', '0', class => 'bad')$$);
SELECT complaint($$SELECT state_get_section('number', 'n', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{missing}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list,7}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list,x}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list,99999999999}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list,0}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{section}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('number', '{}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_append('no such key', '{}', '1', class => 'bad')$$);

-- Numbers and times out of range.
SELECT complaint($$SELECT state_set('doc', '{}', expected_version => -1, class => 'bad')$$);
SELECT complaint($$SELECT state_delete('doc', expected_version => -1, class => 'bad')$$);
SELECT complaint($$SELECT state_set('doc', '{}', expected_version => 7, class => 'bad')$$);
SELECT complaint($$SELECT state_set('doc', '{}', ttl => '-1 s', class => 'bad')$$);
SELECT complaint($$SELECT state_set('doc', '{}', ttl => '0 s', class => 'bad')$$);
SELECT complaint($$SELECT state_touch('doc', '-1 s', class => 'bad')$$);
SELECT complaint($$SELECT state_batch_begin('no such mode')$$);
SELECT complaint($$SELECT state_invalidate('ends with \', 'bad')$$);

-- A document over the limit.
SET state_cache.max_state_size = '1kB';
SELECT complaint($$SELECT state_set('doc', to_jsonb(repeat('x', 2000)), class => 'bad')$$);
SELECT complaint($$SELECT state_update('doc', jsonb_build_object('long', repeat('x', 2000)), class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list}', to_jsonb(repeat('x', 900)), class => 'bad'), state_append('doc', '{list}', to_jsonb(repeat('y', 900)), class => 'bad')$$);
RESET state_cache.max_state_size;
SELECT complaint($$SELECT state_set('doc', to_jsonb(repeat('x', 17000000)), class => 'bad')$$);
-- Servers differ in how they write the range, which comes last.
SELECT split_part(complaint($$SET state_cache.max_state_size = '0'$$), ' (', 1);
SELECT split_part(complaint($$SET state_cache.max_state_size = '2GB'$$), ' (', 1);
SELECT complaint($$SET state_cache.notify = 'sometimes'$$);
SELECT complaint($$SET state_cache.no_such_setting = 1$$);

-- Deep nesting: the server's own stack check answers, whoever comes to it first.
SELECT left(complaint($$SELECT state_set('deep', (repeat('[', 100000) || repeat(']', 100000))::jsonb, class => 'bad')$$), 5);
SELECT state_set('deep', (repeat('{"a":', 3000) || '[1]' || repeat('}', 3000))::jsonb, class => 'bad');
SELECT state_merge('deep', (repeat('{"a":', 2990) || '{"b": 1}' || repeat('}', 2990))::jsonb, class => 'bad');
SELECT state_append('deep', array_fill('a'::text, ARRAY[3000]), '2', class => 'bad');
SELECT state_get_path('deep', array_fill('a'::text, ARRAY[2990]), class => 'bad') ? 'b', state_get_path('deep', array_fill('a'::text, ARRAY[3000]), class => 'bad');
SELECT length(state_get_text('deep', class => 'bad')), state_hash(state_get('deep', class => 'bad')) = state_hash(state) FROM state_current WHERE class = 'bad' AND key = 'deep';
-- With less stack a patch that was just applied is refused, and nothing happens to the server.
SET max_stack_depth = '100kB';
SELECT left(complaint($$SELECT state_merge('deep', state_get('deep', class => 'bad'), class => 'bad')$$), 5);
RESET max_stack_depth;
SELECT state_version('deep', class => 'bad');

-- A read-only transaction may read and not write.
BEGIN READ ONLY;
SELECT seen('doc', 'bad');
SELECT complaint($$SELECT state_set('doc', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_update('doc', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_update_section('doc', 'section', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_merge('doc', '{}', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{list}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_delete('doc', class => 'bad')$$);
SELECT complaint($$SELECT state_touch('doc', '1 s', class => 'bad')$$);
SELECT complaint($$SELECT state_class_define('read only')$$);
SELECT * FROM state_batch_commit();
SELECT seen('doc', 'bad');
COMMIT;
-- What was staged before a transaction turned read-only is written, as a row inserted before would be.
BEGIN;
SELECT state_set('turned', '{}', class => 'bad');
SET TRANSACTION READ ONLY;
COMMIT;
\echo :SQLSTATE
SELECT stored('turned', 'bad');

-- None of the above touched the state, and none of it touches what is staged beside it.
SELECT stored('doc', 'bad');
BEGIN;
SELECT state_update('doc', '{"n": 2}', class => 'bad');
SELECT complaint($$SELECT state_update('doc', '[]', class => 'bad')$$);
SELECT complaint($$SELECT state_append('doc', '{nowhere}', '1', class => 'bad')$$);
SELECT complaint($$SELECT state_batch_begin('no such mode')$$);
SELECT complaint($$SELECT state_set('', '{}', class => 'bad')$$);
SELECT seen('doc', 'bad');
COMMIT;
SELECT stored('doc', 'bad');
-- A statement that changes something and then fails has changed nothing.
SELECT state_set('half', '{}', class => 'bad'), state_set('', '{}', class => 'bad');
\echo :SQLSTATE
SELECT stored('half', 'bad');
