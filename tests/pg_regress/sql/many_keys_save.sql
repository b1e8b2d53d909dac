-- Labels, parents and payloads of saved versions.
SELECT state_class_define('threads', keep => 0);
SELECT state_class_define('latest');
SELECT * FROM state_save('t-1', '{"n": 1}', label => 'c-1', payload => '\x00ff', class => 'threads');
SELECT * FROM state_save('t-1', '{"n": 2}', label => 'c-2', payload => '\x01', class => 'threads',
	execution_context => '{"step": 2}');
SELECT * FROM state_save('t-1', '{"n": 3}', label => 'c-3', parent_version => 1, class => 'threads');
SELECT * FROM state_save_text('t-1', '{"n": 4}', label => 'c-4', parent_version => 0, payload => '\x', class => 'threads');
SELECT version, parent_version, label, state FROM state_kept WHERE class = 'threads' ORDER BY version;

-- A version is skipped only if label and payload are the same, too.
SELECT * FROM state_save('t-2', '{}', label => 'a', payload => '\x01', class => 'threads');
SELECT * FROM state_save('t-2', '{}', label => 'a', payload => '\x01', class => 'threads');
SELECT * FROM state_save('t-2', '{}', label => 'a', payload => '\x02', class => 'threads');
SELECT * FROM state_save('t-2', '{}', label => 'b', payload => '\x02', class => 'threads');
SELECT * FROM state_save('t-2', '{}', label => 'b', class => 'threads');
SELECT * FROM state_save('t-2', '{}', class => 'threads');
SELECT * FROM state_save('t-2', '{}', class => 'threads');
SELECT * FROM state_save('t-2', '{}', parent_version => 1, class => 'threads');

-- In a class that keeps one version, a snapshot row holds what has either; the next version takes its place.
SELECT * FROM state_save('t', '{"n": 1}', label => 'a', payload => '\x01', class => 'latest');
SELECT version, label, in_head FROM state_kept WHERE class = 'latest';
SELECT state_get('t', class => 'latest');
SELECT state_set('t', '{"n": 2}', class => 'latest');
SELECT version, label, in_head FROM state_kept WHERE class = 'latest';
SELECT * FROM state_save('t', '{"n": 3}', label => 'b', class => 'latest');
SELECT * FROM state_save('t', '{"n": 4}', label => 'c', class => 'latest');
SELECT version, label, in_head FROM state_kept WHERE class = 'latest';

-- Payloads are stored as differences, and stay readable whatever goes beneath them.
DO $$ BEGIN
	FOR i IN 1..40 LOOP
		PERFORM state_save('long', jsonb_build_object('n', i), label => 'c-' || i, class => 'threads',
			payload => convert_to(repeat('some words of a message ', 40) || (SELECT string_agg(md5(n::text), ' ') FROM generate_series(1, i) n), 'UTF8'));
		COMMIT;
	END LOOP;
END $$;
SELECT sum(octet_length(payload)) < 16000 AS is_small, count(*) FILTER (WHERE substring(payload, 1, 1) = '\x52') > 30 AS are_deltas
	FROM state_snapshot WHERE class = 'threads' AND key = 'long';
SELECT * FROM state_verify('threads');
SELECT state_prune('threads', keep => 3);
SELECT * FROM state_verify('threads');
SELECT version, substring(payload, 1, 1) FROM state_snapshot WHERE class = 'threads' AND key = 'long' ORDER BY version;
-- Going back takes the payload along, and not the label.
SELECT state_restore('long', 39, class => 'threads');
SELECT version, parent_version, label, octet_length(payload) > 100 AS has_payload FROM state_snapshot WHERE class = 'threads' AND key = 'long' AND version > 39 ORDER BY version;
SELECT * FROM state_verify('threads');
-- By hand: what a payload builds upon is needed.
SELECT state_save('needed', '{"n": 1}', payload => convert_to(repeat('word ', 1000), 'UTF8'), class => 'threads');
SELECT state_save('needed', '{"n": 2}', payload => convert_to(repeat('word ', 1000) || 'end', 'UTF8'), class => 'threads');
SELECT version, substring(payload, 1, 1) FROM state_snapshot WHERE class = 'threads' AND key = 'needed' ORDER BY version;
\set VERBOSITY sqlstate
DELETE FROM state_snapshot WHERE class = 'threads' AND key = 'needed' AND version = 1;
\set VERBOSITY default
-- Damage of a payload is found.
ALTER TABLE state_snapshot DISABLE TRIGGER USER;
UPDATE state_snapshot SET payload = set_byte(payload, length(payload) - 1, get_byte(payload, length(payload) - 1) # 1) WHERE class = 'threads' AND key = 'needed' AND version = 2;
DO $$ DECLARE t name; BEGIN FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'state_snapshot'::regclass AND NOT tgisinternal LOOP EXECUTE format('ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER %I', t); END LOOP; END $$;
SELECT * FROM state_verify('threads');
SELECT * FROM state_verify('threads', repair => true);
SELECT * FROM state_verify('threads');
SELECT key, version, label, payload IS NOT NULL AS has_payload FROM state_damaged WHERE class = 'threads';

-- Labels are unique where the class wants that: among the kept versions of a state.
SELECT state_class_define('unique', keep => 0, unique_labels => true);
SELECT * FROM state_save('u', '{"n": 1}', label => 'a', class => 'unique');
SELECT * FROM state_save('u', '{"n": 2}', class => 'unique');
SELECT * FROM state_save('u', '{"n": 3}', class => 'unique');
SELECT * FROM state_save('u', '{"n": 4}', label => 'a', class => 'unique');
SELECT * FROM state_save('other', '{"n": 4}', label => 'a', class => 'unique');
BEGIN;
SELECT * FROM state_save('u', '{"n": 5}', label => 'b', class => 'unique');
SAVEPOINT one;
SELECT * FROM state_save_text('u', '{"n": 6}', label => 'b', class => 'unique');
ROLLBACK TO one;
COMMIT;
SELECT version, label FROM state_list('u', states => false, class => 'unique');
-- A deleted state keeps its labels, a purged one does not.
SELECT state_delete('u', class => 'unique');
SELECT * FROM state_save('u', '{"n": 7}', label => 'a', class => 'unique');
SELECT state_copy('other', 'u', 'unique');
SELECT state_purge('{u}', class => 'unique');
SELECT state_copy('other', 'u', 'unique');
SELECT label, state FROM state_list('u', class => 'unique');
SELECT state_class_define('unique', unique_labels => false);
SELECT action FROM state_save('u', '{"n": 8}', label => 'a', class => 'unique');

-- Bad input.
SELECT state_save('t-1', '{}', label => '', class => 'threads');
SELECT state_save('t-1', '{}', label => repeat('x', 256), class => 'threads');
SELECT state_save('t-1', '{}', parent_version => -1, class => 'threads');
SELECT state_save('t-1', '{}', parent_version => 5, class => 'threads');
SELECT state_save('t-9', '{}', parent_version => 1, class => 'threads');
SELECT state_save('t-9', '{}', parent_version => 0);
SET state_cache.max_state_size = '1kB';
SELECT state_save('t-9', '{}', payload => decode(repeat('00', 2000), 'hex'), class => 'threads');
RESET state_cache.max_state_size;
DELETE FROM state_snapshot WHERE class IN ('threads', 'latest', 'unique');
DELETE FROM state_head WHERE class IN ('threads', 'latest', 'unique');
DELETE FROM state_damaged WHERE class IN ('threads', 'latest', 'unique');
DELETE FROM state_class WHERE class IN ('threads', 'latest', 'unique');
