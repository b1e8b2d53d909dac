-- The functions called from triggers: their changes belong to the transaction and to the part of it that
-- fired the trigger.
\a \t \pset null (null)
SELECT state_class_define('triggers');
SELECT state_set('log', '{"entries": []}', class => 'triggers');
CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL);

-- Row triggers, before and after; each firing sees the changes of those before it.
CREATE FUNCTION log_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_append('log', '{entries}', to_jsonb(TG_WHEN || ' ' || TG_OP || ' ' || NEW.id || ', entries before: '
		|| jsonb_array_length(state_get_path('log', '{entries}', class => 'triggers'))), class => 'triggers');
	RETURN NEW;
END
$$;
CREATE TRIGGER log_before BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION log_order();
CREATE TRIGGER log_after AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION log_order();
INSERT INTO orders VALUES (1, 'new'), (2, 'new');
SELECT version, jsonb_array_elements_text(state -> 'entries') FROM state_current WHERE class = 'triggers' AND key = 'log';
-- A statement that fails takes them along.
INSERT INTO orders VALUES (3, 'new'), (1, 'again');
\echo :SQLSTATE
SELECT jsonb_array_length(state_get_path('log', '{entries}', class => 'triggers'));
BEGIN;
SAVEPOINT s;
INSERT INTO orders VALUES (3, 'new');
ROLLBACK TO s;
INSERT INTO orders VALUES (4, 'new');
COMMIT;
SELECT state_get_path('log', '{entries,-1}', class => 'triggers');
DROP TRIGGER log_before ON orders;
DROP TRIGGER log_after ON orders;

-- A deferred trigger runs in the COMMIT; what it stages is flushed by the same COMMIT.
CREATE FUNCTION count_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_set('count', to_jsonb((SELECT count(*) FROM orders)), class => 'triggers');
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER count_orders AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_orders();
BEGIN;
INSERT INTO orders VALUES (5, 'new');
SELECT seen('count', 'triggers');
INSERT INTO orders VALUES (6, 'new');
COMMIT;
SELECT seen('count', 'triggers'), stored('count', 'triggers');

