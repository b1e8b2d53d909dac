-- state_context_list(), state_context_claim_next(), state_context_step(): which runs there are, which waits longest, where
-- each is; and that who has lost a run gets 40001, whatever became of it.
\a \t \pset null (null)
DELETE FROM state_head WHERE class = 'run';
SELECT count(*) FROM state_claim;
-- The runs of this test are made one after the other, in the order of their numbers.
SELECT state_context_create('l1', 'refund', swarm_id => 'north') > 0, state_context_create('l2', 'refund', swarm_id => 'south') > 0,
	state_context_create('l3', 'order', swarm_id => 'north') > 0, state_context_child('l3', 'l3/a') > 0, state_context_create('l4') > 0;
-- A state of class run that is no run is in no list; a run that state_set() makes is.
SELECT state_set('no run', '{"a": 1}'), state_set('half a run', '{"runId": "half a run"}'),
	state_set('l5', '{"runId": "l5", "variables": {}, "swarmId": "south", "status": "failed"}');
-- listed() is a page, in short.
CREATE FUNCTION listed(status text DEFAULT NULL, swarm_id text DEFAULT NULL, parent_run_id text DEFAULT NULL, owner text DEFAULT NULL,
		claimed boolean DEFAULT NULL, after text DEFAULT NULL, "limit" integer DEFAULT 100) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(run_id, ' ' ORDER BY n) FROM state_context_list($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY AS l (run_id, parent, status, owner, lease_until, version, updated_at, step, n)
$$;
SELECT listed();
SELECT run_id, parent, status, owner, lease_until, version = state_version(run_id), updated_at > now() - interval '1 hour', step FROM state_context_list();

-- Each argument, and all of them together.
SELECT listed(status => 'running'), listed(status => 'failed'), listed(status => 'completed');
SELECT listed(swarm_id => 'north'), listed(swarm_id => 'south'), listed(swarm_id => 'south', status => 'running'), listed(swarm_id => 'east');
SELECT listed(parent_run_id => 'l3'), listed(parent_run_id => 'l3', status => 'failed'), listed(parent_run_id => 'l1');
SELECT state_context_claim('l1', 'ann', '1 hour') > 0, state_context_claim('l3', 'ann', '1 hour') > 0, state_context_claim('l3/a', 'bob', '1 hour') > 0;
SELECT listed(owner => 'ann'), listed(owner => 'bob'), listed(owner => 'carl'), listed(owner => 'ann', status => 'running', swarm_id => 'north');
SELECT listed(claimed => true), listed(claimed => false), listed(claimed => true, swarm_id => 'north'), listed(claimed => false, status => 'running');
SELECT listed('running', 'north', 'l3', 'bob', true), listed('running', 'north', 'l3', 'bob', false), listed('failed', claimed => true);
-- A lease that is over is no claim; who had it is shown all the same.
UPDATE state_claim SET expires_at = now() - interval '1 s' WHERE run_id = 'l1';
SELECT listed(claimed => true), listed(owner => 'ann'), owner, lease_until < now() FROM state_context_list() WHERE run_id = 'l1';

-- Pages: newest first, whatever is written between them.
SELECT listed("limit" => 2), listed(after => 'l4', "limit" => 2), listed(after => 'l3', "limit" => 100), listed(after => 'l1');
SELECT state_context_set('l1', 'x', '1'), state_context_create('l6') > 0;
SELECT listed(after => 'l3/a', "limit" => 2), listed("limit" => 1);
SELECT listed(status => 'running', after => 'l4', "limit" => 2), listed(swarm_id => 'north', after => 'l3'), listed(claimed => false, after => 'l5');
-- Behind a run that is not there no page can begin.
SELECT complaint($$SELECT listed(after => 'no such')$$);
-- Every page of every length shows each run once.
CREATE FUNCTION paged(length integer) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	pages text := ''; page text; last text;
BEGIN
	LOOP
		page := listed(after => last, "limit" => length);
		EXIT WHEN page IS NULL;
		pages := pages || ' ' || page;
		last := regexp_replace(page, '^.* ', '');
	END LOOP;
	RETURN ltrim(pages);
END
$$;
SELECT n, paged(n) = listed() FROM generate_series(1, 8) n;

-- What this transaction has staged counts, and is not written for that.
BEGIN;
SELECT state_set('l7', '{"runId": "l7", "variables": {}, "swarmId": "north"}'), state_context_step('l4', 'asking'), state_update('l2', '{"status": "failed"}');
SELECT listed(), listed(status => 'failed'), listed(swarm_id => 'north', status => 'running');
SELECT run_id, status, version = state_version(run_id), updated_at IS NULL, step FROM state_context_list() WHERE run_id IN ('l7', 'l4', 'l2');
SELECT listed(after => 'l7', "limit" => 2), paged(2) = listed();
SELECT state_delete('l6');
SELECT listed(), dirty FROM state_batch_status() WHERE key = 'l6';
ROLLBACK;
SELECT listed(), listed(status => 'failed');
-- So does what it has written, and what it rolls back does not.
BEGIN;
SAVEPOINT s;
SELECT state_context_create('l8') > 0, state_context_complete('l4', 'cancelled');
SELECT listed(), listed(status => 'cancelled');
ROLLBACK TO s;
SELECT listed(), listed(status => 'cancelled');
ROLLBACK;

-- The step is part of the document, and has no fixed list.
SELECT state_context_step('l3', 'asking the bank'), state_context_step('l3/a', 'waiting');
SELECT run_id, step FROM state_context_list(swarm_id => 'north') WHERE step IS NOT NULL;
SELECT run_id, step FROM state_context_tree('l3');
SELECT state_get_path('l3', '{step}');
-- Named again it makes no version; NULL takes it away.
SELECT state_version('l3') AS version \gset
SELECT state_context_step('l3', 'asking the bank');
SELECT state_version('l3') - :version;
SELECT state_context_step('l3', NULL);
SELECT state_version('l3') - :version, state_get('l3') ? 'step', step FROM state_context_list() WHERE run_id = 'l3';
SELECT outcome($$SELECT state_context_step('l3', '')$$), outcome($$SELECT state_context_step('l3', repeat('x', 256))$$), outcome($$SELECT state_context_step('l5', 'x')$$), outcome($$SELECT state_context_step('no such', 'x')$$);

-- A run that ends or is deleted changes its place; a document that is no run any more leaves the list, and comes back.
SELECT state_context_complete('l3/a', 'cancelled');
SELECT state_delete('l3/a'), state_set('l4', '{"a": 1}');
SELECT listed(), listed(status => 'cancelled'), listed(parent_run_id => 'l3');
SELECT state_set('l4', '{"runId": "l4", "variables": {}, "routineId": "order"}');
SELECT listed();

-- Changed by hand it is right from COMMIT on: documents, heads, states that are gone.
BEGIN;
UPDATE state_snapshot SET state = jsonb_set(state_at(key, version), '{swarmId}', '"west"'), delta = NULL,
	hash = state_hash(jsonb_set(state_at(key, version), '{swarmId}', '"west"'))
	WHERE class = 'run' AND key = 'l2' AND version = state_version('l2');
UPDATE state_head h SET hash = s.hash FROM state_snapshot s WHERE (h.class, h.key, h.version) = (s.class, s.key, s.version) AND h.key = 'l2';
DELETE FROM state_head WHERE key = 'l6';
COMMIT;
SELECT listed(swarm_id => 'west'), listed(), (SELECT count(*) FROM state_claim WHERE run_id = 'l6');
-- Also where so much is changed that nobody keeps a list of it.
INSERT INTO state_head (class, key, version, hash, size, state)
	SELECT 'run', d->>'runId', 1, state_hash(d), 100, d FROM generate_series(1, 1100) i, LATERAL (SELECT jsonb_build_object('runId', 'many-' || i, 'variables', '{}'::jsonb, 'swarmId', 'many')) d (d);
SELECT count(*), count(DISTINCT run_id) FROM state_context_list(swarm_id => 'many', "limit" => 10000);
DELETE FROM state_head WHERE key LIKE 'many-%';
SELECT count(*) FROM state_context_list(swarm_id => 'many');

-- Bad input.
SELECT outcome(format('SELECT * FROM state_context_list(%s)', a)) FROM unnest(ARRAY[$$status => 'dreaming'$$, $$"limit" => 0$$, $$"limit" => 10001$$, $$"limit" => NULL$$]) a;
SELECT outcome(format('SELECT * FROM state_context_claim_next(%s)', a)) FROM unnest(ARRAY['NULL', $$''$$, $$'a', NULL$$, $$'a', '0'$$, $$repeat('o', 256)$$]) a;

-- The queue. Before anybody has claimed them the runs wait since they were made.
DELETE FROM state_head WHERE class = 'run';
TRUNCATE state_context, state_claim;
SELECT state_context_create('q1', 'refund', swarm_id => 'north') > 0, state_context_create('q2', 'order', swarm_id => 'south') > 0, state_context_create('q3', 'refund', swarm_id => 'south') > 0;
-- next_run() claims the next one.
CREATE FUNCTION next_run(owner text, lease interval DEFAULT '1 hour', swarm_id text DEFAULT NULL, routine_id text DEFAULT NULL) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT coalesce((SELECT run_id FROM state_context_claim_next($1, $2, $3, $4)), 'none')
$$;
SELECT next_run('ann', swarm_id => 'south', routine_id => 'refund'), next_run('ann', routine_id => 'refund'), next_run('ann', swarm_id => 'north'), next_run('bob'), next_run('bob');
SELECT owner, run_id, lease_until > now() + interval '50 minutes' FROM state_context_list();
-- The token is that of the claim, and greater than all before it.
SELECT run_id, token AS q2 FROM state_claim WHERE run_id = 'q2' \gset
SELECT state_context_set('q2', 'x', '1', token => :q2), state_context_release('q2', :q2);
-- Then since they were released, or since their lease is over, so nobody comes twice while others wait.
UPDATE state_claim SET expires_at = now() - CASE run_id WHEN 'q1' THEN interval '2 s' ELSE '3 s' END WHERE run_id IN ('q1', 'q3');
SELECT next_run('carl'), next_run('carl'), next_run('carl'), next_run('carl');
SELECT run_id, token > :q2 FROM state_claim ORDER BY token;
-- One whose own run waits longest gets it too; one that has it already does not.
UPDATE state_claim SET expires_at = now() - interval '1 s' WHERE run_id = 'q1';
SELECT next_run('carl'), next_run('carl');
-- What has ended or is gone, or is no run, waits for nobody.
SELECT state_context_create('q4') > 0, state_context_create('q5') > 0, state_context_create('q6', swarm_id => 'gone') > 0, state_set('q7', '{"a": 1}');
SELECT state_context_complete('q4'), state_delete('q5'), state_update('q6', '{"status": "failed"}');
SELECT next_run('dora'), next_run('dora', swarm_id => 'gone');
-- Nor does one that this transaction is ending; one whose document does not fit its place holds nobody up.
SELECT state_set('q8', '{"runId": "q8", "variables": {}, "parentRunId": "lost"}'), state_context_create('q9') > 0;
BEGIN;
SELECT state_update('q9', '{"status": "failed"}');
SELECT next_run('dora');
ROLLBACK;
SELECT next_run('dora'), next_run('dora');
-- A claim that is rolled back leaves the run where it was.
UPDATE state_claim SET expires_at = now() - interval '1 s', owner = NULL WHERE run_id = 'q9';
BEGIN;
SELECT next_run('dora');
ROLLBACK;
SELECT next_run('emil'), owner FROM state_context_list() WHERE run_id = 'q9';
-- A run that was deleted and is made again is another one, and the last in the queue.
SELECT state_delete('q9');
SELECT state_context_create('q10') > 0, state_context_create('q9') > 0;
SELECT next_run('fred'), next_run('fred'), next_run('fred');
-- Read only, at every level of isolation.
BEGIN READ ONLY;
SELECT outcome($$SELECT next_run('fred')$$), listed("limit" => 1);
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state_context_create('q11') > 0;
SELECT next_run('fred'), listed("limit" => 1);
COMMIT;

-- Privileges are those of any read and any change. A policy on state_head hides runs from list and queue.
CREATE ROLE regress_list_nobody;
CREATE ROLE regress_list_reader;
CREATE ROLE regress_list_writer;
GRANT SELECT ON state_head, state_snapshot TO regress_list_reader, regress_list_writer;
GRANT INSERT, UPDATE ON state_head TO regress_list_writer;
GRANT INSERT, DELETE ON state_snapshot TO regress_list_writer;
SELECT state_context_create('p1') > 0, state_context_create('p2') > 0;
SET ROLE regress_list_nobody;
SELECT outcome('SELECT * FROM state_context_list()'), outcome($$SELECT * FROM state_context_list(swarm_id => 'no such')$$), outcome($$SELECT * FROM state_context_claim_next('x')$$), outcome($$SELECT state_context_step('p1', 'x')$$);
SET ROLE regress_list_reader;
SELECT run_id FROM state_context_list("limit" => 2);
SELECT outcome($$SELECT * FROM state_context_claim_next('x')$$), outcome($$SELECT state_context_step('p1', 'x')$$), outcome('SELECT * FROM state_claim');
RESET ROLE;
CREATE POLICY regress_list ON state_head USING (key <> 'p1');
CREATE POLICY regress_list_snapshots ON state_snapshot USING (key <> 'p1');
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
SET ROLE regress_list_writer;
SELECT run_id FROM state_context_list("limit" => 1);
SELECT run_id FROM state_context_list(after => 'p2', "limit" => 1);
SELECT run_id FROM state_context_claim_next('x');
SELECT run_id FROM state_context_claim_next('x');
SELECT state_context_step('p2', 'x');
SELECT outcome($$SELECT state_context_step('p1', 'x', token => 1)$$);
RESET ROLE;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP POLICY regress_list ON state_head;
DROP POLICY regress_list_snapshots ON state_snapshot;
SELECT run_id, step FROM state_context_list(status => 'running', owner => 'x');

-- A run that was lost answers 40001, whatever became of it. The functions that take a token, and the reasons.
CREATE FUNCTION each_lost(run text, token bigint) RETURNS TABLE (call text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT call, regexp_replace(complaint('SELECT * FROM ' || format(call, run, token)), 'token \d+', 'token T', 'g') FROM unnest(ARRAY[
		$c$state_context_set(%L, 'x', '9', token => %s)$c$,
		$c$state_context_set_many(%L, '{"x": 9}', token => %s)$c$,
		$c$state_context_append(%L, 'list', '9', token => %s)$c$,
		$c$state_context_patch(%L, 'object', '{"a": 9}', token => %s)$c$,
		$c$state_context_step(%L, 'nine', token => %s)$c$,
		$c$state_context_mark_export(%L, 'x', 'parent_context', token => %s)$c$,
		$c$state_context_unmark_export(%L, 'x', token => %s)$c$,
		$c$state_context_child(%L, 'lost/late', token => %s)$c$,
		$c$state_context_merge('lost/child', token => %2$s)$c$,
		$c$state_context_spend(%L, 'credits', 1, token => %s)$c$,
		$c$state_context_complete(%L, token => %s)$c$,
		$c$state_context_fence(%L, %s)$c$,
		$c$state_context_renew(%L, %s)$c$,
		$c$state_context_release(%L, %s)$c$]) call
$$;
SELECT state_context_create('lost', inputs => '{"x": 1, "list": [], "object": {}}') > 0;
SELECT state_context_child('lost', 'lost/child') > 0, state_context_set('lost/child', 'x', '2');
SELECT state_context_claim('lost', 'ann', '1 hour') AS token \gset
-- Completed by another owner,
SELECT state_context_complete('lost/child');
UPDATE state_claim SET expires_at = now() WHERE run_id = 'lost';
SELECT state_context_claim('lost', 'bob', '1 hour') AS bob \gset
SELECT state_context_complete('lost', token => :bob);
SELECT * FROM each_lost('lost', :token);
-- by the owner himself, who may still give the run up; his fence is for what he writes of it afterwards,
SELECT * FROM each_lost('lost', :bob) WHERE call ~ 'set\(|step|child|spend|complete|renew|fence|release';
BEGIN;
SELECT state_context_create('own') > 0 AS made, state_context_claim('own', 'ann') AS own \gset
SELECT state_context_fence('own', :own);
SELECT state_context_complete('own');
SELECT state_touch('own', '1 hour');
COMMIT;
-- deleted with its children,
SELECT state_delete('lost/child'), state_delete('lost');
SELECT * FROM each_lost('lost', :token) WHERE call !~ 'merge';
-- and of a run that another made under its name afterwards.
SELECT state_context_create('lost') > 0;
SELECT * FROM each_lost('lost', :token) WHERE call !~ 'merge';
-- A merge answers for the parent whose token it names.
SELECT state_context_child('lost', 'lost/child') > 0;
SELECT says FROM each_lost('lost', :token) WHERE call ~ 'merge';
-- Within a fenced transaction also without naming the token again, and at COMMIT.
SELECT state_context_claim('lost', 'carl', '1 hour') AS token \gset
BEGIN;
SELECT state_context_fence('lost', :token);
SELECT state_context_complete('lost/child', 'cancelled');
SELECT state_context_complete('lost', 'failed');
SELECT regexp_replace(complaint($$SELECT state_context_set('lost', 'x', '9')$$), 'token \d+', 'token T');
ROLLBACK;
-- Without a token the answers are those of the run.
SELECT outcome($$SELECT state_context_set('no such', 'x', '9')$$), outcome($$SELECT state_context_set('own', 'x', '9')$$), outcome($$SELECT state_context_complete('own')$$), outcome($$SELECT state_context_claim('own', 'ann')$$);
-- Very many head rows deleted by hand, more than are remembered one by one: the runs are in no list.
SELECT count(*) FROM (SELECT state_context_create('many-' || n) FROM generate_series(1, 1200) n OFFSET 0) made;
BEGIN;
DELETE FROM state_snapshot WHERE class = 'run' AND key LIKE 'many-%';
DELETE FROM state_head WHERE class = 'run' AND key LIKE 'many-%';
COMMIT;
SELECT count(*) FROM state_claim WHERE run_id LIKE 'many-%';
SELECT count(*) FROM state_context_list("limit" => 1000) WHERE run_id LIKE 'many-%';
