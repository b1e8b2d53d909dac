-- A batch and what it holds belong to the role that has staged it. Nobody else lists, drops, flushes or ends it, or says
-- what a conflict leads to: not the caller of a SECURITY DEFINER function, not what REFRESH MATERIALIZED VIEW runs.
\a \t \pset null (null)
SELECT state_class_define('owned');
CREATE ROLE regress_batch_app;
CREATE ROLE regress_batch_low;
GRANT SELECT, INSERT, UPDATE, DELETE ON state_head, state_snapshot TO regress_batch_low;
GRANT USAGE, CREATE ON SCHEMA public TO regress_batch_low;
CREATE TABLE account (id int PRIMARY KEY, balance int);
INSERT INTO account VALUES (1, 100);
CREATE FUNCTION withdraw(amount int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
	UPDATE account SET balance = balance - amount WHERE id = 1;
	PERFORM state_append('audit', '{}', to_jsonb(amount), class => 'owned');
END $$;
SELECT state_set('audit', '[]', class => 'owned');

-- The caller of a definer's function drops, sees and flushes nothing of what that has staged …
SET ROLE regress_batch_app;
BEGIN;
SELECT withdraw(10);
SELECT * FROM state_batch_status();
SELECT state_batch_rollback();
COMMIT;
-- … with a batch of its own around …
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT withdraw(20);
SELECT * FROM state_batch_status();
SELECT state_batch_rollback();
COMMIT;
-- … nor by ending that well.
BEGIN;
SELECT state_batch_begin();
SELECT withdraw(30);
SELECT * FROM state_batch_commit();
SELECT * FROM state_batch_status();
COMMIT;
RESET ROLE;
SELECT balance, state_get('audit', 'owned') FROM account;

-- Each role has a batch of its own: each begins one, and each drops its own.
CREATE FUNCTION definer(call text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
	said text;
BEGIN
	EXECUTE call INTO said;
	RETURN said;
END $$;
SET ROLE regress_batch_low;
BEGIN;
SELECT state_batch_begin();
SELECT definer($$SELECT state_batch_begin('reapply')$$);
SELECT state_set('mine', '1', class => 'owned');
SELECT definer($$SELECT state_set('theirs', '1', class => 'owned')$$);
SELECT class, key, dirty FROM state_batch_status();
SELECT definer($$SELECT key || ' ' || dirty FROM state_batch_status()$$);
SELECT state_batch_rollback();
SELECT count(*) FROM state_batch_status();
SELECT outcome($$SELECT state_batch_begin()$$);
SELECT definer($$SELECT outcome('SELECT state_batch_begin()')$$);
COMMIT;
RESET ROLE;
SELECT stored('mine', 'owned'), stored('theirs', 'owned');
-- Committing one's own writes one's own.
SET ROLE regress_batch_low;
BEGIN;
SELECT definer($$SELECT state_set('theirs', '2', class => 'owned')$$);
SELECT state_set('mine', '1', class => 'owned');
SELECT key, version, action FROM state_batch_commit();
SELECT definer($$SELECT stored('mine', 'owned') || ', ' || stored('theirs', 'owned')$$);
SELECT definer($$SELECT key || ' ' || version || ' ' || action FROM state_batch_commit()$$);
SELECT definer($$SELECT stored('theirs', 'owned')$$);
COMMIT;
RESET ROLE;

-- What a role had staged before its batch began comes back; what another has staged since stays.
SET ROLE regress_batch_low;
BEGIN;
SELECT state_set('mine', '"before"', class => 'owned');
SELECT state_batch_begin();
SELECT state_set('mine', '"dropped"', class => 'owned');
SELECT definer($$SELECT state_set('theirs', '3', class => 'owned')$$);
SELECT state_batch_rollback();
COMMIT;
RESET ROLE;
SELECT stored('mine', 'owned'), stored('theirs', 'owned');

-- The rule of a batch is about what its role does. The caller's `overwrite` does not make a definer overwrite: what has
-- come to the state meanwhile stays, and the caller's own change goes over it.
SELECT state_set(k, '[1]', class => 'owned') FROM unnest('{rule,caller}'::text[]) k;
SET ROLE regress_batch_low;
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT definer($$SELECT state_append('rule', '{}', '2', class => 'owned')$$);
SELECT state_append('caller', '{}', '2', class => 'owned');
RESET ROLE;
UPDATE state_head SET state = '[5]', hash = state_hash('[5]') WHERE class = 'owned' AND key IN ('rule', 'caller');
COMMIT;
SELECT stored('rule', 'owned'), stored('caller', 'owned');
-- Nor does a definer's batch that fails on conflicts make the caller's changes fail.
SET ROLE regress_batch_low;
BEGIN;
SELECT state_get('rule', 'owned');
SELECT definer($$SELECT state_batch_begin('error')$$);
SELECT state_get('rule', 'owned');
SELECT * FROM state_batch_status();
SELECT definer($$SELECT count(*) FROM state_batch_status()$$);
COMMIT;
RESET ROLE;

-- Who may not read the tables makes nobody's change be written before its time.
CREATE FUNCTION peek() RETURNS text LANGUAGE sql AS $$ SELECT outcome($q$SELECT state_get('peeked', 'owned')$q$) $$;
BEGIN;
SELECT state_set('peeked', '1', class => 'owned');
SET LOCAL ROLE regress_batch_app;
SELECT peek();
RESET ROLE;
SELECT key, dirty FROM state_batch_status();
SELECT state_batch_rollback();
COMMIT;
SELECT stored('peeked', 'owned');
-- A subtransaction that is rolled back takes along the batch that it began, and no other.
SET ROLE regress_batch_low;
BEGIN;
SELECT state_batch_begin();
SAVEPOINT s;
SELECT definer($$SELECT state_batch_begin()$$);
SELECT outcome($$SELECT definer('SELECT state_batch_begin()')$$);
ROLLBACK TO s;
SELECT definer($$SELECT outcome('SELECT state_batch_begin()')$$);
SELECT outcome($$SELECT state_batch_begin()$$);
COMMIT;
RESET ROLE;

-- What another role's code does within REFRESH MATERIALIZED VIEW, CREATE INDEX or ANALYZE.
SET ROLE regress_batch_low;
CREATE FUNCTION planted(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN i; END $$;
CREATE TABLE mine (i int);
INSERT INTO mine VALUES (1);
CREATE MATERIALIZED VIEW mv AS SELECT planted(i) AS i FROM mine WITH NO DATA;
CREATE INDEX mine_planted ON mine (planted(i));
CREATE OR REPLACE FUNCTION planted(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.state_batch_rollback();
	RETURN i;
END $$;
RESET ROLE;
SET client_min_messages = warning;
BEGIN;
SELECT state_set('important', '{"admin": true}', class => 'owned');
REFRESH MATERIALIZED VIEW mv;
ANALYZE mine;
REINDEX TABLE mine;
SELECT key, dirty FROM state_batch_status();
COMMIT;
RESET client_min_messages;
SELECT stored('important', 'owned');
-- What it stages is written there and then, as itself: nothing of it waits for COMMIT.
SET ROLE regress_batch_low;
CREATE OR REPLACE FUNCTION planted(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.state_set('set', to_jsonb(current_user), class => 'owned');
	PERFORM public.state_update('updated', '{"n": 1}', class => 'owned');
	PERFORM public.state_touch('touched', '1 hour', class => 'owned');
	PERFORM public.state_delete('deleted', class => 'owned');
	RETURN i;
END $$;
RESET ROLE;
SELECT state_set(k, '1', class => 'owned') FROM unnest('{touched,deleted}'::text[]) k;
BEGIN;
SELECT state_set('important', '{"admin": "still"}', class => 'owned');
REFRESH MATERIALIZED VIEW mv;
SELECT stored('set', 'owned'), stored('updated', 'owned'), stored('deleted', 'owned');
SELECT expires_at IS NOT NULL FROM state_head WHERE class = 'owned' AND key = 'touched';
SELECT key, dirty FROM state_batch_status();
COMMIT;
SELECT stored('set', 'owned'), stored('important', 'owned');
-- It opens no batch that would outlive it.
SET ROLE regress_batch_low;
CREATE OR REPLACE FUNCTION planted(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.state_batch_begin('overwrite');
	RETURN i;
END $$;
RESET ROLE;
SELECT complaint('REFRESH MATERIALIZED VIEW mv');
-- Also in its own transaction's batch: that is for what it stages itself, later.
SET ROLE regress_batch_low;
CREATE OR REPLACE FUNCTION planted(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.state_set('set', '2', class => 'owned');
	RETURN i;
END $$;
BEGIN;
SELECT state_batch_begin();
SELECT state_set('set', '"staged before"', class => 'owned');
REFRESH MATERIALIZED VIEW mv;
SELECT state_batch_rollback();
COMMIT;
RESET ROLE;
SELECT stored('set', 'owned');

SET client_min_messages = warning;
DROP FUNCTION withdraw, definer, peek;
DROP TABLE account;
DROP OWNED BY regress_batch_app, regress_batch_low CASCADE;
DROP ROLE regress_batch_app, regress_batch_low;
