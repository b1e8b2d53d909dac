-- The blackboard of a swarm: items that runs leave for each other. A tour, then what is told, then what goes wrong.
\a \t \pset null (null)
-- What this session hears is shown without what differs from run to run.
\set heard '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*\\}" received from .*/}/; s/^Asynchronous notification "state_updated" with payload "/heard: /\''
-- board() shows an item per row, without its times.
CREATE FUNCTION pg_temp.board(swarm text, type text DEFAULT NULL, tag text DEFAULT NULL, created_by text DEFAULT NULL, access_level text DEFAULT NULL)
	RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('%s: %s %s by %s for %s %s', q.key, q.type, q.value, q.created_by, q.access_level, q.tags)
		FROM state_blackboard_query(swarm, board.type, board.tag, board.created_by, board.access_level) q
$$;

-- The first item makes the state. What is not said has a default.
SELECT state_blackboard_add('swarm-1', 'weather', '{"sky": "clear"}');
SELECT state_blackboard_add('swarm-1', 'plan-a', '{"steps": 3}', type => 'plan', created_by => 'planner', ttl => '1 hour', access_level => 'public', tags => '{urgent,draft}');
SELECT state_blackboard_add('swarm-1', 'goal', '"land"', type => 'goal', created_by => 'planner', tags => '{urgent}');
SELECT state_blackboard_add('swarm-1', 'guess', '[0.5, null]', 'hypothesis', 'scout', access_level => 'private');
SELECT * FROM pg_temp.board('swarm-1');
SELECT state_version('swarm-1', 'swarm');

-- By type, tag, creator, access level; all that is named must hold.
SELECT * FROM pg_temp.board('swarm-1', type => 'plan');
SELECT * FROM pg_temp.board('swarm-1', tag => 'urgent');
SELECT * FROM pg_temp.board('swarm-1', created_by => 'scout');
SELECT * FROM pg_temp.board('swarm-1', access_level => 'group');
SELECT * FROM pg_temp.board('swarm-1', tag => 'urgent', access_level => 'group');
SELECT * FROM pg_temp.board('swarm-1', type => 'plan', created_by => 'scout');
SELECT * FROM pg_temp.board('no such swarm');

-- The times are the server's. An item that is to live for an hour expires an hour after it was made.
SELECT key, created_at > now() - interval '10 minutes' AND created_at <= clock_timestamp(), expires_at - created_at FROM state_blackboard_query('swarm-1');
-- In the document they are UTC, with microseconds.
SELECT state -> 'blackboard' -> 'plan-a' ->> 'expiresAt' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$' FROM state_current WHERE class = 'swarm' AND key = 'swarm-1';
SELECT key, jsonb_path_query_array(value, '$.keyvalue().key') FROM jsonb_each(state_get('swarm-1', 'swarm') -> 'blackboard') ORDER BY key;

-- An update changes what is named and nothing else.
SELECT state_blackboard_update('swarm-1', 'plan-a', '{"steps": 4}');
SELECT state_blackboard_update('swarm-1', 'goal', type => 'data', access_level => 'public', tags => '{}');
SELECT state_blackboard_update('swarm-1', 'weather', ttl => '1 day');
SELECT * FROM pg_temp.board('swarm-1');
SELECT key, expires_at - created_at > interval '1 day', expires_at < clock_timestamp() + interval '1 day' FROM state_blackboard_query('swarm-1') WHERE expires_at IS NOT NULL;
-- One that says what is there already is no change.
SELECT state_version('swarm-1', 'swarm') AS before \gset
SELECT state_blackboard_update('swarm-1', 'plan-a', '{"steps": 4}', tags => '{urgent,draft}');
SELECT state_version('swarm-1', 'swarm') - :before;

-- Removed, and not there to be removed again.
SELECT state_blackboard_remove('swarm-1', 'guess'), state_blackboard_remove('swarm-1', 'guess'), state_blackboard_remove('no such swarm', 'guess');
SELECT string_agg(key, ', ') FROM state_blackboard_query('swarm-1');
SELECT state_exists('no such swarm', 'swarm');

