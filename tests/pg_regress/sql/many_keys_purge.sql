-- Purges: whole states, named versions, all but the newest.
SELECT state_class_define('purges', keep => 0);
SELECT state_class_define('purges_one');
CREATE FUNCTION purge_kept(wanted text) RETURNS TABLE (version bigint, parent bigint, label text, n jsonb, form text)
	LANGUAGE sql AS $$
	SELECT l.version, l.parent_version, l.label, l.state -> 'n', CASE WHEN s.delta IS NULL THEN 'whole'
		WHEN substring(s.delta, 1, 1) = '\x52' THEN 'delta' ELSE 'packed' END
	FROM state_list(wanted, class => 'purges') l JOIN state_snapshot s
		ON s.class = 'purges' AND s.key = wanted AND s.version = l.version ORDER BY 1 $$;
CREATE FUNCTION purge_fill(wanted text, versions integer DEFAULT 6) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..versions LOOP
		PERFORM state_save(wanted, jsonb_build_object('n', i, 'text', repeat('word ', 200)), label => 'c-' || i,
			payload => convert_to(repeat('word ', 200) || i, 'UTF8'), class => 'purges');
	END LOOP;
END $$;

-- A whole state, with its log and its history. The number is not used again.
SELECT purge_fill('a/1'), purge_fill('a/2', 2), purge_fill('b', 2);
SELECT state_log_append('a/1', '["x", "y"]', class => 'purges'), state_log_append('a/log', '["z"]', class => 'purges');
SELECT state_purge('{a/1}', class => 'purges');
SELECT state_get('a/1', class => 'purges'), state_at('a/1', 6, 'purges'), state_version('a/1', 'purges');
SELECT count(*) FROM state_history('a/1', 'purges');
SELECT count(*) FROM state_log('a/1', class => 'purges');
SELECT key, version, deleted FROM state_head WHERE class = 'purges' ORDER BY key;
SELECT state_put('a/1', '{"n": "new"}', class => 'purges');
SELECT version, parent_version, state FROM state_kept WHERE class = 'purges' AND key = 'a/1';
SELECT state_purge('{a/1}', class => 'purges'), state_purge('{a/1}', class => 'purges'), state_purge('{never}', class => 'purges');

-- What begins so, what has a log only and what is staged only included.
BEGIN;
SELECT state_set('a/staged', '{}', class => 'purges');
SELECT state_purge(prefix => 'a/', class => 'purges');
SELECT state_get('a/staged', class => 'purges');
COMMIT;
SELECT key, version, deleted FROM state_head WHERE class = 'purges' ORDER BY key;
SELECT DISTINCT key FROM state_snapshot WHERE class = 'purges';
SELECT count(*) FROM state_log('a/log', class => 'purges');
-- A deleted state, and one that has expired.
SELECT state_delete('b', class => 'purges');
SELECT count(*) FROM state_history('b', 'purges');
SELECT state_save('e', '{"secret": 1}', ttl => '1 millisecond', class => 'purges');
SELECT pg_sleep(0.01);
SELECT state_purge('{b,e}', class => 'purges');
SELECT count(*) FROM state_snapshot WHERE class = 'purges';
SELECT key, version, deleted FROM state_head WHERE class = 'purges' AND key IN ('b', 'e') ORDER BY key;
-- In a class that keeps one version.
SELECT state_set('l', '{"secret": 1}', class => 'purges_one');
SELECT state_purge('{l}', class => 'purges_one');
SELECT version, deleted, state FROM state_head WHERE class = 'purges_one';

-- Named versions: what builds upon them is stored anew.
SELECT purge_fill('t');
SELECT * FROM purge_kept('t');
SELECT state_purge('{t}', versions => '{1,3,99}', class => 'purges');
SELECT * FROM purge_kept('t');
SELECT * FROM state_verify('purges');
SELECT state_purge('{t}', versions => '{1,3}', class => 'purges');
-- The current one: the newest that stays is made current again.
SELECT state_purge('{t}', versions => '{6,5}', class => 'purges');
SELECT * FROM purge_kept('t');
SELECT state_get('t', class => 'purges') -> 'n' AS n, state_version('t', 'purges');
SELECT convert_from(payload, 'UTF8') = repeat('word ', 200) || '4' FROM state_list('t', "limit" => 1, class => 'purges');
SELECT * FROM state_verify('purges');
-- All of them: the state is gone.
SELECT state_purge('{t}', versions => '{2,4,7}', class => 'purges');
SELECT state_get('t', class => 'purges'), state_version('t', 'purges');
SELECT version, deleted FROM state_head WHERE class = 'purges' AND key = 't';

