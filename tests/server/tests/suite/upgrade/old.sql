-- What an installation of 0.1.0 may hold: something of every feature. A paragraph is a transaction.
SELECT state_class_define('left', write_mode => 'behind'), state_class_define('one', keep => 1),
	state_class_define('few', keep => 3, keep_for => '30 days', channel => 'few'),
	state_class_define('all', keep => 0, unique_labels => true, checkpoint_types => '{a}', agent_phases => '{b}'),
	state_class_define('ends', ttl => '1000 days', cache_ttl => '1 hour', max_entries => 100, notify => 'off'),
	state_class_define('shared', l2_ttl => '1 hour', l2_codec => 'gzip', l2_above => 0, compression => false),
	state_class_define('config', keep => 2, dedup => false)

-- Histories of deltas, one of them damaged, one repaired.
CREATE FUNCTION document(n bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('n', n, 'log', (SELECT jsonb_agg(md5(i::text))
		FROM generate_series(greatest(1, n - 30), n) i)) $$

DO $$ BEGIN
	FOR n IN 1..40 LOOP
		PERFORM state_save('deltas', document(n), recovery_point => n % 20 = 0, class => 'all', label => 'l' || n,
			payload => decode(md5(n::text), 'hex'));
		PERFORM state_save('hurt', document(n)), state_save('repaired', document(n)),
			state_set('few', document(n), class => 'few'), state_set('held', document(n), class => 'one'),
			state_set('c', document(n), class => 'config');
	END LOOP;
END $$

SELECT state_set('k' || n, jsonb_build_object('n', n)), state_set('k' || n, to_jsonb(n), class => 'shared'),
	state_set('k' || n, to_jsonb(n), class => 'ends') FROM generate_series(1, 50) n

SELECT state_delete('k1'), state_touch('k2', '900 days'), state_append('k3', '{list}', '1', 'run', true),
	state_set_text('nul', '{"a": "\u0000", "b": 1.00}', on_invalid => 'replace'), state_set(E'odd \\ '' " \n key', '{}')

SELECT state_delete('k4')

DELETE FROM state_head WHERE key = 'k4' AND class = 'run'

SELECT state_restore('deltas', 7, class => 'all'), state_recover('deltas', 'rollback', class => 'all')

ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changed;
UPDATE state_snapshot SET hash = state_hash('0') WHERE key = 'repaired' AND version = 40;
ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changed

SELECT state_cache_clear();
SELECT state_verify(repair => true)

ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changed;
UPDATE state_snapshot SET hash = state_hash('0') WHERE key = 'hurt' AND version = 40;
ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changed

-- Claims and logs.
SELECT state_claim('k5', 'owner', '900 days'), state_claim('none', 'owner', '900 days', 'one'),
	state_claim('k6', 'owner', '900 days')

SELECT state_release('k6', token) FROM state_lease WHERE key = 'k6'

SELECT state_log_append('k7', '[1, {"two": 2}]', 'r', '{a, b}', payloads => '{"\\x00", "\\xff"}'),
	state_log_append('k7', '[3]'), state_log_append('deltas', '["of all"]', class => 'all')

-- Runs: one that goes on under a claim, with children, a conflict that waits, exports; one that has ended.
SELECT state_context_create('r', inputs => '{"v": 1, "l": []}', resource_limits => '{"maxCredits": 10}',
	swarm_id => 'w')

SELECT state_context_child('r', 'c', inputs => '{"w": 1}')

SELECT state_context_set('c', 'v', '2'), state_context_append('c', 'l', '1'), state_context_set('c', 'x', '{}')

SELECT state_context_set('r', 'v', '3')

SELECT state_context_merge('c', 'manual_review')

SELECT state_context_mark_export('c', 'w', 'blackboard'), state_context_mark_export('c', 'x', 'parent_context'),
	state_context_mark_export('r', 'v', 'external_system', target => 'there')

SELECT state_context_claim('r', 'me', '900 days')

SELECT state_context_step('r', 'one')

SELECT state_context_create('ended', swarm_id => 'w'), state_context_mark_export('ended', 'a', 'external_system',
	target => 'there')

SELECT state_context_set('ended', 'a', '1')

SELECT state_context_complete('ended')

SELECT state_blackboard_add('w', 'i', '1', tags => '{t}'), state_blackboard_add('w', 'j', '"two"')

-- Jobs: tasks of every kind, one of them claimed.
SELECT state_job_create('j', '["a", "b", {"task_id": "c", "agent_name": "me"}]'), state_job_create('g', '["a"]')

SELECT state_job_update_tasks('j', '[{"task_id": "a", "status": "failed", "error": 1}]')

SELECT state_job_claim_tasks('me', 1, '900 days', 'j')

SELECT state_job_cancel('g')

-- Budgets: a root, one below with periods and shards, holds of every kind, costs, learned prices.
SELECT state_budget_define('root', 100000, 'USD')

SELECT state_budget_define('b', 5000, 'USD', 'root', '{"a": {"price": 1}, "z": {"limit": 5}}', NULL, 2, 4)

SELECT state_budget_reserve('b', 'a', n, 'h' || n, '900 days') FROM generate_series(1, 8) n

SELECT state_budget_settle('h1', 2.5), state_budget_void('h2'), state_budget_extend('h3', '901 days')

SELECT state_budget_record_costs('b', '[{"id": "c", "agent": "a", "amount": 2.25, "expected": 1}]')

-- Documents that are computed.
CREATE TABLE items (id integer PRIMARY KEY, v text);
INSERT INTO items SELECT n, 'v' || n FROM generate_series(1, 20) n

SELECT state_class_define('item', cache_ttl => '1 hour',
	source => 'SELECT pg_catalog.to_jsonb(v) FROM public.items WHERE id = $1::integer')

SELECT state_watch('item', 'items', 'id')

SELECT state_class_define('item', cache_ttl => '0')

SELECT state_get(n::text, 'item') FROM generate_series(1, 20) n

-- What users put on the tables, and whom they have granted.
CREATE INDEX of_writer ON state_snapshot (writer);
ALTER TABLE state_head SET (fillfactor = 80);
SELECT state_grant('app', 'application');
SELECT state_protections_note()

SELECT state_set('k' || n, to_jsonb(n), class => 'left') FROM generate_series(1, 10) n
