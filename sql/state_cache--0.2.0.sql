\echo Use "CREATE EXTENSION state_cache" to load this file. \quit

-- Put together by scripts/build from the files in sql/parts, in the order of their names: change those.
--
-- The authority (L3), the triggers that watch it, and the SQL surface. Everything is reached by
-- qualified names: the schema is chosen at CREATE EXTENSION, and nothing trusts search_path.
--
-- A superuser runs this script, and others may have made functions and operators in the schema that they chose. There
-- one wins over PostgreSQL's own that matches an argument better. So each function, operator and cast of PostgreSQL's
-- that an expression uses is named with pg_catalog, also behind BETWEEN and IN, which have no such form; and our own
-- functions are called with the very types that they take. A type or collation in a declaration matches by its name
-- alone, and the server has pg_catalog searched first for it.

-- ---------------------------------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE state_class (
	class       text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(class) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(class) OPERATOR(pg_catalog.<=) 63),
	write_mode  text NOT NULL DEFAULT 'through'
		CHECK (write_mode OPERATOR(pg_catalog.=) ANY (ARRAY['through', 'behind'])),
	keep        integer DEFAULT 1 CHECK (keep OPERATOR(pg_catalog.>=) 1),
	dedup       boolean NOT NULL DEFAULT true,
	ttl         interval CHECK (ttl OPERATOR(pg_catalog.>) '0'::pg_catalog.interval
		AND ttl OPERATOR(pg_catalog.<=) '5000 years'::pg_catalog.interval),
	cache_ttl   interval CHECK (cache_ttl OPERATOR(pg_catalog.>) '0'::pg_catalog.interval
		AND cache_ttl OPERATOR(pg_catalog.<=) '5000 years'::pg_catalog.interval),
	max_entries integer CHECK (max_entries OPERATOR(pg_catalog.>=) 1),
	channel     text NOT NULL DEFAULT 'state_updated'
		CHECK (pg_catalog.octet_length(channel) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(channel) OPERATOR(pg_catalog.<=) 63),
	keep_for    interval CHECK (keep_for OPERATOR(pg_catalog.>) '0'::pg_catalog.interval
		AND keep_for OPERATOR(pg_catalog.<=) '5000 years'::pg_catalog.interval),
	compression boolean NOT NULL DEFAULT true,
	checkpoint_types text[] CHECK (pg_catalog.array_position(checkpoint_types, NULL) IS NULL),
	agent_phases text[] CHECK (pg_catalog.array_position(agent_phases, NULL) IS NULL),
	notify      text NOT NULL DEFAULT 'default'
		CHECK (notify OPERATOR(pg_catalog.=) ANY (ARRAY['default', 'off'])),
	changed     boolean NOT NULL DEFAULT false,
	l2_ttl      interval CHECK (l2_ttl OPERATOR(pg_catalog.>=) '1 second'::pg_catalog.interval
		AND l2_ttl OPERATOR(pg_catalog.<=) '100 years'::pg_catalog.interval),
	l2_codec    text NOT NULL DEFAULT 'zstd'
		CHECK (l2_codec OPERATOR(pg_catalog.=) ANY (ARRAY['zstd', 'gzip', 'plain'])),
	l2_above    integer NOT NULL DEFAULT 1024 CHECK (l2_above OPERATOR(pg_catalog.>=) 0),
	unique_labels boolean NOT NULL DEFAULT false,
	PRIMARY KEY (class, changed)
);
COMMENT ON TABLE state_class IS 'kinds of state, each with its own limits and rules';
COMMENT ON COLUMN state_class.class IS 'name of the class, 1 to 63 bytes';
COMMENT ON COLUMN state_class.write_mode IS 'through: a commit writes the tables; behind: the worker does, later';
COMMENT ON COLUMN state_class.keep
	IS 'how many snapshots of a state are kept, the current one included; NULL keeps all';
COMMENT ON COLUMN state_class.dedup IS 'whether a change that leaves the document as it is stored is skipped';
COMMENT ON COLUMN state_class.ttl IS 'a state not written for so long reads as absent; NULL: never';
COMMENT ON COLUMN state_class.cache_ttl
	IS 'how long an entry may serve reads from L1, counted from its write or fill; NULL: no limit';
COMMENT ON COLUMN state_class.max_entries
	IS 'how many states of the class L1 holds at most; NULL: no limit of its own';
COMMENT ON COLUMN state_class.channel IS 'channel that hears of changes in this class';
COMMENT ON COLUMN state_class.keep_for
	IS 'how long a snapshot is kept that is neither current nor a recovery point; NULL: no limit';
COMMENT ON COLUMN state_class.compression IS 'whether snapshots may be stored as deltas and compressed keyframes';
COMMENT ON COLUMN state_class.checkpoint_types IS 'types that state_save() takes beside auto; NULL: the usual ones';
COMMENT ON COLUMN state_class.agent_phases IS 'phases that state_save() takes; NULL: the usual ones';
COMMENT ON COLUMN state_class.notify
	IS 'default: subscribers hear of changes as the setting state_cache.notify says; off: they do not';
COMMENT ON COLUMN state_class.changed
	IS 'false: the row is one of the four that come with the extension, or of a class of yours. true: somebody has '
	   'changed one of the four; where both rows are there, this one counts';
COMMENT ON COLUMN state_class.l2_ttl IS 'how long Redis holds a state of the class; NULL: the class is not in L2';
COMMENT ON COLUMN state_class.l2_codec IS 'how the documents of the class are packed in L2: zstd, gzip or plain';
COMMENT ON COLUMN state_class.l2_above IS 'documents of more bytes than this are packed in L2';
COMMENT ON COLUMN state_class.unique_labels IS 'whether a state may have a label once only among its kept versions';

INSERT INTO state_class (class, channel, keep, keep_for) VALUES
	('run', 'state_updated', NULL, '30 days'),
	('swarm', 'state_updated', 1, NULL),
	('config', 'config_changed', 1, NULL),
	('job', 'state_updated', 1, '30 days');

CREATE TABLE state_head (
	class      text COLLATE "C" NOT NULL,
	key        text COLLATE "C" NOT NULL,
	version    bigint NOT NULL,
	hash       bytea,
	size       integer NOT NULL,
	deleted    boolean NOT NULL DEFAULT false,
	expires_at timestamptz,
	ttl        interval,
	-- Before updated_at: a statement that sets both takes the time of this one first.
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	-- Of a version that is held in this row, and in no row of state_snapshot.
	parent_version    bigint,
	checkpoint_type   text,
	agent_phase       text,
	execution_context jsonb,
	writer            xid8,
	-- Last, behind what changes with every version: WAL then holds only where two documents differ.
	state             jsonb,
	PRIMARY KEY (class, key)
) WITH (fillfactor = 70);
COMMENT ON TABLE state_head
	IS 'which version of each state is current, with its document in classes that keep one version; a deleted state '
	   'stays as a tombstone';
COMMENT ON COLUMN state_head.class IS 'class of the state';
COMMENT ON COLUMN state_head.key IS 'name of the state within its class, 1 to 1000 bytes';
COMMENT ON COLUMN state_head.version
	IS 'current version: 1, 2, 3 ...; a delete is a version too, and none is ever used again';
COMMENT ON COLUMN state_head.hash IS 'state_hash() of the current document; NULL when deleted';
COMMENT ON COLUMN state_head.size IS 'bytes of the current document in binary form, 0 when deleted';
COMMENT ON COLUMN state_head.deleted IS 'true for a tombstone';
COMMENT ON COLUMN state_head.expires_at IS 'from when on the state reads as absent; NULL: never';
COMMENT ON COLUMN state_head.ttl
	IS 'time to live that the state was given, by which state_touch() renews it; NULL: that of its class';
COMMENT ON COLUMN state_head.created_at
	IS 'when the first version was written since there was no state; of a tombstone that of the state before';
COMMENT ON COLUMN state_head.updated_at IS 'when the current version was written';
COMMENT ON COLUMN state_head.parent_version
	IS 'where state is set: version it was made from; NULL where there was no state before';
COMMENT ON COLUMN state_head.checkpoint_type IS 'where state is set: why the version was saved; NULL: auto';
COMMENT ON COLUMN state_head.agent_phase IS 'where state is set: phase of the agent when it was saved';
COMMENT ON COLUMN state_head.execution_context
	IS 'where state is set: whatever the caller wants to keep beside the document';
COMMENT ON COLUMN state_head.writer
	IS 'where state is set: transaction that wrote the version, on the server where it was written';
COMMENT ON COLUMN state_head.state
	IS 'the current document, in classes that keep one version; NULL where a row of state_snapshot holds it';

-- Which states expire next; a state that never expires is not in it, and its updates stay HOT.
CREATE INDEX state_head_expiring ON state_head (expires_at, class, key) WHERE expires_at IS NOT NULL;
COMMENT ON INDEX state_head_expiring IS 'the states that expire, soonest first';
-- Without updated_at, which changes with every write.
CREATE INDEX state_head_tombstones ON state_head (class, key) WHERE deleted;
COMMENT ON INDEX state_head_tombstones IS 'the tombstones';
CREATE TABLE state_floor (
	class   text COLLATE "C" NOT NULL,
	bucket  smallint NOT NULL,
	version bigint NOT NULL,
	PRIMARY KEY (class, bucket)
);
COMMENT ON TABLE state_floor
	IS 'versions that states had whose head rows are gone: a new state of the same bucket begins above';
COMMENT ON COLUMN state_floor.class IS 'class of the states';
COMMENT ON COLUMN state_floor.bucket IS 'xxh3-128 of the key, modulo 4096';
COMMENT ON COLUMN state_floor.version IS 'the highest version that any of them had';

