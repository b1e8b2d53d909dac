-- ---------------------------------------------------------------------------------------------------
-- Claims of states of any class. The extension writes the table as its owner: who may change a state may claim it.
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE state_lease (
	class      text COLLATE "C" NOT NULL,
	key        text COLLATE "C" NOT NULL,
	token      bigint NOT NULL DEFAULT state_draw('state_claim_token'::pg_catalog.regclass),
	owner      text COLLATE "C",
	expires_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	claimed_at timestamptz,
	PRIMARY KEY (class, key),
	-- Makes the token part of a key: a claim that changes it waits for those who write under the old one, and a
	-- renewal, which does not, waits for nobody.
	UNIQUE (class, key, token)
);
COMMENT ON TABLE state_lease IS 'who owns which state, but for runs, whose claims are in state_claim';
COMMENT ON COLUMN state_lease.class IS 'class of the state';
COMMENT ON COLUMN state_lease.key IS 'name of the state within its class';
COMMENT ON COLUMN state_lease.token
	IS 'token of the current claim, 0 before the first; writes that carry an older one fail';
COMMENT ON COLUMN state_lease.owner IS 'who claimed the state; NULL before the first claim, and once it is released';
COMMENT ON COLUMN state_lease.expires_at IS 'until when nobody else can claim it';
COMMENT ON COLUMN state_lease.claimed_at IS 'when it was claimed; NULL before the first claim';

CREATE FUNCTION state_claim(key text, owner text, lease interval DEFAULT '30 s', class text DEFAULT 'run')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_claim';
COMMENT ON FUNCTION state_claim(text, text, interval, text)
	IS 'claims a state that nobody else holds, or a name without a state; the token, greater than all before it';

CREATE FUNCTION state_renew(key text, token bigint, lease interval DEFAULT '30 s', class text DEFAULT 'run')
	RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_renew';
COMMENT ON FUNCTION state_renew(text, bigint, interval, text)
	IS 'prolongs a claim; until when. 40001 if another has the state';

CREATE FUNCTION state_release(key text, token bigint, class text DEFAULT 'run')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_release';
COMMENT ON FUNCTION state_release(text, bigint, text) IS 'gives a claim up';

CREATE FUNCTION state_fence(key text, token bigint, class text DEFAULT 'run')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_fence';
COMMENT ON FUNCTION state_fence(text, bigint, text)
	IS 'what this transaction writes of the state, it writes under this claim: 40001 now or at COMMIT if it is not '
	   'the current one';

SELECT pg_catalog.pg_extension_config_dump('state_lease', '');
