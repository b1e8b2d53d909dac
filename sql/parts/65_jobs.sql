-- ---------------------------------------------------------------------------------------------------
-- Jobs. A job is a state of class job, whose document counts its tasks; the tasks are rows. The extension writes
-- them as their owner: who may change the job's state may change its tasks. Where row-level security of state_task
-- applies to a role, that role needs privileges of its own on it, and sees what the policies show.
-- ---------------------------------------------------------------------------------------------------

CREATE SEQUENCE state_task_token;
COMMENT ON SEQUENCE state_task_token
	IS 'the tokens under which tasks are claimed: each is greater than all before it';
CREATE SEQUENCE state_task_position_seq;
COMMENT ON SEQUENCE state_task_position_seq IS 'the order in which tasks were added';
CREATE TABLE state_task (
	job_id       text COLLATE "C" NOT NULL,
	task_id      text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(task_id) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(task_id) OPERATOR(pg_catalog.<=) 255),
	agent_name   text COLLATE "C",
	status       text COLLATE "C" NOT NULL DEFAULT 'pending'
		CHECK (status OPERATOR(pg_catalog.=) ANY
			(ARRAY['pending', 'running', 'completed', 'failed', 'cancelled'])),
	attempts     integer NOT NULL DEFAULT 0 CHECK (attempts OPERATOR(pg_catalog.>=) 0),
	position     bigint NOT NULL DEFAULT pg_catalog.nextval('state_task_position_seq'::pg_catalog.regclass),
	owner        text COLLATE "C",
	token        bigint,
	lease_until  timestamptz,
	created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	started_at   timestamptz,
	completed_at timestamptz,
	-- Last, behind what changes with every update: WAL then holds only what is before them.
	error        jsonb,
	result       jsonb,
	input        jsonb,
	PRIMARY KEY (job_id, task_id)
) WITH (fillfactor = 80);
ALTER SEQUENCE state_task_position_seq OWNED BY state_task.position;
ALTER SEQUENCE state_task_token OWNED BY state_task.token;
CREATE INDEX state_task_waiting ON state_task (agent_name, job_id, position)
	WHERE status OPERATOR(pg_catalog.=) 'pending';
CREATE INDEX state_task_leased ON state_task (lease_until)
	WHERE status OPERATOR(pg_catalog.=) 'running' AND lease_until IS NOT NULL;
CREATE INDEX state_task_failed ON state_task (job_id, task_id) WHERE status OPERATOR(pg_catalog.=) 'failed';
COMMENT ON TABLE state_task
	IS 'the tasks of jobs; the job, a state of class job, says how many there are of each status';
COMMENT ON COLUMN state_task.job_id IS 'the job: the key of its state of class job';
COMMENT ON COLUMN state_task.task_id IS 'name of the task within its job, 1 to 255 bytes';
COMMENT ON COLUMN state_task.agent_name IS 'the agent that is to do it; NULL: any';
COMMENT ON COLUMN state_task.status IS 'pending, running, completed, failed or cancelled';
COMMENT ON COLUMN state_task.attempts IS 'how often it was started';
COMMENT ON COLUMN state_task.position IS 'its place in the order in which tasks were added';
COMMENT ON COLUMN state_task.owner IS 'the agent that has claimed it, or claimed it last';
COMMENT ON COLUMN state_task.token IS 'the token under which it was claimed; updates that carry another one fail';
COMMENT ON COLUMN state_task.lease_until IS 'until when nobody else can claim it; NULL where it is not claimed';
COMMENT ON COLUMN state_task.created_at IS 'when it was added';
COMMENT ON COLUMN state_task.started_at IS 'when it was started last';
COMMENT ON COLUMN state_task.completed_at IS 'when it ended';
COMMENT ON COLUMN state_task.error IS 'why it failed, or was given back';
COMMENT ON COLUMN state_task.result IS 'what came of it';
COMMENT ON COLUMN state_task.input IS 'what the agent is given';
COMMENT ON INDEX state_task_waiting IS 'the tasks that wait, by agent and job, in the order in which they were added';
COMMENT ON INDEX state_task_leased IS 'the leases, those that are over soonest first';
COMMENT ON INDEX state_task_failed IS 'the tasks that have failed';

