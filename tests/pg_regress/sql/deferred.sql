-- Deferred constraints hold for what the commit-time flush writes: a violation is reported by COMMIT and the
-- transaction is rolled back.
\a \t \pset null (null)
SELECT state_class_define('deferred');
CREATE TABLE owner_of (key text PRIMARY KEY);
INSERT INTO owner_of VALUES ('owned');

-- A foreign key of somebody's table to state_head, deferred.
CREATE TABLE note (id int PRIMARY KEY, class text, key text,
	FOREIGN KEY (class, key) REFERENCES state_head DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO note VALUES (1, 'deferred', 'owned');
SELECT state_set('owned', '{"n": 1}', class => 'deferred');
SELECT key, action FROM state_batch_commit();
COMMIT;
SELECT count(*) FROM note;
BEGIN;
INSERT INTO note VALUES (2, 'deferred', 'missing');
COMMIT;
\echo :SQLSTATE

-- A constraint trigger on state_head that looks for something at COMMIT.
CREATE FUNCTION must_be_owned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM owner_of o WHERE o.key = NEW.key) THEN
		RAISE EXCEPTION 'nobody owns %', NEW.key USING ERRCODE = 'integrity_constraint_violation';
	END IF;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER must_be_owned AFTER INSERT OR UPDATE ON state_head DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.class = 'deferred') EXECUTE FUNCTION must_be_owned();
SELECT state_set('owned', '{"n": 2}', class => 'deferred');
SELECT stored('owned', 'deferred');
-- A single statement.
SELECT state_set('orphan', '{"n": 1}', class => 'deferred');
\echo :SQLSTATE
SELECT stored('orphan', 'deferred'), seen('orphan', 'deferred');
-- A transaction: all of it is gone, the good part as well, from the tables and from the cache.
BEGIN;
SELECT state_set('owned', '{"n": 3}', class => 'deferred');
SELECT state_set('orphan', '{"n": 1}', class => 'deferred');
INSERT INTO owner_of VALUES ('unrelated');
COMMIT;
\echo :SQLSTATE
SELECT stored('owned', 'deferred'), seen('owned', 'deferred'), stored('orphan', 'deferred'), seen('orphan', 'deferred');
SELECT count(*) FROM owner_of;
-- What makes it valid may come after the change, up to the COMMIT.
BEGIN;
SELECT state_set('orphan', '{"n": 1}', class => 'deferred');
INSERT INTO owner_of VALUES ('orphan');
COMMIT;
SELECT stored('orphan', 'deferred'), seen('orphan', 'deferred');
-- SET CONSTRAINTS IMMEDIATE before the flush makes the flush itself the moment.
BEGIN;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT state_set('homeless', '{"n": 1}', class => 'deferred');
SELECT key, action FROM state_batch_commit();
\echo :SQLSTATE
ROLLBACK;
SELECT stored('homeless', 'deferred'), seen('homeless', 'deferred');
-- The session goes on.
SELECT state_set('owned', '{"n": 4}', class => 'deferred');
SELECT stored('owned', 'deferred'), seen('owned', 'deferred');
DROP TRIGGER must_be_owned ON state_head;
DROP TABLE note;
