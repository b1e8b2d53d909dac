-- Several roles in one transaction, as SECURITY DEFINER functions and SET ROLE make them: what one of them has staged
-- gives another neither a look at what it may not read nor a way to write what it may not write.
\a \t \pset null (null)
\set heard '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
SELECT state_class_define('roles', channel => 'roles_test');
SELECT state_set('secret', '{"s": 1}', class => 'roles');
CREATE ROLE regress_roles_none;
CREATE ROLE regress_roles_tenant;
CREATE ROLE regress_roles_loader;
GRANT SELECT, INSERT, UPDATE, DELETE ON state_head, state_snapshot TO regress_roles_tenant;
GRANT INSERT ON state_head, state_snapshot TO regress_roles_loader;
-- The tenant's keys begin with "t-"; the policies are switched on where they matter.
CREATE POLICY tenant ON state_head TO regress_roles_tenant USING (key LIKE 't-%') WITH CHECK (key LIKE 't-%');
CREATE POLICY tenant ON state_snapshot TO regress_roles_tenant USING (key LIKE 't-%') WITH CHECK (key LIKE 't-%');
CREATE PROCEDURE policies(what text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE state_head %s ROW LEVEL SECURITY', what);
	EXECUTE format('ALTER TABLE state_snapshot %s ROW LEVEL SECURITY', what);
END
$$;
-- What an administrator lets everybody do.
CREATE FUNCTION definer_touch() RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = public
	AS $$ SELECT state_touch('secret', '1 hour', class => 'roles') $$;
CREATE FUNCTION definer_vote() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public
	AS $$ SELECT state_update('secret', '{"vote": 1}', class => 'roles') $$;
CREATE FUNCTION definer_flush() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public
	AS $$ SELECT count(*) FROM state_batch_commit() $$;
CREATE FUNCTION definer_log(entry text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public
	AS $$ SELECT state_append('audit', '{}', to_jsonb(entry), class => 'roles') $$;
CREATE FUNCTION definer_read(key text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = public
	AS $$ SELECT state_get(key, class => 'roles') $$;
CREATE FUNCTION definer_by_hand(what text, name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
	IF what = 'delete' THEN
		DELETE FROM state_head WHERE class = 'roles' AND key = name;
	ELSE
		UPDATE state_head SET version = version + 1 WHERE class = 'roles' AND key = name;
	END IF;
END
$$;
-- Every way to read, in subtransactions.
CREATE FUNCTION reads(name text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT outcome(format(call, name)) FROM unnest(ARRAY[
		$q$SELECT state_get(%L, class => 'roles')$q$,
		$q$SELECT state_get_text(%L, class => 'roles')$q$,
		$q$SELECT state_get_path(%L, '{s}', class => 'roles')$q$,
		$q$SELECT state_get_section(%L, 's', class => 'roles')$q$,
		$q$SELECT * FROM state_get_many(ARRAY[%L], class => 'roles')$q$,
		$q$SELECT * FROM state_get_if_newer(%L, 0, class => 'roles')$q$,
		$q$SELECT state_version(%L, class => 'roles')$q$,
		$q$SELECT state_exists(%L, class => 'roles')$q$]) call
$$;

-- A role without rights reads nothing of a state that its transaction has touched …
SET ROLE regress_roles_none;
BEGIN;
SELECT definer_touch();
SELECT reads('secret');
SELECT state_get('secret', class => 'roles');
\echo :SQLSTATE
ROLLBACK;
-- … changed …
BEGIN;
SELECT definer_vote();
SELECT reads('secret');
ROLLBACK;
-- … or changed and flushed.
BEGIN;
SELECT definer_vote(), definer_flush();
SELECT reads('secret');
SELECT state_get('secret', class => 'roles');
\echo :SQLSTATE
ROLLBACK;
RESET ROLE;
SELECT stored('secret', 'roles');

-- What a policy hides stays hidden.
CALL policies('ENABLE');
SET ROLE regress_roles_tenant;
BEGIN;
SELECT state_get('secret', class => 'roles');
SELECT definer_touch();
SELECT state_get('secret', class => 'roles'), state_version('secret', class => 'roles'), state_exists('secret', class => 'roles');
ROLLBACK;
BEGIN;
SELECT definer_vote();
SELECT state_get('secret', class => 'roles'), state_get_text('secret', class => 'roles');
ROLLBACK;
BEGIN;
SELECT definer_vote(), definer_flush();
SELECT state_get('secret', class => 'roles'), (SELECT count(*) FROM state_get_many('{secret}', class => 'roles'));
ROLLBACK;
-- What it may see it sees, whoever staged it.
BEGIN;
SELECT state_set('t-1', '{"n": 1}', class => 'roles');
SELECT definer_read('t-1');
SELECT state_update('t-1', '{"m": 2}', class => 'roles');
SELECT state_get('t-1', class => 'roles');
COMMIT;
RESET ROLE;
SELECT stored('t-1', 'roles');

-- What a role may not write another does not write for it: the policy answers before the definer adds to the document.
SELECT state_set('audit', '["old entry"]', class => 'roles');
SET ROLE regress_roles_tenant;
BEGIN;
SELECT state_set('audit', '[]', class => 'roles');
SELECT definer_log('harmless');
\echo :SQLSTATE
COMMIT;
RESET ROLE;
SELECT stored('audit', 'roles');
-- Nor does a definer rely on it.
SELECT state_set('grants', '{"tenant": "user"}', class => 'roles');
SET ROLE regress_roles_tenant;
BEGIN;
SELECT state_set('grants', '{"tenant": "admin"}', class => 'roles');
SELECT definer_read('grants');
\echo :SQLSTATE
ROLLBACK;
RESET ROLE;
SELECT stored('grants', 'roles');
-- In an explicit batch, which must stay in one piece until it is flushed, that is not possible.
SET ROLE regress_roles_tenant;
BEGIN;
SELECT state_batch_begin();
SELECT state_set('t-1', '{"n": 2}', class => 'roles');
SELECT complaint($$SELECT definer_read('t-1')$$);
SELECT key, action FROM state_batch_commit();
SELECT definer_read('t-1');
COMMIT;
RESET ROLE;
SELECT stored('t-1', 'roles');

-- What a role has read is checked in that role's batch, as that role, whoever commits. For a caller without rights …
CREATE FUNCTION definer_begin() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public
	AS $$ SELECT state_batch_begin(); $$;
CALL policies('DISABLE');
SET ROLE regress_roles_none;
BEGIN;
SELECT state_batch_begin(), definer_begin();
SELECT definer_read('secret');
SELECT count(*) FROM state_batch_commit();
COMMIT;
BEGIN;
SELECT definer_begin();
SELECT definer_read('secret');
SELECT definer_log('by nobody');
COMMIT;
RESET ROLE;
SELECT stored('audit', 'roles');
-- … and for one that does not see it.
CALL policies('ENABLE');
SET ROLE regress_roles_tenant;
BEGIN;
SELECT definer_begin();
SELECT definer_read('secret');
SELECT state_set('t-2', '{}', class => 'roles');
COMMIT;
-- It is checked all the same.
BEGIN;
SELECT definer_begin();
SELECT definer_read('secret');
SELECT state_set('t-2', '{"too": "late"}', class => 'roles');
SELECT definer_by_hand('update', 'secret');
COMMIT;
\echo :SQLSTATE
RESET ROLE;
SELECT stored('t-2', 'roles'), stored('secret', 'roles');

-- Changes made by hand are told to subscribers whatever the session's role may see of them at COMMIT.
SELECT state_set('by hand', '1', class => 'roles');
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN roles_test;
SET ROLE regress_roles_tenant;
\o :heard
SELECT definer_by_hand('update', 'by hand');
\o
RESET ROLE;
CALL policies('DISABLE');
SET ROLE regress_roles_none;
\o :heard
SELECT definer_by_hand('delete', 'by hand');
\o
RESET ROLE;
SELECT seen('by hand', 'roles'), stored('by hand', 'roles');
-- A role that may insert and nothing else loads rows.
SET ROLE regress_roles_loader;
\o :heard
BEGIN;
INSERT INTO state_snapshot (class, key, version, state, hash) VALUES ('roles', 'loaded', 1, '1', state_hash('1'));
INSERT INTO state_head (class, key, version, hash, size) VALUES ('roles', 'loaded', 1, state_hash('1'), 8);
COMMIT;
\o
RESET ROLE;
UNLISTEN *;
SELECT seen('loaded', 'roles');

-- L1 holds what policies hide, and says nothing of it to whom they apply.
CALL policies('ENABLE');
SELECT state_exists('secret', class => 'roles');
SET ROLE regress_roles_tenant;
SELECT complaint($$SELECT state_invalidate('secret', 'roles')$$);
SELECT complaint($$SELECT state_invalidate('no such', 'roles')$$);
SELECT complaint($$SELECT state_cache_clear('roles')$$);
RESET ROLE;
CALL policies('DISABLE');

-- The flush runs a table's triggers under the search_path of the role that staged the change, not under the caller's,
-- who would otherwise choose what the names in them mean.
CREATE SCHEMA audit;
CREATE TABLE audit.log (key text);
CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.key); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT ON state_head FOR EACH ROW EXECUTE FUNCTION audit.note();
CREATE FUNCTION definer_logged(n int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = audit, public, pg_temp
	AS $$ SELECT state_set('logged ' || n, '1', class => 'roles') $$;
SET ROLE regress_roles_none;
CREATE TEMP TABLE log (key text);
CREATE FUNCTION pg_temp.caught() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'caught %', current_user; END $$;
CREATE TRIGGER caught BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION pg_temp.caught();
SELECT definer_logged(1);
BEGIN;
SELECT definer_logged(2);
SELECT definer_flush();
SHOW search_path;
COMMIT;
RESET ROLE;
SELECT key FROM audit.log ORDER BY key;
SELECT stored('logged 1', 'roles'), stored('logged 2', 'roles');
DROP TRIGGER note ON state_head;
DROP TABLE pg_temp.log;
SET client_min_messages = warning;
DROP SCHEMA audit CASCADE;
RESET client_min_messages;

-- The functions behind the triggers are for the extension's tables. Who has no rights cannot put them elsewhere …
SET ROLE regress_roles_none;
CREATE TEMP TABLE forged (class text, key text, version bigint, parent_version bigint, state text, delta text, hash bytea);
SELECT outcome($$CREATE TRIGGER forged AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION state_cache_watch()$$);
SELECT outcome($$CREATE TRIGGER forged BEFORE TRUNCATE ON forged FOR EACH STATEMENT EXECUTE FUNCTION state_cache_watch()$$);
SELECT outcome($$CREATE TRIGGER forged AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION state_class_watch()$$);
SELECT outcome($$CREATE TRIGGER forged BEFORE INSERT ON forged FOR EACH ROW EXECUTE FUNCTION state_class_restore()$$);
RESET ROLE;
-- … and elsewhere they refuse to run, whatever the columns are.
CREATE TEMP TABLE numbers (class bigint, key bigint, version bigint, parent_version bigint, state text, delta text, hash bytea);
CREATE TRIGGER forged AFTER INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION state_cache_watch();
CREATE TRIGGER forged_truncate BEFORE TRUNCATE ON numbers FOR EACH STATEMENT EXECUTE FUNCTION state_cache_watch();
LISTEN cache_invalidate;
SELECT outcome($$INSERT INTO numbers VALUES (1, 2, 3, 4, 'x', NULL, '0123456789abcdef')$$);
SELECT outcome($$TRUNCATE numbers$$);
UNLISTEN *;
SELECT outcome($$SELECT state_cache_watch()$$);

DROP TABLE forged, numbers;
DROP POLICY tenant ON state_head;
DROP POLICY tenant ON state_snapshot;
DROP OWNED BY regress_roles_none, regress_roles_tenant, regress_roles_loader;
DROP ROLE regress_roles_none, regress_roles_tenant, regress_roles_loader;
