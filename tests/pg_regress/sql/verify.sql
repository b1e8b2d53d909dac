-- Integrity: state_verify() reads every stored version and says which ones are not what they should be; with repair it
-- puts them aside and goes back to the newest intact version. What was found and done stays in state_recovery_log.
\a \t \pset null (null)
-- What this session hears is shown without what differs from run to run.
\set heard '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
SELECT state_class_define('verify', keep => 0, channel => 'verify_test');
CREATE VIEW logged AS SELECT class, key, version, error_type, severity, fault, strategy, outcome, restored_version
	FROM state_recovery_log WHERE class IN ('verify', 'verify more') ORDER BY found_at;
-- Nothing to be said about what is intact: whole documents, deltas, tombstones.
CALL keep_steps('steps', 'verify', 8);
SELECT version FROM state_save('small', '{"n": 1}', class => 'verify');
SELECT version FROM state_save('small', '{"n": 2}', class => 'verify');
SELECT version FROM state_save('deleted', '{"n": 1}', class => 'verify');
SELECT state_delete('deleted', class => 'verify');
SELECT * FROM state_verify('verify');
SELECT * FROM state_verify('verify', repair => true);
SELECT * FROM logged;

-- Each kind of damage has its words. A damaged version takes along what builds upon it.
SELECT version FROM generate_series(1, 3) i, state_save('a whole document', jsonb_build_object('n', i), class => 'verify');
UPDATE state_snapshot SET state = '{"n": 0}' WHERE class = 'verify' AND key = 'a whole document' AND version = 2;
SELECT version FROM state_save('b hash of the row', '{"n": 1}', class => 'verify');
UPDATE state_snapshot SET hash = state_hash('0') WHERE class = 'verify' AND key = 'b hash of the row';
SELECT version FROM state_save('c hash of the head', '{"n": 1}', 'manual', 'triage', true, class => 'verify');
UPDATE state_head SET hash = state_hash('0') WHERE class = 'verify' AND key = 'c hash of the head';
SELECT version FROM state_save('d missing', '{"n": 1}', class => 'verify');
DELETE FROM state_snapshot WHERE class = 'verify' AND key = 'd missing';
CALL keep_steps('e delta', 'verify', 5);
CALL damage_byte('e delta', 'verify', 3, 1);
CALL keep_steps('f format', 'verify', 2);
UPDATE state_snapshot SET delta = set_byte(delta, 0, 7) WHERE class = 'verify' AND key = 'f format' AND version = 2;
CALL keep_steps('g base', 'verify', 4);
CALL damage($$DELETE FROM state_snapshot WHERE class = 'verify' AND key = 'g base' AND version = 2$$);
CALL keep_steps('h cut off', 'verify', 2);
UPDATE state_snapshot SET delta = substr(delta, 1, length(delta) - 7) WHERE class = 'verify' AND key = 'h cut off' AND version = 2;
CALL keep_steps('i empty', 'verify', 2);
UPDATE state_snapshot SET delta = '' WHERE class = 'verify' AND key = 'i empty' AND version = 2;
CALL keep_steps('j another base', 'verify', 3);
CALL damage($$UPDATE state_snapshot SET state = document(7), delta = NULL, hash = state_hash(document(7)) WHERE class = 'verify' AND key = 'j another base' AND version = 1$$);
-- The delta of another version, whole in itself.
CALL keep_steps('k changed places', 'verify', 4);
UPDATE state_snapshot s SET delta = (SELECT delta FROM state_snapshot o WHERE o.class = s.class AND o.key = s.key AND o.version = 3)
	WHERE class = 'verify' AND key = 'k changed places' AND version = 4;
