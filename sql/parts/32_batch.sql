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
