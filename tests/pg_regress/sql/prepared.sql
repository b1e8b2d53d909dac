-- PREPARE TRANSACTION is refused where the cache would have to remember, as PostgreSQL does after NOTIFY.
-- (The server runs with max_prepared_transactions above 0.)
\a \t \pset null (null)
SELECT current_setting('max_prepared_transactions')::int > 0;
SELECT state_class_define('prepared');
SELECT state_set('doc', '{"n": 1}', class => 'prepared');

-- Staged.
BEGIN;
SELECT state_set('doc', '{"n": 2}', class => 'prepared');
PREPARE TRANSACTION 'regress staged';
\echo :SQLSTATE
-- Flushed.
BEGIN;
SELECT state_set('doc', '{"n": 2}', class => 'prepared');
SELECT key, action FROM state_batch_commit();
PREPARE TRANSACTION 'regress flushed';
\echo :SQLSTATE
-- By hand, TRUNCATE included.
BEGIN;
UPDATE state_head SET deleted = true WHERE class = 'prepared';
PREPARE TRANSACTION 'regress by hand';
\echo :SQLSTATE
BEGIN;
TRUNCATE state_head, state_snapshot;
PREPARE TRANSACTION 'regress truncated';
\echo :SQLSTATE
-- An invalidation announced: as after any NOTIFY.
BEGIN;
SELECT state_invalidate('no such key', 'prepared');
PREPARE TRANSACTION 'regress invalidate';
\echo :SQLSTATE
SELECT seen('doc', 'prepared'), stored('doc', 'prepared');
SELECT gid FROM pg_prepared_xacts;

-- A class is no state: its definition may wait for COMMIT PREPARED, and is known from then on.
BEGIN;
SELECT state_class_define('prepared too');
PREPARE TRANSACTION 'regress class';
SELECT state_get('doc', class => 'prepared too');
COMMIT PREPARED 'regress class';
SELECT state_set('doc', '{"n": 1}', class => 'prepared too');
SELECT seen('doc', 'prepared too');
BEGIN;
SELECT state_class_define('prepared too', ttl => '1 hour');
PREPARE TRANSACTION 'regress class';
ROLLBACK PREPARED 'regress class';
SELECT state_set('doc', '{"n": 2}', class => 'prepared too');
SELECT version, expires_at FROM state_head WHERE class = 'prepared too';

-- What was only read, or staged and dropped again, is in nobody's way.
BEGIN;
CREATE TABLE prepared_table (n int);
SELECT seen('doc', 'prepared');
SAVEPOINT s;
SELECT state_set('doc', '{"n": 3}', class => 'prepared');
ROLLBACK TO s;
PREPARE TRANSACTION 'regress read';
COMMIT PREPARED 'regress read';
SELECT count(*) FROM prepared_table;
SELECT seen('doc', 'prepared');
-- A batch that is open without anything in it.
BEGIN;
SELECT state_batch_begin();
PREPARE TRANSACTION 'regress open';
ROLLBACK PREPARED 'regress open';
BEGIN;
SELECT state_batch_begin();
COMMIT;

-- Prepared statements are another matter: they work, with parameters, again and again.
PREPARE get_state(text) AS SELECT state_get($1, class => 'prepared');
PREPARE set_state(text, jsonb) AS SELECT state_set($1, $2, class => 'prepared');
SET plan_cache_mode = force_generic_plan;
EXECUTE get_state('doc');
EXECUTE set_state('doc', '{"n": 4}');
EXECUTE get_state('doc');
BEGIN;
EXECUTE set_state('doc', '{"n": 5}');
EXECUTE get_state('doc');
ROLLBACK;
EXECUTE get_state('doc');
RESET plan_cache_mode;
