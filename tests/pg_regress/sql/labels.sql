-- What the extension brings, how it is labelled, and that everything is described and nothing else is there.
\a \t \pset null (null)
\pset fieldsep ' '
-- Row types are left out: only newer servers count them as members of their own.
SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'state_cache') AND deptype = 'e'
	AND classid <> 'pg_type'::regclass
	ORDER BY pg_describe_object(classid, objid, objsubid) COLLATE "C";

-- Volatility, parallel safety, strictness: reading functions are stable and restricted, changing ones volatile and unsafe.
SELECT p.proname, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proleakproof, p.procost, p.prorows
	FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'state_cache' ORDER BY p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";

-- Names and order of the arguments are the contract.
SELECT p.oid::regprocedure, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
	FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'state_cache' ORDER BY p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";

-- Without a comment: no function, table, view, trigger, nor column of a table.
SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'state_cache'
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass)
	AND obj_description(d.objid, d.classid::regclass::name) IS NULL;
SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0) FROM pg_trigger t
	WHERE t.tgrelid IN ('state_class'::regclass, 'state_head'::regclass, 'state_snapshot'::regclass, 'state_trace'::regclass, 'state_horizon'::regclass, 'state_start'::regclass, 'state_floor'::regclass, 'state_source'::regclass, 'state_task'::regclass, 'state_log_entry'::regclass) AND NOT tgisinternal
	AND obj_description(t.oid, 'pg_trigger') IS NULL;
SELECT attrelid::regclass, attname FROM pg_attribute
	WHERE attrelid IN ('state_class'::regclass, 'state_head'::regclass, 'state_snapshot'::regclass, 'state_trace'::regclass, 'state_horizon'::regclass, 'state_start'::regclass, 'state_floor'::regclass, 'state_source'::regclass, 'state_task'::regclass, 'state_log_entry'::regclass)
	AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'state_cache';

-- Nothing is granted to PUBLIC but the functions, which check their caller.
SELECT c.oid::regclass, a.grantee::regrole, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
	WHERE c.relname LIKE 'state\_%' AND c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner ORDER BY 1, 2, 3;
SELECT count(*) FROM pg_proc p WHERE p.proname LIKE 'state\_%' AND p.pronamespace = 'public'::regnamespace AND p.prosecdef;

-- The triggers fire for replication apply as well: A is "always".
SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger
	WHERE tgrelid IN ('state_class'::regclass, 'state_head'::regclass, 'state_snapshot'::regclass, 'state_trace'::regclass, 'state_horizon'::regclass, 'state_start'::regclass, 'state_floor'::regclass, 'state_source'::regclass, 'state_task'::regclass, 'state_log_entry'::regclass) AND NOT tgisinternal ORDER BY 1, 2;

-- The settings, and who may set them. state_cache.memory is fixed at server start.
SELECT name, setting, unit, context, vartype, min_val, max_val, enumvals, boot_val FROM pg_settings
	WHERE name LIKE 'state_cache.%' AND name NOT LIKE 'state_cache.test%' AND name <> 'state_cache.memory' ORDER BY name;
SELECT count(*) FROM pg_settings WHERE name LIKE 'state_cache.%' AND coalesce(short_desc, '') = '';

-- EXPLAIN shows a function call and nothing surprising.
EXPLAIN (COSTS OFF, VERBOSE) SELECT state_get('doc'), state_version('doc', 'config');
EXPLAIN (COSTS OFF) SELECT * FROM state_get_many('{a,b}');
EXPLAIN (COSTS OFF) SELECT * FROM state_get_if_newer('a', 1);
-- Servers differ in which of the join conditions they drop as said already.
CREATE FUNCTION pg_temp.plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		RETURN NEXT regexp_replace(line, '\(\(s.class = h.class\) AND \(s.key = h.key\) AND (.*)\)$', '\1');
	END LOOP;
END
$$;
SELECT pg_temp.plan($$SELECT state FROM state_current WHERE class = 'run' AND key = 'a'$$);
