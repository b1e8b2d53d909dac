-- Each fault that was seen in systems which keep jobs with tasks in a shared store, and that must not be here.
\a \t \pset null (null)

-- Fault: a batch of updates that stops half-way keeps its first half.
SELECT state_job_create('faults', '["a", "b", "c"]');
SELECT outcome($$SELECT * FROM state_job_update_tasks('faults', '[{"task_id": "a", "status": "completed"}, {"task_id": "b", "status": "running"}, {"task_id": "nowhere", "status": "running"}]')$$);
SELECT outcome($$SELECT * FROM state_job_update_tasks('faults', '[{"task_id": "a", "status": "completed"}, {"task_id": "a", "status": "running"}]')$$);
SELECT agree('faults'), state_version('faults', 'job');

-- Fault: a job with no tasks counts as complete.
SELECT state_job_create('empty');
SELECT state_job_summary('empty')->'is_complete';
SELECT state_job_cancel('empty'), state_job_summary('empty')->'is_complete';

-- Fault: completed to running is accepted.
SELECT count(*) FROM state_job_update_tasks('faults', '[{"task_id": "a", "status": "completed"}, {"task_id": "b", "status": "failed"}, {"task_id": "c", "status": "cancelled"}]');
SELECT task, status, outcome(format('SELECT * FROM state_job_update_tasks(''faults'', ''[{"task_id": "%s", "status": "%s"}]'')', task, status))
	FROM unnest('{a,b,c}'::text[]) task, unnest('{pending,running,completed,failed,cancelled}'::text[]) status;

-- Fault: unknown task ids are skipped in silence.
SELECT outcome($$SELECT * FROM state_job_update_tasks('faults', '[{"task_id": "x", "status": "running"}, {"task_id": "a", "status": "completed"}, {"task_id": "y", "status": "running"}]')$$);
-- All of them are named, also where they are many.
SELECT complaint($$SELECT * FROM state_job_update_tasks('faults', (SELECT jsonb_agg(jsonb_build_object('task_id', 'u' || n, 'status', 'running')) FROM generate_series(1, 12) n))$$);

-- Fault: a count is a query over all tasks, or of a moment ago. The summary is exact, and reads none of them.
SELECT state_job_add_tasks('faults', (SELECT jsonb_agg('n' || n) FROM generate_series(1, 2000) n));
SELECT agree('faults');
SELECT pg_stat_force_next_flush();
SELECT idx_scan + seq_scan AS scans FROM pg_stat_user_tables WHERE relname = 'state_task' \gset
SELECT count(state_job_summary('faults')) FROM generate_series(1, 100);
SELECT pg_stat_force_next_flush();
SELECT idx_scan + seq_scan - :scans AS scans FROM pg_stat_user_tables WHERE relname = 'state_task';

-- Fault: the same change again counts twice.
SELECT count(*) FROM state_job_update_tasks('faults', '[{"task_id": "n1", "status": "completed", "result": 1}]');
SELECT count(*) FROM state_job_update_tasks('faults', '[{"task_id": "n1", "status": "completed", "result": 1}, {"task_id": "n1", "status": "completed", "result": 1}]');
SELECT agree('faults');

-- Fault: an agent that was taken over writes its result over that of the one that took over.
SELECT token AS old FROM state_job_claim_tasks('slow', 1, '1 hour', 'faults') \gset
UPDATE state_task SET lease_until = now() - interval '1 s' WHERE owner = 'slow';
SELECT token AS new, task_id AS task FROM state_job_claim_tasks('quick', 1, '1 hour', 'faults') \gset
SELECT count(*) FROM state_job_update_tasks('faults', jsonb_build_array(jsonb_build_object('task_id', :'task', 'status', 'completed', 'result', 'right', 'token', :new)));
SELECT split_part(outcome(format('SELECT * FROM state_job_update_tasks(''faults'', ''[{"task_id": "%s", "status": "completed", "result": "wrong", "token": %s}]'')', :'task', :old)), ' ', 1);
SELECT result FROM state_task WHERE job_id = 'faults' AND task_id = :'task';

-- Fault: a task that kills whoever works on it is handed out for ever.
SELECT state_job_create('poison', '["p"]');
DO $$ BEGIN FOR n IN 1..5 LOOP PERFORM state_job_claim_tasks('agent ' || n, 1, '1 hour', 'poison'); UPDATE state_task SET lease_until = now() - interval '1 s' WHERE job_id = 'poison'; END LOOP; END $$;
SELECT agree('poison'), attempts, error->'reason' FROM state_job_tasks('poison');

SELECT count(*) FROM state_job_verify() WHERE job_id IN (SELECT key FROM state_head WHERE class = 'job' AND NOT deleted);
SELECT count(state_delete(key, class => 'job')) FROM state_head WHERE class = 'job' AND NOT deleted;
