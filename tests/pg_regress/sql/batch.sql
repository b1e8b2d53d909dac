-- What a transaction changes is staged and flushed once: at COMMIT, or when it asks.
\a \t \pset null (null)
SELECT state_class_define('batch');
SELECT state_set('doc', '{"n": 0, "log": []}', class => 'batch');

-- Staged changes are seen by the transaction itself through every reading function, and by no table.
BEGIN;
SELECT state_update('doc', '{"n": 1, "section": {"a": 1}}', class => 'batch');
SELECT state_append('doc', '{log}', '"one"', class => 'batch');
SELECT state_set('other', '{"n": "other"}', class => 'batch');
SELECT state_get('doc', class => 'batch');
SELECT state_get_text('doc', class => 'batch');
SELECT state_get_path('doc', '{log,0}', class => 'batch');
SELECT state_get_section('doc', 'section', class => 'batch');
SELECT * FROM state_get_many('{other,doc}', class => 'batch');
SELECT * FROM state_get_if_newer('doc', 1, class => 'batch');
SELECT state_version('other', class => 'batch'), state_exists('other', class => 'batch');
SELECT stored('doc', 'batch'), stored('other', 'batch');
SELECT class, key, dirty, base_version, staged_bytes > 0 FROM state_batch_status() ORDER BY key;
COMMIT;
SELECT stored('doc', 'batch'), stored('other', 'batch');
SELECT * FROM state_batch_status();

-- One version, one snapshot, however many changes.
SELECT version, parent_version FROM state_kept WHERE class = 'batch' AND key = 'doc';

-- ROLLBACK drops everything.
BEGIN;
SELECT state_set('doc', '{"n": "dropped"}', class => 'batch');
SELECT state_delete('other', class => 'batch');
SELECT seen('doc', 'batch'), seen('other', 'batch');
ROLLBACK;
SELECT seen('doc', 'batch'), seen('other', 'batch');
SELECT * FROM state_batch_status();

-- An explicit batch. state_batch_commit() flushes now, inside the transaction, and says what became of it.
BEGIN;
SELECT state_batch_begin();
SELECT state_update('doc', '{"n": 2}', class => 'batch');
SELECT state_set('other', '{"n": "other"}', class => 'batch');
SELECT state_set('third', '{"n": 3}', class => 'batch');
SELECT state_delete('third', class => 'batch');
SELECT state_set('fourth', '{"n": 4}', class => 'batch');
SELECT class, key, dirty, base_version FROM state_batch_status() ORDER BY key;
SELECT class, key, version, action, bytes > 0 FROM state_batch_commit() ORDER BY key;
-- Flushed changes are in the tables, for this transaction.
SELECT stored('doc', 'batch'), stored('fourth', 'batch');
SELECT * FROM state_batch_status();
-- The transaction goes on after it, and a second batch may follow.
SELECT state_batch_begin('reapply');
SELECT state_delete('fourth', class => 'batch');
SELECT class, key, version, action, bytes FROM state_batch_commit();
COMMIT;
SELECT stored('doc', 'batch'), seen('third', 'batch'), stored('fourth', 'batch');

-- A state that was created and deleted within the batch never was.
SELECT count(*) FROM state_head WHERE class = 'batch' AND key = 'third';

-- Flushed is not committed: ROLLBACK undoes it like any row.
BEGIN;
SELECT state_set('doc', '{"n": "flushed"}', class => 'batch');
SELECT key, version, action FROM state_batch_commit();
SELECT seen('doc', 'batch');
ROLLBACK;
SELECT seen('doc', 'batch'), stored('doc', 'batch');

-- An explicit batch that nobody ends is flushed at COMMIT.
BEGIN;
SELECT state_batch_begin();
SELECT state_update('doc', '{"n": 3}', class => 'batch');
COMMIT;
SELECT stored('doc', 'batch');
-- It does not outlive its transaction.
BEGIN;
SELECT state_batch_begin();
COMMIT;
BEGIN;
SELECT state_batch_begin();
COMMIT;

-- One batch at a time. The second is refused, the first lives on.
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT state_update('doc', '{"n": 4}', class => 'batch');
SAVEPOINT s;
SELECT state_batch_begin();
\echo :SQLSTATE
ROLLBACK TO s;
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT stored('doc', 'batch');

