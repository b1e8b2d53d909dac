-- Classes of write mode behind: a commit leaves its changes in L1, and the tables get them later.
\a \t \pset null (null)
ALTER SYSTEM SET state_cache.flush_interval = '1h';
SELECT pg_reload_conf();
SELECT state_class_define('behind', write_mode => 'behind');
-- The worker comes when it is first called, and takes changes from then on. What stays dirty keeps it here.
SELECT state_class_define('behind other', write_mode => 'behind');
CREATE PROCEDURE await_accepting() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM state_set('accepting', to_jsonb(clock_timestamp()), class => 'behind other');
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM state_cache_unwritten WHERE class = 'behind other');
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
CALL await_accepting();
CREATE VIEW unwritten AS SELECT key, version, parked FROM state_cache_unwritten WHERE class = 'behind' ORDER BY key;
CREATE FUNCTION counted() RETURNS text LANGUAGE sql AS $$
	SELECT format('left behind %s, written through %s, flushed %s, dirty %s', left_behind, written_through, behind_flushed, dirty)
		FROM state_cache_stats WHERE class = 'behind'
$$;

-- Left behind: everybody sees it, the tables do not hold it, and it costs no transaction id.
BEGIN;
SELECT state_set('doc', '{"n": 1}', class => 'behind');
SELECT key, version, action, bytes > 0 FROM state_batch_commit();
SELECT txid_current_if_assigned();
COMMIT;
SELECT seen('doc', 'behind'), stored('doc', 'behind');
SELECT * FROM unwritten;
SELECT class, bytes = (SELECT bytes FROM state_cache_entries WHERE class = 'behind' AND key = 'doc'), since BETWEEN now() - interval '1 minute' AND clock_timestamp() FROM state_cache_unwritten WHERE class = 'behind';
\c
SELECT seen('doc', 'behind');
-- Changes build upon it, and versions count.
SELECT state_update('doc', '{"m": 2}', class => 'behind');
SELECT state_update('doc', '{"log": []}', class => 'behind');
SELECT state_append('doc', '{log}', '"a"', class => 'behind');
SELECT seen('doc', 'behind'), stored('doc', 'behind');
SELECT state_set('doc', '{}', expected_version => 1, class => 'behind');
\echo :SQLSTATE
SELECT state_set('doc', '{"n": 5}', expected_version => 4, class => 'behind');
SELECT state_set('new', '{}', expected_version => 0, class => 'behind');
SELECT state_set('new', '{}', expected_version => 0, class => 'behind');
\echo :SQLSTATE
-- A duplicate is none.
SELECT state_set('doc', '{"n": 5}', class => 'behind');
SELECT seen('doc', 'behind');
SELECT counted();
SELECT state_get_text('doc', class => 'behind'), state_exists('doc', class => 'behind'), state_get_path('doc', '{n}', class => 'behind');
SELECT * FROM state_get_many('{doc,new,none}', class => 'behind') ORDER BY key;
SELECT * FROM state_get_if_newer('doc', 4, class => 'behind');

-- state_flush() writes, in its transaction.
BEGIN;
SELECT state_flush('behind');
SELECT stored('doc', 'behind');
ROLLBACK;
SELECT stored('doc', 'behind'), seen('doc', 'behind');
SELECT * FROM unwritten;
BEGIN;
SAVEPOINT s;
SELECT state_flush('behind');
ROLLBACK TO s;
COMMIT;
SELECT * FROM unwritten;
BEGIN;
SAVEPOINT s;
SELECT state_flush('behind');
RELEASE s;
COMMIT;
SELECT * FROM unwritten;
SELECT stored('doc', 'behind'), seen('doc', 'behind'), stored('new', 'behind');
SELECT state_flush('behind');
-- One version was written of five: what it was made from is what the tables held before, nothing.
SELECT version, parent_version FROM state_kept WHERE class = 'behind' AND key = 'doc';
SELECT complaint($$SELECT state_flush('no such class')$$);

-- In one transaction: several flushes, savepoints, rollback.
BEGIN;
SELECT state_set('doc', '{"n": 6}', class => 'behind');
SELECT version, action FROM state_batch_commit();
SAVEPOINT s;
SELECT state_update('doc', '{"undone": true}', class => 'behind');
SELECT version, action FROM state_batch_commit();
SELECT seen('doc', 'behind');
ROLLBACK TO s;
SELECT seen('doc', 'behind');
SELECT state_update('doc', '{"kept": true}', class => 'behind');
COMMIT;
SELECT seen('doc', 'behind'), stored('doc', 'behind');
BEGIN;
SELECT state_set('doc', '{"never": true}', class => 'behind');
SELECT state_batch_commit() IS NOT NULL;
ROLLBACK;
SELECT seen('doc', 'behind');
-- Set and flushed to the tables in one transaction: what was set before is not in L1 yet.
BEGIN;
SELECT state_set('doc', '{"n": 8}', class => 'behind');
SELECT state_flush('behind');
SELECT seen('doc', 'behind'), stored('doc', 'behind');
COMMIT;
SELECT seen('doc', 'behind'), stored('doc', 'behind');
SELECT * FROM unwritten;
SELECT state_flush('behind');

