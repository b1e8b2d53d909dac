-- Without shared_preload_libraries a class of write mode behind is a class like any other: nothing is ever dirty.
\a \t \pset null (null)
SELECT state_class_define('behind', write_mode => 'behind');
SELECT state_set('doc', '{"n": 1}', class => 'behind');
SELECT seen('doc', 'behind'), stored('doc', 'behind');
BEGIN;
SELECT state_update('doc', '{"m": 2}', class => 'behind');
SELECT key, version, action FROM state_batch_commit();
SELECT stored('doc', 'behind');
SAVEPOINT s;
SELECT state_update('doc', '{"undone": true}', class => 'behind');
ROLLBACK TO s;
COMMIT;
SELECT seen('doc', 'behind'), stored('doc', 'behind');
SELECT state_flush(), state_flush('behind');
SELECT complaint($$SELECT state_flush('no such class')$$);
SELECT count(*) FROM state_cache_unwritten;
SELECT count(*) FROM state_cache_workers;
SELECT state_delete('doc', class => 'behind');
SELECT seen('doc', 'behind');
SELECT state_class_define('behind', write_mode => 'through');
SELECT state_set('doc', '{"n": 4}', class => 'behind');
UPDATE state_class SET write_mode = 'behind' WHERE class = 'behind';
SELECT state_set('doc', '{"n": 5}', expected_version => 4, class => 'behind');
SELECT seen('doc', 'behind'), stored('doc', 'behind');
DELETE FROM state_class WHERE class = 'behind';
SELECT state_get('doc', class => 'behind');
\echo :SQLSTATE
