-- Budgets: limits, holds, costs. Money is exact, a hold resolves once, and nothing is counted twice.
\a \t \pset null (null)
-- What a budget says of itself, without times and costs.
CREATE FUNCTION budget_says(budget text) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT jsonb_build_object('spent', s->'spent', 'reserved', s->'reserved', 'remaining', s->'remaining', 'agents',
		(SELECT jsonb_object_agg(a->>'agent', jsonb_build_array(a->'spent', a->'reserved', a->'remaining', a->'price'))
			FROM jsonb_array_elements(s->'agents') a))
	FROM state_budget_summary(budget) s
$$;
-- All counters are what holds and costs add up to.
CREATE FUNCTION budgets_add_up() RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT NOT EXISTS (SELECT FROM state_budget_verify())
$$;

SELECT state_budget_define('b', 10, 'USD', agents => '{"writer": {"limit": 6, "price": 2}, "reader": {}}');
SELECT state_budget_summary('b');
-- By the price of the agent, or by an amount.
SELECT amount, remaining FROM state_budget_reserve('b', 'writer', hold_id => 'w1');
SELECT amount, remaining FROM state_budget_reserve('b', 'reader', 0.1, hold_id => 'r1');
SELECT amount, remaining FROM state_budget_reserve('b', 'reader', 0.2, hold_id => 'r2');
SELECT amount, remaining FROM state_budget_reserve('b', NULL, 1, hold_id => 'n1');
SELECT budget_says('b');
-- 0.1 + 0.2 is 0.3.
SELECT state_budget_summary('b')->'agents'->0->>'agent', state_budget_summary('b')->'agents'->0->>'reserved';
-- All that is left can be reserved, and no more: of the agent, of the budget.
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 4.000000001)$$);
SELECT amount, remaining FROM state_budget_reserve('b', 'writer', 4, hold_id => 'w2');
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 0.000000001)$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'reader', 2.700000001)$$);
SELECT amount, remaining FROM state_budget_reserve('b', 'reader', 2.7, hold_id => 'r3');
SELECT complaint($$SELECT state_budget_reserve('b', NULL, 0.000000001)$$);
SELECT state_budget_void('r3'), state_budget_void('w2');

-- The same name with the same arguments: the same answer, and nothing is reserved twice. With others: an error.
SELECT amount, remaining FROM state_budget_reserve('b', 'writer', hold_id => 'w1');
SELECT amount, remaining FROM state_budget_reserve('b', 'reader', 0.10, hold_id => 'r1');
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 2, hold_id => 'w1')$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'reader', 0.11, hold_id => 'r1')$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 0.1, hold_id => 'r1')$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'reader', 0.1, hold_id => 'r1', ttl => '1 hour')$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'reader', 0.1, hold_id => 'r1', owner => 'x')$$);
SELECT budget_says('b');

-- Settled once.
SELECT * FROM state_budget_settle('w1', 2.1, '{"model": "large"}');
SELECT * FROM state_budget_settle('w1', 2.10);
SELECT complaint($$SELECT state_budget_settle('w1', 2)$$);
SELECT complaint($$SELECT state_budget_void('w1')$$);
SELECT complaint($$SELECT state_budget_extend('w1')$$);
SELECT budget_says('b');
-- Voided: once more is the same, settled it is not.
SELECT state_budget_void('r1'), state_budget_void('r1');
SELECT complaint($$SELECT state_budget_settle('r1', 0.1)$$);
SELECT complaint($$SELECT state_budget_extend('r1')$$);
SELECT complaint($$SELECT state_budget_settle('nothing', 0.1)$$);
SELECT complaint($$SELECT state_budget_void('nothing')$$);
SELECT complaint($$SELECT state_budget_extend('nothing')$$);
-- At no cost.
SELECT * FROM state_budget_settle('r2', 0);
SELECT hold_id, agent, amount, status, actual, overrun, metadata FROM state_budget_holds ORDER BY hold_id;
SELECT budgets_add_up();

-- More than was held, and more than there is: it is charged, and nothing more can be reserved.
SELECT * FROM state_budget_settle('n1', 100.000000001);
SELECT budget_says('b');
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 0.000000001)$$);
SELECT budget, agent, level FROM state_budget_reached ORDER BY budget, agent, level;
-- The limit can be below what is spent; raised, there is room again.
SELECT state_budget_define('b', 50, 'USD');
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 1)$$);
SELECT state_budget_define('b', 200, 'USD', soft_limit => 104);
SELECT amount, remaining FROM state_budget_reserve('b', 'writer', 1, hold_id => 'w3');
SELECT budget, agent, level FROM state_budget_reached ORDER BY budget, agent, level;

