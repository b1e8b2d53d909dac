-- Variables of a run: what may change them, how sensitive they are, when they were set.
\a \t \pset null (null)
SELECT state_context_create('vars', inputs => '{"n": 1, "list": [1], "object": {"a": 1}, "text": "t"}');

-- A variable that is not mutable stays as it is, whichever way it is to be changed, and to the same value too.
SELECT state_context_set('vars', 'fixed', '{"list": []}', mutable => false);
SELECT complaint($$SELECT state_context_set('vars', 'fixed', '2')$$);
SELECT outcome($$SELECT state_context_set('vars', 'fixed', '{"list": []}')$$);
SELECT outcome($$SELECT state_context_set('vars', 'fixed', '2', mutable => true)$$);
SELECT outcome($$SELECT state_context_set_many('vars', '{"n": 2, "fixed": 2}')$$);
SELECT outcome($$SELECT state_context_append('vars', 'fixed', '2')$$);
SELECT outcome($$SELECT state_context_patch('vars', 'fixed', '{}')$$);
-- Not one of several is set then.
SELECT value FROM variables('vars') WHERE name IN ('n', 'fixed');
-- What was mutable can be fixed later, and stays so.
SELECT state_context_set('vars', 'text', '"last"', mutable => false);
SELECT outcome($$SELECT state_context_set('vars', 'text', '"later"')$$);
-- A child inherits that as well.
SELECT state_context_child('vars', 'vars/1');
SELECT outcome($$SELECT state_context_set('vars/1', 'fixed', '2')$$);
SELECT complaint($$SELECT state_context_child('vars', 'vars/2', '{"fixed": 2}')$$);
-- Without a word about it what is mutable stays so.
SELECT state_context_set('vars', 'n', '2'), state_context_set('vars', 'n', '3', mutable => NULL);
SELECT * FROM variables('vars');

-- Append and patch begin with an empty array and an empty object. What is no array is not appended to.
SELECT state_context_append('vars', 'new list', '1'), state_context_append('vars', 'new list', '[2]');
SELECT state_context_patch('vars', 'new object', '{"a": {"b": 1, "c": null}}');
SELECT value FROM variables('vars') WHERE name LIKE 'new%';
SELECT complaint($$SELECT state_context_append('vars', 'object', '1')$$);
SELECT complaint($$SELECT state_context_append('vars', 'n', '1')$$);
SELECT state_context_patch('vars', 'n', '{"was": "a number"}');
SELECT complaint($$SELECT state_context_patch('vars', 'n', 'null')$$);
SELECT value FROM variables('vars') WHERE name = 'n';
-- Null is a value within an object or array, and none of a variable.
SELECT state_context_set('vars', 'with null', '[null, {"a": null}]');
SELECT complaint($$SELECT state_context_set('vars', 'null', 'null')$$);

-- How sensitive a variable is only ever rises: public < internal < confidential < pii < secret.
SELECT state_context_create('levels');
SELECT count(state_context_set('levels', s, '1', sensitivity => s)) FROM unnest('{public,internal,confidential,pii,secret}'::text[]) s;
SELECT state_context_set('levels', 'default', '1');
SELECT name, sensitivity FROM variables('levels');
SELECT count(state_context_set('levels', s, '2', sensitivity => 'public')) FROM unnest('{public,internal,confidential,pii,secret,default}'::text[]) s;
SELECT name, value, sensitivity FROM variables('levels');
SELECT count(state_context_set('levels', s, '2', sensitivity => 'confidential')) FROM unnest('{public,internal,confidential,pii,secret,default}'::text[]) s;
SELECT name, sensitivity FROM variables('levels');
-- Append, patch and a set without a word about it leave it.
SELECT state_context_set('levels', 'pii', '[]'), state_context_append('levels', 'pii', '3'), state_context_patch('levels', 'secret', '{}'), state_context_set_many('levels', '{"secret": 5}', sensitivity => 'internal');
SELECT name, value, sensitivity FROM variables('levels') WHERE name IN ('pii', 'secret');
-- What each may see.
SELECT s, array(SELECT jsonb_object_keys(state_context_visible('levels', s)->'variables') ORDER BY 1) FROM unnest('{public,internal,confidential,pii,secret}'::text[]) s;
-- Inherited is what the child's permissions let it see, up to a limit that the caller sets. It is as sensitive there.
SELECT state_context_create('kept', permissions => '{read:pii,read:secret}', inputs => '{"open": 1}');
SELECT count(state_context_set('kept', s, '1', sensitivity => s)) FROM unnest('{public,confidential,pii,secret}'::text[]) s;
SELECT state_context_child('kept', 'kept/all'), state_context_child('kept', 'kept/pii', permissions => '{read:pii}'),
	state_context_child('kept', 'kept/none', permissions => '{}'), state_context_child('kept', 'kept/internal', max_sensitivity => 'internal');
