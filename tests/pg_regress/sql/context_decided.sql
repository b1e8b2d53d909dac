-- What a function for runs has decided stays as a whole, or goes as a whole: state_batch_rollback() drops what was
-- staged, and nothing that was decided, in whatever room it was written. ROLLBACK takes all of it back.
\a \t \pset null (null)
-- account() is what a run has used, and what is reserved with it.
CREATE FUNCTION account(run text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT format('%s used %s, reserved %s', run, r->'usage', coalesce(r->'reservations', '{}')) FROM state_context_get(run) r
$$;
-- family() makes a parent with a limit, and a child that shares it.
CREATE PROCEDURE family(parent text) LANGUAGE plpgsql AS $$ BEGIN
	PERFORM state_context_create(parent, inputs => '{"v": 0}', resource_limits => '{"maxCredits": 10}', swarm_id => parent || ' swarm');
	PERFORM state_context_child(parent, parent || '/c');
END $$;

-- A completion: the end of the run, and each of its exports.
SELECT state_context_create('decided 1', inputs => '{"v": "x"}', swarm_id => 'decided');
SELECT state_context_mark_export('decided 1', 'v', 'blackboard');
SELECT state_context_mark_export('decided 1', 'v', 'persistent_store', target => 'config', target_key => 'decided');
SELECT state_context_mark_export('decided 1', 'v', 'external_system', target => 'decided');
CREATE FUNCTION ended() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT format('%s, %s on the board, %s in the store, %s in the outbox', state_get_path('decided 1', '{status}'), (SELECT count(*) FROM state_blackboard_query('decided')),
		state_exists('decided', 'config')::int, (SELECT count(*) FROM state_outbox WHERE target = 'decided'))
$$;
BEGIN;
SELECT state_batch_begin();
SELECT key, destination FROM state_context_complete('decided 1');
ROLLBACK;
SELECT ended();
BEGIN;
SAVEPOINT s;
SELECT key, destination FROM state_context_complete('decided 1');
ROLLBACK TO s;
SELECT state_batch_rollback();
COMMIT;
SELECT ended();
-- Without an explicit batch,
BEGIN;
SELECT state_blackboard_add('decided', 'other', '1'), state_set('staged', '1', class => 'config');
SELECT key, destination FROM state_context_complete('decided 1');
SELECT state_set('later', '1', class => 'config');
SELECT state_batch_rollback();
SELECT state_batch_rollback();
COMMIT;
SELECT ended(), state_exists('staged', 'config'), state_exists('later', 'config');
-- where what was staged before of a state that a decision has changed stays with it,
SELECT string_agg(key, ' ' ORDER BY key) FROM state_blackboard_query('decided');
SELECT state_delete('decided 1'), state_delete('decided', class => 'swarm'), state_delete('decided', class => 'config');
DELETE FROM state_outbox WHERE target = 'decided';
-- and in one.
SELECT state_context_create('decided 1', inputs => '{"v": "x"}', swarm_id => 'decided') > 1;
SELECT state_context_mark_export('decided 1', 'v', 'blackboard');
SELECT state_context_mark_export('decided 1', 'v', 'persistent_store', target => 'config', target_key => 'decided');
SELECT state_context_mark_export('decided 1', 'v', 'external_system', target => 'decided');
BEGIN;
SELECT state_batch_begin();
SELECT state_set('staged', '1', class => 'config');
SELECT key, destination FROM state_context_complete('decided 1');
SELECT state_batch_rollback();
COMMIT;
SELECT ended(), state_exists('staged', 'config');

-- A spending, of all runs that it is charged to.
CALL family('decided 2');
BEGIN;
SELECT state_context_spend('decided 2/c', 'credits', 3);
SELECT state_batch_rollback();
COMMIT;
SELECT account('decided 2'), account('decided 2/c');
BEGIN;
SELECT state_batch_begin();
SELECT state_context_spend('decided 2/c', 'credits', 3);
SELECT state_batch_rollback();
COMMIT;
SELECT account('decided 2'), account('decided 2/c');
-- What the transaction staged after it goes, what it staged before of these runs stays.
BEGIN;
SELECT state_context_set('decided 2/c', 'before', '1');
SELECT state_context_spend('decided 2/c', 'credits', 1);
SELECT state_context_set('decided 2/c', 'after', '1'), state_context_set('decided 2', 'after', '1');
SELECT state_batch_rollback();
SELECT account('decided 2'), account('decided 2/c');
COMMIT;
SELECT account('decided 2'), account('decided 2/c');
SELECT name, value FROM variables('decided 2/c');
SELECT name, value FROM variables('decided 2');
-- A second batch finds it as it is, and goes back to it.
BEGIN;
SELECT state_context_spend('decided 2/c', 'credits', 1);
SELECT state_batch_begin();
SELECT state_context_set('decided 2/c', 'after', '1');
SELECT state_batch_rollback();
SELECT state_context_set('decided 2/c', 'after', '1');
SELECT state_batch_rollback();
COMMIT;
SELECT account('decided 2'), account('decided 2/c');
SELECT count(*) FROM variables('decided 2/c') WHERE name = 'after';
-- Once it is written nothing brings it back twice.
BEGIN;
SELECT state_context_spend('decided 2/c', 'credits', 1);
SELECT key, action FROM state_batch_commit();
SELECT state_context_set('decided 2/c', 'after', '1');
SELECT state_batch_rollback();
COMMIT;
SELECT account('decided 2'), account('decided 2/c');
BEGIN;
SELECT state_context_spend('decided 2/c', 'credits', 0.5);
SAVEPOINT s;
SELECT state_context_spend('decided 2/c', 'credits', 0.25);
ROLLBACK TO s;
SELECT state_batch_rollback();
COMMIT;
SELECT account('decided 2'), account('decided 2/c');

-- A spending, and what locks only one of its runs after it: a child, a merge, an end, a resolution.
CREATE PROCEDURE rolled_back(parent text, decision text, explicit boolean) LANGUAGE plpgsql AS $$ BEGIN
	IF explicit THEN
		PERFORM state_batch_begin();
	END IF;
	PERFORM state_context_spend(parent || '/c', 'credits', 4);
	EXECUTE decision;
	PERFORM state_batch_rollback();
END $$;
CALL family('decided 3');
CALL rolled_back('decided 3', $$SELECT state_context_child('decided 3', 'decided 3/d')$$, false);
CALL rolled_back('decided 3', $$SELECT state_context_child('decided 3/c', 'decided 3/c/1', resource_limits => '{"maxToolCalls": 1}')$$, true);
SELECT account('decided 3'), account('decided 3/c');
CALL family('decided 4');
SELECT state_context_set('decided 4/c', 'v', '1');
CALL rolled_back('decided 4', $$SELECT state_context_merge('decided 4/c')$$, false);
SELECT state_context_set('decided 4/c', 'v', '2');
CALL rolled_back('decided 4', $$SELECT state_context_merge('decided 4/c')$$, true);
SELECT account('decided 4'), account('decided 4/c'), state_get_path('decided 4', '{variables,v,value}');
CALL family('decided 5');
CALL family('decided 6');
CALL rolled_back('decided 5', $$SELECT state_context_complete('decided 5/c')$$, false);
CALL rolled_back('decided 6', $$SELECT state_context_complete('decided 6/c')$$, true);
SELECT account(run) FROM unnest('{decided 5,decided 5/c,decided 6,decided 6/c}'::text[]) run;
SELECT outcome($$SELECT state_context_spend('decided 5', 'credits', 7)$$);
CALL family('decided 7');
SELECT state_context_child('decided 7/c', 'decided 7/c/1');
SELECT state_context_set('decided 7/c/1', 'v', '1'), state_context_set('decided 7/c', 'v', '2');
SELECT variable, conflict > 0 FROM state_context_merge('decided 7/c/1', 'manual_review');
CALL rolled_back('decided 7', $$SELECT state_conflict_resolve(id, '3', 'r') FROM state_conflict WHERE run_id = 'decided 7/c'$$, false);
SELECT account('decided 7'), account('decided 7/c'), state_get_path('decided 7/c', '{variables,v,value}');
-- What a child used that was allotted to it.
SELECT state_context_create('decided 8', resource_limits => '{"maxCredits": 10}'), state_context_child('decided 8', 'decided 8/c', resource_limits => '{"maxCredits": 6}');
CALL rolled_back('decided 8', $$SELECT state_context_complete('decided 8/c')$$, false);
SELECT account('decided 8'), account('decided 8/c');
-- A variable alone was not decided.
BEGIN;
SELECT state_context_set('decided 8', 'v', '1');
SELECT state_batch_rollback();
COMMIT;
SELECT count(*) FROM variables('decided 8');
