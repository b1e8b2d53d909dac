-- ---------------------------------------------------------------------------------------------------
-- Grants by profile. What a profile grants stands in one list here and in docs/operations/privileges.md; a test
-- (tests/server/tests/suite/grants.rs) holds one against the other.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_profiles(OUT profile text, OUT privileges text, OUT kind text, OUT object text)
	RETURNS SETOF record LANGUAGE sql IMMUTABLE ROWS 60 SET search_path = pg_catalog, pg_temp AS $$
	WITH own (profile, privileges, kind, objects) AS (VALUES
		('reader', 'SELECT', 'TABLE', ARRAY['state_head', 'state_snapshot', 'state_current', 'state_kept',
			'state_class', 'state_l2_classes', 'state_log_entry']),
		('application', 'INSERT, UPDATE', 'TABLE', ARRAY['state_head']),
		('application', 'INSERT, UPDATE, DELETE', 'TABLE', ARRAY['state_snapshot', 'state_log_entry']),
		('application', 'USAGE', 'SEQUENCE', ARRAY['state_log_number']),
		('runner', 'SELECT', 'TABLE', ARRAY['state_budget', 'state_budget_agent', 'state_budget_price',
			'state_budget_account', 'state_budget_hold', 'state_budget_cost', 'state_budget_reached',
			'state_budget_holds']),
		('runner', 'INSERT, UPDATE', 'TABLE', ARRAY['state_budget_account', 'state_budget_hold', 'state_budget_price',
			'state_budget_cost', 'state_budget_reached']),
		('operator', 'INSERT, UPDATE', 'TABLE', ARRAY['state_class']),
		('operator', 'SELECT', 'TABLE', ARRAY['state_cache_stats', 'state_cache_workers', 'state_progress',
			'state_sources', 'state_cache_entries', 'state_cache_unwritten', 'state_recovery_log', 'state_damaged',
			'state_conflict']),
		('operator', 'EXECUTE', 'FUNCTION', ARRAY['state_cache_stats', 'state_cache_workers', 'state_progress',
			'state_sources'])
	-- Who has the second has the first.
	), includes (profile, included) AS (VALUES ('reader', 'reader'), ('application', 'application'),
		('application', 'reader'), ('runner', 'runner'), ('runner', 'application'), ('runner', 'reader'),
		('operator', 'operator'), ('operator', 'application'), ('operator', 'reader')
	)
	SELECT i.profile, o.privileges, o.kind, n.object FROM includes i JOIN own o ON o.profile = i.included,
		LATERAL unnest(o.objects) n (object)
$$;
COMMENT ON FUNCTION state_profiles() IS 'what state_grant() grants for each profile';

-- Both functions do all of their statements or none.
CREATE FUNCTION state_grant(role regrole, profile text) RETURNS void
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
	item record;
BEGIN
	IF pg_is_in_recovery() THEN
		RAISE 'cannot execute %() during recovery', 'state_grant'
			USING ERRCODE = 'read_only_sql_transaction',
			HINT = 'This server is a standby. Call it on the primary: target_session_attrs=primary.';
	END IF;
	EXECUTE format('SELECT %s.state_profile_check($1, $2)', home) USING role, profile;
	EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', home, role);
	FOR item IN EXECUTE format('SELECT * FROM %s.state_profiles() p WHERE p.profile = $1', home) USING profile LOOP
		EXECUTE format('GRANT %s ON %s %s.%I%s TO %s', item.privileges, item.kind, home, item.object,
			CASE item.kind WHEN 'FUNCTION' THEN '()' END, role);
	END LOOP;
END
$$;
COMMENT ON FUNCTION state_grant(regrole, text)
	IS 'grants a role what a reader, an application, a runner or an operator needs';

CREATE FUNCTION state_revoke(role regrole, profile text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home regnamespace := (SELECT extnamespace FROM pg_extension WHERE extname = 'state_cache');
	item record;
BEGIN
	IF pg_is_in_recovery() THEN
		RAISE 'cannot execute %() during recovery', 'state_revoke'
			USING ERRCODE = 'read_only_sql_transaction',
			HINT = 'This server is a standby. Call it on the primary: target_session_attrs=primary.';
	END IF;
	EXECUTE format('SELECT %s.state_profile_check($1, $2)', home) USING role, COALESCE(profile, 'reader');
	FOR item IN EXECUTE format('SELECT DISTINCT p.privileges, p.kind, p.object FROM %s.state_profiles() p
		WHERE p.profile = $1 OR $1 IS NULL', home) USING profile
	LOOP
		EXECUTE format('REVOKE %s ON %s %s.%I%s FROM %s', item.privileges, item.kind, home, item.object,
			CASE item.kind WHEN 'FUNCTION' THEN '()' END, role);
	END LOOP;
	-- The schema may hold what is not the extension's.
	IF NOT EXISTS (SELECT FROM pg_class c, aclexplode(c.relacl) a
			WHERE c.relnamespace = home AND a.grantee = role)
		AND NOT EXISTS (SELECT FROM pg_proc p, aclexplode(p.proacl) a
			WHERE p.pronamespace = home AND a.grantee = role)
	THEN
		EXECUTE format('REVOKE USAGE ON SCHEMA %s FROM %s', home, role);
	END IF;
END
$$;
COMMENT ON FUNCTION state_revoke(regrole, text)
	IS 'takes back what state_grant() grants for a profile, NULL: for any of them';

CREATE FUNCTION state_profile_check(role regrole, profile text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
	known text;
	foreign_table text;
BEGIN
	IF role IS NULL OR role = 0 THEN
		RAISE 'role must not be null' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	EXECUTE format('SELECT string_agg(DISTINCT p.profile, '', '') FROM %s.state_profiles() p', home) INTO known;
	IF profile IS NULL OR profile <> ALL (string_to_array(known, ', ')) THEN
		RAISE 'profile "%" does not exist', COALESCE(profile, 'null')
			USING ERRCODE = 'invalid_parameter_value', HINT = format('The profiles are: %s.', known);
	END IF;
	-- The server only warns where it grants nothing.
	EXECUTE format('SELECT c.oid::regclass FROM %1$s.state_profiles() p JOIN pg_class c ON c.relname = p.object
		AND c.relnamespace = %1$L::regnamespace
		WHERE p.kind <> ''FUNCTION'' AND NOT pg_has_role(c.relowner, ''USAGE'') LIMIT 1', home) INTO foreign_table;
	IF foreign_table IS NOT NULL THEN
		RAISE 'must be owner of %', foreign_table USING ERRCODE = 'insufficient_privilege',
			HINT = 'Who owns the tables of the extension grants what they allow.';
	END IF;
END
$$;
COMMENT ON FUNCTION state_profile_check(regrole, text)
	IS 'raises unless there is such a profile and the caller owns the tables';
