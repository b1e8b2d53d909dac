-- Classes: kinds of state with limits and rules of their own.
\a \t \pset null (null)
-- What is not named gets its default, or stays as it is.
SELECT state_class_define('shop', keep => 3, ttl => '1 day', cache_ttl => '10 minutes', max_entries => 100, channel => 'shop_changed');
SELECT * FROM state_class WHERE class = 'shop';
SELECT state_class_define('shop', keep => 4, dedup => false);
SELECT * FROM state_class WHERE class = 'shop';
-- 0 takes a limit away.
SELECT state_class_define('shop', keep => 0, ttl => '0', cache_ttl => '0', max_entries => 0);
SELECT * FROM state_class WHERE class = 'shop';
-- Naming nothing changes nothing.
SELECT state_class_define('shop');
SELECT * FROM state_class WHERE class = 'shop';
-- The classes that came with the extension can be changed as well.
SELECT state_class_define('swarm', max_entries => 1000, cache_ttl => '5 minutes');
SELECT * FROM state_class WHERE class = 'swarm';
SELECT state_class_define('swarm', max_entries => 0, cache_ttl => '0');

-- A definition is a row: it belongs to its transaction.
BEGIN;
SELECT state_class_define('short lived');
SELECT state_set('doc', '{"n": 1}', class => 'short lived');
SELECT seen('doc', 'short lived');
ROLLBACK;
SELECT state_get('doc', class => 'short lived');
\echo :SQLSTATE
-- Deleting the row by hand makes the class unknown at once; its states are there again with it.
SELECT state_class_define('gone');
SELECT state_set('doc', '{"n": 1}', class => 'gone');
SELECT seen('doc', 'gone');
DELETE FROM state_class WHERE class = 'gone';
SELECT state_get('doc', class => 'gone');
\echo :SQLSTATE
SELECT state_class_define('gone');
SELECT seen('doc', 'gone');

-- A changed rule holds from the next statement on.
SELECT state_class_define('gone', ttl => '1 hour');
SELECT state_set('doc', '{"n": 2}', class => 'gone');
SELECT expires_at IS NOT NULL FROM state_head WHERE class = 'gone';
UPDATE state_class SET ttl = NULL WHERE class = 'gone';
SELECT state_set('doc', '{"n": 3}', class => 'gone');
SELECT expires_at IS NOT NULL FROM state_head WHERE class = 'gone';

-- Classes are apart: the same key is another state in each.
SELECT state_set('same', '"shop"', class => 'shop'), state_set('same', '"gone"', class => 'gone');
SELECT state_get('same', class => 'shop'), state_get('same', class => 'gone'), state_get('same');

-- What makes no sense.
SELECT complaint($$SELECT state_class_define(NULL)$$);
SELECT complaint($$SELECT state_class_define('')$$);
SELECT complaint($$SELECT state_class_define(repeat('x', 64))$$);
SELECT complaint($$SELECT state_class_define('shop', write_mode => 'behind')$$);
SELECT complaint($$SELECT state_class_define('shop', write_mode => 'sideways')$$);
SELECT complaint($$SELECT state_class_define('shop', notify => 'sometimes')$$);
SELECT complaint($$UPDATE state_class SET notify = 'sometimes' WHERE class = 'shop'$$);
SELECT complaint($$SELECT state_class_define('shop', notify => 'off')$$);
SELECT notify FROM state_class WHERE class = 'shop';
SELECT complaint($$SELECT state_class_define('shop', write_mode => 'through')$$);
SELECT complaint($$SELECT state_class_define('shop', keep => -1)$$);
SELECT complaint($$SELECT state_class_define('shop', max_entries => -1)$$);
SELECT complaint($$SELECT state_class_define('shop', ttl => '-1 s')$$);
SELECT complaint($$SELECT state_class_define('shop', cache_ttl => '-1 s')$$);
SELECT complaint($$SELECT state_class_define('shop', channel => '')$$);
SELECT complaint($$SELECT state_class_define('shop', channel => repeat('x', 64))$$);
SELECT * FROM state_class WHERE class = 'shop';
-- A name of 63 bytes is long enough for anyone.
SELECT state_class_define(repeat('é', 31) || 'x', channel => repeat('c', 63));
SELECT state_set('doc', '{}', class => repeat('é', 31) || 'x');
SELECT seen('doc', repeat('é', 31) || 'x');

