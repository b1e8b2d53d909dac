-- Budgets above each other, periods and shards.
\a \t \pset null (null)
CREATE FUNCTION left_in(VARIADIC budgets text[]) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(format('%s: %s spent, %s held, %s left', b, state_budget_summary(b)->'spent',
		state_budget_summary(b)->'reserved', state_budget_summary(b)->'remaining'), '; ' ORDER BY n)
	FROM unnest(budgets) WITH ORDINALITY u (b, n)
$$;
CREATE FUNCTION budgets_add_up() RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT NOT EXISTS (SELECT FROM state_budget_verify())
$$;
-- A hold needs room in every scope up to the root, all or none.
SELECT state_budget_define('org', 10, 'USD');
SELECT state_budget_define('team', 8, 'USD', parent => 'org');
SELECT state_budget_define('job', 6, 'USD', parent => 'team', agents => '{"a": {"limit": 5}, "b": {}}');
SELECT state_budget_define('other', 6, 'USD', parent => 'team', agents => '{"a": {}}');
SELECT amount, remaining FROM state_budget_reserve('job', 'a', 5, hold_id => 'a1');
SELECT left_in('job', 'team', 'org');
SELECT complaint($$SELECT state_budget_reserve('job', 'b', 1.5)$$);
SELECT complaint($$SELECT state_budget_reserve('other', 'a', 3.5)$$);
SELECT amount, remaining FROM state_budget_reserve('other', 'a', 3, hold_id => 'o1');
SELECT complaint($$SELECT state_budget_reserve('job', 'b', 1)$$);
-- Nothing of what was refused is left anywhere.
SELECT left_in('job', 'other', 'team', 'org'), budgets_add_up();
SELECT actual, overrun FROM state_budget_settle('o1', 6);
SELECT left_in('other', 'team', 'org');
SELECT complaint($$SELECT state_budget_reserve('other', 'a', 0.1)$$);
SELECT budget, level FROM state_budget_reached ORDER BY budget, level;
-- One currency, no circle, no other parent while there is money in it.
SELECT complaint($$SELECT state_budget_define('eur', 1, 'EUR', parent => 'org')$$);
SELECT complaint($$SELECT state_budget_define('org', 10, 'USD', parent => 'job')$$);
SELECT complaint($$SELECT state_budget_define('org', 10, 'USD', parent => 'org')$$);
SELECT complaint($$SELECT state_budget_define('job', 6, 'USD', parent => '')$$);
SELECT complaint($$SELECT state_budget_drop('team')$$);
SELECT state_budget_void('a1');
SELECT state_budget_define('job', 6, 'USD', parent => '');
SELECT complaint($$SELECT state_budget_define('other', 6, 'USD', parent => '')$$);
SELECT left_in('job', 'other', 'team', 'org');
-- What a budget that goes has spent stays in those above.
SELECT state_budget_drop('other');
SELECT left_in('team', 'org'), budgets_add_up();
SELECT budget, actual, scopes, metadata FROM state_budget_cost;
SELECT state_budget_define('n' || n, 1, 'USD', parent => CASE WHEN n > 1 THEN 'n' || n - 1 END) FROM generate_series(1, 16) n;
SELECT complaint($$SELECT state_budget_define('n17', 1, 'USD', parent => 'n16')$$);
SELECT complaint($$SELECT state_budget_define('n1', 1, 'USD', parent => 'org')$$);
SELECT state_budget_drop('n' || n) FROM generate_series(16, 1, -1) n;

-- Periods: counters begin anew, and a hold settles in the period in which it was made.
SELECT state_budget_define('p', 10, 'USD', agents => '{"a": {"limit": 10}}', period => '2 s');
SELECT count(*) FROM (SELECT pg_sleep(2 - extract(epoch FROM clock_timestamp()) % 2 + 0.05)) s;
SELECT amount, remaining FROM state_budget_reserve('p', 'a', 8, hold_id => 'p1', ttl => '1 hour');
SELECT complaint($$SELECT state_budget_reserve('p', 'a', 3)$$);
SELECT count(*) FROM (SELECT pg_sleep(2 - extract(epoch FROM clock_timestamp()) % 2 + 0.05)) s;
SELECT left_in('p');
SELECT amount, remaining FROM state_budget_reserve('p', 'a', 10, hold_id => 'p2', ttl => '1 hour');
SELECT actual, late FROM state_budget_settle('p1', 9);
SELECT left_in('p'), budgets_add_up();
SELECT agent, spent, held FROM state_budget_account WHERE budget = 'p' ORDER BY period, agent;
SELECT state_budget_void('p2');
SELECT state_budget_drop('p');
CREATE FUNCTION period_begins(period text) RETURNS timestamp LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	PERFORM state_budget_define('p', 10, 'USD', period => period);
	RETURN (state_budget_summary('p')->'period'->>0)::timestamptz AT TIME ZONE 'UTC';
