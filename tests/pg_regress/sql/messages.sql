-- The numbers of messages: consecutive, in one epoch, whatever is rolled back or fails in between.
\a \t \pset null (null)
SELECT state_class_define('messages');
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN state_updated;
LISTEN cache_invalidate;
-- What this session hears is shown with its number, counted from here.
SELECT format($$|sed -n -E 's/.* payload "\{(.*),"seq":([0-9]+),"epoch":"([^"]+)"\}" .*/\2 \3 \1/p' | awk -v base=%s -v epoch=%s '{ print $1 - base, ($2 "" == epoch "" ? $3 : "in another epoch") }'$$, seq, epoch) AS heard FROM state_cursor() \gset
\o :heard
SELECT state_set('a', '{"n": 1}', class => 'messages');
SELECT state_set('a', '{"n": 2}', class => 'messages');
\o
-- The cursor's number is that of the last message, once the transaction that sends it is over.
\o :heard
BEGIN;
SELECT state_set('a', '{"n": 3}', class => 'messages');
SELECT count(*) FROM state_batch_commit();
SELECT seq AS before FROM state_cursor() \gset
COMMIT;
\o
SELECT seq - :before FROM state_cursor();

-- Rolled back: the transaction, a savepoint.
\o :heard
BEGIN;
SELECT state_set('a', '{"n": 4}', class => 'messages');
SELECT count(*) FROM state_batch_commit();
SELECT state_invalidate('a*', 'messages');
ROLLBACK;
BEGIN;
SELECT state_set('b', '{"n": 1}', class => 'messages');
SAVEPOINT s;
SELECT state_set('c', '{"n": 1}', class => 'messages');
SELECT count(*) FROM state_batch_commit();
SELECT state_invalidate('c*', 'messages');
ROLLBACK TO s;
COMMIT;
\o
-- An invalidation is told once, with the rest of its transaction, unless all that asked for it is rolled back.
\o :heard
BEGIN;
SAVEPOINT s;
SELECT state_invalidate('rolled back', 'messages');
ROLLBACK TO s;
SELECT state_invalidate('kept', 'messages');
SAVEPOINT t;
SELECT state_invalidate('kept', 'messages');
SAVEPOINT u;
SELECT state_invalidate('released', 'messages');
RELEASE u;
RELEASE t;
SAVEPOINT v;
SAVEPOINT w;
SELECT state_invalidate('rolled back with the outer one', 'messages');
RELEASE w;
ROLLBACK TO v;
SELECT state_set('a', '{"n": 5}', class => 'messages');
COMMIT;
\o
-- A deferred trigger fails on what the flush at COMMIT has written.
CREATE FUNCTION not_the_fifth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.version = 5 THEN
		RAISE EXCEPTION 'not this version' USING ERRCODE = 'integrity_constraint_violation';
	END IF;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER not_the_fifth AFTER UPDATE ON state_head DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.class = 'messages') EXECUTE FUNCTION not_the_fifth();
\o :heard
SELECT state_set('a', '{"n": 6}', class => 'messages');
\echo :SQLSTATE
\o
DROP TRIGGER not_the_fifth ON state_head;
-- The server itself fails, after the messages have their numbers.
\o :heard
BEGIN;
CREATE TEMP TABLE parent (id int PRIMARY KEY) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE child (id int REFERENCES parent);
SELECT state_set('a', '{"n": 7}', class => 'messages');
SELECT state_invalidate('*', 'messages');
COMMIT;
\echo :SQLSTATE
SELECT state_set('a', '{"n": 8}', class => 'messages');
\o
SELECT seen('a', 'messages'), stored('a', 'messages');

-- Left to the worker where there is none: told with the commit.
ALTER SYSTEM SET state_cache.max_workers = 0;
SELECT pg_reload_conf();
DO $$ BEGIN
	WHILE EXISTS (SELECT FROM state_cache_workers WHERE pid IS NOT NULL) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SET state_cache.notify = worker;
\o :heard
SELECT state_set('a', '{"n": 9}', class => 'messages');
SELECT state_invalidate('*', 'messages');
\o
SELECT untold FROM state_cache_workers WHERE database = current_database();
SET state_cache.notify = commit;
ALTER SYSTEM RESET state_cache.max_workers;
SELECT pg_reload_conf();

-- A behind class: the worker tells, each state once, whatever the session's setting but off.
SELECT state_class_define('messages_behind', write_mode => 'behind');
CREATE PROCEDURE await_behind() LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT left_behind FROM state_cache_stats WHERE class IS NULL);
BEGIN
	FOR n IN 1..6000 LOOP
		PERFORM state_set('await', jsonb_build_object('n', n), class => 'messages_behind');
		COMMIT;
		EXIT WHEN before < (SELECT left_behind FROM state_cache_stats WHERE class IS NULL);
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
CREATE PROCEDURE await_told() LANGUAGE plpgsql AS $$ BEGIN
	FOR n IN 1..6000 LOOP
		EXIT WHEN (SELECT untold = 0 FROM state_cache_workers WHERE database = current_database());
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
END $$;
\o /dev/null
CALL await_behind();
CALL await_told();
SELECT;
\o
SELECT format($$|sed -n -E 's/.* payload "\{(.*),"seq":([0-9]+),"epoch":"([^"]+)"\}" .*/\2 \3 \1/p' | awk -v base=%s -v epoch=%s '{ print $1 - base, ($2 "" == epoch "" ? $3 : "in another epoch") }'$$, seq, epoch) AS heard FROM state_cursor() \gset
\o :heard
SELECT state_set('a', '{"n": 1}', class => 'messages_behind');
CALL await_told();
SET state_cache.notify = worker;
SELECT state_set('a', '{"n": 2}', class => 'messages_behind');
CALL await_told();
SET state_cache.notify = off;
SELECT state_set('a', '{"n": 3}', class => 'messages_behind');
CALL await_told();
SET state_cache.notify = commit;
-- Both kinds in one transaction: what goes with the commit is heard first.
BEGIN;
SELECT state_set('a', '{"n": 4}', class => 'messages_behind');
SELECT state_set('b', '{"n": 4}', class => 'messages_behind');
SELECT state_set('a', '{"n": 10}', class => 'messages');
COMMIT;
CALL await_told();
-- Nothing of a duplicate, which gives a state of a class with ttl a new expiry.
SELECT state_class_define('messages_behind', ttl => '1 hour');
SELECT state_set('t', '{"n": 1}', class => 'messages_behind');
CALL await_told();
SELECT state_set('t', '{"n": 1}', class => 'messages_behind');
SELECT state_set('t', '{"n": 1}', class => 'messages_behind');
CALL await_told();
BEGIN;
SELECT state_set('t', '{"n": 2}', class => 'messages_behind');
SELECT count(*) FROM state_batch_commit();
SELECT state_set('t', '{"n": 2}', class => 'messages_behind');
COMMIT;
CALL await_told();
-- Nothing of what is rolled back.
BEGIN;
SELECT state_set('a', '{"n": 5}', class => 'messages_behind');
SELECT count(*) FROM state_batch_commit();
ROLLBACK;
BEGIN;
SELECT state_set('b', '{"n": 5}', class => 'messages_behind');
SAVEPOINT s;
SELECT state_set('a', '{"n": 5}', class => 'messages_behind');
SELECT count(*) FROM state_batch_commit();
ROLLBACK TO s;
COMMIT;
CALL await_told();
SELECT;
\o
UNLISTEN *;
SELECT state_class_define('messages_behind', write_mode => 'through');
DROP PROCEDURE await_behind();
DROP PROCEDURE await_told();
