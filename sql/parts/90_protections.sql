-- ---------------------------------------------------------------------------------------------------
-- What pg_dump leaves out: it takes the rows of the tables and their GRANTs, and nothing else that users put onto
-- them. After a restore everybody with a grant would see all that a policy hid. So the statements that make these
-- things are kept in a table that is dumped, with the name of the installation where they are in force; another
-- installation that finds them there and does not have them was restored without them.
-- ---------------------------------------------------------------------------------------------------

-- No primary key: a statement may be longer than an index entry, and a data-only restore may find the same rows
-- there.
CREATE TABLE state_protection (
	statement    text COLLATE "C" NOT NULL,
	step         integer NOT NULL,
	installation text COLLATE "C" NOT NULL
);
ALTER TABLE state_protection REPLICA IDENTITY FULL;
COMMENT ON TABLE state_protection
	IS 'what users have put onto the tables and pg_dump leaves out; see state_protections()';
COMMENT ON COLUMN state_protection.statement IS 'makes it';
COMMENT ON COLUMN state_protection.step IS 'order in which the statements are run';
COMMENT ON COLUMN state_protection.installation
	IS 'where it was last seen in force: system identifier, database, table';

CREATE FUNCTION state_protections(OUT statement text, OUT present boolean) RETURNS SETOF record
	LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home oid;
