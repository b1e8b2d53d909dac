-- What operators see. Every counter moves when, and only when, what it counts happens.
\a \t \pset null (null)
-- Messages are counted when they are sent: with the commit they are when the next statement looks.
SET state_cache.notify = commit;
SELECT state_class_define('stats', keep => 1);
SELECT l1 FROM state_cache_stats WHERE class IS NULL;
-- delta() prints which counters of the class moved since it was called last.
CREATE TABLE counters (name text PRIMARY KEY, value numeric);
CREATE FUNCTION delta(of_class text DEFAULT 'stats') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	CREATE TEMP TABLE now_counters ON COMMIT DROP AS
		SELECT name, value::numeric FROM state_cache_stats s, jsonb_each_text(to_jsonb(s)) AS c(name, value)
		WHERE s.class = of_class AND name NOT IN ('class', 'l1', 'bytes') AND name NOT LIKE '%\_ms' AND name NOT LIKE 'memory%';
	SELECT string_agg(format('%s %s', n.name, to_char(n.value - coalesce(c.value, 0), 'SGFM999999')), ', ' ORDER BY n.name) INTO result
		FROM now_counters n LEFT JOIN counters c USING (name) WHERE n.value <> coalesce(c.value, 0);
	DELETE FROM counters;
	INSERT INTO counters SELECT * FROM now_counters;
	DROP TABLE now_counters;
	RETURN coalesce(result, 'nothing moved');
END
$$;
SELECT delta();
SELECT delta();

-- A change that is committed is in L1 at once.
SELECT state_set('doc', '{"n": 1}', class => 'stats');
SELECT delta();
-- A hit.
SELECT state_get('doc', class => 'stats');
SELECT delta();
SELECT state_version('doc', class => 'stats'), state_exists('doc', class => 'stats'), state_get_path('doc', '{n}', class => 'stats');
SELECT delta();
-- A miss, and the fill that it makes.
SELECT state_cache_clear('stats');
SELECT delta();
SELECT state_get('doc', class => 'stats');
SELECT delta();
-- A transaction reads its own changes from neither.
BEGIN;
SELECT state_set('doc', '{"n": 2}', class => 'stats');
SELECT state_get('doc', class => 'stats');
COMMIT;
SELECT delta();
-- ROLLBACK flushes nothing.
BEGIN;
SELECT state_set('doc', '{"n": 3}', class => 'stats');
ROLLBACK;
SELECT delta();
-- A duplicate.
SELECT state_set('doc', '{"n": 2}', class => 'stats');
SELECT delta();
-- A delete.
SELECT state_delete('doc', class => 'stats');
SELECT delta();
-- A conflict.
SELECT complaint($$SELECT state_set('doc', '{}', expected_version => 1, class => 'stats')$$);
SELECT delta();
-- An expired entry, found by a read; the worker passes over a row that is locked.
SELECT state_set('short', '{"n": 1}', ttl => '500 ms', class => 'stats');
SELECT delta();
BEGIN;
SELECT version FROM state_head WHERE class = 'stats' AND key = 'short' FOR UPDATE;
SELECT pg_sleep(0.6);
SELECT state_get('short', class => 'stats');
COMMIT;
SELECT delta() LIKE '%expirations +1%';
-- The worker would delete the state later, and be counted.
DELETE FROM state_head WHERE class = 'stats' AND key = 'short';
SELECT delta() IS NOT NULL;
-- SERIALIZABLE: L1 answers where the head row agrees, else the tables.
SELECT state_set('doc', '{"n": 4}', class => 'stats');
SELECT delta();
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state_get('doc', class => 'stats');
SELECT state_get('none', class => 'stats');
COMMIT;
SELECT delta();
-- Switched off.
SET state_cache.enabled = off;
SELECT l1 FROM state_cache_stats WHERE class IS NULL;
SELECT state_get('doc', class => 'stats');
RESET state_cache.enabled;
SELECT delta();
-- Row-level security: on state_head alone L1 answers where the role sees the head row.
CREATE ROLE regress_state_stats;
GRANT SELECT ON state_class, state_head, state_snapshot TO regress_state_stats;
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON state_head USING (true);
SET ROLE regress_state_stats;
SELECT state_get('doc', class => 'stats');
RESET ROLE;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;
DROP POLICY everything ON state_head;
SELECT delta();
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON state_snapshot USING (true);
SET ROLE regress_state_stats;
SELECT state_get('doc', class => 'stats');
RESET ROLE;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP POLICY everything ON state_snapshot;
SELECT delta();
-- A change by hand sends the rest of the transaction to the tables, and the entry away.
BEGIN;
UPDATE state_head SET updated_at = now() WHERE class = 'stats' AND key = 'doc';
SELECT state_get('doc', class => 'stats');
COMMIT;
SELECT delta();
SELECT state_get('doc', class => 'stats');
SELECT delta();
-- Damage in the tables is an error, not a matter of the cache.
UPDATE state_head SET state = '0' WHERE class = 'stats' AND key = 'doc';
SELECT delta();
SELECT left(complaint($$SELECT state_get('doc', class => 'stats')$$), 5);
SELECT delta();
DELETE FROM state_head WHERE class = 'stats' AND key = 'doc';
SELECT delta() IS NOT NULL;
-- A state that is larger than all of L1 is served from the tables, and counted.
SELECT pg_size_bytes(current_setting('state_cache.memory')) < pg_size_bytes('65 MB');
SET state_cache.max_state_size = '70MB';
SELECT state_set('large', jsonb_build_object('n', 1, 'text', repeat('x', 65 * 1024 * 1024)), class => 'stats');
SELECT state_get_path('large', '{n}', class => 'stats');
SELECT count(*) FROM state_cache_entries WHERE class = 'stats' AND key = 'large';
SELECT delta() LIKE '%too_large +%';
SELECT state_delete('large', class => 'stats');
RESET state_cache.max_state_size;
SELECT delta() IS NOT NULL;
-- cache_ttl: counted from the fill, never from the last access.
SELECT state_class_define('stats', cache_ttl => '100 ms');
SELECT state_set('aged', '{"n": 1}', class => 'stats');
SELECT delta() LIKE '%states_written +1%';
SELECT pg_sleep(0.11);
SELECT state_get('aged', class => 'stats');
SELECT delta() LIKE '%expirations +1%';
SELECT state_class_define('stats', cache_ttl => '0');
SELECT delta() IS NOT NULL;
-- max_entries: the class has no more than that, and the newest is in.
SELECT state_class_define('stats', max_entries => 10);
SELECT count(state_set('entry ' || i, to_jsonb(i), class => 'stats')) FROM generate_series(1, 50) i;
SELECT count(state_get('entry ' || i, class => 'stats')) FROM generate_series(1, 50) i;
SELECT entries <= 10, entries > 0, evictions >= 40 FROM state_cache_stats WHERE class = 'stats';
SELECT count(*) <= 10 FROM state_cache_entries WHERE class = 'stats';
SELECT state_class_define('stats', max_entries => 0);
SELECT delta() IS NOT NULL;
-- A refused flush.
BEGIN;
SELECT state_batch_begin();
SELECT state_get('entry 50', class => 'stats');
SELECT state_set('entry 49', '"changed"', class => 'stats');
UPDATE state_head SET version = version + 1 WHERE class = 'stats' AND key = 'entry 50';
SELECT key, action FROM state_batch_commit();
ROLLBACK;
SELECT delta();

