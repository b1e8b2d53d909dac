-- Versions count 1, 2, 3 … per state and are never used again; expected_version makes a change depend on one.
\a \t \pset null (null)
SELECT state_class_define('versions');

SELECT state_set('doc', '{"n": 1}', class => 'versions');
SELECT state_version('doc', class => 'versions');
SELECT state_update('doc', '{"n": 2}', class => 'versions');
SELECT state_version('doc', class => 'versions');

-- A delete is a version too, and a state that comes back goes on counting.
SELECT state_delete('doc', class => 'versions');
SELECT version, deleted FROM state_head WHERE class = 'versions' AND key = 'doc';
SELECT state_version('doc', class => 'versions');
SELECT state_set('doc', '{"n": 4}', class => 'versions');
SELECT state_version('doc', class => 'versions');
-- parent_version says what it was made from: nothing, after a delete.
SELECT version, parent_version, state FROM state_kept WHERE class = 'versions' AND key = 'doc';

-- However many changes a transaction makes to a state, they are one version.
BEGIN;
SELECT state_update('doc', '{"n": 5}', class => 'versions');
-- Until the flush the version is a provisional one: the base and one more.
SELECT state_version('doc', class => 'versions');
SELECT state_update('doc', '{"n": 6}', class => 'versions');
SELECT state_version('doc', class => 'versions');
COMMIT;
SELECT stored('doc', 'versions');

-- expected_version: go on only if the state is what I know.
SELECT state_set('doc', '{"n": 7}', expected_version => 5, class => 'versions');
SELECT stored('doc', 'versions');
SELECT state_set('doc', '{"n": 8}', expected_version => 5, class => 'versions');
\echo :SQLSTATE
SELECT state_delete('doc', expected_version => 5, class => 'versions');
\echo :SQLSTATE
SELECT stored('doc', 'versions');
-- It is checked also where nothing changes.
SELECT state_set('doc', '{"n": 7}', expected_version => 5, class => 'versions');
\echo :SQLSTATE
SELECT state_set('doc', '{"n": 7}', expected_version => 6, class => 'versions');
SELECT stored('doc', 'versions');

-- 0: only if there is none.
SELECT state_set('doc', '{}', expected_version => 0, class => 'versions');
\echo :SQLSTATE
SELECT state_set('first', '{"n": 1}', expected_version => 0, class => 'versions');
SELECT stored('first', 'versions');
SELECT state_delete('first', expected_version => 1, class => 'versions');
SELECT state_set('first', '{"n": 3}', expected_version => 0, class => 'versions');
SELECT stored('first', 'versions');
SELECT state_delete('nothing here', expected_version => 0, class => 'versions');
SELECT state_delete('nothing here', expected_version => 1, class => 'versions');
\echo :SQLSTATE
-- A version from the future matches nothing.
SELECT state_set('first', '{}', expected_version => 9223372036854775807, class => 'versions');
\echo :SQLSTATE

-- What the transaction has staged itself counts as the state it sees.
BEGIN;
SELECT state_set('first', '{"n": 4}', expected_version => 3, class => 'versions');
SELECT state_version('first', class => 'versions');
SELECT state_set('first', '{"n": 5}', expected_version => 4, class => 'versions');
SAVEPOINT s;
SELECT state_set('first', '{"n": 6}', expected_version => 3, class => 'versions');
\echo :SQLSTATE
ROLLBACK TO s;
COMMIT;
SELECT stored('first', 'versions');
BEGIN;
SELECT state_delete('first', expected_version => 4, class => 'versions');
SELECT state_version('first', class => 'versions');
SELECT state_set('first', '{"n": 7}', expected_version => 0, class => 'versions');
SELECT state_version('first', class => 'versions');
COMMIT;
SELECT stored('first', 'versions');

-- Flushed twice in one transaction: two versions, both seen at once.
BEGIN;
SELECT state_set('first', '{"n": "a"}', class => 'versions');
SELECT key, version, action FROM state_batch_commit();
SELECT state_set('first', '{"n": "b"}', class => 'versions');
SELECT key, version, action FROM state_batch_commit();
SELECT seen('first', 'versions'), stored('first', 'versions');
ROLLBACK;
SELECT seen('first', 'versions'), stored('first', 'versions');

-- keep: how many snapshots stay. 1 is the default, NULL (0 in state_class_define) keeps all.
SELECT state_class_define('keep3', keep => 3);
SELECT state_class_define('keep all', keep => 0);
DO $$
BEGIN
	FOR i IN 1..6 LOOP
		PERFORM state_set('doc', to_jsonb(i), class => c) FROM unnest('{versions,keep3,keep all}'::text[]) c;
		COMMIT;
	END LOOP;
END
$$;
SELECT class, array_agg(version ORDER BY version), array_agg(parent_version ORDER BY version), array_agg(state ORDER BY version)
	FROM state_kept WHERE class IN ('versions', 'keep3', 'keep all') AND key = 'doc' GROUP BY class ORDER BY class;
-- A class that keeps fewer from now on forgets the rest at once.
SELECT state_class_define('keep all', keep => 2);
SELECT state_set('doc', '"next"', class => 'keep all');
SELECT version, state FROM state_snapshot WHERE class = 'keep all' ORDER BY version;
-- The versions before a delete are kept as well; the tombstone counts among them.
SELECT state_delete('doc', class => 'keep3');
SELECT version, state FROM state_snapshot WHERE class = 'keep3' ORDER BY version;
SELECT state_set('doc', '"back"', class => 'keep3');
SELECT version, parent_version, state FROM state_snapshot WHERE class = 'keep3' ORDER BY version;

-- A staged change shows the version that the flush will write, whatever was staged before it.
SELECT state_set('staged', '{"v": 1}', class => 'versions');
BEGIN;
SELECT state_update('staged', '{"w": 2}', class => 'versions');
SELECT state_version('staged', class => 'versions');
SELECT state_delete('staged', class => 'versions');
SELECT state_version('staged', class => 'versions');
SELECT state_set('staged', '{"v": 3}', class => 'versions');
SELECT state_version('staged', class => 'versions');
SELECT state_set('staged', '{"v": 4}', expected_version => 2, class => 'versions');
COMMIT;
SELECT seen('staged', 'versions'), stored('staged', 'versions');
