-- Claims: who owns a run writes it under a token. Each claim has a greater one, and a write that carries an older fails.
\a \t \pset null (null)
-- claim_says() is complaint() with the tokens by the names that the test has for them, and without the time.
CREATE TABLE token (name text, token bigint);
CREATE FUNCTION claim_says(statement text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	says text := regexp_replace(complaint(statement), 'until \S+ \S+\.', 'until T.');
	t token;
BEGIN
	FOR t IN SELECT * FROM token LOOP
		says := regexp_replace(says, 'token ' || t.token || '\M', 'token <' || t.name || '>');
	END LOOP;
	RETURN says;
END
$$;
CREATE FUNCTION claim(run text, name text, owner text, lease interval DEFAULT '1 hour') RETURNS bigint LANGUAGE sql VOLATILE AS $$
	INSERT INTO token SELECT name, state_context_claim(run, owner, lease) RETURNING token
$$;
SELECT state_context_create('claims', inputs => '{"x": 1, "list": [1], "object": {"a": 1}}');

-- Nobody else claims what somebody holds; the holder himself does, and has a new token then.
SELECT claim('claims', 'first', 'ann') AS first \gset
SELECT claim_says($$SELECT state_context_claim('claims', 'bob')$$);
SELECT owner FROM state_context_tree('claims');
SELECT claim('claims', 'second', 'ann') > :first;
SELECT token AS second FROM token WHERE name = 'second' \gset
SELECT claim_says(format($$SELECT state_context_set('claims', 'x', '2', token => %s)$$, :first));
SELECT state_context_set('claims', 'x', '2', token => :second);
-- A claim is not part of the document: it makes no version, and who shows no token is not asked for one.
SELECT state_version('claims') AS version \gset
SELECT claim('claims', 'third', 'ann') AS third \gset
SELECT state_version('claims') - :version;
SELECT state_context_set('claims', 'x', '3');
-- Renewed, the lease goes on from now, under the same token.
SELECT state_context_renew('claims', :third, '2 hours') - clock_timestamp() BETWEEN '119 minutes' AND '2 hours';
SELECT state_context_renew('claims', :third) - clock_timestamp() BETWEEN '0' AND '30 s';
SELECT claim_says(format($$SELECT state_context_renew('claims', %s)$$, :second));
SELECT state_context_set('claims', 'x', '4', token => :third);

-- When the lease is over somebody else may take the run, and until then the owner goes on.
UPDATE state_claim SET expires_at = now() WHERE run_id = 'claims';
SELECT state_context_set('claims', 'x', '5', token => :third);
SELECT state_context_renew('claims', :third, '1 hour') > now();
UPDATE state_claim SET expires_at = now() WHERE run_id = 'claims';
SELECT claim('claims', 'stolen', 'bob') > :third;
SELECT token AS stolen FROM token WHERE name = 'stolen' \gset
-- From now on who has lost it can write nothing, and is told who has it. No function takes the old token.
SELECT state_context_child('claims', 'claims/child'), state_context_set('claims/child', 'x', '1');
CREATE FUNCTION each_fenced(token bigint) RETURNS TABLE (call text, says text) LANGUAGE sql VOLATILE AS $$
	SELECT call, claim_says('SELECT * FROM ' || format(call, token)) FROM unnest(ARRAY[
		$c$state_context_set('claims', 'x', '9', token => %s)$c$,
		$c$state_context_set_many('claims', '{"x": 9}', token => %s)$c$,
		$c$state_context_append('claims', 'list', '9', token => %s)$c$,
		$c$state_context_patch('claims', 'object', '{"a": 9}', token => %s)$c$,
		$c$state_context_mark_export('claims', 'x', 'parent_context', token => %s)$c$,
		$c$state_context_unmark_export('claims', 'x', token => %s)$c$,
		$c$state_context_child('claims', 'claims/late', token => %s)$c$,
		$c$state_context_merge('claims/child', token => %s)$c$,
		$c$state_context_spend('claims', 'credits', 1, token => %s)$c$,
		$c$state_context_complete('claims', token => %s)$c$,
		$c$state_context_fence('claims', %s)$c$,
		$c$state_context_renew('claims', %s)$c$,
		$c$state_context_release('claims', %s)$c$]) call
$$;
SELECT * FROM each_fenced(:third);
SELECT state_context_get('claims')->'variables'->'x'->'value', state_exists('claims/late'), state_context_get('claims')->'exports', state_context_get('claims')->'usage';
-- Neither a token that there never was, nor one of another run.
SELECT state_context_create('claims 2'), claim('claims 2', 'other', 'bob') AS other \gset
SELECT claim_says(format($$SELECT state_context_set('claims', 'x', '9', token => %s)$$, :other));
SELECT outcome($$SELECT state_context_set('claims', 'x', '9', token => 0)$$), outcome($$SELECT state_context_set('claims', 'x', '9', token => -1)$$);
-- All of them take the new one.
BEGIN;
SELECT call, says FROM each_fenced(:stolen);
ROLLBACK;

-- state_context_fence() is for writes that carry no token: those of the state functions.
BEGIN;
SELECT state_context_fence('claims', :stolen);
SELECT state_update('claims', '{"mine": 1}');
COMMIT;
SELECT claim_says(format($$DO 'BEGIN PERFORM state_context_fence(''claims'', %s); PERFORM state_set(''claims'', ''{}''); END'$$, :third));
-- The token is looked at again when the run is written: one that is lost in between is noticed at COMMIT,
\set VERBOSITY sqlstate
BEGIN;
SELECT state_context_set('claims', 'x', '9', token => :stolen);
UPDATE state_claim SET token = token + 1000 WHERE run_id = 'claims';
COMMIT;
BEGIN;
SELECT state_context_fence('claims', :stolen);
SELECT state_set('claims', '{}');
UPDATE state_claim SET token = token + 1000 WHERE run_id = 'claims';
COMMIT;
-- by state_save(), which writes at once, and by a batch that is committed.
BEGIN;
SELECT state_context_fence('claims', :stolen);
UPDATE state_claim SET token = token + 1000 WHERE run_id = 'claims';
SELECT state_save('claims', '{}');
ROLLBACK;
BEGIN;
SELECT state_batch_begin();
SELECT state_context_set('claims', 'x', '9', token => :stolen);
UPDATE state_claim SET token = token + 1000 WHERE run_id = 'claims';
SELECT state_batch_commit();
ROLLBACK;
\set VERBOSITY default
SELECT state_context_get('claims')->'variables'->'x'->'value', state_context_get('claims')->'mine', owner FROM state_context_tree('claims') LIMIT 1;
-- It holds for the rest of the transaction, and is forgotten with the savepoint it was given in.
BEGIN;
SAVEPOINT s;
SELECT state_context_fence('claims', :stolen);
ROLLBACK TO s;
UPDATE state_claim SET token = token + 1000 WHERE run_id = 'claims';
SELECT state_update('claims', '{"mine": 3}');
COMMIT;
SELECT state_context_get('claims')->'mine';
UPDATE state_claim SET token = token - 1000 WHERE run_id = 'claims';
-- What is read under a fence writes nothing, and fails nothing.
BEGIN;
SELECT state_context_fence('claims', :stolen);
UPDATE state_claim SET token = token + 1000 WHERE run_id = 'claims';
SELECT state_context_get('claims')->'mine';
COMMIT;
UPDATE state_claim SET token = token - 1000 WHERE run_id = 'claims';

-- Released, a run is free at once; the token is not good any more, also where nobody has taken it.
-- What was written under it in the same transaction was written before.
BEGIN;
SELECT state_context_set('claims', 'x', '6', token => :stolen);
SELECT state_context_release('claims', :stolen);
COMMIT;
SELECT state_context_get('claims')#>'{variables,x,value}', owner FROM state_context_tree('claims') LIMIT 1;
SELECT claim_says(format($$SELECT state_context_set('claims', 'x', '9', token => %s)$$, :stolen));
SELECT outcome(format($$SELECT state_context_release('claims', %s)$$, :stolen)) ~ '^40001';
SELECT claim('claims', 'after', 'carl') > :stolen;
SELECT token AS after FROM token WHERE name = 'after' \gset
-- One token is enough for a merge: that of the parent, which is what is written.
SELECT variable FROM state_context_merge('claims/child', token => :after);
-- The owner completes his run; after that nobody claims it, and a release is no error.
SELECT * FROM state_context_complete('claims/child', 'cancelled');
SELECT * FROM state_context_complete('claims', token => :after);
SELECT claim_says($$SELECT state_context_claim('claims', 'dora')$$);
SELECT claim_says(format($$SELECT state_context_renew('claims', %s)$$, :after));
SELECT state_context_release('claims', :after);
-- A run of the same name as one that was deleted does not begin with its claim, nor with its tokens.
SELECT state_context_claim('claims 2', 'bob') AS old \gset
SELECT state_delete('claims 2');
SELECT state_context_create('claims 2');
SELECT run_id, owner FROM state_context_tree('claims 2');
SELECT outcome(format($$SELECT state_context_set('claims 2', 'x', '1', token => %s)$$, :old)) ~ '^40001';
SELECT state_context_claim('claims 2', 'carl') > :old;
