-- Savepoints and exception blocks: what is staged in a part of the transaction that is rolled back is gone,
-- the rest stays. Every operation goes through every case of include/savepoint_case.sql.
\a \t \pset null (null)
\getenv dir PG_ABS_SRCDIR
SELECT state_class_define('savepoint');

CREATE FUNCTION seed(key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_set(key, '{"n": 0, "list": [0]}', class => 'savepoint');
	RETURN key;
END
$$;
CREATE FUNCTION apply(op text, k text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CASE op
		WHEN 'set' THEN PERFORM state_set(k, '{"set": 1}', class => 'savepoint');
		WHEN 'update' THEN PERFORM state_update(k, '{"n": 1}', class => 'savepoint');
		WHEN 'append' THEN PERFORM state_append(k, '{list}', '1', class => 'savepoint');
		WHEN 'delete' THEN PERFORM state_delete(k, class => 'savepoint');
		WHEN 'touch' THEN PERFORM state_touch(k, '1 us', class => 'savepoint');
		WHEN 'batch_commit' THEN
			PERFORM state_update(k, '{"flushed": 1}', class => 'savepoint');
			PERFORM state_batch_commit();
		WHEN 'batch_begin' THEN
			PERFORM state_batch_begin();
			PERFORM state_update(k, '{"in": "batch"}', class => 'savepoint');
		WHEN 'batch_rollback' THEN
			PERFORM state_update(k, '{"dropped": 1}', class => 'savepoint');
			PERFORM state_batch_rollback();
		WHEN 'by hand' THEN
			UPDATE state_head SET state = '{"hand": 1}', hash = state_hash('{"hand": 1}') WHERE class = 'savepoint' AND key = k;
	END CASE;
END
$$;
CREATE FUNCTION apply_and_fail(op text, k text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	inside text;
BEGIN
	PERFORM apply(op, k);
	inside := seen(k, 'savepoint');
	RAISE EXCEPTION 'on purpose';
EXCEPTION WHEN raise_exception THEN
	RETURN inside;
END
$$;
CREATE FUNCTION apply_in_block(op text, k text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM apply(op, k);
	RETURN seen(k, 'savepoint');
EXCEPTION WHEN raise_exception THEN
	RETURN 'not reached';
END
$$;

-- The matrix: case | seen after the operation | seen after the part ended | stored at last
\set ECHO none
\set op set
\i :dir/include/savepoint_case.sql
\set op update
\i :dir/include/savepoint_case.sql
\set op append
\i :dir/include/savepoint_case.sql
\set op delete
\i :dir/include/savepoint_case.sql
\set op touch
\i :dir/include/savepoint_case.sql
\set op batch_commit
\i :dir/include/savepoint_case.sql
\set op batch_begin
\i :dir/include/savepoint_case.sql
\set op batch_rollback
\i :dir/include/savepoint_case.sql
\set op 'by hand'
\i :dir/include/savepoint_case.sql
\set ECHO all

-- The same where the part ends with an error: seen after the operation, seen after ROLLBACK TO, stored at last.
\set VERBOSITY sqlstate
\set failed 'BEGIN; SAVEPOINT a; SELECT apply(:''op'', :''k''); SELECT seen(:''k'', ''savepoint''); SELECT 1 / 0; ROLLBACK TO a; SELECT seen(:''k'', ''savepoint''); COMMIT; SELECT stored(:''k'', ''savepoint'');'
\set op set
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op update
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op append
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op delete
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op touch
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op batch_commit
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op batch_begin
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op batch_rollback
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set op 'by hand'
SELECT seed(:'op' || ', failed') AS k \gset
:failed
\set VERBOSITY default

-- After all of it, the functions and the tables still agree on every state.
SELECT count(*) > 70, bool_and(seen(key, 'savepoint') = stored(key, 'savepoint')) FROM state_head WHERE class = 'savepoint';

-- A batch that was opened in a part that is rolled back is not open any more.
BEGIN;
SAVEPOINT a;
SELECT state_batch_begin();
ROLLBACK TO a;
SELECT state_batch_begin();
COMMIT;
-- One that was opened before the part is still open, with what it held then.
SELECT seed('open') AS k \gset
BEGIN;
SELECT state_batch_begin('reapply');
SELECT state_update(:'k', '{"kept": 1}', class => 'savepoint');
SAVEPOINT a;
SELECT key, action FROM state_batch_commit();
ROLLBACK TO a;
SELECT key, dirty, base_version FROM state_batch_status();
SAVEPOINT b;
SELECT state_batch_begin();
\echo :SQLSTATE
ROLLBACK TO b;
SELECT key, version, action FROM state_batch_commit();
COMMIT;
SELECT stored(:'k', 'savepoint');
-- The same after a state_batch_rollback() that is rolled back: what it dropped is there again.
SELECT seed('undropped') AS k \gset
BEGIN;
SELECT state_update(:'k', '{"kept": 1}', class => 'savepoint');
SAVEPOINT a;
SELECT state_batch_rollback();
SELECT seen(:'k', 'savepoint');
ROLLBACK TO a;
SELECT seen(:'k', 'savepoint');
COMMIT;
SELECT stored(:'k', 'savepoint');

-- A flush that fails in a part leaves the staged changes as they were before the part.
SELECT seed('refused flush') AS k \gset
BEGIN;
SELECT state_update(:'k', '{"kept": 1}', class => 'savepoint');
SAVEPOINT a;
ALTER TABLE state_head ADD CONSTRAINT never CHECK (class <> 'savepoint') NOT VALID;
\set VERBOSITY terse
SELECT key, action FROM state_batch_commit();
\set VERBOSITY default
\echo :SQLSTATE
ROLLBACK TO a;
SELECT seen(:'k', 'savepoint');
COMMIT;
SELECT stored(:'k', 'savepoint');

-- SET LOCAL belongs to its part as well: dedup is off only inside.
SELECT seed('set local') AS k \gset
BEGIN;
SAVEPOINT a;
SET LOCAL state_cache.dedup = off;
ROLLBACK TO a;
SELECT state_set(:'k', '{"n": 0, "list": [0]}', class => 'savepoint');
SELECT key, action FROM state_batch_commit();
SET LOCAL state_cache.dedup = off;
SELECT state_set(:'k', '{"n": 0, "list": [0]}', class => 'savepoint');
SELECT key, action FROM state_batch_commit();
COMMIT;
SHOW state_cache.dedup;

-- Deep and many: 500 nested blocks, the inner 101 undone; then 1000 blocks in a row, every third one undone.
CREATE FUNCTION nest(depth int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_append('deep', '{}', to_jsonb(depth), class => 'savepoint');
	IF depth < 500 THEN
		PERFORM nest(depth + 1);
	END IF;
	IF depth = 400 THEN
		RAISE EXCEPTION 'undo 400 and deeper';
	END IF;
EXCEPTION WHEN raise_exception THEN
	NULL;
END
$$;
SELECT state_set('deep', '[]', class => 'savepoint');
SET max_stack_depth = '6MB';
SELECT nest(1);
SELECT jsonb_array_length(state), state -> 0, state -> -1 FROM state_current WHERE class = 'savepoint' AND key = 'deep';
DO $$
BEGIN
	PERFORM state_set('many', '[]', class => 'savepoint');
	FOR i IN 1..1000 LOOP
		BEGIN
			PERFORM state_append('many', '{}', to_jsonb(i), class => 'savepoint');
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'undo';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END
$$;
SELECT version, jsonb_array_length(state), state @> '[3]', state @> '[1000]' FROM state_current WHERE class = 'savepoint' AND key = 'many';
