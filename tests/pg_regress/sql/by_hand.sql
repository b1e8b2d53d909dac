-- L3 is made of ordinary tables. Whoever changes them by hand changes what the functions say.
\a \t \pset null (null)
-- What a snapshot row holds; in_head is about what the head row holds.
SELECT state_class_define('by_hand', keep => 2);
SELECT state_set('doc', '{"n": 1}', class => 'by_hand');
SELECT state_set('other', '{"n": "other"}', class => 'by_hand');
SELECT seen('doc', 'by_hand'), seen('other', 'by_hand');

-- UPDATE. state_hash() says what the hash column must hold.
BEGIN;
UPDATE state_snapshot SET state = '{"n": 2}', hash = state_hash('{"n": 2}') WHERE class = 'by_hand' AND key = 'doc';
UPDATE state_head SET hash = state_hash('{"n": 2}') WHERE class = 'by_hand' AND key = 'doc';
-- The transaction itself sees it at once, others after COMMIT.
SELECT seen('doc', 'by_hand');
ROLLBACK;
SELECT seen('doc', 'by_hand');
BEGIN;
UPDATE state_snapshot SET state = '{"n": 2}', hash = state_hash('{"n": 2}') WHERE class = 'by_hand' AND key = 'doc';
UPDATE state_head SET hash = state_hash('{"n": 2}') WHERE class = 'by_hand' AND key = 'doc';
COMMIT;
SELECT seen('doc', 'by_hand'), seen('doc', 'by_hand') = stored('doc', 'by_hand');

-- DELETE.
DELETE FROM state_head WHERE class = 'by_hand' AND key = 'doc';
SELECT seen('doc', 'by_hand'), seen('other', 'by_hand');
-- What a DELETE by hand leaves behind is in nobody's way.
SELECT state_set('doc', '{"n": 3}', class => 'by_hand');
SELECT seen('doc', 'by_hand') = stored('doc', 'by_hand'), state_get('doc', class => 'by_hand');

-- INSERT.
SELECT seen('inserted', 'by_hand');
INSERT INTO state_snapshot (class, key, version, state, hash) VALUES ('by_hand', 'inserted', 1, '{"n": 1}', state_hash('{"n": 1}'));
SELECT seen('inserted', 'by_hand');
INSERT INTO state_head (class, key, version, hash, size) VALUES ('by_hand', 'inserted', 1, state_hash('{"n": 1}'), 10);
SELECT seen('inserted', 'by_hand');
-- And it goes on like any other state.
SELECT state_update('inserted', '{"m": 2}', class => 'by_hand');
SELECT stored('inserted', 'by_hand'), seen('inserted', 'by_hand');

-- COPY, with the hash of '{"copied": true}' written out: it is the same on every server.
COPY state_snapshot (class, key, version, state, hash) FROM stdin;
by_hand	copied	1	{"copied": true}	\\x0c894fa6c6ed2111890cc51491f6dd3f
\.
COPY state_head (class, key, version, hash, size) FROM stdin;
by_hand	copied	1	\\x0c894fa6c6ed2111890cc51491f6dd3f	20
\.
SELECT seen('copied', 'by_hand');

-- Many rows in one statement.
UPDATE state_head SET deleted = true WHERE class = 'by_hand';
SELECT * FROM state_get_many('{doc,other,inserted,copied}', class => 'by_hand');
UPDATE state_head SET deleted = false WHERE class = 'by_hand';
SELECT key, state FROM state_get_many('{doc,other,inserted,copied}', class => 'by_hand');

-- By hand and through the functions in one transaction.
BEGIN;
SELECT state_update('doc', '{"staged": 1}', class => 'by_hand');
UPDATE state_snapshot SET state = '{"n": "hand"}', hash = state_hash('{"n": "hand"}') WHERE class = 'by_hand' AND key = 'other';
UPDATE state_head SET hash = state_hash('{"n": "hand"}') WHERE class = 'by_hand' AND key = 'other';
SELECT seen('doc', 'by_hand'), seen('other', 'by_hand');
SELECT state_update('other', '{"and": "staged"}', class => 'by_hand');
SELECT seen('other', 'by_hand');
COMMIT;
SELECT seen('doc', 'by_hand') = stored('doc', 'by_hand'), seen('other', 'by_hand') = stored('other', 'by_hand'), seen('other', 'by_hand');

-- Triggers that others switch off do not count here: replication applies changes in this role too.
SET session_replication_role = replica;
UPDATE state_snapshot SET state = '{"n": "replica"}', hash = state_hash('{"n": "replica"}') WHERE class = 'by_hand' AND key = 'other' AND state ? 'and';
UPDATE state_head SET hash = state_hash('{"n": "replica"}') WHERE class = 'by_hand' AND key = 'other';
RESET session_replication_role;
SELECT seen('other', 'by_hand');

