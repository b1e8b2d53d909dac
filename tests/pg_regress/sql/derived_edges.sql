-- A catalogue of what changes a document of a derived class, each case with a number. answer() is derived.sql's: it
-- says WRONG where a document is not what its source gives.
\a \t \pset null (null)
CREATE TABLE d (id bigint PRIMARY KEY, v text, extra text);
CREATE TABLE d_part (d_id bigint REFERENCES d ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED, n integer);
CREATE FUNCTION d_shout(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN v || '!'; END $$;
SELECT state_class_define('d', cache_ttl => '1 day', source => $$
	SELECT jsonb_build_array(d_shout(d.v), (SELECT jsonb_agg(n ORDER BY n) FROM d_part WHERE d_id = d.id)) FROM d WHERE d.id = $1::bigint $$);
SELECT state_watch('d', 'd', 'id'), state_watch('d', 'd_part', 'd_id');
SELECT state_class_define('d', cache_ttl => '0');
-- both() reads documents 1 and 2, twice: what was there, and what is kept of it.
CREATE FUNCTION both_answers() RETURNS TABLE (one text, two text) LANGUAGE sql VOLATILE AS $$
	SELECT answer('1', 'd') || ', ' || answer('1', 'd'), answer('2', 'd') || ', ' || answer('2', 'd') $$;
INSERT INTO d VALUES (1, 'a'), (2, 'b');
SELECT * FROM both_answers();

-- 1. An UPDATE of one row leaves the others alone.
UPDATE d SET v = 'A' WHERE id = 1;
SELECT * FROM both_answers();
-- 2. An UPDATE of the key concerns both keys; a cascade does as well.
INSERT INTO d_part VALUES (1, 10), (2, 20);
SELECT * FROM both_answers();
UPDATE d SET id = 3 WHERE id = 2;
SELECT * FROM both_answers();
UPDATE d SET id = 2 WHERE id = 3;
SELECT * FROM both_answers();
-- 3. INSERT ... ON CONFLICT.
INSERT INTO d VALUES (1, 'x'), (2, 'y') ON CONFLICT (id) DO UPDATE SET v = d.v || EXCLUDED.v;
SELECT * FROM both_answers();
INSERT INTO d VALUES (1, 'z') ON CONFLICT DO NOTHING;
SELECT * FROM both_answers();
-- 4. MERGE.
MERGE INTO d USING (VALUES (1), (2)) s (id) ON s.id = d.id WHEN MATCHED AND d.id = 1 THEN UPDATE SET v = 'm' WHEN MATCHED THEN DO NOTHING;
SELECT * FROM both_answers();
-- 5. COPY.
COPY d_part FROM STDIN;
1	11
\.
SELECT * FROM both_answers();
-- 6. A cascade of a DELETE, and a trigger of the application's that changes another table.
CREATE FUNCTION d_log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO d_part VALUES (2, 22); RETURN NULL; END $$;
CREATE TRIGGER d_log AFTER UPDATE OF extra ON d FOR EACH STATEMENT EXECUTE FUNCTION d_log();
SELECT * FROM both_answers();
UPDATE d SET extra = 'e' WHERE id = 1;
SELECT * FROM both_answers();
DELETE FROM d WHERE id = 2;
SELECT * FROM both_answers();
INSERT INTO d VALUES (2, 'b');
-- 7. What a deferred constraint trigger does at COMMIT.
CREATE FUNCTION d_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE d SET v = v || 'L' WHERE id = 2; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER d_late AFTER INSERT ON d_part DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.n = 77) EXECUTE FUNCTION d_late();
SELECT * FROM both_answers();
INSERT INTO d_part VALUES (1, 77);
SELECT * FROM both_answers();
-- 8. Savepoints: what was rolled back changes nothing for others, what was kept does.
BEGIN; SAVEPOINT a; UPDATE d SET v = 'never' WHERE id = 1; ROLLBACK TO a; SAVEPOINT b; UPDATE d SET v = 'kept' WHERE id = 2; RELEASE b; COMMIT;
SELECT * FROM both_answers();
BEGIN; DELETE FROM d; ROLLBACK;
SELECT * FROM both_answers();
-- 9. TRUNCATE.
BEGIN; TRUNCATE d CASCADE; SELECT * FROM both_answers(); COMMIT;
SELECT * FROM both_answers();
INSERT INTO d VALUES (1, 'a'), (2, 'b');
-- 10. As a replica, as logical replication's worker is.
SELECT * FROM both_answers();
SET session_replication_role = replica;
UPDATE d SET v = 'replicated' WHERE id = 1;
RESET session_replication_role;
SELECT * FROM both_answers();
-- 11. More rows than are remembered: all of the class. And a key of which there is no document.
UPDATE d SET v = 'bulk' WHERE id = 1;
INSERT INTO d SELECT g, 'many' FROM generate_series(100, 1200) g;
SELECT * FROM both_answers();
INSERT INTO d VALUES (99, 'one more');
SELECT * FROM both_answers();
-- 12. The body of a function is changed, a function is dropped and made again.
CREATE OR REPLACE FUNCTION d_shout(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN v || '?'; END $$;
SELECT * FROM both_answers();
-- 13. VACUUM FULL and CLUSTER write all rows anew and change none.
VACUUM FULL d;
SELECT * FROM both_answers();
CLUSTER d USING d_pkey;
SELECT * FROM both_answers();
-- 14. A rewrite that changes what the columns hold.
ALTER TABLE d ALTER v TYPE text USING upper(v);
SELECT * FROM both_answers();
-- 15. A trigger that is disabled is noticed: the source itself answers.
ALTER TABLE d DISABLE TRIGGER ALL;
SELECT class, exact, reason ~ '^trigger state_watch_[0-9a-f]+_(rows|statements) on public.d is not ENABLE ALWAYS$' FROM state_sources;
UPDATE d SET v = 'unseen' WHERE id = 1;
SELECT * FROM both_answers();
ALTER TABLE d ENABLE TRIGGER USER;
SELECT exact FROM state_sources;
SELECT state_watch('d', 'd', 'id');
SELECT exact FROM state_sources;
SELECT * FROM both_answers();
-- 16. A column that the keys name is renamed: readers go past L1, and writers go on.
ALTER TABLE d_part RENAME d_id TO of;
SELECT exact, reason FROM state_sources;
INSERT INTO d_part VALUES (1, 5);
SELECT complaint($$SELECT state_get('1', 'd')$$);
SELECT state_class_define('d', cache_ttl => '1 h', source => 'SELECT jsonb_build_array(d.v, (SELECT count(*) FROM d_part WHERE of = d.id)) FROM d WHERE d.id = $1::bigint');
SELECT exact, reason FROM state_sources;
SELECT state_unwatch('d', 'd_part'), state_watch('d', 'd_part', 'of');
SELECT exact, reason FROM state_sources;
SELECT * FROM both_answers();
INSERT INTO d_part VALUES (1, 6);
SELECT * FROM both_answers();
-- 17. A table that is renamed: the source names another one, or none. Its watches follow it.
ALTER TABLE d_part RENAME TO d_old;
SELECT exact, reason FROM state_sources;
CREATE VIEW d_part AS SELECT * FROM d_old WHERE n > 5;
SELECT exact, reason, relations FROM state_sources;
SELECT * FROM both_answers();
INSERT INTO d_old VALUES (1, 7), (2, 1);
SELECT * FROM both_answers();
CREATE OR REPLACE VIEW d_part AS SELECT * FROM d_old;
SELECT * FROM both_answers();
-- 18. A new column, where the source takes the whole row.
SELECT state_class_define('d', source => 'SELECT to_jsonb(d) FROM d WHERE d.id = $1::bigint');
SELECT * FROM both_answers();
ALTER TABLE d ADD more integer DEFAULT 4;
SELECT * FROM both_answers();
ALTER TABLE d DROP extra;
SELECT * FROM both_answers();
-- 19. A key that is written otherwise than the watch writes it: right, and not kept.
SELECT answer('01', 'd'), answer('01', 'd'), answer(' 1', 'd');
-- 20. Roles: a hit needs the privileges that the source needs, and a REVOKE holds at once.
CREATE ROLE regress_derived;
SET ROLE regress_derived;
SELECT outcome($$SELECT state_get('1', 'd')$$);
RESET ROLE;
GRANT SELECT ON d TO regress_derived;
SELECT state_get('1', 'd') IS NULL;
SET ROLE regress_derived;
SELECT outcome($$SELECT state_get('1', 'd')$$);
SELECT outcome($$SELECT state_watch('d', 'd', 'v')$$), outcome($$SELECT state_unwatch('d', 'd')$$), outcome($$SELECT state_class_define('d', source => 'SELECT NULL::jsonb')$$);
RESET ROLE;
REVOKE SELECT ON d FROM regress_derived;
SET ROLE regress_derived;
SELECT outcome($$SELECT state_get('1', 'd')$$);
RESET ROLE;
GRANT SELECT (id, v) ON d TO regress_derived;
SELECT state_class_define('d', source => 'SELECT to_jsonb(d.v) FROM d WHERE d.id = $1::bigint');
SELECT state_get('1', 'd');
SET ROLE regress_derived;
SELECT state_get('1', 'd');
RESET ROLE;
SELECT hits, bypass_privileges FROM (SELECT to_jsonb(s) - 'class' FROM state_cache_stats s WHERE class = 'd') s (s), jsonb_to_record(s) AS r (hits bigint, bypass_privileges bigint);
-- 21. Row-level security: the source itself answers, whoever asks.
GRANT SELECT ON d TO regress_derived;
ALTER TABLE d ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON d TO regress_derived USING (id = 2);
SELECT state_get('1', 'd');
SET ROLE regress_derived;
SELECT state_get('1', 'd'), state_get('2', 'd');
RESET ROLE;
SELECT exact, reason FROM state_sources;
ALTER TABLE d DISABLE ROW LEVEL SECURITY;
SELECT state_get('1', 'd');
SET ROLE regress_derived;
SELECT state_get('1', 'd'), state_get('2', 'd');
RESET ROLE;
-- 22. Another owner of a table.
ALTER TABLE d OWNER TO regress_derived;
SELECT * FROM both_answers();
SET ROLE regress_derived;
UPDATE d SET v = 'mine' WHERE id = 1;
RESET ROLE;
SELECT * FROM both_answers();
-- 23. Several watches of one class on one table; keys in an array; NULL for all of the class.
CREATE TABLE pairs (a text, b text, c text[]);
SELECT state_class_define('pair', cache_ttl => '1 h', source => 'SELECT jsonb_agg(to_jsonb(p) ORDER BY a, b) FROM pairs p WHERE $1 IN (a, b) OR $1 = ANY (c)');
SELECT state_watch('pair', 'pairs', 'a'), state_watch('pair', 'pairs', 'b'), state_watch('pair', 'pairs', 'c'), state_watch('pair', 'pairs', 'c');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'pairs'::regclass;
SELECT exact, reason FROM state_sources WHERE class = 'pair';
CREATE FUNCTION pair_answers() RETURNS TABLE (x text, y text, z text) LANGUAGE sql VOLATILE AS $$
	SELECT split_part(answer('x', 'pair'), ' [', 1), split_part(answer('y', 'pair'), ' [', 1), split_part(answer('z', 'pair'), ' [', 1) $$;
SELECT * FROM pair_answers();
INSERT INTO pairs VALUES ('x', 'y', '{}');
SELECT * FROM pair_answers();
INSERT INTO pairs VALUES ('x', 'q', '{q,z}');
SELECT * FROM pair_answers();
UPDATE pairs SET b = 'r' WHERE b = 'q';
SELECT * FROM pair_answers();
INSERT INTO pairs VALUES ('q', 'r', NULL);
SELECT * FROM pair_answers();
INSERT INTO pairs VALUES ('q', 'r', '{q,NULL}');
SELECT * FROM pair_answers();
-- 24. Partitions: rows that move, changes of a partition itself, ATTACH, DETACH, DROP, TRUNCATE.
CREATE TABLE parts (id integer, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 (v text, dropped text, id integer);
ALTER TABLE parts_2 DROP dropped;
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20);
SELECT state_class_define('parts', cache_ttl => '1 h', source => 'SELECT to_jsonb(array_agg(v ORDER BY v)) FROM parts WHERE id = $1::integer');
SELECT state_watch('parts', 'parts', 'id');
SELECT exact, reason FROM state_sources WHERE class = 'parts';
INSERT INTO parts VALUES (1, 'a'), (11, 'b');
CREATE FUNCTION parts_answers() RETURNS TABLE (one text, eleven text, more text) LANGUAGE sql VOLATILE AS $$ SELECT answer('1', 'parts'), answer('11', 'parts'), answer('21', 'parts') $$;
SELECT * FROM parts_answers();
UPDATE parts SET id = 11 WHERE id = 1;
SELECT * FROM parts_answers();
SELECT * FROM parts_answers();
UPDATE parts_2 SET v = 'c' WHERE v = 'b';
SELECT * FROM parts_answers();
CREATE TABLE parts_3 (id integer, v text);
INSERT INTO parts_3 VALUES (21, 'new');
ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30);
SELECT * FROM parts_answers();
UPDATE parts_3 SET v = 'newer';
SELECT * FROM parts_answers();
TRUNCATE parts_3;
SELECT * FROM parts_answers();
INSERT INTO parts_3 VALUES (21, 'back');
ALTER TABLE parts DETACH PARTITION parts_3;
SELECT * FROM parts_answers();
DROP TABLE parts_2;
SELECT * FROM parts_answers();
ALTER TABLE parts_1 DISABLE TRIGGER ALL;
SELECT exact, split_part(reason, ' on ', 2) FROM state_sources WHERE class = 'parts';
-- 25. Inheritance: children have watches of their own.
CREATE TABLE mother (id integer, v text);
CREATE TABLE child () INHERITS (mother);
SELECT state_class_define('mother', cache_ttl => '1 h', source => 'SELECT to_jsonb(array_agg(v ORDER BY v)) FROM mother WHERE id = $1::integer');
SELECT state_watch('mother', 'mother', 'id');
SELECT exact, reason FROM state_sources WHERE class = 'mother';
SELECT state_watch('mother', 'child', 'id');
SELECT exact, reason FROM state_sources WHERE class = 'mother';
INSERT INTO child VALUES (1, 'a');
SELECT answer('1', 'mother'), answer('1', 'mother');
UPDATE child SET v = 'b';
SELECT answer('1', 'mother'), answer('1', 'mother');
TRUNCATE child;
SELECT answer('1', 'mother');
-- 26. What no watch can see has an age: the clock, functions of users, catalogs, sequences, states.
CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM pairs';
CREATE SEQUENCE numbers;
SELECT state_class_define('age-' || n, cache_ttl => '1 h', source => s) FROM (VALUES
	(1, 'SELECT to_jsonb(now())'), (2, 'SELECT to_jsonb(current_date)'), (3, 'SELECT to_jsonb(peek())'), (4, 'SELECT to_jsonb(count(*)) FROM pg_class'),
	(5, 'SELECT to_jsonb(last_value) FROM numbers'), (6, 'SELECT state_get($1)'), (7, 'SELECT to_jsonb(count(*)) FROM state_current'), (8, 'SELECT to_jsonb(''constant''::text)')) v (n, s);
