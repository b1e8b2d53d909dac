-- A branch is stored as the difference from the version that it goes on from, where that is smaller; and whatever is
-- erased, pruned, copied or made a recovery point, each version can be read.
SELECT state_class_define('branches', keep => 0, notify => 'off');
-- Text that no compressor makes smaller, the same for the same number.
CREATE FUNCTION noise(seed integer, kilobytes integer) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(md5(seed || ' ' || i), '') FROM generate_series(1, kilobytes * 32) i $$;
CREATE FUNCTION stored(key text) RETURNS TABLE (version bigint, parent_version bigint, encoding text, small boolean)
	LANGUAGE sql AS
$$ SELECT h.version, h.parent_version, h.encoding, h.bytes_stored < 200 FROM state_history($1, 'branches') h ORDER BY 1 $$;

-- Two branches that have nothing in common.
SELECT version FROM state_save('two', jsonb_build_object('t', noise(1, 2), 'n', 1), class => 'branches');
SELECT version FROM state_save('two', jsonb_build_object('t', noise(1, 2), 'n', 2), class => 'branches',
	payload => convert_to(noise(3, 1) || 'a', 'UTF8'));
SELECT version FROM state_save('two', jsonb_build_object('t', noise(1, 1) || noise(2, 1), 'n', 3), class => 'branches');
SELECT version FROM state_save('two', jsonb_build_object('t', noise(1, 2), 'n', 4), class => 'branches',
	parent_version => 2, payload => convert_to(noise(3, 1) || 'b', 'UTF8'));
SELECT version FROM state_save('two', jsonb_build_object('t', noise(1, 1) || noise(2, 1), 'n', 5), class => 'branches',
	parent_version => 3);
SELECT * FROM stored('two');
SELECT length(payload), length(payload) < 1500 FROM state_list('two', class => 'branches') WHERE payload IS NOT NULL;
SELECT version, pg_column_size(payload) < 200 AS small FROM state_snapshot WHERE class = 'branches' AND key = 'two'
	AND payload IS NOT NULL ORDER BY version;
SELECT version, state->>'n' AS n, length(state->>'t'), parent_version FROM state_list('two', class => 'branches');
-- By hand nothing goes that a branch builds upon.
\set VERBOSITY sqlstate
DELETE FROM state_snapshot WHERE class = 'branches' AND key = 'two' AND version = 2;
DELETE FROM state_snapshot WHERE class = 'branches' AND key = 'two' AND version = 3;
\set VERBOSITY default
-- A keyframe in the middle makes one of each branch that goes past it.
UPDATE state_snapshot SET recovery_point = true WHERE class = 'branches' AND key = 'two' AND version = 3;
SELECT * FROM stored('two');
SELECT state_purge('{two}', versions => '{1, 2}', class => 'branches');
SELECT * FROM stored('two');
SELECT * FROM state_verify('branches');

-- What recovery may go back to builds upon nothing; a parent that is beyond a keyframe, damaged, or the version before
-- is none to build upon.
SELECT version FROM state_save('two', jsonb_build_object('t', noise(1, 1) || noise(2, 1), 'n', 6), class => 'branches',
	parent_version => 3, recovery_point => true);
SELECT version FROM state_save('two', jsonb_build_object('t', noise(1, 1) || noise(2, 1), 'n', 7), class => 'branches',
	parent_version => 3);
SELECT version, parent_version, encoding FROM stored('two') WHERE version > 5;

-- A class that keeps a number of versions has deltas upon the version before only.
SELECT state_class_define('few', keep => 20, notify => 'off');
SELECT s.version FROM generate_series(1, 6) i, LATERAL state_save('two', jsonb_build_object('t', noise(1, 1)
	|| noise(1 + i % 2, 1), 'n', i), class => 'few', parent_version => CASE WHEN i > 2 THEN i - 2 END) s;
SELECT h.version, h.encoding, h.bytes_stored < 200 AS small FROM state_history('two', 'few') h ORDER BY 1;

-- Whatever happens to a tree of versions, each reads as it was written.
CREATE TABLE written (version bigint PRIMARY KEY, state jsonb, payload bytea);
CREATE FUNCTION check_tree() RETURNS text LANGUAGE sql AS
$$ SELECT format('%s differ, %s damaged', (SELECT count(*) FROM state_list('tree', class => 'branches', "limit" => 10000) l
	LEFT JOIN written w USING (version) WHERE w.state IS DISTINCT FROM l.state OR w.payload IS DISTINCT FROM l.payload),
	(SELECT count(*) FROM state_verify('branches'))) $$;
