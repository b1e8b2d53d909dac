-- Head rows that are older than what is kept, moved back by hand or brought back by a bad disk: the next version is above
-- all that are kept, whatever makes it. state_verify() says what is wrong, and repairs one state also where another says no.
\a \t \pset null (null)
SELECT state_class_define('stale', keep => 0), state_class_define('stale one', keep => 1), state_class_define('stale three', keep => 3, compression => false);
CREATE FUNCTION versions(key text, class text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT (SELECT version || CASE WHEN deleted THEN ' deleted' ELSE '' END FROM state_head h WHERE h.class = versions.class AND h.key = versions.key)
		|| ' of ' || coalesce((SELECT string_agg(version::text, ' ' ORDER BY version) FROM state_history(versions.key, versions.class)), 'none')
$$;
-- Head rows as a bad disk leaves them, or as somebody does who has disabled the triggers.
CREATE PROCEDURE damage_head(statement text) LANGUAGE plpgsql AS $$
BEGIN
	ALTER TABLE state_head DISABLE TRIGGER state_cache_changing, DISABLE TRIGGER state_cache_changed;
	EXECUTE statement;
	ALTER TABLE state_head ENABLE ALWAYS TRIGGER state_cache_changing, ENABLE ALWAYS TRIGGER state_cache_changed;
	PERFORM state_cache_clear();
END
$$;
CREATE PROCEDURE make(key text, class text, versions integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..versions LOOP
		PERFORM state_set(key, jsonb_build_object('n', i), class => class);
		COMMIT;
	END LOOP;
END
$$;

-- One state by itself, in classes that keep all, one, three.
CALL make('k', 'stale', 5);
CALL make('k', 'stale one', 5);
CALL make('k', 'stale three', 5);
UPDATE state_head SET version = 3, hash = state_hash('{"n": 3}') WHERE class = 'stale' AND key = 'k';
SELECT seen('k', 'stale'), stored('k', 'stale'), versions('k', 'stale');
SELECT state_set('k', '{"n": "six"}', expected_version => 3, class => 'stale');
SELECT seen('k', 'stale'), stored('k', 'stale'), versions('k', 'stale');
SELECT version, parent_version FROM state_history('k', class => 'stale') LIMIT 1;
UPDATE state_head SET version = 3 WHERE class = 'stale one' AND key = 'k';
SELECT state_set('k', '{"n": "six"}', class => 'stale one');
SELECT seen('k', 'stale one'), stored('k', 'stale one'), versions('k', 'stale one');
SELECT state_set('k', '{"n": "seven"}', class => 'stale one');
SELECT seen('k', 'stale one'), versions('k', 'stale one');
UPDATE state_head SET version = 3, hash = state_hash('{"n": 3}') WHERE class = 'stale three' AND key = 'k';
SELECT state_update('k', '{"more": true}', class => 'stale three');
SELECT seen('k', 'stale three'), versions('k', 'stale three');
SELECT * FROM state_verify('stale') UNION ALL SELECT * FROM state_verify('stale one') UNION ALL SELECT * FROM state_verify('stale three');

-- Several by one statement; those that are right go with them as ever.
CALL make('a', 'stale', 2);
CALL make('c', 'stale', 2);
UPDATE state_head SET version = 2, hash = state_hash('{"n": 2}') WHERE class = 'stale' AND key = 'k';
BEGIN;
SELECT state_set(key, '{"n": "all"}', class => 'stale') FROM unnest('{a,c,k,new}'::text[]) key;
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT key, versions(key, 'stale') FROM unnest('{a,c,k,new}'::text[]) key;
-- Checkpoints, deletes, and what comes after a delete.
UPDATE state_head SET version = 2, hash = state_hash('{"n": 2}') WHERE class = 'stale' AND key = 'k';
SELECT * FROM state_save('k', '{"n": "save"}', 'critical', class => 'stale');
UPDATE state_head SET version = 2, hash = state_hash('{"n": 2}') WHERE class = 'stale' AND key = 'k';
SELECT state_delete('k', class => 'stale');
SELECT versions('k', 'stale');
SELECT state_set('k', '{"n": "anew"}', class => 'stale');
SELECT versions('k', 'stale');
UPDATE state_head SET version = 2, hash = state_hash('{"n": 2}') WHERE class = 'stale' AND key IN ('k', 'a');
SELECT state_delete(key, class => 'stale') FROM unnest('{a,k}'::text[]) key;
SELECT versions('a', 'stale'), versions('k', 'stale');
SELECT state_restore('k', 5, class => 'stale');
UPDATE state_head SET version = 2, hash = state_hash('{"n": 2}') WHERE class = 'stale' AND key = 'k';
SELECT * FROM state_recover('k', 'resume', class => 'stale');
SELECT * FROM state_verify('stale');
-- A snapshot put above the head by hand counts as well.
INSERT INTO state_snapshot (class, key, version, state, hash) VALUES ('stale', 'c', 9, '9', state_hash('9'));
SELECT key, version, fault FROM state_verify('stale');
SELECT state_set('c', '"next"', class => 'stale');
SELECT versions('c', 'stale');
SELECT * FROM state_verify('stale');
-- A role under row-level security that does not see the newest version goes on above it all the same.
CREATE ROLE regress_state_stale;
GRANT SELECT, INSERT, UPDATE ON state_head TO regress_state_stale;
GRANT SELECT, INSERT, UPDATE, DELETE ON state_snapshot TO regress_state_stale;
CREATE POLICY old ON state_snapshot FOR SELECT TO regress_state_stale USING (version < 10 OR state = '"mine"');
CREATE POLICY new ON state_snapshot FOR INSERT TO regress_state_stale WITH CHECK (true);
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
UPDATE state_head SET version = 9, hash = state_hash('9') WHERE class = 'stale' AND key = 'c';
SET ROLE regress_state_stale;
SELECT state_set('c', '"mine"', class => 'stale');
RESET ROLE;
SELECT versions('c', 'stale');
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP POLICY old ON state_snapshot;
DROP POLICY new ON state_snapshot;
DROP OWNED BY regress_state_stale;
DROP ROLE regress_state_stale;

-- Versions that none can be.
CALL make('below', 'stale', 3);
CALL make('none', 'stale', 3);
CALL make('buried', 'stale', 3);
SELECT state_delete('buried', class => 'stale');
CALL damage_head($$UPDATE state_head SET version = -2 WHERE class = 'stale' AND key = 'below'$$);
CALL damage_head($$UPDATE state_head SET version = 0 WHERE class = 'stale' AND key IN ('none', 'buried')$$);
SELECT key, version, fault FROM state_verify('stale');
SELECT outcome($$SELECT state_get('below', class => 'stale')$$);
SELECT outcome($$SELECT state_get('none', class => 'stale')$$);
SELECT outcome($$SELECT state_append('none', '{}', '1', class => 'stale')$$);
SELECT seen('buried', 'stale');
-- They can be written anew, alone and together, and deleted.
BEGIN;
SELECT state_set(key, '{"n": "anew"}', class => 'stale') FROM unnest('{below,none,buried}'::text[]) key;
COMMIT;
SELECT key, seen(key, 'stale'), versions(key, 'stale') FROM unnest('{below,none,buried}'::text[]) key;
CALL damage_head($$UPDATE state_head SET version = 0 WHERE class = 'stale' AND key IN ('below', 'none', 'buried')$$);
SELECT state_set('none', '{"n": "again"}', class => 'stale');
SELECT state_delete('below', class => 'stale');
SELECT key, seen(key, 'stale'), versions(key, 'stale') FROM unnest('{below,none}'::text[]) key;
CALL damage_head($$UPDATE state_head SET version = -7 WHERE class = 'stale' AND key = 'none'$$);
SELECT * FROM state_verify('stale', repair => true);
SELECT key, seen(key, 'stale'), versions(key, 'stale') FROM unnest('{below,buried,none}'::text[]) key;
SELECT key, version, fault, outcome, restored_version FROM state_recovery_log WHERE class = 'stale' ORDER BY key, found_at;
SELECT * FROM state_verify('stale');
-- A snapshot of such a version is put aside.
CALL damage($$INSERT INTO state_snapshot (class, key, version, state, hash) VALUES ('stale', 'none', 0, '0', state_hash('0'))$$);
SELECT key, version, fault FROM state_verify('stale', repair => true);
SELECT key, version, state FROM state_damaged WHERE class = 'stale';
SELECT versions('none', 'stale');

-- Repair goes on where one state cannot be repaired.
SELECT state_class_define('stubborn', keep => 0);
CALL make('a', 'stubborn', 3);
CALL make('b', 'stubborn', 3);
CALL make('c', 'stubborn', 3);
UPDATE state_head SET version = 2 WHERE class = 'stubborn';
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not b' USING ERRCODE = '23505'; END $$;
CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON state_snapshot FOR EACH ROW WHEN (NEW.class = 'stubborn' AND NEW.key = 'b') EXECUTE FUNCTION refuse();
SELECT * FROM state_verify('stubborn', repair => true);
SELECT key, seen(key, 'stubborn'), versions(key, 'stubborn') FROM unnest('{a,c}'::text[]) key;
SELECT versions('b', 'stubborn');
SELECT key, version, severity, fault, outcome, restored_version FROM state_recovery_log WHERE class = 'stubborn' ORDER BY key, found_at;
-- What cannot be repaired is logged once.
SELECT * FROM state_verify('stubborn', repair => true);
SELECT count(*) FROM state_recovery_log WHERE class = 'stubborn' AND key = 'b';
DROP TRIGGER refuse ON state_snapshot;
SELECT * FROM state_verify('stubborn', repair => true);
SELECT versions('b', 'stubborn');
SELECT * FROM state_verify('stubborn');
-- But a cancelled statement ends.
UPDATE state_head SET version = 2 WHERE class = 'stubborn';
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'enough' USING ERRCODE = '57014'; END $$;
CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON state_snapshot FOR EACH ROW WHEN (NEW.class = 'stubborn' AND NEW.key = 'b') EXECUTE FUNCTION refuse();
SELECT outcome($$SELECT * FROM state_verify('stubborn', repair => true)$$);
SELECT key, versions(key, 'stubborn') FROM unnest('{a,b,c}'::text[]) key;
DROP TRIGGER refuse ON state_snapshot;
DROP FUNCTION refuse();
DROP FUNCTION versions(text, text);
DROP PROCEDURE damage_head(text);
DROP PROCEDURE make(text, text, integer);
