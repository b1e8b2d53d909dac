-- Puts one operation (variable op) through every way a part of a transaction can end. Prints a line per case:
-- what the transaction saw right after the operation, after the part ended, and what was stored at last.

-- rolled back: SAVEPOINT, operation, ROLLBACK TO
SELECT seed(:'op' || ', rolled back') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SAVEPOINT a;
SELECT apply(:'op', :'k') \gset
SELECT seen(:'k', 'savepoint') AS inside \gset
ROLLBACK TO a;
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally

-- released
SELECT seed(:'op' || ', released') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SAVEPOINT a;
SELECT apply(:'op', :'k') \gset
SELECT seen(:'k', 'savepoint') AS inside \gset
RELEASE a;
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally

-- inner released, outer rolled back
SELECT seed(:'op' || ', released then outer rolled back') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT apply(:'op', :'k') \gset
SELECT seen(:'k', 'savepoint') AS inside \gset
RELEASE b;
ROLLBACK TO a;
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally

-- a change before the savepoint stays
SELECT seed(:'op' || ', rolled back to a change') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SELECT state_update(:'k', '{"before": 1}', class => 'savepoint') \gset
SAVEPOINT a;
SELECT apply(:'op', :'k') \gset
SELECT seen(:'k', 'savepoint') AS inside \gset
ROLLBACK TO a;
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally

-- done again after each of two ROLLBACK TO the same savepoint: counts once
SELECT seed(:'op' || ', repeated') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SAVEPOINT a;
SELECT apply(:'op', :'k') \gset
ROLLBACK TO a;
SELECT apply(:'op', :'k') \gset
ROLLBACK TO a;
SELECT apply(:'op', :'k') \gset
SELECT seen(:'k', 'savepoint') AS inside \gset
RELEASE a;
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally

-- three levels: kept, rolled back, kept
SELECT seed(:'op' || ', nested') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SAVEPOINT a;
SELECT apply(:'op', :'k') \gset
SAVEPOINT b;
SELECT state_update(:'k', '{"b": 1}', class => 'savepoint') \gset
SAVEPOINT c;
SELECT state_update(:'k', '{"c": 1}', class => 'savepoint') \gset
SELECT seen(:'k', 'savepoint') AS inside \gset
RELEASE c;
ROLLBACK TO b;
SELECT state_update(:'k', '{"again": 1}', class => 'savepoint') \gset
RELEASE a;
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally

-- an exception block that fails, and one that does not
SELECT seed(:'op' || ', exception caught') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SELECT apply_and_fail(:'op', :'k') AS inside \gset
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally

SELECT seed(:'op' || ', no exception') AS k \gset
\unset inside \unset after \unset finally
BEGIN;
SELECT apply_in_block(:'op', :'k') AS inside \gset
SELECT seen(:'k', 'savepoint') AS after \gset
COMMIT;
SELECT stored(:'k', 'savepoint') AS finally \gset
\echo :k '|' :inside '|' :after '|' :finally
