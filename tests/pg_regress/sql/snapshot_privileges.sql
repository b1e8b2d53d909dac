-- Old versions are as well guarded as the current one: the functions show and change what the tables would let their
-- caller read and write.
\a \t \pset null (null)
SELECT state_class_define('guarded', keep => 0);
CALL keep_steps('a-1', 'guarded', 4);
CALL keep_steps('b-1', 'guarded', 4);
SELECT version FROM state_save('a-2', '{"n": 1}', 'manual', 'triage', true, '{"secret": 1}', class => 'guarded');
SELECT version FROM state_save('a-2', '{"n": 2}', class => 'guarded');
CREATE ROLE regress_snapshot_nobody;
CREATE ROLE regress_snapshot_reader;
CREATE ROLE regress_snapshot_writer;
GRANT SELECT ON state_head, state_snapshot, state_current TO regress_snapshot_reader, regress_snapshot_writer;
GRANT INSERT, UPDATE ON state_head TO regress_snapshot_writer;
GRANT INSERT, DELETE ON state_snapshot TO regress_snapshot_writer;
-- each_call() says what every function of this kind comes to.
CREATE FUNCTION each_call() RETURNS TABLE (call text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT call, outcome('SELECT * FROM ' || call) FROM unnest(ARRAY[
		$c$state_at('a-1', 3, class => 'guarded')$c$,
		$c$state_at('a-1', 99, class => 'guarded')$c$,
		$c$state_diff('a-1', 1, 3, class => 'guarded')$c$,
		$c$state_history('a-1', class => 'guarded')$c$,
		$c$state_save('a-1', '{}', class => 'guarded')$c$,
		$c$state_save('a-1', document(4), class => 'guarded')$c$,
		$c$state_save('a-new', '{}', class => 'guarded')$c$,
		$c$state_restore('a-1', 2, class => 'guarded')$c$,
		$c$state_recover('a-2', class => 'guarded')$c$,
		$c$state_prune('guarded', keep => 1)$c$,
		$c$state_verify('guarded')$c$,
		$c$state_verify('guarded', true)$c$,
		$c$state_damaged$c$,
		$c$state_recovery_log$c$]) call
$$;

-- Nobody sees nothing and changes nothing.
SET ROLE regress_snapshot_nobody;
SELECT * FROM each_call();
-- A reader reads.
SET ROLE regress_snapshot_reader;
SELECT * FROM each_call();
SELECT kept_steps('a-1', 'guarded');
RESET ROLE;
SELECT kept_steps('a-1', 'guarded');
-- A writer does both. What is logged of a recovery is logged for whoever may recover.
BEGIN;
SET LOCAL ROLE regress_snapshot_writer;
SELECT * FROM each_call();
RESET ROLE;
SELECT key, version, strategy, restored_version FROM state_recovery_log WHERE class = 'guarded';
ROLLBACK;
-- A repair by one who may not see what was put aside.
UPDATE state_snapshot SET state = '{"n": 0}' WHERE class = 'guarded' AND key = 'a-2' AND version = 2;
BEGIN;
SET LOCAL ROLE regress_snapshot_writer;
SELECT * FROM state_verify('guarded', repair => true);
SELECT seen('a-2', 'guarded');
SAVEPOINT s;
SELECT * FROM state_damaged;
ROLLBACK TO s;
RESET ROLE;
SELECT key, version FROM state_damaged WHERE class = 'guarded';
ROLLBACK;
SELECT version FROM state_save('a-2', '{"n": 2}', class => 'guarded');

-- A right on some of the columns does not give what the others hold.
REVOKE SELECT ON state_snapshot FROM regress_snapshot_reader;
GRANT SELECT (class, key, version, parent_version, hash, checkpoint_type, recovery_point, agent_phase, created_at) ON state_snapshot TO regress_snapshot_reader;
SET ROLE regress_snapshot_reader;
SELECT outcome($$SELECT state_at('a-1', 3, class => 'guarded')$$);
SELECT outcome($$SELECT * FROM state_history('a-1', class => 'guarded')$$);
RESET ROLE;
REVOKE SELECT (class, key, version, parent_version, hash, checkpoint_type, recovery_point, agent_phase, created_at) ON state_snapshot FROM regress_snapshot_reader;
GRANT SELECT ON state_snapshot TO regress_snapshot_reader;
-- Without state_head no version is read: the head row may hold it.
REVOKE SELECT ON state_head FROM regress_snapshot_reader;
SET ROLE regress_snapshot_reader;
SELECT outcome($$SELECT state_at('a-1', 3, class => 'guarded')$$);
SELECT outcome($$SELECT state_at('a-1', 99, class => 'guarded')$$);
SELECT outcome($$SELECT * FROM state_history('a-1', class => 'guarded')$$);
SELECT outcome($$SELECT state_verify('guarded')$$);
RESET ROLE;
GRANT SELECT ON state_head TO regress_snapshot_reader;

-- Row-level security, by key: one tenant's history.
CREATE POLICY tenant ON state_head USING (key LIKE 'a-%') WITH CHECK (key LIKE 'a-%');
CREATE POLICY tenant ON state_snapshot USING (key LIKE 'a-%') WITH CHECK (key LIKE 'a-%');
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
SET ROLE regress_snapshot_writer;
SELECT kept_steps('a-1', 'guarded');
SELECT state_at('b-1', 3, class => 'guarded'), (SELECT count(*) FROM state_history('b-1', class => 'guarded'));
SELECT complaint($$SELECT state_diff('b-1', 1, 3, class => 'guarded')$$);
SELECT complaint($$SELECT state_restore('b-1', 1, class => 'guarded')$$);
SELECT complaint($$SELECT * FROM state_recover('b-1', class => 'guarded')$$);
SELECT outcome($$SELECT state_save('b-1', '{}', class => 'guarded')$$);
SELECT outcome($$SELECT state_save('b-2', '{}', class => 'guarded')$$);
SELECT action, version FROM state_save('a-1', document(5), class => 'guarded');
SELECT state_restore('a-1', 2, class => 'guarded');
SELECT version, parent_version FROM state_history('a-1', class => 'guarded') LIMIT 2;
-- Who does not see all rows cannot judge what is damaged, nor what others need.
SELECT complaint($$SELECT * FROM state_recover('a-2', class => 'guarded')$$);
SELECT complaint($$SELECT state_prune('guarded', keep => 1)$$);
SELECT complaint($$SELECT * FROM state_verify('guarded', repair => true)$$);
-- Nor may it make by hand a difference from what it does not see.
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash, delta) SELECT class, 'a-3', version, hash, delta FROM state_snapshot WHERE class = 'guarded' AND key = 'a-1' AND version = 4$$);
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash, delta) SELECT class, 'a-3', version, hash, delta FROM state_snapshot WHERE class = 'guarded' AND key = 'a-1' AND version = 1$$);
RESET ROLE;
SELECT key, count(*) FROM state_snapshot WHERE class = 'guarded' GROUP BY key ORDER BY key;
DROP POLICY tenant ON state_snapshot;
-- By version: who sees a version sees it whole, also where the rows that it builds upon are hidden, and only that one.
DROP POLICY tenant ON state_head;
CREATE POLICY all_heads ON state_head USING (true);
CREATE POLICY recent ON state_snapshot USING (version >= 3);
SET ROLE regress_snapshot_reader;
SELECT kept_steps('b-1', 'guarded');
SELECT state_at('b-1', 2, class => 'guarded'), state_at('b-1', 1, class => 'guarded');
SELECT outcome($$SELECT state_diff('b-1', 2, 4, class => 'guarded')$$);
SELECT jsonb_array_length(state_diff('b-1', 3, 4, class => 'guarded'));
SELECT seen('b-1', 'guarded') = stored('b-1', 'guarded');
-- A current version that is hidden reads as absent.
RESET ROLE;
SELECT version FROM state_save('b-2', '{"n": 1}', class => 'guarded');
SET ROLE regress_snapshot_reader;
SELECT seen('b-2', 'guarded'), stored('b-2', 'guarded');
RESET ROLE;
SELECT seen('b-2', 'guarded');
DROP POLICY recent ON state_snapshot;
DROP POLICY all_heads ON state_head;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;

DROP OWNED BY regress_snapshot_nobody, regress_snapshot_reader, regress_snapshot_writer;
DROP ROLE regress_snapshot_nobody, regress_snapshot_reader, regress_snapshot_writer;
SELECT * FROM state_verify('guarded');
