-- Intervals are checked where they are given: no longer than 5000 years, all their parts together, and an error names
-- the value. What is taken makes no later write fail.
\a \t \pset null (null)
CREATE TABLE taker (n int GENERATED ALWAYS AS IDENTITY, call text);
INSERT INTO taker (call) VALUES
	('state_class_define(''intervals'', ttl => %L)'),
	('state_class_define(''intervals'', cache_ttl => %L)'),
	('state_class_define(''intervals'', keep_for => %L)'),
	('state_set(''k'', ''1'', ttl => %L, class => ''intervals'')'),
	('state_touch(''k'', %L, ''intervals'')'),
	('state_save(''k'', ''1'', ttl => %L, class => ''intervals'')'),
	('state_prune(''intervals'', older_than => %L)'),
	('state_context_claim(''intervals'', ''me'', %L)'),
	('state_context_renew(''intervals'', (SELECT token FROM state_claim WHERE run_id = ''intervals''), %L)'),
	('state_blackboard_add(''intervals'', %L, ''1'', ttl => %1$L)'),
	('state_blackboard_update(''intervals'', ''item'', ttl => %L)'),
	('state_context_mark_export(''intervals'', ''report'', ''blackboard'', item => jsonb_build_object(''ttl'', %L))');
SELECT state_class_define('intervals');
SELECT state_set('k', '0', class => 'intervals');
SELECT state_context_create('intervals', swarm_id => 'intervals');
SELECT state_context_set('intervals', 'report', '1');
SELECT state_context_claim('intervals', 'me') IS NOT NULL;
SELECT state_blackboard_add('intervals', 'item', '1');
-- Too long by one part, by all together, or by a part that another takes back.
SELECT call, complaint('SELECT ' || format(call, '178000000 years')) FROM taker ORDER BY n;
SELECT long, count(*), outcome
	FROM (VALUES ('5001 years'), ('60001 months'), ('1800001 days'), ('43200000.1 hours'), ('3000 years 730000 days'),
		('5000 years 0.000001 s'), ('5880000 years -2100000000 days'), ('-5000 years 1800001 days')) v (long),
	taker, outcome('SELECT ' || format(call, long)) outcome
	GROUP BY long, outcome ORDER BY long COLLATE "C", outcome COLLATE "C";
-- Endless ones exist since PostgreSQL 17; before they are no intervals.
SELECT DISTINCT left(outcome, 5) IN ('22023', '22007') FROM taker, unnest(ARRAY['infinity', '-infinity']) endless,
	outcome('SELECT ' || format(call, endless)) outcome;
-- What is too short is named as well.
SELECT DISTINCT complaint FROM taker, outcome('SELECT ' || format(call, '-1 month 29 days')) complaint ORDER BY 1;
-- Nothing was changed by any of that.
SELECT ttl, cache_ttl, keep_for FROM state_class WHERE class = 'intervals';
SELECT key, state FROM state_current WHERE class = 'intervals';
-- The longest are taken, and all goes on: a write, an expiry, pruning, a renewal.
SELECT long, count(*), outcome FROM unnest(ARRAY['5000 years', '60000 months', '1800000 days', '43200000 hours', '2500 years 900000 days']) long,
	taker, outcome('SELECT ' || format(call, long)) outcome GROUP BY long, outcome ORDER BY long COLLATE "C", outcome COLLATE "C";
SELECT state_set('k', '2', class => 'intervals'), state_update('l', '{}', 'intervals');
SELECT key, expires_at > now() + interval '4900 years' FROM state_head WHERE class = 'intervals' ORDER BY key;
SELECT state_prune('intervals'), state_get('k', 'intervals');
-- By hand: the table takes none that is longer. One whose parts are longer than their sum never comes.
SELECT outcome(format('UPDATE state_class SET %I = ''178000000 years'' WHERE class = ''intervals''', c)) FROM unnest(ARRAY['ttl', 'cache_ttl', 'keep_for']) c;
UPDATE state_class SET ttl = '5880000 years -2116700000 days', cache_ttl = '5880000 years -2116700000 days', keep_for = '5880000 years -2116700000 days'
	WHERE class = 'intervals';
SELECT state_set('k', '3', class => 'intervals');
SELECT expires_at, state_get('k', 'intervals'), state_prune('intervals') FROM state_head WHERE class = 'intervals' AND key = 'k';
SELECT state_delete('k', class => 'intervals'), state_delete('l', class => 'intervals'), state_delete('intervals', class => 'swarm'), state_delete('intervals');
DROP TABLE taker;
