-- The time to live that a state was given is remembered with it, and state_touch(key) lets it start again. When a state
-- came to be is kept as well. Both hold however a row is written: by a statement, which a trigger of a user's on the
-- table makes us take, and without one.
\a \t \pset null (null)
SELECT state_class_define('ttl');
SELECT state_class_define('ttl left', write_mode => 'behind');
CREATE FUNCTION do_nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';

-- What is remembered, and how long the state lives from now on, to the next half hour.
CREATE FUNCTION life(key text, class text DEFAULT 'ttl') RETURNS text LANGUAGE sql AS $$
	SELECT format('%s, remembered %s, version %s', date_bin('30 minutes', timestamp '2000-01-01 00:30' + (h.expires_at - now()), '2000-01-01')
		- '2000-01-01', h.ttl, h.version) FROM state_head h WHERE h.class = life.class AND h.key = life.key
$$;
-- As if it had been given long ago.
CREATE FUNCTION age(key text, class text DEFAULT 'ttl') RETURNS void LANGUAGE sql AS $$
	UPDATE state_head h SET expires_at = now() + '1 minute', created_at = '2001-01-01', updated_at = '2001-01-02'
		WHERE h.class = age.class AND h.key = age.key
$$;

CREATE PROCEDURE go_through_a_life(key text) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
BEGIN
	PERFORM state_set(key, '{"n": 1}', ttl => '2 hours', class => 'ttl'); COMMIT;
	RAISE NOTICE 'set: %', life(key);
	PERFORM age(key); COMMIT;
	RAISE NOTICE 'touched: % %', state_touch(key, class => 'ttl'), life(key); COMMIT;
	RAISE NOTICE 'after: %', life(key);
	PERFORM age(key); COMMIT;
	PERFORM state_update(key, '{"n": 2}', class => 'ttl'); COMMIT;
	RAISE NOTICE 'an update leaves it: %; created % updated %', life(key),
		(SELECT created_at = '2001-01-01' FROM state_current c WHERE c.key = go_through_a_life.key AND class = 'ttl'),
		(SELECT updated_at >= began FROM state_current c WHERE c.key = go_through_a_life.key AND class = 'ttl');
	PERFORM state_touch(key, class => 'ttl'); COMMIT;
	RAISE NOTICE 'touched: %', life(key);
	PERFORM state_touch(key, '1 mon 1 day 0.5 s', class => 'ttl'); COMMIT;
	PERFORM age(key); COMMIT;
	PERFORM state_update(key, '{"n": 3}', class => 'ttl'), state_touch(key, class => 'ttl'); COMMIT;
	RAISE NOTICE 'another one, and an update with it: %',
		(SELECT (ttl, expires_at > now() + '28 days', version) FROM state_head h WHERE h.key = go_through_a_life.key AND class = 'ttl');
	PERFORM state_set(key, '{"n": 4}', class => 'ttl'); COMMIT;
	RAISE NOTICE 'a set without one forgets it: %', life(key);
	RAISE NOTICE 'touched: % %', state_touch(key, class => 'ttl'), life(key); COMMIT;
	PERFORM state_set(key, '{"n": 5}', ttl => '3 hours', class => 'ttl');
	PERFORM state_touch(key, class => 'ttl'); COMMIT;
	RAISE NOTICE 'set and touched at once: %', life(key);
	PERFORM state_touch(key, '1 hour', class => 'ttl');
	PERFORM state_touch(key, class => 'ttl'); COMMIT;
	RAISE NOTICE 'touched twice: %', life(key);
	PERFORM state_touch(key, NULL, class => 'ttl'); COMMIT;
	RAISE NOTICE 'no end: %', life(key);
	PERFORM state_set(key, '{"n": 6}', ttl => '3 hours', class => 'ttl'); COMMIT;
	RAISE NOTICE 'still the same life: %',
		(SELECT created_at = '2001-01-01' FROM state_current c WHERE c.key = go_through_a_life.key AND class = 'ttl');
	PERFORM state_delete(key, class => 'ttl'); COMMIT;
	RAISE NOTICE 'deleted: % %', life(key), state_touch(key, class => 'ttl'); COMMIT;
	PERFORM state_update(key, '{"n": 7}', class => 'ttl'); COMMIT;
	RAISE NOTICE 'a new life: % created %', life(key),
		(SELECT created_at BETWEEN began AND updated_at FROM state_current c WHERE c.key = go_through_a_life.key AND class = 'ttl');
	PERFORM state_touch(key, '2 hours', class => 'ttl'); COMMIT;
	UPDATE state_head h SET expires_at = now() - interval '1 s', created_at = '2001-01-01'
		WHERE class = 'ttl' AND h.key = go_through_a_life.key; COMMIT;
	PERFORM state_update(key, '{"n": 8}', class => 'ttl'); COMMIT;
	RAISE NOTICE 'after its end: % created %', life(key),
		(SELECT created_at BETWEEN began AND updated_at FROM state_current c WHERE c.key = go_through_a_life.key AND class = 'ttl');
