-- Claims of states of any class, and of names without a state: one owner at a time, and a write under a token that is
-- not the current one fails, whichever function makes the write.
\a \t \pset null (null)
SELECT state_class_define('claimed', keep => 5), state_class_define('claimed left', write_mode => 'behind');
CREATE TABLE my_claim AS SELECT state_claim('doc', 'one', '1 hour', 'claimed') AS one;
-- Held: by another it cannot be claimed; by the same owner again, with a greater token.
SELECT complaint($$SELECT state_claim('doc', 'two', class => 'claimed')$$) LIKE '55P03 state "claimed/doc" is claimed by another owner%DETAIL: State "claimed/doc" is owned by "one" with token % until %HINT: It can be claimed when the lease is over or released.';
UPDATE my_claim SET one = state_claim('doc', 'one', '1 hour', 'claimed') RETURNING my_claim.one > (SELECT one FROM my_claim);
SELECT owner, token = one, expires_at - claimed_at BETWEEN '59 minutes' AND '61 minutes' FROM state_lease, my_claim WHERE class = 'claimed' AND key = 'doc';
-- Another class, another key: other claims.
SELECT state_claim('doc', 'two', class => 'claimed left') > one, state_claim('other', 'two', class => 'claimed') > one FROM my_claim;
SELECT state_renew('doc', one, '2 hours', 'claimed') > now() + interval '119 minutes' FROM my_claim;

-- A fence is for the rest of the transaction, and needs one.
SELECT state_fence('doc', one, 'claimed') FROM my_claim;
BEGIN;
SELECT state_fence('doc', one, 'claimed') FROM my_claim;
SELECT state_set('doc', '{"list": []}', class => 'claimed');
SELECT state_append('doc', '{list}', '1', 'claimed');
COMMIT;
SELECT stored('doc', 'claimed');

-- stale() names the token, lets another take the state, and then makes a change: it fails, at once or at COMMIT, with
-- the same error. Nothing of it stays.
CREATE PROCEDURE stale(change text, class text) LANGUAGE plpgsql AS $$
DECLARE
	mine bigint; theirs bigint; before text := stored('doc', class); failed text;
BEGIN
	UPDATE state_lease l SET expires_at = '-infinity' WHERE l.class = stale.class AND key = 'doc';
	mine := state_claim('doc', 'mine', '1 hour', class);
	COMMIT;
	BEGIN
		PERFORM state_fence('doc', mine, class);
		-- As the clock does.
		UPDATE state_lease l SET expires_at = '-infinity' WHERE l.class = stale.class AND key = 'doc';
		theirs := state_claim('doc', 'theirs', '1 hour', class);
		-- Who claims in the transaction itself writes under the new claim; the one that is stale is named again.
		failed := outcome(format('SELECT state_fence(%L, %s, %L)', 'doc', mine, class));
		IF failed NOT LIKE '40001 token % does not own state % any more' THEN
			RAISE 'not refused when named: %', failed;
		END IF;
		RAISE SQLSTATE 'UUUUU';
	EXCEPTION WHEN SQLSTATE 'UUUUU' THEN NULL;
	END;
	BEGIN
		PERFORM state_fence('doc', mine, class);
		UPDATE state_lease l SET token = token + 1, owner = 'theirs' WHERE l.class = stale.class AND key = 'doc';
		EXECUTE 'SELECT ' || change;
		PERFORM state_batch_commit();
		RAISE EXCEPTION 'not refused: %', change;
	EXCEPTION WHEN serialization_failure THEN
		RAISE NOTICE '%: %, %', change, regexp_replace(SQLERRM, '[0-9]+', 'N'),
			CASE WHEN stored('doc', class) = before THEN 'and not written' ELSE 'BUT WRITTEN' END;
	END;
END
$$;
CREATE TABLE claim_change AS SELECT * FROM unnest(ARRAY['state_set(''doc'', ''1'', class => %L)', 'state_set_text(''doc'', ''1'', class => %L)',
	'state_update(''doc'', ''{"a": 1}'', %L)', 'state_merge(''doc'', ''{"a": 1}'', %L)', 'state_put(''doc'', ''1'', class => %L)',
	'state_save(''doc'', ''1'', class => %L)', 'state_append(''doc'', ''{list}'', ''1'', %L)', 'state_append_many(''doc'', ''{list}'', ''[1]'', %L)',
	'state_pop(''doc'', ''{list}'', %L)', 'state_delete(''doc'', class => %L)', 'state_touch(''doc'', ''1 hour'', %L)',
	'state_touch_prefix(''d'', ''1 hour'', %L)', 'state_restore(''doc'', 1, class => %L)']) WITH ORDINALITY c (call, n);
DO $$
DECLARE
	changed record;
BEGIN
	FOR changed IN SELECT * FROM claim_change ORDER BY n LOOP
		CALL stale(format(changed.call, 'claimed'), 'claimed');
	END LOOP;
END $$;
SELECT state_release('doc', token, 'claimed left') FROM state_lease WHERE class = 'claimed left';
SELECT state_set('doc', '{"list": [0]}', class => 'claimed left');
CALL stale('state_update(''doc'', ''{"a": 1}'', ''claimed left'')', 'claimed left');
CALL stale('state_set(''doc'', ''1'', class => ''claimed left'')', 'claimed left');

