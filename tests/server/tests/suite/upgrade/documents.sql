-- What old.sql has stored, as functions answer, and every document by its hash. A paragraph is a query.
SELECT class, key, version, hash, state_hash(coalesce(state, state_at(key, version, class))) = hash
	FROM state_kept WHERE NOT (key = 'hurt' AND version = 40) ORDER BY 1, 2, 3;

SELECT class, key, state_version(key, class), state_get_text(key, class) FROM state_head
	WHERE key <> 'hurt' ORDER BY 1, 2;

SELECT n, state_get_text(n::text, 'item') FROM generate_series(1, 20) n;

SELECT state_context_get('r'), state_context_visible('c');

SELECT * FROM state_blackboard_query('w');

SELECT * FROM state_log('k7');

SELECT * FROM state_job_tasks('j');

SELECT state_job_summary('j'), state_job_get('g');

SELECT state_budget_summary('b') - 'as_of';

SELECT class, key, version, fault FROM state_verify();

SELECT * FROM state_budget_verify();

SELECT * FROM state_job_verify();