-- A hash that is wrong beneath versions that are right.
CALL keep_steps('l hash in a chain', 'verify', 4);
CALL damage($$UPDATE state_snapshot SET hash = state_hash('0') WHERE class = 'verify' AND key = 'l hash in a chain' AND version = 2$$);
SELECT * FROM state_verify('verify');
-- The same is what a reader is told: an error with key and version, not a wrong document.
SELECT state_cache_clear('verify') >= 0;
SELECT key, outcome(format('SELECT state_at(%L, %s, %L)', key, version, 'verify')) FROM state_verify('verify');
SELECT complaint($$SELECT state_at('e delta', 4, class => 'verify')$$);
SELECT complaint($$SELECT state_diff('e delta', 1, 4, class => 'verify')$$);
SELECT complaint($$SELECT state_diff('e delta', 4, 1, class => 'verify')$$);
SELECT complaint($$SELECT state_get('e delta', class => 'verify')$$);
SELECT complaint($$SELECT state_append('e delta', '{log}', '1', class => 'verify')$$);
SELECT complaint($$SELECT * FROM state_current WHERE class = 'verify' AND key = 'e delta'$$);
-- A listing needs no document.
SELECT version, encoding FROM state_history('e delta', class => 'verify');
SELECT version, encoding, bytes FROM state_history('f format', class => 'verify') LIMIT 1;
-- Looking changes nothing.
SELECT * FROM logged;

-- on_corruption = recover: a read answers with the newest intact version below, and warns.
SET state_cache.on_corruption = recover;
SELECT state_get('e delta', class => 'verify') = document(2);
SELECT state_get_text('a whole document', class => 'verify');
SELECT state_get_path('e delta', '{steps}', class => 'verify');
SELECT state_get_section('e delta', 'steps', class => 'verify');
SELECT key, version, state FROM state_get_many('{small,"e delta"}', class => 'verify') WHERE key = 'small';
SELECT key, version, state->'steps' FROM state_get_many('{small,"e delta"}', class => 'verify') WHERE key = 'e delta';
SELECT version, state->'steps' FROM state_get_if_newer('e delta', 0, class => 'verify');
SELECT version, state->'steps' FROM state_get_if_newer('e delta', 2, class => 'verify');
-- Without an intact version it is the error.
SELECT outcome($$SELECT state_get('b hash of the row', class => 'verify')$$);
-- A change never builds upon what is not current.
SELECT outcome($$SELECT state_append('e delta', '{log}', '1', class => 'verify')$$);
SELECT outcome($$SELECT state_update('e delta', '{"a": 1}', class => 'verify')$$);
-- A version that is named is that version.
SELECT outcome($$SELECT state_at('e delta', 5, class => 'verify')$$);
-- Nothing was changed by it, nor left in L1.
RESET state_cache.on_corruption;
SELECT outcome($$SELECT state_get('e delta', class => 'verify')$$);
SELECT outcome($$SET state_cache.on_corruption = ignore$$);

-- A state that is deleted or has expired is absent, however damaged it is.
BEGIN;
SET LOCAL state_cache.on_corruption = recover;
UPDATE state_head SET expires_at = now() - interval '1 second' WHERE class = 'verify' AND key = 'e delta';
SELECT seen('e delta', 'verify');
ROLLBACK;

-- repair.
SELECT count(*) FROM state_verify('verify', repair => true);
SELECT * FROM logged;
-- What could be mended is: each state has its newest intact version, as a new one whose parent that is.
SELECT key, left(seen(key, 'verify'), 40), seen(key, 'verify') = stored(key, 'verify') FROM state_head WHERE class = 'verify' AND key NOT LIKE 'b %' AND key NOT LIKE 'd %' ORDER BY key;
SELECT h.key, h.version, s.parent_version, s.checkpoint_type FROM state_head h JOIN state_snapshot s USING (class, key, version)
	WHERE h.class = 'verify' AND s.checkpoint_type = 'recovery' ORDER BY h.key;
