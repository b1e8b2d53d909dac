-- What is wrong with a call of the functions of runs is said, and nothing is written.
\a \t \pset null (null)
SELECT state_context_create('bad', inputs => '{"x": 1, "list": [1], "object": {}}', permissions => '{read}', resource_limits => '{"maxCredits": 10, "maxMemoryMB": 5}'), state_context_child('bad', 'bad/1');
SELECT state_hash(state_get('bad')) AS before \gset
-- each_of() says what each of some calls comes to.
CREATE FUNCTION each_of(VARIADIC calls text[]) RETURNS TABLE (call text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT call, complaint('SELECT * FROM ' || call) FROM unnest(calls) WITH ORDINALITY c (call, n) ORDER BY n
$$;

-- A run that is not there: 42704 from every function. One that was deleted is not there either.
SELECT state_context_create('bad/gone'), state_delete('bad/gone');
SELECT call, outcome('SELECT * FROM ' || format(call, run)) FROM unnest('{no such,bad/gone}'::text[]) WITH ORDINALITY r (run, rn), unnest(ARRAY[
	$$state_context_get(%L)$$, $$state_context_visible(%L)$$, $$state_context_tree(%L)$$, $$state_context_child(%L, 'bad/2')$$,
	$$state_context_set(%L, 'x', '1')$$, $$state_context_set_many(%L, '{"x": 1}')$$, $$state_context_set_many(%L, '{}')$$, $$state_context_append(%L, 'x', '1')$$, $$state_context_patch(%L, 'x', '{}')$$,
	$$state_context_merge(%L)$$, $$state_context_mark_export(%L, 'x', 'parent_context')$$, $$state_context_unmark_export(%L, 'x')$$, $$state_context_complete(%L)$$, $$state_context_spend(%L, 'credits', 1)$$,
	$$state_context_claim(%L, 'ann')$$, $$state_context_renew(%L, 1)$$, $$state_context_release(%L, 1)$$, $$state_context_fence(%L, 1)$$]) WITH ORDINALITY c (call, cn) ORDER BY rn, cn;
SELECT outcome($$SELECT state_conflict_resolve(-1, '1', 'r')$$);
SELECT state_exists('no such'), state_exists('bad/2');
-- A run that is there already, root or child, running or ended.
SELECT complaint($$SELECT state_context_create('bad')$$);
SELECT outcome($$SELECT state_context_create('bad/1')$$), outcome($$SELECT state_context_child('bad', 'bad/1')$$), outcome($$SELECT state_context_child('bad/1', 'bad')$$);
SELECT state_context_create('bad end'), state_context_child('bad end', 'bad end/1'), state_context_complete('bad end/1'), state_context_complete('bad end');
SELECT outcome($$SELECT state_context_create('bad end')$$), outcome($$SELECT state_context_child('bad', 'bad end/1')$$);
-- A state of another kind has the name.
SELECT state_set('bad taken', '[1]'), outcome($$SELECT state_context_create('bad taken')$$), outcome($$SELECT state_context_child('bad', 'bad taken')$$);
SELECT state_get('bad taken');
-- A run that has ended takes nothing.
SELECT call, outcome('SELECT * FROM ' || call) FROM unnest(ARRAY[
	$$state_context_child('bad end', 'bad end/2')$$, $$state_context_set('bad end', 'x', '1')$$, $$state_context_set_many('bad end', '{"x": 1}')$$, $$state_context_append('bad end', 'x', '1')$$,
	$$state_context_patch('bad end', 'x', '{}')$$, $$state_context_mark_export('bad end', 'x', 'parent_context')$$, $$state_context_unmark_export('bad end', 'x')$$, $$state_context_complete('bad end')$$,
	$$state_context_complete('bad end', 'failed')$$, $$state_context_spend('bad end', 'credits', 1)$$, $$state_context_claim('bad end', 'ann')$$]) call;
SELECT outcome($$SELECT state_context_create('')$$), outcome(format($$SELECT state_context_create(%L)$$, repeat('k', 1025))), outcome($$SELECT state_context_child('bad', '')$$);

-- NULL where there must be something.
SELECT * FROM each_of(
	'state_context_create(NULL)', $$state_context_child(NULL, 'bad/2')$$, $$state_context_child('bad', NULL)$$, 'state_context_get(NULL)', 'state_context_visible(NULL)', $$state_context_visible('bad', NULL)$$, 'state_context_tree(NULL)',
	$$state_context_set(NULL, 'x', '1')$$, $$state_context_set('bad', NULL, '1')$$, $$state_context_set('bad', 'x', NULL)$$, $$state_context_set('bad', 'x', '1', NULL)$$,
	$$state_context_set_many(NULL, '{}')$$, $$state_context_set_many('bad', NULL)$$, $$state_context_set_many('bad', '{}', NULL)$$,
	$$state_context_append(NULL, 'x', '1')$$, $$state_context_append('bad', NULL, '1')$$, $$state_context_append('bad', 'x', NULL)$$, $$state_context_append('bad', 'x', '1', NULL)$$,
	$$state_context_patch(NULL, 'x', '1')$$, $$state_context_patch('bad', NULL, '1')$$, $$state_context_patch('bad', 'x', NULL)$$, $$state_context_patch('bad', 'x', '1', NULL)$$,
	'state_context_merge(NULL)', $$state_context_merge('bad/1', NULL)$$, $$state_conflict_resolve(NULL, '1', 'r')$$, $$state_conflict_resolve(1, NULL, 'r')$$, $$state_conflict_resolve(1, '1', NULL)$$,
	$$state_context_mark_export(NULL, 'x', 'parent_context')$$, $$state_context_mark_export('bad', NULL, 'parent_context')$$, $$state_context_mark_export('bad', 'x', NULL)$$, $$state_context_unmark_export(NULL, 'x')$$, $$state_context_unmark_export('bad', NULL)$$,
	'state_context_complete(NULL)', $$state_context_complete('bad', NULL)$$, $$state_context_complete('bad', 'failed', NULL)$$,
	$$state_context_claim(NULL, 'ann')$$, $$state_context_claim('bad', NULL)$$, $$state_context_claim('bad', 'ann', NULL)$$, 'state_context_renew(NULL, 1)', $$state_context_renew('bad', NULL)$$, $$state_context_renew('bad', 1, NULL)$$,
	'state_context_release(NULL, 1)', $$state_context_release('bad', NULL)$$, 'state_context_fence(NULL, 1)', $$state_context_fence('bad', NULL)$$,
	$$state_context_spend(NULL, 'credits', 1)$$, $$state_context_spend('bad', NULL, 1)$$, $$state_context_spend('bad', 'credits', NULL)$$);

-- A word that is not known; the hint has those that are.
SELECT * FROM each_of(
	$$state_context_merge('bad/1', 'newest')$$, $$state_context_merge('bad/1', per_variable => '{"x": "newest"}')$$, $$state_context_merge('bad/1', per_variable => '{"x": 1}')$$, $$state_context_complete('bad/1', strategy => 'Child_Wins')$$,
	$$state_context_complete('bad/1', 'done')$$, $$state_context_complete('bad/1', 'running')$$, $$state_context_set('bad', 'x', '1', 'robot')$$, $$state_context_set('bad', 'x', '1', sensitivity => 'SECRET')$$,
	$$state_context_visible('bad', 'everything')$$, $$state_context_child('bad', 'bad/2', max_sensitivity => '')$$, $$state_context_create('bad/2', sensitivity_map => '{"x": "private"}')$$, $$state_context_create('bad/2', sensitivity_map => '{"x": null}')$$,
	$$state_context_mark_export('bad', 'x', 'parent')$$, $$state_context_unmark_export('bad', 'x', 'parent')$$, $$state_context_mark_export('bad', 'x', 'parent_context', sensitivity => 'none')$$,
	$$state_context_spend('bad', 'money', 1)$$, $$state_context_create('bad/2', resource_limits => '{"maxMoney": 1}')$$, $$state_context_child('bad', 'bad/2', resource_limits => '{"credits": 1}')$$);
-- Numbers that are none: negative, not finite, not a number at all.
SELECT * FROM each_of(
	$$state_context_spend('bad', 'credits', -1)$$, $$state_context_spend('bad', 'credits', -0.0000000001)$$, $$state_context_spend('bad', 'credits', 'NaN')$$, $$state_context_spend('bad', 'credits', 'Infinity')$$, $$state_context_spend('bad', 'credits', '-Infinity')$$,
	$$state_context_create('bad/2', resource_limits => '{"maxCredits": -1}')$$, $$state_context_create('bad/2', resource_limits => '{"maxCredits": "1"}')$$, $$state_context_create('bad/2', resource_limits => '{"maxCredits": null}')$$,
	$$state_context_child('bad', 'bad/2', resource_limits => '{"maxConcurrentBranches": -1}')$$, $$state_context_create('bad/2', resource_limits => '{"emergencyReserve": "all"}')$$);
-- What must be an object, a name, a list without NULL, a lease.
SELECT * FROM each_of(
	$$state_context_create('bad/2', inputs => '[]')$$, $$state_context_create('bad/2', inputs => '{"x": null}')$$, $$state_context_create('bad/2', inputs => '{"": 1}')$$, $$state_context_create('bad/2', permissions => '{a,NULL}')$$,
	$$state_context_create('bad/2', resource_limits => '1')$$, $$state_context_create('bad/2', sensitivity_map => '[]')$$, $$state_context_child('bad', 'bad/2', '"x"')$$, $$state_context_child('bad', 'bad/2', '{"x": null}')$$,
	$$state_context_child('bad', 'bad/2', permissions => '{read,write}')$$, $$state_context_child('bad', 'bad/2', permissions => '{NULL}')$$, $$state_context_child('bad', 'bad/2', resource_limits => '{"maxMemoryMB": 6}')$$,
	$$state_context_set('bad', '', '1')$$, $$state_context_set('bad', 'x', 'null')$$, $$state_context_set_many('bad', '[1]')$$, $$state_context_set_many('bad', '{"x": 1, "y": null}')$$, $$state_context_set_many('bad', '{"": 1}')$$,
	$$state_context_merge('bad/1', per_variable => '["child_wins"]')$$, $$state_context_merge('bad')$$,
	$$state_context_claim('bad', '')$$, $$state_context_claim('bad', repeat('o', 256))$$, $$state_context_claim('bad', 'ann', '0')$$, $$state_context_claim('bad', 'ann', '-1 s')$$, $$state_context_renew('bad', 1, '0')$$);
-- More than a document may have.
SET state_cache.max_state_size = '64kB';
SELECT outcome($$SELECT state_context_set('bad', 'x', to_jsonb(repeat('x', 65536)))$$), outcome($$SELECT state_context_create('bad/2', inputs => jsonb_build_object('x', repeat('x', 65536)))$$);
RESET state_cache.max_state_size;
-- Nothing of all that was written.
SELECT state_hash(state_get('bad')) = :'before', state_exists('bad/2');

-- The hierarchy is a tree: a run is nobody's child twice, and never its own or its child's.
SELECT outcome($$SELECT state_context_child('bad', 'bad')$$), outcome($$SELECT state_context_child('bad/1', 'bad')$$), outcome($$SELECT state_context_child('bad', 'bad/1')$$);
SELECT state_context_create('bad root'), state_context_child('bad root', 'bad root/1'), state_context_child('bad root/1', 'bad root/1/1');
-- Who writes into a document that it has another parent than it was created under is found out.
BEGIN;
SELECT state_update('bad root', '{"parentRunId": "bad root/1/1"}');
SELECT * FROM each_of($$state_context_child('bad root', 'bad root/2')$$, $$state_context_merge('bad root')$$, $$state_context_complete('bad root')$$);
SELECT run_id, parent_run_id, depth FROM state_context_tree('bad root');
ROLLBACK;
-- So is one that was written by state_set() as a child.
SELECT state_set('bad stray', '{"runId": "bad stray", "parentRunId": "bad root", "variables": {}}');
SELECT * FROM each_of($$state_context_child('bad stray', 'bad stray/1')$$, $$state_context_merge('bad stray')$$, $$state_context_complete('bad stray')$$);
SELECT run_id FROM state_context_tree('bad root');
-- One that was written as a root is one.
SELECT state_set('bad own', '{"runId": "bad own", "variables": {}}');
SELECT state_context_child('bad own', 'bad own/1'), state_context_set('bad own/1', 'x', '1');
SELECT variable, reason FROM state_context_merge('bad own/1');
-- A run that is deleted takes its place with it: a new one of its name, above or below those it once stood with, is no cycle.
SELECT state_context_complete('bad root/1/1'), state_context_complete('bad root/1'), state_context_complete('bad root');
SELECT state_delete('bad root'), state_delete('bad root/1');
SELECT state_context_create('bad root/1') IS NOT NULL, state_context_child('bad root/1', 'bad root') IS NOT NULL;
SELECT run_id, parent_run_id, depth FROM state_context_tree('bad root/1');
-- Nor does a run get the name of one whose children run: that is not deleted, and does not leave them when it expires.
SELECT state_context_create('bad again'), state_context_child('bad again', 'bad again/1');
SELECT outcome($$SELECT state_delete('bad again')$$);
UPDATE state_head SET expires_at = now() WHERE class = 'run' AND key = 'bad again';
SELECT complaint($$SELECT state_context_create('bad again')$$), outcome($$SELECT state_context_child('bad again/1', 'bad again')$$);
UPDATE state_head SET expires_at = NULL WHERE class = 'run' AND key = 'bad again';
-- After its children have ended it does, without them, and without its former owner.
SELECT state_context_complete('bad again/1'), state_context_claim('bad again', 'ann') IS NOT NULL;
BEGIN;
SELECT state_delete('bad again');
SELECT state_context_create('bad again') > 1;
COMMIT;
SELECT run_id, parent_run_id, owner FROM state_context_tree('bad again');
-- Depth and the number of children have limits. Children that have ended count until they are deleted.
SET state_cache.max_context_depth = 2;
SET state_cache.max_context_children = 2;
SELECT state_context_create('deep'), state_context_child('deep', 'deep/1'), state_context_child('deep/1', 'deep/1/1');
SELECT complaint($$SELECT state_context_child('deep/1/1', 'deep/1/1/1')$$);
SELECT state_context_child('deep', 'deep/2');
SELECT complaint($$SELECT state_context_child('deep', 'deep/3')$$);
SELECT state_context_complete('deep/2', 'cancelled');
SELECT outcome($$SELECT state_context_child('deep', 'deep/3')$$);
SELECT state_delete('deep/2');
SELECT state_context_child('deep', 'deep/3');
SET state_cache.max_context_depth = 0;
SELECT outcome($$SELECT state_context_child('deep/3', 'deep/3/1')$$);
RESET state_cache.max_context_depth; RESET state_cache.max_context_children;
SELECT run_id, depth FROM state_context_tree('deep');

-- Somebody wrote the document of a run with state_set(). What is wrong with it is named by its field, and nothing is
-- repaired. state_context_get() looks at all of it; the others at what they need, and leave the rest as it is.
CREATE TABLE shape (n integer GENERATED ALWAYS AS IDENTITY, patch jsonb);
INSERT INTO shape (patch) SELECT p::jsonb FROM unnest(ARRAY[
	'{"runId": null}', '{"runId": "other"}', '{"runId": 1}', '{"status": "done"}', '{"status": true}', '{"status": null}',
	'{"routineId": 1}', '{"parentRunId": []}', '{"swarmId": {}}', '{"createdAt": "today"}', '{"completedAt": 1}',
	'{"permissions": {}}', '{"permissions": [1]}', '{"resourceLimits": []}', '{"resourceLimits": {"maxCredits": "1"}}', '{"resourceLimits": {"maxcredits": 1}}',
	'{"usage": 1}', '{"usage": {"credits": null}}', '{"usage": {"money": 1}}', '{"reservations": []}', '{"reservations": {"c": 1}}', '{"reservations": {"c": {"credits": "1"}}}',
	'{"sharedLimits": {}}', '{"sharedLimits": ["money"]}', '{"intermediate": []}',
	'{"variables": []}', '{"variables": {"x": 1}}', '{"variables": {"x": {"value": 1}}}', '{"variables": {"x": {"key": "y", "value": 1}}}', '{"variables": {"x": {"key": "x"}}}', '{"variables": {"x": {"key": "x", "value": null}}}',
	'{"variables": {"x": {"key": "x", "value": 1, "source": "robot"}}}', '{"variables": {"x": {"key": "x", "value": 1, "timestamp": "21.11.2026"}}}',
	'{"variables": {"x": {"key": "x", "value": 1, "sensitivity": "top"}}}', '{"variables": {"x": {"key": "x", "value": 1, "mutable": "no"}}}',
	'{"exports": {}}', '{"exports": [1]}', '{"exports": [{"destination": "blackboard", "sensitivity": "public"}]}', '{"exports": [{"key": "x", "destination": "moon", "sensitivity": "public"}]}', '{"exports": [{"key": "x", "destination": "blackboard", "sensitivity": 5}]}',
	'{"exports": [{"key": "x", "destination": "blackboard", "sensitivity": "public", "transformation": 1}]}', '{"exports": [{"key": "x", "destination": "blackboard", "sensitivity": "public", "item": []}]}',
	'{"sensitivityMap": []}', '{"sensitivityMap": {"x": "top"}}', '{"conflicts": []}', '{"conflicts": {"x": 1}}', '{"conflicts": {"x": ["1"]}}']) p;
-- refused_by() says which functions refuse the run as it is; what they do is taken back.
CREATE FUNCTION refused_by(run text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	refused text[]; name text; call text;
BEGIN
	FOR name, call IN VALUES ('visible', 'state_context_visible(%L)'), ('tree', 'state_context_tree(%L)'), ('set', $c$state_context_set(%L, 'x', '2')$c$), ('other', $c$state_context_set(%L, 'fine', '2')$c$),
			('export', $c$state_context_mark_export(%L, 'x', 'parent_context')$c$), ('spend', $c$state_context_spend(%L, 'credits', 1)$c$), ('claim', $c$state_context_claim(%L, 'ann')$c$),
			('child', $c$state_context_child(%L, 'shape/child', resource_limits => '{"maxCredits": 1}')$c$), ('complete', 'state_context_complete(%L)') LOOP
		BEGIN
			EXECUTE 'SELECT * FROM ' || format(call, run);
			RAISE SQLSTATE 'UNDOX';
		EXCEPTION
			WHEN SQLSTATE 'UNDOX' THEN NULL;
			WHEN data_exception THEN refused := refused || name;
		END;
	END LOOP;
	RETURN array_to_string(refused, ' ');
END
$$;
CREATE FUNCTION shape_of(patch jsonb, OUT says text, OUT refused text, OUT untouched boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	whole CONSTANT jsonb := '{"runId": "shape", "variables": {"fine": {"key": "fine", "value": 1}}}';
BEGIN
	PERFORM state_set('shape', whole || patch || CASE WHEN jsonb_typeof(patch->'variables') = 'object' THEN jsonb_build_object('variables', whole->'variables' || patch->'variables') ELSE '{}' END);
	says := outcome('SELECT state_context_get(''shape'')');
	refused := refused_by('shape');
	-- Who sets another variable changes that, and nothing else.
	PERFORM outcome($c$SELECT state_context_set('shape', 'fine', '3')$c$);
	untouched := state_get('shape') @> patch;
END
$$;
SELECT patch, E'\n    ', s.* FROM shape, shape_of(patch) s ORDER BY n;
SELECT complaint($$SELECT state_context_get('shape')$$);
-- Fields that are missing, and a document that is none at all.
SELECT state_set('shape', '{"variables": {}}'), complaint($$SELECT state_context_get('shape')$$), refused_by('shape');
SELECT state_set('shape', '{"runId": "shape"}'), outcome($$SELECT state_context_get('shape')$$), refused_by('shape');
SELECT state_set('shape', d), outcome($$SELECT state_context_get('shape')$$), refused_by('shape') FROM unnest('{[],"\"shape\"",1,"null"}'::text[]::jsonb[]) d;
-- The least that a run needs.
SELECT state_set('shape', '{"runId": "shape", "variables": {}}'), outcome($$SELECT state_context_get('shape')$$), refused_by('shape');
-- A damaged child does not let its parent end, and is named.
SELECT state_context_create('shape parent'), state_context_child('shape parent', 'shape child'), state_set('shape child', '{"runId": "shape child"}');
SELECT * FROM each_of($$state_context_complete('shape parent')$$, $$state_context_merge('shape child')$$, $$state_context_complete('shape child')$$, $$state_context_tree('shape parent')$$);
SELECT state_context_get('shape parent')->>'status', state_get('shape child');
