-- Which snapshots go: by each write as the class says, and by state_prune(). The current version never does, recovery
-- points do only when that is asked for, and what stays can be read.
\a \t \pset null (null)
-- What this session hears is shown without what differs from run to run.
\set heard '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
SELECT state_class_define('prune', keep => 0, channel => 'prune_test');
CREATE PROCEDURE aged(key text, class text, versions bigint, age interval) LANGUAGE sql AS $$
	UPDATE state_snapshot s SET created_at = now() - age WHERE (s.class, s.key) = (aged.class, aged.key) AND s.version <= versions
$$;

-- keep: all but the newest so many. A keyframe that later deltas need goes as well: they are stored anew first.
CALL keep_steps('steps', 'prune', 10);
SELECT kept_steps('steps', 'prune');
SELECT state_prune('prune', keep => 4);
SELECT state_cache_clear('prune') >= 0;
SELECT kept_steps('steps', 'prune');
SELECT state_prune('prune', keep => 4);
-- The next version builds upon the current one as before.
SELECT version FROM state_save('steps', document(11), class => 'prune');
SELECT kept_steps('steps', 'prune');
-- keep 1: the current one, which is a keyframe now.
SELECT state_prune('prune', keep => 1);
SELECT kept_steps('steps', 'prune'), stored('steps', 'prune') = seen('steps', 'prune');
SELECT version FROM state_save('steps', document(12), class => 'prune');
SELECT state_cache_clear('prune') >= 0;
SELECT kept_steps('steps', 'prune');

-- older_than: those made longer ago. By age alone a state keeps its current version, however old.
CALL keep_steps('aged', 'prune', 8);
CALL aged('aged', 'prune', 8, '3 days');
CALL aged('aged', 'prune', 5, '10 days');
SELECT state_prune('prune', older_than => '7 days');
SELECT kept_steps('aged', 'prune');
SELECT state_prune('prune', older_than => '1 day');
SELECT kept_steps('aged', 'prune');
SELECT state_prune('prune', older_than => '0');
SELECT kept_steps('aged', 'prune'), kept_steps('steps', 'prune');
-- Both: beyond the newest and older than that.
CALL keep_steps('both', 'prune', 8);
CALL aged('both', 'prune', 3, '10 days');
SELECT state_prune('prune', keep => 2, older_than => '7 days');
SELECT kept_steps('both', 'prune');
CALL aged('both', 'prune', 8, '10 days');
SELECT state_prune('prune', keep => 2, older_than => '7 days');
SELECT kept_steps('both', 'prune');

-- Recovery points stay, in the middle of a history as well, unless they are asked for.
SELECT version FROM generate_series(1, 9) i, state_save('points', document(i), recovery_point => i IN (2, 5, 9), class => 'prune');
SELECT kept_steps('points', 'prune');
SELECT state_prune('prune', keep => 1);
SELECT kept_steps('points', 'prune');
SELECT state_prune('prune', keep => 2, recovery_points => true);
SELECT kept_steps('points', 'prune');
SELECT state_prune('prune', keep => 1, recovery_points => true);
SELECT kept_steps('points', 'prune');

-- With neither named: what the class does not keep.
CALL keep_steps('class', 'prune', 6);
SELECT state_prune('prune');
SELECT kept_steps('class', 'prune');
BEGIN;
UPDATE state_class SET keep = 4 WHERE class = 'prune';
SELECT state_prune('prune');
COMMIT;
SELECT kept_steps('class', 'prune');
CALL aged('class', 'prune', 4, '3 hours');
SELECT state_class_define('prune', keep => 0, keep_for => '1 hour');
SELECT state_prune('prune');
SELECT kept_steps('class', 'prune');
SELECT state_class_define('prune', keep_for => '0');
SELECT keep, keep_for FROM state_class WHERE class = 'prune';

