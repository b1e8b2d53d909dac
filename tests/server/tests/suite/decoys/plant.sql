-- Plants decoys of functions and operators: for each signature that PostgreSQL's own have, the same one, and others
-- that match arguments of common types better. A decoy that is called says so in the log and fails.

CREATE TABLE wanted (kind text, name text);
CREATE TABLE own (name text, types oid[]);

CREATE PROCEDURE plant(home text) LANGUAGE plpgsql AS $plant$
DECLARE
	common regtype[] := '{text,name,varchar,"char",bigint,integer,smallint,jsonb,bytea,timestamptz,interval,boolean,text[],oid,regclass,regnamespace}';
	decoy  record;
BEGIN
	SET LOCAL check_function_bodies = off;
	FOR decoy IN
		WITH common (type) AS (SELECT unnest(common)::oid),
		known AS (
			SELECT w.name, ARRAY(SELECT unnest(p.proargtypes)) AS types, p.pronargdefaults AS defaults, false AS is_own
			FROM wanted w JOIN pg_proc p ON p.proname = w.name AND p.pronamespace = 'pg_catalog'::regnamespace
			WHERE w.kind = 'function'
			UNION ALL SELECT name, types, 0, true FROM own
		), arities AS (
			SELECT DISTINCT name, n FROM known, generate_series(greatest(cardinality(types) - defaults, 0), cardinality(types)) n
			-- As if they had an argument less, or more: of those that take any number.
			UNION SELECT w.name, n FROM wanted w JOIN pg_proc p ON p.proname = w.name AND p.provariadic <> 0, generate_series(0, 4) n
		), signatures AS (
			SELECT name, types FROM known
			UNION SELECT name, '{}' FROM arities WHERE n = 0
			UNION SELECT name, ARRAY[a.type] FROM arities, common a WHERE n = 1
			UNION SELECT name, ARRAY[a.type, b.type] FROM arities, common a, common b WHERE n = 2
			UNION SELECT name, array_fill(a.type, ARRAY[n]) FROM arities, common a WHERE n > 2
			-- One argument after the other.
			UNION SELECT name, types[:i - 1] || a.type || types[i + 1:]
				FROM known, generate_series(1, cardinality(types)) i, common a WHERE cardinality(types) > 2
		)
		SELECT name, string_agg(format_type(t, NULL), ', ' ORDER BY n) AS arguments
		FROM signatures s LEFT JOIN LATERAL unnest(types) WITH ORDINALITY u (t, n) ON true
		WHERE NOT EXISTS (SELECT FROM own o WHERE o.name = s.name AND o.types = s.types)
		-- PL/pgSQL takes no pseudo-type but those that stand for any other one.
		AND NOT EXISTS (SELECT FROM unnest(types) a JOIN pg_type ON pg_type.oid = a WHERE typtype = 'p')
		GROUP BY name, types
	LOOP
		EXECUTE format('CREATE FUNCTION %1$I.%2$I(%3$s) RETURNS boolean LANGUAGE plpgsql AS %4$L', home, decoy.name, decoy.arguments,
			format('BEGIN RAISE WARNING %1$L; RAISE EXCEPTION %1$L; END', replace(format('decoy called: %s(%s)', decoy.name, decoy.arguments), '%', '%%')));
	END LOOP;
	FOR decoy IN
		SELECT w.name, format_type(a, NULL) AS lefttype, format_type(b, NULL) AS righttype
		FROM wanted w, unnest(common) a, unnest(common) b WHERE w.kind = 'operator'
		UNION SELECT w.name, format_type(o.oprleft, NULL), format_type(o.oprright, NULL) FROM wanted w JOIN pg_operator o ON o.oprname = w.name
			JOIN pg_type l ON l.oid = o.oprleft JOIN pg_type r ON r.oid = o.oprright
		WHERE w.kind = 'operator' AND l.typtype <> 'p' AND r.typtype <> 'p'
	LOOP
		EXECUTE format('CREATE FUNCTION %1$I.%2$I(%3$s, %4$s) RETURNS boolean LANGUAGE plpgsql AS %5$L', home,
			'decoy ' || decoy.name, decoy.lefttype, decoy.righttype,
			format('BEGIN RAISE WARNING %1$L; RAISE EXCEPTION %1$L; END',
				replace(format('decoy called: %s %s %s', decoy.lefttype, decoy.name, decoy.righttype), '%', '%%')));
		EXECUTE format('CREATE OPERATOR %1$I.%2$s (FUNCTION = %1$I.%3$I, LEFTARG = %4$s, RIGHTARG = %5$s)', home,
			decoy.name, 'decoy ' || decoy.name, decoy.lefttype, decoy.righttype);
	END LOOP;
END
$plant$;
