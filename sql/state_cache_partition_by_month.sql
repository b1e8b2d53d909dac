-- Turns state_snapshot into a table that is partitioned by the month of created_at. Run once per database, by a
-- superuser, with psql --single-transaction --set=ON_ERROR_STOP=1 --file. Nothing is copied: what there is becomes
-- the first partition, which ends with this month or that of the newest row. While it runs, nobody reads or writes
-- states.
--
-- It runs as a superuser, and others may have made functions, operators and types of the same names as PostgreSQL's:
-- what comes before the search_path is set is named with its schema, and afterwards only pg_catalog is searched. The
-- extension's own objects are named with its schema, which the functions look up each time, and its functions are
-- called with arguments of the very types that they take: an overload in that schema matches no better.
--
-- It leaves functions: state_partitions() lists the partitions, state_partitions_create() makes those of the coming
-- months, state_partitions_drop() drops those that are old. All three belong to the extension from then on.
--
-- PostgreSQL wants the partition key in every unique key of the whole table, and a version must be unique without
-- created_at. So each partition has the primary key (class, key, version), and the whole has none.

DO $migration$
DECLARE
	home    pg_catalog.name;
	keeper  pg_catalog.regrole;
	was     pg_catalog.regclass;
	first_name   pg_catalog.text;
	month_ends   pg_catalog.timestamptz;
	kept_text pg_catalog.text;
	current_text pg_catalog.text;
	extras  pg_catalog.text;
	statements pg_catalog.text[];
	statement pg_catalog.text;
	-- What the functions, and this block, take from no session: what names, texts and times mean, where tables go.
	settings pg_catalog.text := 'SET search_path = pg_catalog, pg_temp SET datestyle = ''ISO, YMD''
		SET timezone = ''UTC''
		SET transform_null_equals = off SET standard_conforming_strings = on SET default_tablespace = ''''
		SET default_table_access_method = heap';
	setting pg_catalog.text;
BEGIN
	-- Nothing is evaluated before this. Names of everything else come out qualified.
	SET LOCAL search_path = pg_catalog, pg_temp;
	FOREACH setting IN ARRAY string_to_array(settings, 'SET ') LOOP
		IF setting <> '' THEN
			EXECUTE format('SET LOCAL %s', setting);
		END IF;
	END LOOP;
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'this must run at READ COMMITTED: it must see what was written before it locked the table'
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	month_ends := (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
	SELECT n.nspname INTO home
	FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
		WHERE e.extname = 'state_cache';
	IF home IS NULL THEN
		RAISE EXCEPTION 'the extension state_cache is not installed' USING ERRCODE = 'undefined_object';
	END IF;
	was := format('%I.state_snapshot', home);
	-- This lock alone, at once and the strongest: who reads and then writes cannot stand in its way and wait for it.
	EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', was);
	IF (SELECT relkind FROM pg_class WHERE oid = was) <> 'r' THEN
		RAISE EXCEPTION '% is partitioned already', was USING ERRCODE = 'wrong_object_type';
	END IF;

	-- What somebody has added is theirs to take away and to put back.
	SELECT string_agg(what, ', ') INTO extras FROM (
		SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = was AND NOT tgisinternal
			AND tgname NOT IN ('state_cache_changing', 'state_cache_changed', 'state_cache_truncating')
		UNION ALL SELECT 'foreign key ' || conname FROM pg_constraint WHERE contype = 'f'
			AND was IN (conrelid, confrelid)
		UNION ALL SELECT 'constraint ' || conname FROM pg_constraint WHERE conrelid = was
			AND contype NOT IN ('p', 'f', 'n')
		UNION ALL SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = was
		UNION ALL SELECT 'row-level security' FROM pg_class WHERE oid = was AND relrowsecurity
		UNION ALL SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = was
		UNION ALL SELECT 'index ' || indexrelid::regclass FROM pg_index WHERE indrelid = was AND NOT indisprimary
			AND indexrelid IS DISTINCT FROM to_regclass(format('%I.state_snapshot_label', home))
		UNION ALL SELECT 'statistics ' || stxname FROM pg_statistic_ext WHERE stxrelid = was
		UNION ALL SELECT 'publication ' || p.pubname FROM pg_publication_rel r
			JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = was
		UNION ALL SELECT 'privileges on column ' || attname FROM pg_attribute WHERE attrelid = was
			AND attacl IS NOT NULL
		UNION ALL SELECT 'column ' || attname FROM pg_attribute WHERE attrelid = was AND attnum > 0
			AND NOT attisdropped
			AND attname NOT IN ('class', 'key', 'version', 'parent_version', 'hash', 'checkpoint_type',
				'recovery_point', 'agent_phase', 'execution_context', 'created_at', 'writer', 'state', 'delta',
				'label', 'payload')
		UNION ALL SELECT 'inheritance' FROM pg_inherits WHERE was IN (inhrelid, inhparent)
		UNION ALL SELECT DISTINCT 'view ' || r.ev_class::regclass FROM pg_depend d
			JOIN pg_rewrite r ON r.oid = d.objid
			WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = was
			AND r.ev_class NOT IN (was, format('%I.state_current', home)::regclass,
			format('%I.state_kept', home)::regclass)
	) extra (what);
	IF extras IS NOT NULL THEN
		RAISE EXCEPTION '% has what this script would not carry over', was
			USING ERRCODE = 'dependent_objects_still_exist',
			DETAIL = extras, HINT = 'Take it away, and make it anew afterwards.';
	END IF;

	-- Rows may be of a later month: restored ones, or of a server whose clock was ahead.
	EXECUTE format('SELECT greatest($1,
		(date_trunc(''month'', max(created_at) AT TIME ZONE ''UTC'') + interval ''1 month'') AT TIME ZONE ''UTC'')
		FROM %s', was) INTO month_ends USING month_ends;
	SELECT relowner::regrole INTO keeper FROM pg_class WHERE oid = was;
	kept_text := pg_get_viewdef(format('%I.state_kept', home)::regclass);
	current_text := pg_get_viewdef(format('%I.state_current', home)::regclass);
	first_name := 'state_snapshot_before_' || to_char(month_ends AT TIME ZONE 'UTC', 'YYYY_MM');
	-- What makes the new table like the old one, in words that fit both.
	SELECT array_agg(made ORDER BY step) INTO statements FROM (
		SELECT 1, format('ALTER TABLE %I.state_snapshot OWNER TO %s', home, keeper)
		UNION ALL SELECT 2, format('COMMENT ON TABLE %I.state_snapshot IS %L', home, obj_description(was, 'pg_class'))
		UNION ALL SELECT 3, format('GRANT %s ON %I.state_snapshot TO %s%s', a.privilege_type, home,
				CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
				CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
			FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = was AND a.grantee <> c.relowner
		UNION ALL SELECT 4, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = was AND NOT tgisinternal
		UNION ALL SELECT 5, format('ALTER TABLE %I.state_snapshot ENABLE ALWAYS TRIGGER %I', home, tgname)
			FROM pg_trigger WHERE tgrelid = was AND tgenabled = 'A'
		UNION ALL SELECT 6, format('COMMENT ON TRIGGER %I ON %I.state_snapshot IS %L', tgname, home,
			obj_description(oid, 'pg_trigger'))
			FROM pg_trigger WHERE tgrelid = was AND NOT tgisinternal
	) step (step, made);

	EXECUTE format('ALTER EXTENSION state_cache DROP TABLE %s', was);
	EXECUTE format('DROP TRIGGER state_cache_changing ON %s', was);
	EXECUTE format('DROP TRIGGER state_cache_changed ON %s', was);
	EXECUTE format('DROP TRIGGER state_cache_truncating ON %s', was);
	EXECUTE format('ALTER TABLE %s RENAME TO %I', was, first_name);
	EXECUTE format('ALTER INDEX IF EXISTS %I.state_snapshot_label RENAME TO %I', home, first_name || '_label');
	EXECUTE format('CREATE TABLE %I.state_snapshot (LIKE %s INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMMENTS
		INCLUDING COMPRESSION)
		PARTITION BY RANGE (created_at)', home, was);
	EXECUTE format('CREATE INDEX state_snapshot_label ON %I.state_snapshot (class, key, label)
		WHERE label IS NOT NULL', home);
	EXECUTE format('COMMENT ON INDEX %I.state_snapshot_label IS %L', home,
		'the versions that have a label of their own');
	FOREACH statement IN ARRAY statements LOOP
		EXECUTE statement;
	END LOOP;
	-- Whoever may read the whole reads the parts through it.
	FOR statement IN SELECT format('REVOKE ALL ON %s FROM %s CASCADE', was,
			CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
		FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = was AND a.grantee <> c.relowner
	LOOP
		EXECUTE statement;
	END LOOP;
	EXECUTE format('ALTER EXTENSION state_cache ADD TABLE %I.state_snapshot', home);
	-- In place: its privileges, and the views upon it, stay.
	EXECUTE format('CREATE OR REPLACE VIEW %I.state_kept WITH (security_invoker = true) AS %s', home, kept_text);
	EXECUTE format('CREATE OR REPLACE VIEW %I.state_current WITH (security_invoker = true) AS %s', home,
		current_text);

	EXECUTE format($make$
CREATE FUNCTION %1$I.state_partitions(OUT partition regclass, OUT lower timestamptz, OUT upper timestamptz,
	OUT is_default boolean)
	RETURNS SETOF record LANGUAGE sql STABLE %2$s AS $$
	SELECT i.inhrelid::regclass, substring(b.bound FROM $re$FROM \('([^']*)'\)$re$)::timestamptz,
		substring(b.bound FROM $re$TO \('([^']*)'\)$re$)::timestamptz, b.bound = 'DEFAULT'
	FROM pg_extension e JOIN pg_class w ON w.relnamespace = e.extnamespace AND w.relname = 'state_snapshot'
		JOIN pg_inherits i ON i.inhparent = w.oid JOIN pg_class c ON c.oid = i.inhrelid,
		pg_get_expr(c.relpartbound, c.oid) b (bound)
	WHERE e.extname = 'state_cache' ORDER BY 3
$$;
COMMENT ON FUNCTION %1$I.state_partitions()
	IS 'the partitions of state_snapshot; one that begins with the first version has no lower bound';

-- A table like the whole, which nobody sees yet.
CREATE FUNCTION %1$I.state_partition_stage(name text) RETURNS regclass
	LANGUAGE plpgsql %2$s AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
BEGIN
	EXECUTE format('CREATE TABLE %%s.%%I (LIKE %%1$s.state_snapshot INCLUDING DEFAULTS INCLUDING STORAGE
		INCLUDING COMMENTS INCLUDING COMPRESSION)',
		home, name);
	EXECUTE format('ALTER TABLE %%s.%%I OWNER TO %%s', home, name,
		(SELECT relowner::regrole FROM pg_class WHERE oid = format('%%s.state_snapshot', home)::regclass));
	RETURN format('%%s.%%I', home, name)::regclass;
END
$$;
COMMENT ON FUNCTION %1$I.state_partition_stage(text) IS 'begins a partition of state_snapshot';

-- The triggers for statements that name the partition itself; the one for rows comes with the whole.
CREATE FUNCTION %1$I.state_partition_attach(partition regclass, suffix text, bounds text) RETURNS void
	LANGUAGE plpgsql %2$s AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
BEGIN
	IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = partition AND indisprimary) THEN
		EXECUTE format('ALTER TABLE %%s ADD CONSTRAINT %%I PRIMARY KEY (class, key, version)', partition,
			'state_snapshot_pkey_' || suffix);
	END IF;
	EXECUTE format('COMMENT ON TABLE %%s IS %%L', partition,
		'kept versions of states: a partition of state_snapshot');
	EXECUTE format('CREATE TRIGGER state_cache_changing BEFORE INSERT OR UPDATE OR DELETE ON %%s
		FOR EACH STATEMENT EXECUTE FUNCTION %%s.state_cache_watch()', partition, home);
	EXECUTE format('CREATE TRIGGER state_cache_truncating BEFORE TRUNCATE ON %%s
		FOR EACH STATEMENT EXECUTE FUNCTION %%s.state_cache_watch()', partition, home);
	EXECUTE format('ALTER TABLE %%s ENABLE ALWAYS TRIGGER state_cache_changing,
		ENABLE ALWAYS TRIGGER state_cache_truncating', partition);
	EXECUTE format('ALTER TABLE %%s.state_snapshot ATTACH PARTITION %%s %%s', home, partition, bounds);
	EXECUTE format('ALTER EXTENSION state_cache ADD TABLE %%s', partition);
	-- What pg_extension_config_dump() does, which only a script of the extension may call: pg_dump takes the rows.
	UPDATE pg_extension SET extconfig = extconfig || partition::oid, extcondition = extcondition || ''::text
	WHERE extname = 'state_cache';
END
$$;
COMMENT ON FUNCTION %1$I.state_partition_attach(regclass, text, text)
	IS 'makes a table a partition of state_snapshot and a part of the extension';

CREATE FUNCTION %1$I.state_partition_detach(partition regclass) RETURNS void
	LANGUAGE plpgsql %2$s AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
BEGIN
	EXECUTE format('ALTER EXTENSION state_cache DROP TABLE %%s', partition);
	EXECUTE format('ALTER TABLE %%s.state_snapshot DETACH PARTITION %%s', home, partition);
	EXECUTE format('DROP TABLE %%s', partition);
END
$$;
COMMENT ON FUNCTION %1$I.state_partition_detach(regclass) IS 'drops a partition of state_snapshot, whatever it holds';

CREATE FUNCTION %1$I.state_partitions_create(months integer DEFAULT 2) RETURNS integer
	LANGUAGE plpgsql %2$s AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
	columns text := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = format('%%s.state_snapshot', home)::regclass AND attnum > 0 AND NOT attisdropped);
	made   integer := 0;
	month_begins timestamptz;
	month_ends timestamptz;
	suffix text;
	stage  regclass;
	rest   regclass;
	found_one boolean;
BEGIN
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'state_partitions_create() must run at READ COMMITTED: it must see what was written '
			'before it locked the table'
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	EXECUTE format('LOCK TABLE %%s.state_snapshot IN ACCESS EXCLUSIVE MODE', home);
	FOR month IN 0 .. months LOOP
		month_begins := (date_trunc('month', now() AT TIME ZONE 'UTC') + month * interval '1 month')
			AT TIME ZONE 'UTC';
		month_ends := (date_trunc('month', now() AT TIME ZONE 'UTC') + (month + 1) * interval '1 month')
			AT TIME ZONE 'UTC';
		EXECUTE format('SELECT EXISTS (SELECT FROM %%s.state_partitions() p
			WHERE COALESCE(p.lower, ''-infinity'') <= $1 AND p.upper > $1)', home) INTO found_one USING month_begins;
		CONTINUE WHEN found_one;
		suffix := to_char(month_begins AT TIME ZONE 'UTC', 'YYYY_MM');
		EXECUTE format('SELECT %%s.state_partition_stage($1)', home) INTO stage USING 'state_snapshot_' || suffix;
		-- Versions of that month that came before it.
		EXECUTE format('SELECT EXISTS (SELECT FROM %%s.state_snapshot_default d WHERE d.created_at >= $1
			AND d.created_at < $2)', home)
			INTO found_one USING month_begins, month_ends;
		IF found_one THEN
			EXECUTE format('SELECT %%s.state_partition_stage(''state_snapshot_default_new''::text)', home) INTO rest;
			EXECUTE format('INSERT INTO %%1$s (%%3$s) SELECT %%3$s FROM %%2$s.state_snapshot_default d
				WHERE d.created_at >= $1 AND d.created_at < $2', stage, home, columns)
				USING month_begins, month_ends;
			EXECUTE format('INSERT INTO %%1$s (%%3$s) SELECT %%3$s FROM %%2$s.state_snapshot_default d
				WHERE d.created_at < $1 OR d.created_at >= $2', rest, home, columns)
				USING month_begins, month_ends;
			EXECUTE format('SELECT %%s.state_partition_detach($1)', home)
				USING format('%%s.state_snapshot_default', home)::regclass;
			EXECUTE format('ALTER TABLE %%s.state_snapshot_default_new RENAME TO state_snapshot_default', home);
			EXECUTE format('SELECT %%s.state_partition_attach($1, ''default''::text, ''DEFAULT''::text)', home)
				USING rest;
		END IF;
		EXECUTE format('SELECT %%s.state_partition_attach($1, $2, $3)', home)
			USING stage, suffix, format('FOR VALUES FROM (%%L) TO (%%L)', month_begins, month_ends);
		made := made + 1;
	END LOOP;
	RETURN made;
END
$$;
COMMENT ON FUNCTION %1$I.state_partitions_create(integer)
	IS 'makes the partitions of this month and of so many coming ones that are missing; how many';

CREATE FUNCTION %1$I.state_partitions_drop(older_than interval, OUT dropped text, OUT rows_kept bigint,
	OUT rows_dropped bigint)
	RETURNS SETOF record LANGUAGE plpgsql %2$s AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
	columns text := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = format('%%s.state_snapshot', home)::regclass AND attnum > 0 AND NOT attisdropped);
	part   record;
	stage  regclass;
	suffix text;
	all_rows bigint;
BEGIN
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'state_partitions_drop() must run at READ COMMITTED: it must see what was written '
			'before it locked the table'
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	IF older_than IS NULL OR older_than < interval '0' OR older_than > interval '5000 years' THEN
		RAISE EXCEPTION 'older_than must not be negative, nor longer than 5000 years: %%', older_than
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR part IN EXECUTE format('SELECT p.*, c.relname FROM %%s.state_partitions() p
		JOIN pg_class c ON c.oid = p.partition
		WHERE NOT p.is_default AND p.upper <= now() - $1', home) USING older_than
	LOOP
		EXECUTE format('LOCK TABLE %%s.state_snapshot IN ACCESS EXCLUSIVE MODE', home);
		EXECUTE format('SELECT count(*) FROM %%s', part.partition) INTO all_rows;
		suffix := substring(part.relname FROM '^state_snapshot_(.*)$');
		EXECUTE format('SELECT %%s.state_partition_stage(''state_snapshot_stage''::text)', home) INTO stage;
		EXECUTE format($move$
			WITH needed AS (
				SELECT p.class, p.key, p.version FROM %%1$s p
					LEFT JOIN (SELECT DISTINCT ON (class) class, keep, keep_for
					FROM %%4$s.state_class ORDER BY class, changed DESC) c USING (class)
				WHERE p.recovery_point
				-- It is current.
				OR EXISTS (SELECT FROM %%4$s.state_head h WHERE h.class = p.class AND h.key = p.key
					AND h.version = p.version AND NOT h.deleted)
				-- The next merge of a child compares with it.
				OR p.class = 'run' AND EXISTS (SELECT FROM %%4$s.state_context x WHERE x.run_id = p.key
					AND x.base_version = p.version
					AND x.parent_run_id IS NOT NULL)
				-- Its class keeps it: it is beyond none of the limits.
				OR c.class IS NOT NULL AND p.created_at >= COALESCE(now() - c.keep_for, '-infinity')
					AND (c.keep IS NULL OR
					(SELECT count(*) FROM (SELECT FROM %%4$s.state_kept n WHERE n.class = p.class
						AND n.key = p.key
						AND n.version > p.version LIMIT c.keep) newer) < c.keep)
				-- The next version is stored elsewhere, as the difference from it.
				OR (SELECT n.tableoid <> %%2$s AND (n.state IS NULL AND substring(n.delta, 1, 1) = '\x52'
						OR substring(n.payload, 1, 1) IS NOT DISTINCT FROM '\x52')
					FROM %%4$s.state_snapshot n WHERE n.class = p.class AND n.key = p.key AND n.version > p.version
					ORDER BY n.version LIMIT 1)
			), chain AS (
				SELECT class, key, version, COALESCE((SELECT max(k.version) FROM %%4$s.state_snapshot k
					WHERE k.class = needed.class AND k.key = needed.key AND k.version <= needed.version
					AND (k.state IS NOT NULL OR substring(k.delta, 1, 1) <> '\x52')
					AND substring(k.payload, 1, 1) IS DISTINCT FROM '\x52'), 0) AS keyframe
				FROM needed
			)
			INSERT INTO %%3$s (%%5$s) SELECT %%5$s FROM %%1$s p
			WHERE EXISTS (SELECT FROM chain c WHERE c.class = p.class AND c.key = p.key
				AND p.version BETWEEN c.keyframe AND c.version)
			$move$, part.partition, part.partition::oid, stage, home, columns);
		GET DIAGNOSTICS rows_kept = ROW_COUNT;
		EXECUTE format('SELECT %%s.state_partition_detach($1)', home) USING part.partition;
		dropped := part.relname;
		rows_dropped := all_rows - rows_kept;
		IF rows_kept = 0 AND part.lower IS NOT NULL THEN
			EXECUTE format('DROP TABLE %%s', stage);
		ELSE
			EXECUTE format('ALTER TABLE %%s RENAME TO %%I', stage, part.relname);
			EXECUTE format('SELECT %%s.state_partition_attach($1, $2, $3)', home) USING stage, suffix,
				format('FOR VALUES FROM (%%s) TO (%%L)', COALESCE(quote_literal(part.lower), 'MINVALUE'), part.upper);
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION %1$I.state_partitions_drop(interval)
	IS 'drops the partitions that hold older versions only; the versions in them that are still needed stay, in a '
	   'new table in their place';
$make$, home, settings);
	FOREACH statement IN ARRAY ARRAY['state_partitions()', 'state_partition_stage(text)',
		'state_partition_attach(regclass, text, text)',
		'state_partition_detach(regclass)', 'state_partitions_create(integer)', 'state_partitions_drop(interval)']
	LOOP
		EXECUTE format('REVOKE EXECUTE ON FUNCTION %I.%s FROM PUBLIC', home, statement);
		EXECUTE format('ALTER EXTENSION state_cache ADD FUNCTION %I.%s', home, statement);
	END LOOP;

	EXECUTE format('SELECT %I.state_partition_attach(%L::regclass, %L::text, %L::text)', home, was, 'before',
		format('FOR VALUES FROM (MINVALUE) TO (%L)', month_ends));
	EXECUTE format('SELECT %1$I.state_partition_attach(%1$I.state_partition_stage(%2$L::text),
		%3$L::text, %3$L::text)',
		home, 'state_snapshot_default', 'default');
	EXECUTE format('SELECT %I.state_partitions_create(2)', home);
END
$migration$;
