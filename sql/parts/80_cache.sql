-- ---------------------------------------------------------------------------------------------------
-- Cache
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_cache_clear(class text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_cache_clear';
COMMENT ON FUNCTION state_cache_clear(text)
	IS 'evicts the entries of a class, or of the database, from L1 at once; how many';

CREATE FUNCTION state_invalidate(pattern text, class text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_invalidate';
COMMENT ON FUNCTION state_invalidate(text, text)
	IS 'evicts the matching entries from L1 at once and tells the subscribers at commit; how many were evicted';

CREATE FUNCTION state_warm(class text, max_entries integer DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_warm';
COMMENT ON FUNCTION state_warm(text, integer)
	IS 'fills L1 with states of the class, those written last first, as far as there is room; how many were filled';

CREATE FUNCTION state_warm(class text, keys text[]) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_warm_keys';
COMMENT ON FUNCTION state_warm(text, text[])
	IS 'fills L1 with these states or documents of the class; how many were filled';

CREATE FUNCTION state_audit(class text DEFAULT NULL, sample integer DEFAULT 100,
		OUT class text, OUT key text, OUT cached jsonb, OUT computed jsonb) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_audit';
COMMENT ON FUNCTION state_audit(text, integer)
	IS 'compares entries of L1, so many at random, with the tables or their sources; a row for each that differs';

-- One row, written by the worker; facts of this server, so pg_dump leaves them out.
CREATE TABLE state_audit_result (
	one               smallint PRIMARY KEY DEFAULT 1,
	since             timestamptz NOT NULL,
	last_at           timestamptz NOT NULL,
	audited           bigint NOT NULL,
	passed_over       bigint NOT NULL,
	differing         bigint NOT NULL,
	last_class        text COLLATE "C",
	last_key          text COLLATE "C",
	last_differing_at timestamptz,
	last_error        text,
	last_error_at     timestamptz
);
COMMENT ON TABLE state_audit_result
	IS 'what the worker has found in its audits of L1; the view state_audits shows it';
COMMENT ON COLUMN state_audit_result.one IS '1: there is one row';
COMMENT ON COLUMN state_audit_result.since IS 'when the first audit was';
COMMENT ON COLUMN state_audit_result.last_at IS 'when the last audit was';
COMMENT ON COLUMN state_audit_result.audited IS 'entries that were compared';
COMMENT ON COLUMN state_audit_result.passed_over
	IS 'entries that could not be: they go by age, are about to change, or their source calls functions of users';
COMMENT ON COLUMN state_audit_result.differing IS 'entries that were not what the tables or their source give';
COMMENT ON COLUMN state_audit_result.last_class IS 'class of the last one of them';
COMMENT ON COLUMN state_audit_result.last_key IS 'its key';
COMMENT ON COLUMN state_audit_result.last_differing_at IS 'when it was found';
COMMENT ON COLUMN state_audit_result.last_error IS 'what the last comparison that failed has failed with';
COMMENT ON COLUMN state_audit_result.last_error_at IS 'when that was';

CREATE VIEW state_audits AS SELECT since, last_at, audited, passed_over, differing, last_class, last_key,
	last_differing_at, last_error, last_error_at FROM state_audit_result;
COMMENT ON VIEW state_audits
	IS 'what the worker has found in its audits of L1, which it makes if state_cache.audit_rate is set; differing '
	   'must be 0';

CREATE FUNCTION state_class_define(class text, write_mode text DEFAULT NULL, keep integer DEFAULT NULL,
		dedup boolean DEFAULT NULL, ttl interval DEFAULT NULL, cache_ttl interval DEFAULT NULL,
		max_entries integer DEFAULT NULL, channel text DEFAULT NULL, keep_for interval DEFAULT NULL,
		compression boolean DEFAULT NULL, checkpoint_types text[] DEFAULT NULL, agent_phases text[] DEFAULT NULL,
		notify text DEFAULT NULL, source text DEFAULT NULL, serve_stale interval DEFAULT NULL,
		l2_ttl interval DEFAULT NULL, l2_codec text DEFAULT NULL, l2_above integer DEFAULT NULL,
		unique_labels boolean DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_class_define';
COMMENT ON FUNCTION state_class_define(text, text, integer, boolean, interval, interval, integer, text,
		interval, boolean, text[], text[], text, text, interval, interval, text, integer, boolean)
	IS 'creates a class or changes what is named of it; 0 takes a limit away';

-- With its owner's rights: whoever reads states from Redis needs this view, and no table.
CREATE VIEW state_l2_classes AS
	SELECT DISTINCT ON (c.class) c.class, c.l2_ttl AS ttl, c.l2_codec AS codec, c.l2_above AS above, c.channel,
		CASE
			-- By name: where the snapshots were partitioned, another table has that of state_snapshot.
			WHEN EXISTS (SELECT FROM pg_catalog.pg_class r JOIN pg_catalog.pg_class h
					ON h.relnamespace OPERATOR(pg_catalog.=) r.relnamespace
				WHERE h.oid OPERATOR(pg_catalog.=) 'state_head'::pg_catalog.regclass AND r.relrowsecurity
				AND r.relname OPERATOR(pg_catalog.=) ANY (ARRAY['state_head', 'state_snapshot']::pg_catalog.name[]))
				THEN 'row-level security is on'
			WHEN c.notify OPERATOR(pg_catalog.=) 'off' THEN 'its changes are told by no message'
			WHEN EXISTS (SELECT FROM state_source s WHERE s.class OPERATOR(pg_catalog.=) c.class)
				THEN 'its documents are computed'
		END AS refused
	FROM (SELECT k.*, k.changed OR NOT EXISTS (SELECT FROM state_class o
			WHERE o.class OPERATOR(pg_catalog.=) k.class AND o.changed) AS counts FROM state_class k) c
	WHERE c.counts AND c.l2_ttl IS NOT NULL
	ORDER BY c.class;
COMMENT ON VIEW state_l2_classes
	IS 'the classes whose states are in Redis, and how; refused: why a class is not, though it has an l2_ttl';

CREATE FUNCTION state_flush(class text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_flush';
COMMENT ON FUNCTION state_flush(text)
	IS 'writes what the behind classes, or one of them, have not written yet, in this transaction; how many states';

CREATE FUNCTION state_cache_unwritten(OUT class text, OUT key text, OUT version bigint, OUT bytes bigint,
		OUT since timestamptz, OUT parked boolean) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_cache_unwritten';
COMMENT ON FUNCTION state_cache_unwritten() IS 'what the view state_cache_unwritten shows';

CREATE VIEW state_cache_unwritten AS SELECT * FROM state_cache_unwritten();
COMMENT ON VIEW state_cache_unwritten
	IS 'states of behind classes that the tables do not hold yet; parked: the worker could not write them and tries '
	   'again';

CREATE FUNCTION state_hash(state jsonb) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_hash';
COMMENT ON FUNCTION state_hash(jsonb) IS 'xxh3-128 of a document in binary form, as the tables hold it';

CREATE FUNCTION state_cache_version() RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_cache_version';
COMMENT ON FUNCTION state_cache_version()
	IS 'the release of the library that this session runs; that of the tables and functions is extversion in '
	   'pg_extension';

CREATE FUNCTION state_cache_stats(
		OUT class text, OUT l1 text, OUT entries bigint, OUT bytes bigint,
		OUT hits bigint, OUT validated bigint, OUT misses bigint,
		OUT bypass_own bigint, OUT bypass_writers bigint, OUT bypass_snapshot bigint,
		OUT bypass_serializable bigint, OUT bypass_privileges bigint, OUT bypass_off bigint,
		OUT damaged bigint, OUT too_large bigint, OUT fills bigint, OUT fills_refused bigint,
		OUT evictions bigint, OUT expirations bigint,
		OUT flushes bigint, OUT states_written bigint, OUT states_deleted bigint,
		OUT duplicates_skipped bigint, OUT conflicts bigint, OUT notifications bigint,
		OUT left_behind bigint, OUT written_through bigint, OUT behind_flushed bigint, OUT dirty bigint,
		OUT evaluations bigint, OUT waits bigint, OUT misses_changed bigint, OUT misses_evicted bigint,
		OUT l1_read_ms double precision, OUT l3_read_ms double precision, OUT flush_ms double precision,
		OUT evaluation_ms double precision,
		OUT memory_total bigint, OUT memory_used bigint, OUT memory_free bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_cache_stats';
COMMENT ON FUNCTION state_cache_stats() IS 'what the view state_cache_stats shows';

CREATE VIEW state_cache_stats AS SELECT * FROM state_cache_stats();
COMMENT ON VIEW state_cache_stats
	IS 'what the cache did since the server started: a row per class of this database, and one with class NULL for '
	   'the database as a whole';

CREATE FUNCTION state_cache_entries(
		OUT class text, OUT key text, OUT version bigint, OUT bytes bigint, OUT text_bytes bigint,
		OUT loaded_at timestamptz, OUT expires_at timestamptz) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_cache_entries';
COMMENT ON FUNCTION state_cache_entries() IS 'what the view state_cache_entries shows';

CREATE VIEW state_cache_entries AS SELECT * FROM state_cache_entries();
COMMENT ON VIEW state_cache_entries IS 'what L1 holds of this database';

CREATE FUNCTION state_cache_workers(
		OUT database text, OUT pid integer, OUT state text, OUT activity text, OUT started_at timestamptz,
		OUT last_flush timestamptz, OUT backlog bigint, OUT lag interval, OUT untold bigint,
		OUT last_error text, OUT last_error_at timestamptz, OUT failures bigint,
		OUT warm_done bigint, OUT warm_total bigint, OUT audited bigint, OUT differing bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_cache_workers';
COMMENT ON FUNCTION state_cache_workers() IS 'what the view state_cache_workers shows';

CREATE VIEW state_cache_workers AS SELECT * FROM state_cache_workers();
COMMENT ON VIEW state_cache_workers
	IS 'the background workers: a row per database of this server that has used the extension since the server '
	   'started';
