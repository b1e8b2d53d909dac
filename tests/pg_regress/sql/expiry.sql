-- Time to live. From expires_at on a state reads as absent, counts as absent, and its key can be written again.
\a \t \pset null (null)
SELECT state_class_define('expiry', channel => 'expiry_changed');
-- No worker removes what has expired before it is looked at.
ALTER SYSTEM SET state_cache.max_workers = 0;
SELECT pg_reload_conf();
DO $$ BEGIN
	WHILE EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'state_cache worker') LOOP
		PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
	END LOOP;
END $$;

-- ttl of one state.
SELECT state_set('doc', '{"n": 1}', ttl => '1 hour', class => 'expiry');
SELECT expires_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' FROM state_head WHERE class = 'expiry' AND key = 'doc';
SELECT seen('doc', 'expiry');
-- An operation leaves it alone; a set without one ends it.
SELECT state_update('doc', '{"n": 2}', class => 'expiry');
SELECT expires_at IS NOT NULL FROM state_head WHERE class = 'expiry' AND key = 'doc';
SELECT state_set('doc', '{"n": 3}', class => 'expiry');
SELECT expires_at IS NOT NULL FROM state_head WHERE class = 'expiry' AND key = 'doc';

-- An entry of L1 expires like the row does: this one was cached by its own commit and by the first read.
SELECT state_set('short', '{"n": 1, "s": {}}', ttl => '200 ms', class => 'expiry');
SELECT state_get('short', class => 'expiry') IS NOT NULL OR clock_timestamp() >= expires_at FROM state_head WHERE class = 'expiry' AND key = 'short';
SELECT pg_sleep(greatest(0, extract(epoch FROM expires_at - clock_timestamp()))) FROM state_head WHERE class = 'expiry' AND key = 'short';
SELECT seen('short', 'expiry'), stored('short', 'expiry');
SELECT state_get('short', class => 'expiry'), state_get_text('short', class => 'expiry'), state_get_path('short', '{n}', class => 'expiry'),
	state_get_section('short', 's', class => 'expiry'), state_get_section('short', 'n', class => 'expiry'), state_version('short', class => 'expiry'), state_exists('short', class => 'expiry');
SELECT * FROM state_get_many('{short,doc}', class => 'expiry');
SELECT * FROM state_get_if_newer('short', 0, class => 'expiry');

-- Absent for changes: nothing to delete, to touch, to append to.
SELECT state_delete('short', class => 'expiry'), state_touch('short', '1 hour', class => 'expiry');
SELECT state_append('short', '{list}', '1', class => 'expiry');
\echo :SQLSTATE
SELECT state_set('short', '{}', expected_version => 1, class => 'expiry');
\echo :SQLSTATE
-- Absent for expected_version, and its numbers go on.
SELECT state_set('short', '{"n": 2}', expected_version => 0, class => 'expiry');
SELECT stored('short', 'expiry'), seen('short', 'expiry');

-- An expired state is no base: an update starts from {}.
UPDATE state_head SET expires_at = now() - interval '1 second' WHERE class = 'expiry' AND key = 'doc';
SELECT seen('doc', 'expiry');
SELECT state_update('doc', '{"fresh": true}', class => 'expiry');
SELECT stored('doc', 'expiry');
SELECT expires_at FROM state_head WHERE class = 'expiry' AND key = 'doc';

-- statement_timestamp() decides, so a long transaction sees it go, and a statement does not.
SELECT state_set('long', '{"n": 1}', ttl => '300 ms', class => 'expiry');
BEGIN;
SELECT expires_at AS expires_at FROM state_head WHERE class = 'expiry' AND key = 'long' \gset
SELECT state_exists('long', class => 'expiry') = (statement_timestamp() < :'expires_at'),
	pg_sleep(greatest(0, extract(epoch FROM :'expires_at'::timestamptz - clock_timestamp()))),
	state_exists('long', class => 'expiry') = (statement_timestamp() < :'expires_at');
