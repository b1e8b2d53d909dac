-- What subscribers hear of documents of derived classes: keys without versions, or that all of the class is to be dropped.
\a \t \pset null (null)
\set heard '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
SET state_cache.notify = commit;
CREATE TABLE dm (id integer PRIMARY KEY, v text);
CREATE TABLE dm_all (v text);
SELECT state_class_define('dm', cache_ttl => '1 h', channel => 'dm_channel', source => 'SELECT to_jsonb(v) FROM dm WHERE id = $1::integer');
SELECT state_watch('dm', 'dm', 'id'), state_watch('dm', 'dm_all');
LISTEN dm_channel;
LISTEN cache_invalidate;
LISTEN state_updated;
\o :heard
INSERT INTO dm VALUES (1, 'a'), (2, 'b');
UPDATE dm SET id = 3 WHERE id = 2;
\qecho one change of several rows, and only what was not rolled back:
BEGIN; UPDATE dm SET v = 'x' WHERE id = 1; SAVEPOINT s; DELETE FROM dm WHERE id = 3; ROLLBACK TO s; UPDATE dm SET v = 'y' WHERE id = 1; COMMIT;
\qecho nothing:
BEGIN; DELETE FROM dm; ROLLBACK;
UPDATE dm SET v = 'z' WHERE id = 99;
\qecho all of the class:
INSERT INTO dm_all VALUES ('x');
TRUNCATE dm;
INSERT INTO dm SELECT g, 'many' FROM generate_series(1, 2000) g;
\qecho states and documents of one transaction:
BEGIN; SELECT state_set('dm-state', '1'); UPDATE dm SET v = 'both' WHERE id = 1; COMMIT;
SELECT state_invalidate('1*', class => 'dm');
\o
UNLISTEN *;
-- Who was away.
SELECT cursor AS c1 FROM state_cursor() \gset
SELECT class, key, version, op FROM state_changes(:'c1') WHERE class LIKE 'dm%' OR op = 'end';
UPDATE dm SET v = 'away' WHERE id = 1;
SELECT class, key, version, op, cursor IS NULL FROM state_changes(:'c1') WHERE class LIKE 'dm%' OR op = 'end';
SELECT cursor AS c2 FROM state_changes(:'c1') WHERE op = 'end' \gset
SELECT class, key, version, op FROM state_changes(:'c2') WHERE class LIKE 'dm%' OR op = 'end';
INSERT INTO dm_all VALUES ('away');
SELECT class, key, version, op FROM state_changes(:'c2') WHERE class LIKE 'dm%' OR op = 'end';
SELECT cursor AS c3 FROM state_changes(:'c2') WHERE op = 'end' \gset
BEGIN; UPDATE dm SET v = 'never'; ROLLBACK;
SELECT class, key, version, op FROM state_changes(:'c3') WHERE class LIKE 'dm%' OR op = 'end';
ALTER TABLE dm ADD w integer;
SELECT class, key, version, op FROM state_changes(:'c3') WHERE class LIKE 'dm%' OR op = 'end';
-- States that there are now; who holds nothing need not be told of documents.
SELECT class, key, version, op FROM state_changes() WHERE class LIKE 'dm%';
LISTEN dm_channel;
LISTEN cache_invalidate;
\o :heard
\qecho DDL:
ALTER TABLE dm DROP w;
CREATE TEMP TABLE dm_temp ();
\qecho a class that is not told:
SELECT state_class_define('dm', notify => 'off');
UPDATE dm SET v = 'silent' WHERE id = 1;
SELECT state_get('1', 'dm');
\o
UNLISTEN *;
SELECT state_class_define('dm', source => '', notify => 'default');
-- A class that is a derived one no more hears nothing, whatever triggers are left.
LISTEN dm_channel;
UPDATE dm SET v = 'left' WHERE id = 1;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'dm'::regclass;
SELECT state_unwatch('dm', 'dm'), state_unwatch('dm', 'dm_all');
DROP TABLE dm, dm_all;
