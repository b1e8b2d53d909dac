-- Causal reads on a primary: nothing is waited for, what is not there is an error.
\a \t \pset null (null)
SELECT state_class_define('causal');
SELECT state_set('a', '{"n": 1}', class => 'causal');
SELECT state_set('a', '{"n": 2}', class => 'causal');
SELECT state_wait('a', 1, class => 'causal'), state_wait('a', 2, '0', 'causal'), state_wait('a', 0, class => 'causal');
SELECT complaint($$SELECT state_wait('a', 3, class => 'causal')$$);
SELECT complaint($$SELECT state_wait('b', 1, class => 'causal')$$);
SELECT state_wait('b', 0, class => 'causal');
-- All forms.
SELECT state_get('a', 'causal', 2), state_get_text('a', 'causal', 2), state_get_path('a', '{n}', 'causal', 2);
SELECT state_get('a', class => 'causal', min_version => NULL), state_get('b', class => 'causal', min_version => 0);
SELECT complaint($$SELECT state_get('a', class => 'causal', min_version => 3)$$);
SELECT complaint($$SELECT state_get_text('a', class => 'causal', min_version => 3)$$);
SELECT complaint($$SELECT state_get_path('a', '{n}', class => 'causal', min_version => 3)$$);
SELECT state_set('b', '{"n": 1}', class => 'causal');
SELECT * FROM state_get_many('{a,b}', 'causal', 1);
SELECT complaint($$SELECT * FROM state_get_many('{a,b}', 'causal', 2)$$);
SELECT * FROM state_get_many('{}', 'causal', 2);
-- A deletion has a version too, and the state is absent.
SELECT state_delete('b', class => 'causal');
SELECT state_wait('b', 2, class => 'causal'), state_get('b', 'causal', 2);
SELECT complaint($$SELECT state_wait('b', 3, class => 'causal')$$);
-- What the transaction has staged counts for itself.
BEGIN;
SELECT state_set('a', '{"n": 3}', class => 'causal');
SELECT state_get('a', 'causal', 3), state_wait('a', 3, class => 'causal');
ROLLBACK;
SELECT complaint($$SELECT state_get('a', 'causal', 3)$$);
-- One snapshot only.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT state_get('a', 'causal', 2);
SELECT complaint($$SELECT state_get('a', 'causal', 3)$$);
SELECT complaint($$SELECT state_wait('a', 3, class => 'causal')$$);
COMMIT;
-- Bad input.
SELECT complaint($$SELECT state_wait('a', -1, class => 'causal')$$);
SELECT complaint($$SELECT state_get('a', 'causal', -1)$$);
SELECT complaint($$SELECT state_wait('a', 1, '-1 s', 'causal')$$);
SELECT complaint($$SELECT state_wait('a', 1, '1000000 years', 'causal')$$);
SELECT complaint($$SELECT state_wait(NULL, 1, class => 'causal')$$);
SELECT complaint($$SELECT state_wait('a', NULL, class => 'causal')$$);
SELECT complaint($$SELECT state_wait('a', 1, NULL, 'causal')$$);
SELECT complaint($$SELECT state_wait('a', 1, class => 'no such class')$$);
SELECT complaint($$SELECT state_wait('', 1, class => 'causal')$$);
-- Cursors.
SELECT cursor FROM state_cursor() \gset
SELECT state_wait_for(:'cursor'), state_wait_for(:'cursor', '0');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT state_wait_for(:'cursor');
SELECT cursor FROM state_cursor() \gset
SELECT state_wait_for(:'cursor');
COMMIT;
SELECT complaint($$SELECT state_wait_for('nonsense')$$);
SELECT complaint($$SELECT state_wait_for(NULL)$$);
SELECT complaint(format('SELECT state_wait_for(%L, %L)', :'cursor', '-1 s'));
SELECT complaint(format('SELECT state_wait_for(%L)', '2-1-1-1-1-0-1-1-1-1-'));
-- Derived documents have no versions.
CREATE TABLE causal_rows (id text PRIMARY KEY);
SELECT state_class_define('causal_derived', source => 'SELECT to_jsonb(r) FROM causal_rows r WHERE id = $1', cache_ttl => '1 min');
SELECT complaint($$SELECT state_wait('a', 1, class => 'causal_derived')$$);
SELECT complaint($$SELECT state_get('a', 'causal_derived', 1)$$);
SELECT complaint($$SELECT * FROM state_get_many('{a}', 'causal_derived', 1)$$);
SELECT state_get('a', 'causal_derived', NULL);
-- A class that is deleted by hand and leaves its source is shown as that.
BEGIN;
DELETE FROM state_class WHERE class = 'causal_derived';
SELECT * FROM state_sources WHERE class = 'causal_derived';
ROLLBACK;
SELECT state_class_define('causal_derived', source => '');
DELETE FROM state_class WHERE class = 'causal_derived';
DROP TABLE causal_rows;
-- A role reads what it may: 42501 as for any read.
CREATE ROLE regress_state_causal;
SET ROLE regress_state_causal;
SELECT left(complaint($$SELECT state_wait('a', 1, class => 'causal')$$), 5), left(complaint(format('SELECT state_wait_for(%L)', :'cursor')), 5);
RESET ROLE;
DROP ROLE regress_state_causal;
SELECT state_delete('a', class => 'causal');
DELETE FROM state_class WHERE class = 'causal';
