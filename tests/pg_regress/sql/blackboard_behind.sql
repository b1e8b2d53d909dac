-- Blackboards in write mode behind: the worker has no room for items in what it tells, so changes of a blackboard are
-- written through and told with the commit.
\a \t \pset null (null)
\set heard '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*\\}" received from .*/}/; s/^Asynchronous notification "state_updated" with payload "/heard: /\''
ALTER SYSTEM SET state_cache.flush_interval = '1h';
SELECT pg_reload_conf();
SELECT state_class_define('swarm', write_mode => 'behind');
-- What stays dirty keeps the worker here.
SELECT state_class_define('blackboard other', write_mode => 'behind');
CREATE PROCEDURE pg_temp.await_accepting() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM state_set('accepting', to_jsonb(clock_timestamp()), class => 'blackboard other');
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM state_cache_unwritten WHERE class = 'blackboard other');
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
-- What the worker tells, at its own time, is not to be heard here.
SET state_cache.notify = off;
CALL pg_temp.await_accepting();
CREATE VIEW pg_temp.unwritten AS SELECT key, version FROM state_cache_unwritten WHERE class = 'swarm' ORDER BY key;
-- items() shows which the tables hold, and with which version.
CREATE FUNCTION pg_temp.items(swarm text) RETURNS text LANGUAGE sql AS $$
	SELECT format('v%s %s', c.version, (SELECT string_agg(i.key, ', ' ORDER BY i.key) FROM jsonb_object_keys(c.state -> 'blackboard') i(key)))
		FROM state_current c WHERE c.class = 'swarm' AND c.key = swarm
$$;

-- Other changes are left to the worker.
SELECT state_set('board', '{"team": ["x"]}', class => 'swarm');
RESET state_cache.notify;
SELECT * FROM pg_temp.unwritten;
-- A blackboard's are not, and what was left goes with the first.
LISTEN state_updated;
\o :heard
SELECT state_blackboard_add('board', 'a', '1');
SELECT state_blackboard_add('fresh', 'a', '1');
\o
SELECT * FROM pg_temp.unwritten;
SELECT pg_temp.items('board'), pg_temp.items('fresh'), state_get('board', 'swarm') -> 'team';
-- Nor is what follows in the same transaction: it would take the items out of the message.
\o :heard
BEGIN;
SELECT state_blackboard_add('board', 'b', '1');
SELECT action FROM state_batch_commit();
SELECT state_update('board', '{"team": ["y"]}', class => 'swarm');
SELECT action FROM state_batch_commit();
SELECT state_touch('board', '1 day', class => 'swarm');
COMMIT;
\o
SELECT * FROM pg_temp.unwritten;
SELECT pg_temp.items('board'), state_get('board', 'swarm') -> 'team';
-- What the transaction itself has left before is written then.
\o :heard
BEGIN;
SELECT state_update('board', '{"team": ["z"]}', class => 'swarm');
SELECT action FROM state_batch_commit();
SELECT state_blackboard_remove('board', 'a');
COMMIT;
\o
SELECT * FROM pg_temp.unwritten;
SELECT pg_temp.items('board'), state_get('board', 'swarm') -> 'team';
-- A savepoint that is rolled back takes the item with it, and the rest is left again.
SET state_cache.notify = off;
BEGIN;
SELECT state_update('board', '{"team": ["w"]}', class => 'swarm');
SAVEPOINT s;
SELECT state_blackboard_add('board', 'rolled back', '1');
SELECT action FROM state_batch_commit();
ROLLBACK TO s;
COMMIT;
SELECT * FROM pg_temp.unwritten;
SELECT state_get('board', 'swarm') -> 'team', (SELECT string_agg(key, ', ') FROM state_blackboard_query('board'));

RESET state_cache.notify;
UNLISTEN state_updated;
SELECT state_class_define('swarm', write_mode => 'through');
SELECT state_class_define('blackboard other', write_mode => 'through');
SELECT count(state_delete(key, class => 'swarm')) FROM state_current WHERE class = 'swarm' AND key IN ('board', 'fresh');
ALTER SYSTEM RESET state_cache.flush_interval;
SELECT pg_reload_conf();