-- The rest of the document is the application's.
SELECT state_set('swarm-2', '{"team": ["x"], "leader": null}', class => 'swarm');
SELECT state_blackboard_add('swarm-2', 'a', '1');
SELECT state_blackboard_remove('swarm-2', 'a');
SELECT state_get('swarm-2', 'swarm');
SELECT state_update('swarm-2', '{"leader": "y"}', class => 'swarm');
SELECT state_get('swarm-2', 'swarm') - 'blackboard';

-- Staged like any other change: seen at once by who made it, gone with a rollback.
BEGIN;
SELECT state_blackboard_add('swarm-2', 'a', '1', created_by => 'me');
SAVEPOINT s;
SELECT state_blackboard_add('swarm-2', 'b', '2', created_by => 'me');
SELECT state_blackboard_remove('swarm-2', 'a');
SELECT * FROM pg_temp.board('swarm-2');
ROLLBACK TO s;
SELECT * FROM pg_temp.board('swarm-2');
ROLLBACK;
SELECT * FROM pg_temp.board('swarm-2');

-- Old versions have their blackboards too.
SELECT state_class_define('swarm', keep => 10);
SELECT state_blackboard_add('swarm-2', 'a', '1', tags => '{old}');
SELECT state_version('swarm-2', 'swarm') AS before \gset
SELECT state_blackboard_remove('swarm-2', 'a');
SELECT jsonb_object_keys(state_blackboard_items('swarm-2', state_at('swarm-2', :before, 'swarm'), tag => 'old'));
SELECT state_class_define('swarm', keep => 1);

-- Expiry. What has expired is not shown, not updated, not removed, does not stand in the way, and goes with the next change.
SELECT state_set('swarm-3', format('{"blackboard": {"over": %s, "later": %s, "never": %s}}',
		item || '{"key": "over", "expiresAt": "2001-01-01T00:00:00Z"}',
		item || '{"key": "later", "expiresAt": "2201-01-01T00:00:00+01:00"}',
		item || '{"key": "never"}')::jsonb, class => 'swarm')
	FROM (SELECT jsonb '{"value": 1, "type": "data", "createdBy": "me", "createdAt": "2000-12-31T23:59:59.5Z", "accessLevel": "group", "tags": []}') i(item);
SELECT key, extract(epoch FROM created_at), expires_at AT TIME ZONE 'UTC' FROM state_blackboard_query('swarm-3');
SELECT outcome($$SELECT state_blackboard_update('swarm-3', 'over', '2')$$);
BEGIN;
SELECT state_blackboard_remove('swarm-3', 'over');
SELECT jsonb_object_keys(state_get('swarm-3', 'swarm') -> 'blackboard');
ROLLBACK;
BEGIN;
SELECT state_blackboard_update('swarm-3', 'never', '2');
SELECT jsonb_object_keys(state_get('swarm-3', 'swarm') -> 'blackboard');
ROLLBACK;
BEGIN;
SELECT state_blackboard_add('swarm-3', 'other', '2');
SELECT jsonb_object_keys(state_get('swarm-3', 'swarm') -> 'blackboard');
ROLLBACK;
SELECT state_blackboard_add('swarm-3', 'over', '"again"', created_by => 'me');
SELECT * FROM pg_temp.board('swarm-3');
-- The clock stands still while a statement runs: what this adds is over when the next one begins.
SELECT state_blackboard_add('swarm-3', 'short', '1', ttl => '1 microsecond');
SELECT state_blackboard_remove('swarm-3', 'short');

