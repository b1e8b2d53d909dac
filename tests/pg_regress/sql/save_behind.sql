-- Checkpoints of a class whose write mode is behind: those that may be lost with their document are left to the worker
-- like any change, the others are written at once, and with them what was left before.
\a \t \pset null (null)
ALTER SYSTEM SET state_cache.flush_interval = '1h';
SELECT pg_reload_conf();
SELECT state_class_define('save behind', write_mode => 'behind', keep => 0);
SELECT state_class_define('save behind other', write_mode => 'behind');
-- The worker takes changes once it is there.
CREATE PROCEDURE await_deferred() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM state_set('accepting', to_jsonb(clock_timestamp()), class => 'save behind other');
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM state_cache_unwritten WHERE class = 'save behind other');
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
CALL await_deferred();
CREATE VIEW not_yet_written AS SELECT key, version FROM state_cache_unwritten WHERE class = 'save behind' ORDER BY key;

-- Deferred: seen by everybody, held by no row yet, without a transaction id.
BEGIN;
SELECT * FROM state_save('doc', '{"n": 1}', class => 'save behind');
SELECT pg_current_xact_id_if_assigned();
COMMIT;
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
SELECT * FROM not_yet_written;
SELECT count(*) FROM state_history('doc', class => 'save behind');
-- The version that was named is there for who asks.
SELECT state_at('doc', 1, class => 'save behind'), state_at('doc', 2, class => 'save behind');
-- A repetition is none.
SELECT * FROM state_save('doc', '{"n": 1}', class => 'save behind');
-- The next ones of its kind overtake it.
SELECT * FROM state_save('doc', '{"n": 2}', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 3}', class => 'save behind');
SELECT * FROM not_yet_written;
SELECT state_at('doc', 2, class => 'save behind'), state_at('doc', 3, class => 'save behind');
-- expected_version is that of L1.
SELECT outcome($$SELECT state_save('doc', '{"n": 4}', expected_version => 2, class => 'save behind')$$);
SELECT * FROM state_save('doc', '{"n": 4}', expected_version => 3, class => 'save behind');
-- Written by the worker, or on demand: the versions in between never had a row.
SELECT state_flush('save behind');
SELECT * FROM not_yet_written;
SELECT version, checkpoint_type, state_at('doc', version, class => 'save behind') FROM state_history('doc', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 4}', class => 'save behind');

-- At once: what says of itself more than its document does, and what is never skipped.
SELECT t, action, version, stored('doc', 'save behind')
	FROM unnest('{manual,recovery,phase_transition,full,critical}'::text[]) t, state_save('doc', to_jsonb(t), t, class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 10}', 'auto', 'triage', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 11}', 'intermediate', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 12}', recovery_point => true, class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 13}', execution_context => '{"a": 1}', class => 'save behind');
SELECT * FROM not_yet_written;
-- What was left before is written with it, as a version of its own.
SELECT * FROM state_save('doc', '{"n": 14}', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 15}', 'critical', class => 'save behind');
SELECT * FROM not_yet_written;
SELECT version, parent_version, checkpoint_type, agent_phase, recovery_point, execution_context FROM state_history('doc', class => 'save behind') LIMIT 6;
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
-- The same document under another label, over one that was left.
SELECT * FROM state_save('doc', '{"n": 16}', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 16}', 'intermediate', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 16}', 'intermediate', class => 'save behind');
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');

-- In a transaction: what is left is left at COMMIT, and gone with a rollback.
BEGIN;
SELECT * FROM state_save('doc', '{"n": 18}', class => 'save behind');
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
SAVEPOINT s;
SELECT * FROM state_save('doc', '{"n": 19}', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 20}', 'critical', class => 'save behind');
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
ROLLBACK TO s;
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
ROLLBACK;
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
SELECT * FROM not_yet_written;

-- Going back: what was left counts, and is written first.
SELECT * FROM state_save('doc', '{"n": 21}', class => 'save behind');
SELECT * FROM state_recover('doc', class => 'save behind');
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
SELECT * FROM state_save('doc', '{"n": 22}', class => 'save behind');
SELECT * FROM state_recover('doc', 'resume', class => 'save behind');
SELECT * FROM state_save('doc', '{"n": 23}', class => 'save behind');
SELECT version AS left_behind FROM state_save('doc', '{"n": 24}', class => 'save behind') \gset
SELECT state_restore('doc', :left_behind, class => 'save behind');
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');
SELECT * FROM not_yet_written;
-- state_diff() with a version that was left.
SELECT version AS left_behind FROM state_save('doc', '{"n": 25}', class => 'save behind') \gset
SELECT state_diff('doc', 1, :left_behind, class => 'save behind');
SELECT state_diff('doc', 4, :left_behind, class => 'save behind');

-- Pruning and verification see what there are rows of, and what was left is current all the same.
SELECT state_prune('save behind', keep => 2) > 0;
SELECT seen('doc', 'save behind');
SELECT * FROM state_verify('save behind');
SELECT state_flush('save behind');
SELECT seen('doc', 'save behind'), stored('doc', 'save behind');

-- Large documents: as deltas from what the tables hold, also of what was left.
CREATE PROCEDURE left_and_written(steps integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..steps LOOP
		PERFORM state_save('steps', document(i), class => 'save behind');
		COMMIT;
		IF i % 3 = 0 THEN
			PERFORM state_flush('save behind');
			COMMIT;
		END IF;
	END LOOP;
END
$$;
CALL left_and_written(12);
SELECT state_cache_clear('save behind') >= 0;
SELECT kept_steps('steps', 'save behind');
-- keep counts the versions that there are, not their numbers.
SELECT state_class_define('save behind', keep => 2);
SELECT kept_steps('steps', 'save behind');
CALL left_and_written(6);
SELECT count(*) BETWEEN 2 AND 2 + 2 * 16, bool_and(state_at('steps', version, class => 'save behind') IS NOT NULL) FROM state_history('steps', class => 'save behind');
DO $$ BEGIN PERFORM state_prune('save behind'); END $$;
SELECT count(*) FROM state_history('steps', class => 'save behind');
SELECT state_get('steps', class => 'save behind') = document(6);

-- A damaged row beneath a change that was left: the change is what is current, and is written.
SELECT * FROM state_save('hurt', '{"n": 1}', 'manual', class => 'save behind');
SELECT * FROM state_save('hurt', '{"n": 2}', 'manual', class => 'save behind');
UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'save behind' AND key = 'hurt' AND version = 2;
SELECT outcome($$SELECT state_get('hurt', class => 'save behind')$$);
SELECT * FROM state_save('hurt', '{"n": 3}', class => 'save behind');
SELECT state_flush('save behind');
SELECT seen('hurt', 'save behind'), stored('hurt', 'save behind');

-- Back to through: everything is a row.
SELECT * FROM state_save('doc', '{"n": 30}', class => 'save behind');
SELECT state_class_define('save behind', write_mode => 'through');
SELECT seen('doc', 'save behind') = stored('doc', 'save behind');
SELECT action FROM state_save('doc', '{"n": 31}', class => 'save behind');
SELECT state_class_define('save behind other', write_mode => 'through');
ALTER SYSTEM RESET state_cache.flush_interval;
SELECT pg_reload_conf();
