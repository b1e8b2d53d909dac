-- The faults of budgets in systems that were built before this one, each of which ours must not have.
\a \t \pset null (null)
SELECT state_budget_define('f', 100, 'USD', agents => '{"a": {"limit": 100, "price": 10}}');
-- A reservation of -100 is granted.
SELECT complaint($$SELECT state_budget_reserve('f', 'a', -100)$$);
SELECT state_budget_summary('f')->'remaining';
-- The same cost recorded twice is charged twice.
SELECT state_budget_record_costs('f', '[{"id": "once", "agent": "a", "amount": 5}]');
SELECT state_budget_record_costs('f', '[{"id": "once", "agent": "a", "amount": 5}]');
SELECT state_budget_record_costs('f', '[{"id": "twice", "agent": "a", "amount": 5}, {"id": "twice", "agent": "a", "amount": 5}]');
SELECT state_budget_summary('f')->'spent';
-- The same reservation settled twice is charged twice.
SELECT hold_id AS hold FROM state_budget_reserve('f', 'a') \gset
SELECT actual FROM state_budget_settle(:'hold', 10);
SELECT actual FROM state_budget_settle(:'hold', 10);
SELECT state_budget_summary('f')->'spent', state_budget_summary('f')->'reserved';
-- Reservations have no id, owner or expiry, so a crash leaks them.
SELECT hold_id AS lost FROM state_budget_reserve('f', 'a', 80, ttl => '0.1 s', owner => 'who crashes') \gset
SELECT pg_sleep(0.2);
SELECT amount, remaining FROM state_budget_reserve('f', 'a', 80, hold_id => 'next');
SELECT owner, status FROM state_budget_holds WHERE hold_id = :'lost';
-- A double release frees another job's money.
SELECT state_budget_void(:'lost'), state_budget_void(:'lost');
SELECT state_budget_summary('f')->'reserved', state_budget_summary('f')->'remaining';
SELECT complaint($$SELECT state_budget_reserve('f', 'a', 1)$$);
-- Money is floating point.
SELECT state_budget_void('next');
SELECT state_budget_record_costs('f', (SELECT jsonb_agg(jsonb_build_object('id', 'dime ' || n, 'agent', 'a', 'amount', 0.1)) FROM generate_series(1, 3) n));
SELECT state_budget_summary('f')->'spent';
SELECT 0.1::float8 + 0.2::float8 = 0.3::float8;
-- Two holders of the same reference both pass the check: isolation/budget_reserve. In one transaction nobody does.
SELECT outcome($$DO 'BEGIN PERFORM state_budget_reserve(''f'', ''a'', 79.7); PERFORM state_budget_reserve(''f'', ''a'', 0.1); END'$$);
-- An unknown agent is skipped in silence; a batch of costs that is stopped half-way keeps its first half.
SELECT outcome($$SELECT state_budget_record_costs('f', '[{"id": "x", "agent": "a", "amount": 1}, {"id": "y", "agent": "nobody", "amount": 1}]')$$);
SELECT state_budget_summary('f')->'spent';
SELECT count(*) FROM state_budget_verify();
SELECT state_budget_drop('f');

-- A run names a budget: its credits are charged there, and its children's, each once; without room nobody is charged.
SELECT state_budget_define('runs', 10, 'credits', agents => '{"routine": {"limit": 4}}');
SELECT outcome($$SELECT state_context_create('budget run', budget => 'nothing')$$);
SELECT state_context_create('budget run', 'routine', resource_limits => '{"maxCredits": 9}', budget => 'runs');
SELECT state_context_child('budget run', 'budget run/shares'), state_context_child('budget run', 'budget run/allotted', routine_id => 'routine', resource_limits => '{"maxCredits": 5}');
SELECT state_context_spend('budget run', 'credits', 0.5), state_context_spend('budget run', 'toolCalls', 1);
SELECT state_context_spend('budget run/shares', 'credits', 1), state_context_spend('budget run/allotted', 'credits', 2);
SELECT state_context_spend('budget run', 'credits', 0);
SELECT outcome($$SELECT state_context_spend('budget run/allotted', 'credits', 3)$$), outcome($$SELECT state_context_spend('budget run/shares', 'credits', 9)$$);
SELECT outcome($$SELECT state_context_spend('budget run', 'credits', 0.0000000001)$$);
SELECT s->'spent', s->'reserved', s->'agents'->0->'spent' FROM state_budget_summary('runs') s;
SELECT state_get_path('budget run', '{usage}'), state_get_path('budget run/allotted', '{usage}'), state_get_path('budget run/allotted', '{budget}');
SELECT agent, actual, metadata FROM state_budget_cost WHERE budget = 'runs' ORDER BY recorded_at;
BEGIN;
SELECT state_context_spend('budget run', 'credits', 0.25);
ROLLBACK;
SELECT state_budget_summary('runs')->'spent', (SELECT count(*) FROM state_budget_verify());
SELECT key FROM state_context_complete('budget run/shares', 'cancelled');
SELECT key FROM state_context_complete('budget run/allotted', 'cancelled');
SELECT state_get_path('budget run', '{usage}'), state_budget_summary('runs')->'spent';
SELECT key FROM state_context_complete('budget run', 'cancelled');
SELECT state_delete(key) FROM unnest(ARRAY['budget run/shares', 'budget run/allotted', 'budget run']) key;
SELECT state_budget_drop('runs');
