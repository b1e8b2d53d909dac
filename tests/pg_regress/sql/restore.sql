-- Going back: state_restore() to a version that is named, state_recover() to the newest one that is fit. Both make a
-- new version; history stays, and everybody sees the same at once.
\a \t \pset null (null)
-- What this session hears is shown without what differs from run to run.
\set heard '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
SELECT state_class_define('restore', keep => 0, channel => 'restore_test');
CREATE FUNCTION history(key text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(format('%s from %s: %s%s %s', h.version, coalesce(h.parent_version::text, 'nothing'), checkpoint_type,
			CASE WHEN recovery_point THEN '*' END, coalesce(agent_phase, '-')), E'\n' ORDER BY version)
		FROM state_history(key, 'restore') h
$$;
-- Whether functions, L1, tables and head agree on the current version.
CREATE FUNCTION in_agreement(key text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT seen(in_agreement.key, 'restore') = stored(in_agreement.key, 'restore')
		AND h.version = state_version(in_agreement.key, 'restore') AND h.hash = state_hash(state_get(in_agreement.key, 'restore'))
		AND h.size = pg_column_size(state_get(in_agreement.key, 'restore') || '{}') - 4 AND h.hash = s.hash AND NOT h.deleted
		FROM state_head h JOIN state_snapshot s USING (class, key, version) WHERE h.class = 'restore' AND h.key = in_agreement.key
$$;

SELECT action, version FROM state_save('doc', '{"n": 1}', 'manual', 'triage', true, '{"tick": 1}', class => 'restore');
SELECT action, version FROM state_save('doc', '{"n": 2}', class => 'restore');
SELECT state_update('doc', '{"n": 3}', class => 'restore');

-- A new version with the content, phase and context of the old one, which is its parent. The old ones stay. Subscribers
-- hear of it like of any change.
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN restore_test;
\o :heard
SELECT state_restore('doc', 1, class => 'restore');
\o
UNLISTEN *;
SELECT seen('doc', 'restore'), in_agreement('doc');
SELECT history('doc');
SELECT execution_context FROM state_history('doc', class => 'restore') LIMIT 1;
-- A duplicate of it is skipped at once.
BEGIN;
SELECT state_set('doc', '{"n": 1}', class => 'restore');
SELECT key, version, action FROM state_batch_commit();
SELECT pg_current_xact_id_if_assigned();
COMMIT;
-- A checkpoint of the same document is another type than the restored one: recovery.
SELECT * FROM state_save('doc', '{"n": 1}', 'auto', 'triage', class => 'restore');
SELECT * FROM state_save('doc', '{"n": 1}', 'auto', 'triage', class => 'restore');
-- To restore the current version is a step of its own too.
SELECT state_restore('doc', 5, class => 'restore');
SELECT history('doc');

-- expected_version guards it.
SELECT complaint($$SELECT state_restore('doc', 2, 5, class => 'restore')$$);
SELECT state_restore('doc', 2, 6, class => 'restore');
SELECT seen('doc', 'restore'), in_agreement('doc');
-- What is not kept cannot be restored.
SELECT complaint($$SELECT state_restore('doc', 8, class => 'restore')$$);
SELECT complaint($$SELECT state_restore('doc', 0, class => 'restore')$$);
SELECT complaint($$SELECT state_restore('none', 1, class => 'restore')$$);
SELECT complaint($$SELECT state_restore('doc', NULL, class => 'restore')$$);
SELECT complaint($$SELECT state_restore('doc', 1, class => 'no such')$$);

-- A deleted state comes back, and one that has expired.
SELECT state_delete('doc', class => 'restore');
SELECT seen('doc', 'restore');
SELECT state_restore('doc', 3, class => 'restore');
SELECT seen('doc', 'restore'), in_agreement('doc');
BEGIN;
UPDATE state_head SET expires_at = now() - interval '1 second' WHERE class = 'restore' AND key = 'doc';
SELECT seen('doc', 'restore');
SELECT state_restore('doc', 3, class => 'restore');
COMMIT;
SELECT seen('doc', 'restore'), expires_at FROM state_head WHERE class = 'restore' AND key = 'doc';

-- Transactions are transactions.
BEGIN;
SELECT state_set('doc', '{"staged": true}', class => 'restore');
SAVEPOINT a;
SELECT state_restore('doc', 1, class => 'restore');
SELECT seen('doc', 'restore');
ROLLBACK TO a;
SELECT seen('doc', 'restore');
ROLLBACK;
SELECT seen('doc', 'restore'), in_agreement('doc');
-- Within a batch: what it has overtaken does not come back.
BEGIN;
SELECT state_batch_begin();
SELECT state_update('doc', '{"staged": true}', class => 'restore');
SELECT state_restore('doc', 1, class => 'restore');
SELECT state_batch_rollback();
COMMIT;
SELECT seen('doc', 'restore'), in_agreement('doc');

-- Deltas: any of them comes back. The new version depends on no other.
CALL keep_steps('steps', 'restore', 8);
SELECT state_restore('steps', 3, class => 'restore');
SELECT state_get('steps', class => 'restore') = document(3), in_agreement('steps');
SELECT version, parent_version, encoding FROM state_history('steps', class => 'restore') LIMIT 2;

-- ---------------------------------------------------------------------------------------------------
-- state_recover(): rollback, the default, goes to the newest recovery point
-- ---------------------------------------------------------------------------------------------------
SELECT version FROM state_save('run', '{"n": 1}', 'manual', 'initialization', class => 'restore');
SELECT version FROM state_save('run', '{"n": 2}', 'manual', 'triage', true, class => 'restore');
SELECT version FROM state_save('run', '{"n": 3}', 'critical', 'triage', true, class => 'restore');
SELECT version FROM state_save('run', '{"n": 4}', 'auto', 'reporting', class => 'restore');
SELECT * FROM state_recover('run', class => 'restore');
SELECT seen('run', 'restore'), in_agreement('run');
SELECT history('run');
-- resume goes to the newest: there is nothing to be done, and it says so.
SELECT * FROM state_recover('run', 'resume', class => 'restore');
-- restart goes to the oldest.
SELECT * FROM state_recover('run', 'restart', class => 'restore');
SELECT seen('run', 'restore'), in_agreement('run');
SELECT history('run');
-- Where the newest recovery point is current nothing is written; a deleted state is.
SELECT version FROM state_save('run', '{"n": 7}', 'manual', 'completion', true, class => 'restore');
SELECT * FROM state_recover('run', class => 'restore');
SELECT state_delete('run', class => 'restore');
SELECT * FROM state_recover('run', class => 'restore');
SELECT seen('run', 'restore'), in_agreement('run');
SELECT state_delete('run', class => 'restore');
SELECT * FROM state_recover('run', 'resume', class => 'restore');
SELECT seen('run', 'restore'), in_agreement('run');
-- An expired state comes back as well.
BEGIN;
UPDATE state_head SET expires_at = now() - interval '1 second' WHERE class = 'restore' AND key = 'run';
SELECT seen('run', 'restore');
SELECT * FROM state_recover('run', 'resume', class => 'restore');
COMMIT;
SELECT seen('run', 'restore'), in_agreement('run');
-- What the transaction has staged counts as the newest version there is.
BEGIN;
SELECT state_update('run', '{"staged": true}', class => 'restore');
SELECT * FROM state_recover('run', 'resume', class => 'restore');
SELECT seen('run', 'restore');
SELECT * FROM state_recover('run', class => 'restore');
SELECT seen('run', 'restore');
ROLLBACK;
-- Without any recovery point: the newest intact version.
SELECT version FROM state_save('pointless', '{"n": 1}', class => 'restore');
SELECT version FROM state_save('pointless', '{"n": 2}', class => 'restore');
SELECT * FROM state_recover('pointless', class => 'restore');
-- What cannot be done.
SELECT complaint($$SELECT * FROM state_recover('none', class => 'restore')$$);
SELECT complaint($$SELECT * FROM state_recover('run', 'undo', class => 'restore')$$);
SELECT complaint($$SELECT * FROM state_recover('run', NULL, class => 'restore')$$);
SELECT complaint($$SELECT * FROM state_recover(NULL, class => 'restore')$$);
SELECT complaint($$SELECT * FROM state_recover('run', class => 'no such')$$);

-- The log says what was done.
SELECT key, version, error_type, severity, fault, strategy, outcome, restored_version FROM state_recovery_log WHERE class = 'restore' ORDER BY found_at;

-- ---------------------------------------------------------------------------------------------------
-- Damage
-- ---------------------------------------------------------------------------------------------------
SELECT version FROM state_save('hurt', '{"n": 1}', 'manual', recovery_point => true, class => 'restore');
SELECT version FROM state_save('hurt', '{"n": 2}', 'manual', recovery_point => true, class => 'restore');
SELECT version FROM state_save('hurt', '{"n": 3}', class => 'restore');
SELECT version FROM state_save('hurt', '{"n": 4}', class => 'restore');
CREATE PROCEDURE hurt(versions bigint[]) LANGUAGE sql AS $$
	UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'restore' AND key = 'hurt' AND version = ANY (versions)
$$;
-- The current version is damaged: resume goes to the newest that is not.
CALL hurt('{4}');
SELECT complaint($$SELECT state_get('hurt', class => 'restore')$$);
SELECT complaint($$SELECT state_restore('hurt', 4, class => 'restore')$$);
SELECT * FROM state_recover('hurt', 'resume', class => 'restore');
SELECT seen('hurt', 'restore'), in_agreement('hurt');
-- And where the newest recovery point is: rollback goes to the one before.
CALL hurt('{2}');
SELECT * FROM state_recover('hurt', class => 'restore');
SELECT seen('hurt', 'restore'), in_agreement('hurt');
-- restart: the oldest that is intact.
CALL hurt('{1}');
SELECT * FROM state_recover('hurt', 'restart', class => 'restore');
-- No recovery point is left that is intact: the newest version, which is current.
SELECT * FROM state_recover('hurt', class => 'restore');
SELECT seen('hurt', 'restore'), in_agreement('hurt');
-- The row of the current version is gone, or the head has another hash.
DELETE FROM state_snapshot WHERE class = 'restore' AND key = 'hurt' AND version = 7;
SELECT outcome($$SELECT state_get('hurt', class => 'restore')$$);
SELECT * FROM state_recover('hurt', 'resume', class => 'restore');
SELECT seen('hurt', 'restore'), in_agreement('hurt');
UPDATE state_head SET hash = state_hash('0') WHERE class = 'restore' AND key = 'hurt';
SELECT outcome($$SELECT state_get('hurt', class => 'restore')$$);
SELECT * FROM state_recover('hurt', 'resume', class => 'restore');
SELECT seen('hurt', 'restore'), in_agreement('hurt');
-- An old version can still be restored beside damaged ones.
SELECT state_restore('hurt', 3, class => 'restore');
SELECT seen('hurt', 'restore'), in_agreement('hurt');
-- Nothing is intact: XX001, and nothing is changed.
UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'restore' AND key = 'hurt';
SELECT version AS before, hash AS hash_before FROM state_head WHERE class = 'restore' AND key = 'hurt' \gset
SELECT k, complaint(format('SELECT * FROM state_recover(%L, %L, %L)', 'hurt', k, 'restore')) FROM unnest('{rollback,resume,restart}'::text[]) k;
SELECT version = :before AND hash = :'hash_before' FROM state_head WHERE class = 'restore' AND key = 'hurt';
-- A whole new document heals it.
SELECT * FROM state_save('hurt', '{"n": "new"}', class => 'restore');
SELECT seen('hurt', 'restore'), in_agreement('hurt');

-- A delta is damaged, and with it all that build upon it: recovery goes below.
CALL keep_steps('chain', 'restore', 8);
CALL damage_byte('chain', 'restore', 6, 5);
SELECT state_cache_clear('restore') >= 0;
SELECT version, outcome(format('SELECT state_at(%L, %s, %L)', 'chain', version, 'restore')) FROM generate_series(4, 8) version;
SELECT outcome($$SELECT state_get('chain', class => 'restore')$$);
SELECT * FROM state_recover('chain', 'resume', class => 'restore');
SELECT state_get('chain', class => 'restore') = document(5), in_agreement('chain');
-- What is written now builds upon what is intact.
SELECT version FROM state_save('chain', document(12), class => 'restore');
SELECT state_cache_clear('restore') >= 0;
SELECT state_get('chain', class => 'restore') = document(12), in_agreement('chain');
SELECT key, version, error_type, severity, fault, strategy, outcome, restored_version FROM state_recovery_log WHERE class = 'restore' AND key IN ('hurt', 'chain') ORDER BY found_at;
-- Where L1 does not know of the damage: it is what the tables hold that counts.
CALL keep_steps('unseen', 'restore', 5);
CALL damage_byte('unseen', 'restore', 5, 5);
SELECT * FROM state_recover('unseen', 'resume', class => 'restore');
SELECT state_get('unseen', class => 'restore') = document(4), in_agreement('unseen');
SELECT state_cache_clear('restore') >= 0;
SELECT state_get('unseen', class => 'restore') = document(4), in_agreement('unseen');
-- A run is a context; its damage is critical.
BEGIN;
UPDATE state_class SET keep = NULL WHERE class = 'run';
SELECT version FROM state_save('restore run', '1');
SELECT version FROM state_save('restore run', '2');
UPDATE state_snapshot SET state = '3' WHERE class = 'run' AND key = 'restore run' AND version = 2;
SELECT * FROM state_recover('restore run', 'resume');
SELECT key, version, error_type, severity, fault, strategy, outcome, restored_version FROM state_recovery_log WHERE class = 'run' AND key = 'restore run';
-- The log is rolled back with what it tells of.
SAVEPOINT s;
SELECT * FROM state_recover('restore run', 'restart');
SELECT count(*) FROM state_recovery_log WHERE class = 'run' AND key = 'restore run';
ROLLBACK TO s;
SELECT count(*) FROM state_recovery_log WHERE class = 'run' AND key = 'restore run';
ROLLBACK;