BEGIN
	SELECT pronamespace INTO STRICT home FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass
		AND d.objid = p.oid AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid
			AND e.extname = 'state_cache'
		WHERE p.proname = 'state_protections' AND d.refclassid = 'pg_extension'::regclass;
	RETURN QUERY EXECUTE format($query$
		WITH here AS (SELECT s.statement, s.step FROM %1$s.state_protections_here() s)
		SELECT a.statement, a.present FROM (
			SELECT h.statement, h.step, true AS present FROM here h
			UNION ALL
			SELECT DISTINCT p.statement, p.step, false FROM %1$s.state_protection p
				WHERE p.installation <> %1$s.state_installation() AND NOT EXISTS (SELECT FROM here h
					WHERE h.statement = p.statement)
			UNION ALL
			-- Own triggers that a restore without triggers has left as ordinary ones.
			SELECT format('ALTER TABLE %%s ENABLE %%s TRIGGER %%I', t.tgrelid::regclass, w.mode, t.tgname), 6, false
				FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid, LATERAL (SELECT CASE
					WHEN t.tgname = 'state_floor_merge' THEN 'REPLICA'
					WHEN t.tgname = 'state_claim_merge' OR t.tgname LIKE 'state\_cache\_%%'
						OR t.tgname LIKE 'state\_class\_%%'
						THEN 'ALWAYS' END) w (mode)
				WHERE c.relnamespace = $1 AND NOT t.tgisinternal AND t.tgparentid = 0 AND w.mode IS NOT NULL
					AND t.tgenabled <> left(w.mode, 1)::"char"
					AND t.tgfoid IN (SELECT p.oid FROM pg_proc p WHERE p.pronamespace = $1
						AND p.proname LIKE 'state\_%%')
			UNION ALL
			-- Own indexes that somebody has dropped: an index is no member of an extension, so PostgreSQL lets it go.
			SELECT i.statement, 4, false FROM (VALUES
				('state_head_expiring',
					'CREATE INDEX state_head_expiring ON %1$s.state_head (expires_at, class, key) '
					'WHERE expires_at IS NOT NULL'),
				('state_head_tombstones',
					'CREATE INDEX state_head_tombstones ON %1$s.state_head (class, key) WHERE deleted'),
				('state_snapshot_label',
					'CREATE INDEX state_snapshot_label ON %1$s.state_snapshot (class, key, label) '
					'WHERE label IS NOT NULL'),
				('state_recovery_log_state',
					'CREATE INDEX state_recovery_log_state ON %1$s.state_recovery_log (class, key, found_at)'),
				('state_context_children',
					'CREATE INDEX state_context_children ON %1$s.state_context (parent_run_id) '
					'WHERE parent_run_id IS NOT NULL'),
				('state_claim_status',
					'CREATE INDEX state_claim_status ON %1$s.state_claim (status, created_at, run_id)'),
				('state_claim_swarm',
					'CREATE INDEX state_claim_swarm ON %1$s.state_claim (swarm_id, status, created_at, run_id) '
					'WHERE swarm_id IS NOT NULL'),
				('state_claim_parent',
					'CREATE INDEX state_claim_parent ON %1$s.state_claim (parent_run_id, created_at, run_id) '
					'WHERE parent_run_id IS NOT NULL'),
				('state_claim_owner',
					'CREATE INDEX state_claim_owner ON %1$s.state_claim (owner, status, created_at, run_id) '
					'WHERE owner IS NOT NULL'),
				('state_claim_owned',
					'CREATE INDEX state_claim_owned ON %1$s.state_claim (created_at, run_id) '
					'WHERE owner IS NOT NULL AND status OPERATOR(pg_catalog.=) ''running'''),
				('state_claim_waiting',
					'CREATE INDEX state_claim_waiting ON %1$s.state_claim (expires_at, run_id) '
					'WHERE status OPERATOR(pg_catalog.=) ''running'''),
				('state_claim_waiting_swarm',
					'CREATE INDEX state_claim_waiting_swarm ON %1$s.state_claim (swarm_id, expires_at, run_id) '
					'WHERE status OPERATOR(pg_catalog.=) ''running'' AND swarm_id IS NOT NULL'),
				('state_claim_waiting_routine',
					'CREATE INDEX state_claim_waiting_routine ON %1$s.state_claim (routine_id, expires_at, run_id) '
					'WHERE status OPERATOR(pg_catalog.=) ''running'' AND routine_id IS NOT NULL'),
				('state_conflict_open',
					'CREATE INDEX state_conflict_open ON %1$s.state_conflict (run_id) '
					'WHERE status OPERATOR(pg_catalog.=) ''open'''),
				('state_conflict_run', 'CREATE INDEX state_conflict_run ON %1$s.state_conflict (run_id)'),
				('state_conflict_child', 'CREATE INDEX state_conflict_child ON %1$s.state_conflict (child_run_id)'),
				('state_outbox_pending',
					'CREATE INDEX state_outbox_pending ON %1$s.state_outbox (target, id) '
					'WHERE acknowledged_at IS NULL'),
				('state_outbox_run', 'CREATE INDEX state_outbox_run ON %1$s.state_outbox (run_id)'),
				('state_log_order',
					'CREATE INDEX state_log_order ON %1$s.state_log_entry (class, key, number) '
					'WHERE ref OPERATOR(pg_catalog.=) '''''),
				('state_task_waiting',
					'CREATE INDEX state_task_waiting ON %1$s.state_task (agent_name, job_id, "position") '
					'WHERE status OPERATOR(pg_catalog.=) ''pending'''),
				('state_task_leased',
					'CREATE INDEX state_task_leased ON %1$s.state_task (lease_until) '
					'WHERE status OPERATOR(pg_catalog.=) ''running'' AND lease_until IS NOT NULL'),
				('state_task_failed',
					'CREATE INDEX state_task_failed ON %1$s.state_task (job_id, task_id) '
					'WHERE status OPERATOR(pg_catalog.=) ''failed'''),
				('state_budget_children',
					'CREATE INDEX state_budget_children ON %1$s.state_budget (parent) WHERE parent IS NOT NULL'),
				('state_budget_hold_open',
					'CREATE INDEX state_budget_hold_open ON %1$s.state_budget_hold (expires_at) '
					'WHERE status OPERATOR(pg_catalog.=) ''held'''),
				('state_budget_hold_costs',
					'CREATE INDEX state_budget_hold_costs ON %1$s.state_budget_hold (budget, agent, resolved_at) '
					'WHERE status OPERATOR(pg_catalog.=) ''settled'''),
				('state_budget_hold_free',
					'CREATE INDEX state_budget_hold_free ON %1$s.state_budget_hold (budget, '
					'(COALESCE(resolved_at, expired_at))) WHERE status OPERATOR(pg_catalog.=) '
					'ANY (ARRAY[''voided'', ''expired''])'),
				('state_budget_cost_recent',
					'CREATE INDEX state_budget_cost_recent ON %1$s.state_budget_cost (budget, agent, recorded_at)')
			) i (name, statement)
				WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = $1 AND c.relname = i.name
					AND c.relkind IN ('i', 'I'))
		) a ORDER BY a.step, a.statement COLLATE "C"$query$, home::regnamespace) USING home;
