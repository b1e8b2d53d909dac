-- Limits: what a run may use up, what its children are allotted of that or share, and what goes back when they end.
\a \t \pset null (null)
-- Charged at once, and refused whole where it is more than is left. Credits are decimal numbers: ten times 0.1 is 1.
SELECT state_context_create('limits', resource_limits => '{"maxCredits": 1.5, "maxToolCalls": 3, "maxDurationMs": 60000, "maxMemoryMB": 512, "priorityBonus": 2, "emergencyReserve": 0.25}');
SELECT min(state_context_spend('limits', 'credits', 0.1)) FROM generate_series(1, 10);
SELECT state_context_get('limits')->'usage';
SELECT complaint($$SELECT state_context_spend('limits', 'credits', 0.50000001)$$);
SELECT state_context_spend('limits', 'credits', 0.49999999), state_context_spend('limits', 'credits', 0.00000001), state_context_spend('limits', 'credits', 0);
SELECT outcome($$SELECT state_context_spend('limits', 'credits', 0.00000001)$$);
SELECT state_context_spend('limits', 'toolCalls', 1), state_context_spend('limits', 'tool_calls', 1), state_context_spend('limits', 'duration', 59000.5), state_context_spend('limits', 'durationMs', 10), state_context_spend('limits', 'duration_ms', 0);
SELECT outcome($$SELECT state_context_spend('limits', 'toolCalls', 1.5)$$);
SELECT * FROM accounts('limits');
-- Large and long numbers are exact.
SELECT state_context_create('large', resource_limits => '{"maxCredits": 100000000000000000000000000000.000000001}');
SELECT state_context_spend('large', 'credits', 99999999999999999999999999999.9), state_context_spend('large', 'credits', 0.100000001);
-- Without a limit it is counted only.
SELECT state_context_create('free'), state_context_spend('free', 'credits', 1e6), state_context_spend('free', 'credits', 0.5);
SELECT * FROM accounts('free');
-- A limit of nothing allows nothing.
SELECT state_context_create('nothing', resource_limits => '{"maxCredits": 0}'), state_context_spend('nothing', 'credits', 0);
SELECT outcome($$SELECT state_context_spend('nothing', 'credits', 0.01)$$);
-- A transaction that is rolled back has spent nothing; a part of it neither.
BEGIN;
SELECT state_context_spend('limits', 'toolCalls', 1);
SAVEPOINT s;
SELECT outcome($$SELECT state_context_spend('limits', 'toolCalls', 1)$$);
ROLLBACK TO s;
ROLLBACK;
SELECT state_context_spend('limits', 'toolCalls', 0);

-- A child is allotted what it asks for: reserved with the parent, who has that much less.
SELECT state_context_create('pot', resource_limits => '{"maxCredits": 100, "maxToolCalls": 10}');
SELECT state_context_spend('pot', 'credits', 10);
SELECT state_context_child('pot', 'pot/a', resource_limits => '{"maxCredits": 60.5}');
SELECT * FROM accounts('pot');
SELECT * FROM accounts('pot/a');
-- Never more than is left,
SELECT complaint($$SELECT state_context_child('pot', 'pot/b', resource_limits => '{"maxCredits": 29.51}')$$);
SELECT complaint($$SELECT state_context_spend('pot', 'credits', 29.51)$$);
SELECT state_context_child('pot', 'pot/b', resource_limits => '{"maxCredits": 29.5}');
SELECT state_context_spend('pot', 'credits', 0);
-- and of the allotted to its own children no more than that.
SELECT outcome($$SELECT state_context_child('pot/a', 'pot/a/1', resource_limits => '{"maxCredits": 60.51}')$$);
SELECT state_context_child('pot/a', 'pot/a/1', resource_limits => '{"maxCredits": 20}');
-- A run that was refused is not there, and nothing is reserved for it.
SELECT state_exists('pot/c'), outcome($$SELECT state_context_child('pot', 'pot/c', resource_limits => '{"maxToolCalls": 1, "maxCredits": 1}')$$), state_exists('pot/c');
SELECT * FROM accounts('pot');
-- What it does not ask for it shares: charged to it is charged to the parent, and to those above who share it in turn.
SELECT state_context_child('pot/a/1', 'pot/a/1/x');
SELECT * FROM accounts('pot/a/1/x');
SELECT state_context_spend('pot/a/1/x', 'toolCalls', 4), state_context_spend('pot/a/1/x', 'credits', 5);
SELECT run, a.* FROM unnest('{pot,pot/a,pot/a/1,pot/a/1/x}'::text[]) run, accounts(run) a ORDER BY run, counter;
-- It is refused where one of them has no more, and none of them is charged.
SELECT state_context_spend('pot', 'toolCalls', 5);
SELECT complaint($$SELECT state_context_spend('pot/a/1/x', 'toolCalls', 2)$$);
SELECT run, a.used FROM unnest('{pot,pot/a,pot/a/1,pot/a/1/x}'::text[]) run, accounts(run) a WHERE counter = 'toolCalls' ORDER BY run;
-- Limits that nothing is charged to are inherited; the child's are not above.
SELECT state_context_child('limits', 'limits/1', resource_limits => '{"maxMemoryMB": 256, "priorityBonus": 1}'), state_context_child('limits', 'limits/2');
SELECT state_context_get('limits/1')->'resourceLimits', state_context_get('limits/2')->'resourceLimits';
SELECT complaint($$SELECT state_context_child('limits', 'limits/3', resource_limits => '{"maxMemoryMB": 513}')$$);

