-- In a class that keeps one version the head row holds the document, and an update of that row is all that a change
-- writes. Everything else is as in other classes, and where a class is redefined each state moves with its next write.
\a \t \pset null (null)
SELECT state_class_define('in_head');
-- What a state is, and which rows hold its versions: ^ is the head row, * a recovery point.
CREATE FUNCTION rows_of(key text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT seen(rows_of.key, 'in_head') || CASE WHEN seen(rows_of.key, 'in_head') = stored(rows_of.key, 'in_head') THEN '' ELSE ', STORED ' || stored(rows_of.key, 'in_head') END
		|| coalesce(', kept ' || string_agg(k.version || CASE WHEN k.in_head THEN '^' ELSE '' END || CASE WHEN k.recovery_point THEN '*' ELSE '' END, ' ' ORDER BY k.version), '')
		FROM state_kept k WHERE k.class = 'in_head' AND k.key = rows_of.key
$$;
CREATE VIEW writes AS SELECT relname, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del FROM pg_stat_xact_user_tables
	WHERE relname IN ('state_head', 'state_snapshot') ORDER BY relname;

-- One row is written, HOT, and no other; for one state and for many.
SELECT state_set('doc', '{"n": 1}', class => 'in_head'), state_set('other', '{"n": 1}', class => 'in_head');
BEGIN;
SELECT state_set('doc', '{"n": 2}', class => 'in_head');
SELECT key, version, action FROM state_batch_commit();
TABLE writes;
SELECT state_update('doc', '{"m": 3}', class => 'in_head'), state_set('other', '{"n": 2}', class => 'in_head');
SELECT key, version, action FROM state_batch_commit();
TABLE writes;
SELECT state_set('new', '1', class => 'in_head'), state_set('newer', '1', class => 'in_head');
SELECT key, version, action FROM state_batch_commit();
SELECT state_set('newest', '1', class => 'in_head');
SELECT key, version, action FROM state_batch_commit();
TABLE writes;
COMMIT;
SELECT key, rows_of(key) FROM unnest('{doc,other,new,newer,newest}'::text[]) key;
SELECT count(*) FROM state_snapshot WHERE class = 'in_head';
-- A new time to live, and the document stays where it is.
SELECT state_touch('doc', '1 hour', class => 'in_head');
SELECT rows_of('doc');
SELECT state_touch('doc', NULL, class => 'in_head'), state_touch('other', '1 hour', class => 'in_head');
SELECT rows_of('doc'), rows_of('other');

-- What is said of a version is there, for the functions and for plain SQL.
SELECT * FROM state_save('doc', '{"n": 4}', 'manual', 'triage', false, '{"who": "me"}', class => 'in_head');
SELECT version, parent_version, checkpoint_type, agent_phase, recovery_point, execution_context, encoding, bytes_stored > 0 AS stored, bytes
	FROM state_history('doc', class => 'in_head');
SELECT k.version, k.parent_version, k.hash = state_hash(k.state) AS right, k.checkpoint_type, k.recovery_point, k.agent_phase, k.execution_context,
	k.created_at = h.updated_at AS created, k.writer = h.writer AS writer, k.state, k.delta, k.in_head
	FROM state_kept k JOIN state_head h USING (class, key) WHERE class = 'in_head' AND key = 'doc';
SELECT action, version FROM state_save('doc', '{"n": 4}', 'intermediate', 'triage', execution_context => '{"who": "me"}', class => 'in_head');
SELECT action, version FROM state_save('doc', '{"n": 4}', 'intermediate', 'triage', execution_context => '{"who": "me"}', class => 'in_head');
SELECT action, version FROM state_save('doc', '{"n": 4}', class => 'in_head');
SELECT action, version FROM state_save('doc', '{"n": 4}', class => 'in_head');
SELECT version, parent_version, checkpoint_type, agent_phase FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT version, checkpoint_type, agent_phase, execution_context FROM state_history('doc', class => 'in_head');
SELECT state_at('doc', 6, class => 'in_head'), state_at('doc', 5, class => 'in_head'), state_diff('doc', 6, 6, class => 'in_head');
-- A recovery point stays in a row of its own, and the versions after it are in the head row.
SELECT action, version FROM state_save('doc', '{"n": 7}', 'critical', recovery_point => true, class => 'in_head');
SELECT rows_of('doc');
SELECT state_set('doc', '{"n": 8}', class => 'in_head');
SELECT state_set('doc', '{"n": 9}', class => 'in_head');
SELECT rows_of('doc'), state_at('doc', 7, class => 'in_head'), state_at('doc', 8, class => 'in_head');
SELECT state_prune('in_head'), rows_of('doc');
SELECT state_restore('doc', 7, class => 'in_head');
SELECT rows_of('doc');
SELECT version, parent_version, checkpoint_type FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT * FROM state_recover('doc', class => 'in_head');
SELECT rows_of('doc');
SELECT * FROM state_recover('doc', 'resume', class => 'in_head');
SELECT state_prune('in_head', keep => 1, recovery_points => true), rows_of('doc');
SELECT state_delete('doc', class => 'in_head');
SELECT rows_of('doc'), (SELECT count(*) FROM state_history('doc', class => 'in_head'));
SELECT deleted, num_nonnulls(hash, parent_version, checkpoint_type, agent_phase, execution_context, writer, state) FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT state_set('doc', '{"n": "anew"}', class => 'in_head');
SELECT rows_of('doc');

-- From one version to three and back. Nothing moves when the class is redefined, and nothing is unreadable.
SELECT state_set('doc', '{"n": 14}', class => 'in_head');
SELECT state_class_define('in_head', keep => 3);
SELECT rows_of('doc'), state_at('doc', 14, class => 'in_head');
SELECT action, version FROM state_save('doc', '{"n": 15}', 'manual', class => 'in_head');
SELECT rows_of('doc');
SELECT version, parent_version, checkpoint_type, encoding FROM state_history('doc', class => 'in_head');
SELECT h.updated_at > s.created_at FROM state_head h JOIN state_snapshot s USING (class, key) WHERE class = 'in_head' AND key = 'doc' AND s.version = 14;
SELECT state_diff('doc', 14, 15, class => 'in_head');
SELECT state_set('doc', '{"n": 16}', class => 'in_head');
SELECT state_set('doc', '{"n": 17}', class => 'in_head');
SELECT rows_of('doc');
SELECT * FROM state_verify('in_head');
SELECT state_class_define('in_head', keep => 1);
SELECT rows_of('doc');
SELECT state_set('doc', '{"n": 18}', class => 'in_head');
SELECT rows_of('doc');
-- Many states, some of which do not change.
SELECT state_class_define('in_head', keep => 2);
BEGIN;
SELECT state_set('doc', '{"n": 19}', class => 'in_head'), state_delete('other', class => 'in_head'), state_set('new', '2', class => 'in_head'),
	state_set('newer', '1', class => 'in_head'), state_touch('newest', '1 hour', class => 'in_head');
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT key, rows_of(key) FROM unnest('{doc,other,new,newer,newest}'::text[]) key;
SELECT state_at('other', 2, class => 'in_head');
SELECT state_delete('newer', class => 'in_head');
SELECT rows_of('newer');
SELECT state_class_define('in_head', keep => 1);
SELECT key, rows_of(key) FROM unnest('{doc,other,new,newer,newest}'::text[]) key;
BEGIN;
SELECT state_set(key, '3', class => 'in_head') FROM unnest('{doc,other,new,newer,newest}'::text[]) key;
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT key, rows_of(key) FROM unnest('{doc,other,new,newer,newest}'::text[]) key;
-- The version before becomes what the next one is the difference from.
SELECT state_set('steps', document(1), class => 'in_head');
SELECT state_class_define('in_head', keep => 0);
CALL keep_steps('steps', 'in_head', 4);
SELECT rows_of('steps') LIKE 'v4 %, kept 1 2 3 4', kept_steps('steps', 'in_head');
SELECT state_class_define('in_head', keep => 1);
SELECT rows_of('steps') LIKE 'v4 %, kept 4', kept_steps('steps', 'in_head') ~ '^4 [a-z]+$';
SELECT state_set('steps', document(5), class => 'in_head');
SELECT rows_of('steps') LIKE 'v5 %, kept 5^', kept_steps('steps', 'in_head');
-- What was put beside a head row that holds its document goes when the class is pruned.
INSERT INTO state_snapshot (class, key, version, state, hash) VALUES ('in_head', 'new', 1, '1', state_hash('1'));
SELECT rows_of('new'), state_at('new', 1, class => 'in_head');
SELECT state_prune('in_head'), rows_of('new');
SELECT * FROM state_verify('in_head');

-- By hand.
BEGIN;
UPDATE state_head SET version = version + 1, state = '{"n": "hand"}', hash = state_hash('{"n": "hand"}') WHERE class = 'in_head' AND key = 'doc';
SELECT rows_of('doc');
ROLLBACK;
SELECT rows_of('doc');
UPDATE state_head SET version = version + 1, state = '{"n": "hand"}', hash = state_hash('{"n": "hand"}') WHERE class = 'in_head' AND key = 'doc';
SELECT rows_of('doc');
SELECT state_update('doc', '{"m": 1}', class => 'in_head');
SELECT rows_of('doc');
-- A row of either table: whichever holds the document, the functions find it.
INSERT INTO state_head (class, key, version, hash, size, state) VALUES ('in_head', 'by hand', 3, state_hash('"head"'), 8, '"head"');
SELECT rows_of('by hand');
SELECT version, parent_version, checkpoint_type FROM state_history('by hand', class => 'in_head');
BEGIN;
INSERT INTO state_snapshot (class, key, version, parent_version, state, hash) VALUES ('in_head', 'by hand', 4, 3, '"snapshot"', state_hash('"snapshot"'));
UPDATE state_head SET version = 4, hash = state_hash('"snapshot"'), state = NULL WHERE class = 'in_head' AND key = 'by hand';
COMMIT;
SELECT rows_of('by hand');
SELECT state_set('by hand', '"next"', class => 'in_head');
SELECT rows_of('by hand');
SELECT state_class_define('in_head', keep => 2);
INSERT INTO state_head (class, key, version, hash, size, state) VALUES ('in_head', 'by hand too', 3, state_hash('"head"'), 8, '"head"');
SELECT state_set('by hand too', '"next"', class => 'in_head');
SELECT rows_of('by hand too'), (SELECT writer FROM state_snapshot WHERE class = 'in_head' AND key = 'by hand too' AND version = 3);
SELECT state_class_define('in_head', keep => 1);
-- Made a tombstone by hand, it is kept no more; made a state again, it is.
UPDATE state_head SET deleted = true WHERE class = 'in_head' AND key = 'doc';
SELECT rows_of('doc'), (SELECT count(*) FROM state_history('doc', class => 'in_head'));
UPDATE state_head SET deleted = false WHERE class = 'in_head' AND key = 'doc';
SELECT rows_of('doc');
-- The same document, under a number by hand; the next version follows that.
UPDATE state_head SET version = 100 WHERE class = 'in_head' AND key = 'doc';
SELECT state_set('doc', '{"n": 101}', class => 'in_head');
SELECT rows_of('doc');

-- Damage: of the document, of the hash, of all.
UPDATE state_head SET state = '{"n": "damaged"}' WHERE class = 'in_head' AND key = 'doc';
SELECT complaint($$SELECT state_get('doc', class => 'in_head')$$);
SELECT complaint($$SELECT state_at('doc', 101, class => 'in_head')$$);
SELECT * FROM state_verify('in_head');
-- Without an intact version it stays as it was found.
SELECT * FROM state_verify('in_head', repair => true);
SELECT state FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT version, severity, outcome FROM state_recovery_log WHERE class = 'in_head' ORDER BY found_at;
-- A new document heals it.
SELECT state_set('doc', '{"n": 102}', class => 'in_head');
SELECT rows_of('doc');
-- With one, a recovery point, it is put aside, and the state goes back.
SELECT action, version FROM state_save('doc', '{"n": 103}', recovery_point => true, class => 'in_head');
SELECT action, version FROM state_save('doc', '{"n": 104}', 'manual', 'triage', execution_context => '{"who": "me"}', class => 'in_head');
UPDATE state_head SET hash = state_hash('0') WHERE class = 'in_head' AND key = 'doc';
SET state_cache.on_corruption = 'recover';
SELECT state_get('doc', class => 'in_head');
RESET state_cache.on_corruption;
SELECT * FROM state_verify('in_head', repair => true);
SELECT rows_of('doc');
SELECT version, parent_version, hash = state_hash('0') AS hash, checkpoint_type, recovery_point, agent_phase, execution_context, state, delta FROM state_damaged WHERE class = 'in_head';
SELECT version, severity, outcome, restored_version FROM state_recovery_log WHERE class = 'in_head' ORDER BY found_at DESC LIMIT 1;
SELECT * FROM state_verify('in_head');
UPDATE state_head SET hash = NULL WHERE class = 'in_head' AND key = 'doc';
SELECT * FROM state_verify('in_head');
SELECT action, version, from_version FROM state_recover('doc', class => 'in_head');
SELECT rows_of('doc');
UPDATE state_head SET state = NULL WHERE class = 'in_head' AND key = 'doc';
SELECT * FROM state_verify('in_head', repair => true);
SELECT rows_of('doc');
-- One that both rows hold: the head row's counts.
INSERT INTO state_snapshot (class, key, version, state, hash) SELECT class, key, version, state, hash FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT * FROM state_verify('in_head', repair => true);
SELECT rows_of('doc');
SELECT * FROM state_verify('in_head');
-- Also where another document is in the row beside it, or a damaged one.
INSERT INTO state_snapshot (class, key, version, state, hash) SELECT class, key, version, '"beside"', state_hash('"beside"') FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT rows_of('doc') = 'v' || version || ' ' || state_at('doc', version, class => 'in_head') || ', kept ' || (SELECT string_agg(k.version || CASE WHEN k.in_head THEN '^' ELSE '' END || CASE WHEN k.recovery_point THEN '*' ELSE '' END, ' ' ORDER BY k.version) FROM state_kept k WHERE k.class = 'in_head' AND k.key = 'doc') AS same
	FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT fault FROM state_verify('in_head', repair => true);
INSERT INTO state_snapshot (class, key, version, state, hash) SELECT class, key, version, '"beside"', state_hash('0') FROM state_head WHERE class = 'in_head' AND key = 'doc';
SELECT fault FROM state_verify('in_head', repair => true);
SELECT rows_of('doc');
-- A snapshot put there by hand, and the document before left in the head row: a reader complains, and either remedy goes on with the snapshot.
SELECT state_set('left', '1', class => 'in_head');
BEGIN;
INSERT INTO state_snapshot (class, key, version, parent_version, state, hash) VALUES ('in_head', 'left', 2, 1, '"by hand"', state_hash('"by hand"'));
UPDATE state_head SET version = 2, hash = state_hash('"by hand"') WHERE class = 'in_head' AND key = 'left';
COMMIT;
SELECT complaint($$SELECT state_get('left', class => 'in_head')$$), state_at('left', 2, class => 'in_head');
BEGIN;
SELECT action, version, from_version FROM state_recover('left', 'resume', class => 'in_head');
SELECT rows_of('left');
ROLLBACK;
SELECT version, fault FROM state_verify('in_head', repair => true);
SELECT rows_of('left'), (SELECT string_agg(state::text, ' ' ORDER BY state) FROM state_damaged WHERE class = 'in_head' AND key = 'left');
SELECT * FROM state_verify('in_head');
-- Where the class keeps more by now, what the head row held becomes the snapshot, whatever is beside it.
SELECT state_class_define('in_head', keep => 3);
SELECT state_set(key, '1', class => 'in_head') FROM unnest('{beside one,beside many,beside more,beside none}'::text[]) key;
SELECT state_class_define('in_head', keep => 1);
SELECT state_set(key, '2', class => 'in_head') FROM unnest('{beside one,beside many,beside more,beside none}'::text[]) key;
INSERT INTO state_snapshot (class, key, version, state, hash) SELECT class, key, version, '"beside"', state_hash('"beside"') FROM state_head WHERE class = 'in_head' AND key LIKE 'beside%';
SELECT state_class_define('in_head', keep => 3);
SELECT state_set('beside one', '3', class => 'in_head');
BEGIN;
SELECT state_set('beside many', '3', class => 'in_head'), state_set('beside more', '3', class => 'in_head');
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT state_delete('beside none', class => 'in_head');
SELECT key, rows_of(key), state_at(key, 2, class => 'in_head') FROM unnest('{beside one,beside many,beside more,beside none}'::text[]) key;
SELECT * FROM state_verify('in_head');
SELECT state_class_define('in_head', keep => 1);

-- Where the class keeps more by now, what is not intact is not kept.
SELECT state_class_define('in_head', keep => 2);
UPDATE state_head SET state = '{"n": "damaged"}' WHERE class = 'in_head' AND key = 'doc';
SELECT state_set('doc', '{"n": "healed"}', class => 'in_head');
SELECT rows_of('doc');
SELECT * FROM state_verify('in_head');
SELECT state_class_define('in_head', keep => 1);

-- Who may read: SELECT on state_head shows the document, unless the column is left out; its policies guard it.
CREATE ROLE regress_in_head;
SELECT state_set('mine', '{"n": 1}', class => 'in_head'), state_set('yours', '{"n": 1}', class => 'in_head');
GRANT SELECT (class, key, version, deleted, expires_at, updated_at) ON state_head TO regress_in_head;
GRANT SELECT ON state_snapshot, state_current, state_kept TO regress_in_head;
SET ROLE regress_in_head;
SELECT key, version FROM state_head WHERE class = 'in_head' AND key = 'mine';
SELECT outcome($$SELECT state FROM state_head WHERE class = 'in_head'$$);
SELECT outcome($$SELECT * FROM state_current$$);
SELECT outcome($$SELECT * FROM state_kept$$);
SELECT outcome($$SELECT state_get('mine', class => 'in_head')$$);
SELECT outcome($$SELECT state_history('mine', class => 'in_head')$$);
SELECT outcome($$SELECT state_at('mine', 1, class => 'in_head')$$);
SELECT outcome($$SELECT * FROM state_changes(NULL)$$);
RESET ROLE;
-- With xmin a subscriber hears of every change, and sees no document.
GRANT SELECT (xmin) ON state_head TO regress_in_head;
SELECT cursor AS since FROM state_cursor() \gset
SELECT state_set('mine', '{"n": 2}', class => 'in_head');
SET ROLE regress_in_head;
SELECT class, key, version, op FROM state_changes(:'since');
SELECT outcome($$SELECT state FROM state_head WHERE class = 'in_head'$$);
RESET ROLE;
REVOKE SELECT (xmin) ON state_head FROM regress_in_head;
GRANT SELECT ON state_head TO regress_in_head;
CREATE POLICY mine ON state_head USING (key LIKE 'mine%');
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
SET ROLE regress_in_head;
SELECT key, state FROM state_current WHERE class = 'in_head';
SELECT key, state FROM state_kept WHERE class = 'in_head' AND in_head;
SELECT state_get('mine', class => 'in_head'), state_get('yours', class => 'in_head'), state_at('yours', 1, class => 'in_head');
SELECT count(*) FROM state_history('yours', class => 'in_head');
RESET ROLE;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
DROP POLICY mine ON state_head;
DROP OWNED BY regress_in_head;
DROP ROLE regress_in_head;
DROP VIEW writes;
DROP FUNCTION rows_of;
