-- Another currency than the budget's is refused wherever an amount comes in. Nothing is charged, and nothing is forgotten.
\a \t \pset null (null)
SELECT state_budget_define('cur', 10, 'USD', agents => '{"a": {"price": 1}}');
SELECT complaint(s) FROM unnest(ARRAY[
	$$SELECT state_budget_reserve('cur', 'a', 1, 'cur-1', currency => 'EUR')$$,
	$$SELECT state_budget_reserve('cur', 'a', currency => 'usd')$$,
	$$SELECT state_budget_reserve('cur', NULL, 1, currency => '')$$,
	$$SELECT state_budget_record_costs('cur', '[{"id": "c", "amount": 1, "currency": "EUR"}]')$$,
	$$SELECT state_budget_reserve('nothing', NULL, 1, currency => 'USD')$$]) s;
SELECT hold_id, amount, remaining FROM state_budget_reserve('cur', 'a', 1, 'cur-1', currency => 'USD');
-- The same again, with the currency and without.
SELECT remaining FROM state_budget_reserve('cur', 'a', 1, 'cur-1', currency => 'USD');
SELECT remaining FROM state_budget_reserve('cur', 'a', 1, 'cur-1');
SELECT complaint($$SELECT state_budget_reserve('cur', 'a', 1, 'cur-1', currency => 'EUR')$$);
SELECT complaint($$SELECT state_budget_settle('cur-1', 1, currency => 'EUR')$$);
SELECT status FROM state_budget_holds WHERE hold_id = 'cur-1';
SELECT actual FROM state_budget_settle('cur-1', 1, currency => 'USD');
SELECT complaint($$SELECT state_budget_settle('cur-1', 1, currency => 'EUR')$$);
SELECT actual FROM state_budget_settle('cur-1', 1);
-- The same hold again where the agent and then the budget's price of it are gone: the same answer.
SELECT amount, remaining FROM state_budget_reserve('cur', 'a', hold_id => 'cur-2');
SELECT state_budget_define('cur', 10, 'USD', agents => '{}');
SELECT amount, remaining FROM state_budget_reserve('cur', 'a', hold_id => 'cur-2');
SELECT complaint($$SELECT state_budget_reserve('cur', 'a', hold_id => 'cur-3')$$);
SELECT state_budget_void('cur-2');
-- What is left is right where it was not what a look had guessed: an agent's own limit, and holds that are over.
SELECT state_budget_define('guess', 10, 'USD', period => 'year', agents => '{"a": {"limit": 3}}');
SELECT remaining FROM state_budget_reserve('guess', 'a', 1, 'g1'), pg_sleep(0);
SELECT remaining FROM state_budget_reserve('guess', NULL, 6, 'g2', '1 microsecond');
SELECT remaining FROM state_budget_reserve('guess', 'a', 1, 'g3');
SELECT remaining FROM state_budget_reserve('guess', NULL, 8, 'g4');
SELECT hold_id, remaining FROM state_budget_hold WHERE budget = 'guess' ORDER BY 1;
SELECT remaining FROM state_budget_reserve('guess', NULL, 8, 'g4');
SELECT count(*) FROM state_budget_verify();
-- What the tables' CHECKs say.
SELECT state_money(n), state_counters(abs(n), 0) FROM unnest(ARRAY[0, -1, 0.000000001, 0.0000000001, 1.0000000000, 999999999999999999, 1e18, 9e27, 1e28, 'NaN', 'Infinity']::numeric[]) n;
SELECT state_money(NULL), state_counters(0, -1), state_counters(NULL, 0);
SELECT note, state_hold_is_sound(id, amount, actual, status, expired, resolved, ARRAY['b'], ARRAY[now()], shards)
FROM (VALUES ('held', 'h', 1, NULL, 'held', NULL::timestamptz, NULL::timestamptz, ARRAY[0]),
	('settled', 'h', 1, 0, 'settled', NULL, now(), ARRAY[0]), ('settled late', 'h', 1, 1, 'settled', now(), now(), ARRAY[0]),
	('voided', 'h', 1, NULL, 'voided', NULL, now(), ARRAY[0]), ('expired', 'h', 1, NULL, 'expired', now(), NULL, ARRAY[0]),
	('no name', '', 1, NULL, 'held', NULL, NULL, ARRAY[0]), ('long name', repeat('h', 256), 1, NULL, 'held', NULL, NULL, ARRAY[0]),
	('no amount', 'h', NULL, NULL, 'held', NULL, NULL, ARRAY[0]), ('nothing held', 'h', 0, NULL, 'held', NULL, NULL, ARRAY[0]),
	('a cost and held', 'h', 1, 1, 'held', NULL, NULL, ARRAY[0]), ('no cost', 'h', 1, NULL, 'settled', NULL, now(), ARRAY[0]),
	('negative cost', 'h', 1, -1, 'settled', NULL, now(), ARRAY[0]), ('no end', 'h', 1, 1, 'settled', NULL, NULL, ARRAY[0]),
	('an end and held', 'h', 1, NULL, 'held', NULL, now(), ARRAY[0]), ('taken out and held', 'h', 1, NULL, 'held', now(), NULL, ARRAY[0]),
	('not taken out', 'h', 1, NULL, 'expired', NULL, NULL, ARRAY[0]), ('another status', 'h', 1, NULL, 'lost', NULL, NULL, ARRAY[0]),
	('no status', 'h', 1, NULL, NULL, NULL, NULL, ARRAY[0]), ('too many shards', 'h', 1, NULL, 'held', NULL, NULL, ARRAY[0, 1]),
	('no shards', 'h', 1, NULL, 'held', NULL, NULL, '{}')) v (note, id, amount, actual, status, expired, resolved, shards);
SELECT state_budget_void('g1'), state_budget_void('g3'), state_budget_void('g4');
SELECT state_budget_drop('cur'), state_budget_drop('guess');
