-- ---------------------------------------------------------------------------------------------------
-- Many keys: lists of versions and of states, purges, copies, times to live.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_list(key text DEFAULT NULL, prefix text DEFAULT NULL, before bigint DEFAULT NULL,
		before_label text DEFAULT NULL, label text DEFAULT NULL, filter jsonb DEFAULT NULL,
		"limit" integer DEFAULT 100, states boolean DEFAULT true, class text DEFAULT 'run',
		OUT key text, OUT version bigint, OUT parent_version bigint, OUT label text, OUT execution_context jsonb,
		OUT state jsonb, OUT payload bytea, OUT created_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'state_list';
COMMENT ON FUNCTION state_list(text, text, bigint, text, text, jsonb, integer, boolean, text)
	IS 'kept versions of one state, or of those with a prefix, newest first, with what belongs to them';

CREATE FUNCTION state_keys(prefix text DEFAULT '', after text DEFAULT NULL, "limit" integer DEFAULT 10000,
		class text DEFAULT 'run',
		OUT key text, OUT version bigint, OUT updated_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'state_keys';
COMMENT ON FUNCTION state_keys(text, text, integer, text)
	IS 'the states of a class whose keys begin with a prefix, in the order of their keys';

CREATE FUNCTION state_purge(keys text[] DEFAULT NULL, prefix text DEFAULT NULL, versions bigint[] DEFAULT NULL,
		keep integer DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_purge';
COMMENT ON FUNCTION state_purge(text[], text, bigint[], integer, text)
	IS 'erases states for good, or versions of states; returns of how many states something was erased';

CREATE FUNCTION state_copy(from_prefix text, to_prefix text, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_copy';
COMMENT ON FUNCTION state_copy(text, text, text)
	IS 'copies the states whose keys begin with a prefix, with history and logs, under another one; returns how many';

CREATE FUNCTION state_touch_prefix(prefix text, ttl interval DEFAULT '0', class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_touch_prefix';
COMMENT ON FUNCTION state_touch_prefix(text, interval, text)
	IS 'state_touch() for all states whose keys begin with a prefix; of how many';
