-- What is of use within a transaction block only says so outside of one, as SAVEPOINT and DECLARE CURSOR do.
\a \t \pset null (null)
SELECT state_class_define('alone');
SELECT state_batch_begin();
\echo :SQLSTATE
SELECT state_batch_begin('overwrite') FROM generate_series(1, 2);
\echo :SQLSTATE
-- A prepared statement is no way around it.
PREPARE begin AS SELECT state_batch_begin();
EXECUTE begin;
\echo :SQLSTATE
DEALLOCATE begin;
-- Ending a batch there is a warning, as ROLLBACK without a transaction is.
SELECT state_batch_rollback();
\echo :SQLSTATE
SELECT * FROM state_batch_commit();
-- The same for a claim's token.
SELECT state_context_create('alone');
SELECT state_context_claim('alone', 'me') AS token \gset
SELECT state_context_fence('alone', :token);
\echo :SQLSTATE
BEGIN;
SELECT state_context_fence('alone', :token);
COMMIT;

-- In a block, also in one that the server makes of several statements in a string, it is right.
BEGIN;
SELECT state_batch_begin();
SELECT state_set('block', '1', class => 'alone');
SELECT state_batch_rollback();
-- Nothing to drop: that is worth knowing.
SELECT state_batch_rollback();
SELECT state_set('block', '2', class => 'alone');
SELECT state_batch_rollback();
SELECT * FROM state_batch_commit();
COMMIT;
SELECT state_batch_begin() \; SELECT state_set('string', '1', class => 'alone') \; SELECT count(*) FROM state_batch_commit();
SELECT stored('block', 'alone'), stored('string', 'alone');

-- A function, a procedure or a DO block may go on with statements of its own, so there it is right, too.
DO $$ BEGIN
	PERFORM state_batch_begin();
	PERFORM state_set('do', '1', class => 'alone');
	PERFORM state_batch_rollback();
	PERFORM state_set('do', '2', class => 'alone');
END $$;
CREATE FUNCTION in_function() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	nothing text;
BEGIN
	nothing := state_batch_begin('reapply');
	PERFORM state_set('function', '1', class => 'alone');
	RETURN (SELECT count(*) FROM state_batch_commit());
END $$;
SELECT in_function();
CREATE FUNCTION in_sql() RETURNS bigint LANGUAGE sql AS $$
	SELECT state_batch_begin();
	SELECT state_set('sql', '1', class => 'alone');
	SELECT count(*) FROM state_batch_commit();
$$;
SELECT in_sql();
CREATE PROCEDURE in_procedure() LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT state_batch_begin()';
	PERFORM state_set('procedure', '1', class => 'alone');
	PERFORM state_batch_rollback();
	COMMIT;
	PERFORM state_batch_begin();
	PERFORM state_set('procedure', '2', class => 'alone');
	COMMIT;
	BEGIN
		PERFORM state_batch_begin();
		RAISE EXCEPTION 'undone';
	EXCEPTION WHEN raise_exception THEN
		PERFORM state_batch_rollback();
	END;
END $$;
CALL in_procedure();
SELECT stored('do', 'alone'), stored('function', 'alone'), stored('sql', 'alone'), stored('procedure', 'alone');
-- A function that does nothing but this is one statement with what calls it.
CREATE FUNCTION only_begin() RETURNS void LANGUAGE sql AS $$ SELECT state_batch_begin() $$;
SELECT only_begin();
\echo :SQLSTATE
DROP FUNCTION in_function, in_sql, only_begin;
DROP PROCEDURE in_procedure;

-- expected_version names what was there before the transaction: named a second time it fails, and not in a way that
-- asks for a retry, which would come to the same end.
SELECT state_set('twice', '{"n": 1}', class => 'alone');
CREATE FUNCTION twice(version bigint) RETURNS text LANGUAGE sql AS $$
	SELECT complaint(format($q$SELECT state_set('twice', '{"n": 9}', %s, class => 'alone')$q$, version)) $$;
BEGIN;
SELECT state_set('twice', '{"n": 2}', 1, class => 'alone');
SELECT twice(1);
SELECT complaint($$SELECT state_delete('twice', 1, class => 'alone')$$);
SELECT complaint($$SELECT state_save('twice', '{}', expected_version => 1, class => 'alone')$$);
-- Another one is a conflict still, and the own one is right.
SELECT twice(7);
SELECT twice(2);
ROLLBACK;
-- The same once it is flushed …
BEGIN;
SELECT * FROM state_save('twice', '{"n": 3}', expected_version => 1, class => 'alone');
SELECT twice(1), twice(0);
-- … and staged upon.
SELECT state_set('twice', '{"n": 4}', 2, class => 'alone');
SELECT twice(1);
SELECT twice(2);
ROLLBACK;
-- Of a state that was not there, and of one that is not there any more.
BEGIN;
SELECT state_set('new', '1', 0, class => 'alone');
SELECT complaint($$SELECT state_set('new', '2', 0, class => 'alone')$$);
SELECT state_delete('twice', 1, class => 'alone');
SELECT twice(1);
SELECT count(*) FROM state_batch_commit();
SELECT complaint($$SELECT state_set('new', '2', 0, class => 'alone')$$);
SELECT twice(1);
-- Whoever means nothing but to be the first is told so.
SELECT twice(0);
ROLLBACK;
-- A transaction that has changed only the expiry has moved nothing.
BEGIN;
SELECT state_touch('twice', '1 hour', class => 'alone');
SELECT twice(1);
ROLLBACK;
DROP FUNCTION twice;
