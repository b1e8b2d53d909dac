-- ---------------------------------------------------------------------------------------------------
-- Change: staged until the flush
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_set(key text, state jsonb, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_set';
COMMENT ON FUNCTION state_set(text, jsonb, bigint, interval, text)
	IS 'replaces the whole state; expected_version 0 means absent';

CREATE FUNCTION state_set_text(key text, state text, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, on_invalid text DEFAULT 'error', class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_set_text';
COMMENT ON FUNCTION state_set_text(text, text, bigint, interval, text, text)
	IS 'as state_set(), of JSON as text; on_invalid => replace puts U+FFFD in place of escaped NULs and lone '
	   'surrogates';

CREATE FUNCTION state_update(key text, updates jsonb, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_update';
COMMENT ON FUNCTION state_update(text, jsonb, text) IS 'top-level shallow merge; an absent state counts as {}';

CREATE FUNCTION state_update_section(key text, section text, updates jsonb, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_update_section';
COMMENT ON FUNCTION state_update_section(text, text, jsonb, text)
	IS 'shallow merge inside one section, which must exist';

CREATE FUNCTION state_merge(key text, patch jsonb, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_merge';
COMMENT ON FUNCTION state_merge(text, jsonb, text) IS 'JSON merge patch (RFC 7396); an absent state counts as {}';

CREATE FUNCTION state_put(key text, state jsonb, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_put';
COMMENT ON FUNCTION state_put(text, jsonb, bigint, interval, text)
	IS 'as state_set(), but written at once; the version that holds the document';

CREATE FUNCTION state_append(key text, path text[], value jsonb, class text DEFAULT 'run',
		"create" boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_append';
COMMENT ON FUNCTION state_append(text, text[], jsonb, text, boolean)
	IS 'appends an element to the array at a path, which must exist, or is made with create';

CREATE FUNCTION state_append_many(key text, path text[], "values" jsonb, class text DEFAULT 'run',
		"create" boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_append_many';
COMMENT ON FUNCTION state_append_many(text, text[], jsonb, text, boolean)
	IS 'appends the elements of an array, in their order, to the array at a path';

CREATE FUNCTION state_pop(key text, path text[], class text DEFAULT 'run') RETURNS jsonb
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_pop';
COMMENT ON FUNCTION state_pop(text, text[], text)
	IS 'takes the last element off the array at a path, and gives it; NULL if there is none';

CREATE FUNCTION state_delete(key text, expected_version bigint DEFAULT NULL, class text DEFAULT 'run') RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_delete';
COMMENT ON FUNCTION state_delete(text, bigint, text) IS 'deletes the state; whether there was one';

CREATE FUNCTION state_touch(key text, ttl interval DEFAULT '0', class text DEFAULT 'run') RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_touch';
COMMENT ON FUNCTION state_touch(text, interval, text)
	IS 'gives the state a new time to live, NULL for no end, and no new version; 0: the one that it was given before '
	   'starts again; whether there was a state';
