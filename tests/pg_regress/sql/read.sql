-- Reading. The key comes first, the class is the last, named argument; 'run' is its default.
\a \t \pset null (null)
SELECT state_class_define('read');
SELECT state_set('doc', '{"b": {"c": [1, 2, {"d": "deep"}]}, "a": 1, "list": [1], "nothing": null}', class => 'read');
SELECT state_set('doc', '{"in": "run"}');

-- state_get: the document as jsonb.
SELECT state_get('doc', class => 'read');
SELECT state_get('doc');
SELECT state_get('doc', 'swarm');

-- state_get_text: the same as text, without a conversion on the way to the client.
SELECT state_get_text('doc', class => 'read');
SELECT state_get_text('doc', class => 'read') = state_get('doc', class => 'read')::text;

-- state_get_path: what the operator #> finds.
SELECT state_get_path('doc', '{b,c,2,d}', class => 'read');
SELECT state_get_path('doc', '{b,c,-1,d}', class => 'read');
SELECT state_get_path('doc', '{}', class => 'read');
-- A JSON null is something, a missing member is nothing.
SELECT state_get_path('doc', '{nothing}', class => 'read');
SELECT state_get_path('doc', '{missing}', class => 'read');
SELECT state_get_path('doc', '{a,below,a,number}', class => 'read');
SELECT state_get_path('no such key', '{a}', class => 'read');
-- As with #>, a NULL path, or a NULL in it, finds nothing.
SELECT state_get_path('doc', NULL, class => 'read'), state_get_path('doc', '{a,NULL}', class => 'read');

-- state_get_section: a top-level object. Missing and wrong type are two different errors, an absent
-- state is neither.
SELECT state_get_section('doc', 'b', class => 'read');
SELECT state_get_section('doc', 'missing', class => 'read');
\echo :SQLSTATE
SELECT state_get_section('doc', 'list', class => 'read');
\echo :SQLSTATE
SELECT state_get_section('doc', 'nothing', class => 'read');
\echo :SQLSTATE
SELECT state_get_section('no such key', 'b', class => 'read');

-- state_get_many: in the order asked for, absent ones left out, a NULL key names nothing.
SELECT state_set('two', '{"n": 2}', class => 'read');
SELECT state_set('three', '{"n": 3}', class => 'read');
SELECT * FROM state_get_many('{three,missing,two,NULL}', class => 'read');
SELECT * FROM state_get_many('{two,three,two}', class => 'read');
SELECT * FROM state_get_many('{}', class => 'read');
SELECT * FROM state_get_many(NULL, class => 'read');
-- An array of two dimensions is a list of keys all the same.
SELECT * FROM state_get_many('{{two,three},{missing,two}}', class => 'read');

-- state_get_if_newer: a row only when there is news.
SELECT state_set('two', '{"n": 22}', class => 'read');
SELECT * FROM state_get_if_newer('two', 0, class => 'read');
SELECT * FROM state_get_if_newer('two', 1, class => 'read');
SELECT * FROM state_get_if_newer('two', 2, class => 'read');
SELECT * FROM state_get_if_newer('two', 3, class => 'read');
SELECT * FROM state_get_if_newer('missing', 0, class => 'read');

-- state_version, state_exists.
SELECT state_version('two', class => 'read'), state_version('missing', class => 'read');
SELECT state_exists('two', class => 'read'), state_exists('missing', class => 'read');

-- A NULL key names no state.
SELECT state_get(NULL), state_get_text(NULL), state_get_path(NULL, '{a}'), state_get_section(NULL, 'b'),
	state_version(NULL), state_exists(NULL);
SELECT * FROM state_get_if_newer(NULL, 0);

-- Any JSON document is a state, not only an object.
SELECT state_set('array', '[1, "two", null]', class => 'read'), state_set('number', '1.50', class => 'read'),
	state_set('string', '"text"', class => 'read'), state_set('null', 'null', class => 'read'),
	state_set('true', 'true', class => 'read'), state_set('{}', '{}', class => 'read');
SELECT key, state FROM state_get_many('{array,number,string,"null",true,"{}"}', class => 'read');
SELECT state_get_path('array', '{1}', class => 'read'), state_get_path('number', '{}', class => 'read');

-- Keys are any text of 1 to 1000 bytes, and are compared byte by byte.
SELECT count(state_set(k, to_jsonb(k), class => 'read'))
	FROM unnest(ARRAY[' ', 'É', 'é', 'key with ''quotes"', E'line\nbreak', '*', repeat('é', 127) || 'x', 'DOC']) k;
SELECT count(*) FROM unnest(ARRAY[' ', 'É', 'é', 'key with ''quotes"', E'line\nbreak', '*', repeat('é', 127) || 'x', 'DOC']) k
	WHERE state_get(k, class => 'read') = to_jsonb(k);
SELECT state_get('doc', class => 'read') ->> 'a', state_get('e', class => 'read');

-- The same through plain SQL, for who prefers that.
SELECT key, version, state FROM state_current WHERE class = 'read' AND key IN ('doc', 'two', 'three') ORDER BY key;

-- A read inside a larger query is a row source like any other.
SELECT k, state_get(k, class => 'read') -> 'n' FROM unnest('{two,three,four}'::text[]) k ORDER BY k;
SELECT count(*) FROM generate_series(1, 1000) WHERE state_get('two', class => 'read') ->> 'n' = '22';
