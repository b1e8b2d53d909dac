-- What a transaction has left to the worker (write mode behind), and what happens to the same states after that: changes
-- by hand, staged changes that are dropped, a role that may not read, a flush.
\a \t \pset null (null)
ALTER SYSTEM SET state_cache.flush_interval = '1h';
SELECT pg_reload_conf();
SELECT state_class_define('left', write_mode => 'behind');
-- What stays dirty keeps the worker here.
SELECT state_class_define('left other', write_mode => 'behind');
CREATE PROCEDURE await_accepting() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM state_set('accepting', to_jsonb(clock_timestamp()), class => 'left other');
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM state_cache_unwritten WHERE class = 'left other');
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
CALL await_accepting();
CREATE VIEW unwritten AS SELECT key, version, parked FROM state_cache_unwritten WHERE class = 'left' ORDER BY key;
-- The current version, changed by hand.
CREATE FUNCTION by_hand(name text, number bigint, document jsonb) RETURNS void LANGUAGE sql AS $$
	UPDATE state_snapshot s SET version = number, state = document, hash = state_hash(document) FROM state_head h
		WHERE h.class = 'left' AND h.key = name AND (s.class, s.key, s.version) = (h.class, h.key, h.version);
	UPDATE state_head SET version = number, hash = state_hash(document), state = CASE WHEN state IS NOT NULL THEN document END
		WHERE class = 'left' AND key = name;
