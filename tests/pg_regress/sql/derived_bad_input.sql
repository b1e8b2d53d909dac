-- What derived classes refuse.
\a \t \pset null (null)
CREATE TABLE bad (id integer PRIMARY KEY, v text, at timestamptz);
CREATE VIEW bad_view AS SELECT * FROM bad;
CREATE MATERIALIZED VIEW bad_matview AS SELECT * FROM bad;
CREATE TEMP TABLE bad_temp (id integer);
CREATE SEQUENCE bad_sequence;
CREATE FOREIGN DATA WRAPPER bad_wrapper;
CREATE SERVER bad_server FOREIGN DATA WRAPPER bad_wrapper;
CREATE FOREIGN TABLE bad_foreign (id integer) SERVER bad_server;
CREATE FUNCTION bad_volatile() RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION bad_stable(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1';
-- Sources.
SELECT query, complaint(format('SELECT state_class_define(%L, cache_ttl => %L, source => %L)', 'bad', '1 h', query)) FROM (VALUES (1, 'SELECT 1'), (2, 'SELECT NULL::jsonb, 1'), (3, 'SELECT'),
	(4, 'SELECT NULL::json'), (5, 'nonsense'), (6, ' '), (7, 'SELECT NULL::jsonb; SELECT NULL::jsonb'), (8, 'DELETE FROM bad RETURNING to_jsonb(id)'),
	(9, 'WITH d AS (DELETE FROM bad RETURNING id) SELECT to_jsonb(id) FROM d'), (10, 'CREATE TABLE x ()'), (11, 'SELECT to_jsonb(id) INTO x FROM bad'), (12, 'SELECT to_jsonb(id) FROM bad FOR UPDATE'),
	(13, 'SELECT to_jsonb(id) FROM (SELECT id FROM bad FOR SHARE) b'), (14, 'SELECT to_jsonb($2)'), (15, 'SELECT to_jsonb(random())'), (16, 'SELECT to_jsonb(bad_volatile() + nextval(''bad_sequence''))'),
	(17, 'SELECT to_jsonb(current_user)'), (18, 'SELECT to_jsonb(current_setting(''x.y''))'), (19, 'SELECT to_jsonb(has_table_privilege(1, ''SELECT''))'), (20, 'SELECT to_jsonb(id) FROM bad_temp'),
	(21, 'SELECT to_jsonb(id) FROM nowhere'), (22, 'EXPLAIN SELECT NULL::jsonb'), (23, 'TABLE bad'), (24, 'VALUES (NULL::jsonb)')) q (n, query) ORDER BY n;
SELECT count(*) FROM state_class WHERE class = 'bad';
SELECT state_class_define('bad', source => '');
SELECT complaint($$SELECT state_class_define('none', serve_stale => '1 s')$$);
SELECT complaint($$SELECT state_class_define('bad', cache_ttl => '1 h', write_mode => 'behind', source => 'SELECT to_jsonb(id) FROM bad WHERE id = $1::integer')$$);
SELECT complaint($$SELECT state_class_define('bad', cache_ttl => '1 h', serve_stale => '-1 s', source => 'SELECT to_jsonb(id) FROM bad WHERE id = $1::integer')$$);
SELECT state_class_define('bad', cache_ttl => '1 h', serve_stale => '1 s', source => 'SELECT to_jsonb(b) FROM bad b WHERE b.id = $1::integer');
SELECT class, serve_stale FROM state_source;
SELECT state_class_define('bad', serve_stale => '0');
SELECT class, serve_stale FROM state_source;
SELECT complaint($$SELECT state_class_define('bad', write_mode => 'behind')$$);
-- Watches: what cannot be watched.
SELECT relation, complaint(format('SELECT state_watch(%L, %L)', 'bad', relation)) FROM unnest(ARRAY['bad_view', 'bad_matview', 'bad_temp', 'bad_sequence', 'bad_foreign', 'pg_class', 'pg_catalog.pg_proc', 'state_head', 'state_source', 'bad_pkey', 'nowhere']) relation;
SELECT complaint($$SELECT state_watch('run', 'bad')$$), complaint($$SELECT state_watch('nothing', 'bad')$$), complaint($$SELECT state_watch(NULL, 'bad')$$), complaint($$SELECT state_watch('bad', NULL)$$), complaint($$SELECT state_watch('bad', 0)$$);
-- Expressions.
SELECT keys, complaint(format('SELECT state_watch(%L, %L, %L)', 'bad', 'bad', keys)) FROM (VALUES (1, ''), (2, 'nothing'), (3, '(SELECT 1)'), (4, 'max(id)'), (5, 'row_number() OVER ()'), (6, 'generate_series(1, id)'),
	(7, 'id) FROM bad --'), (8, 'id), (v'), (9, 'id FROM bad) b, (SELECT 1'), (10, 'now()'), (11, 'at'), (12, 'bad_stable(v)'), (13, 'random()'), (14, 'v || current_user'), (15, 'id) FROM bad WHERE (true'), (16, '$1'),
	(17, 'id; DROP TABLE bad'), (18, 'at::text'), (19, 'id) FROM bad UNION SELECT (1'), (20, 'bad')) k (n, keys) ORDER BY n;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'bad'::regclass;
SELECT state_watch('bad', 'bad', keys) FROM unnest(ARRAY['id', 'v', 'id + 1', 'ARRAY[id, 2]', 'lower(v)', 'CASE WHEN id > 1 THEN v END', 'id -- a comment']) keys;
SELECT count(*), count(DISTINCT encode(tgargs, 'escape')) FROM pg_trigger WHERE tgrelid = 'bad'::regclass;
-- An expression keeps its meaning under another search_path.
CREATE SCHEMA bad_schema;
CREATE FUNCTION bad_schema.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'decoy' $$;
SET search_path = bad_schema, pg_catalog, public;
SELECT state_unwatch('bad', 'bad'), state_watch('bad', 'bad', 'lower(v)');
SELECT encode(tgargs, 'escape') FROM pg_trigger WHERE tgrelid = 'bad'::regclass ORDER BY 1;
RESET search_path;
SELECT state_unwatch('bad', 'bad'), state_unwatch('bad', 'bad');
-- The trigger function is for triggers that state_watch() makes.
SELECT complaint('SELECT state_source_changed()');
CREATE TRIGGER by_hand BEFORE INSERT ON bad FOR EACH ROW EXECUTE FUNCTION state_source_changed();
SELECT complaint('INSERT INTO bad VALUES (1)');
DROP TRIGGER by_hand ON bad;
-- An expression that fails for a row fails the statement, as that of an index does.
SELECT state_watch('bad', 'bad', '1 / (id - 7)');
SELECT complaint('INSERT INTO bad VALUES (7)');
SELECT state_unwatch('bad', 'bad');
-- Keys.
SELECT complaint($$SELECT state_get('', 'bad')$$), complaint($$SELECT state_get(repeat('x', 1001), 'bad')$$), complaint($$SELECT state_get('x', 'bad')$$), state_get(NULL, 'bad');
\set VERBOSITY default
SELECT state_get('x', 'bad');
-- A class with states does not become a derived one, and back.
SELECT state_class_define('bad-states');
SELECT state_set('1', '{"stored": true}', class => 'bad-states');
SELECT complaint($$SELECT state_class_define('bad-states', cache_ttl => '1 h', source => 'SELECT to_jsonb($1)')$$);
SELECT state_get('1', 'bad-states');
SELECT state_delete('1', class => 'bad-states');
SELECT state_class_define('bad-states', cache_ttl => '1 h', source => 'SELECT to_jsonb($1)');
SELECT state_get('1', 'bad-states');
SELECT state_class_define('bad-states', source => '');
SELECT state_get('1', 'bad-states'), state_version('1', 'bad-states');
SELECT state_set('1', '{"stored": 2}', class => 'bad-states');
SELECT state_version('1', 'bad-states');
-- Nobody knows the keys of a derived class, so they must be named; and a literal alone may be either argument.
SELECT state_class_define('bad-warm', cache_ttl => '1 h', source => 'SELECT to_jsonb($1)');
SELECT complaint($$SELECT state_warm('bad-warm')$$), complaint($$SELECT state_warm('bad-warm', 10)$$), complaint($$SELECT state_warm('bad-warm', '{1}')$$);
SELECT state_warm('bad-warm', keys => '{1,2}'), state_warm('bad-warm', '{1,3}'::text[]), state_warm('bad-warm', ARRAY['1']);
SELECT state_class_define('bad-warm', source => '');
-- By hand.
INSERT INTO state_source VALUES ('bad-states', 'nonsense', 'public');
SELECT complaint($$SELECT state_get('1', 'bad-states')$$);
UPDATE state_source SET query = 'SELECT to_jsonb($1)' WHERE class = 'bad-states';
SELECT state_get('1', 'bad-states');
DELETE FROM state_source WHERE class = 'bad-states';
SELECT state_get('1', 'bad-states');
-- PREPARE TRANSACTION, as after a change of a state.
SELECT state_watch('bad', 'bad', 'id');
BEGIN;
INSERT INTO bad VALUES (1);
PREPARE TRANSACTION 'regress derived';
\echo :SQLSTATE
-- DDL may be prepared.
BEGIN;
ALTER TABLE bad ADD w integer;
PREPARE TRANSACTION 'regress derived';
COMMIT PREPARED 'regress derived';
INSERT INTO bad VALUES (1, 'a');
SELECT state_get('1', 'bad');
SELECT state_class_define('bad', source => '');
DROP FOREIGN DATA WRAPPER bad_wrapper CASCADE;
DROP TABLE bad CASCADE;
