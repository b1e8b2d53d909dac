-- Agents take tasks: in which order, under which token, and what becomes of leases that are over.
\a \t \pset null (null)
-- let_lapse() makes the leases of an agent end now; taken() says what a claim hands out, and lost() what is said to a token.
CREATE PROCEDURE let_lapse(agent text) LANGUAGE sql AS $$ UPDATE state_task SET lease_until = clock_timestamp() - interval '1 second' WHERE owner = agent AND status = 'running' $$;
CREATE FUNCTION taken(agent text, most integer DEFAULT 1, job text DEFAULT NULL) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(string_agg(format('%s/%s (%s)', job_id, task_id, attempts), ', ' ORDER BY n), 'nothing') FROM state_job_claim_tasks(agent, most, job_id => job) WITH ORDINALITY c (job_id, task_id, token, agent_name, attempts, lease_until, input, n)
$$;

-- Tasks that name the agent come first, then those that name none, each in the order in which they were added.
SELECT state_job_create('order', '["any 1", {"task_id": "b 1", "agent_name": "b"}, {"task_id": "a 1", "agent_name": "a"}, "any 2", {"task_id": "a 2", "agent_name": "a", "input": {"n": 2}}]');
SELECT taken('a', 3);
SELECT taken('a', 3), taken('a', 3);
SELECT counts('order'), status, owner, lease_until > now() + interval '4 minutes' FROM state_job_tasks('order', after => 'b');
SELECT taken('c'), taken('b'), agree('order');

-- One token for what one call hands out, and a greater one for the next.
SELECT state_job_create('token', '["a", "b", "c"]', '{"max_attempts": 2}');
SELECT count(DISTINCT token) AS tokens, count(*) FROM state_job_claim_tasks('x', 2, '1 hour', 'token');
SELECT token AS first FROM state_task WHERE job_id = 'token' AND task_id = 'a' \gset
SELECT token > :first AS greater FROM state_job_claim_tasks('y', 5, '1 hour', 'token');
-- Under its token an agent works, says the same again, and gives back what it cannot do.
SELECT * FROM state_job_update_tasks('token', jsonb_build_array(jsonb_build_object('task_id', 'a', 'status', 'completed', 'result', 1, 'token', :first)));
SELECT * FROM state_job_update_tasks('token', jsonb_build_array(jsonb_build_object('task_id', 'a', 'status', 'completed', 'result', 1, 'token', :first)));
SELECT complaint(format('SELECT * FROM state_job_update_tasks(''token'', ''[{"task_id": "a", "status": "completed", "result": 2, "token": %s}]'')', :first));
SELECT * FROM state_job_update_tasks('token', jsonb_build_array(jsonb_build_object('task_id', 'b', 'status', 'pending', 'error', 'too hard', 'token', :first)));
SELECT replace(complaint(format('SELECT * FROM state_job_update_tasks(''token'', ''[{"task_id": "b", "status": "completed", "token": %s}]'')', :first)), :'first', 'FIRST');
-- With the token of another, or one that never was.
SELECT regexp_replace(complaint('SELECT * FROM state_job_update_tasks(''token'', ''[{"task_id": "c", "status": "completed", "token": 7}]'')'), 'until [-0-9:. +]+', 'until T');
SELECT replace(complaint(format('SELECT * FROM state_job_update_tasks(''token'', ''[{"task_id": "c", "status": "failed"}, {"task_id": "a", "status": "completed", "token": 7}]'')')), :'first', 'FIRST');
SELECT agree('token');
-- The second attempt is the last: what is given back then has failed.
SELECT taken('z', 5, 'token');
SELECT new_status FROM state_job_update_tasks('token', '[{"task_id": "b", "status": "pending", "error": "still too hard"}]');
SELECT task_id, error FROM state_job_tasks('token', status => 'failed');

-- A lease that is over: the agent may still end the task, as long as nobody has it.
SELECT state_job_create('lease', '["a", "b"]', '{"max_attempts": 2}');
SELECT token AS late FROM state_job_claim_tasks('slow', 2, '1 hour', 'lease') LIMIT 1 \gset
SELECT taken('quick', 2, 'lease');
CALL let_lapse('slow');
SELECT count(*) FROM state_job_update_tasks('lease', jsonb_build_array(jsonb_build_object('task_id', 'a', 'status', 'completed', 'token', :late)));
SELECT taken('quick', 2, 'lease'), agree('lease');
SELECT regexp_replace(replace(complaint(format('SELECT * FROM state_job_update_tasks(''lease'', ''[{"task_id": "b", "status": "completed", "token": %s}]'')', :late)), :'late', 'LATE'), 'until [-0-9:. +]+', 'until T');
SELECT outcome(format('SELECT state_job_renew_tasks(''lease'', ''{b}'', %s)', :late)) LIKE '40001 %';
-- Renewing keeps it, all or none.
SELECT token AS quick FROM state_task WHERE job_id = 'lease' AND task_id = 'b' \gset
SELECT state_job_renew_tasks('lease', '{b,b}', :quick, '2 hours') > now() + interval '1 hour';
SELECT replace(complaint(format('SELECT state_job_renew_tasks(''lease'', ''{b,a}'', %s)', :quick)), :'quick', 'QUICK');
-- Started as often as allowed, and lapsed again: the next claim says that it has failed.
CALL let_lapse('quick');
SELECT taken('next', 2, 'lease'), agree('lease');
SELECT task_id, error, owner FROM state_job_tasks('lease', status => 'failed');
-- A task that is completed and whose token is used to renew it
SELECT replace(complaint(format('SELECT state_job_renew_tasks(''lease'', ''{a}'', %s)', :late)), :'late', 'LATE');

-- Fair among jobs: each call serves the next one, whatever the first has waiting.
SELECT state_job_create('fair 1', (SELECT jsonb_agg('t' || n) FROM generate_series(1, 100) n)), state_job_create('fair 2', '["a", "b"]'), state_job_create('fair 3', '["a"]');
CREATE TEMP TABLE served AS SELECT n, (state_job_claim_tasks('worker')).* FROM generate_series(1, 6) n;
SELECT job_id, count(*) FROM served GROUP BY 1 ORDER BY 1;
-- What one job cannot give the next does.
SELECT state_job_create('fair 4', '["x", "y"]');
SELECT count(*), count(DISTINCT job_id) FROM state_job_claim_tasks('worker', 200);
SELECT taken('worker', 200);
SELECT agree(job) FROM unnest('{fair 1,fair 2,fair 3,fair 4}'::text[]) job;
-- A session that has served the last job begins again from the first.
SELECT state_job_create('fair 0', '["x"]');
SELECT taken('worker');

-- Claims within a transaction that is rolled back never were.
SELECT state_job_create('back', '["a", "b"]');
BEGIN;
SELECT taken('a', 1, 'back');
SAVEPOINT s;
SELECT taken('a', 1, 'back'), agree('back');
ROLLBACK TO s;
SELECT agree('back');
ROLLBACK;
SELECT taken('b', 5, 'back'), agree('back');

-- A job that is cancelled, or gone, has nothing to take.
SELECT state_job_cancel('back'), taken('b', 5, 'back');
SELECT outcome($$SELECT taken('b', 5, 'nothing')$$);
SELECT count(*) FROM state_job_verify();
SELECT count(state_delete(key, class => 'job')) FROM state_head WHERE class = 'job' AND NOT deleted;