-- state_cache_entries lists what L1 holds of this database.
SELECT state_cache_clear('stats') > 0;
SELECT count(*) FROM state_cache_entries WHERE class = 'stats';
SELECT state_set('listed', '{"n": 1}', ttl => '1 hour', class => 'stats');
SELECT state_set('listed too', '{"n": 22}', class => 'stats');
SELECT class, key, version, bytes > 0, loaded_at BETWEEN now() - interval '1 minute' AND now(), expires_at - now() BETWEEN '59 minutes' AND '1 hour'
	FROM state_cache_entries WHERE class = 'stats' ORDER BY key;
SELECT state_get_text('listed', class => 'stats'), state_get_text('listed', class => 'stats');
SELECT key, version, text_bytes >= 0 FROM state_cache_entries WHERE class = 'stats' ORDER BY key;
SELECT entries, bytes > 0 FROM state_cache_stats WHERE class = 'stats';

-- One row per class, and one for all; the memory belongs to all.
SELECT count(*) FROM state_cache_stats WHERE class = 'stats';
SELECT count(*) FROM state_cache_stats WHERE class IS NULL;
SELECT t.entries = sum(c.entries), t.hits >= sum(c.hits), t.states_written >= sum(c.states_written)
	FROM state_cache_stats c, (SELECT * FROM state_cache_stats WHERE class IS NULL) t WHERE c.class IS NOT NULL
	GROUP BY t.entries, t.hits, t.states_written;
SELECT memory_total > 0, memory_used BETWEEN 0 AND memory_total, memory_free BETWEEN 0 AND memory_total, memory_used + memory_free <= memory_total
	FROM state_cache_stats WHERE class IS NULL;
-- Emptied, the cache has its memory back.
SELECT state_cache_clear() > 0;
SELECT entries FROM state_cache_stats WHERE class IS NULL;
SELECT count(*) FROM state_cache_entries;
SELECT memory_used AS empty FROM state_cache_stats WHERE class IS NULL \gset
SELECT count(state_set('space ' || i, to_jsonb(repeat('x', 1000)), class => 'stats')) FROM generate_series(1, 1000) i;
SELECT memory_used - :empty > 1000 * 1000, entries FROM state_cache_stats WHERE class IS NULL;
SELECT state_cache_clear('stats');
SELECT memory_used - :empty < 1000 * 1000 / 2 FROM state_cache_stats WHERE class IS NULL;

-- Latencies are measured on request.
SELECT l1_read_ms AS before FROM state_cache_stats WHERE class IS NULL \gset
SELECT count(state_get('listed', class => 'stats')) FROM generate_series(1, 100);
SELECT l1_read_ms IS NOT DISTINCT FROM :before FROM state_cache_stats WHERE class IS NULL;
SET state_cache.track_timing = on;
SELECT count(state_get('listed', class => 'stats')) FROM generate_series(1, 100);
SELECT state_set('timed', '1', class => 'stats');
SELECT l1_read_ms > 0, l3_read_ms >= 0, flush_ms > 0 FROM state_cache_stats WHERE class IS NULL;
RESET state_cache.track_timing;

-- Counting is for operators, reading the documents is not part of it.
GRANT pg_monitor TO regress_state_stats;
SET ROLE regress_state_stats;
SELECT count(*) > 0 FROM state_cache_stats;
RESET ROLE;
REVOKE pg_monitor FROM regress_state_stats;
REVOKE SELECT ON state_class, state_head, state_snapshot FROM regress_state_stats;
DROP ROLE regress_state_stats;
