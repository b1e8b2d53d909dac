-- The kept versions of a state: state_history() lists them, state_at() reads one, state_diff() compares two.
\a \t \pset null (null)
SELECT state_class_define('history', keep => 0);

-- Newest first. Small documents are stored whole.
SELECT action, version FROM state_save('doc', '{"title": "a", "todo": ["x"]}', 'manual', 'triage', class => 'history');
SELECT state_update('doc', '{"title": "b"}', class => 'history');
SELECT state_append('doc', '{todo}', '"y"', class => 'history');
SELECT action, version FROM state_save('doc', '{"title": "b", "todo": []}', 'critical', NULL, true, '{"reason": "done"}', class => 'history');
SELECT version, parent_version, checkpoint_type, agent_phase, recovery_point, execution_context, encoding FROM state_history('doc', class => 'history');
-- bytes: of the document in binary form; bytes_stored: of the column that holds it.
CREATE FUNCTION binary_size(document jsonb) RETURNS integer LANGUAGE sql AS $$ SELECT pg_column_size(document || '{}') - 4 $$;
SELECT h.version, h.bytes = binary_size(state_at('doc', h.version, class => 'history')), h.bytes_stored = coalesce(pg_column_size(s.state), pg_column_size(s.delta)),
		h.created_at = s.created_at, s.created_at BETWEEN now() - interval '1 minute' AND clock_timestamp()
	FROM state_history('doc', class => 'history') h JOIN state_snapshot s ON (s.class, s.key, s.version) = ('history', 'doc', h.version) ORDER BY 1;
SELECT size = binary_size(state_get('doc', class => 'history')) FROM state_head WHERE class = 'history' AND key = 'doc';

-- Large ones as compressed keyframes and deltas, at a fraction of their size.
CALL keep_steps('steps', 'history', 20);
SELECT state_cache_clear('history') >= 0;
SELECT kept_steps('steps', 'history');
SELECT encoding, count(*), bool_and(bytes = binary_size(state_at('steps', version, class => 'history'))), max(bytes_stored) < min(bytes) * 0.8, max(bytes_stored) < 200
	FROM state_history('steps', class => 'history') GROUP BY 1 ORDER BY 1;
-- Never both columns, never none.
SELECT (state IS NULL) <> (delta IS NULL), count(*) FROM state_snapshot WHERE class = 'history' GROUP BY 1;
-- The view shows the current version as jsonb, however it is stored.
SELECT version, state = document(20) FROM state_current WHERE class = 'history' AND key = 'steps';
-- It is the same read from L1, from the tables, and for each of the functions that read.
SELECT state_get('steps', class => 'history') = document(20), state_get_path('steps', '{steps}', class => 'history'), state_get_text('steps', class => 'history') = document(20)::text;
SELECT state_cache_clear('history') >= 0;
SELECT state_get('steps', class => 'history') = document(20), state_get_path('steps', '{steps}', class => 'history'), state_get_text('steps', class => 'history') = document(20)::text;

-- A recovery point depends on no other row, and the next version may depend on it.
SELECT action, version FROM state_save('steps', document(21), recovery_point => true, class => 'history');
SELECT action, version FROM state_save('steps', document(22), class => 'history');
SELECT version, encoding, recovery_point FROM state_history('steps', class => 'history') LIMIT 2;

-- state_at() is NULL for what is not kept: never written, pruned, deleted, another class or key.
SELECT state_at('steps', 23, class => 'history'), state_at('steps', 0, class => 'history'), state_at('steps', -1, class => 'history'),
	state_at('steps', 9223372036854775807, class => 'history'), state_at('none', 1, class => 'history'), state_at('steps', 1);
SELECT count(*) FROM state_history('none', class => 'history');
-- A deleted state has no current version. What was kept before is.
SELECT state_delete('doc', class => 'history');
SELECT version, state_at('doc', version, class => 'history') FROM generate_series(1, 6) version;
SELECT state_set('doc', '{"title": "c"}', class => 'history');
SELECT version, parent_version FROM state_history('doc', class => 'history') LIMIT 2;
-- JSON's null is a document.
SELECT action, version FROM state_save('null', 'null', class => 'history');
SELECT state_at('null', 1, class => 'history'), state_at('null', 1, class => 'history') IS NULL;

-- What the transaction has staged has no version yet, unless that is asked for; what it has flushed is there at once.
BEGIN;
SELECT state_set('doc', '{"title": "staged"}', class => 'history');
SELECT max(version) FROM state_history('doc', class => 'history');
SELECT state_version('doc', class => 'history'), state_at('doc', 7, class => 'history'), state_at('doc', 6, class => 'history');
SELECT action, version FROM state_batch_commit() WHERE class = 'history';
SELECT max(version), state_at('doc', 7, class => 'history') FROM state_history('doc', class => 'history');
SELECT action, version FROM state_save('steps', document(23), class => 'history');
SELECT state_at('steps', 23, class => 'history') = document(23), encoding FROM state_history('steps', class => 'history') LIMIT 1;
ROLLBACK;
SELECT max(version), state_at('doc', 7, class => 'history') FROM state_history('doc', class => 'history');

