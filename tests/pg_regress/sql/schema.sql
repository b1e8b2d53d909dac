-- The extension lives in the schema that CREATE EXTENSION names, and leaves nothing behind that can be read.
\a \t \pset null (null)
SELECT current_database() AS home \gset
CREATE DATABASE regress_state_schema;
\c regress_state_schema
CREATE SCHEMA "Odd ""Schema";
CREATE EXTENSION state_cache SCHEMA "Odd ""Schema";
SELECT extname, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'state_cache';
-- Nothing of it needs the search_path.
SHOW search_path;
SELECT "Odd ""Schema".state_set('doc', '{"s": {"n": 1}, "list": []}');
SELECT "Odd ""Schema".state_update('doc', '{"u": 2}');
SELECT "Odd ""Schema".state_append('doc', '{list}', '3');
SELECT "Odd ""Schema".state_get('doc');
SELECT "Odd ""Schema".state_class_define('mine', keep => 2);
SELECT "Odd ""Schema".state_set('doc', '1', class => 'mine');
SELECT class, key, version, state FROM "Odd ""Schema".state_current ORDER BY class;
UPDATE "Odd ""Schema".state_head SET deleted = true WHERE class = 'mine';
SELECT "Odd ""Schema".state_get('doc', class => 'mine');
SELECT count(*) FROM "Odd ""Schema".state_cache_stats WHERE class IS NULL;
-- The schema may be renamed, also within a transaction that has staged changes.
SELECT "Odd ""Schema".state_set('renamed', '{"n": 0}');
ALTER SCHEMA "Odd ""Schema" RENAME TO "Odder Schema";
SELECT "Odder Schema".state_get('renamed');
BEGIN;
SELECT "Odder Schema".state_set('renamed', '{"n": 1}');
ALTER SCHEMA "Odder Schema" RENAME TO plain;
SELECT plain.state_get('renamed');
COMMIT;
SELECT plain.state_get('renamed'), plain.state_version('doc');
SELECT plain.state_set('renamed', '{"n": 2}');
SELECT key, version, state FROM plain.state_current WHERE class = 'run' ORDER BY key;
ALTER EXTENSION state_cache SET SCHEMA public;
\echo :SQLSTATE

-- DROP EXTENSION and CREATE EXTENSION: an old entry is never read again.
SET search_path = plain, public;
SELECT state_get('doc');
DROP EXTENSION state_cache;
SELECT state_get('doc');
\echo :SQLSTATE
CREATE EXTENSION state_cache;
SELECT state_get('doc'), state_version('doc'), state_exists('renamed');
SELECT state_set('doc', '{"n": "new"}');
SELECT state_get('doc'), state_version('doc');
-- A DROP that is rolled back leaves everything as it was.
BEGIN;
DROP EXTENSION state_cache;
ROLLBACK;
SELECT state_get('doc'), state_version('doc');
-- All in one transaction, with a change staged before and one after.
BEGIN;
SELECT state_set('staged', '{"before": "drop"}');
DROP EXTENSION state_cache;
CREATE EXTENSION state_cache;
SELECT state_get('doc'), state_get('staged');
SELECT state_set('doc', '{"n": "re-created"}');
COMMIT;
SELECT state_get('doc'), state_get('staged'), state_version('doc');
-- A staged change goes with the tables that it was for.
BEGIN;
SELECT state_set('doc', '{"n": "nowhere"}');
DROP EXTENSION state_cache;
COMMIT;
\echo :SQLSTATE
SELECT count(*) FROM pg_extension WHERE extname = 'state_cache';

-- Databases are apart, also where one is a copy of the other.
CREATE EXTENSION IF NOT EXISTS state_cache;
SELECT state_set('doc', '{"in": "the first"}');
\c :home
CREATE DATABASE regress_state_copy TEMPLATE regress_state_schema;
\c regress_state_copy
SET search_path = plain, public;
SELECT state_get('doc') ->> 'in';
SELECT state_set('doc', '{"in": "the copy"}');
SELECT state_get('doc') ->> 'in';
\c regress_state_schema
SET search_path = plain, public;
SELECT state_get('doc') ->> 'in';
SELECT class, key, version FROM state_cache_entries ORDER BY class, key;

-- DROP DATABASE: one of the same name starts empty.
\c :home
DROP DATABASE regress_state_copy;
DROP DATABASE regress_state_schema;
CREATE DATABASE regress_state_schema;
\c regress_state_schema
CREATE EXTENSION state_cache;
SELECT state_get('doc'), state_version('doc');
SELECT count(*) FROM state_cache_entries;
SELECT state_set('doc', '{"n": 1}');
SELECT state_get('doc'), state_version('doc');
\c :home
DROP DATABASE regress_state_schema;
-- Meanwhile nothing happened to the states of this one.
SELECT state_class_define('schema');
SELECT state_set('doc', '{"n": 1}', class => 'schema');
SELECT seen('doc', 'schema');
