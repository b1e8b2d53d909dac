-- A job is a state of class job that counts its tasks, which are rows. A tour; the other jobs files go through each part.
\a \t \pset null (null)
-- counts() is the summary in short, from the document; rows() the same, counted.
CREATE FUNCTION counts(job text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT format('%s tasks: %s pending, %s running, %s completed, %s failed, %s cancelled%s', s->'total', s->'pending', s->'running', s->'completed', s->'failed', s->'cancelled',
		CASE WHEN (s->'is_complete')::boolean THEN ', complete' END) FROM state_job_summary(job) s
$$;
CREATE FUNCTION rows(job text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT format('%s tasks: %s pending, %s running, %s completed, %s failed, %s cancelled%s', count(*), count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'running'),
		count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'cancelled'),
		CASE WHEN count(*) > 0 AND bool_and(status IN ('completed', 'failed', 'cancelled')) THEN ', complete' END) FROM state_task WHERE job_id = rows.job
$$;
CREATE FUNCTION agree(job text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT CASE WHEN counts(job) = rows(job) THEN counts(job) ELSE 'WRONG: ' || counts(job) || '; rows: ' || rows(job) END $$;

SELECT state_job_create('tour', '["outline", {"task_id": "draft", "agent_name": "writer", "input": {"pages": 4}}, {"task_id": "check", "agent_name": null, "input": null}]', '{"audience": "editors"}');
SELECT agree('tour'), state_version('tour', 'job');
-- The job is a state like any other.
SELECT state_get('tour', 'job') - 'created_at';
SELECT state_job_get('tour')->'attributes', state_job_get('tour')->'job_id', jsonb_array_length(state_job_get('tour')->'tasks');

-- Updates: a row for each, one version for all of them. Several of one task are made in order.
SELECT * FROM state_job_update_tasks('tour', '[{"task_id": "outline", "status": "running"}, {"task_id": "draft", "status": "running"}, {"task_id": "outline", "status": "completed", "result": {"parts": 3}}]');
SELECT agree('tour'), state_version('tour', 'job');
-- The same again changes nothing.
SELECT * FROM state_job_update_tasks('tour', '[{"task_id": "outline", "status": "completed", "result": {"parts": 3}}, {"task_id": "draft", "status": "running"}]');
SELECT state_version('tour', 'job');
-- What a task that runs says of itself can change; that is no change of the counts, and makes no version.
SELECT * FROM state_job_update_tasks('tour', '[{"task_id": "draft", "status": "running", "result": {"pages": 1}}]');
SELECT state_version('tour', 'job');

-- Within a transaction the summary follows at once, a savepoint takes both back, and one version comes of all.
BEGIN;
SELECT state_job_add_tasks('tour', '["print"]'), agree('tour');
SAVEPOINT s;
SELECT count(*) FROM state_job_update_tasks('tour', '[{"task_id": "print", "status": "failed", "error": "no paper"}, {"task_id": "draft", "status": "completed"}]');
SELECT agree('tour');
ROLLBACK TO s;
SELECT agree('tour');
SELECT count(*) FROM state_job_update_tasks('tour', '[{"task_id": "print", "status": "completed"}]');
SELECT agree('tour');
COMMIT;
SELECT agree('tour'), state_version('tour', 'job');
BEGIN;
SELECT count(*) FROM state_job_update_tasks('tour', '[{"task_id": "draft", "status": "completed"}]');
ROLLBACK;
SELECT agree('tour'), state_version('tour', 'job');

-- A batch that is rolled back keeps what is written as rows, and what that does to the counts.
BEGIN;
SELECT state_batch_begin();
SELECT state_job_add_tasks('tour', '["bind"]'), state_set('beside', '1');
SELECT state_batch_rollback();
SELECT agree('tour'), state_exists('beside');
COMMIT;
SELECT agree('tour');

-- The last task ends, and with it the job: a recovery point, which lasts as long as the class says.
SELECT count(*) FROM state_job_update_tasks('tour', '[{"task_id": "draft", "status": "completed"}, {"task_id": "check", "status": "failed", "error": "no"}, {"task_id": "bind", "status": "cancelled"}]');
SELECT agree('tour'), state_get('tour', 'job') ? 'completed_at';
SELECT version, recovery_point FROM state_history('tour', 'job');
SELECT expires_at - updated_at BETWEEN '29 days 23 hours' AND '30 days' FROM state_head WHERE class = 'job' AND key = 'tour';
-- More tasks open it again.
SELECT state_job_add_tasks('tour', '["reprint"]');
SELECT agree('tour'), state_get('tour', 'job') ? 'completed_at';
SELECT expires_at FROM state_head WHERE class = 'job' AND key = 'tour';

-- Giving it up: what has not ended is cancelled, and no tasks come any more.
SELECT state_job_add_tasks('tour', '["x", "y"]'), count(*) FROM state_job_update_tasks('tour', '[{"task_id": "reprint", "status": "running"}]');
SELECT state_job_cancel('tour');
SELECT agree('tour'), state_get('tour', 'job') ? 'cancelled_at';
SELECT state_job_cancel('tour');
SELECT complaint($$SELECT state_job_add_tasks('tour', '["z"]')$$);

-- Pages of tasks, by name.
SELECT task_id, status, attempts, agent_name FROM state_job_tasks('tour', "limit" => 4);
SELECT task_id, status, attempts, agent_name FROM state_job_tasks('tour', after => 'draft', "limit" => 4);
SELECT task_id, input, result, error FROM state_job_tasks('tour', status => 'failed');
SELECT task_id, input, result, error FROM state_job_tasks('tour', status => 'completed', agent => 'writer');
SELECT t.key, t.value FROM jsonb_array_elements(state_job_get('tour')->'tasks') j (task), jsonb_each(j.task - '{started_at,completed_at}'::text[]) t WHERE j.task->>'task_id' = 'draft' ORDER BY 1;

-- Attributes are the caller's, the rest is not.
SELECT state_update('tour', '{"attributes": {"audience": "all", "max_attempts": 1}}', 'job');
SELECT state_update_section('tour', 'attributes', '{"tags": []}', 'job'), state_append('tour', '{attributes,tags}', '"a"', 'job');
SELECT state_get_path('tour', '{attributes}', 'job'), agree('tour');
SELECT complaint($$SELECT state_set('tour', '{"summary": {}}', class => 'job')$$);
SELECT complaint($$SELECT state_set('other', '{}', class => 'job')$$);
SELECT outcome($$SELECT state_save('tour', '{}', class => 'job')$$);
SELECT outcome($$SELECT state_restore('tour', 1, class => 'job')$$);
SELECT complaint($$SELECT state_update('tour', '{"summary": {"total": 1}}', 'job')$$);
SELECT outcome($$SELECT state_update('tour', '{"more": 1}', 'job')$$);
SELECT outcome($$SELECT state_merge('tour', '{"summary": null}', 'job')$$);
SELECT outcome($$SELECT state_merge('tour', '{"attributes": 1}', 'job')$$);
SELECT outcome($$SELECT state_merge('tour', '1', 'job')$$);
SELECT outcome($$SELECT state_update_section('tour', 'summary', '{"total": 7}', 'job')$$);
SELECT complaint($$SELECT state_update('tour', '{"attributes": {"max_attempts": 0}}', 'job')$$);
SELECT outcome($$SELECT state_update('nothing', '{"attributes": {}}', 'job')$$);

-- A job that is deleted takes its tasks along; one of the same name has none of them.
SELECT state_delete('tour', class => 'job');
SELECT count(*) FROM state_task WHERE job_id = 'tour';
SELECT state_job_create('tour'), counts('tour');
BEGIN;
SELECT state_job_add_tasks('tour', '["old"]');
SELECT state_delete('tour', class => 'job'), state_job_create('tour', '["new"]');
SELECT agree('tour');
COMMIT;
SELECT agree('tour'), task_id FROM state_job_tasks('tour');
SELECT state_delete('tour', class => 'job');
SELECT * FROM state_job_verify();
SELECT count(*) FROM state_task_left;
