-- The catalogue of derived_edges goes on. answer() is derived.sql's: it says WRONG where a document is not what its
-- source gives.
\a \t \pset null (null)
CREATE SCHEMA de_other;
CREATE TABLE de_other.e (id bigint PRIMARY KEY, v text, of text GENERATED ALWAYS AS ('k' || id % 2) STORED);
CREATE FUNCTION de_define(class text, query text, VARIADIC watches text[] DEFAULT '{}') RETURNS TABLE (exact boolean, reason text) LANGUAGE plpgsql AS $$
DECLARE
	watch text;
BEGIN
	PERFORM state_class_define(class, cache_ttl => '1 day', source => query);
	FOREACH watch IN ARRAY watches LOOP
		PERFORM state_watch(class, split_part(watch, ' ', 1)::regclass, nullif(split_part(watch, ' ', 2), ''));
	END LOOP;
	PERFORM state_class_define(class, cache_ttl => '0');
	RETURN QUERY SELECT s.exact, s.reason FROM state_sources s WHERE s.class = de_define.class;
END
$$;
-- Twice each: what was there, and what is kept of it.
CREATE FUNCTION de(class text, VARIADIC keys text[]) RETURNS SETOF text LANGUAGE sql VOLATILE AS $$
	SELECT k || ': ' || answer(k, class) || ', ' || split_part(answer(k, class), ' ', 1) FROM unnest(keys) k $$;