-- At COMMIT, too, also in an explicit batch that overwrites; other states go with it.
UPDATE state_lease SET expires_at = '-infinity' WHERE class = 'claimed' AND key = 'doc';
UPDATE my_claim SET one = state_claim('doc', 'one', '1 hour', 'claimed');
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT state_fence('doc', one, 'claimed') FROM my_claim;
SELECT state_update('doc', '{"late": true}', 'claimed'), state_set('beside', '1', class => 'claimed');
UPDATE state_lease SET token = token + 1, owner = 'two' WHERE class = 'claimed' AND key = 'doc';
\set VERBOSITY sqlstate
COMMIT;
\set VERBOSITY default
SELECT stored('doc', 'claimed'), stored('beside', 'claimed');
-- Who names no token is not held up, and a state that is not written does not matter.
SELECT state_update('doc', '{"free": true}', 'claimed');
BEGIN;
SELECT state_fence('doc', one, 'claimed') FROM my_claim;
SELECT state_set('beside', '1', class => 'claimed');
UPDATE state_lease SET token = token + 1, owner = 'two' WHERE class = 'claimed' AND key = 'doc';
COMMIT;
SELECT stored('doc', 'claimed'), stored('beside', 'claimed');
UPDATE state_lease SET token = one, owner = 'one' FROM my_claim WHERE class = 'claimed' AND key = 'doc';

-- A savepoint takes a fence back.
BEGIN;
SAVEPOINT s;
SELECT state_fence('doc', one, 'claimed') FROM my_claim;
ROLLBACK TO s;
UPDATE state_lease SET token = token + 1 WHERE class = 'claimed' AND key = 'doc';
SELECT state_update('doc', '{"unfenced": true}', 'claimed');
ROLLBACK;
-- Released: the token is worth nothing, and anybody may have it.
SELECT state_release('doc', one, 'claimed') FROM my_claim;
SELECT regexp_replace(complaint(format($$SELECT %s$$, call)), '[0-9]{9,}', 'N') FROM my_claim, unnest(ARRAY[format('state_renew(''doc'', %s, class => ''claimed'')', one),
	format('state_release(''doc'', %s, ''claimed'')', one), 'state_renew(''never'', 7, class => ''claimed'')']) call;
SELECT state_claim('doc', 'two', class => 'claimed') > one FROM my_claim;

-- A run is claimed as a run; what else is in its class is not.
SELECT state_context_create('claimed run'), state_set('claimed doc', '{}');
SELECT state_claim('claimed run', 'one') > 0;
SELECT count(*) FROM state_claim WHERE run_id = 'claimed run' AND owner = 'one';
SELECT state_renew('claimed run', token) > now(), state_context_renew('claimed run', token) > now() FROM state_claim WHERE run_id = 'claimed run';
SELECT outcome($$SELECT state_context_claim('claimed run', 'two')$$), outcome($$SELECT state_claim('claimed run', 'two')$$);
SELECT state_claim('claimed doc', 'one') > 0, state_claim('no state at all', 'one') > 0;
SELECT class, key, owner FROM state_lease WHERE class = 'run' ORDER BY key;
SELECT state_release('claimed run', token) FROM state_claim WHERE run_id = 'claimed run';
SELECT outcome($$SELECT state_claim('claimed run', 'two') > 0$$);

-- What is no claim.
SELECT outcome(call) FROM unnest(ARRAY[$$SELECT state_claim(NULL, 'a')$$, $$SELECT state_claim('', 'a')$$, $$SELECT state_claim('a', NULL)$$,
	$$SELECT state_claim('a', '')$$, $$SELECT state_claim('a', 'a', '0')$$, $$SELECT state_claim('a', 'a', class => 'nowhere')$$,
	$$SELECT state_renew('a', NULL)$$, $$SELECT state_release('a', NULL)$$]) call;

-- Roles: who may change states may claim them, without a privilege on the table; with row-level security what is shown.
CREATE ROLE regress_claims;
SELECT state_set('mine', '1', class => 'claimed');
SET ROLE regress_claims;
SELECT outcome($$SELECT state_claim('mine', 'me', class => 'claimed')$$), outcome('SELECT FROM state_lease');
RESET ROLE;
SELECT state_grant('regress_claims', 'application');
SET ROLE regress_claims;
SELECT outcome($$SELECT state_claim('mine', 'me', class => 'claimed')$$), outcome('SELECT FROM state_lease');
RESET ROLE;
SELECT state_claim('beside', 'somebody', class => 'claimed') AS hidden \gset
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON state_head TO regress_claims USING (key = 'mine');
SET ROLE regress_claims;
SELECT outcome($$SELECT state_claim('mine', 'me', class => 'claimed')$$), outcome($$SELECT state_claim('beside', 'me', class => 'claimed')$$),
	outcome($$SELECT state_claim('nothing', 'me', class => 'claimed')$$);
-- A token that was guessed does not help, and nobody hears who owns what is hidden.
SELECT call, outcome(format(call, token)) FROM unnest(ARRAY[:hidden, 0]) token, unnest(ARRAY[
	$$SELECT state_renew('beside', %s, class => 'claimed')$$, $$SELECT state_fence('beside', %s, 'claimed')$$,
	$$SELECT state_release('beside', %s, 'claimed')$$]) call;
RESET ROLE;
SELECT owner FROM state_lease WHERE class = 'claimed' AND key = 'beside';
DROP POLICY own ON state_head;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
SELECT state_revoke('regress_claims');
DROP ROLE regress_claims;
