-- Tasks that are changed by hand: the summaries follow.
\a \t \pset null (null)
SELECT state_job_create('hand', '["a", "b", "c", "d"]'), state_job_create('other', '["a"]');
INSERT INTO state_task (job_id, task_id, status) VALUES ('hand', 'e', 'running'), ('hand', 'f', 'completed'), ('other', 'b', 'failed'), ('nowhere', 'a', 'pending');
SELECT agree('hand'), agree('other');
UPDATE state_task SET status = 'completed' WHERE task_id IN ('a', 'b');
SELECT agree('hand'), agree('other');
-- To another job
UPDATE state_task SET job_id = 'other', task_id = 'from hand' WHERE job_id = 'hand' AND task_id = 'e';
SELECT agree('hand'), agree('other');
DELETE FROM state_task WHERE job_id = 'hand' AND status = 'completed';
SELECT agree('hand'), agree('other');
MERGE INTO state_task t USING (VALUES ('c'), ('new')) v (id) ON t.job_id = 'hand' AND t.task_id = v.id
	WHEN MATCHED THEN UPDATE SET status = 'cancelled' WHEN NOT MATCHED THEN INSERT (job_id, task_id) VALUES ('hand', v.id);
SELECT agree('hand');
INSERT INTO state_task (job_id, task_id) VALUES ('hand', 'new'), ('hand', 'newer') ON CONFLICT (job_id, task_id) DO UPDATE SET status = 'failed';
SELECT agree('hand');
WITH gone AS (DELETE FROM state_task WHERE job_id = 'hand' AND task_id = 'new' RETURNING task_id) INSERT INTO state_task (job_id, task_id) SELECT 'hand', task_id || '2' FROM gone;
SELECT agree('hand');
COPY state_task (job_id, task_id, status) FROM stdin;
hand	copied 1	running
hand	copied 2	failed
\.
SELECT agree('hand');
-- All others deleted, or moved away, by the statement that inserts
SELECT state_job_create('swapped', '["a", "b", "c"]');
MERGE INTO state_task t USING (VALUES ('swapped', 'a'), ('swapped', 'b'), ('swapped', 'c'), ('swapped', 'd')) v (job, id) ON t.job_id = v.job AND t.task_id = v.id
	WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (job_id, task_id) VALUES (v.job, v.id);
