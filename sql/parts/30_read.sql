-- ---------------------------------------------------------------------------------------------------
-- Read. STABLE: what a statement reads is fixed by its snapshot. PARALLEL RESTRICTED: what the
-- transaction has staged lives in the leader.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_get(key text, class text DEFAULT 'run', min_version bigint DEFAULT NULL) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get';
COMMENT ON FUNCTION state_get(text, text, bigint)
	IS 'the state, NULL if absent; with min_version once this server shows that version or a later one';

CREATE FUNCTION state_get_text(key text, class text DEFAULT 'run', min_version bigint DEFAULT NULL) RETURNS text
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_text';
COMMENT ON FUNCTION state_get_text(text, text, bigint)
	IS 'the state as text, made for the wire; NULL if absent; with min_version as state_get';

CREATE FUNCTION state_get_path(key text, path text[], class text DEFAULT 'run',
		min_version bigint DEFAULT NULL) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_path';
COMMENT ON FUNCTION state_get_path(text, text[], text, bigint)
	IS 'what the state holds at a path, as the operator #> finds it; NULL if nothing; with min_version as state_get';

CREATE FUNCTION state_get_section(key text, section text, class text DEFAULT 'run') RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_section';
COMMENT ON FUNCTION state_get_section(text, text, text)
	IS 'a top-level object of the state; an error if it is missing or no object';

CREATE FUNCTION state_get_many(keys text[], class text DEFAULT 'run', min_version bigint DEFAULT NULL,
		OUT key text, OUT version bigint, OUT state jsonb) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_many';
COMMENT ON FUNCTION state_get_many(text[], text, bigint)
	IS 'several states at once, in the order asked for; absent ones have no row; min_version as in state_get';

CREATE FUNCTION state_get_if_newer(key text, version bigint, class text DEFAULT 'run',
		OUT version bigint, OUT state jsonb) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'state_get_if_newer';
COMMENT ON FUNCTION state_get_if_newer(text, bigint, text)
	IS 'the state if its version is above the known one, else no row';

CREATE FUNCTION state_version(key text, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_version';
COMMENT ON FUNCTION state_version(text, text) IS 'version of the state, NULL if absent';

CREATE FUNCTION state_exists(key text, class text DEFAULT 'run') RETURNS boolean
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_exists';
COMMENT ON FUNCTION state_exists(text, text) IS 'whether there is such a state';

-- VOLATILE and UNSAFE: they look under new snapshots, in time.
CREATE FUNCTION state_wait(key text, version bigint, timeout interval DEFAULT '5 s', class text DEFAULT 'run')
	RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_wait';
COMMENT ON FUNCTION state_wait(text, bigint, interval, text)
	IS 'waits until this server shows the version of the state or a later one, and gives the version that it shows';

CREATE FUNCTION state_wait_for("cursor" text, timeout interval DEFAULT '5 s') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_wait_for';
COMMENT ON FUNCTION state_wait_for(text, interval)
	IS 'waits until this server shows all that was committed before the cursor was taken by state_cursor()';
