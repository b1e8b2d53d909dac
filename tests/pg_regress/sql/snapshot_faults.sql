-- Faults that were seen in applications which kept snapshots of their own, one block each, named by what was seen. None
-- of them is here.
\a \t \pset null (null)
SELECT state_class_define('faults', keep => 0);

-- ---------------------------------------------------------------------------------------------------
-- "Critical and recovery saves are skipped too: de-duplication is checked first."
-- ---------------------------------------------------------------------------------------------------
SELECT * FROM state_save('skipped', '{"n": 1}', class => 'faults');
SELECT t, action, version FROM unnest('{manual,recovery,phase_transition,full,critical}'::text[]) t, state_save('skipped', '{"n": 1}', t, class => 'faults');
SELECT * FROM state_save('skipped', '{"n": 1}', 'critical', class => 'faults');
SELECT * FROM state_save('skipped', '{"n": 1}', 'auto', recovery_point => true, class => 'faults');
SELECT * FROM state_save('skipped', '{"n": 1}', 'auto', recovery_point => true, class => 'faults');
SELECT count(*), count(DISTINCT hash) FROM state_snapshot WHERE class = 'faults' AND key = 'skipped';

-- ---------------------------------------------------------------------------------------------------
-- "The hash is remembered before the write, so a failed save followed by a retry reports success with no row."
-- ---------------------------------------------------------------------------------------------------
-- The write fails: by a constraint, by a trigger, with the transaction.
CREATE FUNCTION disk_on_fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'disk on fire'; END $$;
CREATE TRIGGER disk_on_fire BEFORE INSERT ON state_snapshot FOR EACH ROW WHEN (NEW.key = 'retried') EXECUTE FUNCTION disk_on_fire();
SELECT outcome($$SELECT state_save('retried', '{"n": 1}', class => 'faults')$$);
SELECT state_save('retried', '{"n": 1}', class => 'faults');
DROP TRIGGER disk_on_fire ON state_snapshot;
SELECT * FROM state_save('retried', '{"n": 1}', class => 'faults');
SELECT stored('retried', 'faults');
BEGIN;
SELECT * FROM state_save('retried', '{"n": 2}', class => 'faults');
ROLLBACK;
SELECT * FROM state_save('retried', '{"n": 2}', class => 'faults');
SELECT stored('retried', 'faults');
-- The flush of a plain change that fails at COMMIT, and then a save of the same.
CREATE CONSTRAINT TRIGGER disk_on_fire AFTER INSERT ON state_snapshot DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.key = 'retried') EXECUTE FUNCTION disk_on_fire();
BEGIN;
SELECT state_set('retried', '{"n": 3}', class => 'faults');
COMMIT;
DROP TRIGGER disk_on_fire ON state_snapshot;
SELECT * FROM state_save('retried', '{"n": 3}', class => 'faults');
SELECT stored('retried', 'faults');

-- ---------------------------------------------------------------------------------------------------
-- "A skipped save returns an id that matches no row."
-- ---------------------------------------------------------------------------------------------------
CREATE FUNCTION row_of(class text, key text, version bigint) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT s.state FROM state_kept s WHERE (s.class, s.key, s.version) = (row_of.class, row_of.key, row_of.version)
$$;
SELECT action, version, row_of('faults', 'retried', version) FROM state_save('retried', '{"n": 3}', class => 'faults');
-- In a class that keeps one row, too, and where the row was replaced, pruned around or restored.
SELECT state_class_define('faults of one');
SELECT action, version FROM state_save('doc', '{"n": 1}', class => 'faults of one');
SELECT action, version FROM state_save('doc', '{"n": 2}', class => 'faults of one');
SELECT action, version, row_of('faults of one', 'doc', version) FROM state_save('doc', '{"n": 2}', class => 'faults of one');
SELECT state_prune('faults', keep => 1) > 0;
SELECT action, version, row_of('faults', 'retried', version) FROM state_save('retried', '{"n": 3}', class => 'faults');
SELECT action, version FROM state_save('retried', '{"n": 4}', 'auto', class => 'faults');
SELECT state_restore('retried', 4, class => 'faults');
SELECT action, version, row_of('faults', 'retried', version) FROM state_save('retried', '{"n": 4}', class => 'faults');
SELECT action, version, row_of('faults', 'retried', version) FROM state_save('retried', '{"n": 4}', class => 'faults');
-- Where the row is gone nothing is skipped.
DELETE FROM state_snapshot WHERE class = 'faults' AND key = 'retried';
SELECT action, version, row_of('faults', 'retried', version) FROM state_save('retried', '{"n": 4}', class => 'faults');

