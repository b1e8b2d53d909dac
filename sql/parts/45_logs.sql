-- ---------------------------------------------------------------------------------------------------
-- Logs: entries beside a state
-- ---------------------------------------------------------------------------------------------------

CREATE SEQUENCE state_log_number;
COMMENT ON SEQUENCE state_log_number IS 'the order of the entries of all logs';
CREATE TABLE state_log_entry (
	class      text COLLATE "C" NOT NULL,
	key        text COLLATE "C" NOT NULL,
	-- Never NULL: it stands in the key.
	ref        text COLLATE "C" NOT NULL DEFAULT '',
	id         text COLLATE "C" NOT NULL,
	number     bigint NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	entry      jsonb,
	payload    bytea,
	PRIMARY KEY (class, key, ref, id)
);
ALTER SEQUENCE state_log_number OWNED BY state_log_entry.number;
-- Those that belong to something are read by that, from the primary key: they need no second index.
CREATE INDEX state_log_order ON state_log_entry (class, key, number) WHERE ref OPERATOR(pg_catalog.=) '';
DO $$
BEGIN
	ALTER TABLE state_log_entry ALTER entry SET COMPRESSION lz4, ALTER payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
	NULL;
END
$$;
COMMENT ON TABLE state_log_entry IS 'the logs beside states: entries, each of them once';
COMMENT ON COLUMN state_log_entry.class IS 'class of the state';
COMMENT ON COLUMN state_log_entry.key IS 'name of the state within its class';
COMMENT ON COLUMN state_log_entry.ref IS 'what the entry belongs to, at most 255 bytes; empty: nothing';
COMMENT ON COLUMN state_log_entry.id
	IS 'name of the entry among those of its ref, 1 to 255 bytes; # and the number where it was given none';
COMMENT ON COLUMN state_log_entry.number IS 'its place: within a log numbers grow as transactions commit, with gaps';
COMMENT ON COLUMN state_log_entry.created_at IS 'when it was written';
COMMENT ON COLUMN state_log_entry.entry IS 'what it says';
COMMENT ON COLUMN state_log_entry.payload IS 'bytes beside that';
COMMENT ON INDEX state_log_order IS 'the entries that belong to nothing, in their order';

SELECT pg_catalog.pg_extension_config_dump('state_log_entry', '');
SELECT pg_catalog.pg_extension_config_dump('state_log_number', '');

CREATE FUNCTION state_log_append(key text, entries jsonb, ref text DEFAULT NULL, ids text[] DEFAULT NULL,
		replace boolean DEFAULT false, payloads bytea[] DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_log_append';
COMMENT ON FUNCTION state_log_append(text, jsonb, text, text[], boolean, bytea[], text)
	IS 'appends the elements of an array to the log beside a state, each id once: again it is skipped, or replaced; '
	   'how many were written';

CREATE FUNCTION state_log(key text, ref text DEFAULT NULL, after bigint DEFAULT NULL, "limit" integer DEFAULT NULL,
		class text DEFAULT 'run', OUT number bigint, OUT ref text, OUT id text, OUT entry jsonb, OUT payload bytea,
		OUT created_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'state_log';
COMMENT ON FUNCTION state_log(text, text, bigint, integer, text)
	IS 'the entries of a log behind a number, in order; ref NULL: all of them, empty: those that belong to nothing';

CREATE FUNCTION state_log_erase(key text, refs text[] DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_log_erase';
COMMENT ON FUNCTION state_log_erase(text, text[], text)
	IS 'erases entries of a log, those that belong to one of refs, NULL: all; how many they were';