-- A deleted state: its tombstone counts as one that is kept, and what was before it goes like the rest.
CALL keep_steps('deleted', 'prune', 4);
SELECT state_delete('deleted', class => 'prune');
SELECT state_prune('prune', keep => 3);
SELECT kept_steps('deleted', 'prune');
SELECT state_prune('prune', keep => 1);
SELECT kept_steps('deleted', 'prune');
SELECT version, deleted FROM state_head WHERE class = 'prune' AND key = 'deleted';
SELECT state_set('deleted', '"back"', class => 'prune');
SELECT stored('deleted', 'prune');
-- Snapshots whose head row is gone are counted like others.
CALL keep_steps('headless', 'prune', 3);
DELETE FROM state_head WHERE class = 'prune' AND key = 'headless';
SELECT state_prune('prune', keep => 1);
SELECT kept_steps('headless', 'prune');

-- In a transaction: it sees itself, and a rollback brings all back.
CALL keep_steps('rolled back', 'prune', 5);
BEGIN;
SELECT version FROM state_save('rolled back', document(6), class => 'prune');
SELECT state_prune('prune', keep => 2);
SELECT kept_steps('rolled back', 'prune');
SELECT version FROM state_save('rolled back', document(7), class => 'prune');
SELECT kept_steps('rolled back', 'prune');
SAVEPOINT a;
SELECT state_prune('prune', keep => 1);
SELECT kept_steps('rolled back', 'prune');
ROLLBACK TO a;
SELECT kept_steps('rolled back', 'prune');
ROLLBACK;
SELECT kept_steps('rolled back', 'prune');

-- Other classes are left alone, and nobody hears of what no current version is.
SELECT state_class_define('prune other', keep => 0);
CALL keep_steps('other', 'prune other', 3);
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN prune_test;
\o :heard
SELECT state_prune('prune', keep => 1);
\o
UNLISTEN *;
SELECT kept_steps('other', 'prune other');
-- What cannot be done.
SELECT complaint($$SELECT state_prune('no such')$$);
SELECT complaint($$SELECT state_prune(NULL)$$);
SELECT complaint($$SELECT state_prune('prune', keep => 0)$$);
SELECT complaint($$SELECT state_prune('prune', keep => -1)$$);
SELECT complaint($$SELECT state_prune('prune', older_than => '-1 day')$$);

-- A state with a damaged version that others build upon is left as it is, and said so: what it builds upon may yet help.
CALL keep_steps('hurt', 'prune', 6);
CALL damage_byte('hurt', 'prune', 4, 5);
SELECT state_prune('prune', keep => 2);
SELECT version, encoding FROM state_history('hurt', class => 'prune');
-- A damaged version that falls out whole is not in the way.
SELECT version FROM state_save('hurt', document(7), recovery_point => true, class => 'prune');
SELECT state_prune('prune', keep => 1);
SELECT kept_steps('hurt', 'prune');