-- A replica of all tables has floors of its own.
CREATE FUNCTION state_floor_merge() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_one boolean;
BEGIN
	EXECUTE format('UPDATE %I.%I SET version = greatest(version, $3) WHERE class = $1 AND bucket = $2 RETURNING true',
		TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO found_one USING NEW.class, NEW.bucket, NEW.version;
	IF found_one THEN
		RETURN NULL;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION state_floor_merge() IS 'merges a replicated floor with the one that is there';
CREATE TRIGGER state_floor_merge BEFORE INSERT ON state_floor
	FOR EACH ROW EXECUTE FUNCTION state_floor_merge();
COMMENT ON TRIGGER state_floor_merge ON state_floor IS 'merges a replicated floor with the one that is there';
ALTER TABLE state_floor ENABLE REPLICA TRIGGER state_floor_merge;

CREATE TABLE state_snapshot (
	class             text COLLATE "C" NOT NULL,
	key               text COLLATE "C" NOT NULL,
	version           bigint NOT NULL,
	parent_version    bigint,
	hash              bytea NOT NULL,
	checkpoint_type   text NOT NULL DEFAULT 'auto',
	recovery_point    boolean NOT NULL DEFAULT false,
	agent_phase       text,
	execution_context jsonb,
	created_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	writer            xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	-- Last, behind what changes with every version: WAL then holds only where two documents differ.
	state             jsonb,
	delta             bytea,
	label             text COLLATE "C",
	payload           bytea,
	PRIMARY KEY (class, key, version)
);
CREATE INDEX state_snapshot_label ON state_snapshot (class, key, label) WHERE label IS NOT NULL;
COMMENT ON INDEX state_snapshot_label IS 'the versions that have a label of their own';
-- Compressed already.
ALTER TABLE state_snapshot ALTER delta SET STORAGE EXTERNAL;
-- The server's own compression, pglz, takes a sixth of the time of a changed document. A server that was built
-- without lz4 refuses this, and keeps pglz.
DO $$
BEGIN
	ALTER TABLE state_snapshot ALTER state SET COMPRESSION lz4, ALTER execution_context SET COMPRESSION lz4,
		ALTER payload SET COMPRESSION lz4;
	ALTER TABLE state_head ALTER state SET COMPRESSION lz4, ALTER execution_context SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
	NULL;
END
$$;
COMMENT ON TABLE state_snapshot
	IS 'kept versions of states, each whole (keyframe) or as a delta; but for those that state_head holds itself';
COMMENT ON COLUMN state_snapshot.class IS 'class of the state';
COMMENT ON COLUMN state_snapshot.key IS 'name of the state within its class';
COMMENT ON COLUMN state_snapshot.version IS 'version this snapshot holds';
COMMENT ON COLUMN state_snapshot.parent_version IS 'version it was made from; NULL where there was no state before';
COMMENT ON COLUMN state_snapshot.state IS 'the whole document; NULL where delta holds it';
COMMENT ON COLUMN state_snapshot.delta
	IS 'the document in packed form: compressed, or as the difference from the snapshot before; state_at() reads it';
COMMENT ON COLUMN state_snapshot.hash IS 'state_hash() of the document';
COMMENT ON COLUMN state_snapshot.checkpoint_type IS 'why the snapshot was taken';
COMMENT ON COLUMN state_snapshot.recovery_point IS 'whether recovery may go back to it';
COMMENT ON COLUMN state_snapshot.agent_phase IS 'phase of the agent when it was taken';
COMMENT ON COLUMN state_snapshot.execution_context IS 'whatever the caller wants to keep beside the document';
COMMENT ON COLUMN state_snapshot.created_at IS 'when it was written';
COMMENT ON COLUMN state_snapshot.label IS 'name of the version within its state, as state_save() was given it';
COMMENT ON COLUMN state_snapshot.payload
	IS 'bytes beside the document, in packed form with a hash of their own; state_list() reads them';
COMMENT ON COLUMN state_snapshot.writer IS 'transaction that wrote it, on the server where it was written';

CREATE FUNCTION state_at(key text, version bigint, class text DEFAULT 'run') RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_at';
COMMENT ON FUNCTION state_at(text, bigint, text)
	IS 'the state as a kept version holds it; NULL if that version is not kept';

CREATE VIEW state_kept WITH (security_invoker = true) AS
	SELECT class, key, version, parent_version, hash, checkpoint_type, recovery_point, agent_phase, execution_context,
		created_at, writer, state, delta, false AS in_head, label
	FROM state_snapshot
	UNION ALL
	SELECT class, key, version, parent_version, hash, COALESCE(checkpoint_type, 'auto'), false, agent_phase,
		execution_context, updated_at, writer, state, NULL, true, NULL
	FROM state_head WHERE state IS NOT NULL AND NOT deleted;
COMMENT ON VIEW state_kept
	IS 'the kept versions, those in rows of state_snapshot and those in head rows alike, for plain SQL';

-- A head row that holds its document looks for no snapshot: NULL finds none without a search.
CREATE VIEW state_current WITH (security_invoker = true) AS
	SELECT h.class, h.key, h.version, COALESCE(h.state, s.state, state_at(h.key, h.version, h.class)) AS state,
		h.updated_at, h.created_at
	FROM state_head h
	LEFT JOIN state_snapshot s ON s.class OPERATOR(pg_catalog.=) h.class AND s.key OPERATOR(pg_catalog.=) h.key
		AND s.version OPERATOR(pg_catalog.=) CASE WHEN h.state IS NULL THEN h.version END
	WHERE NOT h.deleted AND (h.state IS NOT NULL OR s.version IS NOT NULL)
		AND (h.expires_at IS NULL OR h.expires_at OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp());
COMMENT ON VIEW state_current IS 'the current states, for plain SQL';

-- The rows of run, swarm, config and job come with CREATE EXTENSION, so a dump holds them only if somebody has
-- changed them, and then as rows of another key: they do not meet those that CREATE EXTENSION has made, whether
-- triggers fire while the dump is restored or not. Reading prefers the changed row; where triggers fire, the other
-- one goes.
CREATE FUNCTION state_class_restore() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	has_changed boolean;
BEGIN
	IF TG_OP = 'UPDATE' AND NEW.class = OLD.class AND (NEW.changed OR NEW IS NOT DISTINCT FROM OLD) THEN
		RETURN NEW;
	END IF;
	EXECUTE format('SELECT bool_or(changed) FROM %I.%I WHERE class = $1', TG_TABLE_SCHEMA, TG_TABLE_NAME)
		INTO has_changed USING NEW.class;
	IF TG_OP = 'INSERT' AND NEW.changed THEN
		-- A dump's.
		EXECUTE format('DELETE FROM %I.%I WHERE class = $1', TG_TABLE_SCHEMA, TG_TABLE_NAME) USING NEW.class;
	ELSIF TG_OP = 'INSERT' THEN
		-- It meets the row that is there, if there is one.
		NEW.changed := has_changed IS DISTINCT FROM false;
	ELSIF has_changed AND NEW.class = OLD.class THEN
		-- The changed row, which is updated too, counts.
		EXECUTE format('DELETE FROM %I.%I WHERE class = $1 AND NOT changed', TG_TABLE_SCHEMA, TG_TABLE_NAME)
			USING NEW.class;
		RETURN NULL;
	ELSE
		NEW.changed := true;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION state_class_restore()
	IS 'notes which of the classes that come with the extension were changed, and lets a restored row replace the '
	   'one that CREATE EXTENSION made';
CREATE TRIGGER state_class_restore BEFORE INSERT OR UPDATE ON state_class FOR EACH ROW
	WHEN (NEW.class OPERATOR(pg_catalog.=) ANY (ARRAY['run', 'swarm', 'config', 'job']))
	EXECUTE FUNCTION state_class_restore();
COMMENT ON TRIGGER state_class_restore ON state_class
	IS 'notes which of the classes that come with the extension were changed';
ALTER TABLE state_class ENABLE ALWAYS TRIGGER state_class_restore;

SELECT pg_catalog.pg_extension_config_dump('state_class',
	'WHERE changed OR class NOT IN (''run'', ''swarm'', ''config'', ''job'')');
SELECT pg_catalog.pg_extension_config_dump('state_head', '');
SELECT pg_catalog.pg_extension_config_dump('state_snapshot', '');
SELECT pg_catalog.pg_extension_config_dump('state_floor', '');

-- ---------------------------------------------------------------------------------------------------
-- What watches the tables
-- ---------------------------------------------------------------------------------------------------
-- ENABLE ALWAYS, so that they fire for replication apply too. The WHEN clause keeps the extension's own
-- flush from queueing a single trigger event. The row triggers also check what CHECK constraints would:
-- the flush keeps these rules by construction, and constraints would cost it a seventh of its time.

CREATE FUNCTION state_cache_by_hand() RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_cache_by_hand';
COMMENT ON FUNCTION state_cache_by_hand() IS 'false while the extension itself writes its tables';

CREATE FUNCTION state_cache_watch() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_cache_watch';
COMMENT ON FUNCTION state_cache_watch()
	IS 'checks changes made to state_head and state_snapshot by hand, and tells the cache about them';

CREATE FUNCTION state_class_watch() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_class_watch';
COMMENT ON FUNCTION state_class_watch() IS 'tells every session that a class was redefined';

CREATE TRIGGER state_cache_changing BEFORE INSERT OR UPDATE OR DELETE ON state_head
	FOR EACH STATEMENT EXECUTE FUNCTION state_cache_watch();
CREATE TRIGGER state_cache_changed AFTER INSERT OR UPDATE OR DELETE ON state_head
	FOR EACH ROW WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_cache_watch();
CREATE TRIGGER state_cache_truncating BEFORE TRUNCATE ON state_head
	FOR EACH STATEMENT EXECUTE FUNCTION state_cache_watch();
CREATE TRIGGER state_cache_changing BEFORE INSERT OR UPDATE OR DELETE ON state_snapshot
	FOR EACH STATEMENT EXECUTE FUNCTION state_cache_watch();
CREATE TRIGGER state_cache_changed AFTER INSERT OR UPDATE OR DELETE ON state_snapshot
	FOR EACH ROW WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_cache_watch();
CREATE TRIGGER state_cache_truncating BEFORE TRUNCATE ON state_snapshot
	FOR EACH STATEMENT EXECUTE FUNCTION state_cache_watch();
CREATE TRIGGER state_class_changing BEFORE INSERT OR UPDATE OR DELETE ON state_class
	FOR EACH ROW EXECUTE FUNCTION state_class_watch();
CREATE TRIGGER state_class_truncating BEFORE TRUNCATE ON state_class
	FOR EACH STATEMENT EXECUTE FUNCTION state_class_watch();
CREATE TRIGGER state_class_changed AFTER INSERT OR UPDATE OR DELETE ON state_class
	FOR EACH ROW EXECUTE FUNCTION state_class_watch();
CREATE TRIGGER state_class_truncated AFTER TRUNCATE ON state_class
	FOR EACH STATEMENT EXECUTE FUNCTION state_class_watch();
COMMENT ON TRIGGER state_cache_changing ON state_head IS 'from here on the transaction reads the tables, not L1';
COMMENT ON TRIGGER state_cache_changed ON state_head
	IS 'the changed state leaves L1 at commit, and its channel hears of it';
COMMENT ON TRIGGER state_cache_truncating ON state_head IS 'all states leave L1 at commit';
COMMENT ON TRIGGER state_cache_changing ON state_snapshot IS 'from here on the transaction reads the tables, not L1';
COMMENT ON TRIGGER state_cache_changed ON state_snapshot
	IS 'the changed state leaves L1 at commit, and its channel hears of it';
COMMENT ON TRIGGER state_cache_truncating ON state_snapshot IS 'all states leave L1 at commit';
COMMENT ON TRIGGER state_class_changing ON state_class
	IS 'before a behind class changes its mode, what it has not written is written';
COMMENT ON TRIGGER state_class_truncating ON state_class
	IS 'before the classes go, what the behind ones have not written is written';
COMMENT ON TRIGGER state_class_changed ON state_class IS 'every session reads the class anew';
COMMENT ON TRIGGER state_class_truncated ON state_class IS 'every session reads the classes anew';
ALTER TABLE state_head ENABLE ALWAYS TRIGGER state_cache_changing;
ALTER TABLE state_head ENABLE ALWAYS TRIGGER state_cache_changed;
ALTER TABLE state_head ENABLE ALWAYS TRIGGER state_cache_truncating;
ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changing;
ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changed;
ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_truncating;
ALTER TABLE state_class ENABLE ALWAYS TRIGGER state_class_changing;
ALTER TABLE state_class ENABLE ALWAYS TRIGGER state_class_truncating;
ALTER TABLE state_class ENABLE ALWAYS TRIGGER state_class_changed;
ALTER TABLE state_class ENABLE ALWAYS TRIGGER state_class_truncated;

-- ---------------------------------------------------------------------------------------------------
-- Read. STABLE: what a statement reads is fixed by its snapshot. PARALLEL RESTRICTED: what the
-- transaction has staged lives in the leader.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_get(key text, class text DEFAULT 'run', min_version bigint DEFAULT NULL) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get';
COMMENT ON FUNCTION state_get(text, text, bigint)
	IS 'the state, NULL if absent; with min_version once this server shows that version or a later one';

CREATE FUNCTION state_get_text(key text, class text DEFAULT 'run', min_version bigint DEFAULT NULL) RETURNS text
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_text';
COMMENT ON FUNCTION state_get_text(text, text, bigint)
	IS 'the state as text, made for the wire; NULL if absent; with min_version as state_get';

CREATE FUNCTION state_get_path(key text, path text[], class text DEFAULT 'run',
		min_version bigint DEFAULT NULL) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_path';
COMMENT ON FUNCTION state_get_path(text, text[], text, bigint)
	IS 'what the state holds at a path, as the operator #> finds it; NULL if nothing; with min_version as state_get';

CREATE FUNCTION state_get_section(key text, section text, class text DEFAULT 'run') RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_section';
COMMENT ON FUNCTION state_get_section(text, text, text)
	IS 'a top-level object of the state; an error if it is missing or no object';

CREATE FUNCTION state_get_many(keys text[], class text DEFAULT 'run', min_version bigint DEFAULT NULL,
		OUT key text, OUT version bigint, OUT state jsonb) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_get_many';
COMMENT ON FUNCTION state_get_many(text[], text, bigint)
	IS 'several states at once, in the order asked for; absent ones have no row; min_version as in state_get';

CREATE FUNCTION state_get_if_newer(key text, version bigint, class text DEFAULT 'run',
		OUT version bigint, OUT state jsonb) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'state_get_if_newer';
COMMENT ON FUNCTION state_get_if_newer(text, bigint, text)
	IS 'the state if its version is above the known one, else no row';

CREATE FUNCTION state_version(key text, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_version';
COMMENT ON FUNCTION state_version(text, text) IS 'version of the state, NULL if absent';

CREATE FUNCTION state_exists(key text, class text DEFAULT 'run') RETURNS boolean
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_exists';
COMMENT ON FUNCTION state_exists(text, text) IS 'whether there is such a state';

-- VOLATILE and UNSAFE: they look under new snapshots, in time.
CREATE FUNCTION state_wait(key text, version bigint, timeout interval DEFAULT '5 s', class text DEFAULT 'run')
	RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_wait';
COMMENT ON FUNCTION state_wait(text, bigint, interval, text)
	IS 'waits until this server shows the version of the state or a later one, and gives the version that it shows';

CREATE FUNCTION state_wait_for("cursor" text, timeout interval DEFAULT '5 s') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_wait_for';
COMMENT ON FUNCTION state_wait_for(text, interval)
	IS 'waits until this server shows all that was committed before the cursor was taken by state_cursor()';

-- ---------------------------------------------------------------------------------------------------
-- Change: staged until the flush
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_set(key text, state jsonb, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_set';
COMMENT ON FUNCTION state_set(text, jsonb, bigint, interval, text)
	IS 'replaces the whole state; expected_version 0 means absent';

CREATE FUNCTION state_set_text(key text, state text, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, on_invalid text DEFAULT 'error', class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_set_text';
COMMENT ON FUNCTION state_set_text(text, text, bigint, interval, text, text)
	IS 'as state_set(), of JSON as text; on_invalid => replace puts U+FFFD in place of escaped NULs and lone '
	   'surrogates';

CREATE FUNCTION state_update(key text, updates jsonb, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_update';
COMMENT ON FUNCTION state_update(text, jsonb, text) IS 'top-level shallow merge; an absent state counts as {}';

CREATE FUNCTION state_update_section(key text, section text, updates jsonb, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_update_section';
COMMENT ON FUNCTION state_update_section(text, text, jsonb, text)
	IS 'shallow merge inside one section, which must exist';

CREATE FUNCTION state_merge(key text, patch jsonb, class text DEFAULT 'run') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_merge';
COMMENT ON FUNCTION state_merge(text, jsonb, text) IS 'JSON merge patch (RFC 7396); an absent state counts as {}';

CREATE FUNCTION state_put(key text, state jsonb, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_put';
COMMENT ON FUNCTION state_put(text, jsonb, bigint, interval, text)
	IS 'as state_set(), but written at once; the version that holds the document';

CREATE FUNCTION state_append(key text, path text[], value jsonb, class text DEFAULT 'run',
		"create" boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_append';
COMMENT ON FUNCTION state_append(text, text[], jsonb, text, boolean)
	IS 'appends an element to the array at a path, which must exist, or is made with create';

CREATE FUNCTION state_append_many(key text, path text[], "values" jsonb, class text DEFAULT 'run',
		"create" boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_append_many';
COMMENT ON FUNCTION state_append_many(text, text[], jsonb, text, boolean)
	IS 'appends the elements of an array, in their order, to the array at a path';

CREATE FUNCTION state_pop(key text, path text[], class text DEFAULT 'run') RETURNS jsonb
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_pop';
COMMENT ON FUNCTION state_pop(text, text[], text)
	IS 'takes the last element off the array at a path, and gives it; NULL if there is none';

CREATE FUNCTION state_delete(key text, expected_version bigint DEFAULT NULL, class text DEFAULT 'run') RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_delete';
COMMENT ON FUNCTION state_delete(text, bigint, text) IS 'deletes the state; whether there was one';

CREATE FUNCTION state_touch(key text, ttl interval DEFAULT '0', class text DEFAULT 'run') RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_touch';
COMMENT ON FUNCTION state_touch(text, interval, text)
	IS 'gives the state a new time to live, NULL for no end, and no new version; 0: the one that it was given before '
	   'starts again; whether there was a state';

-- ---------------------------------------------------------------------------------------------------
-- Batch
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_batch_begin(on_conflict text DEFAULT 'error') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_batch_begin';
COMMENT ON FUNCTION state_batch_begin(text) IS 'opens an explicit batch; on_conflict is error, reapply or overwrite';

CREATE FUNCTION state_batch_commit(OUT class text, OUT key text, OUT version bigint, OUT action text,
	OUT bytes bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_batch_commit';
COMMENT ON FUNCTION state_batch_commit()
	IS 'flushes what is staged, inside the transaction, and says what became of it';

CREATE FUNCTION state_batch_rollback() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_batch_rollback';
COMMENT ON FUNCTION state_batch_rollback() IS 'drops what the batch has staged, and closes it';

CREATE FUNCTION state_batch_status(OUT class text, OUT key text, OUT dirty boolean, OUT base_version bigint,
		OUT staged_bytes bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_batch_status';
COMMENT ON FUNCTION state_batch_status() IS 'what the transaction has staged or, in an explicit batch, read';

-- ---------------------------------------------------------------------------------------------------
-- Snapshots. What changes here is written at once, inside the transaction.
-- ---------------------------------------------------------------------------------------------------
-- What was found damaged, and what was done about it.
CREATE TABLE state_recovery_log (
	id         uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
	found_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	class      text COLLATE "C" NOT NULL,
	key        text COLLATE "C" NOT NULL,
	version    bigint,
	error_type text NOT NULL,
	severity   text NOT NULL
		CHECK (severity OPERATOR(pg_catalog.=) ANY (ARRAY['info', 'warning', 'error', 'critical', 'fatal'])),
	fault      text NOT NULL,
	strategy   text NOT NULL,
	outcome    text NOT NULL,
	restored_version bigint
);
CREATE INDEX state_recovery_log_state ON state_recovery_log (class, key, found_at);
COMMENT ON INDEX state_recovery_log_state IS 'what was found and done with a state, in order';
COMMENT ON TABLE state_recovery_log IS 'damage found in stored states and recoveries, and what came of them';
COMMENT ON COLUMN state_recovery_log.id IS 'name of the entry; the same on every replica';
COMMENT ON COLUMN state_recovery_log.found_at IS 'when it was found';
COMMENT ON COLUMN state_recovery_log.class IS 'class of the state';
COMMENT ON COLUMN state_recovery_log.key IS 'name of the state within its class';
COMMENT ON COLUMN state_recovery_log.version
	IS 'version that was damaged, or current before a recovery; NULL where there was none';
COMMENT ON COLUMN state_recovery_log.error_type
	IS 'context_corruption for class run, state_corruption for others; none for a recovery that was asked for';
COMMENT ON COLUMN state_recovery_log.severity IS 'info, warning, error, critical or fatal';
COMMENT ON COLUMN state_recovery_log.fault IS 'what was wrong';
COMMENT ON COLUMN state_recovery_log.strategy IS 'what was done: restart, resume, rollback, repair';
COMMENT ON COLUMN state_recovery_log.outcome IS 'what came of it';
COMMENT ON COLUMN state_recovery_log.restored_version IS 'version whose content the state has now';

CREATE TABLE state_damaged (
	-- No foreign key: a parallel restore loads the two tables in any order.
	log_id uuid NOT NULL,
	LIKE state_snapshot INCLUDING COMMENTS INCLUDING COMPRESSION,
	PRIMARY KEY (class, key, version, log_id)
);
ALTER TABLE state_damaged ALTER delta SET STORAGE EXTERNAL;
COMMENT ON TABLE state_damaged IS 'damaged snapshots that state_verify() has put aside, as they were found';
COMMENT ON COLUMN state_damaged.log_id IS 'entry of state_recovery_log';

CREATE FUNCTION state_save(key text, state jsonb, checkpoint_type text DEFAULT 'auto',
		agent_phase text DEFAULT NULL, recovery_point boolean DEFAULT false,
		execution_context jsonb DEFAULT NULL, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, label text DEFAULT NULL, parent_version bigint DEFAULT NULL,
		payload bytea DEFAULT NULL, class text DEFAULT 'run',
		OUT action text, OUT version bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_save';
COMMENT ON FUNCTION state_save(text, jsonb, text, text, boolean, jsonb, bigint, interval, text, bigint, bytea, text)
	IS 'replaces the whole state and keeps it as a checkpoint; action is saved, unchanged or deferred';

CREATE FUNCTION state_save_text(key text, state text, checkpoint_type text DEFAULT 'auto',
		agent_phase text DEFAULT NULL, recovery_point boolean DEFAULT false,
		execution_context jsonb DEFAULT NULL, expected_version bigint DEFAULT NULL,
		ttl interval DEFAULT NULL, on_invalid text DEFAULT 'error', label text DEFAULT NULL,
		parent_version bigint DEFAULT NULL, payload bytea DEFAULT NULL, class text DEFAULT 'run',
		OUT action text, OUT version bigint) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_save_text';
COMMENT ON FUNCTION state_save_text(text, text, text, text, boolean, jsonb, bigint, interval, text, text, bigint,
	bytea, text)
	IS 'as state_save(), of JSON as text; on_invalid as for state_set_text()';

CREATE FUNCTION state_history(key text, class text DEFAULT 'run',
		OUT version bigint, OUT parent_version bigint, OUT checkpoint_type text, OUT agent_phase text,
		OUT recovery_point boolean, OUT execution_context jsonb, OUT encoding text,
		OUT bytes_stored bigint, OUT bytes bigint, OUT created_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 50 AS 'MODULE_PATHNAME', 'state_history';
COMMENT ON FUNCTION state_history(text, text)
	IS 'the kept versions of the state, newest first; encoding is whole, compressed or delta';

CREATE FUNCTION state_diff(key text, from_version bigint, to_version bigint, class text DEFAULT 'run') RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_diff';
COMMENT ON FUNCTION state_diff(text, bigint, bigint, text)
	IS 'JSON Patch (RFC 6902) that makes one kept version into another';

CREATE FUNCTION state_restore(key text, version bigint, expected_version bigint DEFAULT NULL,
	class text DEFAULT 'run')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_restore';
COMMENT ON FUNCTION state_restore(text, bigint, bigint, text)
	IS 'makes a new version with the content of a kept one, which becomes its parent; the new version';

CREATE FUNCTION state_recover(key text, kind text DEFAULT 'rollback', class text DEFAULT 'run',
		OUT action text, OUT version bigint, OUT from_version bigint, OUT recovery_point boolean,
		OUT checkpoint_type text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_recover';
COMMENT ON FUNCTION state_recover(text, text, text)
	IS 'reinstates an intact snapshot: the newest recovery point (rollback), the newest (resume) or the oldest '
	   '(restart)';

CREATE FUNCTION state_prune(class text, keep integer DEFAULT NULL, older_than interval DEFAULT NULL,
		recovery_points boolean DEFAULT false) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_prune';
COMMENT ON FUNCTION state_prune(text, integer, interval, boolean)
	IS 'deletes the snapshots that are beyond the newest and older than that; with neither named, those that the '
	   'class does not keep; how many';

CREATE FUNCTION state_verify(class text DEFAULT NULL, repair boolean DEFAULT false,
		OUT class text, OUT key text, OUT version bigint, OUT fault text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_verify';
COMMENT ON FUNCTION state_verify(text, boolean)
	IS 'checks every stored version of a class, or of all; with repair, damaged ones are put aside and their states '
	   'go back to the newest intact version';

CREATE FUNCTION state_progress(
		OUT pid integer, OUT command text, OUT class text, OUT key text,
		OUT states_done bigint, OUT states_total bigint, OUT started_at timestamptz) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_progress';
COMMENT ON FUNCTION state_progress() IS 'what the view state_progress shows';

CREATE VIEW state_progress AS SELECT * FROM state_progress();
COMMENT ON VIEW state_progress
	IS 'how far each state_verify() and state_prune() has come that runs in this database; key is NULL for those '
	   'who may not read the tables';

SELECT pg_catalog.pg_extension_config_dump('state_recovery_log', '');
SELECT pg_catalog.pg_extension_config_dump('state_damaged', '');

-- ---------------------------------------------------------------------------------------------------
-- Many keys: lists of versions and of states, purges, copies, times to live.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_list(key text DEFAULT NULL, prefix text DEFAULT NULL, before bigint DEFAULT NULL,
		before_label text DEFAULT NULL, label text DEFAULT NULL, filter jsonb DEFAULT NULL,
		"limit" integer DEFAULT 100, states boolean DEFAULT true, class text DEFAULT 'run',
		OUT key text, OUT version bigint, OUT parent_version bigint, OUT label text, OUT execution_context jsonb,
		OUT state jsonb, OUT payload bytea, OUT created_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'state_list';
COMMENT ON FUNCTION state_list(text, text, bigint, text, text, jsonb, integer, boolean, text)
	IS 'kept versions of one state, or of those with a prefix, newest first, with what belongs to them';

CREATE FUNCTION state_keys(prefix text DEFAULT '', after text DEFAULT NULL, "limit" integer DEFAULT 10000,
		class text DEFAULT 'run',
		OUT key text, OUT version bigint, OUT updated_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'state_keys';
COMMENT ON FUNCTION state_keys(text, text, integer, text)
	IS 'the states of a class whose keys begin with a prefix, in the order of their keys';

CREATE FUNCTION state_purge(keys text[] DEFAULT NULL, prefix text DEFAULT NULL, versions bigint[] DEFAULT NULL,
		keep integer DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_purge';
COMMENT ON FUNCTION state_purge(text[], text, bigint[], integer, text)
	IS 'erases states for good, or versions of states; returns of how many states something was erased';

CREATE FUNCTION state_copy(from_prefix text, to_prefix text, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_copy';
COMMENT ON FUNCTION state_copy(text, text, text)
	IS 'copies the states whose keys begin with a prefix, with history and logs, under another one; returns how many';

CREATE FUNCTION state_touch_prefix(prefix text, ttl interval DEFAULT '0', class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_touch_prefix';
COMMENT ON FUNCTION state_touch_prefix(text, interval, text)
	IS 'state_touch() for all states whose keys begin with a prefix; of how many';

-- ---------------------------------------------------------------------------------------------------
-- Logs: entries beside a state
-- ---------------------------------------------------------------------------------------------------

CREATE SEQUENCE state_log_number;
COMMENT ON SEQUENCE state_log_number IS 'the order of the entries of all logs';
CREATE TABLE state_log_entry (
	class      text COLLATE "C" NOT NULL,
	key        text COLLATE "C" NOT NULL,
	-- Never NULL: it stands in the key.
	ref        text COLLATE "C" NOT NULL DEFAULT '',
	id         text COLLATE "C" NOT NULL,
	number     bigint NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	entry      jsonb,
	payload    bytea,
	PRIMARY KEY (class, key, ref, id)
);
ALTER SEQUENCE state_log_number OWNED BY state_log_entry.number;
-- Those that belong to something are read by that, from the primary key: they need no second index.
CREATE INDEX state_log_order ON state_log_entry (class, key, number) WHERE ref OPERATOR(pg_catalog.=) '';
DO $$
BEGIN
	ALTER TABLE state_log_entry ALTER entry SET COMPRESSION lz4, ALTER payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
	NULL;
END
$$;
COMMENT ON TABLE state_log_entry IS 'the logs beside states: entries, each of them once';
COMMENT ON COLUMN state_log_entry.class IS 'class of the state';
COMMENT ON COLUMN state_log_entry.key IS 'name of the state within its class';
COMMENT ON COLUMN state_log_entry.ref IS 'what the entry belongs to, at most 255 bytes; empty: nothing';
COMMENT ON COLUMN state_log_entry.id
	IS 'name of the entry among those of its ref, 1 to 255 bytes; # and the number where it was given none';
COMMENT ON COLUMN state_log_entry.number IS 'its place: within a log numbers grow as transactions commit, with gaps';
COMMENT ON COLUMN state_log_entry.created_at IS 'when it was written';
COMMENT ON COLUMN state_log_entry.entry IS 'what it says';
COMMENT ON COLUMN state_log_entry.payload IS 'bytes beside that';
COMMENT ON INDEX state_log_order IS 'the entries that belong to nothing, in their order';

SELECT pg_catalog.pg_extension_config_dump('state_log_entry', '');
SELECT pg_catalog.pg_extension_config_dump('state_log_number', '');

CREATE FUNCTION state_log_append(key text, entries jsonb, ref text DEFAULT NULL, ids text[] DEFAULT NULL,
		replace boolean DEFAULT false, payloads bytea[] DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_log_append';
COMMENT ON FUNCTION state_log_append(text, jsonb, text, text[], boolean, bytea[], text)
	IS 'appends the elements of an array to the log beside a state, each id once: again it is skipped, or replaced; '
	   'how many were written';

CREATE FUNCTION state_log(key text, ref text DEFAULT NULL, after bigint DEFAULT NULL, "limit" integer DEFAULT NULL,
		class text DEFAULT 'run', OUT number bigint, OUT ref text, OUT id text, OUT entry jsonb, OUT payload bytea,
		OUT created_at timestamptz) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'state_log';
COMMENT ON FUNCTION state_log(text, text, bigint, integer, text)
	IS 'the entries of a log behind a number, in order; ref NULL: all of them, empty: those that belong to nothing';

CREATE FUNCTION state_log_erase(key text, refs text[] DEFAULT NULL, class text DEFAULT 'run') RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_log_erase';
COMMENT ON FUNCTION state_log_erase(text, text[], text)
	IS 'erases entries of a log, those that belong to one of refs, NULL: all; how many they were';

-- ---------------------------------------------------------------------------------------------------
-- Runs. Beside its document a run has a place in the hierarchy and an owner. The extension writes these
-- tables as their owner: who may change a run's state may do what is right with the rest.
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE state_context (
	run_id        text COLLATE "C" PRIMARY KEY,
	parent_run_id text COLLATE "C",
	depth         integer NOT NULL,
	base_version  bigint NOT NULL,
	parent_base   jsonb,
	handed_on     jsonb,
	created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX state_context_children ON state_context (parent_run_id) WHERE parent_run_id IS NOT NULL;
COMMENT ON TABLE state_context
	IS 'the hierarchy of runs: a row per run that state_context_create() or state_context_child() has made, or '
	   'another function has found to be a root';
COMMENT ON COLUMN state_context.run_id IS 'the run: the key of its state of class run';
COMMENT ON COLUMN state_context.parent_run_id IS 'the run that it is a child of; NULL for a root';
COMMENT ON COLUMN state_context.depth IS 'steps to the root, 0 for a root';
COMMENT ON COLUMN state_context.base_version
	IS 'version of the run that the next merge into the parent compares with';
COMMENT ON COLUMN state_context.parent_base
	IS 'values that the parent had then of variables of which the run had others, null for none; NULL where there '
	   'are no such variables';
COMMENT ON COLUMN state_context.handed_on
	IS 'records of the variables that the run has exported to its parent since base_version: the next merge '
	   'compares these with them; NULL where there are no such variables';
COMMENT ON COLUMN state_context.created_at IS 'when the run was created';
COMMENT ON INDEX state_context_children IS 'the children of each run';

CREATE FUNCTION state_draw(sequence regclass) RETURNS bigint
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_draw';
COMMENT ON FUNCTION state_draw(regclass)
	IS 'a number of the sequence that was never given out, neither here nor in a future that a restore or a '
	   'promotion has lost: at least the time in microseconds since 2000';

CREATE SEQUENCE state_claim_token;
COMMENT ON SEQUENCE state_claim_token IS 'the tokens of claims: each is greater than all before it';
CREATE TABLE state_claim (
	run_id     text COLLATE "C" PRIMARY KEY,
	token      bigint NOT NULL DEFAULT state_draw('state_claim_token'::pg_catalog.regclass),
	owner      text COLLATE "C",
	expires_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	claimed_at timestamptz,
	-- What a list shows, and what it is taken from an index by.
	status        text COLLATE "C" NOT NULL DEFAULT 'running',
	parent_run_id text COLLATE "C",
	swarm_id      text COLLATE "C",
	routine_id    text COLLATE "C",
	step          text COLLATE "C",
	created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	-- Makes the token part of a key: a claim that changes it waits for those who write under the old one, and a
	-- renewal, which does not, waits for nobody.
	UNIQUE (run_id, token)
);
ALTER SEQUENCE state_claim_token OWNED BY state_claim.token;
COMMENT ON TABLE state_claim
	IS 'the runs: who owns which, and what state_context_list() and state_context_claim_next() find them by';
COMMENT ON COLUMN state_claim.run_id IS 'the run';
COMMENT ON COLUMN state_claim.token
	IS 'token of the current claim, 0 before the first; writes that carry an older one fail';
COMMENT ON COLUMN state_claim.owner IS 'who claimed the run; NULL before the first claim, and once it is released';
COMMENT ON COLUMN state_claim.expires_at
	IS 'until when nobody else can claim it; of a run that nobody owns, since when it waits';
COMMENT ON COLUMN state_claim.claimed_at IS 'when it was claimed; NULL before the first claim';
COMMENT ON COLUMN state_claim.status IS 'status of the run';
COMMENT ON COLUMN state_claim.parent_run_id IS 'the run that it is a child of, as its document says';
COMMENT ON COLUMN state_claim.swarm_id IS 'swarm of the run; NULL if it has none, or if the name is above 255 bytes';
COMMENT ON COLUMN state_claim.routine_id IS 'what the run runs; NULL if nothing is said, or in more than 255 bytes';
COMMENT ON COLUMN state_claim.step IS 'the step that the run is in, as state_context_step() has named it';
COMMENT ON COLUMN state_claim.created_at IS 'when the run was first written: the order of state_context_list()';

-- A list is read backwards from its end. Without a status it is put together from one part for each status.
CREATE INDEX state_claim_status ON state_claim (status, created_at, run_id);
CREATE INDEX state_claim_swarm ON state_claim (swarm_id, status, created_at, run_id) WHERE swarm_id IS NOT NULL;
CREATE INDEX state_claim_parent ON state_claim (parent_run_id, created_at, run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX state_claim_owner ON state_claim (owner, status, created_at, run_id) WHERE owner IS NOT NULL;
CREATE INDEX state_claim_owned ON state_claim (created_at, run_id)
	WHERE owner IS NOT NULL AND status OPERATOR(pg_catalog.=) 'running';
-- The queue is read from its beginning.
CREATE INDEX state_claim_waiting ON state_claim (expires_at, run_id) WHERE status OPERATOR(pg_catalog.=) 'running';
CREATE INDEX state_claim_waiting_swarm ON state_claim (swarm_id, expires_at, run_id)
	WHERE status OPERATOR(pg_catalog.=) 'running' AND swarm_id IS NOT NULL;
CREATE INDEX state_claim_waiting_routine ON state_claim (routine_id, expires_at, run_id)
	WHERE status OPERATOR(pg_catalog.=) 'running' AND routine_id IS NOT NULL;
COMMENT ON INDEX state_claim_status IS 'the runs of each status, oldest first';
COMMENT ON INDEX state_claim_swarm IS 'the runs of each swarm and status, oldest first';
COMMENT ON INDEX state_claim_parent IS 'the children of each run, oldest first';
COMMENT ON INDEX state_claim_owner IS 'the runs of each owner and status, oldest first';
COMMENT ON INDEX state_claim_owned IS 'the running runs that have an owner, oldest first';
COMMENT ON INDEX state_claim_waiting IS 'the running runs, those first that can be claimed first';
COMMENT ON INDEX state_claim_waiting_swarm IS 'the same for each swarm';
COMMENT ON INDEX state_claim_waiting_routine IS 'the same for each routine';

-- A restore, or a replication, brings rows of runs that the extension has made rows for when it saw their states.
CREATE FUNCTION state_claim_merge() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF pg_trigger_depth() > 1 THEN
		-- The statement below, or one of another trigger.
		RETURN NEW;
	END IF;
	EXECUTE format('INSERT INTO %I.%I SELECT ($1).* ON CONFLICT (run_id) DO UPDATE SET token = excluded.token, '
		'owner = excluded.owner, expires_at = excluded.expires_at, claimed_at = excluded.claimed_at, '
		'status = excluded.status, parent_run_id = excluded.parent_run_id, swarm_id = excluded.swarm_id, '
		'routine_id = excluded.routine_id, step = excluded.step, created_at = excluded.created_at',
		TG_TABLE_SCHEMA, TG_TABLE_NAME) USING NEW;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION state_claim_merge()
	IS 'lets a restored or replicated row take the place of the one that is there';
CREATE TRIGGER state_claim_merge BEFORE INSERT ON state_claim
	FOR EACH ROW WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_claim_merge();
COMMENT ON TRIGGER state_claim_merge ON state_claim
	IS 'lets a restored or replicated row take the place of the one that is there';
ALTER TABLE state_claim ENABLE ALWAYS TRIGGER state_claim_merge;

CREATE SEQUENCE state_conflict_id_seq;
CREATE TABLE state_conflict (
	id               bigint PRIMARY KEY DEFAULT state_draw('state_conflict_id_seq'::pg_catalog.regclass),
	run_id           text COLLATE "C" NOT NULL,
	child_run_id     text COLLATE "C" NOT NULL,
	variable         text NOT NULL,
	base_value       jsonb,
	parent_value     jsonb,
	child_value      jsonb NOT NULL,
	parent_timestamp timestamptz,
	child_timestamp  timestamptz,
	sensitivity      text NOT NULL,
	status           text NOT NULL DEFAULT 'open'
		CHECK (status OPERATOR(pg_catalog.=) ANY (ARRAY['open', 'resolved', 'superseded', 'abandoned'])),
	opened_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	resolved_value   jsonb,
	reason           text,
	resolved_by      text,
	resolved_at      timestamptz,
	superseded_by    bigint
);
ALTER SEQUENCE state_conflict_id_seq OWNED BY state_conflict.id;
CREATE INDEX state_conflict_open ON state_conflict (run_id) WHERE status OPERATOR(pg_catalog.=) 'open';
CREATE INDEX state_conflict_run ON state_conflict (run_id);
CREATE INDEX state_conflict_child ON state_conflict (child_run_id);
COMMENT ON TABLE state_conflict
	IS 'variables that a parent and its child have both changed, for a person to decide; kept as the record of what '
	   'was decided';
COMMENT ON SEQUENCE state_conflict_id_seq IS 'the names of conflicts';
COMMENT ON COLUMN state_conflict.id IS 'name of the conflict, for state_conflict_resolve()';
COMMENT ON COLUMN state_conflict.run_id IS 'the parent, in which the variable is blocked';
COMMENT ON COLUMN state_conflict.child_run_id IS 'the child that was merged';
COMMENT ON COLUMN state_conflict.variable IS 'name of the variable';
COMMENT ON COLUMN state_conflict.base_value IS 'what both have started from; NULL where there was no such variable';
COMMENT ON COLUMN state_conflict.parent_value IS 'what the parent has; NULL where it has no such variable';
COMMENT ON COLUMN state_conflict.child_value IS 'what the child has; null once the child is purged';
COMMENT ON COLUMN state_conflict.parent_timestamp IS 'when the parent set it';
COMMENT ON COLUMN state_conflict.child_timestamp IS 'when the child set it';
COMMENT ON COLUMN state_conflict.sensitivity IS 'the highest sensitivity of the values';
COMMENT ON COLUMN state_conflict.status
	IS 'open, resolved, superseded by a later one of the same variable, or abandoned with its run';
COMMENT ON COLUMN state_conflict.opened_at IS 'when the child was merged';
COMMENT ON COLUMN state_conflict.resolved_value IS 'what was decided';
COMMENT ON COLUMN state_conflict.reason IS 'why';
COMMENT ON COLUMN state_conflict.resolved_by IS 'by which role';
COMMENT ON COLUMN state_conflict.resolved_at IS 'when';
COMMENT ON COLUMN state_conflict.superseded_by
	IS 'the conflict that took its place when another one of the same variable was resolved';
COMMENT ON INDEX state_conflict_open IS 'the conflicts that wait for a decision';
COMMENT ON INDEX state_conflict_run IS 'the conflicts of a run, which go with the run when it is purged';
COMMENT ON INDEX state_conflict_child IS 'the conflicts to which a child has given a value';

CREATE SEQUENCE state_outbox_id_seq;
CREATE TABLE state_outbox (
	id              bigint PRIMARY KEY DEFAULT state_draw('state_outbox_id_seq'::pg_catalog.regclass),
	run_id          text COLLATE "C" NOT NULL,
	key             text NOT NULL,
	target          text NOT NULL,
	target_key      text NOT NULL,
	value           jsonb NOT NULL,
	sensitivity     text NOT NULL,
	created_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	acknowledged_at timestamptz
);
ALTER SEQUENCE state_outbox_id_seq OWNED BY state_outbox.id;
CREATE INDEX state_outbox_pending ON state_outbox (target, id) WHERE acknowledged_at IS NULL;
CREATE INDEX state_outbox_run ON state_outbox (run_id);
COMMENT ON TABLE state_outbox
	IS 'exports of completed runs to external systems; a consumer takes rows with FOR UPDATE SKIP LOCKED and '
	   'acknowledges them';
COMMENT ON SEQUENCE state_outbox_id_seq IS 'the order of exports';
COMMENT ON COLUMN state_outbox.id IS 'order in which they were exported';
COMMENT ON COLUMN state_outbox.run_id IS 'the run that exported it';
COMMENT ON COLUMN state_outbox.key IS 'the variable';
COMMENT ON COLUMN state_outbox.target IS 'the system that it is for';
COMMENT ON COLUMN state_outbox.target_key IS 'the name that it has there';
COMMENT ON COLUMN state_outbox.value IS 'what is exported';
COMMENT ON COLUMN state_outbox.sensitivity IS 'how sensitive it is';
COMMENT ON COLUMN state_outbox.created_at IS 'when the run completed';
COMMENT ON COLUMN state_outbox.acknowledged_at IS 'when a consumer was done with it; NULL until then';
COMMENT ON INDEX state_outbox_pending IS 'what no consumer has acknowledged';
COMMENT ON INDEX state_outbox_run IS 'the exports of a run, which go with the run when it is purged';

CREATE FUNCTION state_context_create(run_id text, routine_id text DEFAULT NULL, inputs jsonb DEFAULT NULL,
		permissions text[] DEFAULT NULL, resource_limits jsonb DEFAULT NULL, swarm_id text DEFAULT NULL,
		sensitivity_map jsonb DEFAULT NULL, budget text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_create';
COMMENT ON FUNCTION state_context_create(text, text, jsonb, text[], jsonb, text, jsonb, text)
	IS 'creates a root run whose variables are the inputs, and whose credits a budget is charged with; its version';

CREATE FUNCTION state_context_child(parent_run_id text, child_run_id text, inputs jsonb DEFAULT NULL,
		routine_id text DEFAULT NULL, permissions text[] DEFAULT NULL, resource_limits jsonb DEFAULT NULL,
		max_sensitivity text DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_child';
COMMENT ON FUNCTION state_context_child(text, text, jsonb, text, text[], jsonb, text, bigint)
	IS 'creates a child of a running run, which inherits variables, permissions and limits; its version';

CREATE FUNCTION state_context_get(run_id text)
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_context_get';
COMMENT ON FUNCTION state_context_get(text)
	IS 'the document of a run, found to be sound; an error without such a run';

CREATE FUNCTION state_context_visible(run_id text, max_sensitivity text DEFAULT 'internal')
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_context_visible';
COMMENT ON FUNCTION state_context_visible(text, text)
	IS 'the document of a run without what is more sensitive';

CREATE FUNCTION state_context_tree(run_id text,
		OUT run_id text, OUT parent_run_id text, OUT depth integer, OUT status text, OUT version bigint,
		OUT routine_id text, OUT owner text, OUT created_at timestamptz, OUT step text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 20 AS 'MODULE_PATHNAME', 'state_context_tree';
COMMENT ON FUNCTION state_context_tree(text)
	IS 'a run and all runs below it, parents before their children; depth counts from the run';

CREATE FUNCTION state_context_set(run_id text, name text, value jsonb, source text DEFAULT 'step',
		sensitivity text DEFAULT NULL, mutable boolean DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_set';
COMMENT ON FUNCTION state_context_set(text, text, jsonb, text, text, boolean, bigint)
	IS 'sets a variable of a run; its sensitivity only ever rises';

CREATE FUNCTION state_context_set_many(run_id text, variables jsonb, source text DEFAULT 'step',
		sensitivity text DEFAULT NULL, mutable boolean DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_set_many';
COMMENT ON FUNCTION state_context_set_many(text, jsonb, text, text, boolean, bigint)
	IS 'sets several variables of a run, given as name and value';

CREATE FUNCTION state_context_append(run_id text, name text, value jsonb, source text DEFAULT 'step',
		token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_append';
COMMENT ON FUNCTION state_context_append(text, text, jsonb, text, bigint)
	IS 'appends an element to the array that a variable is; without the variable, to an empty one';

CREATE FUNCTION state_context_patch(run_id text, name text, patch jsonb, source text DEFAULT 'step',
		token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_patch';
COMMENT ON FUNCTION state_context_patch(text, text, jsonb, text, bigint)
	IS 'JSON merge patch (RFC 7396) of the value of a variable; without the variable, of an empty object';

CREATE FUNCTION state_context_merge(child_run_id text, strategy text DEFAULT 'merge_objects',
		per_variable jsonb DEFAULT NULL, token bigint DEFAULT NULL,
		OUT variable text, OUT value jsonb, OUT strategy text, OUT reason text, OUT conflict bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_context_merge';
COMMENT ON FUNCTION state_context_merge(text, text, jsonb, bigint)
	IS 'merges what a child has changed into its parent, three-way; a row per variable; token is that of the parent';

CREATE FUNCTION state_conflict_resolve(id bigint, value jsonb, reason text)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_conflict_resolve';
COMMENT ON FUNCTION state_conflict_resolve(bigint, jsonb, text)
	IS 'settles a conflict that a merge left to a person';

CREATE FUNCTION state_context_mark_export(run_id text, key text, destination text,
		transformation text DEFAULT NULL, target text DEFAULT NULL, target_key text DEFAULT NULL,
		item jsonb DEFAULT NULL, sensitivity text DEFAULT NULL, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_mark_export';
COMMENT ON FUNCTION state_context_mark_export(text, text, text, text, text, text, jsonb, text, bigint)
	IS 'marks a variable to be exported when the run completes; transformation is an SQL/JSON path, target a class '
	   'or a system';

CREATE FUNCTION state_context_unmark_export(run_id text, key text, destination text DEFAULT NULL,
		token bigint DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_unmark_export';
COMMENT ON FUNCTION state_context_unmark_export(text, text, text, bigint)
	IS 'takes back that a variable is to be exported, to a destination or at all; whether it was';

CREATE FUNCTION state_context_complete(run_id text, outcome text DEFAULT 'completed',
		strategy text DEFAULT 'merge_objects', token bigint DEFAULT NULL,
		OUT key text, OUT destination text, OUT target text, OUT strategy text, OUT reason text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_context_complete';
COMMENT ON FUNCTION state_context_complete(text, text, text, bigint)
	IS 'ends a run: exports travel, what it was allotted goes back to its parent, its last state is written at once '
	   'and kept; a row per export';

CREATE FUNCTION state_context_claim(run_id text, owner text, lease interval DEFAULT '30 s')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_claim';
COMMENT ON FUNCTION state_context_claim(text, text, interval)
	IS 'claims a run that nobody else holds; the token, greater than all before it';

CREATE FUNCTION state_context_claim_next(owner text, lease interval DEFAULT '30 s', swarm_id text DEFAULT NULL,
		routine_id text DEFAULT NULL, OUT run_id text, OUT token bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_context_claim_next';
COMMENT ON FUNCTION state_context_claim_next(text, interval, text, text)
	IS 'claims the run that waits longest of those that run and nobody owns, and gives its token; no row if there is '
	   'none; waits for nobody';

CREATE FUNCTION state_context_list(status text DEFAULT NULL, swarm_id text DEFAULT NULL,
		parent_run_id text DEFAULT NULL, owner text DEFAULT NULL, claimed boolean DEFAULT NULL,
		after text DEFAULT NULL, "limit" integer DEFAULT 100,
		OUT run_id text, OUT parent text, OUT status text, OUT owner text, OUT lease_until timestamptz,
		OUT version bigint, OUT updated_at timestamptz, OUT step text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'state_context_list';
COMMENT ON FUNCTION state_context_list(text, text, text, text, boolean, text, integer)
	IS 'a page of the runs that are as the arguments say, newest first; after is the last run of the page before';

CREATE FUNCTION state_context_step(run_id text, label text, token bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_step';
COMMENT ON FUNCTION state_context_step(text, text, bigint)
	IS 'names the step that a run is in; NULL: none';

CREATE FUNCTION state_context_renew(run_id text, token bigint, lease interval DEFAULT '30 s')
	RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_renew';
COMMENT ON FUNCTION state_context_renew(text, bigint, interval)
	IS 'prolongs a claim; until when. 40001 if another has the run';

CREATE FUNCTION state_context_release(run_id text, token bigint)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_release';
COMMENT ON FUNCTION state_context_release(text, bigint)
	IS 'gives a claim up';

CREATE FUNCTION state_context_fence(run_id text, token bigint)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_fence';
COMMENT ON FUNCTION state_context_fence(text, bigint)
	IS 'what this transaction writes of the run, it writes under this claim: 40001 now or at COMMIT if it is not '
	   'the current one';

CREATE FUNCTION state_context_spend(run_id text, what text, amount numeric, token bigint DEFAULT NULL)
	RETURNS numeric
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_context_spend';
COMMENT ON FUNCTION state_context_spend(text, text, numeric, bigint)
	IS 'charges an amount to a run at once, and refuses what exceeds its limit; what is left, NULL without a limit';

SELECT pg_catalog.pg_extension_config_dump('state_context', '');
SELECT pg_catalog.pg_extension_config_dump('state_claim', '');
SELECT pg_catalog.pg_extension_config_dump('state_claim_token', '');
SELECT pg_catalog.pg_extension_config_dump('state_conflict', '');
SELECT pg_catalog.pg_extension_config_dump('state_conflict_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('state_outbox', '');
SELECT pg_catalog.pg_extension_config_dump('state_outbox_id_seq', '');

-- ---------------------------------------------------------------------------------------------------
-- Claims of states of any class. The extension writes the table as its owner: who may change a state may claim it.
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE state_lease (
	class      text COLLATE "C" NOT NULL,
	key        text COLLATE "C" NOT NULL,
	token      bigint NOT NULL DEFAULT state_draw('state_claim_token'::pg_catalog.regclass),
	owner      text COLLATE "C",
	expires_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	claimed_at timestamptz,
	PRIMARY KEY (class, key),
	-- Makes the token part of a key: a claim that changes it waits for those who write under the old one, and a
	-- renewal, which does not, waits for nobody.
	UNIQUE (class, key, token)
);
COMMENT ON TABLE state_lease IS 'who owns which state, but for runs, whose claims are in state_claim';
COMMENT ON COLUMN state_lease.class IS 'class of the state';
COMMENT ON COLUMN state_lease.key IS 'name of the state within its class';
COMMENT ON COLUMN state_lease.token
	IS 'token of the current claim, 0 before the first; writes that carry an older one fail';
COMMENT ON COLUMN state_lease.owner IS 'who claimed the state; NULL before the first claim, and once it is released';
COMMENT ON COLUMN state_lease.expires_at IS 'until when nobody else can claim it';
COMMENT ON COLUMN state_lease.claimed_at IS 'when it was claimed; NULL before the first claim';

CREATE FUNCTION state_claim(key text, owner text, lease interval DEFAULT '30 s', class text DEFAULT 'run')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_claim';
COMMENT ON FUNCTION state_claim(text, text, interval, text)
	IS 'claims a state that nobody else holds, or a name without a state; the token, greater than all before it';

CREATE FUNCTION state_renew(key text, token bigint, lease interval DEFAULT '30 s', class text DEFAULT 'run')
	RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_renew';
COMMENT ON FUNCTION state_renew(text, bigint, interval, text)
	IS 'prolongs a claim; until when. 40001 if another has the state';

CREATE FUNCTION state_release(key text, token bigint, class text DEFAULT 'run')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_release';
COMMENT ON FUNCTION state_release(text, bigint, text) IS 'gives a claim up';

CREATE FUNCTION state_fence(key text, token bigint, class text DEFAULT 'run')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_fence';
COMMENT ON FUNCTION state_fence(text, bigint, text)
	IS 'what this transaction writes of the state, it writes under this claim: 40001 now or at COMMIT if it is not '
	   'the current one';

SELECT pg_catalog.pg_extension_config_dump('state_lease', '');

-- ---------------------------------------------------------------------------------------------------
-- Blackboard: items in the document of a state of class swarm. Changes are staged until the flush.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_blackboard_add(swarm_id text, key text, value jsonb, type text DEFAULT 'data',
		created_by text DEFAULT current_user, ttl interval DEFAULT NULL, access_level text DEFAULT 'group',
		tags text[] DEFAULT '{}') RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_blackboard_add';
COMMENT ON FUNCTION state_blackboard_add(text, text, jsonb, text, text, interval, text, text[])
	IS 'adds an item to the blackboard of a swarm; an error if it has an item of that key that has not expired';

CREATE FUNCTION state_blackboard_update(swarm_id text, key text, value jsonb DEFAULT NULL, type text DEFAULT NULL,
		ttl interval DEFAULT NULL, access_level text DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_blackboard_update';
COMMENT ON FUNCTION state_blackboard_update(text, text, jsonb, text, interval, text, text[])
	IS 'changes what is named of an item; ttl counts from now on; an error if there is no such item, or it has '
	   'expired';

CREATE FUNCTION state_blackboard_remove(swarm_id text, key text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_blackboard_remove';
COMMENT ON FUNCTION state_blackboard_remove(text, text) IS 'removes an item; whether there was one';

CREATE FUNCTION state_blackboard_items(swarm_id text, state jsonb, type text DEFAULT NULL, tag text DEFAULT NULL,
		created_by text DEFAULT NULL, access_level text DEFAULT NULL) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_blackboard_items';
COMMENT ON FUNCTION state_blackboard_items(text, jsonb, text, text, text, text)
	IS 'the items in a document of the swarm that are wanted and have not expired, by their keys; NULL means any; '
	   'an error names the field that is wrong';

CREATE FUNCTION state_blackboard_query(swarm_id text, type text DEFAULT NULL, tag text DEFAULT NULL,
		created_by text DEFAULT NULL, access_level text DEFAULT NULL,
		OUT key text, OUT value jsonb, OUT type text, OUT created_by text, OUT created_at timestamptz,
		OUT expires_at timestamptz, OUT access_level text, OUT tags text[]) RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 20
BEGIN ATOMIC
	SELECT i.key, i.value OPERATOR(pg_catalog.->) 'value', i.value OPERATOR(pg_catalog.->>) 'type',
			i.value OPERATOR(pg_catalog.->>) 'createdBy',
			CAST(i.value OPERATOR(pg_catalog.->>) 'createdAt' AS pg_catalog.timestamptz),
			CAST(i.value OPERATOR(pg_catalog.->>) 'expiresAt' AS pg_catalog.timestamptz),
			i.value OPERATOR(pg_catalog.->>) 'accessLevel',
			ARRAY(SELECT pg_catalog.jsonb_array_elements_text(i.value OPERATOR(pg_catalog.->) 'tags'))
		FROM pg_catalog.jsonb_each(state_blackboard_items($1, state_get($1, CAST('swarm' AS pg_catalog.text)),
			$2, $3, $4, $5)) i
		ORDER BY i.key COLLATE pg_catalog."C";
END;
COMMENT ON FUNCTION state_blackboard_query(text, text, text, text, text)
	IS 'the items of the blackboard of a swarm that have not expired, by type, tag, creator and access level; NULL '
	   'means any';

-- ---------------------------------------------------------------------------------------------------
-- Budgets. The functions write these tables as their caller, who needs the privileges for it. Amounts are decimal
-- numbers with at most 9 decimals.
-- ---------------------------------------------------------------------------------------------------

-- Functions in C, one CHECK for each of the tables that each call writes: the server reads the text of every CHECK of
-- a table anew for each statement that writes to the table, and the body of a function in SQL with it.
CREATE FUNCTION state_money(amount numeric) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_money';
COMMENT ON FUNCTION state_money(numeric) IS 'whether a number is an amount: finite, of at most 9 decimals';

CREATE FUNCTION state_counters(spent numeric, held numeric) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_counters';
COMMENT ON FUNCTION state_counters(numeric, numeric) IS 'whether two numbers can be counters of an account';

CREATE FUNCTION state_hold_is_sound(hold_id text, amount numeric, actual numeric, status text,
		expired_at timestamptz, resolved_at timestamptz, scopes text[], periods timestamptz[], shards integer[])
	RETURNS boolean
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_hold_is_sound';
COMMENT ON FUNCTION state_hold_is_sound(text, numeric, numeric, text, timestamptz, timestamptz, text[], timestamptz[],
	integer[]) IS 'whether these columns can be those of a hold';

CREATE TABLE state_budget (
	budget     text COLLATE "C" PRIMARY KEY
		CHECK (pg_catalog.octet_length(budget) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(budget) OPERATOR(pg_catalog.<=) 255),
	total      numeric NOT NULL CHECK (total OPERATOR(pg_catalog.>=) 0 AND state_money(total)),
	currency   text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(currency) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(currency) OPERATOR(pg_catalog.<=) 63),
	parent     text COLLATE "C" CHECK (parent OPERATOR(pg_catalog.<>) budget),
	period     interval,
	soft_limit numeric CHECK (soft_limit OPERATOR(pg_catalog.>=) 0 AND state_money(soft_limit)),
	shards     integer NOT NULL DEFAULT 1
		CHECK (shards OPERATOR(pg_catalog.>=) 1 AND shards OPERATOR(pg_catalog.<=) 64),
	revision   bigint NOT NULL DEFAULT 1,
	defined_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	retention  interval CHECK (retention OPERATOR(pg_catalog.>=) '1 day')
);
CREATE INDEX state_budget_children ON state_budget (parent) WHERE parent IS NOT NULL;
COMMENT ON TABLE state_budget IS 'budgets: a row per budget that state_budget_define() has made';
COMMENT ON COLUMN state_budget.budget IS 'name of the budget, 1 to 255 bytes';
COMMENT ON COLUMN state_budget.total IS 'what may be spent in a period';
COMMENT ON COLUMN state_budget.currency IS 'what amounts are counted in';
COMMENT ON COLUMN state_budget.parent IS 'the budget above, in which each hold needs room too; NULL for a root';
COMMENT ON COLUMN state_budget.period IS 'how long counters count, in UTC; NULL: for ever';
COMMENT ON COLUMN state_budget.soft_limit IS 'from which spending on somebody is told; NULL: never';
COMMENT ON COLUMN state_budget.shards IS 'among how many rows the counters are distributed';
COMMENT ON COLUMN state_budget.revision IS 'counts what was redefined beside limits';
COMMENT ON COLUMN state_budget.defined_at IS 'when the budget was defined first';
COMMENT ON COLUMN state_budget.retention IS 'how long ended holds and costs stay; NULL: for ever';
COMMENT ON INDEX state_budget_children IS 'the budgets below each budget';

CREATE TABLE state_budget_agent (
	budget         text COLLATE "C" NOT NULL,
	agent          text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(agent) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(agent) OPERATOR(pg_catalog.<=) 255),
	spending_limit numeric CHECK (spending_limit OPERATOR(pg_catalog.>=) 0 AND state_money(spending_limit)),
	price          numeric CHECK (price OPERATOR(pg_catalog.>) 0 AND state_money(price)),
	defined_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (budget, agent)
);
COMMENT ON TABLE state_budget_agent IS 'the agents of each budget';
COMMENT ON COLUMN state_budget_agent.budget IS 'the budget';
COMMENT ON COLUMN state_budget_agent.agent IS 'name of the agent, 1 to 255 bytes';
COMMENT ON COLUMN state_budget_agent.spending_limit IS 'what it may spend in a period; NULL: as much as the budget';
COMMENT ON COLUMN state_budget_agent.price IS 'what it reserves by default, as it was defined; NULL: nothing';
COMMENT ON COLUMN state_budget_agent.defined_at IS 'when it was put into the budget';

CREATE TABLE state_budget_price (
	budget     text COLLATE "C" NOT NULL,
	agent      text COLLATE "C" NOT NULL,
	shard      integer NOT NULL,
	price      numeric NOT NULL CHECK (price OPERATOR(pg_catalog.>=) 0 AND state_money(price)),
	learned_at timestamptz NOT NULL,
	PRIMARY KEY (budget, agent, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE state_budget_price IS 'prices learned from costs; of an agent the last one counts';
COMMENT ON COLUMN state_budget_price.budget IS 'the budget';
COMMENT ON COLUMN state_budget_price.agent IS 'the agent';
COMMENT ON COLUMN state_budget_price.shard IS 'the shard that has learned it';
COMMENT ON COLUMN state_budget_price.price IS 'mean of the last costs';
COMMENT ON COLUMN state_budget_price.learned_at IS 'when it was learned';

CREATE TABLE state_budget_account (
	budget    text COLLATE "C" NOT NULL,
	agent     text COLLATE "C" NOT NULL,
	period    timestamptz NOT NULL,
	shard     integer NOT NULL,
	allotted  numeric,
	spent     numeric NOT NULL DEFAULT 0,
	held      numeric NOT NULL DEFAULT 0,
	expected  numeric NOT NULL DEFAULT 0,
	actual    numeric NOT NULL DEFAULT 0,
	compared  bigint NOT NULL DEFAULT 0,
	revision  bigint NOT NULL,
	judged_at timestamptz,
	quiet     numeric DEFAULT 0,
	PRIMARY KEY (budget, agent, period, shard),
	CONSTRAINT state_budget_account_counters CHECK (state_counters(spent, held))
) WITH (fillfactor = 50);
COMMENT ON TABLE state_budget_account
	IS 'counters: a row for each budget, each of its agents that has reserved or spent, period and shard';
COMMENT ON COLUMN state_budget_account.budget IS 'the budget';
COMMENT ON COLUMN state_budget_account.agent IS 'the agent; empty: the budget as a whole';
COMMENT ON COLUMN state_budget_account.period IS 'when the period began; -infinity without periods';
COMMENT ON COLUMN state_budget_account.shard IS 'number of the shard, from 0';
COMMENT ON COLUMN state_budget_account.allotted
	IS 'what this row may spend and hold without a look at the others; NULL: there is no limit';
COMMENT ON COLUMN state_budget_account.spent IS 'what was charged';
COMMENT ON COLUMN state_budget_account.held IS 'what is held, expired holds included until they are taken out';
COMMENT ON COLUMN state_budget_account.expected IS 'of the costs of which both are known: what was expected';
COMMENT ON COLUMN state_budget_account.actual IS 'of the same costs: what they were';
COMMENT ON COLUMN state_budget_account.compared IS 'how many of these there are';
COMMENT ON COLUMN state_budget_account.revision IS 'revision of the budget that allotted was made under';
COMMENT ON COLUMN state_budget_account.judged_at
	IS 'holds that end up to here have expired, and what they held may have been given to others';
COMMENT ON COLUMN state_budget_account.quiet
	IS 'as long as this row has spent less, nothing is reached that somebody is told of; NULL: nothing can be';

CREATE TABLE state_budget_hold (
	hold_id     text COLLATE "C" PRIMARY KEY,
	budget      text COLLATE "C" NOT NULL,
	agent       text COLLATE "C",
	amount      numeric NOT NULL,
	asked       numeric,
	ttl         interval NOT NULL,
	owner       text,
	remaining   numeric NOT NULL,
	scopes      text[] NOT NULL,
	periods     timestamptz[] NOT NULL,
	shards      integer[] NOT NULL,
	status      text NOT NULL DEFAULT 'held',
	made_at     timestamptz NOT NULL,
	expires_at  timestamptz NOT NULL,
	expired_at  timestamptz,
	actual      numeric,
	resolved_at timestamptz,
	metadata    jsonb,
	CONSTRAINT state_budget_hold_sound
		CHECK (state_hold_is_sound(hold_id, amount, actual, status, expired_at, resolved_at, scopes, periods, shards))
) WITH (fillfactor = 80);
CREATE INDEX state_budget_hold_open ON state_budget_hold (expires_at) WHERE status OPERATOR(pg_catalog.=) 'held';
CREATE INDEX state_budget_hold_costs ON state_budget_hold (budget, agent, resolved_at)
	WHERE status OPERATOR(pg_catalog.=) 'settled';
CREATE INDEX state_budget_hold_free
	ON state_budget_hold (budget, (COALESCE(resolved_at, expired_at)))
	WHERE status OPERATOR(pg_catalog.=) ANY (ARRAY['voided', 'expired']);
COMMENT ON TABLE state_budget_hold IS 'holds: money reserved until it is settled, voided or expires';
COMMENT ON COLUMN state_budget_hold.hold_id IS 'name of the hold, 1 to 255 bytes';
COMMENT ON COLUMN state_budget_hold.budget IS 'the budget that it was asked of';
COMMENT ON COLUMN state_budget_hold.agent IS 'the agent; NULL: nobody in particular';
COMMENT ON COLUMN state_budget_hold.amount IS 'what is held, and what the cost is expected to be';
COMMENT ON COLUMN state_budget_hold.asked IS 'what was asked for; NULL: the price of the agent';
COMMENT ON COLUMN state_budget_hold.ttl IS 'how long it was to be held';
COMMENT ON COLUMN state_budget_hold.owner IS 'who holds it, as the caller said';
COMMENT ON COLUMN state_budget_hold.remaining IS 'what was left after it, as the caller was told';
COMMENT ON COLUMN state_budget_hold.scopes IS 'the budgets that it is counted in, from its own up to the root';
COMMENT ON COLUMN state_budget_hold.periods IS 'in which period of each';
COMMENT ON COLUMN state_budget_hold.shards IS 'in which shard of each';
COMMENT ON COLUMN state_budget_hold.status
	IS 'held, settled, voided or expired; one that is held may be over its time';
COMMENT ON COLUMN state_budget_hold.made_at IS 'when it was reserved';
COMMENT ON COLUMN state_budget_hold.expires_at IS 'from when on it counts no longer';
COMMENT ON COLUMN state_budget_hold.expired_at IS 'when it was taken out of the counters after its time';
COMMENT ON COLUMN state_budget_hold.actual IS 'what it cost';
COMMENT ON COLUMN state_budget_hold.resolved_at IS 'when it was settled or voided';
COMMENT ON COLUMN state_budget_hold.metadata IS 'whatever the caller wants to keep beside the cost';
COMMENT ON INDEX state_budget_hold_open IS 'what expires next';
COMMENT ON INDEX state_budget_hold_costs IS 'the last costs of each agent';
COMMENT ON INDEX state_budget_hold_free IS 'holds that have ended at no cost';

CREATE TABLE state_budget_cost (
	budget      text COLLATE "C" NOT NULL,
	id          text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(id) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(id) OPERATOR(pg_catalog.<=) 255),
	agent       text COLLATE "C",
	expected    numeric CHECK (expected OPERATOR(pg_catalog.>) 0 AND state_money(expected)),
	actual      numeric NOT NULL CHECK (actual OPERATOR(pg_catalog.>=) 0 AND state_money(actual)),
	scopes      text[] NOT NULL,
	periods     timestamptz[] NOT NULL,
	recorded_at timestamptz NOT NULL,
	metadata    jsonb,
	PRIMARY KEY (budget, id),
	CHECK (pg_catalog.cardinality(scopes) OPERATOR(pg_catalog.=) pg_catalog.cardinality(periods))
);
CREATE INDEX state_budget_cost_recent ON state_budget_cost (budget, agent, recorded_at);
COMMENT ON TABLE state_budget_cost IS 'costs that nothing was held for';
COMMENT ON COLUMN state_budget_cost.budget IS 'the budget that was charged';
COMMENT ON COLUMN state_budget_cost.id IS 'name of the cost within its budget';
COMMENT ON COLUMN state_budget_cost.agent IS 'the agent; NULL: nobody in particular';
COMMENT ON COLUMN state_budget_cost.expected IS 'what was expected; NULL: nothing was';
COMMENT ON COLUMN state_budget_cost.actual IS 'what it was';
COMMENT ON COLUMN state_budget_cost.scopes IS 'the budgets that were charged, from its own up to the root';
COMMENT ON COLUMN state_budget_cost.periods IS 'in which period of each';
COMMENT ON COLUMN state_budget_cost.recorded_at IS 'when it was recorded';
COMMENT ON COLUMN state_budget_cost.metadata IS 'whatever the caller wants to keep beside it';
COMMENT ON INDEX state_budget_cost_recent IS 'the last costs of each agent';

CREATE TABLE state_budget_pruned (
	budget   text COLLATE "C" NOT NULL,
	agent    text COLLATE "C" NOT NULL,
	period   timestamptz NOT NULL,
	shard    integer NOT NULL,
	spent    numeric NOT NULL,
	expected numeric NOT NULL,
	actual   numeric NOT NULL,
	compared bigint NOT NULL,
	PRIMARY KEY (budget, agent, period, shard)
);
COMMENT ON TABLE state_budget_pruned
	IS 'what holds and costs add up to that were deleted after their retention: counters count it still';
COMMENT ON COLUMN state_budget_pruned.budget IS 'the budget';
COMMENT ON COLUMN state_budget_pruned.agent IS 'the agent; empty: the budget as a whole';
COMMENT ON COLUMN state_budget_pruned.period IS 'when the period began; -infinity without periods';
COMMENT ON COLUMN state_budget_pruned.shard IS 'number of the shard that counts it';
COMMENT ON COLUMN state_budget_pruned.spent IS 'what they have cost';
COMMENT ON COLUMN state_budget_pruned.expected IS 'of those of which both are known: what was expected';
COMMENT ON COLUMN state_budget_pruned.actual IS 'of the same: what it was';
COMMENT ON COLUMN state_budget_pruned.compared IS 'how many of these there were';

CREATE TABLE state_budget_reached (
	budget     text COLLATE "C" NOT NULL,
	agent      text COLLATE "C" NOT NULL,
	period     timestamptz NOT NULL,
	level      text NOT NULL
		CHECK (level OPERATOR(pg_catalog.=) ANY (ARRAY['soft_limit', 'limit', 'overrun'])),
	reached_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (budget, agent, period, level)
);
COMMENT ON TABLE state_budget_reached IS 'what was told on channel budget_reached: each level once in a period';
COMMENT ON COLUMN state_budget_reached.budget IS 'the budget';
COMMENT ON COLUMN state_budget_reached.agent IS 'the agent whose limit it is; empty: that of the budget';
COMMENT ON COLUMN state_budget_reached.period IS 'when the period began; -infinity without periods';
COMMENT ON COLUMN state_budget_reached.level IS 'soft_limit, limit (all is spent) or overrun (more than all)';
COMMENT ON COLUMN state_budget_reached.reached_at IS 'when it was reached';

CREATE VIEW state_budget_holds WITH (security_invoker = true) AS
	SELECT hold_id, budget, agent, amount, owner,
		CASE WHEN status OPERATOR(pg_catalog.=) 'held' AND expires_at OPERATOR(pg_catalog.<=)
			pg_catalog.clock_timestamp() THEN 'expired' ELSE status END AS status,
		made_at, expires_at, actual, actual OPERATOR(pg_catalog.>) amount AS overrun, resolved_at, metadata
	FROM state_budget_hold;
COMMENT ON VIEW state_budget_holds IS 'holds with the status that they have by the clock';
COMMENT ON COLUMN state_budget_holds.hold_id IS 'name of the hold';
COMMENT ON COLUMN state_budget_holds.budget IS 'the budget that it was asked of';
COMMENT ON COLUMN state_budget_holds.agent IS 'the agent; NULL: nobody in particular';
COMMENT ON COLUMN state_budget_holds.amount IS 'what is or was held';
COMMENT ON COLUMN state_budget_holds.owner IS 'who holds it, as the caller said';
COMMENT ON COLUMN state_budget_holds.status IS 'held, settled, voided or expired';
COMMENT ON COLUMN state_budget_holds.made_at IS 'when it was reserved';
COMMENT ON COLUMN state_budget_holds.expires_at IS 'from when on it counts no longer';
COMMENT ON COLUMN state_budget_holds.actual IS 'what it cost';
COMMENT ON COLUMN state_budget_holds.overrun IS 'whether that was more than was held; NULL until it is settled';
COMMENT ON COLUMN state_budget_holds.resolved_at IS 'when it was settled or voided';
COMMENT ON COLUMN state_budget_holds.metadata IS 'whatever the caller wants to keep beside the cost';

CREATE FUNCTION state_budget_watch() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_budget_watch';
COMMENT ON FUNCTION state_budget_watch() IS 'after a change of budgets by hand no summary in L1 is used any more';

DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['', '_agent', '_price', '_account', '_hold', '_cost', '_pruned', '_reached'] LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER state_cache_changed AFTER INSERT OR UPDATE OR DELETE
			ON state_budget%s FOR EACH ROW WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_budget_watch()', name);
		EXECUTE pg_catalog.format('CREATE TRIGGER state_cache_truncating BEFORE TRUNCATE
			ON state_budget%s FOR EACH STATEMENT EXECUTE FUNCTION state_budget_watch()', name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER state_cache_changed ON state_budget%s
			IS ''summaries in L1 are not used any more after a change by hand''', name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER state_cache_truncating ON state_budget%s
			IS ''summaries in L1 are not used any more''', name);
		EXECUTE pg_catalog.format('ALTER TABLE state_budget%s ENABLE ALWAYS TRIGGER state_cache_changed', name);
		EXECUTE pg_catalog.format('ALTER TABLE state_budget%s ENABLE ALWAYS TRIGGER state_cache_truncating', name);
		PERFORM pg_catalog.pg_extension_config_dump(
			('state_budget' OPERATOR(pg_catalog.||) name)::pg_catalog.regclass, '');
	END LOOP;
END
$$;

CREATE FUNCTION state_budget_define(budget text, total numeric, currency text, parent text DEFAULT NULL,
		agents jsonb DEFAULT NULL, period text DEFAULT NULL, soft_limit numeric DEFAULT NULL,
		shards integer DEFAULT NULL, retention text DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_define';
COMMENT ON FUNCTION state_budget_define(text, numeric, text, text, jsonb, text, numeric, integer, text)
	IS 'defines a budget, or defines it anew: what was spent and is held stays; what is NULL stays as it was';

CREATE FUNCTION state_budget_drop(budget text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_drop';
COMMENT ON FUNCTION state_budget_drop(text)
	IS 'removes a budget with its counters, holds and costs; refused while anything is held or another is below it';

CREATE FUNCTION state_budget_reserve(budget text, agent text, amount numeric DEFAULT NULL, hold_id text DEFAULT NULL,
		ttl interval DEFAULT '15 minutes', owner text DEFAULT NULL, currency text DEFAULT NULL,
		OUT hold_id text, OUT amount numeric, OUT remaining numeric)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_reserve';
COMMENT ON FUNCTION state_budget_reserve(text, text, numeric, text, interval, text, text)
	IS 'holds money in a budget and all above it; what is held, and what is left after it. 53400 without room';

CREATE FUNCTION state_budget_settle(hold_id text, actual numeric, metadata jsonb DEFAULT NULL,
		currency text DEFAULT NULL, OUT hold_id text, OUT amount numeric, OUT actual numeric, OUT overrun boolean,
		OUT late boolean)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_settle';
COMMENT ON FUNCTION state_budget_settle(text, numeric, jsonb, text)
	IS 'charges what a hold has cost, once, also more than was held and after its time';

CREATE FUNCTION state_budget_void(hold_id text) RETURNS numeric
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_void';
COMMENT ON FUNCTION state_budget_void(text) IS 'gives a hold back, at no cost: what it held';

CREATE FUNCTION state_budget_extend(hold_id text, ttl interval DEFAULT '15 minutes') RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_extend';
COMMENT ON FUNCTION state_budget_extend(text, interval)
	IS 'holds for so long from now; until when. 55000 for a hold whose time is over';

CREATE FUNCTION state_budget_summary(budget text) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_budget_summary';
COMMENT ON FUNCTION state_budget_summary(text)
	IS 'what was spent, is held and remains, in all and by agent, and the last costs';

CREATE FUNCTION state_budget_record_costs(budget text, records jsonb) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_record_costs';
COMMENT ON FUNCTION state_budget_record_costs(text, jsonb)
	IS 'charges costs that nothing was held for, all or none, each id once; how many were new';

CREATE FUNCTION state_budget_accuracy(budget text,
		OUT agent text, OUT costs bigint, OUT expected numeric, OUT actual numeric, OUT accuracy numeric)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'state_budget_accuracy';
COMMENT ON FUNCTION state_budget_accuracy(text)
	IS 'how far costs were from what was expected, in all (agent NULL) and by agent';

CREATE FUNCTION state_budget_project(budget text, planned jsonb) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_budget_project';
COMMENT ON FUNCTION state_budget_project(text, jsonb)
	IS 'what planned work will cost, with a low and a high, and whether it fits';

CREATE FUNCTION state_budget_recommend(budget text, planned jsonb DEFAULT NULL,
		OUT severity text, OUT agent text, OUT recommendation text, OUT amount numeric, OUT reason text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 5 AS 'MODULE_PATHNAME', 'state_budget_recommend';
COMMENT ON FUNCTION state_budget_recommend(text, jsonb)
	IS 'what somebody should look at in a budget, what matters most first';

CREATE FUNCTION state_budget_verify(budget text DEFAULT NULL, repair boolean DEFAULT false,
		OUT budget text, OUT agent text, OUT period timestamptz, OUT spent numeric, OUT spent_found numeric,
		OUT held numeric, OUT held_found numeric)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', 'state_budget_verify';
COMMENT ON FUNCTION state_budget_verify(text, boolean)
	IS 'accounts whose counters are not what holds and costs add up to; with repair they are counted anew';

-- ---------------------------------------------------------------------------------------------------
-- Jobs. A job is a state of class job, whose document counts its tasks; the tasks are rows. The extension writes
-- them as their owner: who may change the job's state may change its tasks. Where row-level security of state_task
-- applies to a role, that role needs privileges of its own on it, and sees what the policies show.
-- ---------------------------------------------------------------------------------------------------

CREATE SEQUENCE state_task_token;
COMMENT ON SEQUENCE state_task_token
	IS 'the tokens under which tasks are claimed: each is greater than all before it';
CREATE SEQUENCE state_task_position_seq;
COMMENT ON SEQUENCE state_task_position_seq IS 'the order in which tasks were added';
CREATE TABLE state_task (
	job_id       text COLLATE "C" NOT NULL,
	task_id      text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(task_id) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(task_id) OPERATOR(pg_catalog.<=) 255),
	agent_name   text COLLATE "C",
	status       text COLLATE "C" NOT NULL DEFAULT 'pending'
		CHECK (status OPERATOR(pg_catalog.=) ANY
			(ARRAY['pending', 'running', 'completed', 'failed', 'cancelled'])),
	attempts     integer NOT NULL DEFAULT 0 CHECK (attempts OPERATOR(pg_catalog.>=) 0),
	position     bigint NOT NULL DEFAULT pg_catalog.nextval('state_task_position_seq'::pg_catalog.regclass),
	owner        text COLLATE "C",
	token        bigint,
	lease_until  timestamptz,
	created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	started_at   timestamptz,
	completed_at timestamptz,
	-- Last, behind what changes with every update: WAL then holds only what is before them.
	error        jsonb,
	result       jsonb,
	input        jsonb,
	PRIMARY KEY (job_id, task_id)
) WITH (fillfactor = 80);
ALTER SEQUENCE state_task_position_seq OWNED BY state_task.position;
ALTER SEQUENCE state_task_token OWNED BY state_task.token;
CREATE INDEX state_task_waiting ON state_task (agent_name, job_id, position)
	WHERE status OPERATOR(pg_catalog.=) 'pending';
CREATE INDEX state_task_leased ON state_task (lease_until)
	WHERE status OPERATOR(pg_catalog.=) 'running' AND lease_until IS NOT NULL;
CREATE INDEX state_task_failed ON state_task (job_id, task_id) WHERE status OPERATOR(pg_catalog.=) 'failed';
COMMENT ON TABLE state_task
	IS 'the tasks of jobs; the job, a state of class job, says how many there are of each status';
COMMENT ON COLUMN state_task.job_id IS 'the job: the key of its state of class job';
COMMENT ON COLUMN state_task.task_id IS 'name of the task within its job, 1 to 255 bytes';
COMMENT ON COLUMN state_task.agent_name IS 'the agent that is to do it; NULL: any';
COMMENT ON COLUMN state_task.status IS 'pending, running, completed, failed or cancelled';
COMMENT ON COLUMN state_task.attempts IS 'how often it was started';
COMMENT ON COLUMN state_task.position IS 'its place in the order in which tasks were added';
COMMENT ON COLUMN state_task.owner IS 'the agent that has claimed it, or claimed it last';
COMMENT ON COLUMN state_task.token IS 'the token under which it was claimed; updates that carry another one fail';
COMMENT ON COLUMN state_task.lease_until IS 'until when nobody else can claim it; NULL where it is not claimed';
COMMENT ON COLUMN state_task.created_at IS 'when it was added';
COMMENT ON COLUMN state_task.started_at IS 'when it was started last';
COMMENT ON COLUMN state_task.completed_at IS 'when it ended';
COMMENT ON COLUMN state_task.error IS 'why it failed, or was given back';
COMMENT ON COLUMN state_task.result IS 'what came of it';
COMMENT ON COLUMN state_task.input IS 'what the agent is given';
COMMENT ON INDEX state_task_waiting IS 'the tasks that wait, by agent and job, in the order in which they were added';
COMMENT ON INDEX state_task_leased IS 'the leases, those that are over soonest first';
COMMENT ON INDEX state_task_failed IS 'the tasks that have failed';

CREATE TABLE state_task_left (
	job_id text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE state_task_left
	IS 'jobs that are gone and had more tasks than went with them at once; the worker deletes these';
COMMENT ON COLUMN state_task_left.job_id IS 'the job';

CREATE FUNCTION state_job_create(job_id text, tasks jsonb DEFAULT '[]', attributes jsonb DEFAULT '{}')
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_create';
COMMENT ON FUNCTION state_job_create(text, jsonb, jsonb)
	IS 'creates a job with these tasks; how many they are';

CREATE FUNCTION state_job_add_tasks(job_id text, tasks jsonb)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_add_tasks';
COMMENT ON FUNCTION state_job_add_tasks(text, jsonb)
	IS 'adds tasks to a job; how many they are. 23505 if one is there already';

CREATE FUNCTION state_job_update_tasks(job_id text, updates jsonb,
		OUT task_id text, OUT old_status text, OUT new_status text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'state_job_update_tasks';
COMMENT ON FUNCTION state_job_update_tasks(text, jsonb)
	IS 'changes tasks of a job, all or none of them, in the order given; a row per update';

CREATE FUNCTION state_job_cancel(job_id text)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_cancel';
COMMENT ON FUNCTION state_job_cancel(text)
	IS 'cancels all tasks of a job that have not ended; how many they were. The job takes no more tasks';

CREATE FUNCTION state_job_summary(job_id text)
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_job_summary';
COMMENT ON FUNCTION state_job_summary(text)
	IS 'how many tasks a job has of each status, and whether it is complete; reads no task';

CREATE FUNCTION state_job_get(job_id text)
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_job_get';
COMMENT ON FUNCTION state_job_get(text)
	IS 'a job with all its tasks, in the order in which they were added, as one document';

CREATE FUNCTION state_job_tasks(job_id text, status text DEFAULT NULL, agent text DEFAULT NULL,
		after text DEFAULT NULL, "limit" integer DEFAULT 100,
		OUT task_id text, OUT agent_name text, OUT status text, OUT attempts integer, OUT owner text,
		OUT lease_until timestamptz, OUT created_at timestamptz, OUT started_at timestamptz,
		OUT completed_at timestamptz, OUT input jsonb, OUT result jsonb, OUT error jsonb)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'state_job_tasks';
COMMENT ON FUNCTION state_job_tasks(text, text, text, text, integer)
	IS 'a page of the tasks of a job, in the order of their names: those behind the one named after';

CREATE FUNCTION state_job_claim_tasks(agent text, "limit" integer DEFAULT 1, lease interval DEFAULT '5 minutes',
		job_id text DEFAULT NULL,
		OUT job_id text, OUT task_id text, OUT token bigint, OUT agent_name text, OUT attempts integer,
		OUT lease_until timestamptz, OUT input jsonb)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_job_claim_tasks';
COMMENT ON FUNCTION state_job_claim_tasks(text, integer, interval, text)
	IS 'hands out tasks that wait, or whose lease is over, of one job or of all in turn; a row per task';

CREATE FUNCTION state_job_renew_tasks(job_id text, task_ids text[], token bigint, lease interval DEFAULT '5 minutes')
	RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_job_renew_tasks';
COMMENT ON FUNCTION state_job_renew_tasks(text, text[], bigint, interval)
	IS 'prolongs the leases of tasks, all or none; until when. 40001 if another has one of them';

CREATE FUNCTION state_job_verify(job_id text DEFAULT NULL, repair boolean DEFAULT false,
		OUT job_id text, OUT kept jsonb, OUT counted jsonb, OUT repaired boolean)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'state_job_verify';
COMMENT ON FUNCTION state_job_verify(text, boolean)
	IS 'counts the tasks of a job, or of all, and returns the jobs whose summary says something else; repair writes '
	   'what was counted, and deletes tasks of no job';

-- Ordinary triggers: what logical replication brings was counted where it was written, and comes with the counts.
CREATE FUNCTION state_task_watch() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_task_watch';
COMMENT ON FUNCTION state_task_watch() IS 'counts what is changed by hand in state_task';
CREATE TRIGGER state_task_inserted AFTER INSERT ON state_task REFERENCING NEW TABLE AS new_tasks
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
CREATE TRIGGER state_task_updated AFTER UPDATE ON state_task REFERENCING OLD TABLE AS old_tasks NEW TABLE AS new_tasks
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
CREATE TRIGGER state_task_deleted AFTER DELETE ON state_task REFERENCING OLD TABLE AS old_tasks
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
CREATE TRIGGER state_task_truncated AFTER TRUNCATE ON state_task
	FOR EACH STATEMENT WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_task_watch();
COMMENT ON TRIGGER state_task_inserted ON state_task IS 'the summaries of the jobs say how many tasks there are';
COMMENT ON TRIGGER state_task_updated ON state_task IS 'the summaries of the jobs follow';
COMMENT ON TRIGGER state_task_deleted ON state_task IS 'the summaries of the jobs follow';
COMMENT ON TRIGGER state_task_truncated ON state_task IS 'the summaries of all jobs say that there are no tasks';

SELECT pg_catalog.pg_extension_config_dump('state_task', '');
SELECT pg_catalog.pg_extension_config_dump('state_task_token', '');
SELECT pg_catalog.pg_extension_config_dump('state_task_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('state_task_left', '');

-- ---------------------------------------------------------------------------------------------------
-- Catch-up
-- ---------------------------------------------------------------------------------------------------
-- state_changes() tells changes by who wrote the head row. The next two tables are about those of which no
-- head row tells, the third says which history the transaction ids of a cursor belong to; none is dumped, since
-- transaction ids mean nothing elsewhere.

-- No primary key: a replica of all tables would trip over its own rows. FULL lets such a publisher delete.
CREATE TABLE state_trace (
	class   text COLLATE "C",
	key     text COLLATE "C",
	made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE state_trace REPLICA IDENTITY FULL;
COMMENT ON TABLE state_trace
	IS 'states changed by hand in a way that no head row shows: rows deleted, documents replaced';
COMMENT ON COLUMN state_trace.class IS 'class of the state; NULL: anything may have changed';
COMMENT ON COLUMN state_trace.key IS 'name of the state within its class; NULL as class';
COMMENT ON COLUMN state_trace.made_at IS 'when the transaction committed';

CREATE TABLE state_horizon (
	system bigint PRIMARY KEY,
	xid    xid8 NOT NULL
);
COMMENT ON TABLE state_horizon
	IS 'how far back changes are known: tombstones and traces were dropped that these and earlier transactions wrote';
COMMENT ON COLUMN state_horizon.system IS 'system identifier of the server whose transaction ids these are';
COMMENT ON COLUMN state_horizon.xid IS 'the latest transaction of which something was dropped';

-- No primary key, as above: two who note the same start do not wait for each other.
CREATE TABLE state_start (
	system   bigint NOT NULL,
	name     bigint NOT NULL,
	timeline integer NOT NULL,
	number   bigint NOT NULL,
	position pg_lsn NOT NULL,
	noted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE state_start REPLICA IDENTITY FULL;
COMMENT ON TABLE state_start
	IS 'starts of the server: a cursor is good in the history that its start belongs to, and in no other';
COMMENT ON COLUMN state_start.system IS 'system identifier of the server';
COMMENT ON COLUMN state_start.name IS 'random name of the start';
COMMENT ON COLUMN state_start.timeline IS 'timeline that the server wrote then';
COMMENT ON COLUMN state_start.number IS 'one more than that of the start before';
COMMENT ON COLUMN state_start.position IS 'place in the WAL at which it began';
COMMENT ON COLUMN state_start.noted_at IS 'when it was noted; the same start may be noted more than once';

CREATE FUNCTION state_changes(since text DEFAULT NULL,
		OUT class text, OUT key text, OUT version bigint, OUT op text, OUT cursor text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_changes';
COMMENT ON FUNCTION state_changes(text)
	IS 'what became visible since the cursor (NULL: every state), then a row with op end and the next cursor';

CREATE FUNCTION state_cursor(OUT epoch text, OUT seq bigint, OUT cursor text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'state_cursor';
COMMENT ON FUNCTION state_cursor() IS 'number of the last message, and a cursor that covers all messages up to it';

-- ---------------------------------------------------------------------------------------------------
-- Derived classes: documents that a query computes
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE state_source (
	class       text COLLATE "C" PRIMARY KEY,
	query       text NOT NULL,
	search_path text NOT NULL,
	serve_stale interval CHECK (serve_stale OPERATOR(pg_catalog.>) '0'::pg_catalog.interval
		AND serve_stale OPERATOR(pg_catalog.<=) '5000 years'::pg_catalog.interval)
);
COMMENT ON TABLE state_source IS 'the queries that compute the documents of derived classes';
COMMENT ON COLUMN state_source.class IS 'class of the documents';
COMMENT ON COLUMN state_source.query IS 'a SELECT that gives one jsonb for the key, which is $1, a text';
COMMENT ON COLUMN state_source.search_path IS 'where the names in the query are looked up, whoever reads';
COMMENT ON COLUMN state_source.serve_stale
	IS 'for how long after the end of its cache_ttl an entry may serve readers while another session computes the '
	   'next one; NULL: they wait';
SELECT pg_catalog.pg_extension_config_dump('state_source', '');

CREATE TRIGGER state_class_changed AFTER INSERT OR UPDATE OR DELETE ON state_source
	FOR EACH ROW EXECUTE FUNCTION state_class_watch();
CREATE TRIGGER state_class_truncated AFTER TRUNCATE ON state_source
	FOR EACH STATEMENT EXECUTE FUNCTION state_class_watch();
COMMENT ON TRIGGER state_class_changed ON state_source IS 'tells every session that a class was redefined';
COMMENT ON TRIGGER state_class_truncated ON state_source IS 'tells every session that a class was redefined';
ALTER TABLE state_source ENABLE ALWAYS TRIGGER state_class_changed;
ALTER TABLE state_source ENABLE ALWAYS TRIGGER state_class_truncated;

CREATE FUNCTION state_source_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_source_changed';
COMMENT ON FUNCTION state_source_changed()
	IS 'the trigger function of watches: says which documents of a derived class a changed row concerns';

CREATE FUNCTION state_watch(class text, relation regclass, keys text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_watch';
COMMENT ON FUNCTION state_watch(text, regclass, text)
	IS 'has changes of a table evict documents of a derived class: those that an expression over the changed row '
	   'names, or all of the class';

CREATE FUNCTION state_unwatch(class text, relation regclass) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_unwatch';
COMMENT ON FUNCTION state_unwatch(text, regclass)
	IS 'ends all watches of a class on a table; whether there were any';

CREATE FUNCTION state_sources(OUT class text, OUT query text, OUT relations text, OUT exact boolean,
		OUT reason text) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_sources';
COMMENT ON FUNCTION state_sources() IS 'what the view state_sources shows';

CREATE VIEW state_sources AS SELECT * FROM state_sources();
COMMENT ON VIEW state_sources
	IS 'the derived classes; exact: an entry of L1 is what the query would give; if not, the reason, and an entry is '
	   'as old as the cache_ttl of its class';

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

-- ---------------------------------------------------------------------------------------------------
-- Grants by profile. What a profile grants stands in one list here and in docs/operations/privileges.md; a test
-- (tests/server/tests/suite/grants.rs) holds one against the other.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION state_profiles(OUT profile text, OUT privileges text, OUT kind text, OUT object text)
	RETURNS SETOF record LANGUAGE sql IMMUTABLE ROWS 60 SET search_path = pg_catalog, pg_temp AS $$
	WITH own (profile, privileges, kind, objects) AS (VALUES
		('reader', 'SELECT', 'TABLE', ARRAY['state_head', 'state_snapshot', 'state_current', 'state_kept',
			'state_class', 'state_l2_classes', 'state_log_entry']),
		('application', 'INSERT, UPDATE', 'TABLE', ARRAY['state_head']),
		('application', 'INSERT, UPDATE, DELETE', 'TABLE', ARRAY['state_snapshot', 'state_log_entry']),
		('application', 'USAGE', 'SEQUENCE', ARRAY['state_log_number']),
		('runner', 'SELECT', 'TABLE', ARRAY['state_budget', 'state_budget_agent', 'state_budget_price',
			'state_budget_account', 'state_budget_hold', 'state_budget_cost', 'state_budget_reached',
			'state_budget_holds']),
		('runner', 'INSERT, UPDATE', 'TABLE', ARRAY['state_budget_account', 'state_budget_hold', 'state_budget_price',
			'state_budget_cost', 'state_budget_reached']),
		('operator', 'INSERT, UPDATE', 'TABLE', ARRAY['state_class']),
		('operator', 'SELECT', 'TABLE', ARRAY['state_cache_stats', 'state_cache_workers', 'state_progress',
			'state_sources', 'state_cache_entries', 'state_cache_unwritten', 'state_recovery_log', 'state_damaged',
			'state_conflict']),
		('operator', 'EXECUTE', 'FUNCTION', ARRAY['state_cache_stats', 'state_cache_workers', 'state_progress',
			'state_sources'])
	-- Who has the second has the first.
	), includes (profile, included) AS (VALUES ('reader', 'reader'), ('application', 'application'),
		('application', 'reader'), ('runner', 'runner'), ('runner', 'application'), ('runner', 'reader'),
		('operator', 'operator'), ('operator', 'application'), ('operator', 'reader')
	)
	SELECT i.profile, o.privileges, o.kind, n.object FROM includes i JOIN own o ON o.profile = i.included,
		LATERAL unnest(o.objects) n (object)
$$;
COMMENT ON FUNCTION state_profiles() IS 'what state_grant() grants for each profile';

-- Both functions do all of their statements or none.
CREATE FUNCTION state_grant(role regrole, profile text) RETURNS void
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
	item record;
BEGIN
	IF pg_is_in_recovery() THEN
		RAISE 'cannot execute %() during recovery', 'state_grant'
			USING ERRCODE = 'read_only_sql_transaction',
			HINT = 'This server is a standby. Call it on the primary: target_session_attrs=primary.';
	END IF;
	EXECUTE format('SELECT %s.state_profile_check($1, $2)', home) USING role, profile;
	EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', home, role);
	FOR item IN EXECUTE format('SELECT * FROM %s.state_profiles() p WHERE p.profile = $1', home) USING profile LOOP
		EXECUTE format('GRANT %s ON %s %s.%I%s TO %s', item.privileges, item.kind, home, item.object,
			CASE item.kind WHEN 'FUNCTION' THEN '()' END, role);
	END LOOP;
END
$$;
COMMENT ON FUNCTION state_grant(regrole, text)
	IS 'grants a role what a reader, an application, a runner or an operator needs';

CREATE FUNCTION state_revoke(role regrole, profile text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home regnamespace := (SELECT extnamespace FROM pg_extension WHERE extname = 'state_cache');
	item record;
BEGIN
	IF pg_is_in_recovery() THEN
		RAISE 'cannot execute %() during recovery', 'state_revoke'
			USING ERRCODE = 'read_only_sql_transaction',
			HINT = 'This server is a standby. Call it on the primary: target_session_attrs=primary.';
	END IF;
	EXECUTE format('SELECT %s.state_profile_check($1, $2)', home) USING role, COALESCE(profile, 'reader');
	FOR item IN EXECUTE format('SELECT DISTINCT p.privileges, p.kind, p.object FROM %s.state_profiles() p
		WHERE p.profile = $1 OR $1 IS NULL', home) USING profile
	LOOP
		EXECUTE format('REVOKE %s ON %s %s.%I%s FROM %s', item.privileges, item.kind, home, item.object,
			CASE item.kind WHEN 'FUNCTION' THEN '()' END, role);
	END LOOP;
	-- The schema may hold what is not the extension's.
	IF NOT EXISTS (SELECT FROM pg_class c, aclexplode(c.relacl) a
			WHERE c.relnamespace = home AND a.grantee = role)
		AND NOT EXISTS (SELECT FROM pg_proc p, aclexplode(p.proacl) a
			WHERE p.pronamespace = home AND a.grantee = role)
	THEN
		EXECUTE format('REVOKE USAGE ON SCHEMA %s FROM %s', home, role);
	END IF;
END
$$;
COMMENT ON FUNCTION state_revoke(regrole, text)
	IS 'takes back what state_grant() grants for a profile, NULL: for any of them';

CREATE FUNCTION state_profile_check(role regrole, profile text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	home text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'state_cache');
	known text;
	foreign_table text;
BEGIN
	IF role IS NULL OR role = 0 THEN
		RAISE 'role must not be null' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	EXECUTE format('SELECT string_agg(DISTINCT p.profile, '', '') FROM %s.state_profiles() p', home) INTO known;
	IF profile IS NULL OR profile <> ALL (string_to_array(known, ', ')) THEN
		RAISE 'profile "%" does not exist', COALESCE(profile, 'null')
			USING ERRCODE = 'invalid_parameter_value', HINT = format('The profiles are: %s.', known);
	END IF;
	-- The server only warns where it grants nothing.
	EXECUTE format('SELECT c.oid::regclass FROM %1$s.state_profiles() p JOIN pg_class c ON c.relname = p.object
		AND c.relnamespace = %1$L::regnamespace
		WHERE p.kind <> ''FUNCTION'' AND NOT pg_has_role(c.relowner, ''USAGE'') LIMIT 1', home) INTO foreign_table;
	IF foreign_table IS NOT NULL THEN
		RAISE 'must be owner of %', foreign_table USING ERRCODE = 'insufficient_privilege',
			HINT = 'Who owns the tables of the extension grants what they allow.';
	END IF;
END
$$;
COMMENT ON FUNCTION state_profile_check(regrole, text)
	IS 'raises unless there is such a profile and the caller owns the tables';

-- A trigger fires without this privilege; without it nobody can put the functions on other tables.
REVOKE EXECUTE ON FUNCTION state_cache_watch(), state_class_watch(), state_class_restore(), state_floor_merge(),
	state_claim_merge(), state_task_watch(), state_budget_watch() FROM PUBLIC;

-- What the server does is for those who watch over it; names of states show there to none who may not read them.
REVOKE EXECUTE ON FUNCTION state_cache_stats(), state_cache_workers(), state_progress(), state_sources() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION state_cache_stats(), state_cache_workers(), state_progress(), state_sources() TO pg_monitor;
GRANT SELECT ON state_cache_stats, state_cache_workers, state_progress, state_sources TO pg_monitor;
