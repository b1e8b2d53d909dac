-- What it costs to write rows without a statement, and by one: see docs/development.md, "Writing rows". For the
-- fault_injection build, by a superuser; says the time and the processor time of each change.
\set ON_ERROR_STOP on
\set QUIET on
\t on
\set changes 4000
SET synchronous_commit = off;

CREATE TABLE plain (
	class text COLLATE "C", key text COLLATE "C", version bigint, state jsonb, updated_at timestamptz,
	PRIMARY KEY (class, key)
) WITH (fillfactor = 70);
-- Documents of 3 KB, much alike, of words and numbers.
CREATE TABLE document AS
	SELECT number, jsonb_build_object('step', 'step-' || (1000000 + number), 'variables', (
		SELECT jsonb_object_agg(word[1 + (i * 7) % 24] || '-' || i, jsonb_build_object(
			'value', word[1 + (i * 5) % 24] || ' ' || word[1 + (i * 11 + 3) % 24] || ' ' || i * 7919,
			'source', word[1 + i % 4], 'version', i % 9))
		FROM generate_series(1, 34) i)) AS state
	FROM generate_series(1, 200) number, string_to_array('account agent answer audit batch billing branch budget '
		'cache claim context contract customer deadline delivery document draft estimate evidence export finding '
		'goal header invoice', ' ') word;

-- In CPU, nanoseconds that this session has run.
CREATE FUNCTION cpu() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT split_part(pg_read_file('/proc/self/schedstat', 0, 100), ' ', 1)::bigint
$$;
CREATE PROCEDURE change(way text, changes integer, keys integer) LANGUAGE plpgsql AS $$
DECLARE
	documents jsonb[]; began timestamptz; cpu_began bigint;
BEGIN
	SELECT array_agg(state || '{}' ORDER BY number) INTO documents FROM document;
	COMMIT;
	began := clock_timestamp();
	cpu_began := cpu();
	FOR i IN 1..changes LOOP
		IF way = 'plain upsert' THEN
			INSERT INTO plain VALUES ('config', 'key-' || i % keys, 1, documents[1 + i % 200], now())
				ON CONFLICT (class, key) DO UPDATE
				SET version = plain.version + 1, state = excluded.state, updated_at = now();
		ELSE
			PERFORM state_set('key-' || i % keys, documents[1 + i % 200], class => 'config');
		END IF;
		COMMIT;
	END LOOP;
	RAISE NOTICE '%: % us, % us of them on a processor', way,
		round(extract(epoch FROM clock_timestamp() - began) * 1e6 / changes, 1),
		round((cpu() - cpu_began) / 1e3 / changes, 1);
END
$$;
CALL change('first', 2000, 1009);
CALL change('plain upsert', 2000, 1009);
SELECT format('SET state_cache.test_write_rows = %L', setting), format('CALL change(%L, %s, 1009)', way, :changes)
FROM generate_series(1, 5) round,
	(VALUES (1, 'statement', 'by a statement'), (2, 'auto', 'without'), (3, 'auto', 'plain upsert'))
		side (n, setting, way)
ORDER BY round, n \gexec