-- A delete is written through, over the dirty version, and versions go on.
SELECT state_set('doc', '{"n": 9}', class => 'behind');
SELECT state_delete('doc', class => 'behind');
SELECT seen('doc', 'behind'), version, deleted FROM state_head WHERE class = 'behind' AND key = 'doc';
SELECT * FROM unwritten;
SELECT state_set('doc', '{"n": "back"}', class => 'behind');
SELECT seen('doc', 'behind');
SELECT * FROM unwritten;
-- One that the tables never held.
SELECT state_set('short lived', '1', class => 'behind');
SELECT state_delete('short lived', class => 'behind');
SELECT state_delete('short lived', class => 'behind');
SELECT seen('short lived', 'behind'), version, deleted FROM state_head WHERE class = 'behind' AND key = 'short lived';

-- A new expiry of a dirty state is left behind as well; an expired one is absent, and written nonetheless.
SELECT state_touch('doc', '1 hour', class => 'behind');
SELECT * FROM unwritten;
SELECT state_flush('behind');
SELECT version, expires_at - now() BETWEEN '59 minutes' AND '1 hour' FROM state_head WHERE class = 'behind' AND key = 'doc';
SELECT state_set('brief', '1', ttl => '20 ms', class => 'behind');
SELECT pg_sleep(0.03);
SELECT seen('brief', 'behind');
SELECT * FROM unwritten;
SELECT state_flush('behind');
SELECT seen('brief', 'behind'), version FROM state_head WHERE class = 'behind' AND key = 'brief';

-- keep: the snapshots kept are those that were written, with gaps between.
SELECT state_class_define('behind', keep => 3);
DO $$
BEGIN
	FOR i IN 1..16 LOOP
		PERFORM state_set('kept', to_jsonb(i), class => 'behind');
		COMMIT;
		IF i % 4 = 0 THEN
			PERFORM state_flush('behind');
			COMMIT;
		END IF;
	END LOOP;
END
$$;
SELECT version, parent_version, state FROM state_snapshot WHERE class = 'behind' AND key = 'kept' ORDER BY version;
SELECT state_delete('kept', class => 'behind');
SELECT version FROM state_snapshot WHERE class = 'behind' AND key = 'kept' ORDER BY version;

-- Gaps as wide as keep.
SELECT state_class_define('behind gaps', write_mode => 'behind', keep => 3);
DO $$
BEGIN
	FOR i IN 1..15 LOOP
		PERFORM state_set('kept', to_jsonb(i), class => 'behind gaps');
		COMMIT;
		IF i % 3 = 0 THEN
			PERFORM state_flush('behind gaps');
			COMMIT;
		END IF;
	END LOOP;
END
$$;
SELECT version, parent_version, state FROM state_snapshot WHERE class = 'behind gaps' ORDER BY version;

-- SERIALIZABLE writes through, over what is dirty.
SELECT state_set('doc', '{"n": "dirty"}', class => 'behind');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state_get('doc', class => 'behind');
SELECT state_update('doc', '{"serializable": true}', class => 'behind');
COMMIT;
SELECT seen('doc', 'behind') = stored('doc', 'behind'), seen('doc', 'behind');
SELECT * FROM unwritten;

