-- The functions give nobody more than the tables would. They run as their caller, may be called by all, and
-- need: SELECT on state_head and state_snapshot to read; INSERT and UPDATE on state_head, INSERT and DELETE on
-- state_snapshot as well to change. A hit in L1 is checked like a read of the tables.
\a \t \pset null (null)
SELECT state_class_define('privileges');
SELECT count(state_set(k, to_jsonb(k), class => 'privileges')) FROM unnest('{a-1,a-2,b-1}'::text[]) k;
SELECT seen('a-1', 'privileges');
CREATE ROLE regress_state_nobody;
CREATE ROLE regress_state_reader;
CREATE ROLE regress_state_writer;
GRANT SELECT ON state_head, state_snapshot, state_current TO regress_state_reader, regress_state_writer;
GRANT INSERT, UPDATE ON state_head TO regress_state_writer;
GRANT INSERT, DELETE ON state_snapshot TO regress_state_writer;

-- Nobody: every function, each with its SQLSTATE.
SET ROLE regress_state_nobody;
SELECT outcome($$SELECT state_get('a-1', class => 'privileges')$$);
SELECT outcome($$SELECT state_get_text('a-1', class => 'privileges')$$);
SELECT outcome($$SELECT state_get_path('a-1', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_get_section('a-1', 's', class => 'privileges')$$);
SELECT outcome($$SELECT * FROM state_get_many('{a-1}', class => 'privileges')$$);
SELECT outcome($$SELECT * FROM state_get_if_newer('a-1', 0, class => 'privileges')$$);
SELECT outcome($$SELECT state_version('a-1', class => 'privileges')$$);
SELECT outcome($$SELECT state_exists('a-1', class => 'privileges')$$);
SELECT outcome($$SELECT state_exists('never written', class => 'privileges')$$);
SELECT outcome($$SELECT state_set('a-1', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_update('a-1', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_update_section('a-1', 's', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_merge('a-1', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_append('a-1', '{}', '1', class => 'privileges')$$);
SELECT outcome($$SELECT state_delete('a-1', class => 'privileges')$$);
SELECT outcome($$SELECT state_touch('a-1', '1 hour', class => 'privileges')$$);
SELECT outcome($$SELECT state_cache_clear('privileges')$$);
SELECT outcome($$SELECT state_cache_clear()$$);
SELECT outcome($$SELECT state_invalidate('*', 'privileges')$$);
SELECT outcome($$SELECT state_class_define('mine')$$);
SELECT outcome($$SELECT state_class_define('privileges', keep => 3)$$);
SELECT outcome($$SELECT * FROM state_cache_entries$$);
SELECT outcome($$SELECT * FROM state_cache_entries()$$);
SELECT outcome($$SELECT * FROM state_cache_stats$$);
SELECT outcome($$SELECT * FROM state_class$$);
SELECT outcome($$SELECT * FROM state_head$$);
SELECT outcome($$SELECT * FROM state_snapshot$$);
SELECT outcome($$SELECT * FROM state_current$$);
-- What reads and changes no state needs no right.
SELECT outcome($$SELECT state_hash('{}')$$);
SELECT outcome($$SELECT state_batch_begin()$$);
SELECT outcome($$SELECT * FROM state_batch_status()$$);
SELECT outcome($$SELECT * FROM state_batch_commit()$$);
SELECT outcome($$SELECT state_batch_rollback()$$);
-- The settings that are not the user's.
SELECT outcome($$SET state_cache.enabled = off$$);
SELECT outcome($$SET state_cache.max_state_size = '1kB'$$);
SELECT outcome($$SET state_cache.track_timing = on$$);
SELECT outcome($$SET state_cache.dedup = off$$);
SELECT outcome($$SET state_cache.notify = off$$);
RESET state_cache.dedup;
RESET state_cache.notify;
RESET ROLE;

-- A reader reads, and is refused where the change is staged, not at COMMIT.
SET ROLE regress_state_reader;
SELECT state_get('a-1', class => 'privileges'), state_version('a-1', class => 'privileges'), state_exists('no such', class => 'privileges');
SELECT key, state FROM state_get_many('{a-1,b-1}', class => 'privileges');
SELECT outcome($$SELECT state_set('a-1', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_set('new', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_update('a-1', '{}', class => 'privileges')$$);
SELECT outcome($$SELECT state_append('a-1', '{}', '1', class => 'privileges')$$);
SELECT outcome($$SELECT state_delete('a-1', class => 'privileges')$$);
SELECT outcome($$SELECT state_touch('a-1', '1 hour', class => 'privileges')$$);
SELECT outcome($$SELECT state_cache_clear('privileges')$$);
SELECT outcome($$SELECT state_invalidate('*', 'privileges')$$);
SELECT outcome($$SELECT state_class_define('mine')$$);
SELECT outcome($$SELECT * FROM state_cache_entries$$);
RESET ROLE;

-- A writer does both.
SET ROLE regress_state_writer;
SELECT state_set('a-1', '{"by": "writer"}', class => 'privileges');
SELECT state_update('w-1', '{"list": []}', class => 'privileges');
SELECT state_append('w-1', '{list}', '1', class => 'privileges');
SELECT stored('a-1', 'privileges'), stored('w-1', 'privileges');
SELECT state_delete('w-1', class => 'privileges'), state_touch('a-1', '1 hour', class => 'privileges');
SELECT outcome($$SELECT state_invalidate('no such', 'privileges')$$);
SELECT outcome($$SELECT state_class_define('mine')$$);
RESET ROLE;

-- Each privilege counts by itself.
REVOKE INSERT ON state_snapshot FROM regress_state_writer;
SET ROLE regress_state_writer;
SELECT outcome($$SELECT state_set('a-1', '{}', class => 'privileges')$$);
RESET ROLE;
GRANT INSERT ON state_snapshot TO regress_state_writer;
REVOKE DELETE ON state_snapshot FROM regress_state_writer;
SET ROLE regress_state_writer;
SELECT outcome($$SELECT state_set('a-1', '{}', class => 'privileges')$$);
RESET ROLE;
GRANT DELETE ON state_snapshot TO regress_state_writer;
REVOKE UPDATE ON state_head FROM regress_state_writer;
SET ROLE regress_state_writer;
SELECT outcome($$SELECT state_set('a-1', '{}', class => 'privileges')$$);
RESET ROLE;
GRANT UPDATE ON state_head TO regress_state_writer;
REVOKE INSERT ON state_head FROM regress_state_writer;
SET ROLE regress_state_writer;
SELECT outcome($$SELECT state_set('a-1', '{}', class => 'privileges')$$);
RESET ROLE;
GRANT INSERT ON state_head TO regress_state_writer;
REVOKE SELECT ON state_snapshot FROM regress_state_writer;
SET ROLE regress_state_writer;
SELECT outcome($$SELECT state_get('a-1', class => 'privileges')$$);
SELECT outcome($$SELECT state_version('a-1', class => 'privileges')$$);
RESET ROLE;
GRANT SELECT ON state_snapshot TO regress_state_writer;
REVOKE SELECT ON state_head FROM regress_state_writer;
SET ROLE regress_state_writer;
SELECT outcome($$SELECT state_get('a-1', class => 'privileges')$$);
RESET ROLE;
-- A right on some of the columns does not give what the others hold.
GRANT SELECT (class, key, version) ON state_head TO regress_state_writer;
SET ROLE regress_state_writer;
SELECT outcome($$SELECT state_get('a-1', class => 'privileges')$$);
RESET ROLE;
REVOKE SELECT (class, key, version) ON state_head FROM regress_state_writer;
GRANT SELECT ON state_head TO regress_state_writer;
-- A right that is taken away is gone with the next statement, also for a session that used it.
SET ROLE regress_state_reader;
SELECT state_get('a-2', class => 'privileges');
RESET ROLE;
REVOKE SELECT ON state_head FROM regress_state_reader;
SET ROLE regress_state_reader;
SELECT outcome($$SELECT state_get('a-2', class => 'privileges')$$);
RESET ROLE;
GRANT SELECT ON state_head TO regress_state_reader;
-- Also between the change and its flush.
BEGIN;
SET LOCAL ROLE regress_state_writer;
SELECT state_set('a-2', '{"by": "writer"}', class => 'privileges');
RESET ROLE;
REVOKE UPDATE ON state_head FROM regress_state_writer;
COMMIT;
\echo :SQLSTATE
SELECT stored('a-2', 'privileges');

-- Without USAGE on the schema nothing can be called.
REVOKE USAGE ON SCHEMA public FROM PUBLIC;
SET ROLE regress_state_reader;
SELECT public.state_get('a-2', class => 'privileges');
RESET ROLE;
GRANT USAGE ON SCHEMA public TO PUBLIC;

-- The flush at COMMIT runs as the role that staged the change, whoever is current by then.
BEGIN;
SET ROLE regress_state_writer;
SELECT state_set('a-2', '{"by": "writer, then nobody"}', class => 'privileges');
SET ROLE regress_state_nobody;
COMMIT;
SELECT current_user;
RESET ROLE;
SELECT stored('a-2', 'privileges');
BEGIN;
SELECT state_set('a-2', '{"by": "superuser, then nobody"}', class => 'privileges');
SET LOCAL ROLE regress_state_nobody;
COMMIT;
SELECT stored('a-2', 'privileges');
-- So a SECURITY DEFINER function may stage for callers without any right …
CREATE FUNCTION staged_by_definer(n int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public
	AS $$ SELECT state_set('a-2', jsonb_build_object('definer', n), class => 'privileges') $$;
ALTER FUNCTION staged_by_definer(int) OWNER TO regress_state_writer;
SET ROLE regress_state_nobody;
SELECT staged_by_definer(1);
-- … which gives them no look at it.
BEGIN;
SELECT staged_by_definer(2);
SAVEPOINT s;
SELECT state_get('a-2', class => 'privileges');
\echo :SQLSTATE
ROLLBACK TO s;
COMMIT;
RESET ROLE;
SELECT stored('a-2', 'privileges');
-- A flush on demand as well; and an error in the flush restores who was current.
SET ROLE regress_state_nobody;
BEGIN;
SELECT staged_by_definer(3);
SELECT key, action FROM state_batch_commit();
SELECT current_user;
COMMIT;
RESET ROLE;
SELECT stored('a-2', 'privileges');

-- Row-level security: who is subject to it sees what the tables show.
CREATE POLICY tenant ON state_head USING (key LIKE 'a-%') WITH CHECK (key LIKE 'a-%');
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
SELECT seen('b-1', 'privileges');
SET ROLE regress_state_writer;
SELECT state_exists('a-1', class => 'privileges'), state_exists('b-1', class => 'privileges');
SELECT state_get('b-1', class => 'privileges'), state_get_text('b-1', class => 'privileges'), state_version('b-1', class => 'privileges');
SELECT key FROM state_get_many('{a-1,b-1}', class => 'privileges');
SELECT state_set('a-1', '{"by": "tenant"}', class => 'privileges');
SELECT stored('a-1', 'privileges');
SELECT state_set('b-1', '{"by": "tenant"}', class => 'privileges');
\echo :SQLSTATE
SELECT state_set('c-1', '{"by": "tenant"}', class => 'privileges');
\echo :SQLSTATE
SELECT state_delete('b-1', class => 'privileges');
SELECT outcome($$SELECT * FROM state_cache_entries$$);
-- The list of entries is for who may read all of them.
RESET ROLE;
SELECT stored('b-1', 'privileges');
GRANT SELECT ON state_cache_entries TO regress_state_reader;
SET ROLE regress_state_reader;
SELECT outcome($$SELECT * FROM state_cache_entries$$);
RESET ROLE;
-- A policy that is decided per statement: the function follows it as the view does.
DROP POLICY tenant ON state_head;
CREATE POLICY tenant ON state_head USING (key LIKE current_setting('test.tenant') || '-%');
SET ROLE regress_state_reader;
SET test.tenant = 'a';
SELECT state_exists('a-1', class => 'privileges'), state_exists('b-1', class => 'privileges');
SET test.tenant = 'b';
SELECT state_exists('a-1', class => 'privileges'), state_exists('b-1', class => 'privileges');
RESET ROLE;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
DROP POLICY tenant ON state_head;
SET ROLE regress_state_reader;
SELECT outcome($$SELECT * FROM state_cache_entries$$);
RESET ROLE;
-- On the snapshots too, for what they hold.
SELECT state_class_define('privileges', keep => 2);
SELECT state_set(key, '{"kept": 2}', class => 'privileges') FROM unnest('{a-1,b-1}'::text[]) key;
CREATE POLICY tenant ON state_snapshot USING (key LIKE 'a-%');
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
SET ROLE regress_state_reader;
SELECT complaint($$SELECT state_get('a-1', class => 'privileges')$$);
SELECT count(*) FROM state_current WHERE class = 'privileges' AND key = 'b-1';
SELECT state_get('b-1', class => 'privileges'), state_version('b-1', class => 'privileges'), state_exists('b-1', class => 'privileges');
RESET ROLE;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP POLICY tenant ON state_snapshot;

-- search_path. Decoys of what the extension uses stand first in it; none is called.
CREATE SCHEMA trap;
CREATE FUNCTION trap.sprung() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the trap was sprung'; END $$;
CREATE FUNCTION trap.equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.equal(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.equal(bytea, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.compare(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.join(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(trap.sprung())';
CREATE FUNCTION trap.plus(bigint, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT trap.sprung()::int::bigint';
CREATE FUNCTION trap.contains(text, text[]) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.equal);
CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.equal);
CREATE OPERATOR trap.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = trap.equal);
CREATE OPERATOR trap.> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = trap.compare);
CREATE OPERATOR trap.<= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = trap.compare);
CREATE OPERATOR trap.|| (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = trap.join);
CREATE OPERATOR trap.+ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.plus);
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT trap.sprung()::text::timestamptz';
CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT trap.sprung()::text::timestamptz';
CREATE FUNCTION trap.statement_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT trap.sprung()::text::timestamptz';
CREATE FUNCTION trap.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS 'SELECT trap.sprung()::text::xid8';
CREATE FUNCTION trap.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT trap.sprung()::text';
CREATE FUNCTION trap.state_hash(jsonb) RETURNS bytea LANGUAGE sql AS 'SELECT trap.sprung()::text::bytea';
CREATE FUNCTION trap.state_cache_by_hand() RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE TABLE trap.state_head (class text);
CREATE TABLE trap.state_snapshot (class text);
CREATE TABLE trap.state_class (class text);
CREATE DOMAIN trap.jsonb AS text CHECK (trap.sprung());
CREATE TEMP TABLE state_head (class text);
CREATE TEMP TABLE state_class (class text);
SET search_path = trap, pg_temp, pg_catalog, public;
SELECT public.state_set('trap', '{"s": {"a": 1}, "list": []}'::pg_catalog.jsonb, ttl => '1 hour', class => 'privileges');
SELECT public.state_update('trap', '{"b": 2}'::pg_catalog.jsonb, class => 'privileges');
SELECT public.state_update_section('trap', 's', '{"b": 2}'::pg_catalog.jsonb, class => 'privileges');
SELECT public.state_merge('trap', '{"b": null}'::pg_catalog.jsonb, class => 'privileges');
SELECT public.state_append('trap', '{list}', '1'::pg_catalog.jsonb, class => 'privileges');
SELECT public.state_touch('trap', '2 hours', class => 'privileges');
SELECT public.state_cache_clear('privileges') >= 0;
SELECT public.state_get('trap', class => 'privileges'), public.state_get_text('trap', class => 'privileges'),
	public.state_get_path('trap', '{s,a}', class => 'privileges'), public.state_get_section('trap', 's', class => 'privileges'),
	public.state_version('trap', class => 'privileges'), public.state_exists('trap', class => 'privileges');
SELECT key, version FROM public.state_get_many('{trap,a-1}', class => 'privileges');
SELECT version FROM public.state_get_if_newer('trap', 1, class => 'privileges');
SELECT key, version, state FROM public.state_current WHERE class OPERATOR(pg_catalog.=) 'privileges' AND key OPERATOR(pg_catalog.=) 'trap';
SELECT public.state_class_define('trap class', keep => 2);
SELECT public.state_class_define('trap class', channel => 'c');
SELECT public.state_invalidate('tr*', 'privileges') >= 0;
SELECT public.state_delete('trap', expected_version => 5, class => 'privileges');
UPDATE public.state_head SET deleted = false WHERE key OPERATOR(pg_catalog.=) 'no such';
-- What a dump does: its script runs with an empty search_path.
SET search_path = '';
INSERT INTO public.state_class (class, changed) VALUES ('config', true);
RESET search_path;
DROP TABLE pg_temp.state_head, pg_temp.state_class;
SELECT class, keep, channel FROM state_class WHERE class IN ('config', 'trap class') ORDER BY class;
SELECT state_class_define('config', channel => 'config_changed');
SET client_min_messages = warning;
DROP SCHEMA trap CASCADE;
RESET client_min_messages;

DROP FUNCTION staged_by_definer(int);
DROP OWNED BY regress_state_nobody, regress_state_reader, regress_state_writer;
DROP ROLE regress_state_nobody, regress_state_reader, regress_state_writer;
