-- Without shared_preload_libraries everything works, straight on the tables, and the statistics say so.
\a \t \pset null (null)
SHOW shared_preload_libraries;
SELECT class, l1, entries, bytes, memory_total, memory_used, memory_free FROM state_cache_stats WHERE class IS NULL;
SELECT count(*) FROM state_cache_entries;
SELECT state_set('not preloaded', '{"n": 1}');
SELECT seen('not preloaded', 'run'), stored('not preloaded', 'run');
SELECT state_cache_clear(), state_cache_clear('run'), state_invalidate('*'), state_invalidate('not*', 'run');
UPDATE state_head SET deleted = true WHERE key = 'not preloaded';
SELECT seen('not preloaded', 'run');
SELECT count(*) FROM state_cache_entries;
-- Messages are sent, without the number and the epoch that shared memory would give them.
LISTEN state_updated;
\o '|sed -e \'/^$/d\' -e \'s/ received from server process with PID [0-9]*//\''
SELECT state_set('not preloaded', '{"n": 2}');
\o
-- There is no worker to leave them to.
SET state_cache.notify = worker;
LISTEN cache_invalidate;
\o '|sed -e \'/^$/d\' -e \'s/ received from server process with PID [0-9]*//\''
BEGIN;
SELECT state_set('not preloaded', '{"n": 3}');
SELECT state_invalidate('not*');
COMMIT;
\o
RESET state_cache.notify;
SELECT epoch, seq FROM state_cursor();
SELECT * FROM state_cache_workers;
UNLISTEN *;
-- Another session, another load of the library: the same.
\c
SELECT seen('not preloaded', 'run');
SELECT l1 FROM state_cache_stats WHERE class IS NULL;

-- Derived classes: the source answers each time, and subscribers hear of changes.
CREATE TABLE np_items (id integer PRIMARY KEY, v text);
INSERT INTO np_items VALUES (1, 'a');
SELECT state_class_define('np', cache_ttl => '1 h', source => 'SELECT to_jsonb(v) FROM np_items WHERE id = $1::integer');
SELECT state_watch('np', 'np_items', 'id');
SELECT state_class_define('np', cache_ttl => '0');
SELECT class, exact, reason FROM state_sources;
SELECT state_get('1', 'np'), state_get('2', 'np');
SELECT cursor AS c1 FROM state_cursor() \gset
UPDATE np_items SET v = 'b';
ALTER TABLE np_items ADD w integer;
SELECT state_get('1', 'np'), state_get_text('1', 'np'), state_exists('2', 'np');
BEGIN; UPDATE np_items SET v = 'c'; SELECT state_get('1', 'np'); ROLLBACK;
SELECT state_get('1', 'np'), state_warm('np', keys => '{1}'), (SELECT count(*) FROM state_audit());
-- Without shared memory nobody knows which classes have changed.
SELECT class, key, op FROM state_changes(:'c1') WHERE class = 'np';
SELECT state_unwatch('np', 'np_items') FROM state_class_define('np', cache_ttl => '1 h');
SELECT state_class_define('np', source => '');
DROP TABLE np_items;
