-- What state_at takes on this server, in microseconds, for a version of 21 KB that stands nine deltas above its
-- keyframe, and for a keyframe, beside state_get of the newest version, which is the first of the two. On a primary
-- it makes the states first; a standby has them from there.
--
-- "once": in a transaction that has decoded nothing yet. "again": the same versions once more in that transaction.
-- Each is the least of all rounds, for 50 states in turns. docs/development.md says what came of it.
\set ON_ERROR_STOP on
SELECT pg_is_in_recovery() AS standby \gset
\if :standby
\else
CREATE EXTENSION IF NOT EXISTS state_cache;
SELECT state_class_define('kept', keep => 100);
DO $$
DECLARE steps jsonb;
BEGIN
	FOR s IN 1 .. 50 LOOP
		steps := jsonb_build_object('log', (SELECT jsonb_agg(md5(s || ' ' || i)) FROM generate_series(1, 560) i));
		FOR n IN 1 .. 60 LOOP
			PERFORM state_set('s' || s, steps || jsonb_build_object('step', n, 'note', md5(n::text)),
				class => 'kept');
			COMMIT;
		END LOOP;
	END LOOP;
END $$;
CREATE OR REPLACE PROCEDURE read_kept(what text, rounds integer, at_version bigint) LANGUAGE plpgsql AS $$
DECLARE
	least_of double precision[] := '{1e9,1e9}'; started timestamptz; v jsonb;
BEGIN
	FOR r IN 1 .. rounds LOOP
		COMMIT;
		FOR pass IN 1 .. 2 LOOP
			started := clock_timestamp();
			FOR s IN 1 .. 50 LOOP
				IF what = 'state_at' THEN
					v := state_at('s' || s, at_version, class => 'kept');
				ELSE
					v := state_get('s' || s, 'kept');
				END IF;
			END LOOP;
			least_of[pass] := least(least_of[pass], extract(epoch FROM clock_timestamp() - started) * 1e6 / 50);
			IF v IS NULL THEN RAISE EXCEPTION 'nothing was read'; END IF;
		END LOOP;
	END LOOP;
	RAISE NOTICE '% at version %: once %, again %', what, at_version,
		round(least_of[1]::numeric, 1), round(least_of[2]::numeric, 1);
END $$;
\endif
SELECT max(version) AS deep FROM state_history('s1', class => 'kept') WHERE encoding = 'delta' \gset
SELECT min(version) AS keyframe FROM state_history('s1', class => 'kept') WHERE encoding <> 'delta' \gset
SELECT count(state_get('s' || s, 'kept')) FROM generate_series(1, 50) s;
CALL read_kept('state_at', 100, :deep);
CALL read_kept('state_at', 100, :keyframe);
CALL read_kept('state_get', 100, :deep);
SET state_cache.enabled = off;
CALL read_kept('state_get', 100, :deep);
