-- What a merge compares with after an export, after a resolution, and after the end of the parent.
\a \t \pset null (null)
SELECT state_class_define('run', keep => 0);
CREATE FUNCTION value_of(run text, name text) RETURNS jsonb LANGUAGE sql VOLATILE AS $$ SELECT state_get_path(run, ARRAY['variables', name, 'value']) $$;
-- again() makes a parent and its child, which have the same variables.
CREATE PROCEDURE again(parent text, inputs jsonb) LANGUAGE plpgsql AS $$ BEGIN
	PERFORM state_context_create(parent, inputs => inputs);
	PERFORM state_context_child(parent, parent || '/c');
END $$;

-- An export to the parent is a merge of that variable: the next one takes nothing of it again,
CALL again('again 1', '{"a": ["x"], "other": 1}');
SELECT state_context_append('again 1', 'a', '"parent"'), state_context_append('again 1/c', 'a', '"child"'), state_context_set('again 1/c', 'other', '2');
SELECT state_context_mark_export('again 1/c', 'a', 'parent_context');
SELECT key, reason FROM state_context_complete('again 1/c', strategy => 'array_concat');
SELECT value_of('again 1', 'a');
SELECT variable, value, reason FROM state_context_merge('again 1/c', 'array_concat');
SELECT value_of('again 1', 'a');
SELECT variable, value, reason FROM state_context_merge('again 1/c', 'array_concat');
-- does not undo what the parent has decided since,
CALL again('again 2', '{"v": "old", "other": 1}');
SELECT state_context_set_many('again 2/c', '{"v": "new", "other": 2}'), state_context_mark_export('again 2/c', 'v', 'parent_context');
SELECT key, reason FROM state_context_complete('again 2/c');
SELECT state_context_set('again 2', 'v', '"old"');
SELECT variable, value FROM state_context_merge('again 2/c', 'child_wins');
SELECT value_of('again 2', 'v');
-- and asks no person twice.
CALL again('again 3', '{"v": "old", "other": 1}');
SELECT state_context_set('again 3/c', 'v', '"c"'), state_context_set('again 3', 'v', '"p"'), state_context_mark_export('again 3/c', 'v', 'parent_context');
SELECT key, reason FROM state_context_complete('again 3/c', strategy => 'manual_review');
SELECT state_conflict_resolve(id, '"decided"', 'r') FROM state_conflict WHERE run_id = 'again 3';
SELECT variable, reason FROM state_context_merge('again 3/c', 'manual_review');
SELECT variable, reason FROM state_context_merge('again 3/c', 'child_wins');
SELECT value_of('again 3', 'v'), (SELECT count(*) FROM state_conflict WHERE run_id = 'again 3');
-- The same for what was made of the value on the way, also where that is what the parent began with.
CALL again('again 4', '{"v": 1, "w": 1, "x": 1}');
SELECT state_context_set_many('again 4/c', '{"v": {"a": 2}, "w": {"a": 1}, "x": 2}');
SELECT count(state_context_mark_export('again 4/c', v, 'parent_context', '$.a')) FROM unnest('{v,w}'::text[]) v;
SELECT key, reason FROM state_context_complete('again 4/c');
SELECT value_of('again 4', 'v'), value_of('again 4', 'w');
SELECT variable, value, reason FROM state_context_merge('again 4/c', 'child_wins');
-- After a merge, and with an input of the child's own: only what was exported is one with the parent's.
SELECT state_context_create('again 5', inputs => '{"a": ["x"], "b": ["x"]}'), state_context_child('again 5', 'again 5/c', inputs => '{"a": ["own"]}');
SELECT state_context_append('again 5/c', 'a', '1'), state_context_append('again 5/c', 'b', '1');
SELECT variable, value FROM state_context_merge('again 5/c', 'array_concat');
SELECT state_context_append('again 5/c', 'a', '2'), state_context_append('again 5/c', 'b', '2'), state_context_append('again 5', 'a', '"p"'), state_context_append('again 5', 'b', '"p"');
SELECT state_context_mark_export('again 5/c', 'a', 'parent_context');
SELECT key, reason FROM state_context_complete('again 5/c', strategy => 'array_concat');
SELECT handed_on->'a'->'value', handed_on ? 'b', parent_base FROM state_context WHERE run_id = 'again 5/c';
SELECT variable, value FROM state_context_merge('again 5/c', 'array_concat');
SELECT handed_on, base_version = state_version('again 5/c') FROM state_context WHERE run_id = 'again 5/c';
SELECT variable, value FROM state_context_merge('again 5/c', 'array_concat');
-- A run that is created under the id begins anew.
CALL again('again 6', '{"v": 1}');
SELECT state_context_set('again 6/c', 'v', '2'), state_context_mark_export('again 6/c', 'v', 'parent_context');
SELECT key, reason FROM state_context_complete('again 6/c');
SELECT handed_on->'v'->'value' FROM state_context WHERE run_id = 'again 6/c';
SELECT state_delete('again 6/c');
SELECT state_context_child('again 6', 'again 6/c') > 1;
SELECT handed_on FROM state_context WHERE run_id = 'again 6/c';

