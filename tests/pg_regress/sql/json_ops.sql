-- What the operations compute is what the server's own jsonb operators compute, byte for byte.
\a \t \pset null (null)
SELECT state_class_define('json_ops');
CREATE TABLE doc (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, d jsonb NOT NULL);
INSERT INTO doc (d) VALUES ('{}'), ('{"a": 1}'), ('{"a": {"b": {"c": [1, 2, {"d": null}]}}}'), ('{"b": 2, "a": 1, "c": [], "": 0, "aa": {}}'),
	('{"a": [1, [2, [3, [4]]]], "b": "text", "c": 1.50, "d": true, "e": null}'), ('{"0": "zero", "-1": "minus", "1": {"0": [0]}}'),
	('{"é": "é", "\"": "\\", "tab\t": "\u0001"}'), ('{"n": 1e100, "m": -1e-100, "z": 0.00, "long": 12345678901234567890123456789012345678901234567890}'),
	(jsonb_build_object('long', repeat('x', 5000), 'list', (SELECT jsonb_agg(i) FROM generate_series(1, 300) i))),
	((SELECT jsonb_object_agg('key' || i, jsonb_build_object('i', i, 'list', jsonb_build_array(i, i::text, i / 3.0))) FROM generate_series(1, 200) i)),
	((SELECT jsonb_object_agg(repeat('k', i), CASE i % 4 WHEN 0 THEN 'null' WHEN 1 THEN to_jsonb(i) WHEN 2 THEN to_jsonb(repeat('v', i)) ELSE '[]' END) FROM generate_series(1, 60) i)),
	((SELECT jsonb_object_agg('k' || i % 37, jsonb_build_object('a', i)) FROM generate_series(1, 500) i));

-- state_update = ||, for every pair of documents. state_hash() compares bytes, = would not.
DO $$
DECLARE
	x record; pairs int := 0;
BEGIN
	FOR x IN SELECT l.id AS l_id, r.id AS r_id, l.d AS target, r.d AS updates FROM doc l, doc r LOOP
		PERFORM state_set('update', x.target, class => 'json_ops');
		PERFORM state_update('update', x.updates, class => 'json_ops');
		pairs := pairs + 1;
		IF state_hash(state_get('update', class => 'json_ops')) IS DISTINCT FROM state_hash(x.target || x.updates) THEN
			RAISE WARNING 'update differs: % || %', x.l_id, x.r_id;
		END IF;
	END LOOP;
	RAISE NOTICE '% pairs', pairs;
END
$$;

