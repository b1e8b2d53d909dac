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