-- A transaction that looks twice sees the same history, whatever its own snapshot is.
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SELECT count(*), max(version) FROM state_history('steps', class => 'history');
SELECT state_at('steps', 22, class => 'history') = document(22);
SELECT jsonb_array_length(state_diff('steps', 21, 22, class => 'history'));
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY;
SELECT count(*), max(version) FROM state_history('steps', class => 'history');
SELECT state_at('steps', 22, class => 'history') = document(22);
COMMIT;
SET default_transaction_read_only = on;
SELECT state_at('steps', 7, class => 'history') = document(7);
SELECT outcome($$SELECT state_save('steps', '1', class => 'history')$$);
SELECT outcome($$SELECT state_restore('steps', 7, class => 'history')$$);
SELECT outcome($$SELECT state_recover('steps', class => 'history')$$);
SELECT outcome($$SELECT state_prune('history', keep => 1)$$);
SELECT outcome($$SELECT * FROM state_verify('history', repair => true)$$);
SELECT * FROM state_verify('history');
RESET default_transaction_read_only;

-- state_diff(): JSON Patch (RFC 6902) that makes the one into the other.
SELECT action, version FROM state_save('diff', '{"a": 1, "b": {"c": [1, 2, 3]}, "gone": true, "x/y~z": 0, "text": "so long that a whole new document would take more than the operations do, and then some more, since there are five of them"}', class => 'history');
SELECT state_merge('diff', '{"a": 2, "b": {"c": [1, 3]}, "gone": null, "new": {"d": {}}, "x/y~z": 1}', class => 'history');
SELECT jsonb_pretty(state_diff('diff', 1, 2, class => 'history'));
SELECT state_diff('diff', 2, 1, class => 'history');
-- A document that hardly anything is left of is replaced whole, which is shorter.
SELECT action, version FROM state_save('diff small', (SELECT jsonb_object_agg('key ' || i, i) FROM generate_series(1, 100) i), class => 'history');
SELECT action, version FROM state_save('diff small', '{"c": 1}', class => 'history');
SELECT state_diff('diff small', 1, 2, class => 'history');
SELECT state_diff('diff', 1, 1, class => 'history'), state_diff('diff', 2, 2, class => 'history');
-- Another kind of document altogether.
SELECT action, version FROM state_save('diff', '[1, 2]', class => 'history');
SELECT action, version FROM state_save('diff', '"text"', class => 'history');
SELECT state_diff('diff', 2, 3, class => 'history');
SELECT state_diff('diff', 3, 4, class => 'history');
-- Across deltas, in both directions; only what differs is in it.
SELECT state_diff('steps', 21, 22, class => 'history');
SELECT state_diff('steps', 22, 20, class => 'history');

-- A number written in another way is a change, since it is another document.
SELECT action, version FROM state_save('number', '{"n": 1}', class => 'history');
SELECT action, version FROM state_save('number', '{"n": 1.00}', class => 'history');
SELECT state_diff('number', 1, 2, class => 'history');