-- ---------------------------------------------------------------------------------------------------
-- By writes
-- ---------------------------------------------------------------------------------------------------
-- keep => 3 of documents stored whole: exactly three.
SELECT state_class_define('keep 3', keep => 3);
DO $$ BEGIN FOR i IN 1..7 LOOP PERFORM state_save('small', to_jsonb(i), class => 'keep 3'); COMMIT; END LOOP; END $$;
SELECT version, state_at('small', version, class => 'keep 3') FROM state_history('small', class => 'keep 3');
-- Of those stored as deltas a keyframe goes with the deltas that build upon it, and when the next keyframe is written:
-- never fewer than three, never more than twice the longest chain beyond that.
SET state_cache.max_delta_chain = 4;
CREATE FUNCTION keeps(key text, class text, fewest integer, most integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	kept bigint[];
BEGIN
	FOR i IN 1..30 LOOP
		PERFORM state_save(key, document(i), class => keeps.class);
		SELECT array_agg(version ORDER BY version) INTO kept FROM state_history(key, keeps.class);
		IF kept[cardinality(kept)] <> i OR cardinality(kept) NOT BETWEEN least(i, fewest) AND most
				OR kept <> ARRAY(SELECT generate_series(kept[1], i)) THEN
			RETURN format('after %s versions there are %s', i, kept);
		END IF;
		IF EXISTS (SELECT FROM unnest(kept) v WHERE state_at(key, v, keeps.class) IS DISTINCT FROM document(v::integer)) THEN
			RETURN format('after %s versions one is not what it was: %s', i, kept_steps(key, keeps.class));
		END IF;
	END LOOP;
	RETURN 'as many as it should';
END
$$;
SELECT keeps('steps', 'keep 3', 3, 3 + 2 * 4);
-- state_prune() makes it exactly three. (Upkeep comes once an hour, and lets stay what others build upon.)
DO $$ BEGIN PERFORM state_prune('keep 3'); END $$;
SELECT kept_steps('steps', 'keep 3');
-- A longer and a shorter chain.
SET state_cache.max_delta_chain = 16;
SELECT keeps('longer', 'keep 3', 3, 3 + 2 * 16);
SET state_cache.max_delta_chain = 0;
SELECT keeps('whole', 'keep 3', 3, 3);
RESET state_cache.max_delta_chain;
-- Recovery points among them stay.
SELECT count(*) FROM generate_series(1, 30) i, state_save('points', document(i), recovery_point => i % 10 = 0, class => 'keep 3');
SELECT kept_steps('points', 'keep 3');
DO $$ BEGIN PERFORM state_prune('keep 3'); END $$;
SELECT kept_steps('points', 'keep 3');
-- A delete counts, and prunes as well.
SELECT state_delete('small', class => 'keep 3');
SELECT version, state_at('small', version, class => 'keep 3') FROM state_history('small', class => 'keep 3');
SELECT state_delete('steps', class => 'keep 3');
SELECT version, deleted FROM state_head WHERE class = 'keep 3' AND key = 'steps';
SELECT kept_steps('steps', 'keep 3');
-- What comes back goes on counting.
SELECT version FROM generate_series(32, 34) i, state_save('steps', document(i), class => 'keep 3');
DO $$ BEGIN PERFORM state_prune('keep 3'); END $$;
SELECT kept_steps('steps', 'keep 3');

-- A class that is to keep fewer forgets the rest at once; what stays is readable, as is a class that keeps more again.
SELECT state_class_define('fewer', keep => 0);
CALL keep_steps('steps', 'fewer', 8);
SELECT version FROM state_save('steps', document(9), recovery_point => true, class => 'fewer');
SELECT version FROM state_save('steps', document(10), class => 'fewer');
SELECT kept_steps('steps', 'fewer');
SELECT state_class_define('fewer', keep => 5);
SELECT kept_steps('steps', 'fewer');
SELECT state_class_define('fewer', keep => 1);
SELECT kept_steps('steps', 'fewer');
SELECT version FROM state_save('steps', document(11), class => 'fewer');
SELECT version FROM state_save('steps', document(12), class => 'fewer');
SELECT kept_steps('steps', 'fewer');
SELECT state_class_define('fewer', keep => 0);
SELECT version FROM state_save('steps', document(13), class => 'fewer');
SELECT version FROM state_save('steps', document(14), class => 'fewer');
SELECT state_cache_clear('fewer') >= 0;
SELECT kept_steps('steps', 'fewer');
-- Within a transaction that is rolled back nothing is forgotten.
BEGIN;
SELECT state_class_define('fewer', keep => 1);
ROLLBACK;
SELECT kept_steps('steps', 'fewer');
-- Without compression from now on: deltas stay what they are until they are pruned.
SELECT state_class_define('fewer', compression => false);
SELECT version FROM state_save('steps', document(15), class => 'fewer');
SELECT kept_steps('steps', 'fewer');
SELECT state_prune('fewer', keep => 2, recovery_points => true);
SELECT kept_steps('steps', 'fewer');

-- Nothing was damaged by all this.
SELECT v.class, v.key, v.version, v.fault FROM unnest('{prune,keep 3,fewer,prune other}'::text[]) c, state_verify(c) v;
