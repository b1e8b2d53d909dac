//! A call of every function, and what fires every trigger. The statements use nothing of PostgreSQL's by name, and
//! give arguments their types where a decoy would match better, so that only ours could call one.

use postgres::Client;
use state_cache_server_tests::Sql;

/// Statements, each a transaction of its own. `$` stands for the round.
const STATEMENTS: &[&str] = &[
    "SELECT state_class_define('one-$', keep => 1), state_class_define('few-$', keep => 2),
        state_class_define('behind-$', write_mode => 'behind'), state_class_define('ends-$', ttl => '1 hour')",
    "SELECT state_class_define('shared-$', l2_ttl => '1 hour', l2_codec => 'gzip', l2_above => 0)",
    "SELECT * FROM state_l2_classes",
    "SELECT state_class_define('few-$', keep => 3, checkpoint_types => '{a}', agent_phases => '{b}')",
    "SELECT state_set('k$', '{\"a\": [1], \"s\": {}}'), state_set('e$', '1', ttl => '1 second'),
        state_set('b$', '{}', class => 'behind-$'), state_set('o$', '1', class => 'one-$'),
        state_set('f$', '1', class => 'few-$'), state_set('t$', '1', class => 'ends-$')",
    "SELECT state_update('k$', '{\"b\": 1}'), state_update_section('k$', 's', '{\"c\": 2}'),
        state_merge('k$', '{\"b\": 2}'), state_append('k$', '{a}', '2')",
    "SELECT state_set('f$', '2', class => 'few-$')",
    "SELECT state_set_text('j$', '{\"a\": \"\\u0000\"}', on_invalid => 'replace')",
    "SELECT * FROM state_save_text('j$', '{\"a\": 1e2000}')",
    "SELECT state_set('f$', '3', class => 'few-$')",
    "SELECT state_set('f$', '4', class => 'few-$'), state_set('o$', '2', class => 'one-$'),
        state_set('b$', '{\"x\": 1}', class => 'behind-$')",
    "SELECT state_get('k$'::pg_catalog.text, 'run'::pg_catalog.text), state_get_text('k$'), state_get_path('k$', \
        '{a}'),
        state_get_section('k$', 's'), state_version('k$'), state_exists('k$')",
    "SELECT * FROM state_get_many('{k$,nothing}')",
    "SELECT state_wait('k$', 1::pg_catalog.int8), state_get('k$', 'run', 1::pg_catalog.int8);
        SELECT * FROM state_get_many('{k$}', 'run', 1::pg_catalog.int8)",
    "SELECT state_wait_for(cursor) FROM state_cursor()",
    "SELECT * FROM state_get_if_newer('k$', 0)",
    "BEGIN; SELECT state_batch_begin('reapply'); SELECT state_touch('k$', '1 day'), state_merge('o$', '3', 'one-$');
        SELECT * FROM state_batch_status(); SELECT * FROM state_batch_commit();
        SELECT state_update('k$', '{\"gone\": 1}'); SELECT state_batch_rollback(); COMMIT",
    "SELECT * FROM state_save('s$', '{\"n\": 1}', recovery_point => true)",
    "SELECT * FROM state_save('s$', '{\"n\": 2}')",
    "SELECT * FROM state_save('l$', '{\"n\": 1}', label => 'a', payload => '\\x01', execution_context => \
        '{\"a\": 1}')",
    "SELECT * FROM state_save('l$', '{\"n\": 2}', label => 'b', payload => '\\x02', parent_version => 1)",
    "SELECT * FROM state_list('l$', before_label => 'b'); SELECT * FROM state_list('l$', filter => '{\"a\": 1}');
        SELECT * FROM state_list(prefix => 'l', label => 'a')",
    "SELECT * FROM state_keys('l', after => 'k')",
    "SELECT state_copy('l$', 'm$')",
    "BEGIN; SELECT state_claim('k$', 'me', '1 hour');
        SELECT state_renew('k$', token, '1 hour'), state_fence('k$', token) FROM state_lease WHERE \
        key OPERATOR(pg_catalog.=) 'k$';
        SELECT state_set('k$', '5'); COMMIT",
    "SELECT state_release('k$', token) FROM state_lease WHERE key OPERATOR(pg_catalog.=) 'k$'",
    "SELECT state_touch_prefix('l$', '1 hour'), state_touch_prefix('l$')",
    "SELECT state_purge('{l$}', versions => '{1}'); SELECT state_purge(prefix => 'l$', keep => 1);
        SELECT state_purge(prefix => 'l$')",
    "SELECT * FROM state_history('s$')",
    "SELECT state_at('s$'::pg_catalog.text, 1::pg_catalog.int8, 'run'::pg_catalog.text), state_diff('s$', 1, 2)",
    "SELECT state_restore('s$', 1)",
    "SELECT * FROM state_recover('s$', 'rollback')",
    "SELECT state_prune('run', keep => 2), state_prune('run', older_than => '1 day'), state_prune('few-$')",
    "SELECT * FROM state_verify()",
    "UPDATE state_snapshot SET state = '666', delta = NULL WHERE key OPERATOR(pg_catalog.=) 's$'",
    "SELECT * FROM state_verify('run', repair => true)",
    "SELECT state_context_create('r$', inputs => '{\"v\": 1, \"l\": []}', resource_limits => '{\"maxCredits\": \
        10}', swarm_id => 'w$')",
    "SELECT state_context_child('r$', 'c$', inputs => '{\"w\": 1}')",
    "SELECT state_context_set('c$', 'v', '2'), state_context_set_many('c$', '{\"x\": {}}'),
        state_context_append('c$', 'l', '1'), state_context_patch('c$', 'x', '{\"y\": 1}')",
    "SELECT state_context_get('c$'), state_context_visible('c$', 'internal'), state_context_spend('c$', 'credits', \
        1)",
    "SELECT * FROM state_context_tree('r$')",
    "SELECT state_context_set('r$', 'v', '3')",
    "SELECT * FROM state_context_merge('c$', 'manual_review')",
    "SELECT state_conflict_resolve(id, '4', 'because') FROM state_conflict WHERE run_id OPERATOR(pg_catalog.=) 'r$'",
    "SELECT state_context_mark_export('c$', 'v', 'persistent_store', target => 'config', target_key => 'x$'),
        state_context_mark_export('c$', 'w', 'blackboard'), state_context_mark_export('c$', 'l', 'parent_context'),
        state_context_mark_export('r$', 'v', 'external_system', target => 'there'),
        state_context_mark_export('c$', 'x', 'blackboard')",
    "SELECT state_context_unmark_export('c$', 'x')",
    "BEGIN; SELECT state_context_claim('r$', 'me', '1 hour');
        SELECT state_context_renew('r$', token, '1 hour'), state_context_fence('r$', token) FROM state_claim WHERE \
        run_id OPERATOR(pg_catalog.=) 'r$';
        SELECT state_context_set('r$', 'z', '1'); COMMIT",
    "SELECT state_context_step('r$', 'one')",
    "SELECT * FROM state_context_list('running', NULL, 'r', 'me', true, 'r$')",
    "SELECT * FROM state_context_list(claimed => false)",
    "SELECT * FROM state_context_claim_next('me', '1 hour', 'lost', 'none')",
    "SELECT state_context_release('r$', token) FROM state_claim WHERE run_id OPERATOR(pg_catalog.=) 'r$'",
    "SELECT * FROM state_context_complete('c$')",
    "SELECT * FROM state_context_complete('r$')",
    "SELECT state_delete('c$'), state_delete('r$')",
    "SELECT state_put('put$', '{\"a\": [1]}'), state_append('put$', '{b}', '1', \"create\" => true), \
        state_append_many('put$', '{a}', '[1, 2]'), state_pop('put$', '{a}')",
    "CREATE ROLE granted; SELECT state_grant('granted', 'operator'); SELECT state_revoke('granted'); \
        SELECT state_profile_check('granted'::pg_catalog.regrole, 'reader'::pg_catalog.text); \
        SELECT * FROM state_profiles(); DROP ROLE granted",
    "SELECT state_log_append('l$', '[1, 2]', 'r', '{a, b}'), state_log_append('l$', '[3]', 'r', '{a}', true), \
        state_log_append('l$', NULL, payloads => '{x}'), state_log_append('l$', '[4]')",
    "SELECT * FROM state_log('l$')",
    "SELECT * FROM state_log('l$', 'r', 0, 1)",
    "SELECT state_log_erase('l$', '{r}'), state_log_erase('l$')",
    "SELECT state_blackboard_add('w$', 'i', '1', tags => '{t}'), state_blackboard_add('w$', 'j', '1')",
    "SELECT state_blackboard_update('w$', 'i', '2'), state_blackboard_remove('w$', 'j')",
    "SELECT * FROM state_blackboard_query('w$')",
    "SELECT state_blackboard_items('w$'::pg_catalog.text, '{}'::pg_catalog.jsonb, NULL::pg_catalog.text, \
        NULL::pg_catalog.text,
        NULL::pg_catalog.text, NULL::pg_catalog.text)",
    "SELECT state_job_create('j$', '[\"a\", \"b\", {\"task_id\": \"c\", \"agent_name\": \"me\"}]'), \
        state_job_create('g$', '[\"a\"]')",
    "SELECT state_job_add_tasks('j$', '[\"d\", \"e\"]')",
    "SELECT * FROM state_job_update_tasks('j$', '[{\"task_id\": \"a\", \"status\": \"failed\", \"error\": 1}]')",
    "SELECT * FROM state_job_claim_tasks('me', 1, '1 hour', 'j$'); SELECT * FROM state_job_claim_tasks('me', 2)",
    "SELECT state_job_renew_tasks('j$', '{c}', token, '1 hour') FROM state_task WHERE job_id OPERATOR(pg_catalog.=) \
        'j$' AND task_id OPERATOR(pg_catalog.=) 'c'",
    "SELECT state_job_summary('j$'), state_job_get('j$')",
    "SELECT * FROM state_job_tasks('j$'::pg_catalog.text, 'failed'::pg_catalog.text, NULL::pg_catalog.text,
        NULL::pg_catalog.text, 10::pg_catalog.int4)",
    "INSERT INTO state_task (job_id, task_id) VALUES ('j$', 'f'), ('j$', 'g'); UPDATE state_task SET status = \
        'completed' WHERE job_id OPERATOR(pg_catalog.=) 'j$'; DELETE FROM state_task WHERE task_id \
        OPERATOR(pg_catalog.=) 'g'",
    "SELECT state_job_add_tasks('j$', '[\"h\"]'), state_job_cancel('j$')",
    "SELECT * FROM state_job_verify(); SELECT * FROM state_job_verify('j$', repair => true)",
    "SELECT state_delete('g$', class => 'job'); TRUNCATE state_task",
    "SELECT * FROM state_changes()",
    "SELECT state_changes(cursor) FROM state_cursor()",
    // A dollar sign stands for the round, so the key is spelled otherwise.
    "CREATE TABLE watched (id integer, doc jsonb); SELECT state_class_define('computed-$', cache_ttl => '1 hour',
        source => pg_catalog.concat('SELECT doc FROM watched WHERE id OPERATOR(pg_catalog.=) ', pg_catalog.chr(36),
        '1::pg_catalog.int4'))",
    "SELECT state_watch('computed-$', 'watched', 'id'), state_watch('computed-$', 'watched')",
    "INSERT INTO watched VALUES (1, '{\"a\": {\"b\": 1}}'); SELECT state_get('1'::pg_catalog.text,
        'computed-$'::pg_catalog.text), state_get_text('1', 'computed-$'), state_get_path('1', '{a}', 'computed-$'),
        state_get_section('1', 'a', 'computed-$'), state_exists('1', 'computed-$')",
    "UPDATE watched SET id = 2; TRUNCATE watched; SELECT * FROM state_get_many('{1,2}', 'computed-$')",
    "SELECT state_warm('computed-$', '{1}'::pg_catalog.text[]); SELECT * FROM state_audit()",
    "SELECT * FROM state_sources(); SELECT * FROM state_sources",
    "SELECT state_unwatch('computed-$', 'watched'); DROP TABLE watched",
    "SELECT state_class_define('computed-$', source => '')",
    "CREATE INDEX of_writer ON state_snapshot (writer); SELECT state_protections_note()",
    "SELECT * FROM state_protections(); SELECT * FROM state_protections_here(); DROP INDEX of_writer",
    "SELECT state_draw('state_claim_token'::pg_catalog.regclass), state_installation()",
    "SELECT state_cache_version()",
    "SELECT state_cache_clear(), state_invalidate('k*'), state_warm('run')",
    "SELECT state_budget_define('o$', 100, 'USD'); SELECT state_budget_define('b$', 50, 'USD', 'o$', \
        '{\"a\": {\"price\": 1}}', 'day', 20, 4)",
    "SELECT hold_id FROM state_budget_reserve('b$', 'a', hold_id => 'h$'); SELECT hold_id FROM \
        state_budget_reserve('b$', 'a', 2, 'v$'); SELECT hold_id FROM state_budget_reserve('b$', 'a')",
    "SELECT state_budget_extend('h$', '1 hour'), state_budget_void('v$'); SELECT actual FROM \
        state_budget_settle('h$', 30)",
    "SELECT state_budget_record_costs('b$', '[{\"id\": \"c\", \"agent\": \"a\", \"amount\": 2, \"expected\": 1}]')",
    "SELECT state_budget_summary('b$'); SELECT * FROM state_budget_accuracy('b$'); SELECT * FROM \
        state_budget_recommend('b$', '[{\"agent\": \"a\"}]')",
    "SELECT state_budget_project('b$', '[{\"agent\": \"a\"}]'), state_money(1.5), state_counters(1.5, 2.5), \
        (SELECT state_hold_is_sound(h.hold_id, h.amount, h.actual, h.status, h.expired_at, h.resolved_at, h.scopes, \
        h.periods, h.shards) FROM state_budget_hold h LIMIT 1); SELECT * FROM state_budget_holds",
    "SELECT * FROM state_budget_verify('b$', true)",
    "SELECT state_budget_define('gone$', 1, 'USD', 'o$'); UPDATE state_budget SET total = 2 \
        WHERE budget OPERATOR(pg_catalog.=) 'gone$'; SELECT state_budget_drop('gone$')",
    "SELECT state_set('b$', '{\"x\": 2}', class => 'behind-$')",
    "SELECT state_flush()",
    "SELECT state_hash('1'), state_cache_by_hand()",
    "SELECT * FROM state_cache_unwritten(); SELECT * FROM state_cache_unwritten; SELECT * FROM state_cache_stats();
        SELECT * FROM state_cache_stats; SELECT * FROM state_cache_entries(); SELECT * FROM state_cache_entries;
        SELECT * FROM state_cache_workers(); SELECT * FROM state_cache_workers; SELECT * FROM state_progress();
        SELECT * FROM state_progress; SELECT * FROM state_current",
    // By hand, and in class `run`, which a trigger of its own watches.
    "SET session_replication_role = replica; INSERT INTO state_floor VALUES ('run', 1, 5); RESET \
        session_replication_role",
    "UPDATE state_head SET updated_at = DEFAULT WHERE key OPERATOR(pg_catalog.=) 'k$'",
    "DELETE FROM state_snapshot WHERE key OPERATOR(pg_catalog.=) 'o$'; DELETE FROM state_head WHERE key \
        OPERATOR(pg_catalog.=) 'o$'",
    "SET search_path = ''; INSERT INTO target.state_class (class, keep, changed) VALUES ('config', 4, true)",
    "UPDATE state_class SET keep = 1 WHERE class OPERATOR(pg_catalog.=) 'config'",
    // Many at once, of every kind.
    "SELECT state_set('k$', '5'), state_delete('f$', class => 'few-$'), state_touch('t$', '1 second', 'ends-$'),
        state_set('o$', '5', class => 'one-$'), state_set('new$', '1'), state_set('newer$', '1')",
    "SELECT state_set('o$', '6', class => 'one-$'), state_set('k$', '6'), state_set('new$', '6'), \
        state_delete('newer$')",
    "SELECT state_cache_test_expire(), state_cache_test_retain()",
    "TRUNCATE state_trace",
];

