-- Parallel queries: what a transaction has staged lives in the leader, so the functions run there.
\a \t \pset null (null)
SELECT state_class_define('parallel');
CREATE TABLE big (n int, key text);
INSERT INTO big SELECT n, 'doc ' || n % 10 FROM generate_series(1, 10000) n;
ANALYZE big;
SELECT count(state_set('doc ' || n, to_jsonb(n), class => 'parallel')) FROM generate_series(0, 9) n;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;

-- A plan with workers, for a query that would be parallel without the function.
EXPLAIN (COSTS OFF) SELECT count(*) FROM big;
EXPLAIN (COSTS OFF) SELECT sum(state_get(key, class => 'parallel')::int) FROM big WHERE n % 3 = 0;
EXPLAIN (COSTS OFF) SELECT count(*) FROM big WHERE state_exists(key, class => 'parallel');
EXPLAIN (COSTS OFF) SELECT n, state_version(key, class => 'parallel') FROM big WHERE n % 1000 = 0;

-- A state that L1 does not hold is read from the tables, in a parallel plan too, which takes no snapshot to fill L1 with.
SELECT state_cache_clear('parallel') >= 0;
SELECT n, state_get(key, class => 'parallel'), state_version(key, class => 'parallel') FROM big WHERE n IN (7, 8);
SELECT n, state_get('absent', class => 'parallel') FROM big WHERE n = 7;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT n, state_get_text(key, class => 'parallel') FROM big WHERE n = 7;
COMMIT;
SELECT count(*) FROM state_cache_entries WHERE class = 'parallel';
-- Another plan fills it again.
SELECT state_get('doc 7', class => 'parallel');
SELECT n, state_get(key, class => 'parallel') FROM big WHERE n = 7;

-- Staged changes are seen whatever the plan is.
BEGIN;
SELECT state_set('doc 3', '1000003', class => 'parallel');
SELECT state_delete('doc 4', class => 'parallel');
SELECT sum(state_get(key, class => 'parallel')::int) FROM big WHERE n % 10 IN (3, 5);
SELECT count(*) FROM big WHERE state_exists(key, class => 'parallel');
SELECT count(*) FROM state_batch_status() WHERE dirty;
ROLLBACK;
SELECT count(*) FROM big WHERE state_exists(key, class => 'parallel');

-- A changing function keeps the whole query out of parallel plans.
EXPLAIN (COSTS OFF) SELECT count(state_touch(key, NULL, class => 'parallel')) FROM big WHERE n % 1000 = 0;
EXPLAIN (COSTS OFF) SELECT state_set(key, '1', class => 'parallel') FROM big WHERE n < 3;
-- state_hash depends on nothing and may run anywhere.
EXPLAIN (COSTS OFF) SELECT count(state_hash(to_jsonb(key))) FROM big;
SELECT count(DISTINCT state_hash(to_jsonb(key))) FROM big;

-- Parallel aggregation of what the tables hold, with a staged change beside it.
BEGIN;
SELECT state_set('doc 3', '1000003', class => 'parallel');
SELECT sum(c.state::int), (SELECT sum(state::int) FROM state_get_many((SELECT array_agg(DISTINCT key) FROM big), class => 'parallel'))
	FROM state_current c WHERE c.class = 'parallel';
ROLLBACK;

-- A STABLE function as an index condition is called once, not once per row.
CREATE INDEX ON big (n);
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM big WHERE n = (state_get('doc 7', class => 'parallel'))::int;
SELECT count(*) FROM big WHERE n = (state_get('doc 7', class => 'parallel'))::int;
RESET ALL;
