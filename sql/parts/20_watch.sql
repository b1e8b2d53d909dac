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
