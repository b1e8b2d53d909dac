-- Exports: marked while a run goes on, they travel when it completes, all of them in the transaction that completes it.
\a \t \pset null (null)
SELECT state_class_define('context_store');
-- sent() is what the outbox holds of a run.
CREATE FUNCTION sent(run text) RETURNS TABLE (key text, target text, target_key text, value jsonb, sensitivity text, pending boolean) LANGUAGE sql VOLATILE AS $$
	SELECT o.key, o.target, o.target_key, o.value, o.sensitivity, o.acknowledged_at IS NULL FROM state_outbox o WHERE o.run_id = run ORDER BY o.id
$$;
SELECT state_context_create('exports', inputs => '{"x": {"list": [1, 2, {"deep": "found"}], "n": 1.50}, "y": 1}', swarm_id => 'exports swarm');

-- A mark is an entry of the document. A variable can go to several places; marked again for the same one it is marked anew.
SELECT state_context_create('places', inputs => '{"x": 1}');
SELECT count(state_context_mark_export('places', 'x', 'external_system', target => t, target_key => k)) FROM (VALUES ('crm', NULL), ('billing', NULL), ('crm', 'other'), ('crm', NULL)) v (t, k);
SELECT state_context_mark_export('places', 'x', 'persistent_store', target => 'context_store');
SELECT e->>'target', e->>'targetKey' FROM jsonb_array_elements(state_context_get('places')->'exports') e;
-- It is taken back for one destination or for all.
SELECT state_context_unmark_export('places', 'x', 'persistent_store'), state_context_unmark_export('places', 'x', 'persistent_store'), state_context_unmark_export('places', 'y');
SELECT count(*) FROM jsonb_array_elements(state_context_get('places')->'exports') e;
SELECT state_context_unmark_export('places', 'x'), state_context_get('places')->'exports';
SELECT state_context_get('places')->'exports';
SELECT state_context_child('exports', 'exports/1');
SELECT state_context_mark_export('exports/1', 'x', 'parent_context');
SELECT state_context_mark_export('exports/1', 'x', 'persistent_store', target => 'context_store');
SELECT state_context_mark_export('exports/1', 'x', 'external_system', '$.n', 'crm', 'found');
SELECT state_context_mark_export('exports/1', 'x', 'external_system', '$.list[*].deep', 'crm', 'found', sensitivity => 'internal');
SELECT state_context_mark_export('exports/1', 'later', 'persistent_store', target => 'context_store', target_key => 'named', sensitivity => 'public');
SELECT jsonb_array_elements(state_context_get('exports/1')->'exports');
-- What is marked need not be there yet, and has to be at the end: nothing is written then.
SELECT complaint($$SELECT * FROM state_context_complete('exports/1')$$);
SELECT state_context_get('exports/1')->>'status', state_exists('exports/1/x', 'context_store'), (SELECT count(*) FROM sent('exports/1'));
SELECT state_context_set('exports/1', 'later', '"now"');
SELECT state_context_patch('exports/1', 'x', '{"new": true}');
-- A transaction that is rolled back sends nothing.
BEGIN;
SELECT * FROM state_context_complete('exports/1');
ROLLBACK;
SELECT state_context_get('exports/1')->>'status', state_exists('exports/1/x', 'context_store'), (SELECT count(*) FROM sent('exports/1'));
SELECT * FROM state_context_complete('exports/1');
SELECT value FROM variables('exports') WHERE name = 'x';
SELECT key, state FROM state_get_many('{exports/1/x,named}', class => 'context_store') ORDER BY key;
SELECT * FROM sent('exports/1');
-- What was exported without being changed is said to be so; what both changed is merged by the strategy that is named.
SELECT state_context_child('exports', 'exports/2'), state_context_child('exports', 'exports/3');
SELECT count(state_context_mark_export(run, v, 'parent_context')) FROM unnest('{exports/2,exports/3}'::text[]) run, unnest('{x,y}'::text[]) v;
SELECT state_context_set('exports/2', 'y', '2'), state_context_set('exports/3', 'y', '3'), state_context_set('exports/3', 'unmarked', '1');
SELECT * FROM state_context_complete('exports/2', strategy => 'parent_wins');
SELECT * FROM state_context_complete('exports/3', strategy => 'parent_wins');
SELECT name, value FROM variables('exports') WHERE name <> 'x';