-- Rows made by hand in the same transaction: written through.
SELECT state_set('doc', '{"n": "dirty"}', class => 'behind');
BEGIN;
UPDATE state_head SET size = size WHERE class = 'behind' AND key = 'new';
SELECT state_update('doc', '{"hand": true}', class => 'behind');
COMMIT;
SELECT seen('doc', 'behind') = stored('doc', 'behind'), seen('doc', 'behind');
-- A change by hand meets a dirty version. With a lower one it is overwritten by the next flush.
SELECT state_set('doc', '{"n": "dirty"}', class => 'behind');
UPDATE state_head SET updated_at = now() WHERE class = 'behind' AND key = 'doc';
SELECT state_get('doc', class => 'behind');
SELECT * FROM unwritten;
-- With a higher one it has the last word, from its commit on.
BEGIN;
UPDATE state_snapshot SET version = 101 WHERE class = 'behind' AND key = 'doc' AND version = (SELECT version FROM state_head WHERE class = 'behind' AND key = 'doc');
UPDATE state_head SET version = 101 WHERE class = 'behind' AND key = 'doc';
SELECT state_version('doc', class => 'behind');
ROLLBACK;
SELECT state_get('doc', class => 'behind');
BEGIN;
UPDATE state_snapshot SET version = 101 WHERE class = 'behind' AND key = 'doc' AND version = (SELECT version FROM state_head WHERE class = 'behind' AND key = 'doc');
UPDATE state_head SET version = 101 WHERE class = 'behind' AND key = 'doc';
SELECT state_version('doc', class => 'behind');
COMMIT;
SELECT state_version('doc', class => 'behind');
SELECT * FROM unwritten;
-- What is left behind after it counts from there, and is not lost.
SELECT state_set('doc', '{"n": "after"}', class => 'behind');
SELECT state_flush('behind');
SELECT seen('doc', 'behind'), stored('doc', 'behind');
-- DELETE by hand.
SELECT state_set('doc', '{"n": "dirty"}', class => 'behind');
DELETE FROM state_head WHERE class = 'behind' AND key = 'doc';
SELECT seen('doc', 'behind');
SELECT state_set('doc', '{"n": "after"}', class => 'behind');
SELECT state_flush('behind');
SELECT seen('doc', 'behind') = stored('doc', 'behind'), state_get('doc', class => 'behind');

-- Clearing the cache does not lose what only the cache holds.
SELECT state_set('doc', '{"n": "only here"}', class => 'behind');
SELECT state_cache_clear() >= 0, state_cache_clear('behind'), state_invalidate('*', 'behind'), state_invalidate('doc', 'behind');
SELECT state_get('doc', class => 'behind');
SELECT * FROM unwritten;
SET state_cache.enabled = off;
SELECT state_get('doc', class => 'behind');
RESET state_cache.enabled;

-- Changing the mode writes first; a rollback takes that back too.
BEGIN;
SELECT state_class_define('behind', write_mode => 'through');
SELECT count(*) FROM unwritten;
ROLLBACK;
SELECT * FROM unwritten;
SELECT state_class_define('behind', write_mode => 'through');
SELECT * FROM unwritten;
SELECT seen('doc', 'behind') = stored('doc', 'behind'), state_get('doc', class => 'behind');
SELECT state_set('doc', '{"n": "through"}', class => 'behind');
SELECT stored('doc', 'behind') = seen('doc', 'behind');
UPDATE state_class SET write_mode = 'behind' WHERE class = 'behind';
SELECT state_set('doc', '{"n": "behind"}', class => 'behind');
SELECT * FROM unwritten \gset
SELECT :'key' AS key, stored('doc', 'behind') = seen('doc', 'behind') AS stored;
-- So does a class that goes.
DELETE FROM state_class WHERE class = 'behind';
SELECT state FROM state_current WHERE class = 'behind' AND key = 'doc';
SELECT state_class_define('behind', write_mode => 'behind');
SELECT state_get('doc', class => 'behind');

-- Very many states in one transaction.
BEGIN;
SELECT count(state_set('many ' || i, to_jsonb(i), class => 'behind')) FROM generate_series(1, 1000) i;
COMMIT;
SELECT count(*) FROM unwritten;
BEGIN;
SELECT count(state_update('many ' || i, '{}', class => 'behind')) FROM generate_series(1, 1) i;
ROLLBACK;
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		PERFORM state_set('many ' || i, to_jsonb(-i), class => 'behind');
		PERFORM state_batch_commit();
	END LOOP;
END
$$;
SELECT sum(state::int) FROM state_get_many((SELECT array_agg('many ' || i) FROM generate_series(1, 1000) i), class => 'behind');
SELECT state_flush('behind');
SELECT count(*), sum(state::int), max(version) FROM state_current WHERE class = 'behind' AND key LIKE 'many %';

-- A state that L1 does not take is written through.
SELECT written_through AS before FROM state_cache_stats WHERE class = 'behind' \gset
SET state_cache.max_state_size = '70MB';
SELECT state_set('large', jsonb_build_object('n', 1, 'text', repeat('x', 65 * 1024 * 1024)), class => 'behind');
RESET state_cache.max_state_size;
SELECT * FROM unwritten;
SELECT state -> 'n' FROM state_current WHERE class = 'behind' AND key = 'large';
SELECT written_through - :before FROM state_cache_stats WHERE class = 'behind';
SELECT state_delete('large', class => 'behind');