SELECT state_get('e delta', class => 'verify') = document(2), state_get('g base', class => 'verify') = document(1), state_get('k changed places', class => 'verify') = document(3);
-- What is intact stays readable without what it was built upon.
SELECT kept_steps('l hash in a chain', 'verify');
-- The damaged rows are kept aside as they were found, each with its entry of the log.
SELECT d.key, d.version, l.version = d.version, l.outcome FROM state_damaged d JOIN state_recovery_log l ON l.id = d.log_id WHERE d.class = 'verify' ORDER BY d.key, d.version;
SELECT state FROM state_damaged WHERE class = 'verify' AND key = 'a whole document';
-- A row that is intact stays, whatever the head says of it, and with it its label.
SELECT version, parent_version, checkpoint_type, agent_phase, recovery_point FROM state_history('c hash of the head', class => 'verify');
-- A second look finds only what has nothing intact to go back to.
SELECT * FROM state_verify('verify');
SELECT * FROM state_verify('verify', repair => true);
SELECT state_set('b hash of the row', '{"n": 2}', class => 'verify');
SELECT state_set('d missing', '{"n": 2}', class => 'verify');
-- With an intact version above it what was left is put aside.
SELECT * FROM state_verify('verify', repair => true);
SELECT key, version FROM state_snapshot WHERE class = 'verify' AND key LIKE 'b %' ORDER BY version;
SELECT * FROM state_verify('verify');

-- Of a state whose current version is intact nothing changes but that the damaged ones are put aside.
SELECT version FROM generate_series(1, 3) i, state_save('old damage', jsonb_build_object('n', i), class => 'verify');
UPDATE state_snapshot SET state = '{"n": 0}' WHERE class = 'verify' AND key = 'old damage' AND version = 2;
SELECT * FROM state_verify('verify', repair => true);
SELECT seen('old damage', 'verify'), stored('old damage', 'verify');
SELECT version FROM state_history('old damage', class => 'verify');

-- A rollback brings the damage back, and the log says nothing of a repair that did not happen.
UPDATE state_snapshot SET state = '{"n": 0}' WHERE class = 'verify' AND key = 'old damage' AND version = 3;
BEGIN;
SELECT * FROM state_verify('verify', repair => true);
SELECT seen('old damage', 'verify'), stored('old damage', 'verify');
ROLLBACK;
SELECT outcome($$SELECT state_get('old damage', class => 'verify')$$);
SELECT count(*) FROM logged WHERE key = 'old damage';
-- Subscribers hear of a repair that moves the head; L1 agrees.
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN verify_test;
\o :heard
SELECT * FROM state_verify('verify', repair => true);
\o
SELECT seen('old damage', 'verify'), stored('old damage', 'verify');
UNLISTEN *;

-- Where L1 does not know of the damage, the repair goes by what the tables hold, and what it makes depends on nothing else.
CALL keep_steps('unseen', 'verify', 5);
CALL damage_byte('unseen', 'verify', 5, 5);
SELECT * FROM state_verify('verify', repair => true);
SELECT state_get('unseen', class => 'verify') = document(4);
SELECT state_cache_clear('verify') >= 0;
SELECT state_get('unseen', class => 'verify') = document(4), state_version('unseen', class => 'verify');
SELECT * FROM state_verify('verify');

-- More states than are looked at in one go, damaged first, last and in between; and all classes at once.
SELECT state_class_define('verify more', keep => 0);
SELECT count(*) FROM generate_series(1, 250) i, state_save('key ' || lpad(i::text, 3, '0'), to_jsonb(i), class => 'verify more');
UPDATE state_snapshot SET state = '0' WHERE class = 'verify more' AND key IN ('key 001', 'key 100', 'key 101', 'key 200', 'key 250');
SELECT key, version, fault FROM state_verify('verify more');
SELECT class, key FROM state_verify() WHERE class IN ('verify', 'verify more');
SELECT count(*) FROM state_verify(NULL, true) WHERE class = 'verify more';
SELECT key, severity, outcome FROM logged WHERE class = 'verify more';
-- Of a deleted state nothing is current; what is left of it is checked all the same.
SELECT count(state_delete(key, class => 'verify more')) FROM state_head WHERE class = 'verify more';
SELECT key, version FROM state_verify('verify more', repair => true);
SELECT key, severity, outcome FROM logged WHERE class = 'verify more' AND key = 'key 250';
SELECT complaint($$SELECT * FROM state_verify('no such')$$);

DELETE FROM state_damaged WHERE class = 'verify';
DELETE FROM state_recovery_log WHERE class = 'verify';
SELECT count(*) FROM logged WHERE class = 'verify';
