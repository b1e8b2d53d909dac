-- The functions of runs give nobody more than the tables of states would. They need what the state functions need:
-- SELECT on state_head and state_snapshot to read; INSERT and UPDATE on state_head, INSERT and DELETE on state_snapshot
-- as well to change. The tables beside them (hierarchy, claims, conflicts, outbox) are kept by the extension.
\a \t \pset null (null)
SELECT state_class_define('context_guarded');
-- begin_family() makes a family: a parent with a child that has changed x as its parent has, to be merged and completed.
CREATE FUNCTION begin_family(parent text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_context_create(parent, inputs => '{"x": 1, "list": []}', swarm_id => 'guarded swarm');
	PERFORM state_context_child(parent, parent || '/1');
	PERFORM state_context_set(parent, 'x', '2'), state_context_set(parent || '/1', 'x', '3'), state_context_set(parent || '/1', 'mail', '"m"', sensitivity => 'pii');
END
$$;
SELECT begin_family('a-run'), begin_family('b-run');
SELECT state_context_claim('a-run', 'ann') AS token \gset
CREATE ROLE regress_context_nobody;
CREATE ROLE regress_context_reader;
CREATE ROLE regress_context_writer;
GRANT SELECT ON state_head, state_snapshot TO regress_context_reader, regress_context_writer;
GRANT INSERT, UPDATE ON state_head TO regress_context_writer;
GRANT INSERT, DELETE ON state_snapshot TO regress_context_writer;
-- each_context_call() says what every function comes to.
CREATE FUNCTION each_context_call(run text, token bigint) RETURNS TABLE (call text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT call, outcome('SELECT * FROM ' || format(call, run, run || '/1', run || '/2', token)) FROM unnest(ARRAY[
		$c$state_context_get(%L)$c$, $c$state_context_visible(%L, 'pii')$c$, $c$state_context_tree(%L)$c$,
		$c$state_context_create('%1$s/other')$c$, $c$state_context_child(%L, %3$L)$c$, $c$state_context_set(%L, 'y', '1')$c$, $c$state_context_set_many(%L, '{"y": 2}')$c$, $c$state_context_append(%L, 'list', '1')$c$,
		$c$state_context_patch(%L, 'y', '{}')$c$, $c$state_context_merge(%2$L, 'manual_review')$c$, $c$state_context_mark_export(%2$L, 'x', 'persistent_store', target => 'context_guarded')$c$,
		$c$state_context_mark_export(%2$L, 'x', 'external_system', target => 'outside')$c$, $c$state_context_unmark_export(%L, 'x')$c$, $c$state_context_spend(%L, 'credits', 1)$c$, $c$state_context_complete(%2$L)$c$, $c$state_context_fence(%L, %4$s)$c$,
		$c$state_context_renew(%L, %4$s)$c$, $c$state_context_claim(%L, 'bob')$c$]) WITH ORDINALITY c (call, n) ORDER BY n
$$;
CREATE FUNCTION each_context_table() RETURNS TABLE (statement text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT s, outcome(s) FROM unnest(ARRAY['SELECT * FROM state_context', 'SELECT * FROM state_claim', 'SELECT * FROM state_conflict', 'SELECT * FROM state_outbox', $c$SELECT nextval('state_claim_token')$c$, 'SELECT last_value FROM state_claim_token',
		'DELETE FROM state_context', 'UPDATE state_claim SET token = 1', $c$UPDATE state_conflict SET status = 'resolved'$c$, 'UPDATE state_outbox SET acknowledged_at = now()', $c$INSERT INTO state_context VALUES ('c-run', NULL, 0, 0)$c$]) WITH ORDINALITY s (s, n) ORDER BY n
$$;

-- Nobody sees nothing and changes nothing, also what is in the cache.
SELECT state_context_get('a-run') IS NOT NULL;
SET ROLE regress_context_nobody;
SELECT * FROM each_context_call('a-run', :token);
SELECT outcome(format($$SELECT state_context_release('a-run', %s)$$, :token));
SELECT * FROM each_context_table();
SELECT outcome('SET state_cache.max_context_depth = 1000'), outcome('SET state_cache.max_context_children = 1000'), outcome('SET state_cache.blackboard_sensitivity = secret'), outcome('SET state_cache.store_sensitivity = secret'), outcome('SET state_cache.external_sensitivity = secret');
-- A reader reads.
SET ROLE regress_context_reader;
SELECT * FROM each_context_call('a-run', :token);
SELECT outcome(format($$SELECT state_context_release('a-run', %s)$$, :token));
SELECT * FROM each_context_table();
SELECT run_id, parent_run_id, depth, status, owner FROM state_context_tree('a-run');
RESET ROLE;
-- None of all that has left a trace.
SELECT run_id FROM state_context WHERE run_id ~ '^[abc]-run' ORDER BY 1;
SELECT owner FROM state_claim WHERE run_id = 'a-run' AND token = :token;
SELECT count(*) FROM state_conflict WHERE run_id = 'a-run';
-- A writer does both, with nothing on the other tables.
SET ROLE regress_context_writer;
SELECT * FROM each_context_call('a-run', :token);
SELECT outcome(format($$SELECT state_context_release('a-run', %s)$$, :token));
SELECT * FROM each_context_table();
RESET ROLE;
SELECT id AS conflict FROM state_conflict WHERE run_id = 'a-run' AND variable = 'x' \gset
SELECT key, target, value FROM state_outbox WHERE run_id = 'a-run/1';
SET ROLE regress_context_reader;
SELECT outcome(format($$SELECT state_conflict_resolve(%s, '4', 'mine')$$, :conflict));
-- A person who is to decide sees the conflicts as well, and is on record.
RESET ROLE;
GRANT SELECT ON state_conflict TO regress_context_writer;
SET ROLE regress_context_writer;
SELECT parent_value, child_value, status FROM state_conflict WHERE id = :conflict;
SELECT state_conflict_resolve(:conflict, '4', 'seen both');
SELECT resolved_by, resolved_value FROM state_conflict WHERE id = :conflict;
-- A consumer needs SELECT and UPDATE on the outbox, and nothing of the states.
RESET ROLE;
GRANT SELECT, UPDATE (acknowledged_at) ON state_outbox TO regress_context_nobody;
SET ROLE regress_context_nobody;
SELECT key, value FROM state_outbox WHERE target = 'outside' AND acknowledged_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED;
UPDATE state_outbox SET acknowledged_at = now() WHERE target = 'outside';
SELECT outcome('SELECT state_context_get(''a-run'')');
RESET ROLE;

-- What is staged is written with the rights of who staged it.
BEGIN;
SET LOCAL ROLE regress_context_writer;
SELECT state_context_set('a-run', 'y', '{"by": "writer"}');
SET LOCAL ROLE regress_context_nobody;
COMMIT;
SELECT value FROM variables('a-run') WHERE name = 'y';
-- Objects of the same names in a schema that comes first are not what the functions use.
CREATE SCHEMA context_decoy;
CREATE TABLE context_decoy.state_context (LIKE state_context);
CREATE TABLE context_decoy.state_claim (LIKE state_claim);
CREATE TABLE context_decoy.state_conflict (LIKE state_conflict);
CREATE TABLE context_decoy.state_outbox (LIKE state_outbox);
CREATE FUNCTION context_decoy.no_text(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean';
CREATE OPERATOR context_decoy.= (LEFTARG = text, RIGHTARG = text, FUNCTION = context_decoy.no_text);
GRANT USAGE ON SCHEMA context_decoy TO regress_context_writer;
GRANT ALL ON ALL TABLES IN SCHEMA context_decoy TO regress_context_writer;
SET search_path = context_decoy, pg_catalog, public;
SET ROLE regress_context_writer;
SELECT state_context_child('a-run', 'a-run/decoy');
SELECT state_context_set('a-run/decoy', 'x', '5'), state_context_set('a-run', 'x', '6'), state_context_claim('a-run/decoy', 'eve') IS NOT NULL;
SELECT variable, conflict IS NOT NULL FROM state_context_merge('a-run/decoy', 'manual_review');
SELECT run_id, owner FROM state_context_tree('a-run') WHERE depth OPERATOR(pg_catalog.=) 1;
SELECT state_context_mark_export('a-run/decoy', 'x', 'external_system', target => 'outside');
SELECT * FROM state_context_complete('a-run/decoy');
RESET ROLE;
SELECT (SELECT count(*) FROM state_context), (SELECT count(*) FROM state_claim), (SELECT count(*) FROM state_conflict), (SELECT count(*) FROM state_outbox);
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA context_decoy CASCADE;
RESET client_min_messages;

-- Row-level security: what the tables hide is not there. One tenant has the runs that begin with a.
CREATE POLICY tenant ON state_head USING (key LIKE 'a-%') WITH CHECK (key LIKE 'a-%');
CREATE POLICY tenant ON state_snapshot USING (key LIKE 'a-%') WITH CHECK (key LIKE 'a-%');
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
SET ROLE regress_context_writer;
SELECT * FROM each_context_call('b-run', 0);
SELECT outcome($$SELECT state_context_release('b-run', 0)$$);
SELECT run_id FROM state_context_tree('a-run');
SELECT outcome($$SELECT state_context_create('b-new')$$), outcome($$SELECT state_context_child('a-run', 'b-child')$$), outcome($$SELECT state_context_child('a-run', 'b-run')$$);
-- A child in the name of another tenant is hidden in the tree of its parent, and not merged.
RESET ROLE;
SELECT state_context_child('a-run', 'b-hidden'), state_context_child('b-run', 'a-below'), state_context_set('b-hidden', 'secret', '1'), state_context_set('a-below', 'y', '1');
SELECT state_context_create('a-lone'), state_context_child('a-lone', 'b-lone');
SET ROLE regress_context_writer;
SELECT run_id, depth FROM state_context_tree('a-run');
SELECT run_id, parent_run_id, depth FROM state_context_tree('a-below');
SELECT outcome($$SELECT * FROM state_context_merge('b-hidden')$$), outcome($$SELECT * FROM state_context_merge('a-below')$$);
-- One that is hidden runs all the same: its parent does not end, nor go.
SELECT outcome($$SELECT * FROM state_context_complete('a-lone')$$);
SELECT outcome($$SELECT state_delete('a-lone')$$);
RESET ROLE;
SELECT name FROM variables('a-run') WHERE name = 'secret';
SELECT name FROM variables('b-run') WHERE name = 'y';
SELECT (SELECT count(*) FROM state_context WHERE run_id = 'b-new'), (SELECT count(*) FROM state_context WHERE run_id = 'b-child');
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP POLICY tenant ON state_head;
DROP POLICY tenant ON state_snapshot;
DROP OWNED BY regress_context_nobody, regress_context_reader, regress_context_writer;
DROP ROLE regress_context_nobody, regress_context_reader, regress_context_writer;