END
$$;
CALL go_through_a_life('plain');
CREATE TRIGGER z BEFORE UPDATE ON state_head FOR EACH ROW EXECUTE FUNCTION do_nothing();
CALL go_through_a_life('by statements');
DROP TRIGGER z ON state_head;

-- That of the class, where the state has none of its own.
SELECT state_class_define('ttl', ttl => '4 hours');
SELECT state_set('of the class', '1', class => 'ttl');
SELECT life('of the class');
SELECT age('of the class');
SELECT state_touch('of the class', class => 'ttl');
SELECT life('of the class');
SELECT state_class_define('ttl', ttl => NULL);

-- A savepoint takes it back.
SELECT state_set('back', '1', ttl => '2 hours', class => 'ttl');
BEGIN;
SAVEPOINT s;
SELECT state_touch('back', '5 hours', class => 'ttl');
ROLLBACK TO s;
SELECT state_touch('back', class => 'ttl');
COMMIT;
SELECT life('back');

-- All that have a prefix: those that only this transaction or L1 knows, too; not those that are gone.
SELECT state_set('many/' || n, '1', ttl => make_interval(hours => n), class => c) FROM generate_series(1, 3) n,
	unnest('{ttl,ttl left}'::text[]) c;
SELECT age('many/1'), state_delete('many/3', class => 'ttl');
BEGIN;
SELECT state_set('many/0', '1', ttl => '5 hours', class => 'ttl');
SELECT state_touch_prefix('many/', class => 'ttl'), state_touch_prefix('many/', '7 hours', class => 'ttl left'), state_touch_prefix('none', class => 'ttl');
COMMIT;
SELECT state_flush('ttl left') IS NOT NULL;
SELECT class, key, life(key, class) FROM state_head WHERE class LIKE 'ttl%' AND key LIKE 'many/%' ORDER BY class, key;
SELECT state_touch_prefix('many/', NULL, class => 'ttl');
SELECT key, life(key) FROM state_current WHERE class = 'ttl' AND key LIKE 'many/%' ORDER BY key;
SELECT complaint($$SELECT state_touch_prefix(NULL)$$), complaint($$SELECT state_touch_prefix('many/', '-1 s', class => 'ttl')$$);

-- No state; nothing that is a time to live.
SELECT state_touch('absent', class => 'ttl');
SELECT complaint($$SELECT state_touch('back', '-1 us', class => 'ttl')$$);

-- A version of which the tables know nothing yet remembers it too; one that L1 has no room for is written at once.
SELECT state_set('new', '{"n": 1}', ttl => '2 hours', class => 'ttl left');
SELECT state_touch('new', class => 'ttl left');
SELECT state_update('new', '{"n": 2}', class => 'ttl left');
SELECT state_flush('ttl left') IS NOT NULL;
SELECT life('new', 'ttl left');
SELECT age('new', 'ttl left');
SELECT state_update('new', '{"n": 3}', class => 'ttl left');
SELECT state_touch('new', class => 'ttl left');
SELECT state_flush('ttl left') IS NOT NULL;
SELECT life('new', 'ttl left');
SELECT state_touch('new', '1 day 90 min', class => 'ttl left');
SELECT state_set('new', '{"n": 4}', ttl => '1 mon 2 days 3.5 s', class => 'ttl left');
SELECT ttl FROM state_head WHERE class = 'ttl left' AND key = 'new';
SELECT state_set('new', '{"n": 5}', ttl => '1 mon 2 days 3 s', class => 'ttl left');
SELECT state_set('new', '{"n": 6}', class => 'ttl left');
SELECT state_flush('ttl left') IS NOT NULL;
SELECT life('new', 'ttl left');
