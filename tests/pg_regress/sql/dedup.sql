-- A change that leaves the document as it is stored is skipped: no row, no WAL, no transaction id.
\a \t \pset null (null)
SELECT state_class_define('dedup');
SELECT state_set('doc', '{"a": 1, "b": [1, 2], "c": {"d": null}}', class => 'dedup');

-- Whatever leaves the bytes alone is a duplicate, through any operation and any spelling.
BEGIN;
SELECT state_set('doc', '{"c": {"d": null}, "b": [1,2], "a": 0, "a": 1}', class => 'dedup');
SELECT key, version, action, bytes FROM state_batch_commit();
SELECT state_update('doc', '{"a": 1}', class => 'dedup');
SELECT key, version, action, bytes FROM state_batch_commit();
SELECT state_update('doc', '{}', class => 'dedup');
SELECT key, version, action, bytes FROM state_batch_commit();
SELECT state_update_section('doc', 'c', '{"d": null}', class => 'dedup');
SELECT key, version, action, bytes FROM state_batch_commit();
SELECT state_merge('doc', '{"a": 1, "missing": null}', class => 'dedup');
SELECT key, version, action, bytes FROM state_batch_commit();
-- There and back again is no change either.
SELECT state_update('doc', '{"a": 2}', class => 'dedup');
SELECT state_update('doc', '{"a": 1}', class => 'dedup');
SELECT key, version, action, bytes FROM state_batch_commit();
-- So far no transaction id was taken.
SELECT pg_current_xact_id_if_assigned();
-- Equal to the server is not yet the same bytes: 1.0 is another spelling of 1, and is stored.
SELECT state_set('doc', '{"a": 1.0, "b": [1, 2], "c": {"d": null}}', class => 'dedup');
SELECT key, version, action FROM state_batch_commit();
SELECT pg_current_xact_id_if_assigned() IS NOT NULL;
COMMIT;
SELECT stored('doc', 'dedup');

-- Nor at COMMIT: over five transactions the least that was logged is nothing, and so is the least number of
-- transaction ids used. (The least, since another server process may log or take something in between.)
CREATE PROCEDURE least_use(statement text) LANGUAGE plpgsql AS $$
DECLARE
	start pg_lsn; least_wal numeric; first_xid bigint; least_xids bigint;
BEGIN
	EXECUTE statement;
	COMMIT;
	FOR i IN 1..5 LOOP
		start := pg_current_wal_insert_lsn();
		first_xid := pg_snapshot_xmax(pg_current_snapshot())::text;
		COMMIT;
		EXECUTE statement;
		COMMIT;
		least_wal := least(least_wal, pg_current_wal_insert_lsn() - start);
		least_xids := least(least_xids, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid);
	END LOOP;
	RAISE NOTICE '% bytes of WAL, % transaction ids', CASE WHEN least_wal = 0 THEN 'no' ELSE 'some' END, least_xids;
END
$$;
CALL least_use($$SELECT state_set('doc', '{"a": 1.0, "b": [1, 2], "c": {"d": null}}', class => 'dedup')$$);
CALL least_use($$SELECT state_update('doc', '{"b": [1, 2]}', class => 'dedup')$$);
CALL least_use($$SELECT state_delete('absent', class => 'dedup')$$);
CALL least_use($$SELECT state_get('doc', class => 'dedup'), state_exists('absent', class => 'dedup')$$);
-- A change is, of course.
CALL least_use($$SELECT state_set('doc', to_jsonb(clock_timestamp()), class => 'dedup')$$);
SELECT state_set('doc', '{"n": 0}', class => 'dedup');
-- Ten duplicates and a real change in one transaction write one row.
DO $$ BEGIN FOR i IN 1..10 LOOP PERFORM state_set('same ' || i, '{"n": 0}', class => 'dedup'); END LOOP; END $$;
BEGIN;
SELECT count(state_set('same ' || i, jsonb_build_object('n', CASE i WHEN 7 THEN 1 ELSE 0 END), class => 'dedup')) FROM generate_series(1, 10) i;
SELECT action, count(*) FROM state_batch_commit() GROUP BY action ORDER BY action;
COMMIT;

-- A skip is only against what is stored, so a change made by hand counts.
UPDATE state_head SET state = '{"n": "hand"}', hash = state_hash('{"n": "hand"}') WHERE class = 'dedup' AND key = 'same 1';
SELECT state_set('same 1', '{"n": 0}', class => 'dedup');
SELECT stored('same 1', 'dedup');
-- A failed write is not remembered: the retry writes.
BEGIN;
SELECT state_set('retry', '{"n": 1}', class => 'dedup');
SELECT key, action FROM state_batch_commit();
ROLLBACK;
SELECT state_set('retry', '{"n": 1}', class => 'dedup');
SELECT stored('retry', 'dedup');
-- Nor against a damaged snapshot: that a right head and a wrong document agree on the hash is not enough.
UPDATE state_head SET state = '{"n": "damaged"}' WHERE class = 'dedup' AND key = 'retry';
SELECT state_set('retry', '{"n": 1}', class => 'dedup');
SELECT stored('retry', 'dedup'), seen('retry', 'dedup');
-- Nor against a deleted or an expired state.
SELECT state_delete('retry', class => 'dedup');
SELECT state_set('retry', '{"n": 1}', class => 'dedup');
SELECT stored('retry', 'dedup');
UPDATE state_head SET expires_at = now() - interval '1 second' WHERE class = 'dedup' AND key = 'retry';
SELECT state_set('retry', '{"n": 1}', class => 'dedup');
SELECT stored('retry', 'dedup');

-- Off for a session, or for a class.
BEGIN;
SET LOCAL state_cache.dedup = off;
SELECT state_set('doc', '{"n": 0}', class => 'dedup');
-- It is no duplicate then, and has the version that it will be written with.
SELECT state_version('doc', class => 'dedup');
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT state_class_define('dedup', dedup => false);
BEGIN;
SELECT state_set('doc', '{"n": 0}', class => 'dedup');
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT state_class_define('dedup', dedup => true);
BEGIN;
SELECT state_set('doc', '{"n": 0}', class => 'dedup');
SELECT state_version('doc', class => 'dedup');
SELECT key, version, action FROM state_batch_commit();
COMMIT;

-- With a time to live a duplicate still lives longer from now on, without a version.
SELECT state_set('doc', '{"n": 0}', ttl => '1 hour', class => 'dedup');
SELECT version, expires_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' FROM state_head WHERE class = 'dedup' AND key = 'doc';
SELECT state_set('doc', '{"n": 0}', ttl => '2 hours', class => 'dedup');
SELECT version, expires_at - clock_timestamp() BETWEEN '119 minutes' AND '2 hours' FROM state_head WHERE class = 'dedup' AND key = 'doc';