-- Commit without begin flushes what is staged; nothing staged, nothing to say.
SELECT * FROM state_batch_commit();
BEGIN;
SELECT state_update('doc', '{"n": 5}', class => 'batch');
SELECT key, version, action FROM state_batch_commit();
SELECT * FROM state_batch_commit();
COMMIT;

-- state_batch_rollback() drops what is staged since the begin, and only that.
BEGIN;
SELECT state_update('doc', '{"before": true}', class => 'batch');
SELECT state_batch_begin();
SELECT state_update('doc', '{"n": "dropped"}', class => 'batch');
SELECT state_set('fifth', '{}', class => 'batch');
SELECT seen('doc', 'batch'), seen('fifth', 'batch');
SELECT state_batch_rollback();
SELECT seen('doc', 'batch'), seen('fifth', 'batch');
-- It closes the batch.
SELECT state_batch_begin();
COMMIT;
SELECT stored('doc', 'batch'), stored('fifth', 'batch');
-- Without a begin it drops everything that is staged.
BEGIN;
SELECT state_update('doc', '{"n": "dropped"}', class => 'batch');
SELECT state_batch_rollback();
SELECT seen('doc', 'batch');
COMMIT;
SELECT stored('doc', 'batch');
SELECT state_batch_rollback();
-- What was flushed before is not staged any more: it stays.
BEGIN;
SELECT state_update('doc', '{"n": 6}', class => 'batch');
SELECT key, version, action FROM state_batch_commit();
SELECT state_update('doc', '{"n": 7}', class => 'batch');
SELECT state_batch_rollback();
SELECT seen('doc', 'batch');
COMMIT;
SELECT stored('doc', 'batch');

-- In an explicit batch a state that was only read is listed too, not dirty.
BEGIN;
SELECT state_batch_begin();
SELECT state_get('doc', class => 'batch') -> 'n';
SELECT state_get('absent', class => 'batch');
SELECT state_update('other', '{"seen": 1}', class => 'batch');
SELECT class, key, dirty, base_version FROM state_batch_status() ORDER BY key;
SELECT key, version, action FROM state_batch_commit();
COMMIT;

-- An update or a set that changes nothing is unchanged; deleting what is not there stages nothing.
BEGIN;
SELECT state_update('doc', '{}', class => 'batch');
SELECT state_set('other', '{"n": "other", "seen": 1}', class => 'batch');
SELECT state_delete('absent', class => 'batch');
SELECT key, version, action, bytes FROM state_batch_commit() ORDER BY key;
COMMIT;

-- Changes to several classes are one flush.
BEGIN;
SELECT state_set('doc', '{"class": "swarm"}', class => 'swarm');
SELECT state_set('doc', '{"class": "config"}', class => 'config');
SELECT state_update('doc', '{"n": 8}', class => 'batch');
SELECT class, key, action FROM state_batch_commit() ORDER BY class;
COMMIT;

-- An error in the transaction loses the batch with it, and the session is as good as before.
BEGIN;
SELECT state_batch_begin();
SELECT state_update('doc', '{"n": "lost"}', class => 'batch');
SELECT 1 / 0;
COMMIT;
SELECT * FROM state_batch_status();
SELECT seen('doc', 'batch') = stored('doc', 'batch'), stored('doc', 'batch');
-- So does an error of the flush itself, in the COMMIT.
BEGIN;
SELECT state_update('doc', '{"n": "lost"}', class => 'batch');
ALTER TABLE state_head ADD CONSTRAINT never CHECK (class <> 'batch') NOT VALID;
\set VERBOSITY terse
COMMIT;
\set VERBOSITY default
\echo :SQLSTATE
SELECT * FROM state_batch_status();
SELECT seen('doc', 'batch') = stored('doc', 'batch'), stored('doc', 'batch');
SELECT count(*) FROM pg_constraint WHERE conname = 'never';

-- The same in a procedure that commits on its way: each COMMIT flushes its part.
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..3 LOOP
		PERFORM state_append('doc', '{log}', to_jsonb(i), class => 'batch');
		IF i = 2 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END
$$;
CALL steps();
SELECT state_get_path('doc', '{log}', class => 'batch');
