-- What users put on the tables holds for what the extension writes: each of these must be seen by the flush, which
-- writes rows past the executor where there is none of them.
\a \t \pset null (null)

-- How rows are written in this run; each way has an expected file of its own.
SELECT coalesce(current_setting('state_cache.test_write_rows', true), 'auto');

-- statements() counts the statements of ours that have written the tables: a trigger fires for each.
SET track_functions = 'all';
CREATE FUNCTION statements() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(pg_stat_get_xact_function_calls('state_cache_watch()'::regprocedure), 0)
$$;
-- set_twice() sets a state twice, and says what came of that and how it was written.
CREATE PROCEDURE set_twice(key text) LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
BEGIN
	FOR n IN 1..2 LOOP
		BEGIN
			before := statements();
			PERFORM state_set(key, jsonb_build_object('n', n), class => 'config');
			PERFORM state_batch_commit();
			RAISE NOTICE '% is %, written by % statements', key,
				(SELECT state FROM state_current c WHERE c.key = set_twice.key AND c.class = 'config'), statements() - before;
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '% %', SQLSTATE, SQLERRM;
		END;
		COMMIT;
	END LOOP;
END
$$;

SELECT state_class_define('on_the_tables', keep => 3);

-- Nothing: no test before this one has left anything either.
CALL set_twice('nothing');

-- A trigger of a user, on both tables.
CREATE TABLE fired (what text);
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO fired VALUES (format('%s %s %s', TG_OP, TG_TABLE_NAME, NEW.key));
	RETURN NULL;
END
$$;
CREATE TRIGGER note_row AFTER INSERT OR UPDATE ON state_head FOR EACH ROW EXECUTE FUNCTION note_row();
CREATE TRIGGER note_row AFTER INSERT OR UPDATE ON state_snapshot FOR EACH ROW EXECUTE FUNCTION note_row();
CALL set_twice('trigger');
SELECT count(state_set('trigger-' || n, '{}', class => 'on_the_tables')) FROM generate_series(1, 3) n;
SELECT what FROM fired ORDER BY what COLLATE "C";
DROP TRIGGER note_row ON state_head;
DROP TRIGGER note_row ON state_snapshot;
TRUNCATE fired;

-- One that fires for the statement.
CREATE FUNCTION note_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO fired VALUES (TG_OP);
	RETURN NULL;
END
$$;
CREATE TRIGGER note_statement AFTER INSERT OR UPDATE ON state_head FOR EACH STATEMENT EXECUTE FUNCTION note_statement();
CALL set_twice('statement');
SELECT what FROM fired ORDER BY what COLLATE "C";
DROP TRIGGER note_statement ON state_head;
TRUNCATE fired;

-- A CHECK.
ALTER TABLE state_head ADD CONSTRAINT never CHECK (key <> 'checked');
CALL set_twice('checked');
ALTER TABLE state_head DROP CONSTRAINT never;

-- A column that must not be NULL any more.
DELETE FROM state_head;
DELETE FROM state_snapshot;
ALTER TABLE state_head ALTER expires_at SET NOT NULL;
CALL set_twice('required');
ALTER TABLE state_head ALTER expires_at DROP NOT NULL;

-- Another default.
ALTER TABLE state_snapshot ALTER created_at SET DEFAULT '2001-01-01';
SELECT state_set('default', '{}', class => 'on_the_tables');
SELECT created_at = '2001-01-01' FROM state_snapshot WHERE key = 'default';
ALTER TABLE state_snapshot ALTER created_at SET DEFAULT pg_catalog.clock_timestamp();

-- A constraint that is checked at COMMIT, and one that refers to another table.
DELETE FROM state_head;
DELETE FROM state_snapshot;
ALTER TABLE state_head ADD CONSTRAINT one_of_each UNIQUE (hash) DEFERRABLE INITIALLY DEFERRED;
BEGIN;
SELECT state_set('unique-1', '{"same": 1}', class => 'config'), state_set('unique-2', '{"same": 1}', class => 'config');
COMMIT;
ALTER TABLE state_head DROP CONSTRAINT one_of_each;
CREATE TABLE tenant (name text PRIMARY KEY);
ALTER TABLE state_head ADD CONSTRAINT of_tenant FOREIGN KEY (key) REFERENCES tenant NOT VALID;
CALL set_twice('nobody');
INSERT INTO tenant VALUES ('somebody');
CALL set_twice('somebody');
ALTER TABLE state_head DROP CONSTRAINT of_tenant;

