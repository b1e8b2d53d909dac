-- Large documents, and many of them.
\a \t \pset null (null)
SELECT state_class_define('large');

-- Up to state_cache.max_state_size, measured on the document in binary form.
SHOW state_cache.max_state_size;
SELECT state_set('15 MB', jsonb_build_object('n', 1, 'text', repeat('x', 15 * 1024 * 1024)), class => 'large');
SELECT version, size > 15 * 1024 * 1024 FROM state_head WHERE class = 'large' AND key = '15 MB';
SELECT length(state_get_path('15 MB', '{text}', class => 'large') #>> '{}'), length(state_get_text('15 MB', class => 'large'));
SELECT state_update('15 MB', '{"n": 2}', class => 'large');
SELECT state_get_path('15 MB', '{n}', class => 'large'), state_version('15 MB', class => 'large');
SELECT state_set('17 MB', to_jsonb(repeat('x', 17 * 1024 * 1024)), class => 'large');
\echo :SQLSTATE
SELECT stored('17 MB', 'large');
-- It is also the limit of what an operation makes, and the staged state stays as it was.
SET state_cache.max_state_size = '4kB';
BEGIN;
SELECT state_set('grown', jsonb_build_object('list', '[]'::jsonb), class => 'large');
SAVEPOINT s;
SELECT state_append('grown', '{list}', to_jsonb(repeat('x', 3000)), class => 'large');
SELECT state_append('grown', '{list}', to_jsonb(repeat('x', 3000)), class => 'large');
\echo :SQLSTATE
ROLLBACK TO s;
COMMIT;
SELECT stored('grown', 'large');
-- A state that was stored under a larger limit can still be read, and made smaller.
SELECT state_get_path('15 MB', '{n}', class => 'large');
SELECT state_merge('15 MB', '{"text": null}', class => 'large');
SELECT stored('15 MB', 'large');
RESET state_cache.max_state_size;

-- Documents around the sizes at which tables and caches change how they keep things.
DO $$
DECLARE
	doc jsonb;
	len int;
BEGIN
	FOREACH len IN ARRAY '{0,1,100,127,128,1000,1900,2000,2040,4000,8000,8100,8192,16000,32000,65536,100000,262144,1000000,1048576}'::int[] LOOP
		doc := to_jsonb(repeat(md5(len::text), len / 32) || repeat('x', len % 32));
		PERFORM state_set('length', doc, class => 'large');
		COMMIT;
		IF state_get('length', class => 'large') IS DISTINCT FROM doc OR state_get_text('length', class => 'large') IS DISTINCT FROM doc::text THEN
			RAISE EXCEPTION 'length % comes back changed from the cache', len;
		END IF;
		PERFORM state_cache_clear('large');
		IF state_get('length', class => 'large') IS DISTINCT FROM doc THEN
			RAISE EXCEPTION 'length % comes back changed from the table', len;
		END IF;
	END LOOP;
END
$$;
SELECT version FROM state_head WHERE class = 'large' AND key = 'length';
SELECT state_set('whole', to_jsonb(repeat('y', 300000)), class => 'large');
SELECT length(s #>> '{}'), state_hash(s) = (SELECT hash FROM state_head WHERE class = 'large' AND key = 'whole') FROM state_get('whole', class => 'large') s;
-- A large array: appending copies what is there.
SELECT state_set('array', (SELECT jsonb_agg(i) FROM generate_series(1, 50000) i), class => 'large');
SELECT state_append('array', '{}', '50001', class => 'large');
SELECT jsonb_array_length(state_get('array', class => 'large')), state_get_path('array', '{-1}', class => 'large'), state_get_path('array', '{24999}', class => 'large');