SELECT state_exists('long', class => 'expiry');
COMMIT;

-- state_touch: a new end, or none.
SELECT state_set('touched', '{"n": 1}', ttl => '1 hour', class => 'expiry');
SELECT state_touch('touched', '2 hours', class => 'expiry');
SELECT version, expires_at - clock_timestamp() BETWEEN '119 minutes' AND '2 hours' FROM state_head WHERE class = 'expiry' AND key = 'touched';
SELECT count(*) FROM state_kept WHERE class = 'expiry' AND key = 'touched';
SELECT state_touch('touched', NULL, class => 'expiry');
SELECT version, expires_at FROM state_head WHERE class = 'expiry' AND key = 'touched';
-- L1 hears of it: an entry does not go on with the old end.
SELECT state_touch('touched', '100 ms', class => 'expiry');
SELECT pg_sleep(greatest(0, extract(epoch FROM expires_at - clock_timestamp()))) FROM state_head WHERE class = 'expiry' AND key = 'touched';
SELECT seen('touched', 'expiry');
-- Touched and changed in one transaction, in both orders.
BEGIN;
SELECT state_update('doc', '{"n": 5}', class => 'expiry');
SELECT state_touch('doc', '1 hour', class => 'expiry');
COMMIT;
SELECT version, expires_at IS NOT NULL FROM state_head WHERE class = 'expiry' AND key = 'doc';
BEGIN;
SELECT state_touch('doc', NULL, class => 'expiry');
SELECT state_update('doc', '{"n": 6}', class => 'expiry');
COMMIT;
SELECT version, expires_at IS NOT NULL FROM state_head WHERE class = 'expiry' AND key = 'doc';

-- A class's ttl: a state that was not written for so long is gone. Every write renews it.
SELECT state_class_define('expiry', ttl => '1 hour');
SELECT state_set('by class', '{"n": 1}', class => 'expiry');
SELECT expires_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' FROM state_head WHERE class = 'expiry' AND key = 'by class';
UPDATE state_head SET expires_at = now() + interval '1 minute' WHERE class = 'expiry' AND key = 'by class';
SELECT state_update('by class', '{"n": 2}', class => 'expiry');
SELECT version, expires_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' FROM state_head WHERE class = 'expiry' AND key = 'by class';
-- Also a write that changes nothing.
UPDATE state_head SET expires_at = now() + interval '1 minute' WHERE class = 'expiry' AND key = 'by class';
SELECT state_update('by class', '{"n": 2}', class => 'expiry');
SELECT version, expires_at - clock_timestamp() BETWEEN '59 minutes' AND '1 hour' FROM state_head WHERE class = 'expiry' AND key = 'by class';
-- The state's own ttl goes before the class's.
SELECT state_set('by class', '{"n": 3}', ttl => '2 hours', class => 'expiry');
SELECT expires_at - clock_timestamp() BETWEEN '119 minutes' AND '2 hours' FROM state_head WHERE class = 'expiry' AND key = 'by class';

-- Time to live is a positive length of time.
SELECT complaint($$SELECT state_set('doc', '{}', ttl => '0', class => 'expiry')$$);
SELECT complaint($$SELECT state_set('doc', '{}', ttl => '-1 s', class => 'expiry')$$);
SELECT complaint($$SELECT state_touch('doc', '-1 month', class => 'expiry')$$);
SELECT complaint($$SELECT state_set('doc', '{}', ttl => '300000 years', class => 'expiry')$$);
-- Within the transaction that staged it the time runs as well.
BEGIN;
SELECT state_set('staged', '{"n": 1}', ttl => '50 ms', class => 'expiry');
SELECT pg_sleep(0.06);
SELECT state_get('staged', class => 'expiry');
COMMIT;
SELECT seen('staged', 'expiry') = stored('staged', 'expiry');
ALTER SYSTEM RESET state_cache.max_workers;
SELECT pg_reload_conf();