-- All but the newest, recovery points among them.
SELECT purge_fill('k/1', 30), purge_fill('k/2', 1);
SELECT state_save('k/3', '{"n": 1}', recovery_point => true, class => 'purges'), state_save('k/3', '{"n": 2}', class => 'purges');
SELECT state_purge(prefix => 'k/', keep => 2, class => 'purges');
SELECT * FROM purge_kept('k/1');
SELECT * FROM state_verify('purges');
SELECT state_purge(prefix => 'k/', keep => 1, class => 'purges');
SELECT key, version FROM state_snapshot WHERE class = 'purges' AND key LIKE 'k/%' ORDER BY key;
SELECT state_get('k/1', class => 'purges') -> 'n' AS n;
SELECT * FROM state_verify('purges');

-- Taken back with the transaction.
BEGIN;
SELECT state_purge(prefix => 'k/', class => 'purges');
SELECT count(*) FROM state_keys('k/', class => 'purges');
ROLLBACK;
SELECT count(*) FROM state_keys('k/', class => 'purges');
SELECT state_get('k/1', class => 'purges') -> 'n' AS n;

-- What was put aside as damaged goes too.
SELECT purge_fill('d', 2);
ALTER TABLE state_snapshot DISABLE TRIGGER USER;
UPDATE state_snapshot SET payload = set_byte(payload, length(payload) - 1, get_byte(payload, length(payload) - 1) # 1)
	WHERE class = 'purges' AND key = 'd' AND version = 2;
DO $$ DECLARE t name; BEGIN FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'state_snapshot'::regclass
	AND NOT tgisinternal LOOP EXECUTE format('ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER %I', t); END LOOP; END $$;
SELECT version, fault FROM state_verify('purges', repair => true);
SELECT count(*) FROM state_damaged WHERE class = 'purges';
SELECT state_purge('{d}', class => 'purges');
SELECT count(*) FROM state_damaged WHERE class = 'purges';

-- A class that writes behind: what only L1 has is erased too.
SELECT state_class_define('purges_behind', keep => 0, write_mode => 'behind');
SELECT state_set('p/1', '{"secret": 1}', class => 'purges_behind');
SELECT state_set('p/2', '{"secret": 1}', class => 'purges_behind');
SELECT state_purge(prefix => 'p/', class => 'purges_behind');
SELECT state_get('p/1', class => 'purges_behind'), state_get('p/2', class => 'purges_behind');
SELECT state_flush('purges_behind');
SELECT key, deleted FROM state_head WHERE class = 'purges_behind' ORDER BY key;
SELECT count(*) FROM state_snapshot WHERE class = 'purges_behind';

-- Of a run, conflicts and exports go too, and what its children were given. A conflict that the parent waits for
-- stays, without the value of a child that is purged.
CREATE FUNCTION purge_conflicts() RETURNS TABLE (child text, base jsonb, parent jsonb, value jsonb, status text, decided jsonb)
	LANGUAGE sql AS $$ SELECT child_run_id, base_value, parent_value, child_value, status, resolved_value
		FROM state_conflict WHERE 'purged' IN (run_id, split_part(child_run_id, '/', 1)) ORDER BY id $$;
SELECT state_context_create('purged', inputs => '{"x": 1, "y": 1}'), state_context_child('purged', 'purged/1', '{"y": 2}'),
	state_context_child('purged', 'purged/2');
SELECT state_context_set('purged', 'x', '2'), state_context_set('purged/1', 'x', '"of 1"'), state_context_set('purged/2', 'x', '"of 2"');
SELECT variable, conflict IS NOT NULL AS waits FROM state_context_merge('purged/1', 'manual_review');
SELECT variable, conflict IS NOT NULL AS waits FROM state_context_merge('purged/2', 'manual_review');
SELECT count(*) FROM state_context_complete('purged/1', 'failed');
SELECT count(*) FROM state_context_complete('purged/2', 'failed');
SELECT * FROM purge_conflicts();
BEGIN;
SELECT state_purge('{purged/1,purged/2}');
SELECT * FROM purge_conflicts();
ROLLBACK;
SELECT state_purge('{purged/1}');
SELECT * FROM purge_conflicts();
SELECT state_conflict_resolve(min(id), '"decided"', 'without the child') FROM state_conflict WHERE run_id = 'purged';
SELECT * FROM purge_conflicts();
SELECT state_purge('{purged/2}');
SELECT * FROM purge_conflicts();
SELECT state_conflict_resolve(max(id), '"decided"', 'at last') FROM state_conflict WHERE run_id = 'purged';
SELECT state_context_child('purged', 'purged/3', '{"y": 3}');
SELECT parent_base FROM state_context WHERE run_id = 'purged/3';
SELECT count(*) FROM state_context_complete('purged/3', 'failed');
SELECT state_context_mark_export('purged', 'x', 'external_system', target => 'purge');
SELECT count(*) FROM state_context_complete('purged');
SELECT value FROM state_outbox WHERE run_id = 'purged';
SELECT state_purge('{purged}');
SELECT * FROM purge_conflicts();
SELECT (SELECT count(*) FROM state_outbox WHERE run_id = 'purged') AS exports,
	(SELECT count(*) FROM state_context WHERE parent_run_id = 'purged' AND parent_base IS NOT NULL) AS bases;
SELECT state_purge(prefix => 'purged');

-- Bad input.
SELECT state_purge(class => 'purges');
SELECT state_purge('{a}', 'a', class => 'purges');
SELECT state_purge('{a,NULL}', class => 'purges');
SELECT state_purge('{""}', class => 'purges');
SELECT state_purge('{a,b}', versions => '{1}', class => 'purges');
SELECT state_purge(prefix => 'a', versions => '{1}', class => 'purges');
SELECT state_purge('{a}', versions => '{1,NULL}', class => 'purges');
SELECT state_purge('{a}', versions => '{1}', keep => 1, class => 'purges');
SELECT state_purge('{a}', keep => 0, class => 'purges');
SELECT state_purge('{}', class => 'purges'), state_purge('{a}', versions => '{}', class => 'purges');
SELECT state_purge('{a}', class => 'nowhere');
BEGIN READ ONLY;
SELECT state_purge('{a}', class => 'purges');
ROLLBACK;

-- Rights, and row-level security: nothing is half erased.
CREATE ROLE many_keys_app;
SELECT state_grant('many_keys_app', 'reader');
SELECT purge_fill('r', 3);
SET ROLE many_keys_app;
SELECT state_purge('{r}', class => 'purges');
RESET ROLE;
SELECT state_grant('many_keys_app', 'application');
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY part ON state_head TO many_keys_app USING (true);
CREATE POLICY part ON state_snapshot TO many_keys_app USING (version <> 2);
SET ROLE many_keys_app;
SELECT state_purge('{r}', class => 'purges');
SELECT state_purge('{r}', keep => 1, class => 'purges');
RESET ROLE;
ALTER POLICY part ON state_snapshot USING (true);
SET ROLE many_keys_app;
SELECT state_purge('{r}', keep => 1, class => 'purges');
SELECT state_purge('{r}', class => 'purges');
RESET ROLE;
DROP POLICY part ON state_head;
DROP POLICY part ON state_snapshot;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP OWNED BY many_keys_app;
DROP ROLE many_keys_app;
DROP FUNCTION purge_kept, purge_fill, purge_conflicts;
DELETE FROM state_snapshot WHERE class IN ('purges', 'purges_one', 'purges_behind');
DELETE FROM state_head WHERE class IN ('purges', 'purges_one', 'purges_behind');
DELETE FROM state_class WHERE class IN ('purges', 'purges_one', 'purges_behind');
