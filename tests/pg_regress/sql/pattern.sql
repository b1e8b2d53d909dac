-- state_invalidate: evicts what matches from L1 at once, tells the subscribers at COMMIT, changes no state.
-- The pattern is exact text, * for any run of characters, ? for one, \ before a character that is meant as such.
\a \t \pset null (null)
SELECT state_class_define('pattern');
CREATE TABLE pattern_key AS SELECT unnest(ARRAY['run-1', 'run-2', 'run-10', 'run-', 'Run-1', 'walk-1', 'a*b', 'a?b', 'axb', 'a\b', 'é', 'éé', 'x', 'aaab']) AS key;
-- how many entries a pattern evicts, and which are left out of L1 afterwards
CREATE FUNCTION evicted(pattern text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint; names text;
BEGIN
	PERFORM state_get(key, class => 'pattern') FROM pattern_key;
	n := state_invalidate(pattern, 'pattern');
	SELECT string_agg(k.key, ', ' ORDER BY k.key COLLATE "C") INTO names FROM pattern_key k
		WHERE NOT EXISTS (SELECT FROM state_cache_entries e WHERE e.class = 'pattern' AND e.key = k.key);
	RETURN n || ': ' || coalesce(names, '');
END
$$;
SELECT count(state_set(key, to_jsonb(key), class => 'pattern')) FROM pattern_key;
SELECT evicted('run-1');
SELECT evicted('run-*');
SELECT evicted('run-?');
SELECT evicted('*-1');
SELECT evicted('?un-1');
SELECT evicted('*1*');
SELECT evicted('*');
SELECT evicted('**');
SELECT evicted('?');
SELECT evicted('??');
SELECT evicted('a*b');
SELECT evicted('a\*b');
SELECT evicted('a\?b');
SELECT evicted('a\\b');
SELECT evicted('a?b');
SELECT evicted('*a*a*b');
SELECT evicted('run-%');
SELECT evicted('.*');
SELECT evicted('no such');
SELECT evicted('');
SELECT evicted('é?');
-- It stays fast where a naive matcher would not.
SELECT state_set(repeat('a', 1000), '1', class => 'pattern');
SELECT state_invalidate(repeat('a*', 100) || 'b', 'pattern');

-- No state was changed by any of this.
SELECT count(*) FROM pattern_key WHERE state_get(key, class => 'pattern') = to_jsonb(key) AND state_version(key, class => 'pattern') = 1;
-- All classes at once; other classes are left alone otherwise.
SELECT state_set('run-1', '"in run"');
SELECT state_get('run-1') IS NOT NULL;
SELECT evicted('run-1');
SELECT count(*) FROM state_cache_entries WHERE key = 'run-1';
SELECT state_get('run-1', class => 'pattern');
SELECT state_invalidate('run-1') >= 2;
SELECT count(*) FROM state_cache_entries WHERE key = 'run-1';
-- Eviction is at once, and a ROLLBACK does not undo it: nothing is lost but time.
SELECT state_get('run-1', class => 'pattern');
BEGIN;
SELECT state_invalidate('run-1', 'pattern');
ROLLBACK;
SELECT count(*) FROM state_cache_entries WHERE class = 'pattern' AND key = 'run-1';
SELECT state_get('run-1', class => 'pattern');
-- What is staged stays staged.
BEGIN;
SELECT state_set('run-1', '"staged"', class => 'pattern');
SELECT state_invalidate('*', 'pattern') > 0;
SELECT state_get('run-1', class => 'pattern');
COMMIT;
SELECT stored('run-1', 'pattern');

-- state_cache_clear: a class, or all of the database. How many entries went.
SELECT count(state_get(key, class => 'pattern')) FROM pattern_key;
SELECT state_get('run-1');
SELECT count(*) AS entries FROM state_cache_entries WHERE class = 'pattern' \gset
SELECT state_cache_clear('pattern') = :entries, :entries > 10;
SELECT count(*) FROM state_cache_entries WHERE class = 'pattern';
SELECT count(*) FROM state_cache_entries WHERE class = 'run' AND key = 'run-1';
SELECT state_cache_clear() > 0;
SELECT count(*) FROM state_cache_entries;
SELECT state_cache_clear();
SELECT state_get('run-1', class => 'pattern');