/// Those that need the partitions.
const PARTITIONED: &[&str] = &[
    "SELECT * FROM state_partitions()",
    "SELECT state_partitions_create(4)",
    "SELECT * FROM state_partitions_drop('0'::pg_catalog.interval)",
    "SELECT state_partition_attach(state_partition_stage('of_old'::pg_catalog.text), 'of_old'::pg_catalog.text,
        'FOR VALUES FROM (''2100-01-01'') TO (''2100-02-01'')'::pg_catalog.text)",
    "SELECT state_partition_detach('target.of_old'::pg_catalog.regclass)",
];

/// Functions that triggers call.
const TRIGGERS: &[&str] = &[
    "state_cache_watch",
    "state_class_watch",
    "state_class_restore",
    "state_floor_merge",
    "state_claim_merge",
    "state_source_changed",
    "state_task_watch",
    "state_budget_watch",
];

/// The workers' steps.
const STEPS: &str = "
    CREATE OR REPLACE FUNCTION target.state_cache_test_expire() RETURNS boolean LANGUAGE c AS '$libdir/state_cache';
    CREATE OR REPLACE FUNCTION target.state_cache_test_retain() RETURNS bigint LANGUAGE c AS '$libdir/state_cache'";

/// Runs it.
pub fn run(client: &mut Client, round: &str) {
    run_without(client, round, &[]);
}

/// Runs it where some of the functions are not installed, without the statements that call them.
pub fn run_without(client: &mut Client, round: &str, missing: &[String]) {
    client.run(STEPS);
    let partitioned = match round {
        "partitioned" => PARTITIONED,
        _ => &[],
    };
    for notify in ["commit", "worker"] {
        let round = format!("{round}-{notify}");
        for statement in STATEMENTS.iter().chain(partitioned) {
            if missing.iter().any(|name| calls(statement, name)) {
                continue;
            }
            client.run(&format!("SET state_cache.notify = {notify}"));
            client.run(&statement.replace('$', &round));
            client.run("RESET search_path");
        }
    }
}

fn calls(statement: &str, function: &str) -> bool {
    statement.contains(&format!("{function}("))
}

/// Whether it calls a function.
pub fn covers(function: &str) -> bool {
    covers_without(function, &[])
}

/// Whether it does where some of the functions are not installed.
pub fn covers_without(function: &str, missing: &[String]) -> bool {
    STATEMENTS.iter().chain(PARTITIONED).any(|statement| {
        calls(statement, function) && !missing.iter().any(|name| calls(statement, name))
    }) || TRIGGERS.contains(&function)
}
