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