-- Fault seen elsewhere: blackboard changes are never reported. Here each is, with the item's key.
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN state_updated;
\echo blackboard changes are reported
\o :heard
SELECT state_blackboard_add('told', 'plan-a', '1');
SELECT state_blackboard_update('told', 'plan-a', '2');
SELECT state_blackboard_remove('told', 'plan-a');
\o
-- Several in one transaction, each once.
\o :heard
BEGIN;
SELECT state_blackboard_add('told', 'c', '1');
SELECT state_blackboard_add('told', 'a', '1');
SELECT state_blackboard_update('told', 'c', '2');
SELECT state_blackboard_add('told too', 'b', '1');
COMMIT;
\o
-- Not what was rolled back: with a savepoint, with a batch.
\o :heard
BEGIN;
SELECT state_blackboard_add('told', 'kept', '1');
SAVEPOINT s;
SELECT state_blackboard_add('told', 'rolled back', '1');
ROLLBACK TO s;
COMMIT;
BEGIN;
SAVEPOINT s;
SELECT state_blackboard_add('told', 'flushed and rolled back', '1');
SELECT action FROM state_batch_commit();
ROLLBACK TO s;
SELECT state_blackboard_add('told', 'kept too', '1');
COMMIT;
BEGIN;
SELECT state_blackboard_add('told', 'staged before', '1');
SELECT state_batch_begin();
SELECT state_blackboard_add('told', 'dropped', '1');
SELECT state_batch_rollback();
COMMIT;
BEGIN;
SELECT state_blackboard_add('told', 'dropped as well', '1');
SELECT state_batch_rollback();
SELECT state_blackboard_remove('told', 'staged before');
COMMIT;
\o
-- What a flush within the transaction has written is told with what comes after it.
\o :heard
BEGIN;
SELECT state_blackboard_add('told', 'first', '1');
SELECT action FROM state_batch_commit();
SAVEPOINT s;
SELECT state_blackboard_add('told', 'second', '1');
SELECT action FROM state_batch_commit();
RELEASE s;
SELECT state_blackboard_add('told', 'third', '1');
COMMIT;
\o
-- Nothing for what changes nothing.
\o :heard
SELECT state_blackboard_update('told', 'first', '1');
SELECT state_blackboard_remove('told', 'no such item');
\o
-- Null: look at the whole blackboard. Something else of the state was changed too,
\o :heard
BEGIN;
SELECT state_blackboard_add('told', 'd', '1');
SELECT state_update('told', '{"team": "x"}', class => 'swarm');
COMMIT;
BEGIN;
SELECT state_update('told', '{"team": "y"}', class => 'swarm');
SELECT action FROM state_batch_commit();
SELECT state_blackboard_add('told', 'e', '1');
COMMIT;
\o
-- (not because a batch overwrites: items of others it does not),
\o :heard
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT state_blackboard_add('told', 'f', '1');
COMMIT;
\o
-- or the state is new after its end, in this transaction or another,
\o :heard
BEGIN;
SELECT state_delete('told', class => 'swarm');
SELECT state_blackboard_add('told', 'g', '1');
COMMIT;
SELECT state_delete('told', class => 'swarm');
SELECT state_blackboard_add('told', 'h', '1');
BEGIN;
SELECT state_touch('told', '1 microsecond', class => 'swarm');
SELECT state_blackboard_add('told', 'i', '1');
COMMIT;
\o
-- or there are too many to be named: their keys would take more than 2,000 bytes.
\o :heard
SELECT count(state_blackboard_add('told', 'item ' || i, '1')) FROM generate_series(1, 300) i;
BEGIN;
SELECT count(state_blackboard_add('told', repeat(chr(1), 170) || i, '1')) FROM generate_series(1, 2) i;
COMMIT;
\o
-- Each of these takes 11: 181 have room.
\o '|sed -n -E \'s/.*"items":(.*)\\}\\],"seq.*/\\1/p\' | awk \'{ n = gsub(/"many /, ""); print (n > 0 ? n " items are named" : $1) }\''
SELECT count(state_blackboard_add('told', 'many ' || i, '1')) FROM generate_series(100, 280) i;
SELECT count(state_blackboard_add('told', 'many ' || i, '1')) FROM generate_series(300, 481) i;
\o
-- A key is a JSON string there, whatever is in it, and the longest has room.
\o :heard
SELECT state_blackboard_add('told', E'quote " backslash \\ newline \n é ☃', '1');
\o
\o '|sed -n -E \'s/.*"items":(.....).*/\\1/p\''
SELECT state_blackboard_add('told', repeat(chr(1), 255), '1');
\o
-- Without a word about items: the state was changed in other ways, or deleted.
\o :heard
SELECT state_set('told', '{}', class => 'swarm');
SELECT state_touch('told', '1 day', class => 'swarm');
BEGIN;
SELECT state_blackboard_add('told', 'last', '1');
SELECT action FROM state_batch_commit();
SELECT state_delete('told', class => 'swarm');
COMMIT;
\o
-- The worker has no room for items: the commit tells them, whoever is to tell the rest.
SET state_cache.notify = worker;
\o :heard
SELECT state_blackboard_add('told too', 'by the commit', '1');
\o
SET state_cache.notify = off;
\o :heard
SELECT state_blackboard_add('told too', 'by nobody', '1');
\o
SET state_cache.notify = commit;
UNLISTEN state_updated;