-- Where the parent has come to the value that the child began with, by a resolution or by itself, only the child has
-- changed it.
CALL again('again 7', '{"v": 0, "w": {"m": 0, "n": 0}}');
SELECT state_context_set_many('again 7/c', '{"v": "c", "w": {"m": "c", "n": 0}}'), state_context_set_many('again 7', '{"v": "p", "w": {"m": "p", "n": 0}}');
SELECT variable, conflict > 0 FROM state_context_merge('again 7/c', 'manual_review');
SELECT state_conflict_resolve(id, child_value, 'the child is right') FROM state_conflict WHERE run_id = 'again 7';
SELECT state_context_set_many('again 7/c', '{"v": "c2", "w": {"m": "c2", "n": 0}}');
SELECT variable, value, strategy, reason FROM state_context_merge('again 7/c', 'parent_wins');
-- in a member of an object too.
SELECT state_context_set('again 7/c', 'w', '{"m": "c3", "n": 0}'), state_context_set('again 7', 'w', '{"m": "p3", "n": 0}');
SELECT variable, value FROM state_context_merge('again 7/c', 'parent_wins') ORDER BY variable;
SELECT state_context_set('again 7/c', 'w', '{"m": "c4", "n": 0}'), state_context_set('again 7', 'w', '{"m": "c3", "n": "p"}');
SELECT variable, value, strategy FROM state_context_merge('again 7/c') ORDER BY variable;
-- Decided otherwise, both have changed it.
CALL again('again 8', '{"v": 0}');
SELECT state_context_set('again 8/c', 'v', '"c"'), state_context_set('again 8', 'v', '"p"');
SELECT variable, conflict > 0 FROM state_context_merge('again 8/c', 'manual_review');
SELECT state_conflict_resolve(id, '"d"', 'neither') FROM state_conflict WHERE run_id = 'again 8';
SELECT state_context_set('again 8/c', 'v', '"c2"');
SELECT variable, value, strategy, reason FROM state_context_merge('again 8/c', 'parent_wins');

-- Into a parent that has ended nothing is merged, whether or not there is something.
CALL again('again 9', '{"v": 0}');
SELECT state_context_complete('again 9/c');
SELECT state_context_complete('again 9');
SELECT complaint($$SELECT * FROM state_context_merge('again 9/c')$$);

-- A merge changes the parent only. What its record has beside the fields that are known stays, unless the child's, whose
-- value is taken, has the same.
CALL again('again 10', '{"v": 0, "w": 0}');
SELECT state_update_section('again 10', 'variables', '{"v": {"key": "v", "value": 0, "unit": "km", "note": "of the parent", "timestamp": "2026-01-01T00:00:00Z"}}');
SELECT state_update_section('again 10/c', 'variables', '{"v": {"key": "v", "value": 1, "note": "of the child", "by": "c"}}'), state_context_set('again 10', 'w', '1');
SELECT variable, reason FROM state_context_merge('again 10/c');
SELECT state_get_path('again 10', '{variables,v}');
SELECT value_of('again 10/c', 'w'), state_version('again 10/c');

