-- A run is a state of class run whose document has a shape and rules, which the state_context functions keep. A tour
-- from the creation of a root run to its end; the other context files go through each part in full.
\a \t \pset null (null)
-- undated() is a document without its times, which differ from test to test.
CREATE FUNCTION undated(document jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT document - '{createdAt,completedAt}'::text[] || jsonb_build_object('variables',
		(SELECT coalesce(jsonb_object_agg(key, value - 'timestamp'), '{}') FROM jsonb_each(document->'variables')))
$$;

-- A root run begins with its inputs. It is a state like any other, and its first version is a recovery point.
SELECT state_context_create('tour', 'research', '{"goal": "find it", "plan": "walk", "budget": {"fees": {"day": 1}, "total": 100}, "sources": ["a"]}', ARRAY['read', 'write'], '{"maxCredits": 100, "maxConcurrentBranches": 3}', 'tour swarm');
SELECT jsonb_pretty(undated(state_context_get('tour')));
SELECT state_get('tour') = state_context_get('tour'), state_version('tour');
SELECT version, checkpoint_type, agent_phase, recovery_point FROM state_history('tour');

-- Variables are set one by one or several at once, appended to, and patched.
SELECT state_context_set('tour', 'step', '1');
SELECT state_context_set_many('tour', '{"step": 2, "weather": {"sky": "grey", "wind": 3}}', source => 'system');
SELECT state_context_append('tour', 'sources', '"b"');
SELECT state_context_patch('tour', 'weather', '{"wind": null, "rain": true}');
SELECT state_context_set('tour', 'mail', '"ann@example.org"', source => 'user', sensitivity => 'pii');
SELECT state_context_set('tour', 'password', '"open sesame"', sensitivity => 'secret', mutable => false);
SELECT * FROM variables('tour');
-- For logs, and for roles that may see less: the document without what is above.
SELECT jsonb_object_keys(state_context_visible('tour')->'variables') ORDER BY 1;
SELECT state_context_visible('tour', 'secret') = state_context_get('tour');

-- Three children. Each starts from what its parent knows and it may see, has inputs of its own, and limits that are
-- allotted to it or shared with the parent.
SELECT state_context_child('tour', 'tour/east', '{"plan": "east"}', 'walker', ARRAY['read'], '{"maxCredits": 40}');
SELECT state_context_child('tour', 'tour/west', '{"plan": "west"}', max_sensitivity => 'confidential');
SELECT state_context_child('tour', 'tour/north');
SELECT state_context_child('tour/west', 'tour/west/hut', '{"cups": 2}');
SELECT jsonb_pretty(undated(state_context_get('tour/east')));
SELECT run_id, parent_run_id, depth, status, version, routine_id, owner FROM state_context_tree('tour');
SELECT created_at BETWEEN now() - interval '10 minutes' AND clock_timestamp() FROM state_context_tree('tour/west');

-- What they use is charged.
SELECT state_context_spend('tour/east', 'credits', 12.50), state_context_spend('tour/west', 'credits', 7);
SELECT * FROM accounts('tour');
SELECT complaint($$SELECT state_context_spend('tour/east', 'credits', 27.51)$$);

-- They work at the same time as their parent. One of them is owned by a runner, which shows its token.
SELECT state_context_claim('tour/west', 'runner 7') AS token \gset
SELECT state_context_set('tour/east', 'found', '{"east": "a shell"}');
SELECT state_context_patch('tour/east', 'budget', '{"fees": {"boat": 5}}');
SELECT state_context_append('tour/east', 'sources', '"e"');
SELECT state_context_set('tour/west', 'found', '{"west": "a stone"}', token => :token);
SELECT state_context_append('tour/west', 'sources', '"w"', token => :token);
SELECT state_context_set('tour/west', 'plan', '"rest"', token => :token);
SELECT state_context_set('tour/west', 'step', '9', token => :token);
SELECT state_context_patch('tour', 'budget', '{"fees": {"day": 2}}');
SELECT state_context_set('tour', 'plan', '"wait"');

-- Merged are only the variables that a child has changed, each by a rule for it or by that for all.
SELECT variable, value, strategy, reason FROM state_context_merge('tour/east', per_variable => '{"sources": "array_concat", "plan": "parent_wins"}');
-- Nothing is merged twice.
SELECT variable, value, strategy, reason FROM state_context_merge('tour/east');
-- What a person is to decide waits, and blocks this variable only.
SELECT variable, value, strategy, reason, conflict IS NOT NULL AS waits FROM state_context_merge('tour/west', 'keep_latest', '{"sources": "array_concat", "found": "merge_objects", "plan": "manual_review"}');
SELECT id FROM state_conflict WHERE run_id = 'tour' \gset
SELECT run_id, child_run_id, variable, base_value, parent_value, child_value, parent_timestamp < child_timestamp, sensitivity, status FROM state_conflict WHERE id = :id;
SELECT regexp_replace(complaint($$SELECT state_context_set('tour', 'plan', '"go"')$$), 'conflict \d+', 'conflict N');
SELECT state_context_set('tour', 'step', '10');
SELECT * FROM variables('tour');
SELECT state_conflict_resolve(:id, '"rest, then walk"', 'both have a point');
SELECT status, resolved_value, reason, resolved_by = current_user, resolved_at >= opened_at FROM state_conflict WHERE id = :id;
SELECT value, source FROM variables('tour') WHERE name = 'plan';

-- A run does not end under its children.
SELECT complaint($$SELECT * FROM state_context_complete('tour')$$);
SELECT state_delete('tour');
-- When one ends, its exports travel: to the parent,
SELECT state_context_set('tour/east', 'report', '{"pages": [{"text": "sea"}, {"text": "sand"}], "draft": true}');
SELECT state_context_mark_export('tour/east', 'report', 'parent_context', '$.pages[1].text');
-- to a state of another class, to a system outside;
SELECT state_class_define('context_report');
SELECT state_context_mark_export('tour/east', 'report', 'persistent_store', target => 'context_report');
SELECT state_context_mark_export('tour/east', 'found', 'external_system', target => 'museum', target_key => 'shell');
SELECT * FROM state_context_complete('tour/east');
SELECT value, sensitivity, source FROM variables('tour') WHERE name = 'report';
SELECT state_get('tour/east/report', 'context_report');
SELECT key, target, target_key, value, sensitivity, acknowledged_at FROM state_outbox WHERE run_id = 'tour/east';
-- what it was allotted and has not used goes back;
SELECT * FROM accounts('tour');
-- and its last state is written at once, a recovery point.
SELECT checkpoint_type, agent_phase, recovery_point, state_at('tour/east', version)->>'status', state_at('tour/east', version)->>'completedAt' IS NOT NULL FROM state_history('tour/east') LIMIT 1;
SELECT complaint($$SELECT state_context_set('tour/east', 'step', '3')$$);

-- The others end too, from the leaves up. A run that fails or is cancelled exports nothing.
SELECT * FROM state_context_complete('tour/west/hut', 'success');
SELECT * FROM state_context_complete('tour/north', 'cancelled');
SELECT state_context_mark_export('tour/west', 'cups', 'parent_context');
SELECT * FROM state_context_complete('tour/west', 'failed', token => :token);
SELECT state_context_mark_export('tour', 'found', 'external_system', target => 'museum');
SELECT * FROM state_context_complete('tour');
SELECT run_id, depth, status, owner FROM state_context_tree('tour');
SELECT * FROM accounts('tour');
-- Whoever deletes the root leaves the states of its children, which say whose they were.
SELECT state_delete('tour');
SELECT complaint($$SELECT * FROM state_context_tree('tour')$$);
SELECT run_id, parent_run_id, depth FROM state_context_tree('tour/east');
SELECT state_context_get('tour/west')->>'status';