SELECT agree('swapped'), state_job_summary('swapped')->'total' AS total;
WITH gone AS (DELETE FROM state_task WHERE job_id = 'swapped') INSERT INTO state_task (job_id, task_id) VALUES ('swapped', 'e'), ('swapped', 'f');
SELECT agree('swapped'), state_job_summary('swapped')->'total' AS total;
-- A trigger that inserts more while a statement inserts
CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.task_id LIKE 'seed%' THEN INSERT INTO state_task (job_id, task_id) VALUES (NEW.job_id, 'more from ' || NEW.task_id); END IF; RETURN NULL; END $$;
CREATE TRIGGER more AFTER INSERT ON state_task FOR EACH ROW EXECUTE FUNCTION more();
SELECT state_job_create('grown');
INSERT INTO state_task (job_id, task_id) VALUES ('grown', 'seed 1'), ('grown', 'seed 2');
SELECT agree('grown'), state_job_summary('grown')->'total' AS total;
DROP TRIGGER more ON state_task;
DROP FUNCTION more;
-- Tasks of a job that the same statement creates
WITH made AS (SELECT state_job_create('made', '["a"]')) INSERT INTO state_task (job_id, task_id) SELECT 'made', 'b' FROM made;
SELECT agree('made'), state_job_summary('made')->'total' AS total;
-- A dump that is restored: the summary comes first, then the tasks, at once or one by one.
SELECT state_job_create('restored', '["a", "b", "c"]');
SELECT state_version('restored', 'job') AS version \gset
CREATE TEMPORARY TABLE dumped AS SELECT * FROM state_task WHERE job_id = 'restored';
SET session_replication_role = replica;
DELETE FROM state_task WHERE job_id = 'restored';
RESET session_replication_role;
INSERT INTO state_task SELECT * FROM dumped;
SELECT agree('restored'), state_version('restored', 'job') - :version AS versions;
SET session_replication_role = replica;
DELETE FROM state_task WHERE job_id = 'restored';
RESET session_replication_role;
INSERT INTO state_task SELECT * FROM dumped WHERE task_id = 'a';
INSERT INTO state_task SELECT * FROM dumped WHERE task_id = 'b';
SELECT agree('restored'), state_job_summary('restored')->'total' AS total;
INSERT INTO state_task SELECT * FROM dumped WHERE task_id = 'c';
SELECT agree('restored'), state_job_summary('restored')->'total' AS total;
-- In one transaction
SET session_replication_role = replica;
DELETE FROM state_task WHERE job_id = 'restored';
RESET session_replication_role;
BEGIN;
INSERT INTO state_task SELECT * FROM dumped WHERE task_id = 'a';
INSERT INTO state_task SELECT * FROM dumped WHERE task_id <> 'a';
COMMIT;
SELECT agree('restored'), state_job_summary('restored')->'total' AS total;
DROP TABLE dumped;
-- What is inserted costs no look at the tasks that are there: none of them is read.
SELECT state_job_create('large', (SELECT jsonb_agg('t' || n) FROM generate_series(1, 3000) n));
BEGIN;
SELECT pg_stat_get_xact_tuples_fetched('state_task'::regclass) + pg_stat_get_xact_tuples_returned('state_task'::regclass) AS before \gset
INSERT INTO state_task (job_id, task_id) VALUES ('large', 'one'), ('large', 'two');
SELECT pg_stat_get_xact_tuples_fetched('state_task'::regclass) + pg_stat_get_xact_tuples_returned('state_task'::regclass) - :before < 10 AS reads_few;
COMMIT;
SELECT agree('large'), state_job_summary('large')->'total' AS total;
-- What changes nothing that is counted makes no version.
SELECT state_version('hand', 'job') AS version \gset
UPDATE state_task SET result = '1' WHERE job_id = 'hand';
UPDATE state_task SET status = 'running' WHERE false;
DELETE FROM state_task WHERE job_id = 'nothing';
SELECT state_version('hand', 'job') - :version;

-- Beside functions in one transaction, and with savepoints.
BEGIN;
SELECT state_job_add_tasks('hand', '["x"]');
INSERT INTO state_task (job_id, task_id) VALUES ('hand', 'y');
SELECT agree('hand');
SAVEPOINT s;
SELECT count(*) FROM state_job_update_tasks('hand', '[{"task_id": "x", "status": "completed"}, {"task_id": "y", "status": "running"}]');
UPDATE state_task SET status = 'failed' WHERE task_id = 'y';
DELETE FROM state_task WHERE task_id = 'x';
SELECT agree('hand');
ROLLBACK TO s;
SELECT agree('hand');
UPDATE state_task SET status = 'failed' WHERE task_id = 'y';
SELECT agree('hand');
COMMIT;
SELECT agree('hand');
BEGIN;
DELETE FROM state_task;
SELECT agree('hand'), agree('other');
ROLLBACK;
SELECT agree('hand'), agree('other');

