-- The functions of jobs give nobody more than the tables of states would: SELECT on state_head and state_snapshot to
-- read, INSERT, UPDATE and DELETE as well to change. Nothing is needed on state_task, unless row-level security is on it.
\a \t \pset null (null)
SELECT state_job_create('ours', '["a", "b"]'), state_job_create('theirs', '["a", "b"]');
CREATE ROLE regress_job_nobody;
CREATE ROLE regress_job_reader;
CREATE ROLE regress_job_agent;
CREATE ROLE regress_job_clerk;
GRANT SELECT ON state_head, state_snapshot TO regress_job_reader, regress_job_agent;
GRANT INSERT, UPDATE ON state_head TO regress_job_agent;
GRANT INSERT, DELETE ON state_snapshot TO regress_job_agent;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON state_task TO regress_job_clerk;
GRANT USAGE ON SEQUENCE state_task_position_seq TO regress_job_clerk;
CREATE FUNCTION each_job_call() RETURNS TABLE (call text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT call, outcome('SELECT * FROM ' || call) FROM unnest(ARRAY[
		$c$state_job_summary('ours')$c$, $c$state_job_get('ours')$c$, $c$state_job_tasks('ours')$c$, $c$state_job_verify()$c$, $c$state_job_verify('ours', repair => true)$c$, $c$state_job_create('new', '["x"]')$c$,
		$c$state_job_add_tasks('ours', '["c"]')$c$, $c$state_job_update_tasks('ours', '[{"task_id": "a", "status": "running"}]')$c$, $c$state_job_claim_tasks('x', 10)$c$, $c$state_job_claim_tasks('x', job_id => 'ours')$c$,
		$c$state_job_renew_tasks('ours', '{}', 1)$c$, $c$state_job_cancel('new')$c$, $c$state_delete('new', class => 'job')$c$]) WITH ORDINALITY c (call, n) ORDER BY n
$$;
CREATE FUNCTION each_table() RETURNS TABLE (statement text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT s, outcome(s) FROM unnest(ARRAY['SELECT * FROM state_task', 'SELECT * FROM state_task_left', $c$SELECT nextval('state_task_token')$c$, $c$INSERT INTO state_task (job_id, task_id) VALUES ('ours', 'x')$c$, 'DELETE FROM state_task', 'UPDATE state_task SET status = status',
		$c$INSERT INTO state_task_left VALUES ('ours')$c$, 'CREATE TRIGGER mine AFTER DELETE ON state_task EXECUTE FUNCTION state_task_watch()', 'SELECT state_task_watch()']) WITH ORDINALITY s (s, n) ORDER BY n
$$;

SET ROLE regress_job_nobody;
SELECT * FROM each_job_call();
SELECT * FROM each_table();
SET ROLE regress_job_reader;
SELECT * FROM each_job_call();
SELECT * FROM each_table();
RESET ROLE;
SELECT agree('ours'), state_exists('new', 'job');
SET ROLE regress_job_agent;
SELECT * FROM each_job_call();
SELECT * FROM each_table();
RESET ROLE;
SELECT agree('ours');

-- Who may change tasks by hand changes the counts with them, and nothing else of states.
SET ROLE regress_job_clerk;
UPDATE state_task SET status = 'completed' WHERE job_id = 'theirs' AND task_id = 'a';
INSERT INTO state_task (job_id, task_id) VALUES ('theirs', 'c'), ('nowhere', 'c');
DELETE FROM state_task WHERE job_id = 'nowhere';
SELECT outcome($$SELECT state_job_summary('theirs')$$), outcome($$SELECT state_get('theirs', 'job')$$);
RESET ROLE;
SELECT agree('theirs');

-- Row-level security on states: a job that is hidden is not there, and nothing of it is handed out.
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY ours ON state_head TO regress_job_agent USING (key NOT LIKE 'their%');
CREATE POLICY ours ON state_snapshot TO regress_job_agent USING (key NOT LIKE 'their%');
SELECT state_job_add_tasks('ours', '["d"]');
SET ROLE regress_job_agent;
SELECT outcome($$SELECT state_job_summary('theirs')$$), outcome($$SELECT state_job_get('theirs')$$), outcome($$SELECT * FROM state_job_tasks('theirs')$$);
SELECT outcome($$SELECT state_job_add_tasks('theirs', '["x"]')$$), outcome($$SELECT state_job_cancel('theirs')$$), outcome($$SELECT * FROM state_job_claim_tasks('x', job_id => 'theirs')$$);
SELECT outcome($$SELECT * FROM state_job_update_tasks('theirs', '[{"task_id": "b", "status": "running"}]')$$);
SELECT outcome($$SELECT * FROM state_job_verify()$$);
SELECT job_id, task_id FROM state_job_claim_tasks('x', 10);
SELECT job_id, task_id FROM state_job_claim_tasks('x', 10);
-- Nor is it created over.
SELECT outcome($$SELECT state_job_create('theirs', '["mine"]')$$);
SELECT outcome($$SELECT state_job_create('theirs', '["a"]')$$);
RESET ROLE;
SELECT agree('theirs'), agree('ours'), count(*) FROM state_task WHERE job_id = 'theirs';
DROP POLICY ours ON state_head;
DROP POLICY ours ON state_snapshot;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;

-- Row-level security on tasks: a role to which it applies needs privileges on the table, and has what the policies show.
ALTER TABLE state_task ENABLE ROW LEVEL SECURITY;
SET ROLE regress_job_agent;
SELECT outcome($$SELECT * FROM state_job_tasks('ours')$$), outcome($$SELECT state_job_add_tasks('ours', '["z"]')$$), outcome($$SELECT * FROM state_job_claim_tasks('x')$$);
SELECT state_job_summary('ours')->'total';
RESET ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE ON state_task TO regress_job_agent;
GRANT USAGE ON SEQUENCE state_task_position_seq TO regress_job_agent;
CREATE POLICY mine ON state_task TO regress_job_agent USING (task_id NOT LIKE 'secret%') WITH CHECK (task_id NOT LIKE 'secret%');
SELECT state_job_add_tasks('theirs', '["secret", "open"]');
SET ROLE regress_job_agent;
SELECT task_id FROM state_job_tasks('theirs');
SELECT outcome($$SELECT * FROM state_job_update_tasks('theirs', '[{"task_id": "secret", "status": "running"}]')$$);
SELECT outcome($$SELECT state_job_add_tasks('theirs', '["secret 2"]')$$);
SELECT outcome($$SELECT * FROM state_job_verify()$$);
SELECT task_id FROM state_job_claim_tasks('x', 10, job_id => 'theirs');
-- The job is not cancelled whole by who does not see all of it.
SELECT outcome($$SELECT state_job_cancel('theirs')$$);
SELECT state_delete('theirs', class => 'job');
RESET ROLE;
SELECT count(*) FROM state_task WHERE job_id = 'theirs';
DROP POLICY mine ON state_task;
ALTER TABLE state_task DISABLE ROW LEVEL SECURITY;
-- (The task that was hidden from who deleted its job is there until the worker takes it out.)
SELECT agree('ours'), count(*) FROM state_job_verify() WHERE job_id IN (SELECT key FROM state_head WHERE class = 'job' AND NOT deleted);
SELECT count(state_delete(key, class => 'job')) FROM state_head WHERE class = 'job' AND NOT deleted;

-- Roles in turn within a transaction.
SELECT state_job_create('shared', '["a"]');
BEGIN;
SET LOCAL ROLE regress_job_agent;
SELECT state_job_add_tasks('shared', '["b"]');
RESET ROLE;
SELECT state_job_add_tasks('shared', '["c"]'), agree('shared');
UPDATE state_task SET status = 'completed' WHERE job_id = 'shared';
SELECT agree('shared');
COMMIT;
SELECT agree('shared'), state_delete('shared', class => 'job');
REVOKE ALL ON state_head, state_snapshot, state_task FROM regress_job_reader, regress_job_agent, regress_job_clerk;
REVOKE ALL ON SEQUENCE state_task_position_seq FROM regress_job_agent, regress_job_clerk;
DROP ROLE regress_job_nobody, regress_job_reader, regress_job_agent, regress_job_clerk;