-- 31. A relation in another schema, which no search_path names; it moves, and its schema is renamed.
SELECT * FROM de_define('e', 'SELECT to_jsonb(e.v) FROM de_other.e WHERE e.id = $1::bigint', 'de_other.e id');
INSERT INTO de_other.e VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT de('e', '1', '2');
UPDATE de_other.e SET v = 'A' WHERE id = 1;
SELECT de('e', '1', '2');
ALTER SCHEMA de_other RENAME TO de_else;
SELECT complaint($$SELECT state_get('1', 'e')$$);
SELECT * FROM de_define('e', 'SELECT to_jsonb(e.v) FROM de_else.e WHERE e.id = $1::bigint');
UPDATE de_else.e SET v = 'B' WHERE id = 2;
SELECT de('e', '1', '2');
ALTER TABLE de_else.e SET SCHEMA public;
SELECT * FROM de_define('e', 'SELECT to_jsonb(e.v) FROM e WHERE e.id = $1::bigint');
UPDATE e SET v = 'C' WHERE id = 1;
SELECT de('e', '1', '2');
-- 32. A table that comes before another one of its name on the search_path of the definition, and goes again.
SET search_path = de_else, public;
SELECT * FROM de_define('e', 'SELECT to_jsonb(e.v) FROM e WHERE e.id = $1::bigint');
RESET search_path;
SELECT de('e', '1');
CREATE TABLE de_else.e AS SELECT 1::bigint AS id, 'another one'::text AS v;
SELECT exact, reason FROM state_sources;
SELECT de('e', '1');
DROP TABLE de_else.e;
SELECT exact, reason FROM state_sources;
SELECT de('e', '1');
-- 33. A temporary table of the same name comes last.
CREATE TEMP TABLE e (id bigint, v text);
SELECT de('e', '1');
DROP TABLE pg_temp.e;
-- 34. Keys over a generated column.
SELECT * FROM de_define('of', 'SELECT to_jsonb(string_agg(v, '','' ORDER BY id)) FROM e WHERE of = $1', 'e of');
SELECT de('of', 'k0', 'k1');
UPDATE e SET v = v || '+' WHERE id = 3;
SELECT de('of', 'k0', 'k1');
UPDATE e SET id = 4 WHERE id = 1;
SELECT de('of', 'k0', 'k1');
UPDATE e SET id = 1 WHERE id = 4;
-- 35. A column that the keys name is dropped: readers go past L1, and writers go on.
ALTER TABLE e DROP of;
SELECT class, exact, reason FROM state_sources ORDER BY class;
UPDATE e SET v = 'dropped' WHERE id = 3;
SELECT complaint($$SELECT state_get('k1', 'of')$$);
SELECT de('e', '3');
SELECT state_unwatch('of', 'e'), state_class_define('of', source => '');
-- 36. Writes through a view, a rule, a writable CTE, and a trigger that changes the row on its way.
CREATE VIEW e_view AS SELECT * FROM e;
UPDATE e_view SET v = 'by view' WHERE id = 1;
SELECT de('e', '1', '2');
CREATE TABLE e_in (id bigint, v text);
CREATE RULE e_rule AS ON INSERT TO e_in DO INSTEAD UPDATE e SET v = NEW.v WHERE id = NEW.id;
INSERT INTO e_in VALUES (2, 'by rule');
SELECT de('e', '1', '2');
WITH gone AS (DELETE FROM e WHERE id = 1 RETURNING *), moved AS (INSERT INTO e SELECT 5, v FROM gone) SELECT 1;
SELECT de('e', '1', '5');
CREATE FUNCTION e_before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := 6; RETURN NEW; END $$;
CREATE TRIGGER e_before BEFORE INSERT ON e FOR EACH ROW EXECUTE FUNCTION e_before();
SELECT de('e', '6', '7');
INSERT INTO e VALUES (7, 'as 6');
SELECT de('e', '6', '7');
DROP TRIGGER e_before ON e;
-- 37. A label of an enum is renamed, which changes no row.
CREATE TYPE de_mood AS ENUM ('sad', 'glad');
CREATE TABLE moods (id integer, mood de_mood);
SELECT * FROM de_define('mood', 'SELECT to_jsonb(mood) FROM moods WHERE id = $1::integer', 'moods id');
INSERT INTO moods VALUES (1, 'sad');
SELECT de('mood', '1');
ALTER TYPE de_mood RENAME VALUE 'sad' TO 'blue';
SELECT de('mood', '1');
-- 38. A child comes and goes.
CREATE TABLE moods_child (LIKE moods);
INSERT INTO moods_child VALUES (2, 'glad');
SELECT de('mood', '2');
ALTER TABLE moods_child INHERIT moods;
SELECT exact, reason FROM state_sources WHERE class = 'mood';
SELECT complaint($$SELECT state_class_define('mood', cache_ttl => '0')$$);
SELECT de('mood', '2');
ALTER TABLE moods_child NO INHERIT moods;
SELECT de('mood', '2');
-- 39. Partitions as a replica, a new partition, one that is detached while others work, moves between partitions.
CREATE TABLE de_parts (id integer, v text) PARTITION BY LIST (id);
CREATE TABLE de_parts_1 PARTITION OF de_parts FOR VALUES IN (1);
SELECT * FROM de_define('de_parts', 'SELECT to_jsonb(string_agg(v, '','' ORDER BY v)) FROM de_parts WHERE id = $1::integer', 'de_parts id');
CREATE TABLE de_parts_2 PARTITION OF de_parts FOR VALUES IN (2) PARTITION BY LIST (v);
CREATE TABLE de_parts_2_d PARTITION OF de_parts_2 DEFAULT;
INSERT INTO de_parts VALUES (1, 'one'), (2, 'two');
SELECT exact, reason FROM state_sources WHERE class = 'de_parts';
SELECT de('de_parts', '1', '2');
SET session_replication_role = replica;
UPDATE de_parts SET v = 'replicated';
RESET session_replication_role;
SELECT de('de_parts', '1', '2');
UPDATE de_parts SET id = 3 - id, v = 'moved from ' || id;
SELECT de('de_parts', '1', '2');
TRUNCATE de_parts_2_d;
SELECT de('de_parts', '1', '2');
ALTER TABLE de_parts DETACH PARTITION de_parts_1 CONCURRENTLY;
SELECT de('de_parts', '1', '2');
ALTER TABLE de_parts ATTACH PARTITION de_parts_1 FOR VALUES IN (1);
SELECT de('de_parts', '1', '2');
-- 40. A watch, and the end of one, in a transaction that is rolled back, and in a savepoint.
BEGIN;
SELECT state_unwatch('mood', 'moods') FROM state_class_define('mood', cache_ttl => '1 h');
SELECT exact FROM state_sources WHERE class = 'mood';
ROLLBACK;
SELECT exact FROM state_sources WHERE class = 'mood';
SELECT de('mood', '1');
UPDATE moods SET mood = 'glad';
SELECT de('mood', '1');
SELECT state_class_define('late', cache_ttl => '1 h', source => 'SELECT to_jsonb(count(*)) FROM moods');
BEGIN;
SAVEPOINT s;
SELECT state_watch('late', 'moods');
ROLLBACK TO s;
INSERT INTO moods VALUES (3, 'glad');
SELECT exact, reason FROM state_sources WHERE class = 'late';
COMMIT;
SELECT complaint($$SELECT state_class_define('late', cache_ttl => '0')$$);
-- 41. DISABLE TRIGGER of one, ENABLE REPLICA, and DROP TRIGGER by hand: each is noticed.
SELECT format('ALTER TABLE moods DISABLE TRIGGER %I', tgname) AS command FROM pg_trigger WHERE tgrelid = 'moods'::regclass AND tgname LIKE '%statements' \gexec
SELECT exact, regexp_replace(reason, '_[0-9a-f]{16}', '') FROM state_sources WHERE class = 'mood';
UPDATE moods SET mood = 'blue';
SELECT de('mood', '1');
SELECT format('ALTER TABLE moods ENABLE REPLICA TRIGGER %I', tgname) AS command FROM pg_trigger WHERE tgrelid = 'moods'::regclass AND tgname LIKE '%statements' \gexec
SELECT exact, regexp_replace(reason, '_[0-9a-f]{16}', '') FROM state_sources WHERE class = 'mood';
SELECT format('DROP TRIGGER %I ON moods', tgname) AS command FROM pg_trigger WHERE tgrelid = 'moods'::regclass AND tgname LIKE '%statements' \gexec
SELECT exact, reason FROM state_sources WHERE class = 'mood';
TRUNCATE moods;
SELECT de('mood', '1');
SELECT state_watch('mood', 'moods', 'id');
SELECT exact, reason FROM state_sources WHERE class = 'mood';
-- 42. A set from the source, and text that is not jsonb's.
SELECT state_class_define('set', cache_ttl => '1 h', source => 'SELECT jsonb_array_elements(''[1, 2]'')');
SELECT complaint($$SELECT state_get('x', 'set')$$);
SELECT complaint($$SELECT state_class_define('set', source => 'SELECT (jsonb_each(''{"a": 1}'')).*')$$), complaint($$SELECT state_class_define('set', source => 'SELECT ''{}''')$$);
-- 43. All rows of a table leave and come back in one transaction; and a table is made anew under its name.
INSERT INTO moods VALUES (1, 'glad');
SELECT de('mood', '1');
BEGIN; DELETE FROM moods; INSERT INTO moods VALUES (1, 'blue'); COMMIT;
SELECT de('mood', '1');
DROP TABLE moods;
CREATE TABLE moods (id integer, mood text);
INSERT INTO moods VALUES (1, 'made anew');
SELECT exact, reason FROM state_sources WHERE class = 'mood';
SELECT de('mood', '1');
SELECT count(state_class_define(class, source => '')) FROM state_sources;
DROP TABLE e, e_in, moods, moods_child, de_parts CASCADE;
DROP SCHEMA de_else;
DROP FUNCTION de, de_define;