-- A transformation is an SQL/JSON path: the first that it finds. The parent gets what was made of the value.
CREATE TABLE path_case (n integer, path text);
INSERT INTO path_case VALUES (1, '$'), (2, '$.list[2].deep'), (3, 'lax $.list[*].deep'), (4, '$.list.size()'), (5, '$.list[*] ? (@ > 1)'), (6, '$.n + 1'), (7, 'exists($.list)');
SELECT count(state_context_child('exports', 'path ' || n)) FROM path_case;
SELECT count(state_context_set('path ' || n, 'path ' || n, '{"list": [1, 2, {"deep": "found"}], "n": 1.50}')), count(state_context_mark_export('path ' || n, 'path ' || n, 'parent_context', path)) FROM path_case;
SELECT path, c.* FROM path_case, state_context_complete('path ' || n) c ORDER BY n;
SELECT path, value FROM path_case JOIN variables('exports') ON name = 'path ' || n ORDER BY n;
-- One that is none is refused when it is marked, one that finds nothing when the run completes.
SELECT state_context_child('exports', 'exports/4');
SELECT outcome($$SELECT state_context_mark_export('exports/4', 'x', 'parent_context', '$.')$$);
SELECT state_context_mark_export('exports/4', 'x', 'parent_context', '$.no.such');
SELECT complaint($$SELECT * FROM state_context_complete('exports/4')$$);
SELECT state_context_mark_export('exports/4', 'x', 'parent_context', 'strict $.no.such');
SELECT outcome($$SELECT * FROM state_context_complete('exports/4')$$);
SELECT state_context_set('exports/4', 'x', '{"a": null}'), state_context_mark_export('exports/4', 'x', 'parent_context', '$.a');
SELECT outcome($$SELECT * FROM state_context_complete('exports/4')$$);
-- Without an export there is no fault.
SELECT * FROM state_context_complete('exports/4', 'failed');

-- What a mark needs: a class that there is, a system with a name.
SELECT complaint($$SELECT state_context_mark_export('exports', 'x', 'persistent_store')$$);
SELECT outcome($$SELECT state_context_mark_export('exports', 'x', 'persistent_store', target => 'no such class')$$);
SELECT outcome($$SELECT state_context_mark_export('exports', 'x', 'persistent_store', target => 'run')$$), outcome($$SELECT state_context_mark_export('exports', 'x', 'persistent_store', target => 'swarm', target_key => 'exports swarm')$$);
SELECT complaint($$SELECT state_context_mark_export('exports', 'x', 'external_system')$$);
SELECT outcome($$SELECT state_context_mark_export('exports', 'x', 'external_system', target => '')$$), outcome($$SELECT state_context_mark_export('exports', 'x', 'external_system', target => repeat('t', 256))$$);
SELECT outcome($$SELECT state_context_mark_export('exports', 'x', 'persistent_store', target => 'context_store', target_key => '')$$), outcome($$SELECT state_context_mark_export('exports', repeat('k', 995), 'persistent_store', target => 'context_store')$$);
SELECT complaint($$SELECT state_context_mark_export('exports', '', 'parent_context')$$);
SELECT complaint($$SELECT state_context_mark_export('exports', 'x', 'moon')$$);
SELECT complaint($$SELECT state_context_mark_export('exports', 'x', 'blackboard', item => '[]')$$);

-- How sensitive a value may be: a parent takes all, a store up to pii, a blackboard up to confidential, systems outside
-- up to internal. What is above is refused when it is marked, with its name,
SELECT state_context_create('sensitive', swarm_id => 'sensitive swarm', permissions => '{read:pii,read:secret}', sensitivity_map => '{"key": "secret"}');
SELECT count(state_context_set('sensitive', s, '1', sensitivity => s)) FROM unnest('{public,internal,confidential,pii,secret}'::text[]) s;
SELECT state_context_child('sensitive', 'sensitive/1');
SELECT d, s, outcome(format('SELECT state_context_mark_export(%L, %L, %L, target => %L)', 'sensitive/1', s, d, 'context_store'))
	FROM unnest('{parent_context,persistent_store,blackboard,external_system}'::text[]) WITH ORDINALITY d (d, dn), unnest('{public,internal,confidential,pii,secret}'::text[]) WITH ORDINALITY s (s, sn) ORDER BY dn, sn;