SELECT run, string_agg(format('%s %s', name, sensitivity), ', ' ORDER BY name) FROM unnest('{kept/all,kept/pii,kept/none,kept/internal}'::text[]) run, variables(run) GROUP BY run ORDER BY run;
-- An input in the place of an inherited variable does not make it less sensitive.
SELECT state_context_child('kept', 'kept/inputs', '{"pii": 2, "mine": 1}');
SELECT name, value, sensitivity FROM variables('kept/inputs') WHERE name IN ('pii', 'mine');
-- Nor does it go down on the way back: not by a merge, whichever value is taken,
SELECT state_context_set('kept', 'open', '2', sensitivity => 'confidential'), state_context_set('kept/all', 'open', '3');
SELECT state_context_set('kept/all', 'new', '1', sensitivity => 'pii'), state_context_set('kept', 'new', '2', sensitivity => 'public');
SELECT state_context_set('kept/all', 'public', '1', sensitivity => 'secret');
SELECT variable, value, reason FROM state_context_merge('kept/all', 'child_wins');
SELECT name, value, sensitivity FROM variables('kept');
SELECT state_context_set('kept/pii', 'open', '4', sensitivity => 'pii'), state_context_set('kept', 'open', '5');
SELECT variable, value, reason FROM state_context_merge('kept/pii', 'parent_wins');
SELECT name, value, sensitivity FROM variables('kept') WHERE name = 'open';
-- and not by an export.
SELECT state_context_mark_export('kept/inputs', 'pii', 'parent_context', '$', sensitivity => 'public');
SELECT state_context_set('kept/inputs', 'mine', '2', sensitivity => 'secret');
SELECT state_context_mark_export('kept/inputs', 'mine', 'parent_context');
SELECT * FROM state_context_complete('kept/inputs');
SELECT name, value, sensitivity FROM variables('kept') WHERE name IN ('pii', 'mine');

-- sensitivityMap declares how sensitive variables are at least, before there are any.
SELECT state_context_create('floors', inputs => '{"name": "ann", "note": "x"}', sensitivity_map => '{"name": "pii", "key": "secret", "note": "public"}', permissions => '{read:pii}');
SELECT state_context_set('floors', 'key', '1', sensitivity => 'public'), state_context_set('floors', 'note', '"y"');
SELECT name, sensitivity FROM variables('floors');
-- A new one with a floor of public is public.
SELECT state_context_create('floors 2', sensitivity_map => '{"note": "public"}');
SELECT state_context_set('floors 2', 'note', '1'), state_context_set('floors 2', 'other', '1');
SELECT name, sensitivity FROM variables('floors 2');
SELECT state_context_child('floors', 'floors/1', '{"key": 3}');
SELECT name, value, sensitivity FROM variables('floors/1');
SELECT state_context_visible('floors', 'confidential') - '{createdAt,variables}'::text[];
-- A floor that was raised by hand counts at once, whatever the record says.
SELECT state_update('floors', '{"sensitivityMap": {"note": "secret"}}');
SELECT jsonb_object_keys(state_context_visible('floors', 'pii')->'variables');