-- Applied by hand it gives the other version, for every pair. pointer() is RFC 6901 as a path.
CREATE FUNCTION pointer(pointer text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
	SELECT coalesce(array_agg(replace(replace(part, '~1', '/'), '~0', '~') ORDER BY n), '{}')
		FROM string_to_table(substr(pointer, 2), '/') WITH ORDINALITY p (part, n) WHERE pointer <> ''
$$;
CREATE FUNCTION patched(document jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	change jsonb; path text[]; value jsonb; target jsonb; parent jsonb; last text;
BEGIN
	FOR change IN SELECT * FROM jsonb_array_elements(patch) LOOP
		path := pointer(change->>'path');
		value := change->'value';
		target := document #> path;
		last := path[cardinality(path)];
		parent := CASE WHEN path <> '{}' THEN document #> trim_array(path, 1) END;
		IF change->>'op' IN ('replace', 'remove') AND target IS NULL
				OR change->>'op' = 'add' AND path <> '{}' AND jsonb_typeof(parent) NOT IN ('object', 'array')
				OR change->>'op' = 'add' AND jsonb_typeof(parent) = 'array' AND last::integer > jsonb_array_length(parent) THEN
			RAISE EXCEPTION 'there is no place for %', change;
		END IF;
		document := CASE
			WHEN path = '{}' AND change->>'op' IN ('replace', 'add') THEN value
			WHEN change->>'op' = 'remove' THEN document #- path
			WHEN change->>'op' = 'replace' THEN jsonb_set(document, path, value)
			WHEN change->>'op' = 'add' AND jsonb_typeof(parent) = 'array' THEN jsonb_insert(document, path, value)
			WHEN change->>'op' = 'add' THEN jsonb_set(document, path, value)
		END;
		IF document IS NULL THEN
			RAISE EXCEPTION 'what is %?', change;
		END IF;
	END LOOP;
	RETURN document;
END
$$;
-- The applier itself can tell a wrong patch from a right one.
SELECT patched('{"a": [1, 3]}', '[{"op": "add", "path": "/a/1", "value": 2}, {"op": "replace", "path": "/a/0", "value": 0}, {"op": "add", "path": "/b~1c", "value": {}}]');
SELECT outcome($$SELECT patched('{"a": 1}', '[{"op": "remove", "path": "/b"}]')$$);
SELECT outcome($$SELECT patched('{"a": [1]}', '[{"op": "add", "path": "/a/2", "value": 3}]')$$);
SELECT key, count(*), count(*) FILTER (WHERE state_hash(patched(state_at(key, a.version, 'history'), state_diff(key, a.version, b.version, 'history')))
		= state_hash(state_at(key, b.version, 'history')))
	FROM unnest('{doc,diff,"diff small",steps,number}'::text[]) key, state_history(key, 'history') a, state_history(key, 'history') b GROUP BY key ORDER BY key;
-- What cannot be compared: a version that is not kept, by name.
SELECT complaint($$SELECT state_diff('diff', 1, 99, class => 'history')$$);
SELECT complaint($$SELECT state_diff('diff', 99, 1, class => 'history')$$);
SELECT complaint($$SELECT state_diff('none', 1, 1, class => 'history')$$);
SELECT complaint($$SELECT state_diff('diff', 1, NULL, class => 'history')$$);
SELECT complaint($$SELECT state_at('diff', NULL, class => 'history')$$);
SELECT complaint($$SELECT state_at(NULL, 1, class => 'history')$$);
SELECT complaint($$SELECT * FROM state_history(NULL, class => 'history')$$);
SELECT complaint($$SELECT * FROM state_history('diff', class => 'no such')$$);
SELECT complaint($$SELECT state_at('diff', 1, class => 'no such')$$);

-- How much is replayed: max_delta_chain is the longest chain; 0 stores no deltas.
CREATE FUNCTION longest_chain(key text, class text) RETURNS bigint LANGUAGE sql AS $$
	SELECT max(n) FROM (SELECT count(*) FILTER (WHERE encoding = 'delta') AS n
		FROM (SELECT encoding, count(*) FILTER (WHERE encoding <> 'delta') OVER (ORDER BY version) AS chain FROM state_history(key, class)) h GROUP BY chain) chains
$$;
CALL keep_steps('chain', 'history', 40);
SELECT longest_chain('chain', 'history') = current_setting('state_cache.max_delta_chain')::integer;
SET state_cache.max_delta_chain = 3;
CALL keep_steps('chain of 3', 'history', 10);
SELECT kept_steps('chain of 3', 'history');
SET state_cache.max_delta_chain = 0;
CALL keep_steps('chain of 0', 'history', 3);
SELECT kept_steps('chain of 0', 'history');
-- A shorter maximum makes the next version a keyframe; what is stored can be read in any case.
SELECT action, version FROM state_save('chain of 3', document(11), class => 'history');
SELECT kept_steps('chain of 3', 'history');
RESET state_cache.max_delta_chain;
SELECT outcome($$SET state_cache.max_delta_chain = -1$$);
SELECT outcome($$SET state_cache.max_delta_chain = 101$$);

-- Compression off, for a session or for a class: whole documents, and older ones are read as before.
SET state_cache.compression = off;
SELECT action, version FROM state_save('steps', document(23), class => 'history');
RESET state_cache.compression;
SELECT action, version FROM state_save('steps', document(24), class => 'history');
SELECT state_class_define('history', compression => false);
SELECT action, version FROM state_save('steps', document(25), class => 'history');
SELECT state_class_define('history', compression => true);
SELECT action, version FROM state_save('steps', document(26), class => 'history');
SELECT version, encoding FROM state_history('steps', class => 'history') LIMIT 5;
SELECT state_cache_clear('history') >= 0;
SELECT count(*), bool_and(state_at('steps', version, class => 'history') = document(version::integer)) FROM state_history('steps', class => 'history');
-- A document that has nothing in common with the one before is a keyframe.
SELECT action, version FROM state_save('steps', (SELECT jsonb_object_agg(md5(i::text || 'other'), i) FROM generate_series(1, 50) i), class => 'history');
SELECT version, encoding FROM state_history('steps', class => 'history') LIMIT 1;

-- A class that keeps one snapshot has a history of one, stored whole.
SELECT state_class_define('history of one');
CALL keep_steps('steps', 'history of one', 4);
SELECT kept_steps('steps', 'history of one');
SELECT version, state_at('steps', version, class => 'history of one') IS NULL FROM generate_series(1, 4) version;