-- An exclusion constraint.
ALTER TABLE state_head ADD CONSTRAINT one_size EXCLUDE USING btree (size WITH =) WHERE (key LIKE 'size-%') DEFERRABLE INITIALLY DEFERRED;
BEGIN;
SELECT state_set('size-1', '{"n": 1}', class => 'config'), state_set('size-2', '{"n": 2}', class => 'config');
COMMIT;
ALTER TABLE state_head DROP CONSTRAINT one_size;

-- A rule.
CREATE RULE instead AS ON UPDATE TO state_head WHERE old.key = 'ruled' DO INSTEAD NOTHING;
CALL set_twice('ruled');
DROP RULE instead ON state_head;

-- Policies, for a role that they hold for.
CREATE ROLE regress_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON state_head, state_snapshot TO regress_writer;
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_keys ON state_head TO regress_writer USING (true) WITH CHECK (key LIKE 'own-%');
SET ROLE regress_writer;
SELECT outcome($$SELECT state_set('other', '{}', class => 'config')$$ ), outcome($$SELECT state_batch_commit()$$);
RESET ROLE;
DROP POLICY own_keys ON state_head;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;

-- Indexes of users are kept: plain ones, unique ones, and what is computed.
CREATE INDEX by_size ON state_head (size);
CREATE UNIQUE INDEX by_key ON state_head (key, class) INCLUDE (deleted);
CALL set_twice('indexed');
CREATE INDEX by_length ON state_head (length(key));
CALL set_twice('indexed');
CREATE INDEX of_config ON state_head (key) WHERE class = 'config';
DROP INDEX by_length;
CALL set_twice('indexed');
CREATE INDEX by_length ON state_head (length(key));
SET enable_seqscan = off;
SELECT key FROM state_head WHERE size = (SELECT size FROM state_head WHERE key = 'indexed') AND key = 'indexed';
SELECT key FROM state_head WHERE length(key) = 7 AND key = 'indexed';
RESET enable_seqscan;
DROP INDEX by_size, by_key, by_length, of_config;
DELETE FROM state_head;
DELETE FROM state_snapshot;
CREATE UNIQUE INDEX one_hash ON state_head (hash);
CALL set_twice('taken-1');
CALL set_twice('taken-2');
DROP INDEX one_hash;

-- Without a replica identity no UPDATE is published.
ALTER TABLE state_head REPLICA IDENTITY NOTHING;
-- Servers word the warning about wal_level differently.
SET client_min_messages = error;
CREATE PUBLICATION heads FOR TABLE state_head;
RESET client_min_messages;
CALL set_twice('published');
DROP PUBLICATION heads;
ALTER TABLE state_head REPLICA IDENTITY DEFAULT;

-- What the transaction itself has put there counts at once.
\set VERBOSITY terse
BEGIN;
SELECT state_set('at once', '{"n": 1}', class => 'config');
ALTER TABLE state_head ADD CONSTRAINT never CHECK (key <> 'at once');
COMMIT;
SELECT count(*) FROM state_head WHERE key = 'at once';

-- A table that inherits: a statement goes through its rows, too.
CREATE TABLE heir () INHERITS (state_head);
CALL set_twice('somebody');
INSERT INTO heir SELECT * FROM ONLY state_head WHERE key = 'somebody';
DELETE FROM ONLY state_head WHERE key = 'somebody';
SELECT state_set('somebody', '{"n": 3}', class => 'config');
SELECT version, tableoid::regclass FROM state_head WHERE key = 'somebody' ORDER BY 1, 2;
DROP TABLE heir;
ANALYZE state_head;
CALL set_twice('childless');

-- Columns of a user: computed, with a default.
ALTER TABLE state_head ADD COLUMN twice integer GENERATED ALWAYS AS (version * 2) STORED, ADD COLUMN mine text DEFAULT 'mine';
CALL set_twice('columns');
SELECT twice, mine FROM state_head WHERE key = 'columns';
ALTER TABLE state_head DROP COLUMN twice, DROP COLUMN mine;
-- Dropped columns leave holes.
CALL set_twice('holes');

DROP TABLE fired, tenant;
DROP FUNCTION note_row, note_statement, statements;
DROP PROCEDURE set_twice;
REVOKE ALL ON state_head, state_snapshot FROM regress_writer;
DROP ROLE regress_writer;