-- Damage: a document and a hash that do not belong together are an error with the key, never a wrong document.
UPDATE state_snapshot SET state = '{"n": "damaged"}' WHERE class = 'by_hand' AND key = 'other';
SELECT state_get('other', class => 'by_hand');
\echo :SQLSTATE
SELECT complaint($$SELECT state_get_text('other', class => 'by_hand')$$);
SELECT complaint($$SELECT state_get_path('other', '{n}', class => 'by_hand')$$);
SELECT complaint($$SELECT state_get_section('other', 'n', class => 'by_hand')$$);
SELECT complaint($$SELECT * FROM state_get_many('{doc,other}', class => 'by_hand')$$);
SELECT complaint($$SELECT * FROM state_get_if_newer('other', 0, class => 'by_hand')$$);
-- An operation needs it as its base.
SELECT complaint($$SELECT state_update('other', '{"a": 1}', class => 'by_hand')$$);
-- The other states are as good as before.
SELECT seen('doc', 'by_hand');
-- A new document heals it.
SELECT state_set('other', '{"n": "healed"}', class => 'by_hand');
SELECT seen('other', 'by_hand'), stored('other', 'by_hand');
-- The head's hash damaged, the snapshot's column damaged, and a head without its snapshot.
UPDATE state_head SET hash = state_hash('0') WHERE class = 'by_hand' AND key = 'other';
SELECT complaint($$SELECT state_get('other', class => 'by_hand')$$);
SELECT state_set('other', '{"n": "healed again"}', class => 'by_hand');
UPDATE state_snapshot SET hash = state_hash('0') WHERE class = 'by_hand' AND key = 'other';
SELECT complaint($$SELECT state_get('other', class => 'by_hand')$$);
SELECT state_set('other', '{"n": "and again"}', class => 'by_hand');
DELETE FROM state_snapshot WHERE class = 'by_hand' AND key = 'other';
SELECT complaint($$SELECT state_get('other', class => 'by_hand')$$);
SELECT state_delete('other', class => 'by_hand');
SELECT seen('other', 'by_hand');

-- A version set by hand is the version, and the next one follows it.
UPDATE state_snapshot SET version = 41 WHERE class = 'by_hand' AND key = 'doc' AND version = (SELECT version FROM state_head WHERE class = 'by_hand' AND key = 'doc');
UPDATE state_head SET version = 41 WHERE class = 'by_hand' AND key = 'doc';
SELECT state_version('doc', class => 'by_hand');
SELECT state_update('doc', '{"n": 42}', class => 'by_hand');
SELECT state_version('doc', class => 'by_hand');
-- Within one transaction as well, while the change is staged.
BEGIN;
UPDATE state_snapshot SET version = 51 WHERE class = 'by_hand' AND key = 'doc' AND version = (SELECT version FROM state_head WHERE class = 'by_hand' AND key = 'doc');
UPDATE state_head SET version = 51 WHERE class = 'by_hand' AND key = 'doc';
SELECT state_update('doc', '{"n": 52}', class => 'by_hand');
SELECT state_version('doc', class => 'by_hand');
SELECT state_set('doc', '{"n": "52, too"}', expected_version => 52, class => 'by_hand');
COMMIT;
SELECT seen('doc', 'by_hand'), stored('doc', 'by_hand');

-- Flushed first, then changed by hand: what the tables hold is what later changes of the transaction build upon.
CREATE PROCEDURE doc_by_hand(made jsonb) LANGUAGE sql AS $$
	UPDATE state_snapshot SET state = made, hash = state_hash(made), version = version + 1
		WHERE class = 'by_hand' AND key = 'doc' AND version = (SELECT h.version FROM state_head h WHERE h.class = 'by_hand' AND h.key = 'doc');
	UPDATE state_head SET hash = state_hash(made), version = version + 1 WHERE class = 'by_hand' AND key = 'doc';
$$;
BEGIN;
SELECT state_set('doc', '{"n": "flushed"}', class => 'by_hand');
SELECT version FROM state_batch_commit();
CALL doc_by_hand('{"n": "by hand"}');
SELECT seen('doc', 'by_hand');
SELECT state_touch('doc', '1 hour', class => 'by_hand');
SELECT seen('doc', 'by_hand');
SELECT state_update('doc', '{"m": 1}', class => 'by_hand');
SELECT seen('doc', 'by_hand');
COMMIT;
SELECT seen('doc', 'by_hand'), stored('doc', 'by_hand');
BEGIN;
SELECT state_set('doc', '{"n": "flushed"}', class => 'by_hand');
SELECT version FROM state_batch_commit();
CALL doc_by_hand('{"n": "by hand"}');
SELECT state_set('doc', '{"n": "staged"}', class => 'by_hand');
SELECT state_version('doc', class => 'by_hand');
COMMIT;
SELECT seen('doc', 'by_hand'), stored('doc', 'by_hand');
BEGIN;
SELECT state_batch_begin('overwrite');
SELECT state_set('doc', '{"n": "flushed"}', class => 'by_hand');
SELECT version FROM state_batch_commit();
SELECT state_batch_begin('overwrite');
CALL doc_by_hand('{"n": "by hand"}');
SELECT state_touch('doc', NULL, class => 'by_hand');
SELECT state_update('doc', '{"m": 1}', class => 'by_hand');
COMMIT;
SELECT seen('doc', 'by_hand'), stored('doc', 'by_hand');

