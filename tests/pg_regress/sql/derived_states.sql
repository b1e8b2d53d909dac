-- Sources that read states: what they read is found by itself, and a change of it is a change of the document. answer()
-- is derived.sql's.
\a \t \pset null (null)
CREATE TABLE ds (id text PRIMARY KEY, job text);
INSERT INTO ds VALUES ('a', 'job-1'), ('b', 'job-2'), ('c', 'job-none');
SELECT state_class_define('ds-behind', write_mode => 'behind');
SELECT state_set('job-1', '{"done": 1, "of": 4}'), state_set('job-2', '{"done": 2, "of": 2}');
SELECT state_class_define('ds', cache_ttl => '1 h', source => $$
	SELECT jsonb_build_object('id', d.id, 'job', state_get(d.job), 'done', state_get_path(d.job, '{done}'), 'behind', state_get(d.job, 'ds-behind')) FROM ds d WHERE d.id = $1 $$);
SELECT state_watch('ds', 'ds', 'id');
SELECT state_class_define('ds', cache_ttl => '0');
SELECT exact, reason FROM state_sources;
-- Of two answers the second one: whether the first found its document in L1 may depend on states that share a stripe.
CREATE FUNCTION ds_answers() RETURNS TABLE (a text, b text, c text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM answer('a', 'ds'), answer('b', 'ds'), answer('c', 'ds');
	RETURN QUERY SELECT answer('a', 'ds'), answer('b', 'ds'), answer('c', 'ds');
END
$$;
SELECT * FROM ds_answers();
-- A change by a function, by hand, of what was absent, and of the row.
SELECT state_update('job-1', '{"done": 2}');
SELECT * FROM ds_answers();
UPDATE state_head SET deleted = true, version = version + 1, hash = NULL, size = 0, state = NULL WHERE key = 'job-2' AND class = 'run';
SELECT * FROM ds_answers();
SELECT state_set('job-none', '{"done": 0}');
SELECT * FROM ds_answers();
UPDATE ds SET job = 'job-1' WHERE id = 'b';
SELECT * FROM ds_answers();
-- A behind class.
SELECT state_set('job-1', '{"b": 1}', class => 'ds-behind');
SELECT * FROM ds_answers();
SELECT state_flush('ds-behind');
SELECT state_set('job-1', '{"b": 2}', class => 'ds-behind');
SELECT * FROM ds_answers();
-- Own changes, staged and flushed; an explicit batch; a rollback.
BEGIN;
SELECT state_update('job-1', '{"done": 3}');
SELECT * FROM ds_answers();
SELECT count(*) FROM state_batch_commit();
SELECT * FROM ds_answers();
ROLLBACK;
SELECT * FROM ds_answers();
BEGIN;
SELECT state_batch_begin();
SELECT answer('a', 'ds');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT answer('a', 'ds');
COMMIT;
-- A state that expires.
SELECT state_set('job-2', '{"short": true}', ttl => '300 ms');
UPDATE ds SET job = 'job-2' WHERE id = 'b';
SELECT state_exists('job-2'), answer('b', 'ds') LIKE '%short%';
SELECT pg_sleep(0.4);
SELECT answer('b', 'ds'), answer('b', 'ds');
-- TRUNCATE takes all states.
SELECT answer('a', 'ds') ~ '"done": 2', answer('a', 'ds') ~ '^hits';
BEGIN;
TRUNCATE state_head, state_snapshot;
SELECT answer('a', 'ds');
ROLLBACK;
SELECT answer('a', 'ds') ~ '"done": 2';
-- A role needs what reading the states needs.
CREATE ROLE regress_ds;
GRANT SELECT ON ds TO regress_ds;
SET ROLE regress_ds;
SELECT outcome($$SELECT state_get('a', 'ds')$$);
RESET ROLE;
GRANT SELECT ON state_head, state_snapshot TO regress_ds;
SET ROLE regress_ds;
SELECT state_get('a', 'ds') -> 'done';
RESET ROLE;
-- Too many states for one document.
SELECT count(state_set('n' || n, to_jsonb(n))) FROM generate_series(1, 100) n;
SELECT state_class_define('ds-many', cache_ttl => '1 h', source => $$SELECT to_jsonb(count(state_get('n' || n))) FROM generate_series(1, $1::integer) n$$);
SELECT state_class_define('ds-many', cache_ttl => '0');
SELECT answer('64', 'ds-many'), answer('64', 'ds-many'), answer('65', 'ds-many'), answer('65', 'ds-many');
SELECT state_delete('n3');
SELECT answer('64', 'ds-many'), answer('64', 'ds-many');
SELECT count(*) FROM state_audit();
DROP OWNED BY regress_ds;
DROP ROLE regress_ds;
SELECT state_class_define('ds', source => ''), state_class_define('ds-many', source => '');
DROP TABLE ds;