-- What a child did not use goes back when it ends, and what it used counts.
SELECT * FROM state_context_complete('pot/a/1/x');
SELECT * FROM state_context_complete('pot/a/1');
SELECT * FROM accounts('pot/a');
SELECT state_context_spend('pot/a', 'credits', 1.25);
SELECT * FROM state_context_complete('pot/a');
SELECT * FROM accounts('pot');
-- However it ends.
SELECT state_context_spend('pot/b', 'credits', 9.5);
SELECT * FROM state_context_complete('pot/b', 'cancelled');
SELECT * FROM accounts('pot');
SELECT state_context_child('pot', 'pot/d', resource_limits => '{"maxCredits": 50}'), state_context_spend('pot/d', 'credits', 50);
SELECT * FROM state_context_complete('pot/d', 'failed');
SELECT * FROM accounts('pot');
-- 100 less 10, 5 + 1.25, 9.5 and 50:
SELECT state_context_spend('pot', 'credits', 0);
-- A completion that is rolled back gives nothing back.
SELECT state_context_child('pot', 'pot/e', resource_limits => '{"maxCredits": 20}');
BEGIN;
SELECT * FROM state_context_complete('pot/e');
SELECT state_context_spend('pot', 'credits', 0);
ROLLBACK;
SELECT state_context_spend('pot', 'credits', 0);

-- A parent that shares its limit reserves with the one above.
SELECT state_context_create('above', resource_limits => '{"maxCredits": 10}'), state_context_child('above', 'above/shares'), state_context_child('above/shares', 'above/shares/1', resource_limits => '{"maxCredits": 6}');
SELECT run, a.* FROM unnest('{above,above/shares,above/shares/1}'::text[]) run, accounts(run) a ORDER BY run;
SELECT complaint($$SELECT state_context_spend('above', 'credits', 5)$$);
SELECT complaint($$SELECT state_context_spend('above/shares', 'credits', 5)$$);
SELECT state_context_spend('above/shares/1', 'credits', 2);
SELECT * FROM state_context_complete('above/shares/1');
SELECT run, a.* FROM unnest('{above,above/shares,above/shares/1}'::text[]) run, accounts(run) a ORDER BY run;
SELECT * FROM state_context_complete('above/shares');
SELECT * FROM accounts('above');

-- Branches: so many children at the same time, and no more; they are not used up.
SELECT state_context_create('branches', resource_limits => '{"maxConcurrentBranches": 2}');
SELECT state_context_child('branches', 'branches/1'), state_context_child('branches', 'branches/2', resource_limits => '{"maxConcurrentBranches": 1}');
SELECT complaint($$SELECT state_context_child('branches', 'branches/3')$$);
SELECT * FROM state_context_complete('branches/1');
SELECT state_context_child('branches', 'branches/3');
SELECT outcome($$SELECT state_context_child('branches', 'branches/4')$$);
-- A child has the limit of its parent, or the lower one it asks for.
SELECT state_context_child('branches/2', 'branches/2/1');
SELECT outcome($$SELECT state_context_child('branches/2', 'branches/2/2')$$);
SELECT complaint($$SELECT state_context_child('branches/3', 'branches/3/1', resource_limits => '{"maxConcurrentBranches": 3}')$$);
SELECT * FROM accounts('branches');

-- Merging costs nothing; a run that has ended can spend nothing.
SELECT complaint($$SELECT state_context_spend('pot/a', 'credits', 0)$$);
-- What is charged is part of the document: one version, and it waits for no flush of others.
SELECT state_version('free') AS version \gset
BEGIN;
SELECT state_context_spend('free', 'credits', 1), state_context_set('free', 'x', '1'), state_context_spend('free', 'toolCalls', 1);
COMMIT;
SELECT state_version('free') - :version, state_context_get('free')->'usage';

