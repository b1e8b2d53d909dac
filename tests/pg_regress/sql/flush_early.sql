-- A transaction that holds too much writes what is staged before it commits, and knows those states by the tables.
\a \t \pset null (null)
SELECT state_class_define('early', keep => 1);
SELECT state_class_define('early kept');
\set much 'SELECT count(state_set(''much '' || i, to_jsonb(repeat(md5(i::text), 32768)), class => ''early'')) FROM generate_series(1, 70) i;'

-- Written early within a savepoint that is rolled back: staged again, and written with the commit.
BEGIN;
SELECT state_set('before', '{"n": 1}', class => 'early');
SAVEPOINT a;
:much
SELECT stored('before', 'early'), seen('before', 'early');
ROLLBACK TO a;
-- Nothing looks at it before the commit.
COMMIT;
SELECT stored('before', 'early'), seen('before', 'early'), (SELECT count(*) FROM state_head WHERE class = 'early');

-- Written early, and changed after that: within a savepoint that is rolled back, and without.
BEGIN;
SELECT state_set('after', '{"n": 1}', class => 'early');
SELECT state_set('deleted', '{"n": 1}', class => 'early');
SELECT state_set('kept', '{"n": 1}', class => 'early kept');
:much
SELECT state_update('before', '{"m": 2}', class => 'early');
SAVEPOINT a;
SELECT state_set('after', '{"n": 2}', class => 'early');
SELECT state_delete('deleted', class => 'early');
SELECT stored('after', 'early'), seen('after', 'early'), seen('deleted', 'early');
ROLLBACK TO a;
SELECT seen('after', 'early'), seen('deleted', 'early'), seen('before', 'early');
SELECT state_set('after', '{"n": 3}', class => 'early');
SELECT state_delete('deleted', class => 'early');
SELECT state_update('kept', '{"m": 1}', class => 'early kept');
-- All of it once more, so that what was changed is written early too.
:much
SELECT stored('after', 'early'), stored('deleted', 'early'), stored('before', 'early'), stored('kept', 'early kept');
SAVEPOINT b;
:much
RELEASE b;
SELECT state_set('after', '{"n": 4}', class => 'early');
COMMIT;
SELECT stored('after', 'early'), stored('deleted', 'early'), stored('before', 'early'), stored('kept', 'early kept');
SELECT seen('after', 'early'), seen('deleted', 'early'), seen('before', 'early'), seen('kept', 'early kept');
SELECT version, count(*) FROM state_head WHERE class = 'early' AND key LIKE 'much%' GROUP BY version;
-- Dropping what is staged, after the rest was written early.
BEGIN;
SELECT state_set('before', '{"n": 5}', class => 'early');
:much
SELECT state_set('after', '{"n": 5}', class => 'early');
SELECT state_batch_rollback();
COMMIT;
SELECT stored('before', 'early'), stored('after', 'early');

-- What the server has compressed already, in a row or beside it, is stored as it is.
CREATE TEMPORARY TABLE given (key text, state jsonb);
INSERT INTO given SELECT 'given ' || i, jsonb_build_object('n', i, 'text', repeat(md5(i::text) || i, 100 * i)) FROM generate_series(1, 60) i;
-- A value that is stored beside the row and could not be compressed.
INSERT INTO given SELECT 'dense', to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, 2000) i;
INSERT INTO given VALUES ('small', '{"n": 1}');
SELECT count(DISTINCT pg_column_compression(state)), max(pg_column_size(state)) < max(length(state::text)) FROM given;
SELECT count(state_set(key, state, class => 'early')), count(state_set(key, state, class => 'early kept')) FROM given;
SELECT count(*), bool_and(h.state = g.state), bool_and(state_hash(h.state) = h.hash),
	-- NULL where the server would compress what it was given whole.
	bool_and(pg_column_compression(h.state) = pg_column_compression(g.state))
FROM given g JOIN state_head h ON h.class = 'early' AND h.key = g.key;
SELECT count(*), bool_and(c.state = g.state) FROM given g JOIN state_current c ON c.class = 'early kept' AND c.key = g.key;
SELECT bool_and(state_get(key, class => 'early') = state), bool_and(state_get(key, class => 'early kept') = state) FROM given;
SELECT state_cache_clear('early') >= 0;
SELECT bool_and(state_get(key, class => 'early') = state) FROM given;
-- Once more the same changes nothing, whatever it is compressed by.
SELECT count(state_set(key, state || '{}', class => 'early')) FROM given WHERE key LIKE 'given%';
SELECT count(state_set(key, state, class => 'early')) FROM given;
SELECT version, count(*) FROM state_head WHERE class = 'early' AND (key LIKE 'given%' OR key IN ('dense', 'small')) GROUP BY version;