-- Times are the server's: that of the call, in UTC.
SELECT state_context_create('times', inputs => '{"a": 1}');
CREATE FUNCTION set_at(run text, name text) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT (state_context_get(run) #>> ARRAY['variables', name, 'timestamp'])::timestamptz $$;
BEGIN;
SELECT state_context_set('times', 'b', '1'), clock_timestamp() AS after \gset
SELECT state_context_set('times', 'c', '1');
SELECT set_at('times', 'a') < now(), set_at('times', 'b') BETWEEN now() AND :'after', set_at('times', 'c') > :'after';
COMMIT;
SELECT state_context_get('times') #>> '{variables,b,timestamp}' SIMILAR TO '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.\d{6}Z', state_context_get('times')->>'createdAt' SIMILAR TO '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.\d{6}Z';
-- Inherited, a value is as old as it was. A merge takes it over with its time.
SELECT state_context_child('times', 'times/1');
SELECT set_at('times/1', 'b') = set_at('times', 'b');
SELECT state_context_set('times/1', 'd', '1');
SELECT variable FROM state_context_merge('times/1');
SELECT set_at('times/1', 'd') = set_at('times', 'd');

-- A set that changes nothing leaves the record alone, its time included, and makes no version.
SELECT state_version('times') AS version, set_at('times', 'b') AS b \gset
SELECT state_context_set('times', 'b', '1'), state_context_set_many('times', '{"b": 1, "c": 1}');
SELECT state_version('times') = :version, set_at('times', 'b') = :'b';
BEGIN;
SELECT state_context_set('times', 'b', '2'), state_context_set('times', 'b', '1');
COMMIT;
SELECT state_version('times') - :version;
-- Of several only those that changed get a new time. Another source is a change.
SELECT set_at('times', 'c') AS c \gset
SELECT state_context_set_many('times', '{"b": 3, "c": 1}');
SELECT set_at('times', 'b') > :'b', set_at('times', 'c') = :'c';
SELECT state_context_set('times', 'c', '1', source => 'user');
SELECT set_at('times', 'c') > :'c';

-- Several sets in one transaction are one version.
SELECT state_version('times') AS version \gset
BEGIN;
SELECT state_context_set('times', 'd', '2'), state_context_append('times', 'e', '1');
SELECT state_context_append('times', 'e', '2'), state_context_patch('times', 'f', '{"a": 1}');
SELECT state_context_mark_export('times', 'f', 'external_system', target => 's');
SELECT state_version('times') = :version, (SELECT version FROM state_head WHERE class = 'run' AND key = 'times') = :version;
COMMIT;
SELECT state_version('times') - :version;
SELECT value FROM variables('times') WHERE name IN ('d', 'e', 'f');
-- What is rolled back was never set, to the savepoint or all of it.
SELECT state_version('times') AS version \gset
BEGIN;
SELECT state_context_set('times', 'd', '3');
SAVEPOINT s;
SELECT state_context_set('times', 'd', '4'), state_context_append('times', 'e', '3');
ROLLBACK TO s;
SELECT value FROM variables('times') WHERE name IN ('d', 'e');
SELECT state_context_append('times', 'e', '5');
RELEASE s;
COMMIT;
SELECT value FROM variables('times') WHERE name IN ('d', 'e');
SELECT state_version('times') - :version;
BEGIN;
SELECT state_context_set('times', 'd', '6');
ROLLBACK;
SELECT value FROM variables('times') WHERE name = 'd';
-- The same in an explicit batch, which can be dropped without the transaction.
BEGIN;
SELECT state_context_set('times', 'd', '7');
SELECT state_batch_begin();
SELECT state_context_set('times', 'd', '8'), state_context_set('times', 'g', '1');
SELECT key, dirty FROM state_batch_status() WHERE class = 'run';
SELECT state_batch_rollback();
COMMIT;
SELECT name, value FROM variables('times') WHERE name IN ('d', 'g');
BEGIN;
SELECT state_batch_begin();
SELECT state_context_set('times', 'd', '9'), state_context_set('times', 'g', '1');
SELECT key, action FROM state_batch_commit();
COMMIT;
SELECT name, value FROM variables('times') WHERE name IN ('d', 'g');
-- A merge in a batch sees what is staged of both, and is written at once.
BEGIN;
SELECT state_batch_begin();
SELECT state_context_set('times/1', 'h', '1'), state_context_set('times', 'i', '1');
SELECT variable, value, reason FROM state_context_merge('times/1');
SELECT key, action FROM state_batch_commit();
COMMIT;
SELECT name, value FROM variables('times') WHERE name IN ('h', 'i');
-- What others keep in a run's document is left alone.
SELECT state_update_section('times', 'intermediate', '{"mine": [1]}');
SELECT state_update('times', '{"variables": {"own": {"key": "own", "value": 1, "color": "red"}}, "extra": {"mine": 1}}');
SELECT state_context_set('times', 'own', '2');
SELECT (state_context_get('times')#>'{variables,own}') - 'timestamp', state_context_get('times')->'extra', state_context_get('times')->'intermediate';
