-- The extension dropped and created again, or its tables renamed, in a transaction that has changed states: what was for
-- the old tables is gone with them, and nothing that was acknowledged is lost in silence.
\a \t \pset null (null)
SELECT current_database() AS home \gset
CREATE DATABASE regress_state_reinstall;
\c regress_state_reinstall

-- Flushed, dropped, created again, and changed again: the first change was in the tables that are gone.
CREATE EXTENSION state_cache;
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN state_updated;
\o '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
BEGIN;
SELECT state_set('before', '1');
SELECT key, action FROM state_batch_commit();
DROP EXTENSION state_cache;
CREATE EXTENSION state_cache;
SELECT state_set('after', '2');
COMMIT;
\o
UNLISTEN *;
SELECT state_get('before'), state_get('after');
SELECT key, version, state FROM state_current;
\c
SELECT state_get('before'), state_get('after');
-- The same document again is no duplicate of it.
SELECT state_set('before', '1');
SELECT state_get('before'), state_version('before');
SELECT key, version, state FROM state_current ORDER BY key;
-- The same with the same key on both sides.
BEGIN;
SELECT state_set('after', '{"in": "the old tables"}');
SELECT key, version, action FROM state_batch_commit();
DROP EXTENSION state_cache;
CREATE EXTENSION state_cache;
SELECT state_get('after');
SELECT state_set('after', '{"in": "the new tables"}');
SELECT state_version('after');
COMMIT;
SELECT state_get('after'), state_version('after');
SELECT key, version, state FROM state_current;
\c
SELECT state_get('after'), state_version('after');
-- With changes on one side only.
BEGIN;
SELECT state_set('before', '1');
SELECT key, version, action FROM state_batch_commit();
DROP EXTENSION state_cache;
CREATE EXTENSION state_cache;
COMMIT;
SELECT state_get('before'), state_get('after'), (SELECT count(*) FROM state_head);

-- Dropped and created again in a part that is rolled back: the changes belong to the first tables, as before.
CREATE SCHEMA elsewhere;
SELECT state_set('doc', '{"v": 1}'), state_set('staged', '{"v": 1}');
SELECT state_get('doc'), state_get('staged');
BEGIN;
SELECT state_set('doc', '{"v": 2}');
SELECT key, version, action FROM state_batch_commit();
SELECT state_set('staged', '{"v": 2}');
SAVEPOINT a;
DROP EXTENSION state_cache;
CREATE EXTENSION state_cache SCHEMA elsewhere;
SELECT elsewhere.state_set('doc', '{"v": "elsewhere"}');
SELECT key, version, action FROM elsewhere.state_batch_commit();
SELECT elsewhere.state_set('staged', '{"v": "elsewhere"}');
ROLLBACK TO a;
SELECT state_get('doc'), state_get('staged');
COMMIT;
SELECT state_get('doc'), state_get('staged');
\c
SELECT state_get('doc'), state_get('staged');
SELECT key, version, state FROM state_current ORDER BY key;
TRUNCATE state_head, state_snapshot;

-- Tables that are renamed when COMMIT comes to write them: the transaction fails, and says why.
SELECT state_set('doc', '{"v": 1}');
BEGIN;
SELECT state_set('doc', '{"v": 2}');
ALTER TABLE state_head RENAME TO renamed;
COMMIT;
\echo :SQLSTATE
SELECT state_get('doc');
BEGIN;
SELECT state_set('doc', '{"v": 3}');
ALTER TABLE state_head RENAME TO renamed;
SELECT state_get('doc');
\echo :SQLSTATE
ROLLBACK;
ALTER TABLE state_snapshot RENAME TO renamed;
SELECT state_set('doc', '{"v": 4}');
\echo :SQLSTATE
SELECT state_set('new', '{"v": 4}');
\echo :SQLSTATE
ALTER TABLE renamed RENAME TO state_snapshot;
SELECT state_get('doc'), state_version('doc'), state_exists('new');
-- Back in its place before COMMIT, it is as if nothing had happened.
BEGIN;
SELECT state_set('doc', '{"v": 5}');
ALTER TABLE state_head RENAME TO renamed;
ALTER TABLE renamed RENAME TO state_head;
COMMIT;
SELECT state_get('doc'), state_version('doc');
SELECT key, version, state FROM state_current;
-- A transaction that drops the extension itself drops what it has staged.
BEGIN;
SELECT state_set('doc', '{"v": 6}');
DROP EXTENSION state_cache;
COMMIT;
\echo :SQLSTATE
SELECT to_regclass('state_head');
\c :home
DROP DATABASE regress_state_reinstall;
