-- Invalidations: who listens hears of every committed change, after it is visible, many changes in few messages.
\a \t \pset null (null)
-- What this session hears is shown without the parts that differ from run to run.
\set heard '|sed -E -e \'/^$/d\' -e \'s/"seq":[0-9]+/"seq":N/; s/"epoch":"[^"]+"/"epoch":"E"/; s/ received from server process with PID [0-9]+//\''
SELECT state_class_define('notify', channel => 'notify_test');
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN notify_test;
LISTEN cache_invalidate;

-- A change: class, op, the keys with their versions. Values never travel.
\o :heard
SELECT state_set('a', '{"secret": 1}', class => 'notify');
SELECT state_update('a', '{"secret": 2}', class => 'notify');
SELECT state_delete('a', class => 'notify');
\o
-- Several in one transaction: one message per class and kind of change.
\o :heard
BEGIN;
SELECT state_set('a', '{"n": 1}', class => 'notify');
SELECT state_set('b', '{"n": 1}', class => 'notify');
SELECT state_set('c', '{"n": 1}', class => 'notify');
COMMIT;
BEGIN;
SELECT state_delete('a', class => 'notify');
SELECT state_set('d', '{"n": 1}', class => 'notify');
SELECT state_update('b', '{"n": 2}', class => 'notify');
COMMIT;
\o
-- A key that changed more than once in it is named once, with the version that is current.
\o :heard
BEGIN;
SELECT state_set('b', '{"n": 3}', class => 'notify');
SELECT count(*) FROM state_batch_commit();
SELECT state_set('b', '{"n": 4}', class => 'notify');
SELECT count(*) FROM state_batch_commit();
COMMIT;
\o
SELECT state_version('b', class => 'notify');

-- Nothing on ROLLBACK, nor for the part that is rolled back.
\o :heard
BEGIN;
SELECT state_set('b', '{"n": 5}', class => 'notify');
SELECT action FROM state_batch_commit();
ROLLBACK;
BEGIN;
SELECT state_set('b', '{"n": 6}', class => 'notify');
SAVEPOINT s;
SELECT state_set('c', '{"n": 6}', class => 'notify');
SELECT count(*) FROM state_batch_commit();
ROLLBACK TO s;
COMMIT;
\o
-- Nothing for a duplicate, for what is only read, for a state_touch(), for a delete of nothing.
\o :heard
SELECT state_set('b', '{"n": 6}', class => 'notify');
SELECT state_get('b', class => 'notify') ->> 'n';
SELECT state_touch('b', '1 hour', class => 'notify');
SELECT state_delete('absent', class => 'notify');
SELECT state_cache_clear('notify') >= 0;
\o
-- Nothing when switched off, for the transaction or the session.
\o :heard
BEGIN;
SET LOCAL state_cache.notify = off;
SELECT state_set('b', '{"n": 7}', class => 'notify');
COMMIT;
SET state_cache.notify = off;
SELECT state_set('b', '{"n": 8}', class => 'notify');
SET state_cache.notify = commit;
SELECT state_set('b', '{"n": 9}', class => 'notify');
\o

-- Keys are JSON strings in the message, whatever is in them.
\o :heard
SELECT state_set(E'quote " backslash \\ newline \n tab \t é ☃', '{}', class => 'notify');
\o
\set heard_keys '|sed -n -E \'s/.* payload "(.*)" received .*/\\1/p\' | awk \'{ if (length($0) > 7900) print "too long"; n += gsub(/"key":/, "") } END { print (NR > 1 && NR <= 8) ? "a few messages" : NR " messages", n " keys" }\''
-- Keys that grow sixfold when written so still fit.
\o :heard_keys
SELECT count(state_set(repeat(chr(1), 250) || i, '{}', class => 'notify')) FROM generate_series(1, 6) i;
\o

-- More keys than fit: several messages, each at most 7,900 bytes, every key in exactly one of them.
\o :heard_keys
SELECT count(state_set('key ' || i, '{}', class => 'notify')) FROM generate_series(1, 1000) i;
\o
-- More than a handful of messages: one that says "everything".
\o :heard
SELECT count(state_update('many ' || i, '{}', class => 'notify')) FROM generate_series(1, 10000) i;
\o

-- The channels that come with the extension.
LISTEN state_updated;
LISTEN config_changed;
\o :heard
BEGIN;
SELECT state_set('notify', '{}', class => 'run');
SELECT state_set('notify', '{}', class => 'swarm');
SELECT state_set('notify', '{}', class => 'config');
COMMIT;
\o
UNLISTEN state_updated;
UNLISTEN config_changed;

-- Changes by hand are announced like the others.
\o :heard
UPDATE state_head SET state = '{"n": "hand"}', hash = state_hash('{"n": "hand"}') WHERE class = 'notify' AND key = 'b';
UPDATE state_head SET deleted = true WHERE class = 'notify' AND key = 'c';
UPDATE state_head SET deleted = false WHERE class = 'notify' AND key = 'c';
DELETE FROM state_head WHERE class = 'notify' AND key = 'd';
BEGIN;
UPDATE state_head SET version = 20 WHERE class = 'notify' AND key = 'b';
COMMIT;
BEGIN;
DELETE FROM state_head WHERE class = 'notify' AND key = 'b';
ROLLBACK;
\o
-- A table emptied, or very many rows changed: everything.
\o :heard
BEGIN;
TRUNCATE state_snapshot;
ROLLBACK;
UPDATE state_head SET updated_at = now() WHERE class = 'notify';
\o

-- state_invalidate tells the subscribers at COMMIT, whether or not this server had such an entry.
\o :heard
SELECT state_invalidate('key 1?', 'notify') >= 0;
SELECT state_invalidate('no such key', 'notify') >= 0;
SELECT state_invalidate('*') >= 0;
BEGIN;
SELECT state_invalidate('key 2*', 'notify') >= 0;
ROLLBACK;
\o

-- A channel that is changed holds from the next transaction on.
LISTEN notify_other;
SELECT state_class_define('notify', channel => 'notify_other');
\o :heard
SELECT state_set('b', '{"n": "other channel"}', class => 'notify');
\o

-- seq grows from message to message, epoch stays the same while the server runs.
\set heard_seq '|sed -n -E \'s/.*"seq":([0-9]+).*"epoch":"([^"]+)".*/\\1 \\2/p\' | awk \'{ if (NR > 1 && ($1 <= seq || $2 != epoch)) print "out of order"; seq = $1; epoch = $2 } END { print NR " messages" }\''
\o :heard_seq
SELECT state_set('a', '{"n": "seq 1"}', class => 'notify');
SELECT state_set('a', '{"n": "seq 2"}', class => 'notify');
SELECT state_set('a', '{"n": "seq 3"}', class => 'notify');
\o
UNLISTEN *;
