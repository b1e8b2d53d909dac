-- Several states written by one flush: the tables hold what they would hold had each been written by itself.
\a \t \pset null (null)

-- The same changes, of the states of classes whose names begin alike: with one flush per round, or with one each.
CREATE PROCEDURE flush_many_play(prefix text, together boolean) LANGUAGE plpgsql AS $$
DECLARE
	c text;
	k text;
	words jsonb := (SELECT jsonb_object_agg('word ' || i, md5(i::text)) FROM generate_series(1, 40) i);
BEGIN
	FOR round IN 1..14 LOOP
		FOR c IN SELECT class FROM state_class WHERE class LIKE prefix || '%' ORDER BY class COLLATE "C" DESC LOOP
			FOREACH k IN ARRAY '{changed,deleted,new,same,sometimes,touched,text}'::text[] LOOP
				CONTINUE WHEN k = 'new' AND round < 9;
				CASE
					WHEN round = 1 OR k = 'changed' OR k = 'new' THEN
						PERFORM state_set(k, words || jsonb_build_object('round', round), class => c);
					-- Gone, and back again over the tombstone.
					WHEN k = 'deleted' AND round % 3 = 0 THEN PERFORM state_delete(k, class => c);
					WHEN k = 'deleted' THEN PERFORM state_update(k, jsonb_build_object('r' || round, round), class => c);
					WHEN k = 'same' THEN PERFORM state_update(k, '{"round": 1}', class => c);
					WHEN k = 'sometimes' THEN PERFORM state_merge(k, jsonb_build_object('half', round / 2), class => c);
					WHEN k = 'touched' THEN PERFORM state_touch(k, make_interval(days => round), class => c);
					ELSE PERFORM state_set(k, to_jsonb(repeat('text ', round * 30)), class => c);
				END CASE;
				IF NOT together THEN PERFORM FROM state_batch_commit(); END IF;
			END LOOP;
		END LOOP;
		PERFORM FROM state_batch_commit();
	END LOOP;
END
$$;
SELECT state_class_define(prefix || ' 1', keep => 1), state_class_define(prefix || ' 3', keep => 3),
	state_class_define(prefix || ' all', keep => 0), state_class_define(prefix || ' plain', keep => 2, compression => false)
	FROM unnest('{together,apart}'::text[]) prefix;
-- In one transaction, so that no worker prunes in between.
BEGIN;
SET LOCAL state_cache.max_delta_chain = 3;
CALL flush_many_play('together', true);
CALL flush_many_play('apart', false);

CREATE VIEW flush_many_heads AS SELECT split_part(class, ' ', 1) AS how, split_part(class, ' ', 2) AS class, key, version, hash, size, deleted,
	expires_at IS NOT NULL AS expires, updated_at < clock_timestamp() AS updated FROM state_head WHERE class LIKE 'together %' OR class LIKE 'apart %';
CREATE VIEW flush_many_snapshots AS SELECT split_part(class, ' ', 1) AS how, split_part(class, ' ', 2) AS class, key, version, parent_version, hash,
	checkpoint_type, recovery_point, agent_phase, execution_context, state, delta, in_head FROM state_kept WHERE class LIKE 'together %' OR class LIKE 'apart %';
SELECT class, key, version, deleted, expires, updated, (SELECT string_agg(version || CASE WHEN delta IS NULL THEN '' ELSE '*' END, ' ' ORDER BY version)
	FROM flush_many_snapshots s WHERE s.how = h.how AND s.class = h.class AND s.key = h.key) AS snapshots
	FROM flush_many_heads h WHERE how = 'together' ORDER BY class, key;
-- What is different.
SELECT * FROM (TABLE flush_many_heads EXCEPT ALL SELECT CASE how WHEN 'apart' THEN 'together' ELSE 'apart' END, class, key, version, hash, size, deleted, expires, updated FROM flush_many_heads) d;
SELECT how, class, key, version FROM (TABLE flush_many_snapshots EXCEPT ALL SELECT CASE how WHEN 'apart' THEN 'together' ELSE 'apart' END,
	class, key, version, parent_version, hash, checkpoint_type, recovery_point, agent_phase, execution_context, state, delta, in_head FROM flush_many_snapshots) d;
