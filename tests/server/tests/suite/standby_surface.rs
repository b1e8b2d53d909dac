//! What works on a standby: functions that read answer, those that say nothing of their server as on the primary;
//! functions that write are 25006, with a hint that leads to the primary.

use state_cache_server_tests::{Server, Sql};

/// Statements, each a transaction of its own.
const SETUP: &[&str] = &[
    "SELECT state_class_define('plain', keep => 1), state_class_define('behind', write_mode => 'behind')",
    "CREATE TABLE item (id integer PRIMARY KEY, v text); INSERT INTO item VALUES (1, 'a');
     SELECT state_class_define('computed', cache_ttl => '1 hour',
        source => 'SELECT to_jsonb(v) FROM item WHERE id = $1::integer')",
    "SELECT state_watch('computed', 'item', 'id')",
    "SELECT state_class_define('computed', cache_ttl => '0')",
    "SELECT state_set('a', '{\"n\": 1, \"s\": {\"x\": 1}, \"l\": [1]}'), state_set('b', '2', class => 'behind'),
        state_set('c', '3', class => 'plain')",
    "SELECT state_update('a', '{\"n\": 2}')",
    "SELECT state_flush()",
    "SELECT state_log_append('a', '[1, 2]', 'r', '{p, q}')",
    "SELECT state_context_create('r', inputs => '{\"v\": 1}', swarm_id => 'w')",
    "SELECT state_context_child('r', 'rc')",
    "SELECT state_context_claim('r', 'me', '1 hour')",
    "SELECT state_blackboard_add('w', 'i', '1', tags => '{t}')",
    "SELECT state_job_create('j', '[\"t1\", \"t2\"]')",
    "SELECT state_budget_define('m', 100, 'USD', NULL, '{\"agent\": {\"price\": 1}}')",
    "SELECT state_budget_reserve('m', 'agent', 5, 'h')",
    "SELECT state_budget_record_costs('m',
        '[{\"id\": \"c\", \"agent\": \"agent\", \"amount\": 2, \"expected\": 1}]')",
];

/// Calls that answer the same on both servers.
const SAME: &[&str] = &[
    "SELECT state_get('a'), state_get_text('a'), state_get_path('a', '{s}'), state_get_section('a', 's')",
    "SELECT state_version('a'), state_exists('a'), state_get('b', 'behind'), state_get('c', 'plain')",
    "SELECT state_get('1', 'computed'), state_get_text('1', 'computed'), state_get('2', 'computed')",
    "SELECT * FROM state_get_many('{a,b,zz}')",
    "SELECT * FROM state_get_if_newer('a', 1)",
    "SELECT state_wait('a', 2), state_get('a', min_version => 2)",
    "SELECT * FROM state_history('a')",
    "SELECT state_at('a', 1), state_diff('a', 1, 2)",
    "SELECT * FROM state_verify()",
    "SELECT * FROM state_log('a')",
    "SELECT * FROM state_list('a'); SELECT key, version FROM state_list(prefix => 'a')",
    "SELECT state_context_get('r'), state_context_visible('rc')",
    "SELECT * FROM state_context_tree('r')",
    "SELECT run_id FROM state_context_list() ORDER BY 1",
    "SELECT * FROM state_blackboard_query('w')",
    "SELECT state_blackboard_items('w', '{}')",
    "SELECT state_budget_summary('m') -> 'spent', state_budget_project('m', '[{\"agent\": \"agent\"}]') IS NULL",
    "SELECT * FROM state_budget_accuracy('m')",
    "SELECT * FROM state_budget_recommend('m', '[{\"agent\": \"agent\"}]')",
    "SELECT * FROM state_budget_verify()",
    "SELECT hold_id, state_hold_is_sound(hold_id, amount, actual, status, expired_at, resolved_at, scopes, periods,
        shards), state_money(amount), state_counters(amount, amount) FROM state_budget_hold",
    "SELECT state_job_summary('j'), state_job_get('j')",
    "SELECT * FROM state_job_tasks('j')",
    "SELECT * FROM state_job_verify()",
    "SELECT class, exact, query FROM state_sources()",
    "SELECT * FROM state_l2_classes",
    "SELECT class, key, version, state FROM state_current ORDER BY 1, 2",
    "SELECT * FROM state_protections()",
    "SELECT * FROM state_protections_here()",
    "SELECT state_cache_version(), state_installation(), state_hash('1'), state_cache_by_hand()",
    "SELECT * FROM state_profiles()",
    "SELECT state_profile_check('postgres', 'reader')",
];

