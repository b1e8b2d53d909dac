-- A loop to be sampled: see docs/development.md, "Where the time goes". Runs until it is cancelled, in a session
-- whose application_name is `profiled`. psql -v way=loop: one state of 300 bytes changed, with a COMMIT each, in a
-- class that keeps one version; update: a plain UPDATE of the same; load: 20,000 documents of 3 KB that the statement
-- makes, by state_set; copy: the same out of a temporary table, which holds them compressed.
\set ON_ERROR_STOP on
\set QUIET on
\t on
SET synchronous_commit = off;

SELECT state_class_define('profile', keep => 1);
CREATE TABLE plain (key text PRIMARY KEY, state jsonb NOT NULL);
CREATE FUNCTION small(n bigint, step bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('runId', 'state-' || n, 'status', 'running', 'step', step,
		'note', repeat(md5(n::text), 6))
$$;
SELECT count(state_set('state-' || n, small(n, 0), class => 'profile')) FROM generate_series(1, 10000) n;
INSERT INTO plain SELECT 'state-' || n, small(n, 0) FROM generate_series(1, 10000) n;
CREATE TABLE document AS SELECT jsonb_object_agg('variable-' || i, jsonb_build_object(
	'source', 'step-' || i * 7919,
	'value', (ARRAY['account', 'budget', 'claim', 'draft', 'estimate',
	'finding'])[1 + i * 5 % 6] || ' ' || i * 104729,
	'version', i % 9)) AS state FROM generate_series(1, 34) i;
CREATE VIEW made AS SELECT 'new-' || n AS key, state || jsonb_build_object('n', n) AS state
	FROM document, generate_series(1, 20000) n;
CREATE TEMPORARY TABLE held AS SELECT * FROM made;

CREATE PROCEDURE again(way text) LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	FOR step IN 1..2000000000 LOOP
		n := 1 + floor(random() * 10000);
		CASE way
			WHEN 'loop' THEN
				PERFORM state_set('state-' || n, small(n, step), class => 'profile');
			WHEN 'update' THEN
				UPDATE plain SET state = small(n, step) WHERE key = 'state-' || n;
			WHEN 'load' THEN
				TRUNCATE state_head;
				PERFORM count(state_set(key, state, class => 'profile')) FROM made;
			WHEN 'copy' THEN
				TRUNCATE state_head;
				PERFORM count(state_set(key, state, class => 'profile')) FROM held;
		END CASE;
		COMMIT;
	END LOOP;
END
$$;
SET application_name = 'profiled';
CALL again(:'way');
