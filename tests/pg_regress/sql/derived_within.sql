-- Documents of derived classes that a source reads: what they depend on, the outer document depends on. answer() is
-- derived.sql's: it says WRONG where a document is not what its source gives.
\a \t \pset null (null)
CREATE TABLE dw_user (id integer PRIMARY KEY, name text);
CREATE TABLE dw_member (team integer, user_id integer);
CREATE TABLE dw_rule (rule text);
INSERT INTO dw_user VALUES (1, 'Ann'), (2, 'Bo');
INSERT INTO dw_member VALUES (10, 1), (10, 2), (11, 2);
SELECT state_set('dw-job', '{"done": 1}');
SELECT state_class_define('dw-user', cache_ttl => '1 h', source => $$SELECT jsonb_build_object('name', name, 'rules', (SELECT count(*) FROM dw_rule)) FROM dw_user WHERE id = $1::integer$$);
SELECT state_watch('dw-user', 'dw_user', 'id'), state_watch('dw-user', 'dw_rule');
SELECT state_class_define('dw-job', cache_ttl => '1 h', source => $$SELECT state_get($1)$$);
SELECT state_class_define('dw-team', cache_ttl => '1 h', source => $$SELECT jsonb_agg(state_get(user_id::text, 'dw-user') ORDER BY user_id) FROM dw_member WHERE team = $1::integer$$);
SELECT state_watch('dw-team', 'dw_member', 'team');
SELECT state_class_define('dw-top', cache_ttl => '1 h', source => $$SELECT jsonb_build_array($1, state_get($1, 'dw-team'), state_get_path('dw-job', '{done}', 'dw-job'), state_exists('9', 'dw-user'))$$);
SELECT state_class_define(class, cache_ttl => '0') FROM state_sources WHERE class LIKE 'dw-%';
SELECT class, exact, relations, reason FROM state_sources WHERE class LIKE 'dw-%' ORDER BY class;
-- Of two answers the second one: whether the first found its document in L1 may depend on what shares a stripe.
CREATE FUNCTION dw_answers() RETURNS TABLE (team text, top text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM answer('10', 'dw-team'), answer('10', 'dw-top');
	RETURN QUERY SELECT answer('10', 'dw-team'), answer('10', 'dw-top');
END
$$;
SELECT * FROM dw_answers();
-- A row of the inner table, a class of it, a state within, a document that was absent, a row of its own.
UPDATE dw_user SET name = 'Bob' WHERE id = 2;
SELECT * FROM dw_answers();
INSERT INTO dw_rule VALUES ('be kind');
SELECT * FROM dw_answers();
SELECT state_update('dw-job', '{"done": 2}');
SELECT * FROM dw_answers();
INSERT INTO dw_user VALUES (9, 'Nina');
SELECT * FROM dw_answers();
DELETE FROM dw_member WHERE user_id = 1;
SELECT * FROM dw_answers();
TRUNCATE dw_rule;
SELECT * FROM dw_answers();
-- The inner class is defined anew.
SELECT state_class_define('dw-user', source => $$SELECT to_jsonb(upper(name)) FROM dw_user WHERE id = $1::integer AND (SELECT count(*) FROM dw_rule) >= 0$$);
SELECT * FROM dw_answers();
-- Own changes of the inner tables; a rollback; REPEATABLE READ.
BEGIN;
UPDATE dw_user SET name = 'mine' WHERE id = 2;
SELECT * FROM dw_answers();
ROLLBACK;
SELECT * FROM dw_answers();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT answer('10', 'dw-top');
COMMIT;
-- A role needs what the inner source needs, also where L1 holds the outer document.
CREATE ROLE regress_dw;
GRANT SELECT ON dw_member, state_head, state_snapshot TO regress_dw;
SELECT answer('10', 'dw-team'), answer('10', 'dw-team');
SET ROLE regress_dw;
SELECT outcome($$SELECT state_get('10', 'dw-team')$$);
RESET ROLE;
GRANT SELECT ON dw_user, dw_rule TO regress_dw;
SELECT answer('10', 'dw-team'), answer('10', 'dw-team');
SET ROLE regress_dw;
SELECT state_get('10', 'dw-team');
RESET ROLE;
-- Row-level security on an inner table: the sources themselves answer.
ALTER TABLE dw_user ENABLE ROW LEVEL SECURITY;
SELECT state_get('10', 'dw-team');
SET ROLE regress_dw;
SELECT state_get('10', 'dw-team');
RESET ROLE;
ALTER TABLE dw_user DISABLE ROW LEVEL SECURITY;
SELECT * FROM dw_answers();
-- What goes by age within: the outer document is not kept.
SELECT state_class_define('dw-age', cache_ttl => '1 h', source => 'SELECT to_jsonb(now())');
SELECT state_class_define('dw-outer', cache_ttl => '1 h', source => $$SELECT to_jsonb(state_get('x', 'dw-age') IS NOT NULL)$$);
SELECT answer('1', 'dw-outer'), answer('1', 'dw-outer');
-- Circles, through others too; nothing is left of them.
SELECT state_class_define('dw-a', cache_ttl => '1 h', source => $$SELECT state_get($1, 'dw-team')$$);
SELECT state_class_define('dw-b', cache_ttl => '1 h', source => $$SELECT state_get($1, 'dw-a')$$);
SELECT state_class_define('dw-a', source => $$SELECT state_get($1, 'dw-b')$$);
SELECT complaint($$SELECT state_get('10', 'dw-a')$$), complaint($$SELECT state_get('10', 'dw-b')$$);
SELECT state_class_define('dw-a', source => $$SELECT CASE WHEN $1::integer > 0 THEN state_get(($1::integer - 1)::text, 'dw-a') ELSE to_jsonb(0) END$$);
SELECT answer('3', 'dw-a'), answer('3', 'dw-a');
SELECT count(*) FROM state_audit();
DROP OWNED BY regress_dw;
DROP ROLE regress_dw;
SELECT count(state_class_define(class, source => '')) FROM state_sources WHERE class LIKE 'dw-%';
DROP TABLE dw_user, dw_member, dw_rule;
