-- Costs without a hold, prices that are learned, accuracy, projection, recommendations; summaries in L1.
\a \t \pset null (null)
SELECT state_budget_define('c', 100, 'USD', agents => '{"a": {"limit": 50, "price": 10}, "b": {"price": 1}, "idle": {"limit": 5}}', soft_limit => 30);
CREATE FUNCTION price_of(agent text) RETURNS numeric LANGUAGE sql VOLATILE AS $$
	SELECT (a->>'price')::numeric FROM jsonb_array_elements(state_budget_summary('c')->'agents') a WHERE a->>'agent' = agent
$$;
CREATE FUNCTION costs(amounts numeric[]) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	amount numeric;
	said text;
BEGIN
	FOREACH amount IN ARRAY amounts LOOP
		PERFORM state_budget_settle((state_budget_reserve('c', 'a')).hold_id, amount);
		said := concat_ws(', ', said, trim_scale(price_of('a')));
	END LOOP;
	RETURN said;
END
$$;
-- Within 10 % the price stays; beyond, it is the mean of the last five.
SELECT costs('{11, 9}');
SELECT costs('{4, 1, 1.000000001}');
SELECT costs('{1, 1}');
SELECT agent, costs, expected, actual, accuracy FROM state_budget_accuracy('c');
-- A price that is named counts from there on.
SELECT state_budget_define('c', 100, 'USD', agents => '{"a": {"limit": 50, "price": 2}, "b": {"price": 1}, "idle": {"limit": 5}}');
SELECT price_of('a');

-- Each record once, all or none, unknown agents by name.
SELECT state_budget_record_costs('c', '[{"id": "1", "agent": "a", "amount": 0.1}, {"id": "2", "agent": "b", "amount": 0.2, "expected": 0.1, "metadata": {"x": 1}}, {"id": "3", "amount": 1}]');
SELECT state_budget_record_costs('c', '[{"id": "1", "agent": "a", "amount": 0.10}, {"id": "4", "amount": 0.5}, {"id": "4", "amount": 0.5}]');
SELECT complaint($$SELECT state_budget_record_costs('c', '[{"id": "5", "amount": 1}, {"id": "1", "agent": "a", "amount": 0.2}]')$$);
SELECT complaint($$SELECT state_budget_record_costs('c', '[{"id": "5", "agent": "x", "amount": 1}, {"id": "6", "agent": "y", "amount": 1}, {"id": "7", "agent": "a", "amount": 1}]')$$);
SELECT complaint(format($$SELECT state_budget_record_costs('c', %L)$$, bad)) FROM unnest(ARRAY['[{"id": "5", "amount": -1}]', '[{"id": "5", "amount": 0.0000000001}]',
	'[{"id": "5", "amount": 1, "expected": 0}]', '[{"id": "", "amount": 1}]', '[{"amount": 1}]', '[{"id": "5", "amount": "1"}]', '{}', '[{"id": "5", "amount": 1, "currency": "EUR"}]', '[{"id": "5", "amount": 1, "cost": 1}]']) bad;
SELECT state_budget_record_costs('c', '[{"id": "8", "amount": 0.5, "currency": "USD"}]'), state_budget_record_costs('c', '[]');
SELECT price_of('b');
SELECT id, agent, expected, actual, metadata FROM state_budget_cost ORDER BY id;
SELECT spent, s->'reached' FROM state_budget_summary('c') s, LATERAL (SELECT s->'spent') x (spent);
SELECT c->>'id', c->'actual' FROM jsonb_array_elements(state_budget_summary('c')->'last_costs') c WHERE length(c->>'id') < 10;
SELECT * FROM state_budget_verify();

-- What planned work will cost.
SELECT state_budget_project('c', '[{"agent": "b", "count": 10}]');
SELECT p->'expected', p->'fits', p->'does_not_fit', (p->>'low')::numeric < 100, (p->>'high')::numeric > 100 FROM state_budget_project('c', '[{"agent": "a", "count": 20}, {"agent": "b", "count": 2, "price": 1}, {"count": 1, "price": 3}]') p;
SELECT complaint($$SELECT state_budget_project('c', '[{"agent": "idle"}]')$$);
SELECT complaint($$SELECT state_budget_project('c', '[{"agent": "stranger"}]')$$);
SELECT complaint($$SELECT state_budget_project('c', '[{"count": 1}]')$$);
SELECT complaint($$SELECT state_budget_project('c', '[{"agent": "a", "count": -1}]')$$);
SELECT complaint($$SELECT state_budget_project('c', NULL)$$);

-- What somebody should look at.
SELECT state_budget_reserve('c', 'b', 1, hold_id => 'old', ttl => '1 day');
UPDATE state_budget_hold SET made_at = made_at - interval '2 hours' WHERE hold_id = 'old';
UPDATE state_budget_agent SET defined_at = defined_at - interval '2 days' WHERE agent = 'idle';
SELECT state_budget_define('c', 60, 'USD');
SELECT severity, agent, recommendation, amount, regexp_replace(reason, '[0-9.]+ days', 'N days') FROM state_budget_recommend('c', '[{"agent": "a", "count": 20, "price": 2}]');
SELECT severity, agent, recommendation FROM state_budget_recommend('c');
SELECT complaint($$SELECT state_budget_recommend('nothing')$$), complaint($$SELECT state_budget_accuracy('nothing')$$), complaint($$SELECT state_budget_project('nothing', '[]')$$), complaint($$SELECT state_budget_record_costs('nothing', '[]')$$);

-- By hand: a summary shows it at once, and verify finds what does not add up.
SELECT state_budget_summary('c')->'spent';
UPDATE state_budget_account SET spent = spent + 1, held = 0 WHERE budget = 'c' AND agent = '';
SELECT state_budget_summary('c')->'spent';
SELECT budget, agent, spent, spent_found, held, held_found FROM state_budget_verify('c');
SELECT budget, agent, spent, spent_found, held, held_found FROM state_budget_verify('c', repair => true);
SELECT count(*) FROM state_budget_verify();
SELECT state_budget_summary('c')->'spent', state_budget_summary('c')->'reserved';
SELECT outcome(s) FROM unnest(ARRAY['UPDATE state_budget_hold SET amount = -1', $$UPDATE state_budget_account SET held = -1$$, $$UPDATE state_budget_account SET spent = 'NaN'$$,
	$$UPDATE state_budget SET total = 'Infinity'$$, $$UPDATE state_budget_hold SET status = 'settled' WHERE status = 'held'$$, $$UPDATE state_budget SET total = 0.0000000001$$]) s;
SELECT outcome($$SELECT state_budget_verify('nothing')$$);
SELECT state_budget_void('old');
SELECT state_budget_drop('c');
DROP FUNCTION price_of, costs;
-- What adds up to more than one amount can be is counted all the same.
SELECT state_budget_define('huge', 1, 'USD', shards => 4);
SELECT state_budget_record_costs('huge', '[{"id": "1", "amount": 900000000000000000}, {"id": "2", "amount": 900000000000000000}, {"id": "3", "amount": 900000000000000000.5}]');
SELECT s->'spent', s->'remaining' FROM state_budget_summary('huge') s;
SELECT complaint($$SELECT state_budget_reserve('huge', NULL, 1)$$);
SELECT state_budget_record_costs('huge', '[{"id": "4", "amount": 0.000000001}]');
SELECT state_budget_define('huge', 900000000000000000, 'USD', shards => 1);
SELECT s->'spent', s->'remaining', s->'reached' FROM state_budget_summary('huge') s;
SELECT * FROM state_budget_verify('huge');
SELECT state_budget_drop('huge');
