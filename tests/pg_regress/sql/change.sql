-- Changing. Outside a transaction block each statement is written through at its end.
\a \t \pset null (null)
SELECT state_class_define('change');

-- state_set replaces the whole document.
SELECT state_set('doc', '{"a": 1, "b": {"x": 1, "y": 2}, "list": [1]}', class => 'change');
SELECT stored('doc', 'change');

-- state_update merges at the top level only: an object under an existing key is replaced whole.
SELECT state_update('doc', '{"b": {"z": 3}, "new": null}', class => 'change');
SELECT stored('doc', 'change');
-- An absent state counts as {}.
SELECT state_update('born by update', '{"n": 1}', class => 'change');
SELECT stored('born by update', 'change');

-- state_update_section does the same inside one section, which it never creates.
SELECT state_update_section('doc', 'b', '{"z": 4, "w": [5]}', class => 'change');
SELECT stored('doc', 'change');
SELECT state_update_section('doc', 'missing', '{"z": 4}', class => 'change');
\echo :SQLSTATE
SELECT state_update_section('doc', 'list', '{"z": 4}', class => 'change');
\echo :SQLSTATE
SELECT state_update_section('absent', 'b', '{"z": 4}', class => 'change');
\echo :SQLSTATE

-- state_merge is JSON merge patch (RFC 7396): objects merge all the way down, null removes.
SELECT state_merge('doc', '{"a": null, "b": {"z": null, "v": {"deep": 1, "gone": null}}}', class => 'change');
SELECT stored('doc', 'change');
SELECT state_merge('born by merge', '{"kept": 1, "removed": null}', class => 'change');
SELECT stored('born by merge', 'change');

-- state_append puts one element at the end of the array at a path.
SELECT state_append('doc', '{list}', '2', class => 'change');
SELECT state_append('doc', '{b,w}', '{"step": 1}', class => 'change');
SELECT stored('doc', 'change');
-- An array is one element, not several.
SELECT state_append('doc', '{list}', '[3, 4]', class => 'change');
SELECT state_get_path('doc', '{list}', class => 'change');
-- The empty path is the document itself; a negative index counts from the end.
SELECT state_set('array', '[[0]]', class => 'change');
SELECT state_append('array', '{}', '1', class => 'change');
SELECT state_append('array', '{0}', '1', class => 'change');
SELECT state_append('array', '{-2}', '2', class => 'change');
SELECT stored('array', 'change');
-- A path that leads nowhere, or to something that is no array.
SELECT state_append('doc', '{nowhere}', '1', class => 'change');
\echo :SQLSTATE
SELECT state_append('doc', '{b}', '1', class => 'change');
\echo :SQLSTATE
SELECT state_append('absent', '{list}', '1', class => 'change');
\echo :SQLSTATE

-- state_delete says whether there was something to delete.
SELECT state_delete('doc', class => 'change');
SELECT state_delete('doc', class => 'change');
SELECT stored('doc', 'change'), seen('doc', 'change');
-- A deleted state is absent for whatever comes next.
SELECT state_update('doc', '{"again": true}', class => 'change');
SELECT stored('doc', 'change');

-- state_touch changes only when the state ends: no new version.
SELECT state_touch('doc', '1 hour', class => 'change');
SELECT version, expires_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' FROM state_head WHERE class = 'change' AND key = 'doc';
SELECT state_touch('doc', NULL, class => 'change');
SELECT version, expires_at FROM state_head WHERE class = 'change' AND key = 'doc';
SELECT state_touch('absent', '1 hour', class => 'change');

-- Several changes in one statement, also to one state, all count.
SELECT state_set('counter', '{"list": []}', class => 'change');
SELECT count(state_append('counter', '{list}', to_jsonb(i), class => 'change')) FROM generate_series(1, 5) i;
SELECT stored('counter', 'change');

-- A statement does not see the changes it makes itself, as with a table; the next one does.
BEGIN;
SELECT state_set('same statement', '"new"', class => 'change'), state_get('same statement', class => 'change');
SELECT state_get('same statement', class => 'change');
COMMIT;
-- The statements of a PL/pgSQL function are statements of their own.
DO $$
BEGIN
	PERFORM state_set('in function', '1', class => 'change');
	RAISE NOTICE 'after set: %', state_get('in function', class => 'change');
	PERFORM state_set('in function', '2', class => 'change');
	RAISE NOTICE 'after the next: %, version %', state_get('in function', class => 'change'), state_version('in function', class => 'change');
END
$$;
SELECT stored('in function', 'change');
-- Also in a function that modifies and reads inside one outer statement.
CREATE FUNCTION bump(key text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_set(key, to_jsonb(coalesce(state_get(key, class => 'change')::int, 0) + 1), class => 'change');
	RETURN state_get(key, class => 'change');
END
$$;
SELECT bump('bumped') FROM generate_series(1, 3);
SELECT stored('bumped', 'change');

-- The extension's tables agree with themselves: sizes, hashes and flags describe the documents.
SELECT count(*) > 5, bool_and(h.hash = s.hash AND h.hash = state_hash(s.state) AND NOT h.deleted AND h.size > 0)
	FROM state_head h JOIN state_kept s USING (class, key, version) WHERE h.class = 'change';
SELECT state_delete('array', class => 'change');
SELECT version, hash, size, deleted FROM state_head WHERE class = 'change' AND key = 'array';