-- Merge patch: the table of RFC 7396, appendix A.
CREATE TABLE rfc7396 (n int, original jsonb, patch jsonb, result jsonb);
INSERT INTO rfc7396 VALUES
	(1, '{"a":"b"}', '{"a":"c"}', '{"a":"c"}'), (2, '{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'), (3, '{"a":"b"}', '{"a":null}', '{}'),
	(4, '{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'), (5, '{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'), (6, '{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
	(7, '{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'), (8, '{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
	(9, '["a","b"]', '["c","d"]', '["c","d"]'), (10, '{"a":"b"}', '["c"]', '["c"]'), (11, '{"a":"foo"}', 'null', 'null'),
	(12, '{"a":"foo"}', '"bar"', '"bar"'), (13, '{"e":null}', '{"a":1}', '{"e":null,"a":1}'), (14, '[1,2]', '{"a":"b","c":null}', '{"a":"b"}'),
	(15, '{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}');
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM rfc7396 ORDER BY n LOOP
		PERFORM state_set('merge', r.original, class => 'json_ops');
		PERFORM state_merge('merge', r.patch, class => 'json_ops');
		RAISE NOTICE '% % + % = % %', r.n, r.original, r.patch, state_get('merge', class => 'json_ops'),
			CASE WHEN state_hash(state_get('merge', class => 'json_ops')) = state_hash(r.result) THEN 'as in the RFC' ELSE 'WRONG' END;
	END LOOP;
END
$$;
-- The RFC's own pseudocode, against every pair of documents.
CREATE FUNCTION merge_patch(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	member record;
BEGIN
	IF jsonb_typeof(patch) <> 'object' THEN
		RETURN patch;
	END IF;
	IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN
		target := '{}';
	END IF;
	FOR member IN SELECT * FROM jsonb_each(patch) LOOP
		IF member.value = 'null' THEN
			target := target - member.key;
		ELSE
			target := target || jsonb_build_object(member.key, merge_patch(target -> member.key, member.value));
		END IF;
	END LOOP;
	RETURN target;
END
$$;
DO $$
DECLARE
	x record; pairs int := 0;
BEGIN
	FOR x IN SELECT l.id AS l_id, r.id AS r_id, l.d AS target, r.d AS patch FROM doc l, doc r LOOP
		PERFORM state_set('merge', x.target, class => 'json_ops');
		PERFORM state_merge('merge', x.patch, class => 'json_ops');
		pairs := pairs + 1;
		IF state_hash(state_get('merge', class => 'json_ops')) IS DISTINCT FROM state_hash(merge_patch(x.target, x.patch)) THEN
			RAISE WARNING 'merge differs: % and %', x.l_id, x.r_id;
		END IF;
	END LOOP;
	RAISE NOTICE '% pairs', pairs;
END
$$;

-- state_get_path = #>, for every path that leads somewhere, and for paths beside them.
CREATE FUNCTION paths(d jsonb, prefix text[]) RETURNS SETOF text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN NEXT prefix;
	RETURN NEXT prefix || 'beside'::text;
	RETURN NEXT prefix || '-1'::text;
	RETURN NEXT prefix || '1000'::text;
	RETURN NEXT prefix || ' 1'::text;
	RETURN NEXT prefix || '1x'::text;
	RETURN NEXT prefix || '-99999999999'::text;
	IF jsonb_typeof(d) = 'object' THEN
		RETURN QUERY SELECT p FROM jsonb_each(d) e, paths(e.value, prefix || e.key) p;
	ELSIF jsonb_typeof(d) = 'array' THEN
		RETURN QUERY SELECT p FROM jsonb_array_elements(d) WITH ORDINALITY AS e(value, n), paths(e.value, prefix || (n - 1)::text) p WHERE n < 20;
	END IF;
END
$$;
SELECT count(state_set('path ' || id, d, class => 'json_ops')) FROM doc;
SELECT count(*) AS paths, count(got) AS found, count(*) FILTER (WHERE state_hash(got) IS DISTINCT FROM state_hash(expected))
	FROM (SELECT state_get_path('path ' || id, p, class => 'json_ops') AS got, d #> p AS expected FROM doc, paths(d, '{}') p) AS each_path;

-- state_append = jsonb_insert at the end, where there is an array.
DO $$
DECLARE
	x record; n int := 0; expected jsonb;
BEGIN
	FOR x IN SELECT id, d, p FROM doc, paths(d, '{}') p WHERE jsonb_typeof(d #> p) = 'array' AND p <> '{}' LOOP
		PERFORM state_set('append', x.d, class => 'json_ops');
		PERFORM state_append('append', x.p, '{"appended": [1]}', class => 'json_ops');
		expected := jsonb_set(x.d, x.p, (x.d #> x.p) || '[{"appended": [1]}]');
		n := n + 1;
		IF state_hash(state_get('append', class => 'json_ops')) IS DISTINCT FROM state_hash(expected) THEN
			RAISE WARNING 'append differs: % %', x.id, x.p;
		END IF;
	END LOOP;
	RAISE NOTICE '% paths', n;
END
$$;

-- state_update_section = jsonb_set of the section merged with ||; the rest of the document is untouched.
DO $$
DECLARE
	x record; n int := 0;
BEGIN
	FOR x IN SELECT id, doc.d, s.key, u.d AS updates FROM doc, jsonb_each(doc.d) s, (SELECT d FROM doc WHERE id IN (1, 2, 4, 8)) u WHERE jsonb_typeof(s.value) = 'object' LOOP
		PERFORM state_set('section', x.d, class => 'json_ops');
		PERFORM state_update_section('section', x.key, x.updates, class => 'json_ops');
		n := n + 1;
		IF state_hash(state_get('section', class => 'json_ops')) IS DISTINCT FROM state_hash(jsonb_set(x.d, ARRAY[x.key], (x.d -> x.key) || x.updates)) THEN
			RAISE WARNING 'section differs: % %', x.id, x.key;
		END IF;
		IF state_hash(state_get_section('section', x.key, class => 'json_ops')) IS DISTINCT FROM state_hash((x.d -> x.key) || x.updates) THEN
			RAISE WARNING 'read section differs: % %', x.id, x.key;
		END IF;
	END LOOP;
	RAISE NOTICE '% sections', n;
END
$$;

-- What is stored, and read back from either place, is the document that was given.
SELECT count(*), bool_and(state_hash(state_get('path ' || id, class => 'json_ops')) = state_hash(d)),
	bool_and((SELECT s.hash = state_hash(d) AND state_hash(s.state) = state_hash(d) FROM state_kept s WHERE class = 'json_ops' AND key = 'path ' || id)) FROM doc;
-- The hash is of the bytes: the same document spelt otherwise is the same, another scale is not.
SELECT state_hash('{"a": 1, "b": 2}') = state_hash('{ "b":2,"a":0,"a":1 }'), state_hash('1.0') = state_hash('1.00'), '1.0'::jsonb = '1.00'::jsonb;
SELECT length(state_hash('{}')), state_hash('{}') = state_hash('[]'), state_hash(NULL);
