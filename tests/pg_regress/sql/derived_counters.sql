-- Why documents of a derived class are not answered from L1, as the counters say.
\a \t \pset null (null)
CREATE TABLE dc (id integer PRIMARY KEY, v text);
INSERT INTO dc SELECT n, 'v' || n FROM generate_series(1, 9) n;
SELECT state_class_define('dc', cache_ttl => '1 h', source => 'SELECT to_jsonb(v) FROM dc WHERE id = $1::integer');
SELECT state_watch('dc', 'dc', 'id');
SELECT state_class_define('dc', cache_ttl => '0');
-- counted() runs a statement and says which counters of the class that moved. How often the source was run may depend on
-- what others commit meanwhile.
CREATE FUNCTION counted(statement text, class text DEFAULT 'dc') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before jsonb; after jsonb;
BEGIN
	SELECT to_jsonb(s) INTO before FROM state_cache_stats s WHERE s.class = counted.class;
	EXECUTE statement;
	SELECT to_jsonb(s) INTO after FROM state_cache_stats s WHERE s.class = counted.class;
	RETURN (SELECT string_agg(format('%s %s', a.key, a.value::bigint - coalesce((before->a.key)::bigint, 0)), ', ' ORDER BY a.key) FROM jsonb_each(after - 'class' - 'l1') a
		WHERE (a.key ~ '^(hits|misses|bypass|waits|expirations|fills)') AND a.value <> coalesce(before->a.key, '0'));
END
$$;
\set read '$$SELECT state_get(\'1\', \'dc\')$$'
-- Absent, and there.
SELECT counted(:read);
SELECT counted(:read);
-- Changed: the document, the class, a definition.
UPDATE dc SET v = 'new' WHERE id = 1;
SELECT counted(:read);
TRUNCATE dc;
SELECT counted(:read);
ALTER TABLE dc ADD w integer;
SELECT counted(:read);
-- Evicted by request; and one that was never there.
SELECT state_cache_clear('dc');
SELECT counted(:read), counted($$SELECT state_get('2', 'dc')$$);
-- Own changes, SERIALIZABLE, an older snapshot, row-level security.
BEGIN; INSERT INTO dc VALUES (1, 'own');
SELECT counted(:read);
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT counted(:read);
COMMIT;
ALTER TABLE dc ENABLE ROW LEVEL SECURITY;
SELECT counted(:read);
ALTER TABLE dc DISABLE ROW LEVEL SECURITY;
SET state_cache.enabled = off;
SELECT counted(:read);
RESET state_cache.enabled;
-- Expired.
SELECT state_class_define('dc', cache_ttl => '50 ms');
SELECT counted(:read);
SELECT pg_sleep(0.1);
SELECT counted(:read);
-- A state within that has changed, and one that has ended.
SELECT state_set('dc-state', '1'), state_class_define('dc-outer', cache_ttl => '1 h', source => 'SELECT state_get($1)');
SELECT counted($$SELECT state_get('dc-state', 'dc-outer')$$, 'dc-outer');
SELECT state_set('dc-state', '2', ttl => '200 ms');
SELECT counted($$SELECT state_get('dc-state', 'dc-outer')$$, 'dc-outer');
SELECT pg_sleep(0.3);
-- Whether the worker has removed it already makes a difference.
SELECT counted($$SELECT state_get('dc-state', 'dc-outer')$$, 'dc-outer') ~ '(expirations|misses_changed) 1';
-- The time that sources take, if timing is on.
SET state_cache.track_timing = on;
SELECT state_cache_clear('dc');
SELECT evaluation_ms AS before FROM state_cache_stats WHERE class = 'dc' \gset
SELECT counted(:read);
SELECT evaluation_ms > :before FROM state_cache_stats WHERE class = 'dc';
RESET state_cache.track_timing;
SELECT state_class_define('dc', source => ''), state_class_define('dc-outer', source => '');
SELECT state_delete('dc-state') IS NOT NULL;
DROP FUNCTION counted;
DROP TABLE dc;