SELECT class, exact, reason FROM state_sources WHERE class LIKE 'age-%' ORDER BY class;
SELECT class, split_part(complaint(format('SELECT state_class_define(%L, cache_ttl => %L)', class, '0')), ':', 1) FROM state_sources WHERE class LIKE 'age-%' ORDER BY class;
SELECT state_set('k', '1');
SELECT state_get('k', 'age-6'), state_get('k', 'age-6');
BEGIN;
SELECT state_set('k', '2');
SELECT state_get('k', 'age-6');
ROLLBACK;
SELECT state_get('k', 'age-6');
-- 27. A definition that is rolled back, and one in a savepoint.
BEGIN;
SELECT state_class_define('d', source => 'SELECT to_jsonb(1)');
SELECT state_get('1', 'd');
SAVEPOINT s;
SELECT state_class_define('d', source => 'SELECT to_jsonb(2)');
SELECT state_get('1', 'd');
ROLLBACK TO s;
SELECT state_get('1', 'd');
ROLLBACK;
SELECT * FROM both_answers();
-- 28. Where a source reads what another class computes, and where it reads itself.
SELECT state_class_define('outer', cache_ttl => '1 h', source => $$SELECT jsonb_build_object('d', state_get($1, 'd'))$$);
SELECT state_get('1', 'outer');
SELECT state_class_define('self', cache_ttl => '1 h', source => $$SELECT state_get($1, 'self')$$);
SELECT complaint($$SELECT state_get('1', 'self')$$), complaint($$SELECT state_get('1', 'self')$$);
SELECT state_get('1', 'outer');
-- 29. An error of the source says which document it is about, and nothing is kept of it.
SELECT state_class_define('fails', cache_ttl => '1 h', source => 'SELECT to_jsonb(1 / length($1))');
\set VERBOSITY terse
SELECT state_get('a', 'fails');
CREATE TABLE two_rows (v integer);
SELECT state_class_define('fails', source => 'SELECT to_jsonb(v) FROM two_rows');
SELECT state_get('a', 'fails');
INSERT INTO two_rows VALUES (1), (2);
SELECT state_cache_clear('fails');
\set VERBOSITY default
SELECT state_get('a', 'fails');
SELECT state_get('a', 'fails');
-- 30. Settings of the session make no difference.
SELECT state_class_define('fixed', cache_ttl => '1 h', source => $$SELECT jsonb_build_array(timestamptz '2026-01-01 12:00+00', interval '1 day', 0.1::float4::text, to_char(1234.5, '9G999D9'), current_schema)$$);
SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = iso_8601; SET extra_float_digits = -5; SET search_path = pg_catalog, public;
SELECT public.state_get('a', 'fixed');
SHOW TimeZone;
RESET ALL;
SELECT state_get('a', 'fixed'), state_cache_clear('fixed'), state_get('a', 'fixed');
-- The tables go, and their classes say so.
DROP TABLE d, d_old, pairs, parts, parts_3, mother, child, two_rows CASCADE;
SELECT class, exact FROM state_sources WHERE class IN ('d', 'pair') ORDER BY class;
SELECT count(state_class_define(class, source => '')) FROM state_sources;
DROP ROLE regress_derived;