-- Conflicts are deleted in any order; one that is gone cannot be resolved.
CALL again('again 11', '{"v": 0}');
SELECT state_context_child('again 11', 'again 11/d');
SELECT state_context_set('again 11', 'v', '1'), state_context_set('again 11/c', 'v', '2'), state_context_set('again 11/d', 'v', '3');
SELECT variable FROM state_context_merge('again 11/c', 'manual_review');
SELECT variable FROM state_context_merge('again 11/d', 'manual_review');
SELECT state_conflict_resolve(min(id), '4', 'r') FROM state_conflict WHERE run_id = 'again 11';
SELECT status, superseded_by IS NOT NULL FROM state_conflict WHERE run_id = 'again 11' ORDER BY id;
BEGIN;
DELETE FROM state_conflict WHERE run_id = 'again 11' AND status = 'open';
SELECT status, superseded_by IS NOT NULL FROM state_conflict WHERE run_id = 'again 11' ORDER BY id;
SELECT regexp_replace(complaint($$SELECT state_context_set('again 11', 'v', '5')$$), 'conflict \d+', 'conflict N') ~ '^55006';
ROLLBACK;
DELETE FROM state_conflict WHERE run_id = 'again 11' AND status = 'superseded';
SELECT state_conflict_resolve(id, '5', 'r') FROM state_conflict WHERE run_id = 'again 11' AND status = 'open';
DELETE FROM state_conflict WHERE run_id = 'again 11';
SELECT value_of('again 11', 'v');

-- A variable that becomes more sensitive than a destination of its marks takes: setting it is not refused, the end is.
SELECT state_context_create('again 12', inputs => '{"v": 1, "w": 1}');
SELECT state_context_mark_export('again 12', 'v', 'external_system', target => 'again');
BEGIN;
SELECT state_context_mark_export('again 12', 'w', 'external_system', target => 'again');
SELECT state_context_set('again 12', 'w', '1', sensitivity => 'secret');
COMMIT;
SELECT state_context_set('again 12', 'v', '1', sensitivity => 'secret');
SELECT outcome($$SELECT * FROM state_context_complete('again 12')$$);
SELECT state_context_unmark_export('again 12', 'v');
SELECT outcome($$SELECT * FROM state_context_complete('again 12')$$);
SELECT state_context_unmark_export('again 12', 'w');
SELECT count(*) FROM state_context_complete('again 12');

-- A path with a variable is refused when it is marked; one that was written by hand, or fails on the value, when the run
-- ends, with the name of the export.
SELECT state_context_create('again 13', inputs => '{"v": {"$x": 1, "t": "2026-01-01T00:00:00"}}');
SELECT complaint($$SELECT state_context_mark_export('again 13', 'v', 'external_system', '$x', 'again')$$);
SELECT path, outcome(format($$SELECT state_context_mark_export('again 13', 'v', 'external_system', %L, 'again', %L)$$, path, n))
	FROM unnest(ARRAY['$ ? (@.a == $"no")', 'strict $.a[$i]', '$.t ? (@ starts with $p)', '$."$x"', '$.t ? (@ == "$\"x\"")', '$."a\\" ? (@ == "$")', '$.t']) WITH ORDINALITY p (path, n);
SELECT state_context_unmark_export('again 13', 'v');
SELECT state_context_mark_export('again 13', 'v', 'external_system', '$.t.datetime() ? (@ < "2027-01-01T00:00:00+01:00".datetime())', 'again');
SELECT complaint($$SELECT * FROM state_context_complete('again 13')$$);
SELECT state_update('again 13', '{"exports": [{"key": "v", "destination": "external_system", "target": "again", "sensitivity": "internal", "transformation": "$x"}]}');
SELECT complaint($$SELECT * FROM state_context_complete('again 13')$$);
SELECT state_update('again 13', '{"exports": [{"key": "v", "destination": "external_system", "target": "again", "sensitivity": "internal", "transformation": "$."}]}');
SELECT outcome($$SELECT * FROM state_context_complete('again 13')$$);
SELECT state_context_complete('again 13', 'failed');

-- A time in the last hours of the year 9999, in another zone, is one that the parent can be given.
CALL again('again 14', '{"v": 1}');
SELECT state_update_section('again 14/c', 'variables', '{"v": {"key": "v", "value": 2, "timestamp": "9999-12-31T23:59:59-05:00"}}');
SELECT variable, value FROM state_context_merge('again 14/c');
SELECT state_get_path('again 14', '{variables,v,timestamp}'), state_context_get('again 14') IS NOT NULL;
SELECT state_context_complete('again 14/c');
SELECT state_context_complete('again 14');
DELETE FROM state_outbox WHERE target = 'again';
SELECT state_class_define('run', keep => 1);