-- ---------------------------------------------------------------------------------------------------
-- "The phase and the checkpoint type are outside the hash, so a phase change with the same state is dropped."
-- ---------------------------------------------------------------------------------------------------
SELECT p, t, action, version FROM (VALUES ('triage', 'auto'), ('triage', 'auto'), ('reporting', 'auto'), ('reporting', 'intermediate'),
		('reporting', 'intermediate'), (NULL, 'intermediate'), ('triage', 'auto')) labels (p, t),
	state_save('phases', '{"n": 1}', t, p, class => 'faults');
SELECT version, checkpoint_type, agent_phase FROM state_history('phases', class => 'faults') ORDER BY version;

-- ---------------------------------------------------------------------------------------------------
-- "The memory is per process, so another process's save or a rollback leads to a needed save being skipped."
-- ---------------------------------------------------------------------------------------------------
SELECT * FROM state_save('shared', '{"by": "first"}', class => 'faults');
SELECT pg_backend_pid() AS first \gset
\c
SELECT pg_backend_pid() <> :first;
SELECT * FROM state_save('shared', '{"by": "second"}', class => 'faults');
\c
SELECT * FROM state_save('shared', '{"by": "first"}', class => 'faults');
-- What another process does between two saves of this one.
\setenv PGDATABASE :DBNAME
SELECT * FROM state_save('shared', '{"n": 1}', class => 'faults');
\! psql -X -q -A -t -c "SELECT * FROM state_save('shared', '{\"n\": 2}', class => 'faults')"
SELECT * FROM state_save('shared', '{"n": 1}', class => 'faults');
\! psql -X -q -A -t -c "SELECT state_delete('shared', class => 'faults')"
SELECT * FROM state_save('shared', '{"n": 1}', class => 'faults');
SELECT stored('shared', 'faults'), seen('shared', 'faults');
-- A rollback, of all or of a part.
BEGIN;
SELECT * FROM state_save('shared', '{"n": 2}', class => 'faults');
ROLLBACK;
SELECT * FROM state_save('shared', '{"n": 2}', class => 'faults');
BEGIN;
SAVEPOINT s;
SELECT * FROM state_save('shared', '{"n": 3}', class => 'faults');
ROLLBACK TO s;
SELECT * FROM state_save('shared', '{"n": 3}', class => 'faults');
COMMIT;
SELECT stored('shared', 'faults'), seen('shared', 'faults');

-- ---------------------------------------------------------------------------------------------------
-- "Eviction is first-in-first-out": a save is found repeated or not whatever has been forgotten in memory.
-- ---------------------------------------------------------------------------------------------------
SELECT * FROM state_save('evicted', '{"n": 1}', class => 'faults');
SELECT state_cache_clear() >= 0;
SELECT * FROM state_save('evicted', '{"n": 1}', class => 'faults');
SELECT count(*) FROM generate_series(1, 500) i, state_save('crowd ' || i, to_jsonb(i), class => 'faults');
SELECT * FROM state_save('evicted', '{"n": 1}', class => 'faults');
SELECT action, count(*) FROM generate_series(1, 500) i, state_save('crowd ' || i, to_jsonb(i), class => 'faults') GROUP BY action;

