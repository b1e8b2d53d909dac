-- Faults that other systems of this kind have had, each with the test that it is not here.
\a \t \pset null (null)

-- Inheritance lost: a child that sees nothing of its parent, or what the parent was at some time before.
SELECT state_context_create('fault', inputs => '{"goal": "g", "n": 1}', permissions => '{read,write}', swarm_id => 'fault swarm', sensitivity_map => '{"key": "secret"}');
SELECT state_context_set('fault', 'late', '"just now"');
BEGIN;
SELECT state_context_set('fault', 'staged', 'true'), state_context_set('fault', 'n', '2');
SELECT state_context_child('fault', 'fault/1', '{"own": 1}');
SELECT name, value, source FROM variables('fault/1');
COMMIT;
SELECT name, value, source FROM variables('fault/1');
SELECT state_context_get('fault/1') - '{variables,createdAt}'::text[];
-- What was read before, and is in the cache, is not what the child gets.
SELECT state_context_get('fault')#>'{variables,n,value}';
SELECT state_update_section('fault', 'variables', '{"n": {"key": "n", "value": 3}}');
SELECT state_context_child('fault', 'fault/2');
SELECT value FROM variables('fault/2') WHERE name = 'n';
-- A grandchild inherits what the child has, and a child that is made in a subtransaction what was seen there.
SELECT state_context_set('fault/1', 'from child', '1'), state_context_child('fault/1', 'fault/1/1');
SELECT name, value FROM variables('fault/1/1');
BEGIN;
SAVEPOINT s;
SELECT state_context_set('fault', 'n', '99');
ROLLBACK TO s;
SELECT state_context_child('fault', 'fault/3');
SELECT value FROM variables('fault/3') WHERE name = 'n';
COMMIT;
-- A child that is rolled back was never there, nor what it was allotted.
BEGIN;
SELECT state_context_child('fault', 'fault/4');
ROLLBACK;
SELECT state_exists('fault/4'), count(*) FROM state_context_tree('fault');
SELECT state_context_child('fault', 'fault/4');

-- Unchanged inherited values written back over what the parent has made of them since.
SELECT state_context_set_many('fault', '{"goal": "changed", "late": "changed"}');
SELECT state_context_set('fault/4', 'goal', '"g"');
SELECT state_context_set('fault/4', 'found', '1');
SELECT variable, value, reason FROM state_context_merge('fault/4', 'child_wins');
SELECT name, value FROM variables('fault') WHERE name IN ('goal', 'late', 'found');

-- "Optimistic locking" that is read, add one, blind write. What a transaction writes it writes to the version that is
-- current when the row is locked, and whoever names the version that he has read is refused if there is a newer.
SELECT state_version('fault') AS seen \gset
SELECT state_context_set('fault', 'n', '10');
SELECT outcome(format($$SELECT state_set('fault', '{}', expected_version => %s)$$, :seen)) AS says \gset
SELECT regexp_replace(:'says', '\d+', 'N', 'g');
SELECT outcome(format($$SELECT state_save('fault', '{}', expected_version => %s)$$, :seen)) ~ '^40001';
-- What a transaction writes in parts is written upon its own parts.
BEGIN;
SELECT state_context_append('fault', 'log', '"staged"'), state_context_set('fault', 'n', '11');
SELECT state_batch_begin();
SELECT state_context_append('fault', 'log', '"batch"');
SELECT key, action FROM state_batch_commit();
SELECT state_context_append('fault', 'log', '"after"');
COMMIT;
SELECT name, value FROM variables('fault') WHERE name IN ('log', 'n');
-- The versions are without a gap, one per transaction.
SELECT count(*) = max(version) - min(version) + 1 FROM state_history('fault') WHERE version >= :seen;

-- Credits that inflate on release: what a child gives back is what was reserved, once, however it ends.
SELECT state_context_create('fault credits', resource_limits => '{"maxCredits": 100}');
DO $$ BEGIN
	FOR i IN 1..20 LOOP
		PERFORM state_context_child('fault credits', 'fault credits/' || i, resource_limits => '{"maxCredits": 50}');
		PERFORM state_context_spend('fault credits/' || i, 'credits', 0.1);
		PERFORM state_context_complete('fault credits/' || i, (ARRAY['completed', 'failed', 'cancelled'])[1 + i % 3]);
	END LOOP;
END $$;
SELECT * FROM accounts('fault credits');
SELECT outcome($$SELECT state_context_complete('fault credits/1')$$), outcome($$SELECT state_context_complete('fault credits/2', 'cancelled')$$);
SELECT state_context_spend('fault credits', 'credits', 0);
-- Nor do they by a child that is created twice, merged, or rolled back.
SELECT outcome($$SELECT state_context_child('fault credits', 'fault credits/1', resource_limits => '{"maxCredits": 50}')$$);
SELECT state_context_child('fault credits', 'fault credits/x', resource_limits => '{"maxCredits": 50}'), state_context_set('fault credits/x', 'x', '1');
SELECT outcome($$SELECT state_context_child('fault credits', 'fault credits/x', resource_limits => '{"maxCredits": 48}')$$);
SELECT variable FROM state_context_merge('fault credits/x');
SELECT * FROM accounts('fault credits');
BEGIN;
SAVEPOINT s;
SELECT state_context_complete('fault credits/x');
ROLLBACK TO s;
SELECT * FROM accounts('fault credits');
SELECT state_context_complete('fault credits/x', 'failed');
COMMIT;
SELECT * FROM accounts('fault credits');