-- What is no amount.
SELECT bad, complaint(format($$SELECT state_budget_reserve('b', 'writer', %s)$$, bad)), complaint(format($$SELECT state_budget_settle('w3', %s)$$, bad))
	FROM unnest(ARRAY['-100', '''NaN''', '''Infinity''', '''-Infinity''', '0.0000000001', '1e18', '1e1000']) bad;
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 0)$$);
SELECT complaint($$SELECT state_budget_settle('w3', NULL)$$);
SELECT bad, complaint(format($$SELECT state_budget_define('bad', %s, 'USD')$$, bad))
	FROM unnest(ARRAY['-1', '''NaN''', '''Infinity''', '0.0000000001', '1e18', 'NULL']) bad;
SELECT complaint($$SELECT state_budget_define('b', 200, 'EUR')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, '')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', period => '1 month 1 day')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', period => '0 s')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', period => '-1 day')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', period => 'often')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', shards => 65)$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', parent => 'nothing')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', agents => '{"a": {"limit": -1}}')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', agents => '{"a": {"price": 0}}')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', agents => '{"a": {"limit": "1"}}')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', agents => '{"a": {"limits": 1}}')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', agents => '{"": {}}')$$);
SELECT complaint($$SELECT state_budget_define('bad', 1, 'USD', agents => '{"a": {"limit": 0.0000000001}}')$$);
SELECT complaint($$SELECT state_budget_reserve('nothing', 'a', 1)$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'stranger', 1)$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'reader')$$);
SELECT complaint($$SELECT state_budget_reserve('b', NULL)$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 1, ttl => '0 s')$$);
SELECT complaint($$SELECT state_budget_reserve('b', 'writer', 1, hold_id => '')$$);
SELECT complaint(format($$SELECT state_budget_reserve('b', 'writer', 1, hold_id => %L)$$, repeat('x', 256)));
SELECT complaint($$SELECT state_budget_summary('nothing')$$);

-- Rolled back, nothing has happened.
SELECT budget_says('b') AS before \gset
BEGIN;
SELECT amount FROM state_budget_reserve('b', 'writer', 1, hold_id => 'gone');
SAVEPOINT s;
SELECT actual FROM state_budget_settle('gone', 1);
ROLLBACK TO s;
SELECT status FROM state_budget_holds WHERE hold_id = 'gone';
ROLLBACK;
SELECT budget_says('b') = :'before', budgets_add_up();

-- A hold whose time is over counts no longer, whoever has noticed; it can be settled still, and charges once.
SELECT state_budget_define('e', 10, 'USD', agents => '{"a": {}}');
SELECT amount, remaining FROM state_budget_reserve('e', 'a', 10, hold_id => 'e1', ttl => '0.3 s');
SELECT complaint($$SELECT state_budget_reserve('e', 'a', 1)$$);
SELECT pg_sleep(0.4);
SELECT budget_says('e');
SELECT amount, remaining FROM state_budget_reserve('e', 'a', 4, hold_id => 'e2');
SELECT status FROM state_budget_holds WHERE hold_id = 'e1';
SELECT outcome($$SELECT state_budget_extend('e1')$$);
SELECT * FROM state_budget_settle('e1', 3);
SELECT * FROM state_budget_settle('e1', 3);
SELECT budget_says('e');
SELECT state_budget_extend('e2', '1 hour') > now() + '59 min';
SELECT amount, remaining FROM state_budget_reserve('e', 'a', 3, hold_id => 'e3', ttl => '0.1 s');
SELECT pg_sleep(0.2);
SELECT state_budget_void('e3');
SELECT budget_says('e'), budgets_add_up();

-- Dropped.
SELECT complaint($$SELECT state_budget_drop('e')$$);
SELECT state_budget_void('e2');
SELECT state_budget_drop('e');
SELECT count(*) FROM state_budget_hold WHERE budget = 'e';
SELECT complaint($$SELECT state_budget_drop('e')$$);
SELECT state_budget_void('w3');
SELECT state_budget_drop('b');
DROP FUNCTION budget_says, budgets_add_up;
