-- A state of a behind class that the tables hold in an older version, deleted by hand and changed again in one transaction;
-- and how much a transaction may leave to the worker.
\a \t \pset null (null)
ALTER SYSTEM SET state_cache.flush_interval = '1h';
SELECT pg_reload_conf();
SELECT state_class_define('overruled', keep => 0, write_mode => 'behind');
SELECT state_class_define('overruled other', write_mode => 'behind');
CREATE PROCEDURE await_accepting() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM state_set('accepting', to_jsonb(clock_timestamp()), class => 'overruled other');
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM state_cache_unwritten WHERE class = 'overruled other');
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
CALL await_accepting();
CREATE VIEW unwritten AS SELECT key, version, parked FROM state_cache_unwritten WHERE class = 'overruled' ORDER BY key;
-- Version 1 is in the tables, version 2 is acknowledged and unwritten. Each change comes after it, whatever is left.
CREATE PROCEDURE make_dirty(name text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_set(name, '{"n": [1]}', class => 'overruled');
	COMMIT;
	PERFORM state_flush('overruled');
	COMMIT;
	PERFORM state_set(name, '{"n": [2]}', class => 'overruled');
END
$$;
CREATE FUNCTION delete_by_hand(name text) RETURNS void LANGUAGE sql AS $$
	DELETE FROM state_head WHERE class = 'overruled' AND key = name;
	DELETE FROM state_snapshot WHERE class = 'overruled' AND key = name;
$$;
CREATE PROCEDURE try_change(name text, change text) LANGUAGE plpgsql AS $$
BEGIN
	CALL make_dirty(name);
	COMMIT;
	PERFORM delete_by_hand(name);
	EXECUTE change USING name;
END
$$;
CALL try_change('set', $$SELECT state_set($1, '{"n": [3]}', class => 'overruled')$$);
CALL try_change('same', $$SELECT state_set($1, '{"n": [2]}', class => 'overruled')$$);
CALL try_change('update', $$SELECT state_update($1, '{"m": 3}', class => 'overruled')$$);
CALL try_change('save', $$SELECT state_save($1, '{"n": [3]}', class => 'overruled')$$);
CALL try_change('labelled', $$SELECT state_save($1, '{"n": [3]}', checkpoint_type => 'manual', class => 'overruled')$$);
CALL try_change('deleted', $$SELECT state_delete($1, class => 'overruled')$$);
CALL try_change('touched', $$SELECT state_touch($1, '1 day', class => 'overruled')$$);
CALL try_change('flushed', $$SELECT state_set($1, '{"n": [3]}', class => 'overruled'), (SELECT count(*) FROM state_batch_commit())$$);
CALL try_change('twice', $$SELECT state_set($1, '{"n": [3]}', class => 'overruled'), (SELECT count(*) FROM state_batch_commit()), state_set($1, '{"n": [4]}', class => 'overruled')$$);
SELECT * FROM unwritten;
SELECT key, seen(key, 'overruled') = stored(key, 'overruled') AS same, stored(key, 'overruled')
	FROM unnest(ARRAY['set', 'same', 'update', 'save', 'labelled', 'deleted', 'touched', 'flushed', 'twice']) key;
-- No version that somebody may have seen is used again.
SELECT state_set(key, '"next"', class => 'overruled') FROM unnest(ARRAY['deleted', 'touched']) key;
SELECT state_flush('overruled');
SELECT key, version > 2 AS is_new FROM state_head WHERE class = 'overruled' ORDER BY 1;
-- Under one snapshot too.
CALL make_dirty('snapshot');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT delete_by_hand('snapshot');
SELECT state_set('snapshot', '{"n": [3]}', class => 'overruled');
COMMIT;
SELECT seen('snapshot', 'overruled'), stored('snapshot', 'overruled');
-- Taken back: what is unwritten counts as before.
CALL make_dirty('back');
BEGIN;
SAVEPOINT s;
SELECT delete_by_hand('back');
SELECT state_set('back', '{"n": [3]}', class => 'overruled');
ROLLBACK TO s;
COMMIT;
SELECT seen('back', 'overruled'), stored('back', 'overruled');
SELECT * FROM unwritten;

-- A transaction leaves at most 16 MB to the worker. What it has replaced, or rolled back, it does not leave: nothing is
-- written at once, so that there is no transaction id.
CREATE FUNCTION large(fill text) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(repeat(fill, 1000000)) $$;
CREATE FUNCTION leave_large(prefix text, numbers int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..numbers LOOP
		PERFORM state_set(prefix || i, large(chr(64 + i)), class => 'overruled');
		PERFORM state_batch_commit();
	END LOOP;
	RETURN CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN 'left' ELSE 'written' END;
END
$$;
BEGIN;
DO $$
BEGIN
	FOR i IN 1..24 LOOP
		PERFORM state_set('replaced', large(chr(64 + i)), class => 'overruled');
		PERFORM state_batch_commit();
	END LOOP;
END
$$;
SELECT leave_large('after ', 12);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT leave_large('undone ', 12);
ROLLBACK TO s;
SELECT leave_large('redone ', 12);
SAVEPOINT t;
SELECT leave_large('redone ', 12);
RELEASE t;
SELECT leave_large('redone ', 12);
ROLLBACK;
-- What was replaced in a subtransaction that is rolled back is left again.
BEGIN;
SELECT leave_large('kept ', 12);
SAVEPOINT s;
DO $$
BEGIN
	FOR i IN 1..12 LOOP
		PERFORM state_set('kept ' || i, '1', class => 'overruled');
	END LOOP;
	PERFORM state_batch_commit();
END
$$;
ROLLBACK TO s;
SELECT leave_large('more ', 12);
ROLLBACK;
-- More than that is written.
BEGIN;
SELECT leave_large('each ', 18);
ROLLBACK;

ALTER SYSTEM RESET state_cache.flush_interval;
SELECT pg_reload_conf();
SELECT state_class_define('overruled', write_mode => 'through');
SELECT state_class_define('overruled other', write_mode => 'through');
DROP FUNCTION delete_by_hand, large, leave_large;
DROP PROCEDURE await_accepting, make_dirty, try_change;
DROP VIEW unwritten;