-- Credits do not inflate on release. What goes back is what the parent's document says was reserved, once.
SELECT state_context_create('release', resource_limits => '{"maxCredits": 100}'), state_context_child('release', 'release/1', resource_limits => '{"maxCredits": 40}'), state_context_spend('release/1', 'credits', 15);
SELECT * FROM state_context_complete('release/1', 'cancelled');
-- Completing it again is refused, with the same outcome or another; completed after a look back, it gives back nothing more.
SELECT complaint($$SELECT * FROM state_context_complete('release/1', 'cancelled')$$);
SELECT outcome($$SELECT * FROM state_context_complete('release/1')$$);
SELECT state_update('release/1', '{"status": "running"}');
SELECT * FROM state_context_complete('release/1');
SELECT * FROM accounts('release');
-- A child that wrote itself a higher limit gives back no more than it was allotted.
SELECT state_context_child('release', 'release/2', resource_limits => '{"maxCredits": 40}');
SELECT state_update('release/2', '{"resourceLimits": {"maxCredits": 1000}, "usage": {}}');
SELECT * FROM state_context_complete('release/2');
SELECT * FROM accounts('release');
-- What it spent beyond is charged all the same: the parent has that much less.
SELECT state_context_child('release', 'release/3', resource_limits => '{"maxCredits": 40}');
SELECT state_update('release/3', '{"resourceLimits": {"maxCredits": 1000}}'), state_context_spend('release/3', 'credits', 84.5);
SELECT * FROM state_context_complete('release/3');
SELECT * FROM accounts('release');
SELECT complaint($$SELECT state_context_spend('release', 'credits', 0.75)$$);
-- Nor does it matter what the child says whose child it is.
SELECT state_context_create('release 2', resource_limits => '{"maxCredits": 100}'), state_context_child('release 2', 'release 2/1', resource_limits => '{"maxCredits": 40}');
BEGIN;
SELECT state_update('release 2/1', '{"parentRunId": "release"}');
SELECT complaint($$SELECT * FROM state_context_complete('release 2/1')$$);
SELECT state_merge('release 2/1', '{"parentRunId": null}');
SELECT complaint($$SELECT * FROM state_context_complete('release 2/1')$$);
ROLLBACK;
SELECT * FROM accounts('release 2');
-- Two that end in one transaction, and one that starts in the place of one that ended.
SELECT state_context_child('release 2', 'release 2/2', resource_limits => '{"maxCredits": 60}');
BEGIN;
SELECT state_context_complete('release 2/1', 'failed');
SELECT state_context_child('release 2', 'release 2/3', resource_limits => '{"maxCredits": 40}');
SELECT state_context_complete('release 2/2', 'failed');
COMMIT;
SELECT * FROM accounts('release 2');
-- An amount below zero is none: nobody's usage or reservation gives anybody credits.
SELECT state_context_create('below', resource_limits => '{"maxCredits": 100}'), state_context_child('below', 'below/1', resource_limits => '{"maxCredits": 40}');
BEGIN;
SELECT state_update('below/1', '{"usage": {"credits": -1000}}');
SELECT complaint($$SELECT * FROM state_context_complete('below/1', 'failed')$$);
SELECT outcome($$SELECT state_context_spend('below/1', 'credits', 1)$$);
ROLLBACK;
BEGIN;
SELECT state_update('below', '{"usage": {"credits": -1000}}');
SELECT outcome($$SELECT state_context_spend('below', 'credits', 1)$$), outcome($$SELECT state_context_child('below', 'below/2', resource_limits => '{"maxCredits": 1}')$$), outcome($$SELECT state_context_complete('below/1')$$);
SELECT state_update('below', '{"usage": {}, "reservations": {"x": {"credits": -1000}}}');
SELECT outcome($$SELECT state_context_spend('below', 'credits', 1)$$);
ROLLBACK;
-- Nor does a look back: a run that is restored or recovered has used what it has used.
SELECT state_context_spend('below/1', 'credits', 30);
SELECT state_restore('below/1', 1) > 0, (SELECT state_context_get('below/1')->'usage');
SELECT outcome($$SELECT state_context_spend('below/1', 'credits', 10.01)$$);
SELECT action FROM state_recover('below');
SELECT outcome($$SELECT state_context_create('below/x', resource_limits => '{"priorityBonus": -1}')$$);
SELECT * FROM accounts('below');
-- Nor does one that has ended run again.
SELECT state_context_child('below', 'below/0', resource_limits => '{"maxCredits": 10}'), state_context_spend('below/0', 'credits', 10);
SELECT * FROM state_context_complete('below/0');
SELECT state_restore('below/0', 1) > 0, outcome($$SELECT state_context_spend('below/0', 'credits', 10)$$);
SELECT * FROM accounts('below');
-- A child that runs is not deleted; one that has ended is.
SELECT state_delete('below/1');
SELECT * FROM state_context_complete('below/1', 'cancelled');
SELECT state_delete('below/1');
SELECT * FROM accounts('below');
-- One that is gone all the same (it expired, or somebody deleted its rows) has used all that it was allotted.
SELECT state_context_child('below', 'below/2', resource_limits => '{"maxCredits": 20}'), state_context_child('below', 'below/3', resource_limits => '{"maxCredits": 5}');
DELETE FROM state_head WHERE class = 'run' AND key = 'below/2';
SELECT state_context_child('below', 'below/2', resource_limits => '{"maxCredits": 1}');
SELECT * FROM accounts('below');
