-- Many changes, many states.
\a \t \pset null (null)
SELECT state_class_define('many');

-- Twenty, or a thousand, updates of one state in a transaction are one version.
SELECT state_set('counter', '{"n": 0}', class => 'many');
DO $$
BEGIN
	FOR i IN 1..1000 LOOP
		PERFORM state_update('counter', jsonb_build_object('n', i, 'last_' || i % 7, i), class => 'many');
	END LOOP;
END
$$;
SELECT stored('counter', 'many'), seen('counter', 'many');
-- Read, change, read in a loop: each iteration sees the one before.
DO $$
BEGIN
	FOR i IN 1..500 LOOP
		PERFORM state_set('counter', jsonb_build_object('n', (state_get_path('counter', '{n}', class => 'many'))::int + 1), class => 'many');
	END LOOP;
END
$$;
SELECT stored('counter', 'many');
-- Each in a transaction of its own.
DO $$
BEGIN
	FOR i IN 1..200 LOOP
		PERFORM state_set('counter', jsonb_build_object('n', (state_get_path('counter', '{n}', class => 'many'))::int + 1), class => 'many');
		COMMIT;
	END LOOP;
END
$$;
SELECT stored('counter', 'many'), seen('counter', 'many');

-- Five thousand states in one transaction.
BEGIN;
SELECT count(state_set('key ' || i, jsonb_build_object('n', i), class => 'many')) FROM generate_series(1, 5000) i;
SELECT count(*), sum((state ->> 'n')::int) FROM state_get_many((SELECT array_agg('key ' || i) FROM generate_series(1, 5000) i), class => 'many');
SELECT action, count(*), min(version), max(version) FROM state_batch_commit() GROUP BY action;
COMMIT;
SELECT count(*), sum((state ->> 'n')::int) FROM state_current WHERE class = 'many' AND key LIKE 'key %';
SELECT count(*), sum((state ->> 'n')::int) FROM state_get_many((SELECT array_agg('key ' || i) FROM generate_series(1, 5000) i), class => 'many');
-- Half of them changed, a quarter deleted, the rest left alone.
BEGIN;
SELECT count(state_update('key ' || i, CASE WHEN i % 2 = 0 THEN '{"even": true}' ELSE '{}' END::jsonb, class => 'many')) FROM generate_series(1, 5000) i;
SELECT sum(state_delete('key ' || i, class => 'many')::int) FROM generate_series(1, 5000, 4) i;
SELECT action, count(*) FROM state_batch_commit() GROUP BY action ORDER BY action;
COMMIT;
SELECT count(*), count(*) FILTER (WHERE state ? 'even') FROM state_get_many((SELECT array_agg('key ' || i) FROM generate_series(1, 5000) i), class => 'many');
SELECT count(*), count(*) FILTER (WHERE state ? 'even') FROM state_current WHERE class = 'many' AND key LIKE 'key %';
-- get_many of staged, cached and stored states at once, in the order asked for.
SELECT state_cache_clear('many') >= 0;
BEGIN;
SELECT state_get('key 2', class => 'many') -> 'n';
SELECT state_set('key 3', '{"n": "staged"}', class => 'many');
SELECT state_delete('key 4', class => 'many');
SELECT key, version, state FROM state_get_many('{key 6,key 4,key 3,key 2,key 1}', class => 'many');
ROLLBACK;

-- Ten thousand classes.
SELECT count(state_class_define('class ' || i)) FROM generate_series(1, 10000) i;
SELECT count(state_set('doc', to_jsonb(i), class => 'class ' || i)) FROM generate_series(1, 10000, 10) i;
SELECT sum(state_get('doc', class => 'class ' || i)::int), count(state_version('doc', class => 'class ' || i)) FROM generate_series(1, 10000) i;
DELETE FROM state_class WHERE class LIKE 'class %';
DELETE FROM state_head WHERE class LIKE 'class %';