-- What the tables refuse is refused.
SELECT outcome($$INSERT INTO state_head (class, key, version, size) VALUES ('by_hand', '', 1, 0)$$);
SELECT outcome($$UPDATE state_head SET version = 0 WHERE class = 'by_hand'$$);
SELECT outcome($$UPDATE state_head SET hash = 'short' WHERE class = 'by_hand'$$);

-- A part that is rolled back leaves the cache in use, with the right answer.
BEGIN;
SAVEPOINT a;
UPDATE state_snapshot SET state = '{"n": "never"}', hash = state_hash('{"n": "never"}') WHERE class = 'by_hand' AND key = 'doc';
UPDATE state_head SET hash = state_hash('{"n": "never"}') WHERE class = 'by_hand' AND key = 'doc';
SELECT state_get('doc', class => 'by_hand');
ROLLBACK TO a;
SELECT state_get_path('doc', '{n}', class => 'by_hand');
COMMIT;
SELECT state_get_path('doc', '{n}', class => 'by_hand');
-- Nobody hears of it, and nothing keeps the transaction from being prepared.
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN state_updated;
LISTEN cache_invalidate;
BEGIN;
SAVEPOINT a;
TRUNCATE state_head, state_snapshot;
ROLLBACK TO a;
UPDATE state_head SET size = size WHERE class = 'by_hand' AND key = 'doc';
ROLLBACK TO a;
COMMIT;
SELECT state_exists('doc', class => 'by_hand');
BEGIN;
SAVEPOINT a;
UPDATE state_head SET size = size WHERE class = 'by_hand' AND key = 'doc';
SAVEPOINT b;
TRUNCATE state_head, state_snapshot;
RELEASE b;
ROLLBACK TO a;
COMMIT;
UNLISTEN *;
BEGIN;
SAVEPOINT a;
UPDATE state_head SET size = size WHERE class = 'by_hand' AND key = 'doc';
SAVEPOINT b;
TRUNCATE state_head, state_snapshot;
RELEASE b;
ROLLBACK TO a;
PREPARE TRANSACTION 'regress rolled back';
ROLLBACK PREPARED 'regress rolled back';
-- What a savepoint keeps counts.
BEGIN;
SAVEPOINT a;
UPDATE state_head SET size = size WHERE class = 'by_hand' AND key = 'doc';
RELEASE a;
SAVEPOINT b;
UPDATE state_head SET size = size WHERE class = 'by_hand' AND key = 'doc';
ROLLBACK TO b;
PREPARE TRANSACTION 'regress kept';
\echo :SQLSTATE

-- Twelve thousand rows in one statement.
SELECT count(state_set('bulk ' || i, to_jsonb(i), class => 'by_hand')) FROM generate_series(1, 12000) i;
SELECT sum(state::int) FROM state_get_many((SELECT array_agg('bulk ' || i) FROM generate_series(1, 12000) i), class => 'by_hand');
DELETE FROM state_head WHERE class = 'by_hand' AND key LIKE 'bulk %';
SELECT count(*) FROM state_get_many((SELECT array_agg('bulk ' || i) FROM generate_series(1, 12000) i), class => 'by_hand');
DELETE FROM state_snapshot WHERE class = 'by_hand' AND key LIKE 'bulk %';

-- TRUNCATE: the transaction itself sees it at once, others after COMMIT.
BEGIN;
TRUNCATE state_head, state_snapshot;
SELECT seen('doc', 'by_hand');
SELECT state_set('doc', '{"after": "truncate"}', class => 'by_hand');
SELECT seen('doc', 'by_hand');
ROLLBACK;
SELECT state_get_path('doc', '{n}', class => 'by_hand');
BEGIN;
SELECT state_set('staged before', '{}', class => 'by_hand');
TRUNCATE state_head, state_snapshot;
SELECT seen('doc', 'by_hand');
COMMIT;
SELECT seen('doc', 'by_hand'), seen('staged before', 'by_hand'), seen('staged before', 'by_hand') = stored('staged before', 'by_hand');
SELECT state_set('doc', '{"n": "new"}', class => 'by_hand');
SELECT seen('doc', 'by_hand'), stored('doc', 'by_hand');