END
$$;
COMMENT ON FUNCTION state_protections()
	IS 'what pg_dump leaves out of what users have put onto the tables of the extension, as statements that make '
	   'it, in order; present is false where a restore has lost it, and for indexes of the extension that somebody '
	   'has dropped';

CREATE FUNCTION state_installation() RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT concat_ws('/', s.system_identifier, (SELECT oid FROM pg_database
		WHERE datname = current_database()), e.oid)
		FROM pg_control_system() s, pg_extension e WHERE e.extname = 'state_cache'
$$;
COMMENT ON FUNCTION state_installation() IS 'names this installation: server, database, extension';

CREATE FUNCTION state_protections_here(OUT statement text, OUT step integer) RETURNS SETOF record
	LANGUAGE sql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
	WITH tables AS (
		SELECT c.*, c.oid::regclass AS relation, x.extowner FROM pg_extension x
			JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'
				AND d.classid = 'pg_class'::regclass
			JOIN pg_class c ON c.oid = d.objid
		WHERE x.extname = 'state_cache'
	), kept AS (SELECT * FROM tables WHERE relkind IN ('r', 'p'))
	SELECT format('ALTER %s %s OWNER TO %I',
			CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relation,
			pg_get_userbyid(relowner)), 1
		FROM tables WHERE relowner <> extowner
	UNION ALL SELECT format('ALTER TABLE %s SET (%s)', relation, array_to_string(o.options, ', ')), 2
		FROM kept, LATERAL (SELECT array_agg(format('%s = %L', split_part(option, '=', 1), substr(option,
			strpos(option, '=') + 1)) ORDER BY option)
			FROM unnest(reloptions) option
				WHERE (relname, option) NOT IN (('state_head', 'fillfactor=70'), ('state_task', 'fillfactor=80'),
					('state_budget_hold', 'fillfactor=80'), ('state_budget_price', 'fillfactor=50'),
					('state_budget_account', 'fillfactor=50'))) o (options)
		WHERE o.options IS NOT NULL
	UNION ALL SELECT format('ALTER TABLE %s SET (%s)', k.relation, o.options), 2
		FROM kept k JOIN pg_class t ON t.oid = k.reltoastrelid,
			LATERAL (SELECT string_agg(format('toast.%s = %L', split_part(option, '=', 1),
			substr(option, strpos(option, '=') + 1)), ', ' ORDER BY option)
				FROM unnest(t.reloptions) option) o (options)
		WHERE o.options IS NOT NULL
	UNION ALL SELECT format('ALTER TABLE %s ALTER %I SET COMPRESSION %s', k.relation, a.attname, CASE a.attcompression
		WHEN 'l' THEN 'lz4' ELSE 'pglz' END), 2
		FROM kept k JOIN pg_attribute a ON a.attrelid = k.oid WHERE a.attnum > 0 AND NOT a.attisdropped
			AND a.attcompression <> '' AND (k.relname, a.attname, a.attcompression) NOT IN (
				('state_head', 'state', 'l'), ('state_head', 'execution_context', 'l'),
				('state_snapshot', 'state', 'l'), ('state_snapshot', 'execution_context', 'l'),
				('state_damaged', 'state', 'l'), ('state_damaged', 'execution_context', 'l'),
				('state_snapshot', 'payload', 'l'), ('state_damaged', 'payload', 'l'),
				('state_log_entry', 'entry', 'l'), ('state_log_entry', 'payload', 'l'))
	UNION ALL SELECT format('ALTER TABLE %s ALTER %I SET STATISTICS %s', k.relation, a.attname, a.attstattarget), 2
		FROM kept k JOIN pg_attribute a ON a.attrelid = k.oid WHERE a.attnum > 0 AND NOT a.attisdropped
			AND a.attstattarget >= 0
	UNION ALL SELECT format('ALTER TABLE %s ALTER %I SET STORAGE %s', k.relation, a.attname,
			CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN'
				ELSE 'EXTENDED' END), 2
		FROM kept k JOIN pg_attribute a ON a.attrelid = k.oid JOIN pg_type y ON y.oid = a.atttypid
		WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> CASE a.attname WHEN 'delta' THEN 'e'
			ELSE y.typstorage END
	UNION ALL SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.relation, n.conname,
		pg_get_constraintdef(n.oid)), 3
		FROM kept k JOIN pg_constraint n ON n.conrelid = k.oid WHERE n.conparentid = 0
			AND n.contype IN ('c', 'u', 'x', 'f')
			AND n.conname NOT IN ('state_class_class_check', 'state_class_write_mode_check', 'state_class_keep_check',
				'state_class_ttl_check', 'state_class_cache_ttl_check', 'state_class_max_entries_check',
				'state_class_channel_check', 'state_class_keep_for_check', 'state_class_checkpoint_types_check',
				'state_class_agent_phases_check', 'state_class_notify_check', 'state_class_l2_ttl_check',
				'state_class_l2_codec_check', 'state_class_l2_above_check', 'state_source_serve_stale_check',
				'state_recovery_log_severity_check', 'state_conflict_status_check', 'state_claim_run_id_token_key',
				'state_lease_class_key_token_key',
				'state_task_task_id_check', 'state_task_status_check', 'state_task_attempts_check',
				'state_budget_account_counters', 'state_budget_agent_agent_check', 'state_budget_agent_price_check',
				'state_budget_agent_spending_limit_check', 'state_budget_budget_check', 'state_budget_check',
				'state_budget_cost_actual_check', 'state_budget_cost_check', 'state_budget_cost_expected_check',
				'state_budget_cost_id_check', 'state_budget_currency_check', 'state_budget_hold_sound',
				'state_budget_price_price_check', 'state_budget_reached_level_check',
				'state_budget_retention_check', 'state_budget_shards_check', 'state_budget_soft_limit_check',
				'state_budget_total_check')
	UNION ALL SELECT pg_get_indexdef(i.indexrelid), 4
		FROM kept k JOIN pg_index i ON i.indrelid = k.oid JOIN pg_class c ON c.oid = i.indexrelid
		WHERE NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_constraint n WHERE n.conindid = i.indexrelid
			AND n.conrelid = k.oid)
			AND c.relname NOT IN ('state_head_expiring', 'state_head_tombstones', 'state_snapshot_label',
				'state_recovery_log_state',
				'state_context_children', 'state_conflict_open', 'state_conflict_run', 'state_conflict_child',
				'state_outbox_pending', 'state_outbox_run', 'state_claim_status',
				'state_claim_swarm', 'state_claim_parent', 'state_claim_owner', 'state_claim_owned',
				'state_claim_waiting', 'state_claim_waiting_swarm', 'state_claim_waiting_routine',
				'state_log_order', 'state_task_waiting', 'state_task_leased', 'state_task_failed',
				'state_budget_children', 'state_budget_hold_open', 'state_budget_hold_costs',
				'state_budget_hold_free', 'state_budget_cost_recent')
	UNION ALL SELECT pg_get_statisticsobjdef(s.oid), 4 FROM kept k JOIN pg_statistic_ext s ON s.stxrelid = k.oid
	UNION ALL SELECT CASE k.relreplident WHEN 'f' THEN format('ALTER TABLE %s REPLICA IDENTITY FULL', k.relation)
			WHEN 'n' THEN format('ALTER TABLE %s REPLICA IDENTITY NOTHING', k.relation)
			WHEN 'd' THEN format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', k.relation)
			ELSE (SELECT format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', k.relation, c.relname)
				FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = k.oid
					AND i.indisreplident) END, 5
		FROM kept k WHERE k.relreplident <> CASE WHEN k.relname IN ('state_trace', 'state_start', 'state_protection')
			THEN 'f' ELSE 'd' END
	UNION ALL SELECT pg_get_triggerdef(t.oid), 6
		FROM kept k JOIN pg_trigger t ON t.tgrelid = k.oid JOIN pg_proc p ON p.oid = t.tgfoid
		WHERE NOT t.tgisinternal AND t.tgparentid = 0
			AND NOT (p.pronamespace = k.relnamespace AND p.proname IN ('state_cache_watch', 'state_class_watch',
				'state_class_restore', 'state_floor_merge', 'state_claim_merge', 'state_task_watch',
				'state_budget_watch'))
	UNION ALL SELECT format('ALTER TABLE %s %s TRIGGER %I', k.relation,
			CASE t.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA'
				ELSE 'DISABLE' END, t.tgname), 7
		FROM kept k JOIN pg_trigger t ON t.tgrelid = k.oid JOIN pg_proc p ON p.oid = t.tgfoid
		WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'O'
			AND NOT (p.pronamespace = k.relnamespace AND p.proname IN ('state_cache_watch', 'state_class_watch',
				'state_class_restore', 'state_floor_merge', 'state_claim_merge', 'state_task_watch',
				'state_budget_watch'))
	UNION ALL SELECT pg_get_ruledef(r.oid), 7 FROM kept k JOIN pg_rewrite r ON r.ev_class = k.oid
	UNION ALL SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, k.relation,
			CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
			CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
				ELSE 'ALL' END,
			(SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ' ORDER BY r)
				FROM unnest(p.polroles) r),
			' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' WITH CHECK (' || pg_get_expr(p.polwithcheck,
				p.polrelid) || ')'), 8
		FROM kept k JOIN pg_policy p ON p.polrelid = k.oid
	UNION ALL SELECT format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation), 9 FROM kept WHERE relrowsecurity
	UNION ALL SELECT format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation), 9 FROM kept
		WHERE relforcerowsecurity
	UNION ALL SELECT format('ALTER PUBLICATION %I ADD TABLE ONLY %s%s%s', b.pubname, k.relation,
			(SELECT format(' (%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)) FROM pg_attribute a
				WHERE a.attrelid = k.oid AND a.attnum = ANY (r.prattrs) HAVING count(*) > 0),
			' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')'), 10
		FROM kept k JOIN pg_publication_rel r ON r.prrelid = k.oid JOIN pg_publication b ON b.oid = r.prpubid
$$;
COMMENT ON FUNCTION state_protections_here() IS 'what users have put onto the tables, as statements that make it';

CREATE FUNCTION state_protections_note() RETURNS void
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
BEGIN
	IF pg_is_in_recovery() THEN
		RAISE 'cannot execute %() during recovery', 'state_protections_note'
			USING ERRCODE = 'read_only_sql_transaction',
			HINT = 'This server is a standby. Call it on the primary: target_session_attrs=primary.';
	END IF;
	-- Two who note the same would both add it.
	EXECUTE format('LOCK TABLE %s.state_protection IN SHARE ROW EXCLUSIVE MODE', home);
	-- What was in force here and is not any more was taken away on purpose.
	EXECUTE format('DELETE FROM %1$s.state_protection p WHERE p.installation = %1$s.state_installation()
		AND NOT EXISTS (SELECT FROM %1$s.state_protections_here() h WHERE h.statement = p.statement)', home);
	EXECUTE format('UPDATE %1$s.state_protection p SET installation = i.name FROM %1$s.state_installation() i (name)
		WHERE p.installation <> i.name AND EXISTS (SELECT FROM %1$s.state_protections_here() h
			WHERE h.statement = p.statement)', home);
	EXECUTE format('INSERT INTO %1$s.state_protection (statement, step, installation)
		SELECT h.statement, h.step, %1$s.state_installation() FROM %1$s.state_protections_here() h
		WHERE NOT EXISTS (SELECT FROM %1$s.state_protection k WHERE k.statement = h.statement)', home);
END
$$;
COMMENT ON FUNCTION state_protections_note()
	IS 'notes what users have put onto the tables, for the dumps to come; the worker does so too';

SELECT pg_catalog.pg_extension_config_dump('state_protection', '');