-- What a run exports to the blackboard of its swarm is put there, over what is there under that key.
SELECT state_context_create('blackboard run', inputs => '{"plan": [1, 2], "fact": 7}', swarm_id => 'swarm-1') > 0;
SELECT state_context_mark_export('blackboard run', 'plan', 'blackboard', target_key => 'plan-a',
	item => '{"type": "goal", "ttl": "2 hours", "accessLevel": "private", "tags": ["done"]}');
SELECT state_context_mark_export('blackboard run', 'fact', 'blackboard');
SELECT key, target FROM state_context_complete('blackboard run') ORDER BY key;
SELECT b, q.expires_at - q.created_at FROM state_blackboard_query('swarm-1', created_by => 'blackboard run') q, pg_temp.board('swarm-1', created_by => 'blackboard run') b WHERE b LIKE q.key || ':%';
-- What an item cannot be given is refused when the export is marked.
SELECT state_context_create('blackboard run 2', inputs => '{"plan": 1}', swarm_id => 'swarm-1') > 0;
SELECT complaint(format($$SELECT state_context_mark_export('blackboard run 2', 'plan', 'blackboard', item => %L)$$, item))
	FROM (VALUES ('[]'), ('{"type": "wish"}'), ('{"accessLevel": "all"}'), ('{"type": 7}'), ('{"ttl": "0"}'), ('{"ttl": "soon"}'), ('{"tags": "x"}'), ('{"tags": [1]}'), ('{"colour": "red"}')) v(item);
SELECT count(state_delete(key)) FROM unnest('{blackboard run,blackboard run 2}'::text[]) key;