CREATE TABLE state_task_left (
	job_id text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE state_task_left
	IS 'jobs that are gone and had more tasks than went with them at once; the worker deletes these';
COMMENT ON COLUMN state_task_left.job_id IS 'the job';

CREATE FUNCTION state_job_create(job_id text, tasks jsonb DEFAULT '[]', attributes jsonb DEFAULT '{}')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_create';
COMMENT ON FUNCTION state_job_create(text, jsonb, jsonb)
	IS 'creates a job with these tasks; how many they are';

CREATE FUNCTION state_job_add_tasks(job_id text, tasks jsonb)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_add_tasks';
COMMENT ON FUNCTION state_job_add_tasks(text, jsonb)
	IS 'adds tasks to a job; how many they are. 23505 if one is there already';

CREATE FUNCTION state_job_update_tasks(job_id text, updates jsonb,
		OUT task_id text, OUT old_status text, OUT new_status text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'state_job_update_tasks';
COMMENT ON FUNCTION state_job_update_tasks(text, jsonb)
	IS 'changes tasks of a job, all or none of them, in the order given; a row per update';

CREATE FUNCTION state_job_cancel(job_id text)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_cancel';
COMMENT ON FUNCTION state_job_cancel(text)
	IS 'cancels all tasks of a job that have not ended; how many they were. The job takes no more tasks';

CREATE FUNCTION state_job_summary(job_id text)
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_job_summary';
COMMENT ON FUNCTION state_job_summary(text)
	IS 'how many tasks a job has of each status, and whether it is complete; reads no task';

CREATE FUNCTION state_job_get(job_id text)
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_job_get';
COMMENT ON FUNCTION state_job_get(text)
	IS 'a job with all its tasks, in the order in which they were added, as one document';

CREATE FUNCTION state_job_tasks(job_id text, status text DEFAULT NULL, agent text DEFAULT NULL,
		after text DEFAULT NULL, "limit" integer DEFAULT 100,
		OUT task_id text, OUT agent_name text, OUT status text, OUT attempts integer, OUT owner text,
		OUT lease_until timestamptz, OUT created_at timestamptz, OUT started_at timestamptz,
		OUT completed_at timestamptz, OUT input jsonb, OUT result jsonb, OUT error jsonb)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'state_job_tasks';
COMMENT ON FUNCTION state_job_tasks(text, text, text, text, integer)
	IS 'a page of the tasks of a job, in the order of their names: those behind the one named after';

CREATE FUNCTION state_job_claim_tasks(agent text, "limit" integer DEFAULT 1, lease interval DEFAULT '5 minutes',
		job_id text DEFAULT NULL,
		OUT job_id text, OUT task_id text, OUT token bigint, OUT agent_name text, OUT attempts integer,
		OUT lease_until timestamptz, OUT input jsonb)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_job_claim_tasks';
COMMENT ON FUNCTION state_job_claim_tasks(text, integer, interval, text)
	IS 'hands out tasks that wait, or whose lease is over, of one job or of all in turn; a row per task';

CREATE FUNCTION state_job_renew_tasks(job_id text, task_ids text[], token bigint, lease interval DEFAULT '5 minutes')
	RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_renew_tasks';
COMMENT ON FUNCTION state_job_renew_tasks(text, text[], bigint, interval)
	IS 'prolongs the leases of tasks, all or none; until when. 40001 if another has one of them';

CREATE FUNCTION state_job_verify(job_id text DEFAULT NULL, repair boolean DEFAULT false,
		OUT job_id text, OUT kept jsonb, OUT counted jsonb, OUT repaired boolean)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_job_verify';
COMMENT ON FUNCTION state_job_verify(text, boolean)
	IS 'counts the tasks of a job, or of all, and returns the jobs whose summary says something else; repair writes '
	   'what was counted, and deletes tasks of no job';

-- Ordinary triggers: what logical replication brings was counted where it was written, and comes with the counts.
CREATE FUNCTION state_task_watch() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_task_watch';
COMMENT ON FUNCTION state_task_watch() IS 'counts what is changed by hand in state_task';
CREATE TRIGGER state_task_inserted AFTER INSERT ON state_task REFERENCING NEW TABLE AS new_tasks
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
CREATE TRIGGER state_task_updated AFTER UPDATE ON state_task REFERENCING OLD TABLE AS old_tasks NEW TABLE AS new_tasks
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
CREATE TRIGGER state_task_deleted AFTER DELETE ON state_task REFERENCING OLD TABLE AS old_tasks
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
CREATE TRIGGER state_task_truncated AFTER TRUNCATE ON state_task
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
COMMENT ON TRIGGER state_task_inserted ON state_task IS 'the summaries of the jobs say how many tasks there are';
COMMENT ON TRIGGER state_task_updated ON state_task IS 'the summaries of the jobs follow';
COMMENT ON TRIGGER state_task_deleted ON state_task IS 'the summaries of the jobs follow';
COMMENT ON TRIGGER state_task_truncated ON state_task IS 'the summaries of all jobs say that there are no tasks';

SELECT pg_catalog.pg_extension_config_dump('state_task', '');
SELECT pg_catalog.pg_extension_config_dump('state_task_token', '');
SELECT pg_catalog.pg_extension_config_dump('state_task_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('state_task_left', '');
