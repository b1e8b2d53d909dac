-- Logs: entries beside a state, each id once.
\a \t \pset null (null)
CREATE FUNCTION shown(key text, ref text DEFAULT NULL, class text DEFAULT 'run') RETURNS SETOF text LANGUAGE sql VOLATILE AS $$
	SELECT concat_ws(' ', l.ref, CASE WHEN l.id LIKE '#%' THEN '#' ELSE l.id END, l.entry, convert_from(l.payload, 'UTF8'))
		FROM state_log(shown.key, shown.ref, class => shown.class) l ORDER BY l.number
$$;
SELECT state_log_append('a', '[{"n": 1}, {"n": 2}, "three", null, [5]]');
SELECT * FROM shown('a');
-- A second call goes on behind the first; the number of the last that was seen is where a reader goes on.
SELECT state_log_append('a', '[6, 7]');
SELECT l.entry, l.id = '#' || l.number FROM state_log('a') f, state_log('a', after => f.number) l WHERE f.entry = '[5]' ORDER BY l.number;
SELECT entry FROM state_log('a', "limit" => 2);
SELECT entry FROM state_log('a', '', "limit" => 2);
SELECT count(*) FROM state_log('a', "limit" => 0);
-- No state comes of it, and no version.
SELECT state_exists('a'), state_version('a'), (SELECT count(*) FROM state_head WHERE key = 'a');

-- An id again is skipped, also within a call: the first counts.
SELECT state_log_append('b', '[1, 2]', 'step-1', '{x, y}'), state_log_append('b', '[3, 4, 5]', 'step-1', '{y, z, z}');
SELECT * FROM shown('b');
-- Each ref has ids of its own, and so has each key and class.
SELECT state_log_append('b', '[6]', 'step-2', '{x}'), state_log_append('b', '[7]', NULL, '{x}'), state_log_append('b2', '[8]', 'step-1', '{x}'),
	state_log_append('b', '[9]', 'step-1', '{x}', class => 'config');