/// Calls that answer, by what the server is and what its L1 holds.
const OWN: &[&str] = &[
    "SELECT * FROM state_changes()",
    "SELECT state_wait_for(cursor) FROM state_cursor()",
    "SELECT state_warm('run'), state_warm('computed', '{1}'::text[])",
    "SELECT * FROM state_audit()",
    "SELECT * FROM state_cache_stats()",
    "SELECT * FROM state_cache_entries()",
    "SELECT * FROM state_cache_workers()",
    "SELECT * FROM state_cache_unwritten()",
    "SELECT * FROM state_progress()",
    "SELECT state_invalidate('a*'), state_cache_clear()",
    "BEGIN; SELECT state_batch_begin(); SELECT state_get('a'); SELECT * FROM state_batch_status();
     SELECT state_batch_rollback(); SELECT * FROM state_batch_commit(); COMMIT",
];

/// Calls that write.
const WRITES: &[&str] = &[
    "state_set('a', '1')",
    "state_set_text('a', '1')",
    "state_update('a', '{}')",
    "state_update_section('a', 's', '{}')",
    "state_merge('a', '{}')",
    "state_put('a', '1')",
    "state_append('a', '{l}', '1')",
    "state_append_many('a', '{l}', '[1]')",
    "state_pop('a', '{l}')",
    "state_delete('a')",
    "state_touch('a', '1 day')",
    "state_touch_prefix('a')",
    "state_save('a', '1')",
    "state_save_text('a', '1')",
    "state_restore('a', 1)",
    "state_recover('a')",
    "state_prune('run', keep => 1)",
    "state_verify(repair => true)",
    "state_log_append('a', '[1]')",
    "state_log_erase('a')",
    "state_claim('a', 'me')",
    "state_renew('a', 1)",
    "state_release('a', 1)",
    "state_fence('a', 1)",
    "state_purge('{a}')",
    "state_copy('a', 'z')",
    "state_draw('state_claim_token')",
    "state_context_create('x')",
    "state_context_child('r', 'x')",
    "state_context_set('r', 'v', '1')",
    "state_context_set_many('r', '{\"v\": 1}')",
    "state_context_append('r', 'v', '1')",
    "state_context_patch('r', 'v', '{}')",
    "state_context_merge('rc')",
    "state_conflict_resolve(1, '1', 'because')",
    "state_context_mark_export('r', 'v', 'blackboard')",
    "state_context_unmark_export('r', 'v')",
    "state_context_complete('r')",
    "state_context_claim('r', 'me')",
    "state_context_claim_next('me')",
    "state_context_step('r', 'one')",
    "state_context_renew('r', 1)",
    "state_context_release('r', 1)",
    "state_context_fence('r', 1)",
    "state_context_spend('r', 'credits', 1)",
    "state_blackboard_add('w', 'k', '1')",
    "state_blackboard_update('w', 'i', '2')",
    "state_blackboard_remove('w', 'i')",
    "state_budget_define('m', 1, 'USD')",
    "state_budget_drop('m')",
    "state_budget_reserve('m', 'agent', 1)",
    "state_budget_settle('h', 1)",
    "state_budget_void('h')",
    "state_budget_extend('h')",
    "state_budget_record_costs('m', '[{\"id\": \"d\", \"agent\": \"agent\", \"amount\": 2, \"expected\": 1}]')",
    "state_budget_verify(repair => true)",
    "state_job_create('k')",
    "state_job_add_tasks('j', '[\"t3\"]')",
    "state_job_update_tasks('j', '[{\"task_id\": \"t1\", \"status\": \"failed\"}]')",
    "state_job_cancel('j')",
    "state_job_claim_tasks('me')",
    "state_job_renew_tasks('j', '{t1}', 1)",
    "state_job_verify(repair => true)",
    "state_watch('computed', 'item')",
    "state_unwatch('computed', 'item')",
    "state_class_define('d')",
    "state_flush()",
    "state_protections_note()",
    "state_grant('postgres', 'reader')",
    "state_revoke('postgres')",
];

#[test]
fn functions_read_on_a_standby_or_say_where_to_go() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    for statement in SETUP {
        writer.run(statement);
    }
    let standby = primary.standby();
    let cascading = standby.standby();
    cascading.catch_up_with(&standby);
    for server in [&standby, &cascading] {
        let mut reader = server.connect();
        // The second time L1 may answer.
        for call in SAME.iter().chain(SAME) {
            assert_eq!(reader.rows(call), writer.rows(call), "{call}");
        }
        for call in OWN {
            reader.run(call);
        }
        for call in WRITES {
            let error = reader.simple_query(&format!("SELECT {call}")).unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "25006", "{call}");
            let hint = error.hint().unwrap_or_default();
            assert!(
                hint.contains("target_session_attrs=primary"),
                "{call}: {hint}"
            );
        }
        assert_eq!(
            reader.text("SELECT state_get('a')"),
            writer.text("SELECT state_get('a')")
        );
    }
}
