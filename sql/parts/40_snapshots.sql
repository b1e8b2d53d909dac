-- ---------------------------------------------------------------------------------------------------
-- Snapshots. What changes here is written at once, inside the transaction.
-- ---------------------------------------------------------------------------------------------------
-- What was found damaged, and what was done about it.
CREATE TABLE state_recovery_log (
	id         uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
	found_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	class      text COLLATE "C" NOT NULL,
	key        text COLLATE "C" NOT NULL,
	version    bigint,
	error_type text NOT NULL,
	severity   text NOT NULL
		CHECK (severity OPERATOR(pg_catalog.=) ANY (ARRAY['info', 'warning', 'error', 'critical', 'fatal'])),
	fault      text NOT NULL,
	strategy   text NOT NULL,
	outcome    text NOT NULL,
	restored_version bigint
);
CREATE INDEX state_recovery_log_state ON state_recovery_log (class, key, found_at);
COMMENT ON INDEX state_recovery_log_state IS 'what was found and done with a state, in order';
COMMENT ON TABLE state_recovery_log IS 'damage found in stored states and recoveries, and what came of them';
COMMENT ON COLUMN state_recovery_log.id IS 'name of the entry; the same on every replica';
COMMENT ON COLUMN state_recovery_log.found_at IS 'when it was found';
COMMENT ON COLUMN state_recovery_log.class IS 'class of the state';
COMMENT ON COLUMN state_recovery_log.key IS 'name of the state within its class';
COMMENT ON COLUMN state_recovery_log.version
	IS 'version that was damaged, or current before a recovery; NULL where there was none';
COMMENT ON COLUMN state_recovery_log.error_type
	IS 'context_corruption for class run, state_corruption for others; none for a recovery that was asked for';
COMMENT ON COLUMN state_recovery_log.severity IS 'info, warning, error, critical or fatal';
COMMENT ON COLUMN state_recovery_log.fault IS 'what was wrong';
COMMENT ON COLUMN state_recovery_log.strategy IS 'what was done: restart, resume, rollback, repair';
COMMENT ON COLUMN state_recovery_log.outcome IS 'what came of it';
COMMENT ON COLUMN state_recovery_log.restored_version IS 'version whose content the state has now';

CREATE TABLE state_damaged (
	-- No foreign key: a parallel restore loads the two tables in any order.
	log_id uuid NOT NULL,
	LIKE state_snapshot INCLUDING COMMENTS INCLUDING COMPRESSION,
	PRIMARY KEY (class, key, version, log_id)
);
ALTER TABLE state_damaged ALTER delta SET STORAGE EXTERNAL;
COMMENT ON TABLE state_damaged IS 'damaged snapshots that state_verify() has put aside, as they were found';
COMMENT ON COLUMN state_damaged.log_id IS 'entry of state_recovery_log';

CREATE FUNCTION state_save(key text, state jsonb, checkpoint_type text DEFAULT 'auto',
		agent_phase text DEFAULT NULL, recovery_point boolean DEFAULT false,
		execution_context jsonb DEFAULT NULL, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, label text DEFAULT NULL, parent_version bigint DEFAULT NULL,
		payload bytea DEFAULT NULL, class text DEFAULT 'run',
		OUT action text, OUT version bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_save';
COMMENT ON FUNCTION state_save(text, jsonb, text, text, boolean, jsonb, bigint, interval, text, bigint, bytea, text)
	IS 'replaces the whole state and keeps it as a checkpoint; action is saved, unchanged or deferred';

CREATE FUNCTION state_save_text(key text, state text, checkpoint_type text DEFAULT 'auto',
		agent_phase text DEFAULT NULL, recovery_point boolean DEFAULT false,
		execution_context jsonb DEFAULT NULL, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, on_invalid text DEFAULT 'error', label text DEFAULT NULL,
		parent_version bigint DEFAULT NULL, payload bytea DEFAULT NULL, class text DEFAULT 'run',
		OUT action text, OUT version bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_save_text';
COMMENT ON FUNCTION state_save_text(text, text, text, text, boolean, jsonb, bigint, interval, text, text, bigint,
	bytea, text)
	IS 'as state_save(), of JSON as text; on_invalid as for state_set_text()';

CREATE FUNCTION state_history(key text, class text DEFAULT 'run',
		OUT version bigint, OUT parent_version bigint, OUT checkpoint_type text, OUT agent_phase text,
		OUT recovery_point boolean, OUT execution_context jsonb, OUT encoding text,
		OUT bytes_stored bigint, OUT bytes bigint, OUT created_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 50 AS 'MODULE_PATHNAME', 'state_history';
COMMENT ON FUNCTION state_history(text, text)
	IS 'the kept versions of the state, newest first; encoding is whole, compressed or delta';

CREATE FUNCTION state_diff(key text, from_version bigint, to_version bigint, class text DEFAULT 'run') RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_diff';
COMMENT ON FUNCTION state_diff(text, bigint, bigint, text)
	IS 'JSON Patch (RFC 6902) that makes one kept version into another';

CREATE FUNCTION state_restore(key text, version bigint, expected_version bigint DEFAULT NULL,
	class text DEFAULT 'run')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_restore';
COMMENT ON FUNCTION state_restore(text, bigint, bigint, text)
	IS 'makes a new version with the content of a kept one, which becomes its parent; the new version';

CREATE FUNCTION state_recover(key text, kind text DEFAULT 'rollback', class text DEFAULT 'run',
		OUT action text, OUT version bigint, OUT from_version bigint, OUT recovery_point boolean,
		OUT checkpoint_type text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_recover';
COMMENT ON FUNCTION state_recover(text, text, text)
	IS 'reinstates an intact snapshot: the newest recovery point (rollback), the newest (resume) or the oldest '
	   '(restart)';

CREATE FUNCTION state_prune(class text, keep integer DEFAULT NULL, older_than interval DEFAULT NULL,
		recovery_points boolean DEFAULT false) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_prune';
COMMENT ON FUNCTION state_prune(text, integer, interval, boolean)
	IS 'deletes the snapshots that are beyond the newest and older than that; with neither named, those that the '
	   'class does not keep; how many';

CREATE FUNCTION state_verify(class text DEFAULT NULL, repair boolean DEFAULT false,
		OUT class text, OUT key text, OUT version bigint, OUT fault text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_verify';
COMMENT ON FUNCTION state_verify(text, boolean)
	IS 'checks every stored version of a class, or of all; with repair, damaged ones are put aside and their states '
	   'go back to the newest intact version';

CREATE FUNCTION state_progress(
		OUT pid integer, OUT command text, OUT class text, OUT key text,
		OUT states_done bigint, OUT states_total bigint, OUT started_at timestamptz) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_progress';
COMMENT ON FUNCTION state_progress() IS 'what the view state_progress shows';

CREATE VIEW state_progress AS SELECT * FROM state_progress();
COMMENT ON VIEW state_progress
	IS 'how far each state_verify() and state_prune() has come that runs in this database; key is NULL for those '
	   'who may not read the tables';

SELECT pg_catalog.pg_extension_config_dump('state_recovery_log', '');
SELECT pg_catalog.pg_extension_config_dump('state_damaged', '');