SELECT setseed(0.5);
DO $$
DECLARE
	step integer; parent bigint; made bigint; document jsonb; bytes bytea; kept bigint[]; chosen bigint;
	problem text; deltas bigint := 0;
BEGIN
	FOR step IN 1..300 LOOP
		SELECT array_agg(version ORDER BY version) INTO kept FROM state_snapshot
			WHERE class = 'branches' AND key = 'tree';
		chosen := kept[1 + floor(random() * cardinality(kept))];
		CASE WHEN random() < 0.85 OR cardinality(kept) < 8 THEN
			parent := CASE WHEN random() < 0.5 THEN chosen END;
			SELECT jsonb_set(COALESCE(w.state, jsonb_build_object('t', noise(0, 1))), '{t}', to_jsonb(
				COALESCE(w.state->>'t', '') || CASE WHEN random() < 0.1 THEN noise(step, 2) ELSE md5(step::text) END))
				INTO document FROM (SELECT) d LEFT JOIN written w ON w.version = COALESCE(parent, kept[cardinality(kept)]);
			IF length(document->>'t') > 6000 THEN
				document := jsonb_build_object('t', noise(step, 1));
			END IF;
			bytes := CASE WHEN random() < 0.5 THEN convert_to(document->>'t', 'UTF8') END;
			SELECT s.version INTO made FROM state_save('tree', document, class => 'branches', parent_version => parent,
				recovery_point => random() < 0.02, payload => bytes) s;
			INSERT INTO written VALUES (made, document, bytes);
			deltas := deltas + (SELECT count(*) FROM state_history('tree', 'branches')
				WHERE version = made AND encoding = 'delta');
		WHEN random() < 0.3 THEN
			PERFORM state_purge('{tree}', versions => ARRAY[chosen], class => 'branches')
				WHERE chosen < kept[cardinality(kept)];
		WHEN random() < 0.3 THEN
			PERFORM state_purge('{tree}', keep => (cardinality(kept) * 0.8)::integer, class => 'branches');
		WHEN random() < 0.3 THEN
			UPDATE state_snapshot SET recovery_point = true
				WHERE class = 'branches' AND key = 'tree' AND version = chosen;
		WHEN random() < 0.3 THEN
			-- For a while it keeps so many, and prunes with each write.
			PERFORM state_class_define('branches', keep => (cardinality(kept) * 0.8)::integer);
			FOR i IN 1..3 LOOP
				document := jsonb_build_object('t', noise(step * 10 + i, 1));
				SELECT s.version INTO made FROM state_save('tree', document, class => 'branches') s;
				INSERT INTO written VALUES (made, document);
			END LOOP;
			PERFORM state_class_define('branches', keep => 0);
		ELSE
			BEGIN
				DELETE FROM state_snapshot WHERE class = 'branches' AND key = 'tree' AND version = chosen
					AND version < kept[cardinality(kept)];
			EXCEPTION WHEN foreign_key_violation THEN
			END;
		END CASE;
		CONTINUE WHEN step % 5 > 0;
		problem := check_tree();
		IF problem <> '0 differ, 0 damaged' THEN
			RAISE '% after step %', problem, step;
		END IF;
	END LOOP;
	RAISE NOTICE 'many deltas: %', deltas > 100;
END $$;
SELECT check_tree();
-- A copy has the same distances.
SELECT state_copy('tree', 'copy of tree', 'branches');
SELECT count(*) AS differ FROM state_list('tree', class => 'branches', "limit" => 10000) a
	FULL JOIN state_list('copy of tree', class => 'branches', "limit" => 10000) b USING (version)
	WHERE a.state IS DISTINCT FROM b.state OR a.payload IS DISTINCT FROM b.payload;
SELECT count(*) > 0 AS branches FROM (SELECT h.version, h.parent_version, h.encoding,
	lag(h.version) OVER (ORDER BY h.version) AS before FROM state_history('tree', 'branches') h) h
	WHERE encoding = 'delta' AND parent_version < before;
SELECT * FROM state_verify('branches');

SELECT state_purge(prefix => '', class => 'branches'), state_purge(prefix => '', class => 'few');
DROP FUNCTION check_tree(), stored(text), noise(integer, integer);
DROP TABLE written;