SELECT complaint($$SELECT state_context_mark_export('sensitive/1', 'key', 'persistent_store', target => 'context_store')$$);
-- and whatever the caller says of it; who says that it is more sensitive is taken at his word.
SELECT outcome($$SELECT state_context_mark_export('sensitive/1', 'secret', 'external_system', target => 'crm', sensitivity => 'public')$$);
SELECT outcome($$SELECT state_context_mark_export('sensitive/1', 'public', 'external_system', target => 'crm', sensitivity => 'pii')$$);
-- Nothing of what was refused is in the document.
SELECT count(*) FROM jsonb_array_elements(state_context_get('sensitive/1')->'exports');
-- What has become too sensitive since is refused when the run completes, and nothing is written: no export, no end.
SELECT state_context_set('sensitive/1', 'public', '2', sensitivity => 'secret');
SELECT complaint($$SELECT * FROM state_context_complete('sensitive/1')$$);
SELECT state_context_get('sensitive/1')->>'status', (SELECT count(*) FROM sent('sensitive/1')), state_exists('sensitive/1/internal', 'context_store');
SELECT value, sensitivity FROM variables('sensitive') WHERE name = 'public';
-- The settings set the limits; who may change them says so.
SET state_cache.store_sensitivity = secret;
SET state_cache.blackboard_sensitivity = secret;
SET state_cache.external_sensitivity = secret;
BEGIN;
SELECT key, destination FROM state_context_complete('sensitive/1') ORDER BY key, destination;
SELECT key, sensitivity FROM sent('sensitive/1');
ROLLBACK;
SET state_cache.external_sensitivity = public;
SELECT outcome($$SELECT * FROM state_context_complete('sensitive/1')$$);
SELECT outcome($$SELECT state_context_mark_export('sensitive/1', 'internal', 'external_system', target => 'crm')$$);
SELECT complaint('SET state_cache.external_sensitivity = hidden');
RESET state_cache.store_sensitivity; RESET state_cache.blackboard_sensitivity; RESET state_cache.external_sensitivity;
-- What is shown of a run to those who may see less does not name them either.
SELECT jsonb_agg(e->>'key' || ' ' || (e->>'destination')) FROM jsonb_array_elements(state_context_visible('sensitive/1', 'internal')->'exports') e;

-- A root has no parent: what was to go there goes to the blackboard of its swarm, with the limits of that.
SELECT state_context_mark_export('exports', 'y', 'parent_context');
SELECT state_context_create('no swarm', inputs => '{"x": 1}'), state_context_mark_export('no swarm', 'x', 'parent_context');
SELECT complaint($$SELECT * FROM state_context_complete('no swarm')$$);
SELECT state_context_mark_export('sensitive', 'pii', 'parent_context');
SELECT state_context_complete('sensitive/1', 'cancelled');
SELECT complaint($$SELECT * FROM state_context_complete('sensitive')$$);
SELECT * FROM state_context_complete('exports');
SELECT key, value, type, created_by, access_level, tags FROM state_blackboard_query('exports swarm');
-- A child can go past its parent to the blackboard, and says what kind of item it leaves there, under which key.
SELECT state_context_create('board', inputs => '{"plan": {"steps": [1, 2]}, "note": "n"}', swarm_id => 'exports board'), state_context_child('board', 'board/1');
SELECT state_context_mark_export('board/1', 'plan', 'blackboard', '$.steps', target_key => 'the plan', item => '{"type": "plan", "tags": ["urgent"], "accessLevel": "public", "ttl": "1 hour"}');
SELECT state_context_mark_export('board/1', 'note', 'blackboard');
SELECT complaint($$SELECT state_context_mark_export('board/1', 'note', 'blackboard', item => '{"color": "red"}')$$);
BEGIN;
SELECT * FROM state_context_complete('board/1');
ROLLBACK;
SELECT count(*) FROM state_blackboard_query('exports board');
SELECT * FROM state_context_complete('board/1');
SELECT key, value, type, created_by, access_level, tags, date_trunc('second', expires_at - created_at) FROM state_blackboard_query('exports board');
-- Exported again, by another run, an item is replaced.
SELECT state_context_mark_export('board', 'note', 'parent_context'), state_context_set('board', 'note', '"of the root"');
SELECT * FROM state_context_complete('board');
SELECT key, value, created_by FROM state_blackboard_query('exports board');
-- The outbox is a queue. A consumer takes what no other consumer has taken, in order, and acknowledges it.
SELECT state_context_create('queue', inputs => '{"a": 1, "b": 2, "c": 3}');
SELECT count(state_context_mark_export('queue', v, 'external_system', target => 'mailer')) FROM unnest('{a,b,c}'::text[]) v;
SELECT * FROM state_context_complete('queue');
BEGIN;
SELECT key, value FROM state_outbox WHERE target = 'mailer' AND acknowledged_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 2;
UPDATE state_outbox SET acknowledged_at = now() WHERE target = 'mailer' AND key IN ('a', 'b');
COMMIT;
BEGIN;
WITH taken AS (SELECT id FROM state_outbox WHERE target = 'mailer' AND acknowledged_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED)
	UPDATE state_outbox o SET acknowledged_at = now() FROM taken WHERE o.id = taken.id RETURNING o.key, o.target_key, o.value;
-- Not done, not acknowledged: it comes again.
ROLLBACK;
SELECT * FROM sent('queue');
-- Exports outlive their run.
SELECT state_delete('queue'), (SELECT count(*) FROM sent('queue'));
SELECT state_delete('exports swarm', class => 'swarm'), state_delete('exports board', class => 'swarm');
