-- Cursors see what a table would show them: the changes made before they were opened.
\a \t \pset null (null)
SELECT state_class_define('cursors');
SELECT count(state_set(k, to_jsonb('old ' || k), class => 'cursors')) FROM unnest('{a,b,c}'::text[]) k;
CREATE TABLE cursor_keys AS SELECT unnest('{a,b,c}'::text[]) AS key;

-- A change after the cursor was opened is not in it, whichever row it comes to.
BEGIN;
SELECT state_set('b', '"staged before"', class => 'cursors');
DECLARE c CURSOR FOR SELECT key, state_get(key, class => 'cursors') FROM cursor_keys ORDER BY key;
FETCH 1 FROM c;
SELECT state_set('b', '"staged after"', class => 'cursors');
SELECT state_set('c', '"staged after"', class => 'cursors');
FETCH ALL FROM c;
SELECT state_get('b', class => 'cursors'), state_get('c', class => 'cursors');
-- Nor when it was flushed meanwhile.
DECLARE d CURSOR FOR SELECT key, state_get(key, class => 'cursors') FROM cursor_keys ORDER BY key;
FETCH 1 FROM d;
SELECT state_set('c', '"flushed after"', class => 'cursors');
SELECT key, action FROM state_batch_commit() ORDER BY key;
FETCH ALL FROM d;
SELECT state_get('c', class => 'cursors');
ROLLBACK;

-- The same with an ordinary table.
CREATE TABLE plain AS SELECT key, 'old ' || key AS state FROM cursor_keys;
BEGIN;
UPDATE plain SET state = 'staged before' WHERE key = 'b';
DECLARE c CURSOR FOR SELECT k.key, (SELECT state FROM plain p WHERE p.key = k.key) FROM cursor_keys k ORDER BY key;
FETCH 1 FROM c;
UPDATE plain SET state = 'staged after' WHERE key IN ('b', 'c');
FETCH ALL FROM c;
ROLLBACK;

-- A cursor may scroll, and says the same the second time.
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT key, state_get(key, class => 'cursors') FROM cursor_keys ORDER BY key;
FETCH 2 FROM c;
SELECT state_delete('a', class => 'cursors');
FETCH BACKWARD ALL FROM c;
FETCH ALL FROM c;
ROLLBACK;

-- WITH HOLD: what the transaction staged before is in it, after COMMIT as well; what another
-- transaction commits later is not.
BEGIN;
SELECT state_set('a', '"held"', class => 'cursors');
DECLARE h CURSOR WITH HOLD FOR SELECT key, state_get(key, class => 'cursors') FROM cursor_keys ORDER BY key;
SELECT state_set('b', '"too late"', class => 'cursors');
COMMIT;
SELECT state_set('c', '"later still"', class => 'cursors');
FETCH ALL FROM h;
CLOSE h;
SELECT key, state FROM state_get_many('{a,b,c}', class => 'cursors');
-- One that changes states does so when it is run: the part that COMMIT runs is flushed with it.
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT key, state_set(key, to_jsonb('by cursor ' || key), class => 'cursors') FROM cursor_keys ORDER BY key;
FETCH 1 FROM h;
SELECT state_get('a', class => 'cursors'), state_get('c', class => 'cursors');
COMMIT;
CLOSE h;
SELECT stored('a', 'cursors'), stored('c', 'cursors');
SELECT key, state FROM state_get_many('{a,b,c}', class => 'cursors');
-- One that is aborted with its savepoint leaves nothing.
BEGIN;
SAVEPOINT s;
DECLARE h CURSOR WITH HOLD FOR SELECT key, state_set(key, '"aborted"', class => 'cursors') FROM cursor_keys ORDER BY key;
FETCH 2 FROM h;
ROLLBACK TO s;
COMMIT;
SELECT key, state FROM state_get_many('{a,b,c}', class => 'cursors');

-- A cursor loop in PL/pgSQL that changes what it reads.
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT key, state_get(key, class => 'cursors') AS state FROM cursor_keys ORDER BY key LOOP
		PERFORM state_set(k.key, '"from the loop"', class => 'cursors') FROM cursor_keys k;
		RAISE NOTICE '% %', r.key, r.state;
	END LOOP;
END
$$;
SELECT key, state FROM state_get_many('{a,b,c}', class => 'cursors');

-- A set-returning function of ours opened as a cursor.
BEGIN;
DECLARE m CURSOR FOR SELECT key, state FROM state_get_many('{a,b,c}', class => 'cursors');
SELECT state_set('a', '"after the declare"', class => 'cursors');
FETCH ALL FROM m;
ROLLBACK;