-- ---------------------------------------------------------------------------------------------------
-- "Sequence numbers taken from the clock collide."
-- ---------------------------------------------------------------------------------------------------
-- As many as there is time for, in one instant of the clock: 1, 2, 3 ...
BEGIN;
SELECT count(*), count(DISTINCT version), min(version), max(version), count(DISTINCT now()) FROM generate_series(1, 1000) i, state_save('counted', to_jsonb(i), class => 'faults');
COMMIT;
SELECT count(*), bool_and(state_at('counted', version, class => 'faults') = to_jsonb(version)), bool_and(parent_version IS NOT DISTINCT FROM nullif(version - 1, 0)) FROM state_history('counted', class => 'faults');
-- A clock that goes back does not bring a version back, nor change which is newest.
UPDATE state_snapshot SET created_at = now() - version * interval '1 day' WHERE class = 'faults' AND key = 'counted';
SELECT * FROM state_save('counted', '"next"', class => 'faults');
SELECT version FROM state_history('counted', class => 'faults') LIMIT 2;
SELECT action, version, from_version FROM state_recover('counted', 'resume', class => 'faults');

-- ---------------------------------------------------------------------------------------------------
-- "Resume and rollback load but reinstate nothing."
-- ---------------------------------------------------------------------------------------------------
SELECT * FROM state_save('run', '{"step": 1}', 'manual', 'initialization', class => 'faults');
SELECT * FROM state_save('run', '{"step": 2}', 'manual', 'triage', true, class => 'faults');
SELECT * FROM state_save('run', '{"step": 3}', 'auto', 'reporting', class => 'faults');
SELECT * FROM state_recover('run', 'rollback', class => 'faults');
SELECT seen('run', 'faults'), stored('run', 'faults');
SELECT * FROM state_recover('run', 'restart', class => 'faults');
SELECT seen('run', 'faults'), stored('run', 'faults');
SELECT state_delete('run', class => 'faults');
SELECT * FROM state_recover('run', 'resume', class => 'faults');
SELECT seen('run', 'faults'), stored('run', 'faults');
BEGIN;
UPDATE state_head SET expires_at = now() - interval '1 second' WHERE class = 'faults' AND key = 'run';
SELECT seen('run', 'faults');
SELECT * FROM state_recover('run', 'resume', class => 'faults');
COMMIT;
SELECT seen('run', 'faults'), stored('run', 'faults');
-- And what goes on from there builds upon it.
SELECT state_update('run', '{"again": true}', class => 'faults');
SELECT seen('run', 'faults'), stored('run', 'faults');

-- ---------------------------------------------------------------------------------------------------
-- "A hash-only skip made a damaged stored snapshot permanent."
-- ---------------------------------------------------------------------------------------------------
-- Head and hash say what the new document says; the stored one is another. L1 knows of it or not.
SELECT * FROM state_save('permanent', '{"n": 1}', class => 'faults');
SELECT state_get('permanent', class => 'faults');
UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'faults' AND key = 'permanent';
SELECT * FROM state_save('permanent', '{"n": 1}', class => 'faults');
SELECT stored('permanent', 'faults');
CALL damage($$UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'faults' AND key = 'permanent' AND version = 2$$);
SELECT * FROM state_save('permanent', '{"n": 1}', class => 'faults');
SELECT stored('permanent', 'faults');
-- A delta that is damaged, or whose base is: the chain is what counts.
CALL keep_steps('permanent delta', 'faults', 5);
SELECT state_get('permanent delta', class => 'faults') = document(5);
CALL damage_byte('permanent delta', 'faults', 5, 1);
SELECT * FROM state_save('permanent delta', document(5), class => 'faults');
SELECT state_cache_clear('faults') >= 0;
SELECT stored('permanent delta', 'faults') = 'v6 ' || document(5)::text;
CALL keep_steps('permanent base', 'faults', 5);
CALL damage($$DELETE FROM state_snapshot WHERE class = 'faults' AND key = 'permanent base' AND version = 2$$);
SELECT * FROM state_save('permanent base', document(5), class => 'faults');
SELECT state_cache_clear('faults') >= 0;
SELECT stored('permanent base', 'faults') = 'v6 ' || document(5)::text;
-- The same through state_set(), where the damage is known.
UPDATE state_snapshot SET delta = NULL, state = '0' WHERE class = 'faults' AND key = 'permanent base' AND version = 6;
SELECT state_set('permanent base', document(5), class => 'faults');
SELECT stored('permanent base', 'faults') = 'v7 ' || document(5)::text;
-- What was damaged stays visible as such, beside what healed it.
SELECT key, version, fault FROM state_verify('faults');
