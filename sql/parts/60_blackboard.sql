-- ---------------------------------------------------------------------------------------------------
-- Blackboard: items in the document of a state of class swarm. Changes are staged until the flush.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_blackboard_add(swarm_id text, key text, value jsonb, type text DEFAULT 'data',
		created_by text DEFAULT current_user, ttl interval DEFAULT NULL, access_level text DEFAULT 'group',
		tags text[] DEFAULT '{}') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_blackboard_add';
COMMENT ON FUNCTION state_blackboard_add(text, text, jsonb, text, text, interval, text, text[])
	IS 'adds an item to the blackboard of a swarm; an error if it has an item of that key that has not expired';

CREATE FUNCTION state_blackboard_update(swarm_id text, key text, value jsonb DEFAULT NULL, type text DEFAULT NULL,
		ttl interval DEFAULT NULL, access_level text DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_blackboard_update';
COMMENT ON FUNCTION state_blackboard_update(text, text, jsonb, text, interval, text, text[])
	IS 'changes what is named of an item; ttl counts from now on; an error if there is no such item, or it has '
	   'expired';

CREATE FUNCTION state_blackboard_remove(swarm_id text, key text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_blackboard_remove';
COMMENT ON FUNCTION state_blackboard_remove(text, text) IS 'removes an item; whether there was one';

CREATE FUNCTION state_blackboard_items(swarm_id text, state jsonb, type text DEFAULT NULL, tag text DEFAULT NULL,
		created_by text DEFAULT NULL, access_level text DEFAULT NULL) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_blackboard_items';
COMMENT ON FUNCTION state_blackboard_items(text, jsonb, text, text, text, text)
	IS 'the items in a document of the swarm that are wanted and have not expired, by their keys; NULL means any; '
	   'an error names the field that is wrong';

CREATE FUNCTION state_blackboard_query(swarm_id text, type text DEFAULT NULL, tag text DEFAULT NULL,
		created_by text DEFAULT NULL, access_level text DEFAULT NULL,
		OUT key text, OUT value jsonb, OUT type text, OUT created_by text, OUT created_at timestamptz,
		OUT expires_at timestamptz, OUT access_level text, OUT tags text[]) RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 20
BEGIN ATOMIC
	SELECT i.key, i.value OPERATOR(pg_catalog.->) 'value', i.value OPERATOR(pg_catalog.->>) 'type',
			i.value OPERATOR(pg_catalog.->>) 'createdBy',
			CAST(i.value OPERATOR(pg_catalog.->>) 'createdAt' AS pg_catalog.timestamptz),
			CAST(i.value OPERATOR(pg_catalog.->>) 'expiresAt' AS pg_catalog.timestamptz),
			i.value OPERATOR(pg_catalog.->>) 'accessLevel',
			ARRAY(SELECT pg_catalog.jsonb_array_elements_text(i.value OPERATOR(pg_catalog.->) 'tags'))
		FROM pg_catalog.jsonb_each(state_blackboard_items($1, state_get($1, CAST('swarm' AS pg_catalog.text)),
			$2, $3, $4, $5)) i
		ORDER BY i.key COLLATE pg_catalog."C";
END;
COMMENT ON FUNCTION state_blackboard_query(text, text, text, text, text)
	IS 'the items of the blackboard of a swarm that have not expired, by type, tag, creator and access level; NULL '
	   'means any';
