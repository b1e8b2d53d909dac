-- What a batch does with states that moved since it read or staged them. Other sessions that move a
-- state are in the isolation tests; here the transaction itself does it, by hand.
\a \t \pset null (null)
SELECT state_class_define('on_conflict');
SELECT state_set('doc', '{"n": 0, "log": []}', class => 'on_conflict');
-- moves the state the way another session would
CREATE PROCEDURE move_by_hand(what jsonb) LANGUAGE sql AS $$
	UPDATE state_head SET state = what, hash = state_hash(what), version = version + 1
		WHERE class = 'on_conflict' AND key = 'doc';
$$;

-- error, the default: 40001 when a state that was changed in the batch has moved …
BEGIN;
SELECT state_batch_begin();
SELECT state_update('doc', '{"n": 1}', class => 'on_conflict');
CALL move_by_hand('{"n": 10, "log": ["moved"]}');
SELECT key, version, action FROM state_batch_commit();
\echo :SQLSTATE
ROLLBACK;
SELECT stored('doc', 'on_conflict');
-- … or only read.
BEGIN;
SELECT state_batch_begin('error');
SELECT state_get('doc', class => 'on_conflict');
SELECT state_set('other', '{}', class => 'on_conflict');
CALL move_by_hand('{"n": 10, "log": ["moved"]}');
SELECT key, version, action FROM state_batch_commit();
\echo :SQLSTATE
ROLLBACK;
SELECT stored('doc', 'on_conflict'), stored('other', 'on_conflict');

-- reapply: operations are applied again, to the version that is current now.
BEGIN;
SELECT state_batch_begin('reapply');
SELECT state_append('doc', '{log}', '"mine"', class => 'on_conflict');
SELECT state_update('doc', '{"mine": true}', class => 'on_conflict');
CALL move_by_hand('{"n": 10, "log": ["moved"]}');
SELECT key, version, action FROM state_batch_commit();
SELECT stored('doc', 'on_conflict');
ROLLBACK;
-- A whole document after a read cannot be applied again.
BEGIN;
SELECT state_batch_begin('reapply');
SELECT state_get('doc', class => 'on_conflict');
SELECT state_set('doc', '{"n": "mine"}', class => 'on_conflict');
CALL move_by_hand('{"n": 10, "log": ["moved"]}');
SELECT key, version, action FROM state_batch_commit();
\echo :SQLSTATE
ROLLBACK;

-- overwrite: what is staged wins.
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT state_get('doc', class => 'on_conflict');
SELECT state_update('doc', '{"mine": true}', class => 'on_conflict');
CALL move_by_hand('{"n": 10, "log": ["moved"]}');
SELECT key, version, action FROM state_batch_commit();
SELECT stored('doc', 'on_conflict');
ROLLBACK;

-- No explicit batch: operations are applied again, of plain sets the last wins.
BEGIN;
SELECT state_append('doc', '{log}', '"mine"', class => 'on_conflict');
CALL move_by_hand('{"n": 10, "log": ["moved"]}');
COMMIT;
SELECT stored('doc', 'on_conflict');
BEGIN;
SELECT state_set('doc', '{"n": "mine", "log": []}', class => 'on_conflict');
CALL move_by_hand('{"n": 20, "log": ["moved"]}');
COMMIT;
SELECT stored('doc', 'on_conflict');
-- expected_version holds in every mode, also at the flush.
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT state_set('doc', '{"n": "expected"}', expected_version => state_version('doc', class => 'on_conflict'), class => 'on_conflict');
CALL move_by_hand('{"n": 30, "log": ["moved"]}');
SELECT key, version, action FROM state_batch_commit();
\echo :SQLSTATE
ROLLBACK;

-- An operation that no longer fits is an error, with the operation's own SQLSTATE.
BEGIN;
SELECT state_batch_begin('reapply');
SELECT state_append('doc', '{log}', '"mine"', class => 'on_conflict');
CALL move_by_hand('{"no": "log"}');
SELECT key, version, action FROM state_batch_commit();
\echo :SQLSTATE
ROLLBACK;

-- There is no other mode.
SELECT state_batch_begin('ignore');
\echo :SQLSTATE
SELECT state_batch_begin(NULL);
\echo :SQLSTATE
