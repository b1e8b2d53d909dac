-- Who reads one version after the other has each decoded once; an answer is what the rows give all the same.
\a \t \pset null (null)
SELECT state_class_define('walk', keep => 0);
CALL keep_steps('steps', 'walk', 40);
CALL keep_steps('others', 'walk', 40);
SELECT encoding, count(*) > 1 FROM state_history('steps', class => 'walk') GROUP BY 1 ORDER BY 1;

-- Up, down, to and fro, and two states in turns.
SELECT count(*) FROM generate_series(1, 40) v WHERE state_at('steps', v, 'walk') = document(v);
SELECT count(*) FROM generate_series(40, 1, -1) v WHERE state_at('steps', v, 'walk') = document(v);
SELECT count(*) FROM generate_series(0, 399) n WHERE state_at('steps', 1 + n * 17 % 40, 'walk') = document(1 + n * 17 % 40);
SELECT count(*) FROM generate_series(1, 40) v, unnest('{steps,others}'::text[]) k WHERE state_at(k, v, 'walk') = document(v);
SELECT state_at('steps', 0, 'walk'), state_at('steps', 41, 'walk'), state_at('absent', 1, 'walk');

-- How many rows are read for 40 versions: their own, and those of the chains once.
CREATE FUNCTION rows_read(sql text, OUT read bigint) LANGUAGE plpgsql AS $$
	BEGIN
		read := -(SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'state_snapshot');
		EXECUTE sql;
		read := read + (SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'state_snapshot');
	END $$;
SELECT rows_read($$ SELECT count(state_at('steps', v, 'walk')) FROM generate_series(1, 40) v $$) BETWEEN 40 AND 90;
SELECT rows_read($$ SELECT count(state_at('steps', v, 'walk')) FROM generate_series(40, 1, -1) v $$) BETWEEN 40 AND 90;
SELECT rows_read($$ SELECT count(state_diff('steps', v, v + 1, 'walk')) FROM generate_series(1, 39) v $$) BETWEEN 78 AND 170;
-- In a transaction that has written, each is read anew.
BEGIN;
CREATE TABLE written ();
SELECT rows_read($$ SELECT count(state_at('steps', v, 'walk')) FROM generate_series(1, 40) v $$) > 200;
ROLLBACK;

-- A row that is changed is not answered from what was read before, nor is one that builds upon it.
CREATE FUNCTION at(version bigint) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		RETURN state_at('steps', version, 'walk') = document(version::integer);
	EXCEPTION WHEN data_corrupted THEN
		RETURN 'damaged';
	END $$;
BEGIN;
SELECT count(*) FILTER (WHERE at(v) = 'true') FROM generate_series(1, 40) v;
SAVEPOINT before;
CALL damage($$ UPDATE state_snapshot SET delta = overlay(delta PLACING '\xff' FROM length(delta) - 3)
	WHERE class = 'walk' AND key = 'steps' AND version = 19 $$);
SELECT at(18), at(19), at(20);
ROLLBACK TO before;
SELECT count(*) FILTER (WHERE at(v) = 'true') FROM generate_series(1, 40) v;
-- Neither is one that is gone, or that came and was taken back.
CALL damage($$ DELETE FROM state_snapshot WHERE class = 'walk' AND key = 'steps' AND version = 19 $$);
SELECT at(18), at(19), at(20);
ROLLBACK TO before;
SELECT action, version FROM state_save('steps', '{"other": true}', class => 'walk');
SELECT state_at('steps', 41, 'walk');
ROLLBACK TO before;
SELECT state_at('steps', 41, 'walk'), at(19), at(20);
ROLLBACK;

-- Nor by who may not read it: the row is read with the caller's rights.
CREATE ROLE walker;
GRANT USAGE ON SCHEMA public TO walker;
BEGIN;
SELECT count(state_at('steps', v, 'walk')) FROM generate_series(1, 40) v;
SET LOCAL ROLE walker;
SELECT state_at('steps', 20, 'walk');
ROLLBACK;
REVOKE USAGE ON SCHEMA public FROM walker;
DROP ROLE walker;
DROP FUNCTION rows_read, at;
SELECT count(state_delete(key, class => 'walk')) FROM state_head WHERE class = 'walk';
