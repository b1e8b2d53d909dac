-- Catching up: state_changes() tells what became visible since a cursor.
\a \t \pset null (null)
SELECT state_class_define('changes', keep => 2);
-- told() is what state_changes() says of this class, with the last row; in order, which it does not promise.
CREATE FUNCTION told(since text) RETURNS TABLE (what text) LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN op = 'end' THEN 'end' ELSE concat_ws(' ', op, key, coalesce('v' || version, 'no version')) END
		FROM state_changes(since) WHERE class = 'changes' OR op = 'end'
		ORDER BY op = 'end', key, op
$$;

-- Nothing yet: the last row alone, which carries the cursor and nothing else.
SELECT class, key, version, op, cursor IS NOT NULL FROM state_changes() WHERE op = 'end';
SELECT told(NULL);
SELECT state_set('a', '1', class => 'changes'), state_set('b', '1', class => 'changes'), state_set('c', '1', class => 'changes');
SELECT told(NULL);
SELECT cursor AS c0 FROM state_changes() WHERE op = 'end' \gset
-- Nothing has happened since.
SELECT told(:'c0');

-- Set, deleted, set again, touched, untouched; a duplicate is no change.
SELECT state_set('a', '2', class => 'changes'), state_delete('b', class => 'changes'), state_set('d', '1', class => 'changes');
SELECT told(:'c0');
SELECT state_set('b', '3', class => 'changes'), state_delete('d', class => 'changes');
SELECT told(:'c0');
SELECT cursor AS c1 FROM state_changes() WHERE op = 'end' \gset
SELECT state_set('a', '2', class => 'changes');
SELECT told(:'c1');
-- Only the expiry is another: the same version is told again.
SELECT state_touch('c', '1 day', class => 'changes');
SELECT told(:'c1');
-- A state that has expired is gone, before anybody has removed it.
UPDATE state_head SET expires_at = '2000-01-02' WHERE class = 'changes' AND key = 'c';
SELECT told(:'c1');
SELECT told(NULL);
SELECT state_set('c', '4', class => 'changes');

-- An old cursor is as good as ever, and NULL gives no tombstones.
SELECT told(:'c0');
SELECT told(NULL);

-- What is rolled back is not told.
SELECT cursor AS c2 FROM state_changes() WHERE op = 'end' \gset
BEGIN;
SELECT state_set('a', '"rolled back"', class => 'changes');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT state_set('a', '"rolled back"', class => 'changes');
SELECT count(*) FROM state_batch_commit();
ROLLBACK TO SAVEPOINT s;
SAVEPOINT s;
SELECT state_set('b', '"kept"', class => 'changes');
SELECT count(*) FROM state_batch_commit();
RELEASE SAVEPOINT s;
COMMIT;
SELECT told(:'c2');

-- What is staged is told when it is written. What the transaction itself has written is told again later,
-- since a cursor taken before the commit knows nothing of how it ends.
SELECT cursor AS c3 FROM state_changes() WHERE op = 'end' \gset
BEGIN;
SELECT state_set('a', '"own"', class => 'changes');
SELECT told(:'c3');
SELECT count(*) FROM state_batch_commit();
SELECT told(:'c3');
SELECT cursor AS own FROM state_changes(:'c3') WHERE op = 'end' \gset
SELECT told(:'own');
SAVEPOINT s;
SELECT state_set('b', '"own"', class => 'changes');
SELECT count(*) FROM state_batch_commit();
SELECT cursor AS own FROM state_changes(:'c3') WHERE op = 'end' \gset
RELEASE SAVEPOINT s;
COMMIT;
SELECT told(:'own');

-- At REPEATABLE READ the transaction's own snapshot answers and becomes the cursor.
SELECT cursor AS c4 FROM state_cursor() \gset
SELECT told(:'c4');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT told(:'c4');
SELECT cursor AS rr FROM state_changes(:'c4') WHERE op = 'end' \gset
COMMIT;
SELECT told(:'rr');

