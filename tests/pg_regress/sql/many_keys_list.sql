-- Lists of versions and of states.
SELECT state_class_define('threads', keep => 0);
SELECT state_class_define('latest');
DO $$ BEGIN
	FOR i IN 1..5 LOOP
		PERFORM state_save('a/1', jsonb_build_object('n', i, 'text', repeat('word ', 200)), label => 'c-' || i, class => 'threads',
			execution_context => jsonb_build_object('step', i, 'source', CASE WHEN i % 2 = 0 THEN 'loop' ELSE 'input' END),
			payload => decode(repeat('ab', i), 'hex'));
		PERFORM state_set('latest/' || i, jsonb_build_object('n', i), class => 'latest');
		COMMIT;
	END LOOP;
	PERFORM state_save('a/2', '{"n": 1}', label => 'c-1', class => 'threads', parent_version => 0);
	COMMIT;
	PERFORM state_save('b', '{"n": 1}', label => 'c-1', class => 'threads');
END $$;
SELECT key, version, parent_version, label, execution_context, state -> 'n' AS n, payload, created_at IS NOT NULL AS created
	FROM state_list('a/1', class => 'threads');
SELECT version, label, state, payload FROM state_list('a/1', states => false, class => 'threads', "limit" => 2);
SELECT version FROM state_list('a/1', before => 3, class => 'threads');
SELECT version FROM state_list('a/1', before_label => 'c-3', class => 'threads');
SELECT version FROM state_list('a/1', before => 2, before_label => 'c-3', class => 'threads');
SELECT version, state -> 'n' AS n FROM state_list('a/1', label => 'c-2', class => 'threads');
SELECT version FROM state_list('a/1', label => 'none', class => 'threads');
SELECT version FROM state_list('a/1', filter => '{"source": "loop"}', class => 'threads');
SELECT version FROM state_list('a/1', filter => '{"source": "loop", "step": 2}', class => 'threads');
SELECT key, version, label FROM state_list(prefix => 'a/', class => 'threads', states => false);
SELECT key, version, state -> 'n' AS n FROM state_list(prefix => '', label => 'c-1', class => 'threads') ORDER BY key;
SELECT key, version, state FROM state_list(prefix => 'latest/', class => 'latest');
SELECT key, version FROM state_list(prefix => 'nothing', class => 'latest');

-- What is absent is not listed; what is staged is not either, and shows once it is written.
SELECT state_delete('latest/2', class => 'latest');
SELECT state_set('latest/3', '{}', ttl => '1 microsecond', class => 'latest');
SELECT pg_sleep(0.01);
SELECT key, version FROM state_list(prefix => 'latest/', class => 'latest');
BEGIN;
SELECT state_set('latest/1', '{"n": "staged"}', class => 'latest');
SELECT key, version, state FROM state_list('latest/1', class => 'latest');
SELECT * FROM state_batch_commit();
SELECT key, version, state FROM state_list('latest/1', class => 'latest');
ROLLBACK;

-- In a transaction that has written, too, each version is decoded once; and again after a savepoint that is gone.
BEGIN;
SELECT state_save('a/1', '{"n": 6}', label => 'c-6', payload => '\xff', class => 'threads');
SAVEPOINT s;
SELECT state_save('a/1', '{"n": 7}', label => 'c-7', payload => '\xfe', class => 'threads');
SELECT version, state -> 'n' AS n, payload FROM state_list('a/1', class => 'threads', "limit" => 3);
ROLLBACK TO s;
SELECT state_save('a/1', '{"n": "seven"}', label => 'c-7', payload => '\xfd', class => 'threads');
SELECT version, state -> 'n' AS n, payload FROM state_list('a/1', class => 'threads', "limit" => 3);
ROLLBACK;

-- Keys, in the order of their bytes.
SELECT key, version, updated_at IS NOT NULL AS updated FROM state_keys(class => 'latest');
SELECT key FROM state_keys('latest/', after => 'latest/1', class => 'latest');
SELECT key FROM state_keys('latest/', after => 'a', "limit" => 1, class => 'latest');
SELECT key FROM state_keys('latest/', after => 'z', class => 'latest');
SELECT state_set(k, '{}', class => 'latest') FROM unnest(ARRAY['Z', 'z', 'zz', U&'\00e9', U&'\00e9a', U&'\00ea', U&'\+10ffffx']) k;
SELECT ascii(key) FROM state_keys(class => 'latest');
SELECT ascii(key), length(key) FROM state_keys(U&'\00e9', class => 'latest');
SELECT ascii(key), length(key) FROM state_keys(U&'\+10ffff', class => 'latest');

-- Bad input.
SELECT * FROM state_list(class => 'threads');
SELECT * FROM state_list('a', 'a', class => 'threads');
SELECT * FROM state_list('', class => 'threads');
SELECT * FROM state_list(prefix => 'a', before => 3, class => 'threads');
SELECT * FROM state_list(prefix => 'a', before_label => 'c', class => 'threads');
SELECT * FROM state_list('a/1', before_label => 'none', class => 'threads');
SELECT * FROM state_list('a/1', "limit" => 0, class => 'threads');
SELECT * FROM state_list('a/1', "limit" => 10001, class => 'threads');
SELECT * FROM state_keys("limit" => -1, class => 'threads');
SELECT * FROM state_list('a/1', class => 'nothing');
SELECT * FROM state_keys(class => 'nothing');
SELECT * FROM state_keys(class => NULL);

-- Rights, and row-level security.
CREATE ROLE many_keys_app;
CREATE ROLE many_keys_none;
GRANT SELECT, INSERT, UPDATE ON state_head TO many_keys_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON state_snapshot TO many_keys_app;
SET ROLE many_keys_none;
SELECT * FROM state_list('a/1', class => 'threads');
SELECT * FROM state_keys(class => 'threads');
SET ROLE many_keys_app;
SELECT count(*) FROM state_list(prefix => '', class => 'threads');
SELECT count(*) FROM state_keys(class => 'threads');
RESET ROLE;
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY part ON state_head USING (key <> 'b');
CREATE POLICY part ON state_snapshot USING (key <> 'b' AND version <> 3);
SET ROLE many_keys_app;
SELECT key, version, state -> 'n' AS n, payload FROM state_list(prefix => '', class => 'threads');
SELECT key FROM state_keys(class => 'threads');
RESET ROLE;
DROP POLICY part ON state_head;
DROP POLICY part ON state_snapshot;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP OWNED BY many_keys_app;
DROP ROLE many_keys_app, many_keys_none;
DELETE FROM state_snapshot WHERE class IN ('threads', 'latest');
DELETE FROM state_head WHERE class IN ('threads', 'latest');
DELETE FROM state_class WHERE class IN ('threads', 'latest');