END
$$;
SELECT unit, period_begins(unit) = date_trunc(unit, clock_timestamp() AT TIME ZONE 'UTC') FROM unnest(ARRAY['hour', 'day', 'week', 'month', 'year']) unit;
SELECT period_begins('3 months') = date_trunc('quarter', clock_timestamp() AT TIME ZONE 'UTC'), clock_timestamp() - period_begins('36 hours') AT TIME ZONE 'UTC' < '36 hours';
SELECT state_budget_define('p', 10, 'USD', period => 'none');
SELECT state_budget_summary('p')->'period';

-- Shards: nothing is refused while there is room in any of them, and nothing granted where there is none.
SELECT state_budget_define('s', 10, 'USD', agents => '{"a": {"limit": 9}, "b": {}}', shards => 4);
SELECT amount, remaining FROM state_budget_reserve('s', 'a', 1, hold_id => 's1');
-- Other sessions have used other shards.
INSERT INTO state_budget_account (budget, agent, period, shard, allotted, revision)
	SELECT 's', agent, period, n, 0, revision FROM state_budget_account a, generate_series(0, 3) n WHERE budget = 's' ON CONFLICT DO NOTHING;
SELECT amount, remaining FROM state_budget_reserve('s', 'a', 8, hold_id => 's2');
SELECT complaint($$SELECT state_budget_reserve('s', 'a', 0.000000001)$$);
SELECT amount, remaining FROM state_budget_reserve('s', 'b', 1, hold_id => 's3');
SELECT complaint($$SELECT state_budget_reserve('s', 'b', 0.000000001)$$);
SELECT agent, sum(allotted) <= 10, count(*) FROM state_budget_account WHERE budget = 's' GROUP BY agent ORDER BY agent;
SELECT state_budget_void('s1');
SELECT amount, remaining FROM state_budget_reserve('s', 'b', 0.4, hold_id => 's4');
SELECT left_in('s');
SELECT bool_and(allotted >= spent + held) FROM state_budget_account WHERE budget = 's' AND agent = '';
-- After an overrun no shard gives anything away, whatever is voided.
SELECT actual FROM state_budget_settle('s2', 20);
SELECT state_budget_void('s3');
SELECT complaint($$SELECT state_budget_reserve('s', 'b', 0.1)$$);
SELECT left_in('s'), budgets_add_up();
-- Fewer shards and more: what is held stays where it is.
SELECT state_budget_define('s', 30, 'USD', shards => 1);
SELECT amount, remaining FROM state_budget_reserve('s', 'b', 9.6, hold_id => 's5');
SELECT complaint($$SELECT state_budget_reserve('s', 'b', 0.000000001)$$);
SELECT state_budget_define('s', 31, 'USD', shards => 8);
SELECT amount, remaining FROM state_budget_reserve('s', 'b', 1, hold_id => 's6');
SELECT complaint($$SELECT state_budget_reserve('s', 'b', 0.000000001)$$);
SELECT state_budget_void(hold_id) FROM state_budget_hold WHERE budget = 's' AND status = 'held';
SELECT left_in('s'), budgets_add_up();
-- Money that has expired is given again, and no shard gives it a second time.
SELECT amount FROM state_budget_reserve('s', 'b', 11, hold_id => 's7', ttl => '0.2 s');
SELECT pg_sleep(0.3);
SELECT amount, remaining FROM state_budget_reserve('s', 'b', 6, hold_id => 's8');
SELECT amount, remaining FROM state_budget_reserve('s', 'b', 5, hold_id => 's9');
SELECT complaint($$SELECT state_budget_reserve('s', 'b', 0.000000001)$$);
SELECT state_budget_void('s8'), state_budget_void('s9');
SELECT state_budget_drop(b) FROM unnest(ARRAY['s', 'p', 'job', 'team', 'org']) b;
SELECT count(*) FROM state_budget_account;
DROP FUNCTION left_in, budgets_add_up, period_begins;
