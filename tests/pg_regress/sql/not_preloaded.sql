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
