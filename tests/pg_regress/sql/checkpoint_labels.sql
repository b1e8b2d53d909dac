-- What a checkpoint says of itself: its type, the agent's phase, whether recovery may go back to it, and a context.
\a \t \pset null (null)
SELECT state_class_define('labelled', keep => 0);

-- The usual types, one version each.
SELECT t, action, version
	FROM unnest('{manual,auto,recovery,phase_transition,full,critical,intermediate,pipeline_complete}'::text[]) t,
		state_save('types', to_jsonb(t), t, class => 'labelled');
-- The usual phases. A phase and the document with it: also with the same document it is another version.
SELECT p, action, version
	FROM unnest('{initialization,triage,data_analysis,optimization,action_planning,reporting,completion}'::text[]) p,
		state_save('phases', '"same"', 'auto', p, class => 'labelled');
SELECT version, checkpoint_type, agent_phase FROM state_history('phases', class => 'labelled') ORDER BY version;
-- The whole label comes back as it went in.
SELECT * FROM state_save('whole', '{"n": 1}', 'critical', 'triage', true, '{"thread": "t-1", "user": "u-1", "tags": [1.50, null]}', class => 'labelled');
SELECT checkpoint_type, agent_phase, recovery_point, execution_context FROM state_history('whole', class => 'labelled');
SELECT checkpoint_type, agent_phase, recovery_point, execution_context FROM state_snapshot WHERE class = 'labelled' AND key = 'whole';
-- A plain change is of type auto and says nothing else, whatever the version before said.
SELECT state_update('whole', '{"n": 2}', class => 'labelled');
SELECT version, checkpoint_type, agent_phase, recovery_point, execution_context FROM state_history('whole', class => 'labelled');
-- NULL is what is not said.
SELECT * FROM state_save('whole', '{"n": 3}', NULL, NULL, NULL, NULL, NULL, NULL, class => 'labelled');
SELECT version, checkpoint_type, agent_phase, recovery_point, execution_context FROM state_history('whole', class => 'labelled') LIMIT 1;
-- A context is a document like any other, JSON's null among them.
SELECT * FROM state_save('whole', '{"n": 4}', execution_context => 'null', class => 'labelled');
SELECT version, execution_context FROM state_history('whole', class => 'labelled') LIMIT 1;

-- Names that are not known: 22023, and the list.
SELECT complaint($$SELECT state_save('types', '1', 'weekly', class => 'labelled')$$);
SELECT complaint($$SELECT state_save('types', '1', 'auto', 'lunch', class => 'labelled')$$);
-- They are names, not patterns, and spelled like this only.
SELECT outcome(format('SELECT state_save(%L, %L, %L, class => %L)', 'types', '1', t, 'labelled'))
	FROM unnest(ARRAY['AUTO', ' auto', 'auto ', '', 'aut', 'auto%']) t;
SELECT outcome($$SELECT state_save('types', '1', 'auto', '', class => 'labelled')$$);
-- Nothing was written.
SELECT count(*) FROM state_history('types', class => 'labelled');

-- A class may have its own.
SELECT state_class_define('own labels', keep => 0, checkpoint_types => '{nightly,"before deploy"}', agent_phases => '{draft,review}');
SELECT * FROM state_save('doc', '1', 'nightly', 'draft', class => 'own labels');
SELECT * FROM state_save('doc', '2', 'before deploy', 'review', class => 'own labels');
SELECT complaint($$SELECT state_save('doc', '3', 'critical', class => 'own labels')$$);
SELECT complaint($$SELECT state_save('doc', '3', 'nightly', 'triage', class => 'own labels')$$);
-- Plain changes are auto in every class, and so is a save that names no type.
SELECT * FROM state_save('doc', '3', class => 'own labels');
SELECT state_set('doc', '4', class => 'own labels');
SELECT version, checkpoint_type, agent_phase FROM state_history('doc', class => 'own labels');
-- A type of the class's own is never skipped; auto is.
SELECT action, version FROM state_save('doc', '4', 'nightly', class => 'own labels');
SELECT action, version FROM state_save('doc', '4', 'nightly', class => 'own labels');
SELECT action, version FROM state_save('doc', '4', class => 'own labels');
SELECT action, version FROM state_save('doc', '4', class => 'own labels');
-- What is stored keeps its label when the class changes its list.
SELECT state_class_define('own labels', checkpoint_types => '{monthly}');
SELECT outcome($$SELECT state_save('doc', '5', 'nightly', class => 'own labels')$$);
SELECT checkpoint_type, count(*) FROM state_history('doc', class => 'own labels') GROUP BY 1 ORDER BY 1;
-- An empty list is the way back to the usual ones.
SELECT outcome($$SELECT state_class_define('own labels', checkpoint_types => '{}', agent_phases => '{}')$$);
SELECT checkpoint_types, agent_phases FROM state_class WHERE class = 'own labels';
SELECT complaint($$SELECT state_save('doc', '6', 'critical', class => 'own labels')$$);
SELECT complaint($$SELECT state_save('doc', '7', 'auto', 'triage', class => 'own labels')$$);
SELECT outcome($$SELECT state_class_define('own labels', checkpoint_types => '{a,NULL}')$$);
SELECT outcome($$SELECT state_class_define('own labels', agent_phases => '{NULL}')$$);

-- What else a checkpoint must be told: a key, a document, a class that there is.
SELECT complaint($$SELECT state_save(NULL, '1', class => 'labelled')$$);
SELECT complaint($$SELECT state_save('types', NULL, class => 'labelled')$$);
SELECT complaint($$SELECT state_save('', '1', class => 'labelled')$$);
SELECT complaint($$SELECT state_save('types', '1', class => 'no such')$$);
SELECT complaint($$SELECT state_save('types', '1', class => NULL)$$);