SELECT * FROM shown('b');
SELECT * FROM shown('b', 'step-1');
SELECT * FROM shown('b', '');
SELECT * FROM shown('b', class => 'config');
-- Replaced, it keeps its place; the last of a call counts. The same again is no write.
SELECT state_log_append('b', '["x", "w", "x again"]', 'step-1', '{x, w, x}', replace => true);
SELECT * FROM shown('b', 'step-1');
SELECT state_log_append('b', '["x again", "w", "z"]', 'step-1', '{x, w, z}', replace => true);
-- 1.0 and 1.00 are different documents.
SELECT state_log_append('b', '[1.0]', 'n', '{n}'), state_log_append('b', '[1.00]', 'n', '{n}', replace => true), state_log_append('b', '[1.00]', 'n', '{n}', replace => true);
SELECT * FROM shown('b', 'n');
-- What is skipped, or the same, takes no transaction id.
CREATE FUNCTION costs_an_id(call text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
	RETURN pg_current_xact_id_if_assigned() IS NOT NULL;
END
$$;
SELECT costs_an_id($$SELECT state_log_append('b', '[0]', 'step-1', '{x}')$$);
SELECT costs_an_id($$SELECT state_log_append('b', '["x again"]', 'step-1', '{x}', replace => true)$$);
SELECT costs_an_id($$SELECT state_log_append('b', '[]')$$);
SELECT costs_an_id($$SELECT state_log_append('b', '["another"]', 'step-1', '{x}', replace => true)$$);

-- Bytes beside an entry, or without one.
SELECT state_log_append('p', '[{"type": "msgpack"}, {"type": "json"}]', 'c1', '{t:0, t:1}', payloads => ARRAY['one'::bytea, NULL]);
SELECT state_log_append('p', NULL, 'c1', payloads => ARRAY['two'::bytea, '\x']);
SELECT * FROM shown('p');
SELECT state_log_append('p', '[{"type": "msgpack"}]', 'c1', '{t:0}', true, ARRAY['one'::bytea]), state_log_append('p', '[{"type": "msgpack"}]', 'c1', '{t:0}', true, ARRAY['One'::bytea]);
SELECT * FROM shown('p');
SELECT entry, length(payload) FROM state_log('p', 'c1') WHERE id LIKE '#%';

-- It is the transaction's own until that commits, and goes with a savepoint.
BEGIN;
SELECT state_log_append('t', '[1]');
SAVEPOINT s;
SELECT state_log_append('t', '[2]');
ROLLBACK TO s;
SELECT state_log_append('t', '[3]');
SELECT * FROM shown('t');
ROLLBACK;
SELECT * FROM shown('t');
BEGIN READ ONLY;
SELECT outcome($$SELECT state_log_append('t', '[1]')$$), outcome($$SELECT state_log_erase('t')$$);
COMMIT;

-- Erasing.
SELECT state_log_erase('b', '{step-2, n, nothing}'), state_log_erase('b', '{""}');
SELECT * FROM shown('b');
SELECT state_log_erase('b'), state_log_erase('b'), count(*) FROM shown('b');
SELECT * FROM shown('b2');

-- Many: one call, and many logs in one transaction, which take no more locks than the server has.
SELECT state_log_append('many', jsonb_agg(n), ids => array_agg('i' || n)) FROM generate_series(1, 10000) n;
SELECT state_log_append('many', jsonb_agg(n), ids => array_agg('i' || n)) FROM generate_series(9991, 10010) n;
SELECT count(*), count(DISTINCT number), min(entry::int), max(entry::int) FROM state_log('many');
SELECT bool_and(entry::int = n) FROM state_log('many') WITH ORDINALITY l (number, ref, id, entry, payload, created_at, n);
BEGIN;
SELECT sum(state_log_append('many-' || n, '[1]')) FROM generate_series(1, 20000) n;
SELECT count(*) < 400 FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
COMMIT;
SELECT count(*) FROM state_log_entry WHERE key LIKE 'many-%';

-- A deleted state keeps its log, until its tombstone goes (tests/server/tests/suite/logs.rs).
SELECT state_set('gone', '{}'), state_log_append('gone', '[1]');
SELECT state_delete('gone');
SELECT * FROM shown('gone');

-- What is refused.
CREATE TABLE logged (id text, doc jsonb);
SELECT state_class_define('computed', cache_ttl => '1 hour', source => 'SELECT doc FROM logged WHERE id = $1');
SELECT complaint(c) FROM unnest(ARRAY[
	$$SELECT state_log_append(NULL, '[]')$$, $$SELECT state_log_append('', '[]')$$, $$SELECT state_log_append('a', NULL)$$, $$SELECT state_log_append('a', '{}')$$, $$SELECT state_log_append('a', '1')$$,
	$$SELECT state_log_append('a', '[1]', replace => NULL)$$, $$SELECT state_log_append('a', '[1]', class => NULL)$$, $$SELECT state_log_append('a', '[1]', class => 'unknown')$$,
	$$SELECT state_log_append('a', '[1]', ids => '{}')$$, $$SELECT state_log_append('a', '[1]', ids => '{a, b}')$$, $$SELECT state_log_append('a', '[1]', ids => '{NULL}')$$, $$SELECT state_log_append('a', '[1]', ids => '{""}')$$,
	$$SELECT state_log_append('a', '[1]', ids => '{#5}')$$, $$SELECT state_log_append('a', '[1]', ids => ARRAY[repeat('x', 256)])$$, $$SELECT state_log_append('a', '[1]', repeat('x', 256))$$,
	$$SELECT state_log_append('a', '[1]', payloads => '{}')$$, $$SELECT state_log_append('a', NULL, ids => '{a}', payloads => ARRAY['a', 'b']::bytea[])$$,
	$$SELECT state_log_append('a', '[1]', class => 'computed')$$, $$SELECT state_log_erase('a', class => 'computed')$$, $$SELECT state_log_erase(NULL)$$, $$SELECT state_log_erase('a', class => 'unknown')$$,
	$$SELECT * FROM state_log(NULL)$$, $$SELECT * FROM state_log('')$$, $$SELECT * FROM state_log('a', class => 'unknown')$$, $$SELECT * FROM state_log('a', "limit" => -1)$$, $$SELECT * FROM state_log('a', repeat('x', 256))$$]) WITH ORDINALITY c (c, n) ORDER BY n;
SET state_cache.max_state_size = '1kB';
SELECT outcome($$SELECT state_log_append('a', jsonb_build_array(repeat('x', 2000)))$$), outcome($$SELECT state_log_append('a', NULL, payloads => ARRAY[repeat('x', 2000)::bytea])$$);
RESET state_cache.max_state_size;
DELETE FROM state_class WHERE class = 'computed';
DELETE FROM state_source WHERE class = 'computed';
DROP TABLE logged;

-- The privileges and policies of the table decide.
CREATE ROLE regress_log_nobody;
CREATE ROLE regress_log_reader;
CREATE ROLE regress_log_writer;
GRANT SELECT ON state_log_entry TO regress_log_reader, regress_log_writer;
GRANT INSERT, UPDATE, DELETE ON state_log_entry TO regress_log_writer;
GRANT USAGE ON SEQUENCE state_log_number TO regress_log_writer;
CREATE FUNCTION each_log_call() RETURNS SETOF text LANGUAGE sql VOLATILE AS $$
	SELECT outcome(c) FROM unnest(ARRAY[$c$SELECT * FROM state_log('ours')$c$, $c$SELECT state_log_append('ours', '[1]', 'r', '{i}')$c$, $c$SELECT state_log_append('ours', '[2]', 'r', '{i}', true)$c$, $c$SELECT state_log_erase('ours', '{r}')$c$])
		WITH ORDINALITY c (c, n) ORDER BY n
$$;
SET ROLE regress_log_nobody;
SELECT * FROM each_log_call();
SET ROLE regress_log_reader;
SELECT * FROM each_log_call();
SET ROLE regress_log_writer;
SELECT * FROM each_log_call();
RESET ROLE;
SELECT state_log_append('ours', '[1]', ids => '{i}'), state_log_append('theirs', '[1]', ids => '{i}');
ALTER TABLE state_log_entry ENABLE ROW LEVEL SECURITY;
CREATE POLICY ours ON state_log_entry TO regress_log_writer USING (key = 'ours');
SET ROLE regress_log_writer;
SELECT entry FROM state_log('ours');
SELECT count(*) FROM state_log('theirs');
SELECT state_log_erase('theirs'), outcome($$SELECT state_log_append('theirs', '[2]')$$), outcome($$SELECT state_log_append('theirs', '[2]', ids => '{i}', replace => true)$$);
RESET ROLE;
SELECT entry FROM state_log('theirs');
DROP POLICY ours ON state_log_entry;
ALTER TABLE state_log_entry DISABLE ROW LEVEL SECURITY;
DROP OWNED BY regress_log_nobody, regress_log_reader, regress_log_writer;
DROP ROLE regress_log_nobody, regress_log_reader, regress_log_writer;
-- In a transaction of an older snapshot an entry that it does not see is a conflict. (tests/isolation/specs/log_append.spec)
DELETE FROM state_log_entry;
DROP FUNCTION shown, costs_an_id, each_log_call;
