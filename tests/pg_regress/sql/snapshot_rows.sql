-- Snapshots are rows: they can be copied, moved and changed by hand, and what they hold is checked when it is read.
\a \t \pset null (null)
SELECT state_class_define('rows', keep => 0);
CALL keep_steps('steps', 'rows', 6);
SELECT version FROM state_save('labelled', '{"n": 1}', 'critical', 'triage', true, '{"who": "me"}', class => 'rows');

-- Copied out and in again.
CREATE TABLE copied_head AS SELECT * FROM state_head WHERE class = 'rows';
CREATE TABLE copied_snapshot AS SELECT * FROM state_snapshot WHERE class = 'rows';
DELETE FROM state_head WHERE class = 'rows';
DELETE FROM state_snapshot WHERE class = 'rows';
SELECT seen('steps', 'rows'), count(*) FROM state_history('steps', class => 'rows');
INSERT INTO state_snapshot SELECT * FROM copied_snapshot;
INSERT INTO state_head SELECT * FROM copied_head;
SELECT kept_steps('steps', 'rows'), state_get('steps', class => 'rows') = document(6);
SELECT checkpoint_type, agent_phase, recovery_point, execution_context FROM state_history('labelled', class => 'rows');
-- And the history goes on, as deltas.
SELECT version FROM state_save('steps', document(7), class => 'rows');
SELECT state_cache_clear('rows') >= 0;
SELECT kept_steps('steps', 'rows');
-- By COPY, through a file: the text forms of bytea and jsonb come back as they were.
\set copied `mktemp`
COPY state_snapshot TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE (key)) \g :copied
TRUNCATE copied_snapshot;
\set command '\\copy copied_snapshot FROM ' :'copied' ' (FORMAT csv, HEADER)'
:command
DELETE FROM state_snapshot WHERE class = 'rows';
SELECT outcome($$SELECT state_get('steps', class => 'rows')$$);
INSERT INTO state_snapshot SELECT * FROM copied_snapshot WHERE class = 'rows';
\set command '\\! rm ' :copied
:command
SELECT state_cache_clear('rows') >= 0;
SELECT kept_steps('steps', 'rows'), stored('steps', 'rows') = seen('steps', 'rows');
SELECT * FROM state_verify('rows');
DROP TABLE copied_head, copied_snapshot;

-- A history that moves to another key with both its tables: a delta names its base by the distance, not by the key.
BEGIN;
UPDATE state_snapshot SET key = 'moved' WHERE class = 'rows' AND key = 'steps';
UPDATE state_head SET key = 'moved' WHERE class = 'rows' AND key = 'steps';
COMMIT;
SELECT seen('steps', 'rows'), kept_steps('moved', 'rows');
-- All versions moved up by hand.
BEGIN;
UPDATE state_snapshot SET version = version + 100 WHERE class = 'rows' AND key = 'moved';
UPDATE state_head SET version = version + 100 WHERE class = 'rows' AND key = 'moved';
COMMIT;
SELECT version, encoding, state_at('moved', version, class => 'rows') = document(version::integer - 100) FROM state_history('moved', class => 'rows');
SELECT version FROM state_save('moved', document(8), class => 'rows');
SELECT version, encoding, state_at('moved', version, class => 'rows') = document(8) FROM state_history('moved', class => 'rows') LIMIT 1;
-- One version moved away from its base: damage, with its name.
UPDATE state_snapshot SET version = 120 WHERE class = 'rows' AND key = 'moved' AND version = 108;
UPDATE state_head SET version = 120 WHERE class = 'rows' AND key = 'moved';
SELECT outcome($$SELECT state_get('moved', class => 'rows')$$);
SELECT * FROM state_recover('moved', 'resume', class => 'rows');
SELECT state_get('moved', class => 'rows') = document(7);

-- Snapshots written by hand, whole, become part of the history.
INSERT INTO state_snapshot (class, key, version, state, hash, recovery_point) VALUES ('rows', 'by hand', 1, '{"n": 1}', state_hash('{"n": 1}'), true);
INSERT INTO state_snapshot (class, key, version, state, hash) VALUES ('rows', 'by hand', 2, '{"n": 2}', state_hash('{"n": 2}'));
SELECT version, parent_version, checkpoint_type, recovery_point, encoding, state_at('by hand', version, class => 'rows') FROM state_history('by hand', class => 'rows');
-- Nothing is current yet. Recovery makes it so.
SELECT seen('by hand', 'rows');
SELECT * FROM state_recover('by hand', class => 'rows');
SELECT seen('by hand', 'rows'), stored('by hand', 'rows');
SELECT version, parent_version FROM state_history('by hand', class => 'rows');
-- A snapshot above the head is kept and not current. The next version comes after it.
INSERT INTO state_snapshot (class, key, version, state, hash) VALUES ('rows', 'by hand', 4, '{"n": "above"}', state_hash('{"n": "above"}'));
SELECT seen('by hand', 'rows'), state_at('by hand', 4, class => 'rows');
SELECT * FROM state_save('by hand', '{"n": 5}', class => 'rows');