-- Changes by hand: rows changed, rows put in, rows moved to another key, rows gone.
UPDATE state_head SET version = version + 1 WHERE class = 'changes' AND key = 'a';
UPDATE state_snapshot SET version = version + 1 WHERE class = 'changes' AND key = 'a' AND version = (SELECT max(version) FROM state_snapshot WHERE class = 'changes' AND key = 'a');
SELECT told(:'c4');
DELETE FROM state_head WHERE class = 'changes' AND key = 'b';
SELECT told(:'c4');
UPDATE state_head SET key = 'moved' WHERE class = 'changes' AND key = 'c';
UPDATE state_snapshot SET key = 'moved' WHERE class = 'changes' AND key = 'c';
SELECT told(:'c4');
SELECT cursor AS c5 FROM state_changes() WHERE op = 'end' \gset
SELECT told(:'c5');
-- A document replaced under its head.
UPDATE state_snapshot SET state = '"by hand"', hash = state_hash('"by hand"') WHERE class = 'changes' AND key = 'a';
SELECT told(:'c5');
-- The row that is put back tells of itself, once.
BEGIN;
DELETE FROM state_head WHERE class = 'changes' AND key = 'a';
SELECT state_set('a', '"again"', class => 'changes');
COMMIT;
SELECT told(:'c5');
-- A delete that is rolled back has left no trace.
SELECT cursor AS c6 FROM state_changes() WHERE op = 'end' \gset
BEGIN;
SAVEPOINT s;
DELETE FROM state_head WHERE class = 'changes';
ROLLBACK TO SAVEPOINT s;
COMMIT;
SELECT told(:'c6');

-- Versions are not used again, whatever has become of the head row and of the snapshots.
DELETE FROM state_head WHERE class = 'changes' AND key = 'a';
DELETE FROM state_snapshot WHERE class = 'changes' AND key = 'a';
SELECT version AS floor FROM state_floor WHERE class = 'changes' ORDER BY version DESC LIMIT 1 \gset
SELECT state_set('a', '"anew"', class => 'changes');
SELECT state_version('a', 'changes') - :floor AS above;
BEGIN;
DELETE FROM state_head WHERE class = 'changes' AND key = 'a';
DELETE FROM state_snapshot WHERE class = 'changes' AND key = 'a';
SELECT state_set('a', '"anew at once"', class => 'changes');
COMMIT;
SELECT state_version('a', 'changes') - :floor AS above;
-- A state whose key falls into another bucket begins at 1.
SELECT state_set('elsewhere', '1', class => 'changes');
SELECT state_version('elsewhere', 'changes');

-- More deleted by hand than is remembered: whoever catches up is told to start over. Deletes by function, any
-- number of them, and rows put in by hand are told one by one.
SELECT cursor AS c7 FROM state_changes() WHERE op = 'end' \gset
SELECT count(state_set('many' || n, '1', class => 'changes')) FROM generate_series(1, 1100) n;
SELECT count(*) FROM told(:'c7');
SELECT count(state_delete('many' || n, class => 'changes')) FROM generate_series(1, 1100) n;
SELECT count(*) FILTER (WHERE what LIKE 'delete many%'), count(*) FROM told(:'c7');
UPDATE state_head SET updated_at = updated_at WHERE class = 'changes';
SELECT count(*) FROM told(:'c7');
DELETE FROM state_head WHERE class = 'changes' AND key LIKE 'many%';
SELECT complaint(format('SELECT told(%L)', :'c7'));
SELECT count(*) FROM told(NULL);
SELECT cursor AS c8 FROM state_changes() WHERE op = 'end' \gset
SELECT told(:'c8');
SELECT count(*) FROM state_floor WHERE class = 'changes' AND version >= 2;
SELECT state_set('many7', '2', class => 'changes');
SELECT state_version('many7', 'changes');

-- TRUNCATE. It is of all classes, so it is rolled back here.
BEGIN;
TRUNCATE state_head, state_snapshot;
SELECT told(NULL);
ROLLBACK;
SELECT outcome(format('SELECT told(%L)', :'c8'));

-- Cursors that are none, and cursors of elsewhere.
SELECT complaint($$SELECT * FROM state_changes('')$$);
SELECT complaint($$SELECT * FROM state_changes('tomorrow')$$);
SELECT complaint(format('SELECT * FROM state_changes(%L)', repeat('0', 1000)));
SELECT left(outcome(format('SELECT * FROM state_changes(%L)', :'c8' || '.1')), 14);
SELECT left(outcome(format('SELECT * FROM state_changes(%L)', ' ' || :'c8')), 14);
SELECT left(outcome(format('SELECT * FROM state_changes(%L)', upper(:'c8') || 'A')), 14);
CREATE FUNCTION with_field(cursor text, n int, value text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE WHEN place = n THEN value ELSE field END, '-' ORDER BY place)
		FROM string_to_table(cursor, '-') WITH ORDINALITY AS fields (field, place)
