-- A key has up to 1,000 bytes, wherever a key goes: rows and their indexes, L1, messages, logs, runs, jobs, lists.
\a \t \pset null (null)
SELECT state_class_define('long keys', keep => 3, channel => 'long_keys');
-- Names of n bytes that differ only at their end.
CREATE FUNCTION name(n integer, last text DEFAULT 'x') RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT rpad('k/', n - 1, 'abc') || last $$;
-- Around the lengths at which something changes inside.
CREATE TABLE long_name AS SELECT name(n, last) AS key FROM unnest(ARRAY[2, 80, 254, 255, 256, 257, 318, 319, 600, 999, 1000]) n, unnest('{x,y}'::text[]) last;
SELECT count(state_set(key, to_jsonb(key), class => 'long keys')) FROM long_name;
SELECT count(*) FROM long_name WHERE state_get(key, class => 'long keys') = to_jsonb(key);
SELECT count(state_set(key, jsonb_build_object('key', key), class => 'long keys')) FROM long_name;
-- From L1, from the tables, and by plain SQL.
SELECT count(*) FROM long_name WHERE state_get(key, class => 'long keys') ->> 'key' = key AND state_version(key, 'long keys') = 2;
SELECT state_cache_clear('long keys') >= 0;
SELECT count(*) FROM long_name WHERE state_get(key, class => 'long keys') ->> 'key' = key;
SELECT count(*) FROM long_name l JOIN state_current c ON c.class = 'long keys' AND c.key = l.key AND c.state ->> 'key' = l.key;
SELECT count(*), min(octet_length(key)), max(octet_length(key)) FROM state_cache_entries WHERE class = 'long keys'
	HAVING current_setting('shared_preload_libraries') <> '';
SELECT count(*) FROM long_name l, state_at(l.key, 1, 'long keys') s WHERE s = to_jsonb(l.key);
SELECT count(state_delete(key, class => 'long keys')) FROM long_name WHERE key LIKE '%y';
SELECT count(*) FROM long_name WHERE state_exists(key, class => 'long keys');
-- Lists, copies, times to live, erasing.
SELECT count(*), max(octet_length(key)) FROM state_keys('k/', class => 'long keys');
SELECT state_copy('k/abc', 'c/abc', 'long keys');
SELECT complaint(format($$SELECT state_copy('k/abc', %L, 'long keys')$$, repeat('c', 10)));
SELECT state_touch_prefix('c/', '1 hour', class => 'long keys');
SELECT state_purge(prefix => 'c/', class => 'long keys');
SELECT state_save(name(1000), '{}', label => rpad('', 255, 'l'), class => 'long keys') IS NOT NULL;
SELECT count(*) FROM state_list(name(1000), label => rpad('', 255, 'l'), class => 'long keys');
-- Logs.
SELECT state_log_append(name(1000), '[1, 2]', rpad('', 255, 'r'), ARRAY[rpad('', 255, 'i'), rpad('', 255, 'j')], class => 'long keys');
SELECT entry FROM state_log(name(1000), class => 'long keys');
-- Runs, children and claims; jobs.
SELECT state_context_create(name(1000)), state_context_child(name(1000), name(1000, 'y'), '{}');
SELECT octet_length(run_id), octet_length(parent), status FROM state_context_list(parent_run_id => name(1000));
SELECT state_context_claim(name(1000), rpad('', 255, 'o')) > 0;
SELECT state_job_create(name(1000), jsonb_build_array(rpad('', 255, 't')));
SELECT octet_length(task_id), status FROM state_job_tasks(name(1000));
SELECT state_delete(name(1000), class => 'job');
-- Messages: any key fits into one whatever JSON makes of its bytes.
SET state_cache.notify = commit;
LISTEN long_keys;
\o '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\' -e \'s/\\\\u0001(\\\\u0001)*/(bytes)/\''
SELECT state_set(repeat(chr(1), 1000), '1', class => 'long keys');
\o
-- However many items are told with it: more than fit are told as any.
SELECT state_blackboard_add(repeat(chr(1), 1000), 'first', '1');
LISTEN state_updated;
\o '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\' -e \'s/\\\\u0001(\\\\u0001)*/(bytes)/\''
DO $$ BEGIN PERFORM state_blackboard_add(repeat(chr(1), 1000), rpad(n::text, 255, 'i'), '1') FROM generate_series(1, 7) n; END $$;
\o
UNLISTEN *;
RESET state_cache.notify;
SELECT state_get(repeat(chr(1), 1000), class => 'long keys');
-- By hand, too.
SELECT outcome(format($$INSERT INTO state_head (class, key, version, hash, size) VALUES ('long keys', %L, 1, state_hash('1'), 1)$$, repeat('h', n)))
	FROM unnest(ARRAY[1000, 1001]) n;