$$;
-- Left, then changed by hand in the same transaction: a higher version has the last word, for the transaction itself
-- and after it, and what is acknowledged from then on builds upon it.
SELECT state_set('hand', '{"n": 1}', class => 'left');
SELECT state_flush('left');
BEGIN;
SELECT state_set('hand', '{"n": 2}', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT by_hand('hand', 11, '{"hand": 1}');
SELECT seen('hand', 'left');
COMMIT;
SELECT seen('hand', 'left'), stored('hand', 'left');
SELECT * FROM unwritten;
SELECT state_update('hand', '{"acked": 1}', class => 'left');
SELECT state_flush('left');
SELECT seen('hand', 'left'), stored('hand', 'left');
-- Nobody asks in between.
BEGIN;
SELECT state_set('hand', '{"n": 13}', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT by_hand('hand', 21, '{"hand": 2}');
COMMIT;
SELECT seen('hand', 'left'), stored('hand', 'left');
-- The next change of the transaction builds upon it.
BEGIN;
SELECT state_set('hand', '{"n": 22}', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT by_hand('hand', 31, '{"hand": 3}');
SELECT state_update('hand', '{"after": 1}', class => 'left');
COMMIT;
SELECT seen('hand', 'left'), stored('hand', 'left');
-- Taken back: what was left counts.
BEGIN;
SELECT state_set('hand', '{"n": 33}', class => 'left');
SELECT version, action FROM state_batch_commit();
SAVEPOINT s;
SELECT by_hand('hand', 41, '{"hand": 4}');
SELECT seen('hand', 'left');
ROLLBACK TO s;
SELECT seen('hand', 'left');
COMMIT;
SELECT seen('hand', 'left'), stored('hand', 'left');
SELECT state_flush('left');
-- A lower version, or the same: what was left is the next one.
BEGIN;
SELECT state_set('hand', '{"n": 34}', class => 'left');
SELECT version, action FROM state_batch_commit();
UPDATE state_head SET updated_at = now() WHERE class = 'left' AND key = 'hand';
SELECT seen('hand', 'left');
COMMIT;
SELECT seen('hand', 'left'), stored('hand', 'left');
-- DELETE by hand.
BEGIN;
SELECT state_set('hand', '{"n": 35}', class => 'left');
SELECT version, action FROM state_batch_commit();
DELETE FROM state_head WHERE class = 'left' AND key = 'hand';
SELECT seen('hand', 'left');
COMMIT;
SELECT seen('hand', 'left'), stored('hand', 'left');
SELECT * FROM unwritten;
SELECT state_set('hand', '{"acked": 2}', class => 'left');
SELECT state_flush('left');
SELECT seen('hand', 'left'), stored('hand', 'left');
-- More states by hand than are remembered one by one.
SELECT count(state_set('many ' || i, '1', class => 'left')) FROM generate_series(1, 1001) i;
SELECT state_flush('left');
BEGIN;
SELECT state_set('many 7', '2', class => 'left'), state_set('many 8', '2', class => 'left');
SELECT key, version, action FROM state_batch_commit();
UPDATE state_head SET version = 11 WHERE class = 'left' AND key LIKE 'many %' AND key <> 'many 8';
SELECT seen('many 7', 'left'), seen('many 8', 'left');
COMMIT;
SELECT seen('many 7', 'left'), stored('many 7', 'left'), seen('many 8', 'left'), stored('many 8', 'left');
SELECT * FROM unwritten;
-- TRUNCATE, of what the tables hold and of what they never held.
BEGIN;
SELECT state_set('hand', '{"n": 37}', class => 'left'), state_set('new', '1', class => 'left');
SELECT key, action FROM state_batch_commit();
TRUNCATE state_head, state_snapshot;
SELECT seen('hand', 'left'), seen('new', 'left');
COMMIT;
SELECT seen('hand', 'left'), seen('new', 'left');
SELECT * FROM unwritten;
CALL await_accepting();

-- Left, and what is staged over it dropped: what was left counts again, for reads and for the next changes.
SELECT state_set('doc', '{"o": 1}', class => 'left');
BEGIN;
SELECT state_set('doc', '{"a": 1}', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT state_set('doc', '{"b": 1}', class => 'left');
SELECT state_batch_rollback();
SELECT seen('doc', 'left');
SELECT state_update('doc', '{"c": 1}', class => 'left');
SELECT seen('doc', 'left');
COMMIT;
SELECT seen('doc', 'left');
BEGIN;
SELECT state_set('doc', '{"log": []}', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT state_delete('doc', class => 'left');
SELECT state_batch_rollback();
SELECT state_append('doc', '{log}', '1', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT state_set('doc', '{"d": 1}', class => 'left');
SELECT state_batch_rollback();
SELECT state_set('doc', '{"d": 2}', expected_version => 5, class => 'left');
COMMIT;
SELECT seen('doc', 'left');
-- In an explicit batch.
BEGIN;
SELECT state_batch_begin();
SELECT state_update('doc', '{"e": 1}', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT state_batch_begin();
SELECT state_update('doc', '{"e": 2}', class => 'left');
SELECT state_batch_rollback();
SELECT seen('doc', 'left');
COMMIT;
SELECT seen('doc', 'left');

-- Staged so often that not every step of it is remembered.
BEGIN;
SELECT state_set('doc', '{"f": 1}', class => 'left');
SELECT version, action FROM state_batch_commit();
DO $$
BEGIN
	FOR i IN 1..40 LOOP
		PERFORM state_set('doc', to_jsonb(i), class => 'left');
	END LOOP;
END
$$;
SELECT state_batch_rollback();
SELECT seen('doc', 'left');
COMMIT;
SELECT seen('doc', 'left');

-- What only L1 holds is told apart from what the tables hold: after a flush a row that is deleted by hand is gone, also
-- if the state has been changed again in the transaction of the flush.
SELECT state_set('flushed', '1', class => 'left');
BEGIN;
SELECT state_flush('left');
SELECT state_set('flushed', '2', class => 'left');
COMMIT;
SELECT seen('flushed', 'left'), stored('flushed', 'left');
DELETE FROM state_head WHERE class = 'left' AND key = 'flushed';
SELECT seen('flushed', 'left');
SELECT * FROM unwritten;
-- Deleted and set again in one transaction, over a dirty version: what follows rows of its own is written with them.
SELECT state_set('again', '1', class => 'left');
SELECT state_flush('left');
SELECT state_set('again', '2', class => 'left');
BEGIN;
SELECT state_delete('again', class => 'left');
SELECT version, action FROM state_batch_commit();
SELECT state_set('again', '"acked"', class => 'left');
COMMIT;
SELECT seen('again', 'left'), version, deleted FROM state_head WHERE class = 'left' AND key = 'again';
SELECT state_flush('left');
SELECT seen('again', 'left'), stored('again', 'left');

-- A role without rights gets nothing of what its transaction has left for another one.
CREATE ROLE regress_state_left;
CREATE FUNCTION definer_leave(key text, state jsonb) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
	SELECT state_set(key, state, class => 'left');
	SELECT count(*) FROM state_batch_commit()
$$;
SET ROLE regress_state_left;
BEGIN;
SELECT definer_leave('secret', '{"s": 1}');
SELECT outcome(format(call, 'secret')) FROM unnest(ARRAY[
	$q$SELECT state_get(%L, class => 'left')$q$,
	$q$SELECT state_get_text(%L, class => 'left')$q$,
	$q$SELECT state_get_path(%L, '{s}', class => 'left')$q$,
	$q$SELECT state_get_section(%L, 's', class => 'left')$q$,
	$q$SELECT * FROM state_get_many(ARRAY[%L], class => 'left')$q$,
	$q$SELECT * FROM state_get_if_newer(%L, 0, class => 'left')$q$,
	$q$SELECT state_version(%L, class => 'left')$q$,
	$q$SELECT state_exists(%L, class => 'left')$q$,
	$q$SELECT state_update(%L, '{}', class => 'left')$q$]) call;
SELECT state_get('secret', class => 'left');
\echo :SQLSTATE
ROLLBACK;
RESET ROLE;
-- One that a policy shows some states only.
GRANT SELECT ON state_head, state_snapshot TO regress_state_left;
CREATE POLICY tenant ON state_head TO regress_state_left USING (key LIKE 't-%');
CREATE POLICY tenant ON state_snapshot TO regress_state_left USING (key LIKE 't-%');
CREATE FUNCTION definer_policies(what text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
	EXECUTE format('ALTER TABLE state_head %s ROW LEVEL SECURITY', what);
	EXECUTE format('ALTER TABLE state_snapshot %s ROW LEVEL SECURITY', what);
END
$$;
SET ROLE regress_state_left;
BEGIN;
SELECT definer_leave('secret', '{"s": 1}');
SELECT definer_leave('t-1', '{"t": 1}');
SELECT definer_policies('ENABLE');
SELECT state_get('secret', class => 'left');
SELECT state_get('t-1', class => 'left');
ROLLBACK;
RESET ROLE;
DROP FUNCTION definer_leave, definer_policies;
DROP POLICY tenant ON state_head;
DROP POLICY tenant ON state_snapshot;
REVOKE ALL ON state_head, state_snapshot FROM regress_state_left;
DROP ROLE regress_state_left;

-- The row of a class goes in a way that no trigger sees: what is dirty is written nonetheless, by whoever flushes all.
SELECT state_class_define('left alone', write_mode => 'behind');
SELECT state_set('orphan', '1', class => 'left alone'), state_set('doc', '{"g": 1}', class => 'left');
ALTER TABLE state_class DISABLE TRIGGER state_class_changing;
DELETE FROM state_class WHERE class = 'left alone';
ALTER TABLE state_class ENABLE ALWAYS TRIGGER state_class_changing;
SELECT state_flush() > 0;
SELECT class FROM state_cache_unwritten;
SELECT state FROM state_kept WHERE class = 'left alone' AND key = 'orphan';
SELECT stored('doc', 'left');
DELETE FROM state_head WHERE class = 'left alone';

-- Versions end far away: there are always some after one that was made by hand.
CREATE FUNCTION row_with_version(number bigint) RETURNS void LANGUAGE sql AS $$
	INSERT INTO state_snapshot (class, key, version, hash, state) VALUES ('left', 'high', number, state_hash('1'), '1');
	INSERT INTO state_head (class, key, version, hash, size) VALUES ('left', 'high', number, state_hash('1'), 1);
$$;
SELECT complaint('SELECT row_with_version(9223372036854775807)');
SELECT complaint('SELECT row_with_version(4611686018427387905)');
SELECT complaint('SELECT row_with_version(4611686018427387904)');
SELECT complaint($$UPDATE state_head SET version = version + 1 WHERE class = 'left' AND key = 'high'$$);
DELETE FROM state_head WHERE class = 'left' AND key = 'high';
DELETE FROM state_snapshot WHERE class = 'left' AND key = 'high';
SELECT state_set('high', '2', class => 'left');
SELECT seen('high', 'left');
SELECT state_flush('left');
SELECT seen('high', 'left'), stored('high', 'left');
SELECT state_delete('high', class => 'left');
SELECT state_set('high', '3', class => 'left');
SELECT seen('high', 'left');

ALTER SYSTEM RESET state_cache.flush_interval;
SELECT pg_reload_conf();
SELECT state_class_define('left', write_mode => 'through');
SELECT state_class_define('left other', write_mode => 'through');
DROP FUNCTION row_with_version, by_hand;
DROP PROCEDURE await_accepting;
DROP VIEW unwritten;
