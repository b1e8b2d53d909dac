-- state_save() replaces the whole state and keeps it as a checkpoint, at once. It says what it did, and which version
-- holds the document now: one of which there is a row.
\a \t \pset null (null)
SELECT state_class_define('save', keep => 0);
-- kept() is what the tables hold of a version, whatever the functions say.
CREATE FUNCTION kept(key text, version bigint, class text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT EXISTS (SELECT FROM state_snapshot s WHERE (s.class, s.key, s.version) = (kept.class, kept.key, kept.version))
$$;

-- The first version, the next, and a repetition.
SELECT * FROM state_save('doc', '{"n": 1}', class => 'save');
SELECT * FROM state_save('doc', '{"n": 2}', class => 'save');
SELECT * FROM state_save('doc', '{"n": 2}', class => 'save');
SELECT seen('doc', 'save'), stored('doc', 'save');
SELECT version, parent_version FROM state_history('doc', class => 'save');

-- Who may be skipped: auto, intermediate and pipeline_complete, where type and phase are those stored.
SELECT t, first.action, first.version, again.action, again.version, kept('skip ' || t, again.version, 'save')
	FROM unnest('{manual,auto,recovery,phase_transition,full,critical,intermediate,pipeline_complete}'::text[]) t,
		state_save('skip ' || t, '{"n": 1}', t, 'triage', class => 'save') first,
		state_save('skip ' || t, '{"n": 1}', t, 'triage', class => 'save') again;
-- A recovery point never is, of whatever type, and what follows one may be.
SELECT t, first.version, again.action, again.version, after.action, after.version
	FROM unnest('{auto,intermediate,pipeline_complete}'::text[]) t,
		state_save('point ' || t, '{"n": 1}', t, recovery_point => true, class => 'save') first,
		state_save('point ' || t, '{"n": 1}', t, recovery_point => true, class => 'save') again,
		state_save('point ' || t, '{"n": 1}', t, class => 'save') after;
-- Another phase or another type is a change, back as well; no phase is one of its own.
SELECT * FROM state_save('turns', '{"n": 1}', 'auto', 'triage', class => 'save');
SELECT * FROM state_save('turns', '{"n": 1}', 'auto', 'reporting', class => 'save');
SELECT * FROM state_save('turns', '{"n": 1}', 'auto', 'triage', class => 'save');
SELECT * FROM state_save('turns', '{"n": 1}', 'auto', class => 'save');
SELECT * FROM state_save('turns', '{"n": 1}', 'intermediate', class => 'save');
SELECT * FROM state_save('turns', '{"n": 1}', 'pipeline_complete', class => 'save');
SELECT * FROM state_save('turns', '{"n": 1}', 'pipeline_complete', class => 'save');
-- Compared is the newest version: a document that an older one holds is none that is stored.
SELECT * FROM state_save('turns', '{"n": 2}', class => 'save');
SELECT * FROM state_save('turns', '{"n": 1}', 'pipeline_complete', class => 'save');
-- Equal to the server is not yet the same bytes.
SELECT * FROM state_save('turns', '{"n": 1.0}', 'pipeline_complete', class => 'save');
-- A plain change with the document and label of a checkpoint is none; a save with the document of a plain change neither.
SELECT state_set('turns', '{"n": 1.0}', class => 'save');
SELECT state_set('turns', '{"n": 3}', class => 'save');
SELECT * FROM state_save('turns', '{"n": 3}', class => 'save');
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', class => 'save');
-- Another context is a change as well.
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', execution_context => '{"attempt": 2}', class => 'save');
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', execution_context => '{"attempt": 2}', class => 'save');
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', class => 'save');
-- A skip costs no transaction id.
BEGIN;
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', class => 'save');
SELECT pg_current_xact_id_if_assigned();
COMMIT;

-- Without de-duplication everything is written, in a session or in a class.
SET state_cache.dedup = off;
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', class => 'save');
RESET state_cache.dedup;
SELECT state_class_define('save', dedup => false);
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', class => 'save');
SELECT state_class_define('save', dedup => true);
SELECT * FROM state_save('turns', '{"n": 3}', 'intermediate', class => 'save');

-- expected_version is checked also where nothing changes; 0 is for a state that is not there.
SELECT * FROM state_save('expected', '{"n": 1}', expected_version => 0, class => 'save');
SELECT complaint($$SELECT state_save('expected', '{"n": 1}', expected_version => 0, class => 'save')$$);
SELECT * FROM state_save('expected', '{"n": 1}', expected_version => 1, class => 'save');
SELECT * FROM state_save('expected', '{"n": 2}', expected_version => 1, class => 'save');
SELECT outcome($$SELECT state_save('expected', '{"n": 2}', expected_version => 1, class => 'save')$$);
SELECT outcome($$SELECT state_save('expected', '{"n": 2}', 'critical', expected_version => 1, class => 'save')$$);
SELECT max(version) FROM state_history('expected', class => 'save');

-- A time to live; a repetition prolongs it without a version.
SELECT * FROM state_save('ends', '{"n": 1}', ttl => '1 hour', class => 'save');
SELECT * FROM state_save('ends', '{"n": 1}', ttl => '2 hours', class => 'save');
SELECT version, expires_at - clock_timestamp() BETWEEN '119 minutes' AND '2 hours' FROM state_head WHERE class = 'save' AND key = 'ends';
-- An expired or deleted state is nothing to be compared with, and its history goes on.
BEGIN;
UPDATE state_head SET expires_at = now() - interval '1 second' WHERE class = 'save' AND key = 'ends';
SELECT * FROM state_save('ends', '{"n": 1}', class => 'save');
COMMIT;
SELECT state_delete('ends', class => 'save');
SELECT * FROM state_save('ends', '{"n": 1}', class => 'save');
SELECT version, parent_version FROM state_history('ends', class => 'save');

-- Written at once, in an explicit batch too: the other states stay staged, and the batch goes on from the new version.
BEGIN;
SELECT state_batch_begin();
SELECT state_set('other', '{"n": 1}', class => 'save');
SELECT state_set('batch', '{"staged": 1}', class => 'save');
SELECT * FROM state_save('batch', '{"n": 1}', 'manual', class => 'save');
SELECT stored('batch', 'save'), stored('other', 'save');
SELECT key, dirty, base_version FROM state_batch_status() WHERE class = 'save';
-- Dropping the batch does not take it back, nor bring back what it has overtaken.
SELECT state_batch_rollback();
COMMIT;
SELECT stored('batch', 'save'), stored('other', 'save');
BEGIN;
SELECT state_set('batch', '{"staged": "before the batch"}', class => 'save');
SELECT state_batch_begin();
SELECT * FROM state_save('batch', '{"n": 2}', class => 'save');
SELECT state_batch_rollback();
COMMIT;
SELECT seen('batch', 'save'), stored('batch', 'save');
-- What is staged after it builds upon it, and is flushed with the rest.
BEGIN;
SELECT state_batch_begin();
SELECT * FROM state_save('batch', '{"n": 3}', class => 'save');
SELECT state_update('batch', '{"m": 1}', class => 'save');
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT stored('batch', 'save');
SELECT version, parent_version, checkpoint_type FROM state_history('batch', class => 'save');
-- What was staged before is replaced: a checkpoint is one version, not two.
BEGIN;
SELECT state_update('batch', '{"staged": 1}', class => 'save');
SELECT * FROM state_save('batch', '{"n": 5}', 'critical', class => 'save');
COMMIT;
SELECT * FROM state_save('batch', '{"n": 5}', 'critical', expected_version => 5, class => 'save');

-- Several checkpoints in one transaction are as many versions, and all of them are seen from within.
BEGIN;
SELECT * FROM state_save('steps', '{"n": 1}', class => 'save');
SELECT * FROM state_save('steps', '{"n": 2}', class => 'save');
SELECT * FROM state_save('steps', '{"n": 2}', class => 'save');
SELECT * FROM state_save('steps', '{"n": 1}', class => 'save');
SELECT seen('steps', 'save'), stored('steps', 'save');
SELECT version, state_at('steps', version, class => 'save') FROM state_history('steps', class => 'save');
ROLLBACK;
SELECT seen('steps', 'save'), stored('steps', 'save');
SELECT count(*) FROM state_history('steps', class => 'save');
-- The versions that were rolled back are given again.
SELECT * FROM state_save('steps', '{"n": 1}', class => 'save');

-- A rollback to a savepoint, and the end of a block with an error, take back what they held and no more. The save that
-- follows is compared with what is stored then.
BEGIN;
SELECT * FROM state_save('steps', '{"n": 2}', class => 'save');
SAVEPOINT a;
SELECT * FROM state_save('steps', '{"n": 3}', class => 'save');
SAVEPOINT b;
SELECT * FROM state_save('steps', '{"n": 4}', class => 'save');
RELEASE b;
SELECT seen('steps', 'save');
ROLLBACK TO a;
SELECT seen('steps', 'save');
SELECT * FROM state_save('steps', '{"n": 2}', class => 'save');
SELECT * FROM state_save('steps', '{"n": 3}', class => 'save');
COMMIT;
SELECT seen('steps', 'save'), stored('steps', 'save');
CREATE FUNCTION save_and_fail() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM state_save('steps', '{"n": "never"}', 'critical', class => 'save');
		RAISE EXCEPTION 'after %', seen('steps', 'save');
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLERRM || ', then ' || seen('steps', 'save');
	END;
END
$$;
SELECT save_and_fail();
SELECT * FROM state_save('steps', '{"n": "never"}', class => 'save');
SELECT version, state_at('steps', version, class => 'save') FROM state_history('steps', class => 'save');

-- Compared with what is stored *and intact*. The document of this row is not what its hash says any more: the save
-- writes anew, and heals.
SELECT * FROM state_save('hurt', '{"n": 1}', class => 'save');
UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'save' AND key = 'hurt';
SELECT outcome($$SELECT state_get('hurt', class => 'save')$$);
SELECT * FROM state_save('hurt', '{"n": 1}', class => 'save');
SELECT seen('hurt', 'save'), stored('hurt', 'save');
-- The same where the row is gone, where its hash is another, and where the head's is.
DELETE FROM state_snapshot WHERE class = 'save' AND key = 'hurt';
SELECT * FROM state_save('hurt', '{"n": 1}', class => 'save');
UPDATE state_snapshot SET hash = state_hash('0') WHERE class = 'save' AND key = 'hurt' AND version = 3;
SELECT * FROM state_save('hurt', '{"n": 1}', class => 'save');
UPDATE state_head SET hash = state_hash('0') WHERE class = 'save' AND key = 'hurt';
SELECT * FROM state_save('hurt', '{"n": 1}', class => 'save');
SELECT * FROM state_save('hurt', '{"n": 1}', class => 'save');
SELECT version, seen('hurt', 'save'), stored('hurt', 'save') FROM state_head WHERE class = 'save' AND key = 'hurt';
-- In one transaction with the damage.
BEGIN;
UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'save' AND key = 'hurt' AND version = 5;
SELECT * FROM state_save('hurt', '{"n": 1}', class => 'save');
COMMIT;
SELECT seen('hurt', 'save'), stored('hurt', 'save');

-- And where L1 does not know of the damage: what is written then does not build upon it.
CALL keep_steps('hurt unseen', 'save', 3);
CALL damage_byte('hurt unseen', 'save', 3, 5);
SELECT * FROM state_save('hurt unseen', document(3), class => 'save');
SELECT state_cache_clear('save') >= 0;
SELECT state_get('hurt unseen', class => 'save') = document(3), state_version('hurt unseen', class => 'save');

-- Documents of every kind, and one that is too large.
SELECT d, action, version FROM unnest(ARRAY['{}', '[]', 'null', '0', '""', 'true', '[[[]]]', '{"": {"": null}}']::jsonb[]) d, state_save('kinds', d, class => 'save');
SELECT version, state_at('kinds', version, class => 'save') FROM state_history('kinds', class => 'save');
BEGIN;
SET LOCAL state_cache.max_state_size = '1kB';
SELECT outcome($$SELECT state_save('kinds', to_jsonb(repeat('x', 2000)), class => 'save')$$);
COMMIT;

-- In a class that keeps one version the head row holds that; a recovery point stays beside it.
SELECT state_class_define('save one');
SELECT * FROM state_save('doc', '{"n": 1}', class => 'save one');
SELECT * FROM state_save('doc', '{"n": 2}', 'manual', 'triage', true, '{"who": "me"}', class => 'save one');
SELECT * FROM state_save('doc', '{"n": 3}', 'manual', 'reporting', class => 'save one');
SELECT * FROM state_save('doc', '{"n": 4}', class => 'save one');
SELECT version, parent_version, checkpoint_type, agent_phase, recovery_point, execution_context, encoding FROM state_history('doc', class => 'save one');

-- PREPARE TRANSACTION is refused after it, as after any change.
BEGIN;
SELECT * FROM state_save('doc', '{"n": 5}', class => 'save one');
PREPARE TRANSACTION 'save';
\echo :SQLSTATE
SELECT seen('doc', 'save one');
-- The same document in another phase is stored as the difference from itself.
SELECT * FROM state_save('phases', document(1), agent_phase => 'triage', class => 'save');
SELECT * FROM state_save('phases', document(1), agent_phase => 'reporting', class => 'save');
SELECT version, agent_phase, encoding, bytes_stored < 64 AS is_small FROM state_history('phases', 'save');
SELECT state_at('phases', 2, 'save') = document(1);