-- A set-up script that adds what is missing leaves what is there as it is.
SELECT state_class_define('run', keep => 7, channel => 'run_test');
INSERT INTO state_class (class) VALUES ('run'), ('config') ON CONFLICT DO NOTHING;
SELECT class, keep, channel FROM state_class WHERE class IN ('run', 'config') ORDER BY class;
SELECT outcome($$INSERT INTO state_class (class) VALUES ('run')$$);
SELECT class, keep, channel FROM state_class WHERE class = 'run';
-- Also with the search_path of a dump's script. A dump brings back what was changed, and says that it was.
SET search_path = '';
INSERT INTO public.state_class (class) VALUES ('run') ON CONFLICT DO NOTHING;
RESET search_path;
SELECT class, keep, channel, changed FROM state_class WHERE class IN ('run', 'config') ORDER BY class;
INSERT INTO state_class (class, keep, channel, changed) VALUES ('run', 2, 'dumped', true), ('config', 3, 'dumped', true);
SELECT class, keep, channel, changed FROM state_class WHERE class IN ('run', 'config') ORDER BY class;
SELECT state_class_define('config', keep => 1, channel => 'config_changed');
-- Restored while triggers do not fire, it stands beside the row that CREATE EXTENSION made, and counts.
BEGIN;
DELETE FROM state_class WHERE class = 'swarm';
ALTER TABLE state_class DISABLE TRIGGER ALL;
INSERT INTO state_class (class, keep, channel, changed) VALUES ('swarm', 1, 'as it was', false), ('swarm', 2, 'dumped', true);
ALTER TABLE state_class ENABLE TRIGGER ALL;
ALTER TABLE state_class ENABLE ALWAYS TRIGGER state_class_restore, ENABLE ALWAYS TRIGGER state_class_changing, ENABLE ALWAYS TRIGGER state_class_truncating, ENABLE ALWAYS TRIGGER state_class_changed, ENABLE ALWAYS TRIGGER state_class_truncated;
COMMIT;
SELECT count(state_set('counts', to_jsonb(n), class => 'swarm')) FROM generate_series(1, 2) n;
SELECT count(*) FROM generate_series(3, 9) n, state_save('counts', to_jsonb(n), class => 'swarm');
SELECT version FROM state_history('counts', 'swarm') ORDER BY 1;
UPDATE state_class SET channel = 'both' WHERE class = 'swarm';
SELECT class, keep, channel, changed FROM state_class WHERE class = 'swarm' ORDER BY changed;
SELECT state_class_define('swarm', keep => 1, channel => 'state_updated');
SELECT state_delete('counts', class => 'swarm');
-- One that was deleted and is made anew is changed, too.
BEGIN;
DELETE FROM state_class WHERE class = 'config';
INSERT INTO state_class (class, keep) VALUES ('config', 5);
SELECT class, keep, changed FROM state_class WHERE class = 'config';
ROLLBACK;
SELECT state_class_define('run', keep => 1, channel => 'state_updated');

-- A trigger that swallows the row is an error, not a reason to try again for ever.
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON state_class FOR EACH ROW EXECUTE FUNCTION swallow();
SET statement_timeout = '10s';
SELECT complaint($$SELECT state_class_define('swallowed')$$);
RESET statement_timeout;
DROP TRIGGER swallow ON state_class;
DROP FUNCTION swallow;
SELECT count(*) FROM state_class WHERE class = 'swallowed';

-- Columns that somebody adds to the tables are in nobody's way.
BEGIN;
SELECT string_agg(format('ADD COLUMN extra_%s text DEFAULT %L', i, 'x'), ', ') AS columns FROM generate_series(1, 20) i \gset
ALTER TABLE state_class :columns;
ALTER TABLE state_head :columns;
ALTER TABLE state_snapshot :columns;
SELECT state_class_define('wide', keep => 3);
SELECT state_set('doc', '{"n": 1}', class => 'wide'), state_set('doc', '{"n": "wide"}', class => 'gone');
SELECT class, key, version, action FROM state_batch_commit() ORDER BY class;
SELECT state_get('doc', class => 'wide'), state_get('doc', class => 'gone'), stored('doc', 'wide');
UPDATE state_head SET deleted = true WHERE class = 'gone';
SELECT state_get('doc', class => 'gone');
SELECT count(*) FROM state_cache_stats WHERE class = 'wide';
ROLLBACK;
SELECT seen('doc', 'gone');
