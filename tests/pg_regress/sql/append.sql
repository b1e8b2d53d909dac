-- Appending to what is not there yet, many at once, taking off; and a set that says the version.
\a \t \pset null (null)
SELECT state_put('p', '{"n": 1}'), state_put('p', '{"n": 2}'), state_put('p', '{"n": 2}'), state_put('p', '{"n": 3}', expected_version => 2);
SELECT seen('p', 'run'), state_put('p1', '1', class => 'config'), state_put('p1', '1', class => 'config');
SELECT complaint($$SELECT state_put('p', '{"n": 4}', 2)$$), outcome($$SELECT state_put('p', NULL)$$), outcome($$SELECT state_put('p', '1', -1)$$), outcome($$SELECT state_put('p', '1', ttl => '0')$$), outcome($$SELECT state_put('p', '1', class => 'unknown')$$);
-- In a batch too it is written at once, and goes with a savepoint.
BEGIN;
SELECT state_batch_begin();
SELECT state_put('p', '{"n": 5}'), (SELECT version FROM state_current WHERE key = 'p');
SAVEPOINT s;
SELECT state_put('p', '{"n": 6}');
ROLLBACK TO s;
SELECT seen('p', 'run');
COMMIT;
SELECT seen('p', 'run'), stored('p', 'run');
SELECT state_class_define('append_behind', write_mode => 'behind'), state_put('p', '1', class => 'append_behind');
SELECT seen('p', 'append_behind');

-- What is missing is made, and what is there is not replaced.
SELECT outcome($$SELECT state_append('c', '{log}', '1')$$), outcome($$SELECT state_append('c', '{log}', '1', "create" => NULL)$$);
SELECT state_append('c', '{log}', '{"n": 1}', "create" => true), state_append('c', '{log}', '2', "create" => true), state_append('c', '{deep,er,log}', 'null', "create" => true);
SELECT seen('c', 'run');
SELECT state_append('c', '{log,0,tags}', '"x"', "create" => true);
SELECT seen('c', 'run');
SELECT state_append('root', '{}', '1', "create" => true), state_append('root', '{}', '[2]', "create" => true);
SELECT seen('root', 'run');
SELECT state_set('o', '{"s": "text", "o": {}, "null": null, "a": [{"b": 1}, 5]}');
SELECT complaint(format('SELECT state_append(%L, %L, %L, "create" => true)', 'o', path, '1')) FROM unnest(ARRAY['{}', '{s}', '{s,x}', '{o}', '{"null"}', '{"null",x}', '{a,0}', '{a,1}', '{a,2}', '{a,2,x}', '{a,x}', '{a,0,b}', '{NULL}']) WITH ORDINALITY p (path, n) ORDER BY n;
SELECT seen('o', 'run');
SELECT state_set('scalar', '5'), outcome($$SELECT state_append('scalar', '{x}', '1', "create" => true)$$), outcome($$SELECT state_append('scalar', '{}', '1', "create" => true)$$);

-- Many in one change; none is none.
SELECT state_append_many('m', '{list}', '[1, [2], {"three": 3}, null]', "create" => true), state_append_many('m', '{list}', '["five"]');
SELECT seen('m', 'run');
SELECT state_append_many('m', '{list}', '[]'), state_append_many('m2', '{list}', '[]', "create" => true);
SELECT seen('m', 'run'), seen('m2', 'run');
SELECT outcome(c) FROM unnest(ARRAY[$$SELECT state_append_many('m', '{list}', '1')$$, $$SELECT state_append_many('m', '{list}', '{}')$$, $$SELECT state_append_many('m', '{list}', NULL)$$, $$SELECT state_append_many('m', '{nothing}', '[1]')$$,
	$$SELECT state_append_many('m', NULL, '[1]')$$, $$SELECT state_append_many(NULL, '{list}', '[1]')$$, $$SELECT state_append_many('absent', '{list}', '[1]')$$]) WITH ORDINALITY c (c, n) ORDER BY n;

-- Taking off, the last first.
SELECT state_pop('m', '{list}'), state_pop('m', '{list}'), state_pop('m', '{list}');
SELECT seen('m', 'run');
BEGIN;
SELECT state_append('m', '{list}', '"mine"'), state_pop('m', '{list}'), state_pop('m', '{list}');
SELECT seen('m', 'run');
ROLLBACK;
SELECT seen('m', 'run');
SELECT state_pop('m', '{list}'), state_pop('m', '{list}'), state_pop('m', '{list}'), state_pop('absent', '{list}'), state_pop('root', '{1}'), state_pop('root', '{-1}'), state_pop('root', '{}');
SELECT seen('m', 'run'), seen('root', 'run');
SELECT outcome(c) FROM unnest(ARRAY[$$SELECT state_pop('m', '{nothing}')$$, $$SELECT state_pop('o', '{s}')$$, $$SELECT state_pop('o', '{}')$$, $$SELECT state_pop(NULL, '{}')$$, $$SELECT state_pop('m', NULL)$$, $$SELECT state_pop('m', '{}', 'unknown')$$]) WITH ORDINALITY c (c, n) ORDER BY n;
SELECT state_append_many('m', '{list}', '[1, 2]', 'append_behind', true), state_pop('m', '{list}', 'append_behind');
SELECT seen('m', 'append_behind');
-- In an explicit batch, with the changes that it has staged.
BEGIN;
SELECT state_batch_begin(), state_append_many('m', '{list}', '["a", "b"]');
SELECT state_pop('m', '{list}');
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT seen('m', 'run'), stored('m', 'run');
BEGIN READ ONLY;
SELECT outcome($$SELECT state_pop('m', '{list}')$$), outcome($$SELECT state_put('m', '1')$$);
COMMIT;