-- What is there is not added, what is not there is not updated; the name of both is in the error.
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'goal', '1')$$);
SELECT complaint($$SELECT state_blackboard_update('swarm-1', 'no such item', '1')$$);
SELECT complaint($$SELECT state_blackboard_update('no such swarm', 'goal', '1')$$);
SELECT state_exists('no such swarm', 'swarm');
-- Values, words, times, keys that make no sense.
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'x', 'null')$$);
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'x', NULL)$$);
SELECT complaint($$SELECT state_blackboard_update('swarm-1', 'goal', 'null')$$);
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'x', '1', type => 'wish')$$);
SELECT complaint($$SELECT state_blackboard_update('swarm-1', 'goal', type => 'wish')$$);
SELECT complaint($$SELECT * FROM state_blackboard_query('swarm-1', type => 'wish')$$);
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'x', '1', access_level => 'all')$$);
SELECT complaint($$SELECT state_blackboard_update('swarm-1', 'goal', access_level => 'all')$$);
SELECT complaint($$SELECT * FROM state_blackboard_query('no such swarm', access_level => 'all')$$);
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'x', '1', ttl => '0')$$);
SELECT complaint($$SELECT state_blackboard_update('swarm-1', 'goal', ttl => '-1 hour')$$);
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'x', '1', ttl => '10000 years')$$);
SELECT complaint($$SELECT state_blackboard_add('swarm-1', 'x', '1', tags => '{a,NULL}')$$);
SELECT complaint($$SELECT state_blackboard_add('swarm-1', '', '1')$$);
SELECT outcome($$SELECT state_blackboard_add('swarm-1', repeat('x', 256), '1')$$);
SELECT outcome($$SELECT state_blackboard_remove('swarm-1', '')$$);
SELECT outcome($$SELECT state_blackboard_add('', 'x', '1')$$);
SELECT outcome($$SELECT state_blackboard_add('swarm-1', 'x', '1', $$ || argument || ' => NULL)')
	FROM unnest('{type,created_by,access_level,tags}'::text[]) argument;
SELECT outcome($$SELECT state_blackboard_add(NULL, 'x', '1')$$), outcome($$SELECT state_blackboard_update('swarm-1', NULL, '1')$$),
	outcome($$SELECT state_blackboard_remove(NULL, 'x')$$), outcome($$SELECT * FROM state_blackboard_query(NULL)$$);
SELECT string_agg(key, ', ') FROM state_blackboard_query('swarm-1');

-- Somebody has written the state otherwise: the error names the field, and nothing is repaired in silence.
CREATE FUNCTION pg_temp.said_of(document jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_set('odd', document, class => 'swarm');
	RETURN NEXT outcome($q$SELECT * FROM state_blackboard_query('odd')$q$);
	RETURN NEXT outcome($q$SELECT state_blackboard_update('odd', 'a', '2')$q$);
	RETURN NEXT outcome($q$SELECT state_blackboard_add('odd', 'b', '2')$q$);
	RETURN NEXT outcome($q$SELECT state_blackboard_remove('odd', 'b')$q$);
	IF state_get('odd', 'swarm') IS DISTINCT FROM document THEN
		RETURN NEXT 'changed to ' || state_get('odd', 'swarm');
	END IF;
END
$$;
BEGIN;
SELECT * FROM pg_temp.said_of('["no object"]');
SELECT * FROM pg_temp.said_of('{"blackboard": null}');
SELECT * FROM pg_temp.said_of('{"blackboard": ["a"]}');
SELECT * FROM pg_temp.said_of('{"blackboard": {"a": "text"}}');
SELECT * FROM pg_temp.said_of('{"blackboard": {"a": {"expiresAt": "tomorrow"}}}');
-- An item that is incomplete is in the way of those who look at it, not of others.
SELECT * FROM pg_temp.said_of('{"blackboard": {"a": {"key": "a", "value": 1, "type": "wish"}}}');
ROLLBACK;
SELECT complaint($$SELECT state_blackboard_items('odd', '{"blackboard": {"a": {"key": "b"}}}')$$);

-- Who may not change or read the state may not do so with its blackboard.
CREATE ROLE regress_blackboard;
SET ROLE regress_blackboard;
SELECT outcome($$SELECT state_blackboard_add('swarm-1', 'x', '1')$$);
SELECT outcome($$SELECT state_blackboard_remove('swarm-1', 'goal')$$);
SELECT outcome($$SELECT * FROM state_blackboard_query('swarm-1')$$);
RESET ROLE;
GRANT SELECT ON state_class, state_head, state_snapshot TO regress_blackboard;
SET ROLE regress_blackboard;
SELECT string_agg(key, ', ') FROM state_blackboard_query('swarm-1');
SELECT outcome($$SELECT state_blackboard_add('swarm-1', 'x', '1')$$);
RESET ROLE;
-- The one who adds an item is its creator unless said otherwise.
GRANT INSERT, UPDATE, DELETE ON state_head, state_snapshot TO regress_blackboard;
SET ROLE regress_blackboard;
SELECT state_blackboard_add('swarm-2', 'mine', '1');
SELECT key, created_by FROM state_blackboard_query('swarm-2', created_by => 'regress_blackboard');
BEGIN READ ONLY;
SELECT outcome($$SELECT state_blackboard_remove('swarm-2', 'mine')$$);
ROLLBACK;
RESET ROLE;
DROP OWNED BY regress_blackboard;
DROP ROLE regress_blackboard;
-- It needs no search_path.
SET search_path = '';
SELECT string_agg(key, ', ') FROM public.state_blackboard_query('swarm-2');
RESET search_path;

SELECT count(state_delete(key, class => 'swarm')) FROM state_current WHERE class = 'swarm' AND key IN ('swarm-1', 'swarm-2', 'swarm-3', 'told too');