$$;
SELECT n, complaint(format('SELECT * FROM state_changes(%L)', with_field(:'c8', n, '1234'))) FROM generate_series(2, 6) n;
SELECT outcome(format('SELECT * FROM state_changes(%L)', with_field(:'c8', 7, '1234')));
-- One of a later release's format.
SELECT left(complaint(format('SELECT * FROM state_changes(%L)', with_field(:'c8', 1, '3'))), 15);
-- One that has seen WAL which this server has not written yet, and one with transactions that it has not begun.
SELECT complaint(format('SELECT * FROM state_changes(%L)', with_field(:'c8', 8, 'fffffffffffff')));
SELECT complaint(format('SELECT * FROM state_changes(%L)', with_field(:'c8', 10, 'fffffffffffff')));

-- The cursor on its own. Without shared memory nobody counts messages.
SELECT (epoch IS NULL) = (seq IS NULL) AND (epoch IS NULL) = (SELECT bool_and(l1 = 'off (not preloaded)') FROM state_cache_stats) FROM state_cursor();
SELECT state_set('a', '"after the cursor"', class => 'changes');
SELECT cursor AS c9 FROM state_cursor() \gset
SELECT told(:'c9');
BEGIN READ ONLY;
SELECT told(:'c9');
SELECT count(cursor) FROM state_cursor();
COMMIT;

-- It shows what the tables show: to who may not read them, nothing; under row-level security, what a policy lets
-- through.
CREATE ROLE state_changes_reader;
SET ROLE state_changes_reader;
SELECT outcome('SELECT * FROM state_changes()');
SELECT count(cursor) FROM state_cursor();
RESET ROLE;
GRANT SELECT ON state_head TO state_changes_reader;
SET ROLE state_changes_reader;
SELECT told(:'c9');
RESET ROLE;
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
CREATE POLICY state_changes_reader ON state_head USING (key NOT LIKE 'secret%');
SELECT state_set('secret', '1', class => 'changes'), state_set('known', '1', class => 'changes');
SET ROLE state_changes_reader;
SELECT told(:'c9');
SELECT cursor AS c10 FROM state_changes() WHERE op = 'end' \gset
RESET ROLE;
SELECT state_delete('secret', class => 'changes');
SET ROLE state_changes_reader;
SELECT told(:'c10');
RESET ROLE;
-- The name of a row that is gone would tell what it must not know: it is told to start over.
DELETE FROM state_head WHERE class = 'changes' AND key = 'secret';
SELECT told(:'c10');
SET ROLE state_changes_reader;
SELECT outcome(format('SELECT told(%L)', :'c10'));
SELECT count(*) FROM told(NULL) WHERE what LIKE '%secret%';
RESET ROLE;
DROP POLICY state_changes_reader ON state_head;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
-- Who may delete rows need not be able to write the tables that remember it.
GRANT SELECT, DELETE ON state_head TO state_changes_reader;
SET ROLE state_changes_reader;
DELETE FROM state_head WHERE class = 'changes' AND key = 'known';
SELECT outcome('INSERT INTO state_trace DEFAULT VALUES'), outcome('DELETE FROM state_floor');
RESET ROLE;
SELECT told(:'c10');
REVOKE ALL ON state_head FROM state_changes_reader;
DROP ROLE state_changes_reader;

-- One statement has one answer, also from within a function that changes meanwhile.
SELECT cursor AS c11 FROM state_cursor() \gset
SELECT state_set('a', '"last"', class => 'changes'), (SELECT count(*) FROM told(:'c11'));
SELECT told(:'c11');

DELETE FROM state_head WHERE class = 'changes';
DELETE FROM state_snapshot WHERE class = 'changes';
DELETE FROM state_class WHERE class = 'changes';
DELETE FROM state_floor WHERE class = 'changes';
DROP FUNCTION told, with_field;
