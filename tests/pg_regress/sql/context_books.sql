-- The books of runs where an id is used again, where a run goes back, and where there is no limit.
\a \t \pset null (null)
SELECT state_class_define('run', keep => 0);
CREATE FUNCTION books(run text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT format('%s: limits %s, used %s, reserved %s', run, r->'resourceLimits', r->'usage', coalesce(r->'reservations', '{}')) FROM state_context_get(run) r
$$;
-- Of a child that expired nobody knows what it used: its allotment counts as used once its id is used again, wherever that is.
-- vanish() lets a child expire.
CREATE PROCEDURE vanish(run text) LANGUAGE plpgsql AS $$ BEGIN
	PERFORM state_touch(run, '1 us');
	COMMIT;
	PERFORM pg_sleep(0.01);
END $$;
SELECT state_context_create('books', resource_limits => '{"maxCredits": 10}'), state_context_child('books', 'books/p'), state_context_child('books', 'books/x', resource_limits => '{"maxCredits": 6}');
SELECT state_context_spend('books/x', 'credits', 6);
CALL vanish('books/x');
SELECT state_context_child('books/p', 'books/x', resource_limits => '{"maxCredits": 1}') > 1;
SELECT books('books'), books('books/p');
SELECT outcome($$SELECT state_context_spend('books', 'credits', 4)$$), state_context_spend('books', 'credits', 3);
SELECT state_context_spend('books/x', 'credits', 0.5);
SELECT state_context_complete('books/x');
SELECT state_context_complete('books/p');
SELECT books('books');
-- Also below a sibling that does not share, whose end would else free it.
SELECT state_context_create('books 2', resource_limits => '{"maxCredits": 10}'), state_context_child('books 2', 'books 2/p', resource_limits => '{"maxCredits": 3}'), state_context_child('books 2', 'books 2/x', resource_limits => '{"maxCredits": 6}');
CALL vanish('books 2/x');
SELECT state_context_child('books 2/p', 'books 2/x', resource_limits => '{"maxCredits": 1}') > 1;
SELECT books('books 2'), books('books 2/p');
SELECT state_context_complete('books 2/x');
SELECT state_context_complete('books 2/p');
SELECT books('books 2');
-- Below its own parent, as ever.
SELECT state_context_create('books 3', resource_limits => '{"maxCredits": 10}'), state_context_child('books 3', 'books 3/x', resource_limits => '{"maxCredits": 6}');
CALL vanish('books 3/x');
SELECT state_context_child('books 3', 'books 3/x', resource_limits => '{"maxCredits": 1}') > 1;
SELECT books('books 3');
-- When the parent ends it counts as used, too, and further up: what is free there is what nobody can have used.
SELECT state_context_create('books 4', resource_limits => '{"maxCredits": 10}'), state_context_child('books 4', 'books 4/p', resource_limits => '{"maxCredits": 9}'), state_context_child('books 4/p', 'books 4/x', resource_limits => '{"maxCredits": 6}');
CALL vanish('books 4/x');
SELECT state_context_spend('books 4/p', 'credits', 1);
SELECT state_context_complete('books 4/p', 'failed');
SELECT books('books 4/p'), books('books 4');
SELECT state_context_create('books 5', resource_limits => '{"maxCredits": 10}'), state_context_child('books 5', 'books 5/p'), state_context_child('books 5/p', 'books 5/x', resource_limits => '{"maxCredits": 6}');
CALL vanish('books 5/x');
BEGIN;
SELECT state_batch_begin();
SELECT state_context_complete('books 5/p');
SELECT state_batch_rollback();
COMMIT;
SELECT books('books 5/p'), books('books 5');

-- A run goes back to its own versions, not to those of a former run of its id.
SELECT state_context_create('former', inputs => '{"v": "former"}', resource_limits => '{"maxCredits": 1000}', permissions => '{read:secret}');
SELECT state_context_complete('former');
SELECT state_delete('former');
SELECT state_context_create('former parent', inputs => '{"v": 0}', resource_limits => '{"maxCredits": 10}');
SELECT state_context_child('former parent', 'former', resource_limits => '{"maxCredits": 1}') AS began \gset
SELECT state_context_spend('former', 'credits', 0.25), state_context_set('former', 'v', '1');
SELECT action, from_version = :began FROM state_recover('former', 'restart');
SELECT books('former'), state_get_path('former', '{permissions}'), state_get_path('former', '{variables,v,value}');
SELECT outcome($$SELECT state_context_spend('former', 'credits', 1)$$);
SELECT complaint($$SELECT state_restore('former', 1)$$);
SELECT outcome($$SELECT state_restore('former', 3)$$);
SELECT state_context_set('former', 'v', '2');
SELECT action, from_version > :began FROM state_recover('former', 'resume');
SELECT action, from_version = :began FROM state_recover('former', 'rollback');
SELECT state_restore('former', :began) > :began;
SELECT books('former');
-- Neither where it is damaged throughout: there is nothing to go back to then.
BEGIN;
CALL damage(format('UPDATE state_snapshot SET hash = decode(md5(''x''), ''hex'') WHERE class = ''run'' AND key = ''former'' AND version >= %s', :began));
SELECT regexp_replace(outcome($$SELECT * FROM state_recover('former', 'rollback')$$), '\d+ kept', 'N kept');
SELECT count(*) FROM state_verify('run', repair => true) WHERE key = 'former';
SELECT count(*) FROM state_history('former') WHERE version > :began AND checkpoint_type = 'recovery' AND parent_version < :began;
ROLLBACK;
SELECT state_context_complete('former');
SELECT books('former parent');
-- One that is gone comes back as the last that there was, and then goes on from there.
SELECT state_delete('former');
SELECT action, from_version >= :began FROM state_recover('former', 'restart');
SELECT state_get_path('former', '{status}'), state_get_path('former', '{permissions}');
-- or as the one that is named; it is that run from then on.
SELECT state_delete('former');
SELECT state_restore('former', 1) > :began;
SELECT version, parent_version, checkpoint_type FROM state_history('former');
SELECT state_get_path('former', '{permissions}');
SELECT state_context_set('former', 'v', '"goes on"');
SELECT action, from_version FROM state_recover('former', 'restart');
-- That is so in a class that keeps few versions, too.
SELECT state_class_define('run', keep => 1);
SELECT state_context_create('few', inputs => '{"v": "first"}', permissions => '{a}') AS first \gset
SELECT state_delete('few');
SELECT state_context_create('few', inputs => '{"v": "second"}', permissions => '{b}') AS second \gset
SELECT state_context_set('few', 'v', '2');
SELECT action, from_version = :second FROM state_recover('few', 'restart');
SELECT state_delete('few');
SELECT state_restore('few', :first) AS again \gset
SELECT state_context_set('few', 'v', '3');
SELECT state_context_set('few', 'v', '4');
SELECT version = :again, recovery_point, parent_version = :first FROM state_history('few') WHERE version IN (:again, :second) ORDER BY version DESC;
SELECT outcome(format($$SELECT state_restore('few', %s)$$, :second)) ~ '^55000 version \d+ is that of a former run "few"$';
SELECT action, from_version = :first FROM state_recover('few', 'restart');
SELECT state_get_path('few', '{permissions}'), state_get_path('few', '{variables,v,value}');
SELECT state_class_define('run', keep => 0);
-- States of the class that are no runs, and those of other classes, have no such rule.
SELECT version AS first FROM state_save('no run', '[1]') \gset
SELECT state_delete('no run');
SELECT state_set('no run', '[2]');
SELECT state_restore('no run', :first) > :first;
SELECT state_get('no run');
-- What a run was given stays what it is: it does not go back to limits and permissions that were taken from it.
SELECT state_context_create('given', inputs => '{"v": 1}', resource_limits => '{"maxCredits": 10}', permissions => '{read:pii}');
SELECT state_update('given', '{"resourceLimits": {"maxCredits": 5}, "permissions": []}');
SELECT state_context_set('given', 'v', '2');
SELECT state_restore('given', 1);
SELECT state_get_path('given', '{variables,v,value}'), state_get_path('given', '{permissions}'), books('given');

-- Without a limit all is charged upwards too: what a run has used is what all below it have used.
SELECT state_context_create('unlimited'), state_context_child('unlimited', 'unlimited/a'), state_context_child('unlimited', 'unlimited/b', resource_limits => '{"maxCredits": 5}'), state_context_child('unlimited/a', 'unlimited/a/1');
SELECT state_context_spend('unlimited/a', 'credits', 3), state_context_spend('unlimited/b', 'credits', 4), state_context_spend('unlimited/a/1', 'credits', 2);
SELECT state_context_complete('unlimited/a/1');
SELECT state_context_complete('unlimited/a');
SELECT state_context_complete('unlimited/b');
SELECT books('unlimited'), books('unlimited/a');
SELECT state_get_path('unlimited/a', '{sharedLimits}'), state_get_path('unlimited/b', '{sharedLimits}');
SELECT state_class_define('run', keep => 1);
-- What has expired goes here: else the worker tells of it while a later file listens.
BEGIN;
DELETE FROM state_snapshot WHERE class = 'run' AND key LIKE 'books %';
DELETE FROM state_head WHERE class = 'run' AND key LIKE 'books %';
COMMIT;
