-- Copies of states under another prefix, with history and logs.
SELECT state_class_define('copies', keep => 0);
SELECT state_class_define('copies_one');
CREATE FUNCTION copy_rows(wanted text) RETURNS TABLE (version bigint, parent bigint, label text, n jsonb, payload text, form text)
	LANGUAGE sql AS $$
	SELECT l.version, l.parent_version, l.label, l.state -> 'n', right(convert_from(l.payload, 'UTF8'), 3),
		CASE WHEN s.delta IS NULL THEN 'whole' WHEN substring(s.delta, 1, 1) = '\x52' THEN 'delta' ELSE 'packed' END
	FROM state_list(wanted, class => 'copies') l JOIN state_snapshot s
		ON s.class = 'copies' AND s.key = wanted AND s.version = l.version ORDER BY 1 $$;
CREATE FUNCTION copy_fill(wanted text, versions integer DEFAULT 4) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..versions LOOP
		PERFORM state_save(wanted, jsonb_build_object('n', i, 'text', repeat('word ', 200)), label => 'c-' || i,
			execution_context => jsonb_build_object('step', i), parent_version => CASE i WHEN 4 THEN 2 END,
			payload => convert_to(repeat('word ', 200) || i, 'UTF8'), class => 'copies');
	END LOOP;
END $$;

SELECT copy_fill('t-1/'), copy_fill('t-1/sub/', 2);
SELECT state_log_append('t-1/', '["x", "y"]', 'c-4', '{a,b}', class => 'copies');
SELECT state_log_append('t-1/', '["z"]', class => 'copies');
SELECT state_copy('t-1/', 't-2/', 'copies');
SELECT * FROM copy_rows('t-1/');
SELECT * FROM copy_rows('t-2/');
SELECT * FROM copy_rows('t-2/sub/');
-- Byte by byte the same rows.
SELECT count(*) FROM state_snapshot a JOIN state_snapshot b USING (class, version)
	WHERE class = 'copies' AND a.key = 't-1/' AND b.key = 't-2/' AND (a.hash, a.checkpoint_type, a.recovery_point,
	a.execution_context, a.created_at, a.label, a.payload, a.delta) IS NOT DISTINCT FROM (b.hash, b.checkpoint_type,
	b.recovery_point, b.execution_context, b.created_at, b.label, b.payload, b.delta);
SELECT ref, id LIKE '#%' AS own_id, entry FROM state_log('t-2/', class => 'copies');
SELECT * FROM state_verify('copies');
-- The copy goes on for itself.
SELECT state_save('t-2/', '{"n": "on"}', label => 'c-5', class => 'copies');
SELECT state_version('t-1/', 'copies'), state_version('t-2/', 'copies'), state_get('t-2/', class => 'copies');
SELECT state_log_append('t-2/', '["w"]', class => 'copies');
SELECT count(*) FROM state_log('t-1/', class => 'copies');
SELECT * FROM state_verify('copies');

-- All or nothing: a name that is taken, by a state or by a log.
SELECT copy_fill('u/a', 1), copy_fill('u/b', 1);
SELECT state_set('v/b', '{}', class => 'copies');
SELECT state_copy('u/', 'v/', 'copies');
SELECT key FROM state_keys('v/', class => 'copies');
SELECT state_log_append('u/a', '[1]', class => 'copies'), state_log_append('w/a', '[1]', class => 'copies');
SELECT state_copy('u/', 'w/', 'copies');
SELECT key FROM state_keys('w/', class => 'copies');

-- Under a name that had a state: the numbers begin above.
SELECT copy_fill('x/a', 3);
SELECT state_delete('x/a', class => 'copies');
SELECT state_copy('t-1/', 'x/', 'copies'), state_delete('t-1/sub/', class => 'copies');
SELECT copy_fill('y/', 3), state_purge('{y/}', class => 'copies');
SELECT state_copy('t-1/', 'y/', 'copies');
SELECT * FROM copy_rows('y/');
SELECT state_get('y/', class => 'copies') -> 'n' AS n, state_version('y/', 'copies');
SELECT * FROM state_verify('copies');

