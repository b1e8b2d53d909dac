-- What a transaction may hold in memory: beyond 64 MB of documents it flushes early, before COMMIT; an explicit batch,
-- which can be dropped as a whole, is refused more. Beyond 1000 operations on one state they are folded into one.
\a \t \pset null (null)
SELECT state_class_define('limits');
-- Stages 75 documents of 1 MB, each named by a prefix and a number.
CREATE FUNCTION pile(prefix text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..75 LOOP
		PERFORM state_set(prefix || i, jsonb_build_object('n', i, 'd', repeat(md5(i::text), 31250)), class => 'limits');
	END LOOP;
END
$$;
-- How many of them there are for the functions and for the tables, and how many of those are the same.
CREATE FUNCTION piled(prefix text, OUT found bigint, OUT in_tables bigint, OUT same bigint) LANGUAGE sql VOLATILE AS $$
	SELECT count(m.key), count(c.key), count(*) FILTER (WHERE m.version = c.version AND m.state = c.state)
	FROM state_get_many((SELECT array_agg(prefix || i) FROM generate_series(1, 75) i), class => 'limits') m
	FULL JOIN (SELECT * FROM state_current WHERE class = 'limits' AND key LIKE prefix || '%') c ON c.key = m.key
$$;

-- Early or at COMMIT: a transaction is a transaction.
BEGIN;
SELECT pile('a');
SELECT count(*) BETWEEN 1 AND 74 AS flushed_early FROM state_head WHERE class = 'limits' AND key LIKE 'a%';
SELECT found FROM piled('a');
ROLLBACK;
SELECT * FROM piled('a');
BEGIN;
SELECT state_set('first', '{"v": 1}', class => 'limits');
SELECT pile('a');
SELECT seen('first', 'limits');
SELECT state_update('first', '{"w": 2}', class => 'limits');
SELECT seen('first', 'limits');
SAVEPOINT s;
SELECT pile('b');
SELECT state_update('first', '{"w": 3}', class => 'limits');
ROLLBACK TO s;
SELECT seen('first', 'limits');
COMMIT;
SELECT * FROM piled('a');
SELECT * FROM piled('b');
SELECT seen('first', 'limits'), stored('first', 'limits');

-- An explicit batch.
BEGIN;
SELECT state_batch_begin();
SAVEPOINT s;
-- Which of them is one too many depends on how the memory is counted.
SELECT regexp_replace(complaint($$SELECT pile('c')$$), 'limits/c[0-9]+', 'limits/cN');
ROLLBACK TO s;
SELECT state_batch_rollback();
COMMIT;
SELECT * FROM piled('c');
-- As much of it as was staged is dropped or written whole.
-- Stages 60 documents of 1 MB, and says how the attempt to stage 75 more ends.
CREATE FUNCTION pile_until_refused(prefix text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..60 LOOP
		PERFORM state_set(prefix || i, jsonb_build_object('n', i, 'd', repeat(md5(i::text), 31250)), class => 'limits');
	END LOOP;
	RETURN left(outcome(format('SELECT pile(%L)', prefix || 'more ')), 5);
END
$$;
BEGIN;
SELECT state_batch_begin();
SELECT pile_until_refused('c');
SELECT state_batch_rollback();
SELECT found FROM piled('c');
COMMIT;
SELECT * FROM piled('c');
BEGIN;
SELECT state_batch_begin();
SELECT pile_until_refused('c');
SELECT count(*), min(action), max(action) FROM state_batch_commit();
COMMIT;
SELECT * FROM piled('c');
-- What counts is what must be written, not how often it was changed: a large state may be changed many times.
BEGIN;
SELECT state_batch_begin();
SELECT state_set('large', jsonb_build_object('d', repeat('x', 8000000)), class => 'limits');
DO $$ BEGIN
	FOR i IN 1..30 LOOP
		PERFORM state_update('large', jsonb_build_object('n', i), class => 'limits');
	END LOOP;
END $$;
SELECT state_get_path('large', '{n}', class => 'limits');
COMMIT;
SELECT version, state -> 'n' FROM state_current WHERE class = 'limits' AND key = 'large';
-- What was staged before the batch, and again in it, is what it was before the batch.
SELECT state_set('before', '{"v": 1}', class => 'limits');
SELECT seen('before', 'limits');
BEGIN;
SELECT state_set('before', '{"v": 2}', class => 'limits');
SELECT state_batch_begin('overwrite');
SELECT state_set('before', '{"v": "middle"}', class => 'limits');
SELECT pile_until_refused('d');
SELECT state_set('before', '{"v": 3}', class => 'limits');
SELECT state_batch_rollback();
SELECT seen('before', 'limits');
COMMIT;
SELECT seen('before', 'limits'), stored('before', 'limits');
-- Also where that was a duplicate of what is stored.
BEGIN;
SELECT state_set('before', '{"v": 2}', class => 'limits');
SELECT state_batch_begin('overwrite');
SELECT state_set('before', '{"v": "middle"}', class => 'limits');
SELECT pile_until_refused('d');
SELECT state_set('before', '{"v": 3}', class => 'limits');
SELECT state_batch_rollback();
COMMIT;
SELECT seen('before', 'limits'), stored('before', 'limits');
SELECT * FROM piled('d');
-- And where an early flush had written it before the batch was opened.
BEGIN;
SELECT state_set('before', '{"v": 4}', class => 'limits');
SELECT pile('d');
SELECT state_batch_begin();
SELECT state_set('before', '{"v": 5}', class => 'limits');
SELECT state_delete('d1', class => 'limits');
SELECT state_batch_rollback();
SELECT seen('before', 'limits'), state_exists('d1', class => 'limits');
COMMIT;
SELECT seen('before', 'limits'), stored('before', 'limits');
SELECT * FROM piled('d');

-- A cursor sees what was staged before it was opened, or is told that it is no longer kept; never something older.
SELECT state_set('cursor', '{"v": "committed"}', class => 'limits');
BEGIN;
SELECT state_set('cursor', '{"v": "staged before the cursor"}', class => 'limits');
DECLARE c CURSOR FOR SELECT state_get('cursor', class => 'limits');
SELECT pile('e');
FETCH c;
\echo :SQLSTATE
ROLLBACK;
-- The same when the tables have a trigger that may rewrite what is flushed: then the tables are asked for it.
CREATE FUNCTION keep_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER keep_row BEFORE INSERT OR UPDATE ON state_head FOR EACH ROW EXECUTE FUNCTION keep_row();
BEGIN;
SELECT state_set('cursor', '{"v": "staged before the cursor"}', class => 'limits');
DECLARE c CURSOR FOR SELECT state_get('cursor', class => 'limits');
SELECT action FROM state_batch_commit();
SELECT state_get('cursor', class => 'limits');
FETCH c;
ROLLBACK;
-- The version that a staged change will have is counted from the rows that this transaction has written, not from L1.
BEGIN;
SELECT state_set('cursor', '{"v": "b"}', class => 'limits');
SELECT version FROM state_batch_commit();
SELECT state_set('cursor', '{"v": "c"}', class => 'limits');
SELECT state_version('cursor', class => 'limits');
SELECT state_set('cursor', '{"v": "d"}', expected_version => 3, class => 'limits');
COMMIT;
SELECT seen('cursor', 'limits'), stored('cursor', 'limits');
DROP TRIGGER keep_row ON state_head;
DROP FUNCTION keep_row;

-- More than 1000 operations on one state: the result is the same, and the flush writes one version.
SELECT state_set('list', '[]', class => 'limits');
BEGIN;
SELECT count(state_append('list', '{}', to_jsonb(i), class => 'limits')) FROM generate_series(1, 2500) i;
SELECT jsonb_array_length(state_get('list', class => 'limits')), state_version('list', class => 'limits');
COMMIT;
SELECT state_version('list', class => 'limits'), jsonb_array_length(state), state -> 0, state -> -1 FROM state_current WHERE class = 'limits' AND key = 'list';
-- Up to there they are applied to whatever the transaction itself has made of the rows by hand.
CREATE PROCEDURE list_by_hand(made jsonb, versions int) LANGUAGE sql AS $$
	UPDATE state_head SET state = made, hash = state_hash(made), version = version + versions WHERE class = 'limits' AND key = 'list';
$$;
BEGIN;
SELECT count(state_append('list', '{}', '1', class => 'limits')) FROM generate_series(1, 1000) i;
CALL list_by_hand('["by hand"]', 0);
COMMIT;
SELECT state_version('list', class => 'limits'), jsonb_array_length(state), state -> 0 FROM state_current WHERE class = 'limits' AND key = 'list';
BEGIN;
SELECT count(state_append('list', '{}', '1', class => 'limits')) FROM generate_series(1, 1000) i;
CALL list_by_hand('["by hand again"]', 1);
COMMIT;
SELECT state_version('list', class => 'limits'), jsonb_array_length(state), state -> 0 FROM state_current WHERE class = 'limits' AND key = 'list';
-- Beyond, what they were folded into must still be there; it is never lost in silence.
BEGIN;
SELECT count(state_append('list', '{}', '1', class => 'limits')) FROM generate_series(1, 1001) i;
CALL list_by_hand('["lost?"]', 0);
COMMIT;
\echo :SQLSTATE
BEGIN;
SELECT count(state_append('list', '{}', '1', class => 'limits')) FROM generate_series(1, 1001) i;
CALL list_by_hand('["lost?"]', 1);
COMMIT;
\echo :SQLSTATE
SELECT state_version('list', class => 'limits'), jsonb_array_length(state), state -> 0 FROM state_current WHERE class = 'limits' AND key = 'list';
-- In an overwriting batch what is staged wins here as well.
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT count(state_append('list', '{}', '1', class => 'limits')) FROM generate_series(1, 1001) i;
CALL list_by_hand('["overwritten"]', 1);
COMMIT;
SELECT state_version('list', class => 'limits'), jsonb_array_length(state), state -> 0 FROM state_current WHERE class = 'limits' AND key = 'list';