COMMIT;
SELECT v.* FROM state_class c, state_verify(c.class) v WHERE c.class LIKE 'together %' OR c.class LIKE 'apart %';

-- What the flush says it did, and what is read before and after the end of the transaction.
SELECT state_class_define('many one', keep => 1), state_class_define('many three', keep => 3);
SELECT state_set('a', '{"n": 1}', class => 'many one'), state_set('b', '{"n": 1}', class => 'many one'), state_set('c', '{"n": 1}', class => 'many three');
BEGIN;
SELECT state_update('a', '{"n": 2}', class => 'many one'), state_set('b', '{"n": 1}', class => 'many one'), state_delete('c', class => 'many three'),
	state_set('d', '{"n": 1}', class => 'many three'), state_delete('e', class => 'many three');
SELECT * FROM state_batch_commit();
SELECT seen('a', 'many one'), stored('a', 'many one'), seen('b', 'many one'), seen('c', 'many three'), seen('d', 'many three'), stored('d', 'many three');
-- The same states again in the same transaction.
SELECT state_update('a', '{"n": 3}', class => 'many one'), state_set('c', '{"n": 2}', class => 'many three'), state_set('d', '{"n": 2}', class => 'many three');
SELECT * FROM state_batch_commit();
SELECT state_update('a', '{"n": 4}', class => 'many one'), state_update('d', '{"n": 3}', class => 'many three');
SAVEPOINT s;
SELECT state_set('a', '{"n": 5}', class => 'many one'), state_delete('d', class => 'many three');
SELECT * FROM state_batch_commit();
ROLLBACK TO s;
COMMIT;
SELECT seen('a', 'many one'), stored('a', 'many one'), seen('c', 'many three'), stored('c', 'many three'), seen('d', 'many three'), stored('d', 'many three');

-- A conflict writes none of them.
BEGIN;
SELECT state_set('a', '{"n": 6}', class => 'many one'), state_set('d', '{"n": 6}', expected_version => 1, class => 'many three');
COMMIT;
SELECT stored('a', 'many one'), stored('d', 'many three');

-- No version is used again, whatever was done to the head rows by hand.
DELETE FROM state_head WHERE class = 'many three' AND key = 'd';
SELECT state_set('a', '{"n": 7}', class => 'many one'), state_set('d', '{"n": 7}', class => 'many three');
SELECT stored('a', 'many one'), stored('d', 'many three');
UPDATE state_head SET version = 3 WHERE class = 'many three' AND key = 'd';
SELECT state_set('a', '{"n": 8}', class => 'many one'), state_set('d', '{"n": 8}', class => 'many three');
DELETE FROM state_head WHERE class = 'many three' AND key = 'd';

-- A role that may not update snapshots writes new ones.
CREATE ROLE regress_state_many;
GRANT SELECT, INSERT, UPDATE ON state_head TO regress_state_many;
GRANT SELECT, INSERT, DELETE ON state_snapshot TO regress_state_many;
BEGIN;
SET LOCAL ROLE regress_state_many;
SELECT state_set('a', '{"n": 8}', class => 'many one'), state_set('b', '{"n": 8}', class => 'many one');
RESET ROLE;
SELECT state_set('c', '{"n": 8}', class => 'many three'), state_set('d', '{"n": 8}', class => 'many three');
COMMIT;
SELECT stored('a', 'many one'), stored('b', 'many one'), stored('c', 'many three'), stored('d', 'many three');
SELECT class, key, version FROM state_kept WHERE class = 'many one' ORDER BY key, version;
DROP OWNED BY regress_state_many;
DROP ROLE regress_state_many;

DROP VIEW flush_many_heads, flush_many_snapshots;
DROP PROCEDURE flush_many_play;