-- Triggers on the extension's own tables see the flush as the INSERT, UPDATE and DELETE that it is.
CREATE TABLE audit (n int GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION audit_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO audit (what) VALUES (format('%s %s v%s deleted %s', TG_OP, NEW.key, NEW.version, NEW.deleted));
	RETURN NULL;
END
$$;
CREATE TRIGGER audit_head AFTER INSERT OR UPDATE ON state_head FOR EACH ROW WHEN (NEW.class = 'triggers') EXECUTE FUNCTION audit_head();
SELECT state_set('audited', '{"n": 1}', class => 'triggers');
SELECT state_set('audited', '{"n": 2}', class => 'triggers');
SELECT state_set('audited', '{"n": 2}', class => 'triggers');
SELECT state_delete('audited', class => 'triggers');
SELECT what FROM audit ORDER BY n;
DROP TRIGGER audit_head ON state_head;

-- One of them may change states itself: nothing of it is lost.
CREATE FUNCTION chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_set('chained', jsonb_build_object('follows', NEW.key, 'version', NEW.version), class => 'triggers');
	RETURN NULL;
END
$$;
CREATE TRIGGER chain AFTER INSERT OR UPDATE ON state_head FOR EACH ROW
	WHEN (NEW.class = 'triggers' AND NEW.key = 'first') EXECUTE FUNCTION chain();
SELECT state_set('first', '{"n": 1}', class => 'triggers');
SELECT seen('chained', 'triggers'), stored('chained', 'triggers');
BEGIN;
SELECT state_set('first', '{"n": 2}', class => 'triggers');
SELECT key, version, action FROM state_batch_commit() ORDER BY key;
SELECT seen('chained', 'triggers');
COMMIT;
SELECT seen('chained', 'triggers'), stored('chained', 'triggers');
DROP TRIGGER chain ON state_head;
-- The same deferred.
CREATE CONSTRAINT TRIGGER chain AFTER INSERT OR UPDATE ON state_head DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	WHEN (NEW.class = 'triggers' AND NEW.key = 'first') EXECUTE FUNCTION chain();
SELECT state_set('first', '{"n": 3}', class => 'triggers');
SELECT seen('chained', 'triggers'), stored('chained', 'triggers');
DROP TRIGGER chain ON state_head;

-- A BEFORE trigger may stand in the way of the flush. Whatever becomes of it, the functions say the same with L1 and
-- without it.
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_ARGV[0] = 'drop' THEN
		RETURN NULL;
	END IF;
	NEW.state := '{"n": "meddled"}';
	NEW.hash := state_hash(NEW.state);
	RETURN NEW;
END
$$;
CREATE FUNCTION said(key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN seen(key, 'triggers');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION agreed(key text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	cached text := said(key);
	uncached text;
BEGIN
	SET LOCAL state_cache.enabled = off;
	uncached := said(key);
	SET LOCAL state_cache.enabled = on;
	RETURN cached = uncached;
END
$$;
SELECT state_class_define('triggers', keep => 2);
\set VERBOSITY sqlstate
CREATE TRIGGER meddle BEFORE INSERT ON state_snapshot FOR EACH ROW WHEN (NEW.class = 'triggers') EXECUTE FUNCTION meddle('change');
SELECT state_set('meddled', '{"n": 1}', class => 'triggers');
SELECT agreed('meddled');
BEGIN;
SELECT state_set('meddled too', '{"n": 1}', class => 'triggers');
SELECT key, action FROM state_batch_commit();
COMMIT;
SELECT agreed('meddled too');
DROP TRIGGER meddle ON state_snapshot;
CREATE TRIGGER meddle BEFORE INSERT ON state_snapshot FOR EACH ROW WHEN (NEW.class = 'triggers') EXECUTE FUNCTION meddle('drop');
SELECT state_set('dropped', '{"n": 1}', class => 'triggers');
SELECT agreed('dropped'), seen('dropped', 'triggers');
DROP TRIGGER meddle ON state_snapshot;
SELECT state_class_define('triggers', keep => 1);
CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON state_head FOR EACH ROW WHEN (NEW.class = 'triggers') EXECUTE FUNCTION meddle('change');
SELECT state_set('held', '{"n": 1}', class => 'triggers');
SELECT agreed('held'), seen('held', 'triggers');
SELECT state_set('held', '{"n": 2}', class => 'triggers');
SELECT agreed('held'), seen('held', 'triggers');
DROP TRIGGER meddle ON state_head;
CREATE TRIGGER meddle BEFORE INSERT ON state_head FOR EACH ROW WHEN (NEW.class = 'triggers') EXECUTE FUNCTION meddle('drop');
SELECT state_set('dropped', '{"n": 1}', class => 'triggers');
SELECT agreed('dropped'), seen('dropped', 'triggers');
DROP TRIGGER meddle ON state_head;
\set VERBOSITY default

-- DDL in the transaction is in nobody's way.
BEGIN;
SELECT state_set('with ddl', '{"n": 1}', class => 'triggers');
CREATE TABLE in_between (n int);
INSERT INTO in_between VALUES (1);
COMMIT;
SELECT stored('with ddl', 'triggers');

-- What a trigger on the traces changes at COMMIT would come too late to be written: it is refused, not forgotten.
CREATE FUNCTION change_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM state_set('late', '{"n": 1}', class => 'triggers');
	RETURN NULL;
END
$$;
CREATE TRIGGER change_late AFTER INSERT ON state_trace FOR EACH ROW EXECUTE FUNCTION change_late();
SELECT state_set('traced', '{"n": 1}', class => 'triggers');
\set VERBOSITY terse
DELETE FROM state_head WHERE class = 'triggers' AND key = 'traced';
\set VERBOSITY default
SELECT stored('traced', 'triggers'), stored('late', 'triggers');
DROP TRIGGER change_late ON state_trace;