-- What is staged is copied, what has expired or is deleted is not; a class that keeps one version; a time to live.
BEGIN;
SELECT state_set('s/1', '{"n": 1}', class => 'copies_one'), state_set('s/2', '{"n": 2}', ttl => '1 hour', class => 'copies_one');
SELECT state_copy('s/', 'r/', 'copies_one');
SELECT state_get('r/1', class => 'copies_one');
COMMIT;
SELECT state_get('r/1', class => 'copies_one'), state_get('r/2', class => 'copies_one');
SELECT a.expires_at = b.expires_at AS same FROM state_head a, state_head b WHERE a.class = 'copies_one' AND a.key = 's/2'
	AND b.class = 'copies_one' AND b.key = 'r/2';
SELECT state_set('q/1', '{}', ttl => '1 millisecond', class => 'copies_one'), pg_sleep(0.01);
SELECT state_copy('q/', 'p/', 'copies_one'), state_copy('nothing/', 'p/', 'copies_one');

-- Taken back with the transaction, and not in L1 after.
BEGIN;
SELECT state_copy('s/', 'o/', 'copies_one');
ROLLBACK;
SELECT state_get('o/1', class => 'copies_one');

-- A class that writes behind.
SELECT state_class_define('copies_behind', keep => 0, write_mode => 'behind');
SELECT state_set('a/1', '{"n": 1}', class => 'copies_behind');
SELECT state_copy('a/', 'b/', 'copies_behind');
SELECT state_update('b/1', '{"m": 1}', class => 'copies_behind');
SELECT state_get('a/1', class => 'copies_behind'), state_get('b/1', class => 'copies_behind');
SELECT state_flush('copies_behind') > 0 AS flushed;
SELECT * FROM state_verify('copies_behind');

-- Bad input.
SELECT state_copy('a', 'a', 'copies');
SELECT state_copy(NULL, 'a', 'copies');
SELECT state_copy('t-1/', repeat('x', 1000), 'copies');
SELECT state_copy('t-1/', 'a', 'nowhere');
SELECT state_context_create('copy-run') IS NOT NULL AS created;
SELECT state_copy('copy-run', 'other-run');
SELECT state_delete('copy-run');
BEGIN READ ONLY;
SELECT state_copy('t-1/', 'a', 'copies');
ROLLBACK;

-- Rights, and row-level security.
CREATE ROLE many_keys_app;
SELECT state_grant('many_keys_app', 'reader');
SET ROLE many_keys_app;
SELECT state_copy('t-1/', 'app/', 'copies');
RESET ROLE;
SELECT state_grant('many_keys_app', 'application');
SET ROLE many_keys_app;
SELECT state_copy('t-1/', 'app/', 'copies');
RESET ROLE;
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY part ON state_head TO many_keys_app USING (key LIKE 'app/%');
CREATE POLICY part ON state_snapshot TO many_keys_app USING (key LIKE 'app/%' AND version <> 2);
SELECT copy_fill('hidden/', 2);
SET ROLE many_keys_app;
SELECT state_copy('hidden/', 'app/2/', 'copies');
SELECT state_copy('app/', 'app/2/', 'copies');
RESET ROLE;
ALTER POLICY part ON state_snapshot USING (key LIKE 'app/%');
SET ROLE many_keys_app;
SELECT state_copy('app/', 'else/', 'copies');
SELECT state_copy('app/', 'app/2/', 'copies');
SELECT key, state -> 'n' AS n FROM state_list(prefix => 'app/2/', "limit" => 1, class => 'copies');
RESET ROLE;
DROP POLICY part ON state_head;
DROP POLICY part ON state_snapshot;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
SELECT * FROM state_verify('copies');
DROP OWNED BY many_keys_app;
DROP ROLE many_keys_app;
DROP FUNCTION copy_rows, copy_fill;
SELECT state_purge(prefix => '', class => c) > 0 AS purged FROM unnest(ARRAY['copies', 'copies_one', 'copies_behind']) c;
DELETE FROM state_head WHERE class LIKE 'copies%';
DELETE FROM state_class WHERE class LIKE 'copies%';
