-- Merging a child into its parent, case by case. Compared are three documents: what both started from (the base), what
-- the parent has now, and what the child has.
\a \t \pset null (null)
-- Few versions are kept here, as where a class drops what is old with each write.
SELECT state_class_define('run', keep => 1);
-- merged() makes a parent with a variable x, a child of it, changes both, and merges. NULL: x is not there, or does not
-- change; "gone": it is removed. The one that is named changes last.
CREATE SEQUENCE merge_case;
CREATE PROCEDURE change(run text, to_value jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF to_value = '"gone"' THEN
		PERFORM state_merge(run, '{"variables": {"x": null}}');
	ELSIF to_value IS NOT NULL THEN
		PERFORM state_context_set(run, 'x', to_value);
	END IF;
END
$$;
CREATE FUNCTION merged(strategy text, base jsonb, parent jsonb, child jsonb, last text DEFAULT 'child', OUT value jsonb, OUT how text, OUT reason text, OUT review boolean, OUT now jsonb)
LANGUAGE plpgsql AS $$
DECLARE
	p text := 'case ' || nextval('merge_case');
	c text := p || '/child';
BEGIN
	PERFORM state_context_create(p, inputs => CASE WHEN base IS NULL THEN '{"other": 1}' ELSE jsonb_build_object('x', base, 'other', 1) END);
	PERFORM state_context_child(p, c);
	IF last = 'parent' THEN
		CALL change(c, child);
	END IF;
	CALL change(p, parent);
	IF last = 'child' THEN
		CALL change(c, child);
	END IF;
	SELECT m.value, m.strategy, m.reason, m.conflict IS NOT NULL INTO value, how, reason, review
		FROM state_context_merge(c, strategy, token => NULL) m WHERE m.variable = 'x';
	now := state_context_get(p)#>'{variables,x,value}';
END
$$;
-- The last column is what the parent has afterwards.

-- No conflict, whatever the strategy: only one side changed it, or both did alike.
CREATE TABLE quiet_case (n integer, says text, base jsonb, parent jsonb, child jsonb);
INSERT INTO quiet_case VALUES
	(1, 'nobody', '1', NULL, NULL),
	(2, 'the child', '1', NULL, '2'),
	(3, 'the parent', '1', '2', NULL),
	(4, 'both, alike', '1', '2', '2'),
	(5, 'the child to what it was', '1', NULL, '1'),
	(6, 'the child to what it was, the parent to another', '1', '2', '1'),
	(7, 'the child made it', NULL, NULL, '2'),
	(8, 'both made it, alike', NULL, '2', '2'),
	(9, 'the parent made it', NULL, '2', NULL),
	(10, 'the child removed it', '1', NULL, '"gone"'),
	(11, 'the child removed it, the parent changed it', '1', '2', '"gone"'),
	(12, 'the parent removed it', '1', '"gone"', NULL),
	(13, 'a part of the object', '{"a": 1, "b": 1}', NULL, '{"b": 2}'),
	(14, 'an equal number of other digits is another value', '1.0', NULL, '1.00');
SELECT says, base, parent, child, '->', m.* FROM quiet_case, merged('merge_objects', base, parent, child) m ORDER BY n;
SELECT s, bool_and(merged(s, base, parent, child) IS NOT DISTINCT FROM merged('merge_objects', base, parent, child, last => 'parent'))
	FROM unnest('{parent_wins,child_wins,keep_latest,timestamp_latest,merge_objects,array_concat,manual_review}'::text[]) s, quiet_case GROUP BY s ORDER BY s;

-- Both changed it: what each strategy makes of it, with the child's or the parent's change being the later.
SELECT s, last, m.* FROM unnest('{parent_wins,child_wins,keep_latest,timestamp_latest,merge_objects,array_concat,manual_review}'::text[]) WITH ORDINALITY s (s, n), unnest('{child,parent}'::text[]) last,
	merged(s, '1', '2', '3', last) m ORDER BY n, last;
-- Both made it; the parent removed what the child changed.
SELECT s, m.* FROM unnest('{parent_wins,child_wins,keep_latest,merge_objects,array_concat,manual_review}'::text[]) WITH ORDINALITY s (s, n),
	merged(s, NULL, '2', '3', 'parent') m ORDER BY n;
SELECT s, m.* FROM unnest('{parent_wins,child_wins,keep_latest,merge_objects,array_concat,manual_review}'::text[]) WITH ORDINALITY s (s, n),
	merged(s, '1', '"gone"', '3', 'parent') m ORDER BY n;

-- merge_objects: each member by itself, in depth. A leaf that only one side changed is that side's; one that both did is
-- that of the later value; arrays are leaves; a member that one side removed and the other left is gone, one that the
-- other changed stays.
CREATE TABLE object_case (n integer, says text, base jsonb, parent jsonb, child jsonb);
INSERT INTO object_case VALUES
	(1, 'other members', '{"a": 1, "b": 1}', '{"a": 2, "b": 1}', '{"a": 1, "b": 3}'),
	(2, 'the same member', '{"a": 1}', '{"a": 2}', '{"a": 3}'),
	(3, 'the same member alike, and others', '{"a": 1}', '{"a": 2, "p": 1}', '{"a": 2, "c": 1}'),
	(4, 'in depth', '{"o": {"i": {"a": 1, "b": 1}}}', '{"o": {"i": {"a": 2, "b": 1}, "p": 1}}', '{"o": {"i": {"a": 1, "b": 3}}, "c": 1}'),
	(5, 'arrays are leaves', '{"l": [1], "m": [1]}', '{"l": [1, 2], "m": [1]}', '{"l": [1, 3], "m": []}'),
	(6, 'removed and left', '{"a": 1, "b": 1, "c": 1}', '{"b": 1, "c": 2}', '{"a": 1, "c": 1}'),
	(7, 'removed and changed', '{"a": 1, "b": 1}', '{"b": 2}', '{"a": 3}'),
	(8, 'removed by both', '{"a": 1, "b": 1, "c": 1}', '{"b": 2, "c": 1}', '{"b": 1, "c": 3}'),
	(9, 'an object on one side only', '{"a": {"b": 1}}', '{"a": {"b": 2}}', '{"a": [2]}'),
	(10, 'both made it', NULL, '{"a": {"b": 1}, "x": 1}', '{"a": {"c": 1}, "x": 2}'),
	(11, 'made of no object', '[]', '{"a": 1}', '{"b": 1}'),
	(12, 'one is none', '{"a": 1}', '{"a": 2}', '[3]'),
	(13, 'null is a value', '{"a": 1, "b": null}', '{"a": null, "b": null}', '{"a": 1}'),
	(14, 'empty', '{"a": 1}', '{}', '{"a": 1, "b": {}}');
SELECT says, base, parent, child, '->', m.now FROM object_case, merged('merge_objects', base, parent, child) m ORDER BY n;
-- With the parent's being the later, those that come out otherwise:
SELECT n, says, m.how, m.reason, m.now FROM object_case, merged('merge_objects', base, parent, child, 'parent') m
	WHERE m.now IS DISTINCT FROM (merged('merge_objects', base, parent, child)).now ORDER BY n;

-- array_concat: the parent's, and then what the child has and the base has not, as often as that.
SELECT base, parent, child, '->', m.* FROM (VALUES
	('[1]'::jsonb, '[1, 2]'::jsonb, '[1, 3]'::jsonb),
	('[1, 1]', '[0]', '[1, 1, 1]'),
	('[1, 2]', '[2]', '[3, 2]'),
	('[{"a": 1}, [2]]', '[{"a": 1}]', '[[2], {"a": 1}, {"a": 2}]'),
	(NULL, '[1]', '[1, 2]'),
	('1', '[1]', '[2]'),
	('[1]', '[2]', '[]'),
	('[1]', '{"a": 1}', '[1, 2]')) v (base, parent, child), merged('array_concat', base, parent, child) m;

-- Equal times, or none at all: the child's. Who wrote by hand wrote no time.
SELECT state_context_create('even', inputs => '{"x": {"a": 1}, "y": 1, "z": 1}'), state_context_child('even', 'even/1');
SELECT state_update_section('even', 'variables', '{"x": {"key": "x", "value": {"a": 2}, "timestamp": "2026-01-01T00:00:00Z"}, "y": {"key": "y", "value": 2}, "z": {"key": "z", "value": 2, "timestamp": "2026-01-01T00:00:00Z"}}');
SELECT state_update_section('even/1', 'variables', '{"x": {"key": "x", "value": {"a": 3}, "timestamp": "2026-01-01T01:00:00+01:00"}, "y": {"key": "y", "value": 3}, "z": {"key": "z", "value": 3}}');
SELECT * FROM state_context_merge('even/1');
SELECT state_context_get('even')#>'{variables,x,timestamp}';

-- What is not mutable in the parent stays, and the row says so; what was fixed by the child is fixed with its value.
SELECT state_context_create('fixed', inputs => '{"a": 1, "b": 1}'), state_context_child('fixed', 'fixed/1');
SELECT state_context_set('fixed', 'a', '1', mutable => false), state_context_set('fixed/1', 'a', '2'), state_context_set('fixed/1', 'b', '2', mutable => false);
SELECT * FROM state_context_merge('fixed/1', 'child_wins');
SELECT name, value, mutable FROM variables('fixed');

-- A strategy for each variable, and one for all others.
SELECT state_context_create('each', inputs => '{"a": 1, "b": 1, "c": 1, "d": [1], "e": 1}'), state_context_child('each', 'each/1');
SELECT state_context_set_many('each', '{"a": 2, "b": 2, "c": 2, "d": [1, 2]}'), state_context_set_many('each/1', '{"a": 3, "b": 3, "c": 3, "d": [1, 3]}');
SELECT * FROM state_context_merge('each/1', 'parent_wins', '{"a": "child_wins", "b": "timestamp_latest", "d": "array_concat", "no such": "manual_review"}');

-- Merged again, a child is compared with itself as it was last merged: what the parent made of it is no change of its.
SELECT state_context_create('again', inputs => '{"a": 1, "b": 1}'), state_context_child('again', 'again/1');
SELECT state_context_set('again/1', 'a', '2'), state_context_set('again/1', 'new', '1');
SELECT * FROM state_context_merge('again/1');
SELECT * FROM state_context_merge('again/1');
SELECT state_context_set('again', 'a', '3'), state_context_set('again/1', 'b', '2');
SELECT * FROM state_context_merge('again/1', 'child_wins');
SELECT state_context_set('again/1', 'a', '4'), state_context_set('again', 'new', '2');
SELECT * FROM state_context_merge('again/1', 'parent_wins');
SELECT * FROM state_context_merge('again/1', 'child_wins');
SELECT name, value FROM variables('again');
-- What it started from last is kept, however few versions the class keeps: pruning spares it,
SELECT state_class_define('run', keep => 0);
SELECT state_context_create('pruned', inputs => '{"a": 1}'), state_context_child('pruned', 'pruned/1');
SELECT version, recovery_point FROM state_history('pruned/1');
DO $$ BEGIN FOR i IN 1..5 LOOP PERFORM state_context_set('pruned/1', 'b', to_jsonb(i)); PERFORM state_save('pruned/1', state_get('pruned/1')); END LOOP; END $$;
SELECT state_prune('run', keep => 1) > 0;
SELECT version, recovery_point FROM state_history('pruned/1');
SELECT variable, value, reason FROM state_context_merge('pruned/1');
SELECT state_context_set('pruned/1', 'c', '1'), state_context_set('pruned', 'b', '6');
SELECT state_context_set('pruned/1', 'c', '2');
SELECT state_prune('run', keep => 1, recovery_points => true) > 0;
SELECT variable, value, reason FROM state_context_merge('pruned/1', 'child_wins');
-- and so does a class that drops what is old with each write.
SELECT state_class_define('run', keep => 1);
SELECT state_context_create('trimmed', inputs => '{"a": 1}'), state_context_child('trimmed', 'trimmed/1');
SELECT state_context_set('trimmed/1', 'd', '1'), state_context_set('trimmed', 'a', '2');
SELECT state_context_set('trimmed/1', 'd', '2');
SELECT variable, value, reason FROM state_context_merge('trimmed/1', 'child_wins');
SELECT state_context_set('trimmed/1', 'd', '3');
SELECT state_context_set('trimmed/1', 'd', '4'), state_context_set('trimmed', 'd', '5');
SELECT variable, value, reason FROM state_context_merge('trimmed/1', 'parent_wins');
SELECT version, recovery_point FROM state_history('trimmed/1');
-- Where somebody deleted it, the error says what is missing.
SELECT state_class_define('run', keep => 0);
SET state_cache.max_delta_chain = 0;
SELECT state_context_set('pruned/1', 'b', '0');
BEGIN;
DELETE FROM state_snapshot WHERE class = 'run' AND key = 'pruned/1' AND version < (SELECT version FROM state_head WHERE class = 'run' AND key = 'pruned/1');
SELECT regexp_replace(complaint($$SELECT * FROM state_context_merge('pruned/1')$$), 'version \d+', 'version N');
ROLLBACK;
RESET state_cache.max_delta_chain;
SELECT variable, value, reason FROM state_context_merge('pruned/1');
SELECT state_class_define('run', keep => 1);
-- A run that has ended can be merged; its parent must not have.
SELECT state_context_set('again/1', 'last', '1'), state_context_complete('again/1');
SELECT variable, reason FROM state_context_merge('again/1');
SELECT variable, reason FROM state_context_merge('again/1');
SELECT complaint($$SELECT * FROM state_context_merge('again')$$);
SELECT state_context_child('again', 'again/2'), state_context_set('again/2', 'unmerged', '1'), state_context_complete('again/2');
SELECT state_context_complete('again');
SELECT complaint($$SELECT * FROM state_context_merge('again/2')$$);

-- Parallel children of one parent, merged in any order: what each changed alone is the same in the end.
SELECT run, state_context_create(run, inputs => '{"all": {}, "a": 0, "b": 0, "c": 0}') FROM unnest('{abc,cba,bac}'::text[]) run;
SELECT count(state_context_child(run, run || '/' || c)) FROM unnest('{abc,cba,bac}'::text[]) run, unnest('{a,b,c}'::text[]) c;
SELECT count(state_context_set(run || '/' || c, c, '1')), count(state_context_patch(run || '/' || c, 'all', jsonb_build_object(c, 1))), count(state_context_set(run || '/' || c, 'new ' || c, '1'))
	FROM unnest('{abc,cba,bac}'::text[]) run, unnest('{a,b,c}'::text[]) c;
SELECT run, c, variable, value, strategy FROM unnest('{abc,cba,bac}'::text[]) run, string_to_table(run, NULL) WITH ORDINALITY c (c, n), state_context_merge(run || '/' || c) ORDER BY run, n, variable;
SELECT jsonb_object_agg(name, value) FROM unnest('{abc,cba,bac}'::text[]) run, variables(run) GROUP BY run;
-- A grandchild's change comes to the root by way of the child.
SELECT state_context_child('abc/a', 'abc/a/1'), state_context_set('abc/a/1', 'deep', '1');
SELECT variable, reason FROM state_context_merge('abc/a/1');
SELECT variable, reason FROM state_context_merge('abc/a');

-- An input of a child is no change of its parent: what the child makes of it is a conflict only where the parent changed
-- what it has in that place.
SELECT state_context_create('inputs', inputs => '{"a": 1, "b": 1}'), state_context_child('inputs', 'inputs/1', '{"a": 10, "b": 10, "own": 10}');
SELECT state_context_set_many('inputs/1', '{"a": 11, "b": 11, "own": 11}'), state_context_set('inputs', 'b', '2');
SELECT variable, value, strategy, reason FROM state_context_merge('inputs/1', 'parent_wins');
-- Nor is it one that the parent's value stayed at the last merge.
SELECT state_context_set('inputs/1', 'b', '12');
SELECT variable, value, strategy, reason FROM state_context_merge('inputs/1', 'parent_wins');
-- An input that the child leaves as it is goes nowhere.
SELECT state_context_child('inputs', 'inputs/2', '{"a": 20, "new": 20}');
SELECT variable, value FROM state_context_merge('inputs/2');

-- manual_review: a person decides. The parent's value stays, and nobody changes this variable until then.
CREATE FUNCTION unnumbered(says text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT regexp_replace(says, 'conflict \d+', 'conflict N', 'g') $$;
CREATE FUNCTION conflicts(run text) RETURNS TABLE (variable text, child_run text, base jsonb, parent jsonb, child jsonb, sensitivity text, status text, resolved jsonb, reason text, waits boolean, superseded boolean) LANGUAGE sql VOLATILE AS $$
	SELECT c.variable, c.child_run_id, c.base_value, c.parent_value, c.child_value, c.sensitivity, c.status, c.resolved_value, c.reason,
			coalesce(state_context_get(run)->'conflicts'->c.variable @> to_jsonb(c.id), false), c.superseded_by IS NOT NULL
		FROM state_conflict c WHERE c.run_id = run ORDER BY c.id
$$;
SELECT state_context_create('ask', inputs => '{"x": 1, "y": 1, "z": 1}', sensitivity_map => '{"x": "confidential"}'), state_context_child('ask', 'ask/1'), state_context_child('ask', 'ask/2');
SELECT state_context_set_many('ask', '{"x": 2, "y": 2}'), state_context_set_many('ask/1', '{"x": 3, "y": 3}'), state_context_set_many('ask/2', '{"x": 4, "y": 1, "z": 4}');
SELECT variable, value, strategy, reason, conflict IS NOT NULL FROM state_context_merge('ask/1', 'child_wins', '{"x": "manual_review"}');
SELECT * FROM conflicts('ask');
SELECT unnumbered(complaint($$SELECT state_context_set('ask', 'x', '5')$$));
SELECT unnumbered(outcome($$SELECT state_context_append('ask', 'x', '5')$$)), unnumbered(outcome($$SELECT state_context_patch('ask', 'x', '{}')$$)), unnumbered(outcome($$SELECT state_context_set_many('ask', '{"z": 9, "x": 5}')$$));
SELECT complaint($$SELECT * FROM state_context_complete('ask', 'cancelled')$$);
SELECT state_context_set('ask', 'y', '6');
-- The child goes on with its own.
SELECT state_context_set('ask/1', 'x', '7');
-- A second child's change of it is a further conflict, whatever the strategy.
SELECT variable, value, strategy, reason, conflict IS NOT NULL FROM state_context_merge('ask/2', 'child_wins');
SELECT variable, child_run, parent, child, status, waits FROM conflicts('ask');
SELECT min(id) AS first, max(id) AS second FROM state_conflict WHERE run_id = 'ask' \gset
-- Settling one opens the other again under a new id: it is to be decided against what has been decided.
SELECT state_conflict_resolve(:second, '{"both": [3, 4]}', 'both are right');
SELECT * FROM conflicts('ask');
SELECT name, value, source, sensitivity FROM variables('ask') WHERE name = 'x';
SELECT unnumbered(outcome($$SELECT state_context_set('ask', 'x', '5')$$));
-- A stale one is refused: one that was settled, one that has been superseded, one that there never was.
SELECT unnumbered(regexp_replace(complaint(format($$SELECT state_conflict_resolve(%s, '1', 'again')$$, :second)), 'by \S+ at .*', 'by R at T'));
SELECT unnumbered(complaint(format($$SELECT state_conflict_resolve(%s, '1', 'late')$$, :first)));
SELECT outcome($$SELECT state_conflict_resolve(0, '1', 'none')$$);
SELECT max(id) AS third FROM state_conflict WHERE run_id = 'ask' \gset
-- Nor can one be settled whose variable somebody has changed past the rules, or whose run forgot it.
BEGIN;
SELECT state_update_section('ask', 'variables', '{"x": {"key": "x", "value": "by hand"}}');
SELECT unnumbered(complaint(format($$SELECT state_conflict_resolve(%s, '1', 'late')$$, :third)));
ROLLBACK;
BEGIN;
SELECT state_update('ask', '{"conflicts": {}}');
SELECT unnumbered(complaint(format($$SELECT state_conflict_resolve(%s, '1', 'late')$$, :third)));
ROLLBACK;
SELECT outcome(format($$SELECT state_conflict_resolve(%s, 'null', 'nothing')$$, :third));
SELECT state_conflict_resolve(:third, '8', 'the end');
SELECT variable, parent, child, status, resolved, reason, waits, superseded FROM conflicts('ask');
SELECT state_context_get('ask')->'conflicts';
SELECT state_context_set('ask', 'x', '9');
SELECT status, resolved_by = current_user, resolved_at >= opened_at FROM state_conflict WHERE id = :third;
-- A conflict that was opened in a transaction that is rolled back was never there.
SELECT state_context_set('ask/2', 'y', '8');
BEGIN;
SELECT variable, conflict IS NOT NULL FROM state_context_merge('ask/2', 'manual_review');
ROLLBACK;
SELECT count(*) FROM conflicts('ask') WHERE variable = 'y';
SELECT state_context_get('ask')->'conflicts';
SELECT variable, conflict IS NOT NULL FROM state_context_merge('ask/2', 'manual_review');
-- A run with conflicts does not complete; one that fails or is cancelled decides nothing any more.
SELECT state_context_complete('ask/1', 'failed'), state_context_complete('ask/2', 'failed');
SELECT complaint($$SELECT * FROM state_context_complete('ask')$$);
BEGIN;
SELECT * FROM state_context_complete('ask', 'cancelled');
SELECT variable, child_run, status FROM conflicts('ask');
SELECT complaint(format($$SELECT state_conflict_resolve(%s, '1', 'late')$$, max(id))) ~ '^55000' FROM state_conflict WHERE run_id = 'ask' AND variable = 'y';
ROLLBACK;
SELECT state_conflict_resolve(id, '1', 'to end') FROM state_conflict WHERE run_id = 'ask' AND status = 'open';
SELECT * FROM state_context_complete('ask');
-- One that is opened when a child completes is settled like any other.
SELECT state_context_create('ask 2', inputs => '{"x": 1}'), state_context_child('ask 2', 'ask 2/1');
SELECT state_context_set('ask 2', 'x', '2'), state_context_set('ask 2/1', 'x', '3');
SELECT state_context_mark_export('ask 2/1', 'x', 'parent_context');
SELECT * FROM state_context_complete('ask 2/1', strategy => 'manual_review');
SELECT variable, parent, child, waits FROM conflicts('ask 2');
SELECT state_conflict_resolve(id, child_value, 'the child knows') FROM state_conflict WHERE run_id = 'ask 2';
SELECT name, value FROM variables('ask 2');
-- The conflicts of a run that is deleted are not those of the next one of its name.
SELECT state_context_create('ask 3', inputs => '{"x": 1}'), state_context_child('ask 3', 'ask 3/1'), state_context_set('ask 3', 'x', '2'), state_context_set('ask 3/1', 'x', '"old"');
SELECT variable FROM state_context_merge('ask 3/1', 'manual_review');
SELECT state_context_complete('ask 3/1');
SELECT state_delete('ask 3'), state_delete('ask 3/1');
SELECT state_context_create('ask 3', inputs => '{"x": 1}') > 1, state_context_child('ask 3', 'ask 3/1') > 1, state_context_set('ask 3', 'x', '2'), state_context_set('ask 3/1', 'x', '"new"');
SELECT variable FROM state_context_merge('ask 3/1', 'manual_review');
SELECT state_conflict_resolve(max(id), '3', 'the new one') FROM state_conflict WHERE run_id = 'ask 3';
SELECT child, status, waits FROM conflicts('ask 3');