-- Code of users on the tables sees every change: while there is some, everything is written through.
SELECT state_set('doc', '{"n": "dirty"}', class => 'behind');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'not % of %', NEW.version, NEW.key;
END
$$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON state_head FOR EACH ROW WHEN (NEW.class = 'behind') EXECUTE FUNCTION refuse();
SELECT state_set('doc', '{"n": "refused"}', class => 'behind');
\echo :SQLSTATE
SELECT state_flush('behind');
\echo :SQLSTATE
SELECT state_get('doc', class => 'behind');
SELECT count(*) FROM unwritten;
DROP TRIGGER refuse ON state_head;
DROP FUNCTION refuse;

-- Who may do what.
CREATE ROLE regress_state_behind;
GRANT SELECT ON state_cache_unwritten TO regress_state_behind;
SET ROLE regress_state_behind;
SELECT outcome($$SELECT state_flush('behind')$$);
SELECT outcome($$SELECT count(*) FROM state_cache_unwritten$$);
RESET ROLE;
GRANT SELECT ON state_class, state_head, state_snapshot TO regress_state_behind;
SET ROLE regress_state_behind;
SELECT key FROM state_cache_unwritten WHERE class = 'behind';
SELECT outcome($$SELECT state_flush('behind')$$);
SELECT outcome($$SELECT state_set('doc', '1', class => 'behind')$$);
SELECT state_get('doc', class => 'behind');
RESET ROLE;
GRANT INSERT, UPDATE, DELETE ON state_head, state_snapshot TO regress_state_behind;
SET ROLE regress_state_behind;
SELECT state_set('doc', '{"by": "role"}', class => 'behind');
SELECT key FROM state_cache_unwritten WHERE class = 'behind';
SELECT state_flush('behind');
RESET ROLE;
-- Row-level security: L1 does not answer, and what is dirty is written before such a role changes it.
SELECT state_set('doc', '{"n": "dirty"}', class => 'behind');
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON state_head USING (true);
SET ROLE regress_state_behind;
SELECT state_get('doc', class => 'behind');
SELECT outcome($$SELECT count(*) FROM state_cache_unwritten$$);
SELECT state_update('doc', '{"rls": true}', class => 'behind');
SELECT state_get('doc', class => 'behind');
RESET ROLE;
SELECT stored('doc', 'behind') = seen('doc', 'behind');
SELECT * FROM unwritten;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
DROP POLICY everything ON state_head;
REVOKE ALL ON state_class, state_head, state_snapshot, state_cache_unwritten FROM regress_state_behind;
DROP ROLE regress_state_behind;
-- Nothing is written in a transaction that may not write.
BEGIN READ ONLY;
SELECT outcome($$SELECT state_flush('behind')$$);
SELECT outcome($$SELECT state_set('doc', '1', class => 'behind')$$);
COMMIT;
-- A prepared transaction cannot leave anything behind.
BEGIN;
SELECT state_set('doc', '{"prepared": true}', class => 'behind');
PREPARE TRANSACTION 'regress behind';
\echo :SQLSTATE
SELECT state_set('doc', '{"n": "dirty"}', class => 'behind');
BEGIN;
SELECT state_flush('behind');
PREPARE TRANSACTION 'regress behind';
\echo :SQLSTATE
SELECT * FROM unwritten;

-- TRUNCATE takes everything along, also what the tables never held; not if it is rolled back.
SELECT state_set('never stored', '1', class => 'behind');
BEGIN;
TRUNCATE state_head, state_snapshot;
SELECT seen('doc', 'behind'), seen('never stored', 'behind');
ROLLBACK;
SELECT seen('never stored', 'behind');
BEGIN;
TRUNCATE state_head, state_snapshot;
SELECT state_set('after', '1', class => 'behind');
COMMIT;
SELECT seen('doc', 'behind'), seen('never stored', 'behind'), state_get('after', class => 'behind');
SELECT count(*) FROM state_cache_unwritten;

-- The worker does all of it by itself.
CALL await_accepting();
SELECT state_set('doc', '{"n": "by the worker"}', class => 'behind');
ALTER SYSTEM RESET state_cache.flush_interval;
SELECT pg_reload_conf();
DO $$ BEGIN
	WHILE EXISTS (SELECT FROM state_cache_unwritten) LOOP
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT state FROM state_current WHERE class = 'behind' AND key = 'doc';
DROP PROCEDURE await_accepting;
DROP VIEW unwritten;
DROP FUNCTION counted;
