-- Who may do what with budgets: what the tables allow, and no more.
\a \t \pset null (null)
CREATE ROLE regress_budget_user;
CREATE ROLE regress_budget_reader;
CREATE ROLE regress_budget_nobody;
SELECT state_budget_define('org', 100, 'USD');
SELECT state_budget_define('mine', 10, 'USD', parent => 'org', agents => '{"a": {"price": 1}}');
SELECT state_budget_define('theirs', 10, 'USD', parent => 'org', agents => '{"a": {"price": 1}}');
CREATE FUNCTION each_budget_call() RETURNS TABLE (call text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT c, outcome('SELECT * FROM ' || c) FROM unnest(ARRAY['state_budget_summary(''mine'')', 'state_budget_accuracy(''mine'')', 'state_budget_project(''mine'', ''[]'')',
		'state_budget_recommend(''mine'')', 'state_budget_reserve(''mine'', ''a'', 1)', 'state_budget_settle(''h'', 1)', 'state_budget_void(''v'')', 'state_budget_extend(''e'')',
		'state_budget_record_costs(''mine'', ''[{"id": "c", "amount": 1}]'')', 'state_budget_define(''mine'', 11, ''USD'')', 'state_budget_drop(''theirs'')', 'state_budget_verify()', 'state_budget_verify(repair => true)']) c
$$;
SELECT hold_id FROM unnest(ARRAY['h', 'v', 'e']) n, state_budget_reserve('mine', 'a', 1, hold_id => n);
SELECT state_budget_summary('mine')->'reserved';
SET ROLE regress_budget_nobody;
SELECT * FROM each_budget_call();
RESET ROLE;
GRANT SELECT ON state_budget, state_budget_agent, state_budget_price, state_budget_account, state_budget_hold, state_budget_cost, state_budget_pruned, state_budget_reached, state_budget_holds TO regress_budget_reader, regress_budget_user;
SET ROLE regress_budget_reader;
SELECT * FROM each_budget_call();
RESET ROLE;
GRANT INSERT, UPDATE ON state_budget_account, state_budget_hold, state_budget_price, state_budget_cost, state_budget_reached TO regress_budget_user;
SET ROLE regress_budget_user;
SELECT * FROM each_budget_call() WHERE call NOT LIKE '%repair%';
RESET ROLE;
SELECT * FROM state_budget_verify();
-- Row-level security: what is hidden is not there, also in L1.
SELECT state_budget_summary('mine')->'total', state_budget_summary('theirs')->'total';
ALTER TABLE state_budget ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON state_budget TO regress_budget_user USING (budget IN ('mine', 'org'));
SET ROLE regress_budget_user;
SELECT state_budget_summary('mine')->'total', outcome($$SELECT state_budget_summary('theirs')$$);
SELECT outcome($$SELECT state_budget_reserve('theirs', 'a', 1)$$), outcome($$SELECT state_budget_reserve('mine', 'a', 1)$$);
RESET ROLE;
-- No hold is granted that a hidden budget would not count.
ALTER POLICY own ON state_budget USING (budget = 'mine');
SET ROLE regress_budget_user;
SELECT outcome($$SELECT state_budget_reserve('mine', 'a', 1)$$);
RESET ROLE;
DROP POLICY own ON state_budget;
ALTER TABLE state_budget DISABLE ROW LEVEL SECURITY;
-- Read-only transactions write nothing.
BEGIN READ ONLY;
SELECT state_budget_summary('mine')->'total';
SELECT outcome($$SELECT state_budget_reserve('mine', 'a', 1)$$);
ROLLBACK;
SELECT state_budget_void(hold_id) FROM state_budget_hold WHERE status = 'held';
SELECT state_budget_drop(b) FROM unnest(ARRAY['mine', 'theirs', 'org']) b;
DROP FUNCTION each_budget_call;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM regress_budget_user, regress_budget_reader, regress_budget_nobody;
DROP ROLE regress_budget_user, regress_budget_reader, regress_budget_nobody;