-- The rules of the tables, 23514 for who breaks them.
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash) VALUES ('rows', 'x', 1, state_hash('1'))$$);
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash, state) VALUES ('rows', 'x', 1, 'short', '1')$$);
SELECT outcome($$UPDATE state_snapshot SET state = NULL WHERE class = 'rows' AND key = 'by hand'$$);
SELECT outcome($$UPDATE state_snapshot SET hash = '' WHERE class = 'rows' AND key = 'by hand'$$);
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash, state) VALUES ('rows', '', 1, state_hash('1'), '1')$$);
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash, state) VALUES ('rows', 'x', 0, state_hash('1'), '1')$$);
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash, state) VALUES ('rows', 'x', 9223372036854775807, state_hash('1'), '1')$$);
SELECT outcome($$UPDATE state_snapshot SET key = repeat('x', 1001) WHERE class = 'rows' AND key = 'by hand'$$);
SELECT outcome($$UPDATE state_class SET keep_for = '-1 day' WHERE class = 'rows'$$);
-- Where both are given the whole document counts.
SELECT outcome($$UPDATE state_snapshot SET delta = '\x51' WHERE class = 'rows' AND key = 'by hand' AND version = 1$$);
SELECT state_at('by hand', 1, class => 'rows'), encoding FROM state_history('by hand', class => 'rows') WHERE version = 1;
-- A delta that says it is one, and nothing more.
SELECT outcome($$INSERT INTO state_snapshot (class, key, version, hash, delta) VALUES ('rows', 'rubbish', 1, state_hash('1'), '\x52')$$);
SELECT version, encoding FROM state_history('rubbish', class => 'rows');
SELECT outcome($$SELECT state_at('rubbish', 1, class => 'rows')$$);
DELETE FROM state_snapshot WHERE class = 'rows' AND key = 'rubbish';

-- A snapshot that others build upon cannot be deleted or changed: 23503. All that build upon it may go with it.
CALL keep_steps('cut', 'rows', 4);
SELECT complaint($$DELETE FROM state_snapshot WHERE class = 'rows' AND key = 'cut' AND version = 2$$);
SELECT outcome($$DELETE FROM state_snapshot WHERE class = 'rows' AND key = 'cut' AND version < 4$$);
SELECT outcome($$UPDATE state_snapshot SET state = '1', delta = NULL, hash = state_hash('1') WHERE class = 'rows' AND key = 'cut' AND version = 2$$);
SELECT outcome($$UPDATE state_snapshot SET version = 9 WHERE class = 'rows' AND key = 'cut' AND version = 3$$);
SELECT kept_steps('cut', 'rows');
-- What it says of itself can be changed; a recovery point becomes one that depends on nothing.
UPDATE state_snapshot SET agent_phase = 'triage', recovery_point = true WHERE class = 'rows' AND key = 'cut' AND version = 3;
SELECT kept_steps('cut', 'rows');
DELETE FROM state_snapshot WHERE class = 'rows' AND key = 'cut' AND version = 2;
DELETE FROM state_snapshot WHERE class = 'rows' AND key = 'cut' AND version = 1;
SELECT kept_steps('cut', 'rows');
-- TRUNCATE empties both.
BEGIN;
TRUNCATE state_snapshot;
SELECT outcome($$SELECT state_get('cut', class => 'rows')$$), count(*) FROM state_history('cut', class => 'rows');
ROLLBACK;
SELECT kept_steps('cut', 'rows');
-- A trigger of the user's sees each snapshot that is written.
CREATE FUNCTION heard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% % version %: %', TG_OP, NEW.key, NEW.version, CASE WHEN NEW.delta IS NULL THEN 'whole' ELSE 'packed' END;
	RETURN NULL;
END
$$;
CREATE TRIGGER heard AFTER INSERT OR UPDATE ON state_snapshot FOR EACH ROW EXECUTE FUNCTION heard();
SELECT version FROM state_save('cut', document(5), class => 'rows');
SELECT version FROM state_save('cut', document(5), class => 'rows');
SELECT state_restore('cut', 3, class => 'rows');
DROP TRIGGER heard ON state_snapshot;
SELECT * FROM state_verify('rows');
