-- ---------------------------------------------------------------------------------------------------
-- Runs. Beside its document a run has a place in the hierarchy and an owner. The extension writes these
-- tables as their owner: who may change a run's state may do what is right with the rest.
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE state_context (
	run_id        text COLLATE "C" PRIMARY KEY,
	parent_run_id text COLLATE "C",
	depth         integer NOT NULL,
	base_version  bigint NOT NULL,
	parent_base   jsonb,
	handed_on     jsonb,
	created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX state_context_children ON state_context (parent_run_id) WHERE parent_run_id IS NOT NULL;
COMMENT ON TABLE state_context
	IS 'the hierarchy of runs: a row per run that state_context_create() or state_context_child() has made, or '
	   'another function has found to be a root';
COMMENT ON COLUMN state_context.run_id IS 'the run: the key of its state of class run';
COMMENT ON COLUMN state_context.parent_run_id IS 'the run that it is a child of; NULL for a root';
COMMENT ON COLUMN state_context.depth IS 'steps to the root, 0 for a root';
COMMENT ON COLUMN state_context.base_version
	IS 'version of the run that the next merge into the parent compares with';
COMMENT ON COLUMN state_context.parent_base
	IS 'values that the parent had then of variables of which the run had others, null for none; NULL where there '
	   'are no such variables';
COMMENT ON COLUMN state_context.handed_on
	IS 'records of the variables that the run has exported to its parent since base_version: the next merge '
	   'compares these with them; NULL where there are no such variables';
COMMENT ON COLUMN state_context.created_at IS 'when the run was created';
COMMENT ON INDEX state_context_children IS 'the children of each run';

CREATE FUNCTION state_draw(sequence regclass) RETURNS bigint
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_draw';
COMMENT ON FUNCTION state_draw(regclass)
	IS 'a number of the sequence that was never given out, neither here nor in a future that a restore or a '
	   'promotion has lost: at least the time in microseconds since 2000';

CREATE SEQUENCE state_claim_token;
COMMENT ON SEQUENCE state_claim_token IS 'the tokens of claims: each is greater than all before it';
CREATE TABLE state_claim (
	run_id     text COLLATE "C" PRIMARY KEY,
	token      bigint NOT NULL DEFAULT state_draw('state_claim_token'::pg_catalog.regclass),
	owner      text COLLATE "C",
	expires_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	claimed_at timestamptz,
	-- What a list shows, and what it is taken from an index by.
	status        text COLLATE "C" NOT NULL DEFAULT 'running',
	parent_run_id text COLLATE "C",
	swarm_id      text COLLATE "C",
	routine_id    text COLLATE "C",
	step          text COLLATE "C",
	created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	-- Makes the token part of a key: a claim that changes it waits for those who write under the old one, and a
	-- renewal, which does not, waits for nobody.
	UNIQUE (run_id, token)
);
ALTER SEQUENCE state_claim_token OWNED BY state_claim.token;
COMMENT ON TABLE state_claim
	IS 'the runs: who owns which, and what state_context_list() and state_context_claim_next() find them by';
COMMENT ON COLUMN state_claim.run_id IS 'the run';
COMMENT ON COLUMN state_claim.token
	IS 'token of the current claim, 0 before the first; writes that carry an older one fail';
COMMENT ON COLUMN state_claim.owner IS 'who claimed the run; NULL before the first claim, and once it is released';
COMMENT ON COLUMN state_claim.expires_at
	IS 'until when nobody else can claim it; of a run that nobody owns, since when it waits';
COMMENT ON COLUMN state_claim.claimed_at IS 'when it was claimed; NULL before the first claim';
COMMENT ON COLUMN state_claim.status IS 'status of the run';
COMMENT ON COLUMN state_claim.parent_run_id IS 'the run that it is a child of, as its document says';
COMMENT ON COLUMN state_claim.swarm_id IS 'swarm of the run; NULL if it has none, or if the name is above 255 bytes';
COMMENT ON COLUMN state_claim.routine_id IS 'what the run runs; NULL if nothing is said, or in more than 255 bytes';
COMMENT ON COLUMN state_claim.step IS 'the step that the run is in, as state_context_step() has named it';
COMMENT ON COLUMN state_claim.created_at IS 'when the run was first written: the order of state_context_list()';

-- A list is read backwards from its end. Without a status it is put together from one part for each status.
CREATE INDEX state_claim_status ON state_claim (status, created_at, run_id);
CREATE INDEX state_claim_swarm ON state_claim (swarm_id, status, created_at, run_id) WHERE swarm_id IS NOT NULL;
CREATE INDEX state_claim_parent ON state_claim (parent_run_id, created_at, run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX state_claim_owner ON state_claim (owner, status, created_at, run_id) WHERE owner IS NOT NULL;
CREATE INDEX state_claim_owned ON state_claim (created_at, run_id)
	WHERE owner IS NOT NULL AND status OPERATOR(pg_catalog.=) 'running';
-- The queue is read from its beginning.
CREATE INDEX state_claim_waiting ON state_claim (expires_at, run_id) WHERE status OPERATOR(pg_catalog.=) 'running';
CREATE INDEX state_claim_waiting_swarm ON state_claim (swarm_id, expires_at, run_id)
	WHERE status OPERATOR(pg_catalog.=) 'running' AND swarm_id IS NOT NULL;
CREATE INDEX state_claim_waiting_routine ON state_claim (routine_id, expires_at, run_id)
	WHERE status OPERATOR(pg_catalog.=) 'running' AND routine_id IS NOT NULL;
COMMENT ON INDEX state_claim_status IS 'the runs of each status, oldest first';
COMMENT ON INDEX state_claim_swarm IS 'the runs of each swarm and status, oldest first';
COMMENT ON INDEX state_claim_parent IS 'the children of each run, oldest first';
COMMENT ON INDEX state_claim_owner IS 'the runs of each owner and status, oldest first';
COMMENT ON INDEX state_claim_owned IS 'the running runs that have an owner, oldest first';
COMMENT ON INDEX state_claim_waiting IS 'the running runs, those first that can be claimed first';
COMMENT ON INDEX state_claim_waiting_swarm IS 'the same for each swarm';
COMMENT ON INDEX state_claim_waiting_routine IS 'the same for each routine';

-- A restore, or a replication, brings rows of runs that the extension has made rows for when it saw their states.
CREATE FUNCTION state_claim_merge() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF pg_trigger_depth() > 1 THEN
		-- The statement below, or one of another trigger.
		RETURN NEW;
	END IF;
	EXECUTE format('INSERT INTO %I.%I SELECT ($1).* ON CONFLICT (run_id) DO UPDATE SET token = excluded.token, '
		'owner = excluded.owner, expires_at = excluded.expires_at, claimed_at = excluded.claimed_at, '
		'status = excluded.status, parent_run_id = excluded.parent_run_id, swarm_id = excluded.swarm_id, '
		'routine_id = excluded.routine_id, step = excluded.step, created_at = excluded.created_at',
		TG_TABLE_SCHEMA, TG_TABLE_NAME) USING NEW;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION state_claim_merge()
	IS 'lets a restored or replicated row take the place of the one that is there';
CREATE TRIGGER state_claim_merge BEFORE INSERT ON state_claim
	FOR EACH ROW WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_claim_merge();
COMMENT ON TRIGGER state_claim_merge ON state_claim
	IS 'lets a restored or replicated row take the place of the one that is there';
ALTER TABLE state_claim ENABLE ALWAYS TRIGGER state_claim_merge;

CREATE SEQUENCE state_conflict_id_seq;
CREATE TABLE state_conflict (
	id               bigint PRIMARY KEY DEFAULT state_draw('state_conflict_id_seq'::pg_catalog.regclass),
	run_id           text COLLATE "C" NOT NULL,
	child_run_id     text COLLATE "C" NOT NULL,
	variable         text NOT NULL,
	base_value       jsonb,
	parent_value     jsonb,
	child_value      jsonb NOT NULL,
	parent_timestamp timestamptz,
	child_timestamp  timestamptz,
	sensitivity      text NOT NULL,
	status           text NOT NULL DEFAULT 'open'
		CHECK (status OPERATOR(pg_catalog.=) ANY (ARRAY['open', 'resolved', 'superseded', 'abandoned'])),
	opened_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	resolved_value   jsonb,
	reason           text,
	resolved_by      text,
	resolved_at      timestamptz,
	superseded_by    bigint
);
ALTER SEQUENCE state_conflict_id_seq OWNED BY state_conflict.id;
CREATE INDEX state_conflict_open ON state_conflict (run_id) WHERE status OPERATOR(pg_catalog.=) 'open';
CREATE INDEX state_conflict_run ON state_conflict (run_id);
CREATE INDEX state_conflict_child ON state_conflict (child_run_id);
COMMENT ON TABLE state_conflict
	IS 'variables that a parent and its child have both changed, for a person to decide; kept as the record of what '
	   'was decided';
COMMENT ON SEQUENCE state_conflict_id_seq IS 'the names of conflicts';
COMMENT ON COLUMN state_conflict.id IS 'name of the conflict, for state_conflict_resolve()';
COMMENT ON COLUMN state_conflict.run_id IS 'the parent, in which the variable is blocked';
COMMENT ON COLUMN state_conflict.child_run_id IS 'the child that was merged';
COMMENT ON COLUMN state_conflict.variable IS 'name of the variable';
COMMENT ON COLUMN state_conflict.base_value IS 'what both have started from; NULL where there was no such variable';
COMMENT ON COLUMN state_conflict.parent_value IS 'what the parent has; NULL where it has no such variable';
COMMENT ON COLUMN state_conflict.child_value IS 'what the child has; null once the child is purged';
COMMENT ON COLUMN state_conflict.parent_timestamp IS 'when the parent set it';
COMMENT ON COLUMN state_conflict.child_timestamp IS 'when the child set it';
COMMENT ON COLUMN state_conflict.sensitivity IS 'the highest sensitivity of the values';
COMMENT ON COLUMN state_conflict.status
	IS 'open, resolved, superseded by a later one of the same variable, or abandoned with its run';
COMMENT ON COLUMN state_conflict.opened_at IS 'when the child was merged';
COMMENT ON COLUMN state_conflict.resolved_value IS 'what was decided';
COMMENT ON COLUMN state_conflict.reason IS 'why';
COMMENT ON COLUMN state_conflict.resolved_by IS 'by which role';
COMMENT ON COLUMN state_conflict.resolved_at IS 'when';
COMMENT ON COLUMN state_conflict.superseded_by
	IS 'the conflict that took its place when another one of the same variable was resolved';
COMMENT ON INDEX state_conflict_open IS 'the conflicts that wait for a decision';
COMMENT ON INDEX state_conflict_run IS 'the conflicts of a run, which go with the run when it is purged';
COMMENT ON INDEX state_conflict_child IS 'the conflicts to which a child has given a value';

CREATE SEQUENCE state_outbox_id_seq;
CREATE TABLE state_outbox (
	id              bigint PRIMARY KEY DEFAULT state_draw('state_outbox_id_seq'::pg_catalog.regclass),
	run_id          text COLLATE "C" NOT NULL,
	key             text NOT NULL,
	target          text NOT NULL,
	target_key      text NOT NULL,
	value           jsonb NOT NULL,
	sensitivity     text NOT NULL,
	created_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	acknowledged_at timestamptz
);
ALTER SEQUENCE state_outbox_id_seq OWNED BY state_outbox.id;
CREATE INDEX state_outbox_pending ON state_outbox (target, id) WHERE acknowledged_at IS NULL;
CREATE INDEX state_outbox_run ON state_outbox (run_id);
COMMENT ON TABLE state_outbox
	IS 'exports of completed runs to external systems; a consumer takes rows with FOR UPDATE SKIP LOCKED and '
	   'acknowledges them';
COMMENT ON SEQUENCE state_outbox_id_seq IS 'the order of exports';
COMMENT ON COLUMN state_outbox.id IS 'order in which they were exported';
COMMENT ON COLUMN state_outbox.run_id IS 'the run that exported it';
COMMENT ON COLUMN state_outbox.key IS 'the variable';
COMMENT ON COLUMN state_outbox.target IS 'the system that it is for';
COMMENT ON COLUMN state_outbox.target_key IS 'the name that it has there';
COMMENT ON COLUMN state_outbox.value IS 'what is exported';
COMMENT ON COLUMN state_outbox.sensitivity IS 'how sensitive it is';
COMMENT ON COLUMN state_outbox.created_at IS 'when the run completed';
COMMENT ON COLUMN state_outbox.acknowledged_at IS 'when a consumer was done with it; NULL until then';
COMMENT ON INDEX state_outbox_pending IS 'what no consumer has acknowledged';
COMMENT ON INDEX state_outbox_run IS 'the exports of a run, which go with the run when it is purged';

CREATE FUNCTION state_context_create(run_id text, routine_id text DEFAULT NULL, inputs jsonb DEFAULT NULL,
		permissions text[] DEFAULT NULL, resource_limits jsonb DEFAULT NULL, swarm_id text DEFAULT NULL,
		sensitivity_map jsonb DEFAULT NULL, budget text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_create';
COMMENT ON FUNCTION state_context_create(text, text, jsonb, text[], jsonb, text, jsonb, text)
	IS 'creates a root run whose variables are the inputs, and whose credits a budget is charged with; its version';

CREATE FUNCTION state_context_child(parent_run_id text, child_run_id text, inputs jsonb DEFAULT NULL,
		routine_id text DEFAULT NULL, permissions text[] DEFAULT NULL, resource_limits jsonb DEFAULT NULL,
		max_sensitivity text DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_child';
COMMENT ON FUNCTION state_context_child(text, text, jsonb, text, text[], jsonb, text, bigint)
	IS 'creates a child of a running run, which inherits variables, permissions and limits; its version';

CREATE FUNCTION state_context_get(run_id text)
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_context_get';
COMMENT ON FUNCTION state_context_get(text)
	IS 'the document of a run, found to be sound; an error without such a run';

CREATE FUNCTION state_context_visible(run_id text, max_sensitivity text DEFAULT 'internal')
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_context_visible';
COMMENT ON FUNCTION state_context_visible(text, text)
	IS 'the document of a run without what is more sensitive';

CREATE FUNCTION state_context_tree(run_id text,
		OUT run_id text, OUT parent_run_id text, OUT depth integer, OUT status text, OUT version bigint,
		OUT routine_id text, OUT owner text, OUT created_at timestamptz, OUT step text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'state_context_tree';
COMMENT ON FUNCTION state_context_tree(text)
	IS 'a run and all runs below it, parents before their children; depth counts from the run';

CREATE FUNCTION state_context_set(run_id text, name text, value jsonb, source text DEFAULT 'step',
		sensitivity text DEFAULT NULL, mutable boolean DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_set';
COMMENT ON FUNCTION state_context_set(text, text, jsonb, text, text, boolean, bigint)
	IS 'sets a variable of a run; its sensitivity only ever rises';

CREATE FUNCTION state_context_set_many(run_id text, variables jsonb, source text DEFAULT 'step',
		sensitivity text DEFAULT NULL, mutable boolean DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_set_many';
COMMENT ON FUNCTION state_context_set_many(text, jsonb, text, text, boolean, bigint)
	IS 'sets several variables of a run, given as name and value';

CREATE FUNCTION state_context_append(run_id text, name text, value jsonb, source text DEFAULT 'step',
		token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_append';
COMMENT ON FUNCTION state_context_append(text, text, jsonb, text, bigint)
	IS 'appends an element to the array that a variable is; without the variable, to an empty one';

CREATE FUNCTION state_context_patch(run_id text, name text, patch jsonb, source text DEFAULT 'step',
		token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_patch';
COMMENT ON FUNCTION state_context_patch(text, text, jsonb, text, bigint)
	IS 'JSON merge patch (RFC 7396) of the value of a variable; without the variable, of an empty object';

CREATE FUNCTION state_context_merge(child_run_id text, strategy text DEFAULT 'merge_objects',
		per_variable jsonb DEFAULT NULL, token bigint DEFAULT NULL,
		OUT variable text, OUT value jsonb, OUT strategy text, OUT reason text, OUT conflict bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_context_merge';
COMMENT ON FUNCTION state_context_merge(text, text, jsonb, bigint)
	IS 'merges what a child has changed into its parent, three-way; a row per variable; token is that of the parent';

CREATE FUNCTION state_conflict_resolve(id bigint, value jsonb, reason text)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_conflict_resolve';
COMMENT ON FUNCTION state_conflict_resolve(bigint, jsonb, text)
	IS 'settles a conflict that a merge left to a person';

CREATE FUNCTION state_context_mark_export(run_id text, key text, destination text,
		transformation text DEFAULT NULL, target text DEFAULT NULL, target_key text DEFAULT NULL,
		item jsonb DEFAULT NULL, sensitivity text DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_mark_export';
COMMENT ON FUNCTION state_context_mark_export(text, text, text, text, text, text, jsonb, text, bigint)
	IS 'marks a variable to be exported when the run completes; transformation is an SQL/JSON path, target a class '
	   'or a system';

CREATE FUNCTION state_context_unmark_export(run_id text, key text, destination text DEFAULT NULL,
		token bigint DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_unmark_export';
COMMENT ON FUNCTION state_context_unmark_export(text, text, text, bigint)
	IS 'takes back that a variable is to be exported, to a destination or at all; whether it was';

CREATE FUNCTION state_context_complete(run_id text, outcome text DEFAULT 'completed',
		strategy text DEFAULT 'merge_objects', token bigint DEFAULT NULL,
		OUT key text, OUT destination text, OUT target text, OUT strategy text, OUT reason text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_context_complete';
COMMENT ON FUNCTION state_context_complete(text, text, text, bigint)
	IS 'ends a run: exports travel, what it was allotted goes back to its parent, its last state is written at once '
	   'and kept; a row per export';

CREATE FUNCTION state_context_claim(run_id text, owner text, lease interval DEFAULT '30 s')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_claim';
COMMENT ON FUNCTION state_context_claim(text, text, interval)
	IS 'claims a run that nobody else holds; the token, greater than all before it';

CREATE FUNCTION state_context_claim_next(owner text, lease interval DEFAULT '30 s', swarm_id text DEFAULT NULL,
		routine_id text DEFAULT NULL, OUT run_id text, OUT token bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_context_claim_next';
COMMENT ON FUNCTION state_context_claim_next(text, interval, text, text)
	IS 'claims the run that waits longest of those that run and nobody owns, and gives its token; no row if there is '
	   'none; waits for nobody';

CREATE FUNCTION state_context_list(status text DEFAULT NULL, swarm_id text DEFAULT NULL,
		parent_run_id text DEFAULT NULL, owner text DEFAULT NULL, claimed boolean DEFAULT NULL,
		after text DEFAULT NULL, "limit" integer DEFAULT 100,
		OUT run_id text, OUT parent text, OUT status text, OUT owner text, OUT lease_until timestamptz,
		OUT version bigint, OUT updated_at timestamptz, OUT step text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'state_context_list';
COMMENT ON FUNCTION state_context_list(text, text, text, text, boolean, text, integer)
	IS 'a page of the runs that are as the arguments say, newest first; after is the last run of the page before';

CREATE FUNCTION state_context_step(run_id text, label text, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_step';
COMMENT ON FUNCTION state_context_step(text, text, bigint)
	IS 'names the step that a run is in; NULL: none';

CREATE FUNCTION state_context_renew(run_id text, token bigint, lease interval DEFAULT '30 s')
	RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_renew';
COMMENT ON FUNCTION state_context_renew(text, bigint, interval)
	IS 'prolongs a claim; until when. 40001 if another has the run';

CREATE FUNCTION state_context_release(run_id text, token bigint)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_release';
COMMENT ON FUNCTION state_context_release(text, bigint)
	IS 'gives a claim up';

CREATE FUNCTION state_context_fence(run_id text, token bigint)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_fence';
COMMENT ON FUNCTION state_context_fence(text, bigint)
	IS 'what this transaction writes of the run, it writes under this claim: 40001 now or at COMMIT if it is not '
	   'the current one';

CREATE FUNCTION state_context_spend(run_id text, what text, amount numeric, token bigint DEFAULT NULL)
	RETURNS numeric
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_spend';
COMMENT ON FUNCTION state_context_spend(text, text, numeric, bigint)
	IS 'charges an amount to a run at once, and refuses what exceeds its limit; what is left, NULL without a limit';

SELECT pg_catalog.pg_extension_config_dump('state_context', '');
SELECT pg_catalog.pg_extension_config_dump('state_claim', '');
SELECT pg_catalog.pg_extension_config_dump('state_claim_token', '');
SELECT pg_catalog.pg_extension_config_dump('state_conflict', '');
SELECT pg_catalog.pg_extension_config_dump('state_conflict_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('state_outbox', '');
SELECT pg_catalog.pg_extension_config_dump('state_outbox_id_seq', '');
