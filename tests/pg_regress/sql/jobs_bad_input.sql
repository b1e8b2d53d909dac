-- What the functions of jobs refuse, and what they say. After each refusal nothing has changed.
\a \t \pset null (null)
SELECT state_job_create('bad', '["a", "b", "c"]');
CREATE TEMP TABLE before AS SELECT state_job_get('bad') AS job, state_version('bad', 'job') AS version;

SELECT statement, complaint(statement) FROM (VALUES
	-- NULL
	($$SELECT state_job_create(NULL)$$),
	($$SELECT state_job_create('x', NULL)$$),
	($$SELECT state_job_create('x', '[]', NULL)$$),
	($$SELECT state_job_add_tasks('bad', NULL)$$),
	($$SELECT * FROM state_job_update_tasks('bad', NULL)$$),
	($$SELECT * FROM state_job_update_tasks(NULL, '[]')$$),
	($$SELECT state_job_cancel(NULL)$$),
	($$SELECT state_job_summary(NULL)$$),
	($$SELECT state_job_get(NULL)$$),
	($$SELECT * FROM state_job_tasks(NULL)$$),
	($$SELECT * FROM state_job_tasks('bad', "limit" => NULL)$$),
	($$SELECT * FROM state_job_claim_tasks(NULL)$$),
	($$SELECT * FROM state_job_claim_tasks('a', NULL)$$),
	($$SELECT * FROM state_job_claim_tasks('a', 1, NULL)$$),
	($$SELECT state_job_renew_tasks('bad', NULL, 1)$$),
	($$SELECT state_job_renew_tasks('bad', '{a,NULL}', 1)$$),
	($$SELECT state_job_renew_tasks('bad', '{a}', NULL)$$),
	($$SELECT * FROM state_job_verify(repair => NULL)$$),
	-- No such job, or there already
	($$SELECT state_job_create('bad')$$),
	($$SELECT state_job_create('')$$),
	($$SELECT state_job_create(repeat('x', 1001))$$),
	($$SELECT state_job_add_tasks('none', '[]')$$),
	($$SELECT * FROM state_job_update_tasks('none', '[]')$$),
	($$SELECT state_job_cancel('none')$$),
	($$SELECT state_job_summary('none')$$),
	($$SELECT state_job_get('none')$$),
	($$SELECT * FROM state_job_tasks('none')$$),
	($$SELECT * FROM state_job_claim_tasks('a', job_id => 'none')$$),
	($$SELECT state_job_renew_tasks('none', '{a}', 1)$$),
	-- No lists of tasks
	($$SELECT state_job_create('x', '{}')$$),
	($$SELECT state_job_create('x', '"a"')$$),
	($$SELECT state_job_create('x', '[1]')$$),
	($$SELECT state_job_create('x', '[["a"]]')$$),
	($$SELECT state_job_create('x', '["a", ""]')$$),
	($$SELECT state_job_create('x', jsonb_build_array(repeat('x', 256)))$$),
	($$SELECT state_job_create('x', '[{"agent_name": "a"}]')$$),
	($$SELECT state_job_create('x', '[{"task_id": null}]')$$),
	($$SELECT state_job_create('x', '[{"task_id": "a", "agent_name": 1}]')$$),
	($$SELECT state_job_create('x', '[{"task_id": "a", "inputs": 1}]')$$),
	($$SELECT state_job_create('x', '[]', '[]')$$),
	($$SELECT state_job_create('x', '[]', '{"max_attempts": "3"}')$$),
	($$SELECT state_job_create('x', '[]', '{"max_attempts": 0}')$$),
	($$SELECT state_job_create('x', '["a\u0000"]')$$),
	-- A task twice
	($$SELECT state_job_create('x', '["a", "b", "a", "c", "b"]')$$),
	($$SELECT state_job_add_tasks('bad', '["d", "d"]')$$),
	($$SELECT state_job_add_tasks('bad', '["d", "c", "e", "a"]')$$),
	-- Updates
	($$SELECT * FROM state_job_update_tasks('bad', '{"task_id": "a"}')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '["a"]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a"}]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a", "status": "done"}]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a", "status": "Running"}]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a", "status": 1}]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a", "status": "running", "token": 1e30}]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a", "status": "running", "token": "1"}]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a", "status": "running", "results": 1}]')$$),
	($$SELECT * FROM state_job_update_tasks('bad', '[{"task_id": "a", "status": "running"}, {"task_id": "x", "status": "running"}, {"task_id": "b", "status": "running"}, {"task_id": "y", "status": "running"}]')$$),
	-- Pages, claims
	($$SELECT * FROM state_job_tasks('bad', "limit" => 0)$$),
	($$SELECT * FROM state_job_tasks('bad', "limit" => -1)$$),
	($$SELECT * FROM state_job_tasks('bad', "limit" => 10001)$$),
	($$SELECT * FROM state_job_tasks('bad', status => 'done')$$),
	($$SELECT * FROM state_job_claim_tasks('', 1)$$),
	($$SELECT * FROM state_job_claim_tasks(repeat('x', 256), 1)$$),
	($$SELECT * FROM state_job_claim_tasks('a', 0)$$),
	($$SELECT * FROM state_job_claim_tasks('a', -5)$$),
	($$SELECT * FROM state_job_claim_tasks('a', 2147483647)$$),
	($$SELECT * FROM state_job_claim_tasks('a', 1, '0 seconds')$$),
	($$SELECT * FROM state_job_claim_tasks('a', 1, '-1 hour')$$),
	($$SELECT * FROM state_job_claim_tasks('a', 1, '178000000 years')$$),
	($$SELECT * FROM state_job_claim_tasks('a', job_id => '')$$),
	($$SELECT state_job_renew_tasks('bad', '{x,y}', 1)$$),
	($$SELECT state_job_renew_tasks('bad', '{a}', 1)$$),
	($$SELECT state_job_renew_tasks('bad', '{a}', 1, '-1 hour')$$),
	($$SELECT * FROM state_job_verify('')$$)
) s (statement);
SELECT state_job_get('bad') = job, state_version('bad', 'job') = version FROM before;
SELECT state_exists('x', 'job'), count(*) FROM state_task WHERE job_id IN ('x', 'none');

-- Nothing to do is no error.
SELECT state_job_add_tasks('bad', '[]');
SELECT * FROM state_job_update_tasks('bad', '[]');
SELECT state_job_renew_tasks('bad', '{}', 1) > now();
SELECT state_version('bad', 'job') = version FROM before;

-- Names of any characters.
SELECT state_job_create(E'q"''\\ \u00e9', jsonb_build_array(E'a"b', E'c''d\\', E'\u00e9', ' '));
SELECT task_id FROM state_job_tasks(E'q"''\\ \u00e9');
SELECT count(*) FROM state_job_update_tasks(E'q"''\\ \u00e9', jsonb_build_array(jsonb_build_object('task_id', E'a"b', 'status', 'completed', 'result', E'x\\y')));
SELECT counts(E'q"''\\ \u00e9');
SELECT state_delete(E'q"''\\ \u00e9', class => 'job'), state_delete('bad', class => 'job');

-- Not where nothing can be written.
BEGIN READ ONLY;
SELECT outcome($$SELECT state_job_create('x')$$);
SELECT outcome($$SELECT * FROM state_job_claim_tasks('a')$$);
COMMIT;
-- A prepared transaction would hold a job for nobody knows how long.
BEGIN;
SELECT state_job_create('x');
PREPARE TRANSACTION 'x';
