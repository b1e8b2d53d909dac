-- Validated reads: where L1 may not answer by itself, the head row says whether its entry is the answer.
\a \t \pset null (null)
CREATE FUNCTION validated() RETURNS bigint LANGUAGE sql
	AS $$SELECT validated FROM state_cache_stats WHERE class = 'validated'$$;
SELECT state_class_define('validated', keep => 20);
SELECT state_set(key, '{"n": 1}', class => 'validated') FROM unnest('{mine,other,gone,aged}'::text[]) key;
SELECT count(state_get(key, class => 'validated')) FROM unnest('{mine,other,gone,aged}'::text[]) key;

-- SERIALIZABLE, all forms.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state_get('mine', class => 'validated'), state_get_text('mine', class => 'validated'),
	state_get_path('mine', '{n}', class => 'validated'), state_version('mine', class => 'validated'),
	state_exists('mine', class => 'validated');
SELECT * FROM state_get_many('{mine,other}', class => 'validated');
SELECT * FROM state_get_if_newer('mine', 0, class => 'validated');
COMMIT;
SELECT validated();
-- A path that leads into a scalar is the same error, and none of a state that is not there.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT complaint($$SELECT state_get_section('mine', 'n', class => 'validated')$$);
ROLLBACK;
-- What the transaction has changed itself is its own.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state_set('mine', '{"n": 2}', class => 'validated');
SELECT state_get('mine', class => 'validated');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state_get('mine', class => 'validated');
COMMIT;

-- A deleted state, and one that has expired, are absent whatever L1 holds.
SELECT state_touch('aged', ttl => '300 ms', class => 'validated');
SELECT state_get('aged', class => 'validated') IS NOT NULL;
SELECT state_delete('gone', class => 'validated');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pg_sleep(0.31);
SELECT state_get('aged', class => 'validated'), state_get('gone', class => 'validated'),
	state_get('never', class => 'validated');
COMMIT;

-- Row-level security on state_head: its policies decide, for each statement anew.
CREATE ROLE regress_state_validated;
GRANT SELECT ON state_class, state_head, state_snapshot TO regress_state_validated;
ALTER TABLE state_head ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON state_head USING (key = current_setting('validated.sees', true));
SET ROLE regress_state_validated;
SET validated.sees = 'mine';
SELECT state_get('mine', class => 'validated'), state_get('other', class => 'validated');
SET validated.sees = 'other';
SELECT state_get('mine', class => 'validated'), state_get('other', class => 'validated');
SELECT state_exists('mine', class => 'validated'), state_version('other', class => 'validated');
-- A section that is missing from a hidden state is no error: there is no state.
SELECT complaint($$SELECT state_get_section('mine', 'n', class => 'validated')$$);
RESET ROLE;
-- Policies of state_snapshot are asked of the tables.
ALTER TABLE state_snapshot ENABLE ROW LEVEL SECURITY;
CREATE POLICY none ON state_snapshot USING (false);
SELECT validated() AS before \gset
SET ROLE regress_state_validated;
SELECT state_get('other', class => 'validated');
RESET ROLE;
SELECT validated() - :before;
DROP POLICY none ON state_snapshot;
ALTER TABLE state_snapshot DISABLE ROW LEVEL SECURITY;
DROP POLICY mine ON state_head;
ALTER TABLE state_head DISABLE ROW LEVEL SECURITY;

-- The version alone does not do: a document that was replaced by hand keeps its number. (The session that changed it
-- reads the tables; the entry goes with its commit; at SERIALIZABLE nothing is filled.)
SELECT state_get('other', class => 'validated');
UPDATE state_head SET hash = state_hash('{"n": "by hand"}') WHERE class = 'validated' AND key = 'other';
UPDATE state_snapshot SET state = '{"n": "by hand"}', hash = state_hash('{"n": "by hand"}')
	WHERE class = 'validated' AND key = 'other' AND version = 1;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT state_get('other', class => 'validated');
COMMIT;

REVOKE SELECT ON state_class, state_head, state_snapshot FROM regress_state_validated;
DROP ROLE regress_state_validated;
SELECT count(state_delete(key, class => 'validated')) FROM unnest('{mine,other}'::text[]) key;
DELETE FROM state_class WHERE class = 'validated';
DROP FUNCTION validated();