-- A trigger of somebody's own: what it makes of a row counts.
CREATE FUNCTION twisted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.task_id = 'twist' THEN NEW.status := 'cancelled'; END IF; RETURN NEW; END $$;
CREATE TRIGGER twisted BEFORE INSERT OR UPDATE ON state_task FOR EACH ROW EXECUTE FUNCTION twisted();
SELECT state_job_add_tasks('hand', '["twist", "plain"]');
SELECT agree('hand');
DROP TRIGGER twisted ON state_task;
-- One that changes other tasks.
CREATE OR REPLACE FUNCTION twisted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.status = 'completed' AND NEW.task_id = 'plain' THEN UPDATE state_task SET status = 'failed' WHERE job_id = NEW.job_id AND task_id = 'd'; END IF; RETURN NULL; END $$;
CREATE TRIGGER twisted AFTER UPDATE ON state_task FOR EACH ROW EXECUTE FUNCTION twisted();
SELECT * FROM state_job_update_tasks('hand', '[{"task_id": "plain", "status": "completed"}]');
SELECT agree('hand'), status FROM state_job_tasks('hand', after => 'copied 2', "limit" => 1);
DROP TRIGGER twisted ON state_task;
-- One that keeps rows from being written.
CREATE OR REPLACE FUNCTION twisted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER twisted BEFORE UPDATE ON state_task FOR EACH ROW EXECUTE FUNCTION twisted();
SELECT outcome($$SELECT * FROM state_job_update_tasks('hand', '[{"task_id": "copied 1", "status": "completed"}]')$$);
DROP TRIGGER twisted ON state_task;
DROP FUNCTION twisted;
SELECT agree('hand');

-- As replication applies it, whose counts come with it, nothing is counted. Verifying tells, and repairs.
SET session_replication_role = replica;
INSERT INTO state_task (job_id, task_id) VALUES ('hand', 'applied');
RESET session_replication_role;
SELECT * FROM state_job_verify('hand');
-- (Tasks of jobs that other tests have deleted may be there yet: the worker takes them out.)
SELECT job_id, repaired FROM state_job_verify(repair => true) WHERE job_id IN ('hand', 'nowhere');
SELECT agree('hand');
SELECT count(*) FROM state_task WHERE job_id = 'nowhere';
SELECT * FROM state_job_verify();
-- A document that somebody has spoilt by hand
UPDATE state_head SET state = '{"attributes": {}, "summary": {"total": "many"}}', hash = state_hash('{"attributes": {}, "summary": {"total": "many"}}') WHERE class = 'job' AND key = 'other';
SELECT complaint($$SELECT state_job_add_tasks('other', '["z"]')$$);
SELECT outcome($$SELECT * FROM state_job_claim_tasks('a', job_id => 'other')$$);
SELECT job_id, kept, counted FROM state_job_verify(repair => true);
SELECT agree('other'), state_job_add_tasks('other', '["z"]');
UPDATE state_head SET state = '[]', hash = state_hash('[]') WHERE class = 'job' AND key = 'other';
SELECT job_id, kept, repaired FROM state_job_verify(repair => true);
SELECT agree('other');
SELECT state_delete('other', class => 'job'), count(*) FROM state_job_verify();

-- Checks hold by hand, too.
SELECT outcome($$INSERT INTO state_task (job_id, task_id, status) VALUES ('hand', 'z', 'done')$$);
SELECT outcome($$INSERT INTO state_task (job_id, task_id) VALUES ('hand', '')$$);
SELECT outcome($$UPDATE state_task SET attempts = -1$$);

-- All tasks at once
SELECT state_job_create('third', '["a"]');
BEGIN;
TRUNCATE state_task;
SELECT agree('hand'), agree('third');
ROLLBACK;
SELECT agree('hand'), agree('third');
TRUNCATE state_task;
SELECT agree('hand'), agree('third');
SELECT state_job_add_tasks('hand', '["again"]'), agree('hand');
-- Jobs and tasks
TRUNCATE state_head, state_snapshot, state_task;
SELECT outcome($$SELECT state_job_summary('hand')$$), count(*) FROM state_job_verify();
-- Jobs without their tasks
SELECT state_job_create('left', '["a", "b"]');
DELETE FROM state_head WHERE class = 'job';
SELECT outcome($$SELECT * FROM state_job_update_tasks('left', '[{"task_id": "a", "status": "running"}]')$$);
SELECT count(*) FROM state_job_claim_tasks('a', 10);
SELECT job_id, kept, counted->'total', repaired FROM state_job_verify();
SELECT state_job_create('left', '["c"]'), agree('left');
DELETE FROM state_head WHERE class = 'job';
SELECT job_id, kept, counted->'total', repaired FROM state_job_verify(repair => true);
SELECT count(*) FROM state_task;
