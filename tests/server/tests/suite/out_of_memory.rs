//! A failed allocation ends in 53200, whatever function asked for it: the session goes on, and so does the server.
//!
//! Two ways to have it fail. The setting `state_cache.test_refuse_memory` refuses one request after the other, which
//! finds every place of ours that asks for something as large as the data. A limit on the address space of the
//! backend has PostgreSQL's own requests fail, too, and what is small, and those that report the error.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, code, limit_memory};

/// What every test begins with: documents of some hundred kB, states made of them, two runs and a blackboard.
const SETUP: &[&str] = &[
    "SELECT state_class_define('all', keep => 0), state_class_define('left', write_mode => 'behind')",
    "CREATE TABLE docs AS SELECT
         (SELECT jsonb_object_agg('k' || i, md5(i::text)) FROM generate_series(1, 6000) i) o,
         (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 6000) i) a,
         to_jsonb(repeat('x', 300000)) s",
    "CREATE TABLE whole AS SELECT jsonb_build_object('o', o, 'a', a, 's', s) d FROM docs",
    "SELECT state_set('big', d, class => 'all') FROM whole",
    "SELECT state_update('big', jsonb_build_object('more', o), 'all') FROM docs",
    "SELECT state_set('array', a, class => 'all') FROM docs",
    "SELECT state_set('left', d, class => 'left') FROM whole",
    "SELECT state_context_create('r', swarm_id => 'sw', inputs => d) FROM whole",
    "SELECT state_context_child('r', 'c')",
    "SELECT state_context_set('c', 'o', o || '{\"by\": \"child\"}') FROM docs",
    "SELECT state_context_set('r', 'o', o || '{\"of\": \"parent\"}') FROM docs",
    "SELECT state_context_mark_export('r', 'o', 'blackboard')",
    "SELECT state_blackboard_add('sw', 'item', o) FROM docs",
    "SELECT state_set('n' || n, '{\"n\": 1}', class => 'all') FROM generate_series(1, 3000) n",
    "SELECT state_job_create('job', (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 6000) i))",
    "CREATE TABLE computed AS SELECT 1 AS id, o AS doc FROM docs",
    "SELECT state_class_define('computed', cache_ttl => '1 hour', source => 'SELECT doc FROM computed
         WHERE id = $1::integer')",
    "SELECT state_watch('computed', 'computed', 'id')",
    "SELECT state_budget_define('b', 1000000, 'USD', agents => '{\"a\": {\"price\": 1}}')",
    "SELECT count(*) FROM generate_series(1, 500) n, state_budget_reserve('b', 'a', hold_id => 'h' || n)",
];

/// Every function that takes or gives documents, or lists as long as somebody likes.
const STATEMENTS: &[&str] = &[
    "SELECT length(state_get('big', 'all')::text)",
    "SELECT length(state_get_text('big', 'all'))",
    "SELECT length(state_get_section('big', 'o', 'all')::text)",
    "SELECT length(state_get_path('big', '{s}', 'all')::text)",
    "SELECT length(state_get_path('big', '{}', 'all')::text)",
    "SELECT count(*) FROM state_get_many(array['big', 'array', 'absent'], 'all')",
    "SELECT count(*) FROM state_get_many((SELECT array_agg('n' || n) FROM generate_series(1, 9000) n), 'all')",
    "SELECT count(*) FROM state_get_if_newer('big', 1, 'all')",
    "SELECT length(state_get('big', 'all', 1)::text), state_wait('big', 1, class => 'all')",
    "SELECT count(*) FROM state_get_many(array['big', 'array'], 'all', 1)",
    "SELECT state_wait_for(cursor) FROM state_cursor()",
    "SELECT length(state_get('left', 'left')::text)",
    "SELECT state_set('big', d, class => 'all') FROM whole",
    "SELECT state_set('other', o, class => 'all') FROM docs",
    "SELECT state_set_text('text', d::text, class => 'all') FROM whole",
    "SELECT state_set_text('text', replace(d::text, 'a', '\\u0000'), on_invalid => 'replace', class => 'all') \
     FROM whole",
    "SELECT (state_save_text('text', d::text || ' ', class => 'all')).action FROM whole",
    "SELECT state_update('big', o, 'all') FROM docs",
    "SELECT state_update('big', '{\"q\": 1}', 'all')",
    "SELECT state_update('left', '{\"q\": 1}', 'left')",
    "SELECT state_update_section('big', 'o', o || '{\"q\": 2}', 'all') FROM docs",
    "SELECT state_merge('big', jsonb_build_object('o', o) || '{\"q\": 3}', 'all') FROM docs",
    "SELECT state_append('big', '{a}', s, 'all') FROM docs",
    "SELECT state_append('big', '{a}', '1', 'all'), state_append('big', '{a}', '2', 'all')",
    "SELECT state_append('big', '{made}', s, 'all', true), state_append_many('big', '{a}', a, 'all') FROM docs",
    "SELECT length(state_pop('big', '{a}', 'all')::text)",
    "SELECT state_put('other', o, class => 'all') FROM docs",
    "SELECT state_log_append('big', jsonb_build_array(o, a, s), ids => '{o, a, s}', replace => true, \
         payloads => array[s::text::bytea, o::text::bytea, NULL]) FROM docs",
    "SELECT state_log_append('big', a, 'of', array(SELECT 'i' || i FROM generate_series(1, 6000) i)) FROM docs",
    "SELECT count(*), sum(length(payload)) FROM state_log('big')",
    "SELECT state_log_erase('big')",
    "SELECT state_delete('other', class => 'all')",
    "SELECT state_touch('left', '1 hour', 'left')",
    "SELECT length(state_at('big', 1, 'all')::text)",
    "SELECT length(state_at('big', 2, 'all')::text)",
    "SELECT length(state_diff('big', 1, 2, 'all')::text)",
    "SELECT count(*) FROM state_history('big', 'all')",
    "SELECT count(*) FROM state_verify()",
    "SELECT count(*) FROM state_verify(repair => true)",
    "SELECT (state_save('other', o, execution_context => o, class => 'all')).action FROM docs",
    "SELECT (state_save('other', o, label => 'l', payload => convert_to(o::text, 'UTF8'), class => 'all')).action \
     FROM docs",
    "SELECT count(*) FROM state_list('big', class => 'all')",
    "SELECT count(*) FROM state_list(prefix => 'o', class => 'all')",
    "SELECT count(*) FROM state_keys(class => 'all')",
    "SELECT state_copy('o', 'copy-of-o', 'all')",
    "DO $$ DECLARE t bigint := state_claim('owned', 'me', class => 'all'); BEGIN
        PERFORM state_fence('owned', t, 'all'), state_set('owned', '1', class => 'all'), state_batch_commit();
        PERFORM state_renew('owned', t, class => 'all'), state_release('owned', t, 'all'); END $$",
    "SELECT state_touch_prefix('o', '1 hour', 'all'), state_touch_prefix('o', class => 'all')",
    "SELECT state_purge('{other}', versions => '{1}', class => 'all')",
    "SELECT state_purge(prefix => 'o', class => 'all')",
    "SELECT state_restore('big', 1, class => 'all')",
    "SELECT * FROM state_recover('big', class => 'all')",
    "SELECT state_prune('all', keep => 1)",
    "SELECT state_flush()",
    "SELECT state_job_create('new', a, jsonb_build_object('o', o)) FROM docs",
    "SELECT state_job_add_tasks('job', jsonb_build_array(jsonb_build_object('task_id', 'x', 'input', o))) FROM docs",
    "SELECT count(*) FROM state_job_update_tasks('job', (SELECT jsonb_agg(jsonb_build_object('task_id', v, 'status', \
     'running')) FROM docs, jsonb_array_elements(a) v))",
    "SELECT count(*) FROM state_job_claim_tasks('me', 5000, job_id => 'job')",
    "SELECT length(state_job_get('job')::text)",
    "SELECT count(*) FROM state_job_tasks('job', \"limit\" => 10000)",
    "SELECT state_job_cancel('job')",
    "SELECT count(*) FROM state_job_verify('job')",
    "SELECT state_context_create('new', inputs => d) FROM whole",
    "SELECT state_context_child('r', 'c2', inputs => o) FROM docs",
    "SELECT length(state_context_get('r')::text)",
    "SELECT length(state_context_visible('r', 'public')::text)",
    "SELECT state_context_set('r', 'o', o || '{\"q\": 4}') FROM docs",
    "SELECT state_context_set_many('r', d || '{\"q\": 5}') FROM whole",
    "SELECT state_context_step('r', 'q')",
    "SELECT count(*) FROM state_context_list()",
    "SELECT count(*) FROM state_context_claim_next('q')",
    "SELECT state_context_append('r', 'a', '\"q\"')",
    "SELECT state_context_patch('r', 'o', '{\"q\": 6}')",
    "SELECT state_context_mark_export('r', 'a', 'blackboard', item => jsonb_build_object('tags', a)) FROM docs",
    "SELECT count(*) FROM state_context_merge('c')",
    "SELECT count(*) FROM state_context_merge('c', 'manual_review')",
    "SELECT count(*) FROM state_context_complete('c')",
    "SELECT state_restore('r', 1), state_context_set('r', 'q', '7')",
    "SELECT state_blackboard_add('sw', 'other', o, tags => ARRAY(SELECT jsonb_array_elements_text(a))) FROM docs",
    "SELECT state_blackboard_update('sw', 'item', o || '{\"q\": 8}') FROM docs",
    "SELECT state_blackboard_remove('sw', 'item')",
    "SELECT count(*) FROM state_blackboard_query('sw')",
    "SELECT count(*) FROM state_changes()",
    "SELECT length(state_get_text('1', 'computed')), state_exists('2', 'computed')",
    "UPDATE computed SET doc = doc || '{\"q\": 9}'; SELECT length(state_get('1', 'computed')::text)",
    "INSERT INTO computed SELECT n, NULL FROM generate_series(3, 3000) n",
    "SELECT state_watch('computed', 'computed', 'id + 1'), count(*) FROM state_sources",
    "SELECT state_budget_define('b2', 1, 'USD', agents => '{\"a\": {\"price\": 1}}')",
    "SELECT count(*) FROM generate_series(1, 50) n, state_budget_reserve('b', 'a', n * 0.1)",
    "SELECT count(*) FROM whole, generate_series(1, 5) n, state_budget_settle('h' || n, 2, d)",
    "SELECT state_budget_record_costs('b', jsonb_agg(jsonb_build_object('id', n::text, 'agent', 'a', 'amount', 1, \
     'expected', 2, 'metadata', repeat('x', 200)))) FROM generate_series(1, 1000) n",
    "SELECT length(state_budget_summary('b')::text), count(*) FROM state_budget_recommend('b')",
    "SELECT length(state_budget_project('b', '[{\"agent\": \"a\", \"count\": 5}]')::text)",
    "SELECT count(*) FROM state_budget_verify(repair => true)",
    "SELECT state_hash(d) FROM whole",
    "SELECT count(*) FROM state_cache_entries",
    "SELECT count(state_invalidate(repeat('x', 200000)))",
    // Many states in one transaction, in subtransactions, and in a batch.
    "SELECT count(state_set('m' || n, '{\"n\": 1}', class => 'all')) FROM generate_series(1, 3000) n",
    "SELECT count(state_set('m' || n, '{\"n\": 1}', class => 'left')) FROM generate_series(1, 3000) n",
    "SAVEPOINT s; SELECT count(state_set('m' || n, '{\"n\": 1}', class => 'all')) FROM generate_series(1, 3000) n; \
     RELEASE s; SAVEPOINT s; SELECT count(state_set('m' || n, '{\"n\": 2}', class => 'all')) \
     FROM generate_series(1, 3000) n; ROLLBACK TO s",
    "SELECT state_batch_begin(); SELECT count(state_update('n' || n, '{\"m\": 1}', 'all')) \
     FROM generate_series(1, 3000) n; SELECT count(*) FROM state_batch_status(); \
     SELECT count(*) FROM state_batch_commit()",
    "DELETE FROM state_head WHERE key LIKE 'n%'",
];

struct Case {
    server: Server,
    started: String,
}

impl Case {
    fn new() -> Self {
        let server = Server::new(&[
            "state_cache.memory = '64MB'",
            "state_cache.max_state_size = '100MB'",
        ]);
        let mut client = server.connect();
        for statement in SETUP {
            client.run(statement);
        }
        let started = client.text("SELECT pg_postmaster_start_time()");
        Self { server, started }
    }

    /// Raises unless the server has been up all the time: with the crash of a backend it takes all others down.
    fn check(&self, client: &mut Client, statement: &str) {
        let started = client.text("SELECT pg_postmaster_start_time()");
        let log = self.server.log();
        let has_crashed = log.contains("terminated by signal") || log.contains("PANIC");
        assert!(
            !has_crashed && started == self.started,
            "{statement}: the server did not survive"
        );
    }
}

/// The SQLSTATE that a transaction of these statements ends in, "00000" where they succeed; it is rolled back, or
/// commits.
fn outcome(client: &mut Client, statement: &str, commits: bool) -> String {
    let end = if commits { "COMMIT" } else { "ROLLBACK" };
    let done = client.batch_execute(&format!("BEGIN; {statement}; {end}"));
    let code = done.map_or_else(|error| code(&error), |()| "00000".to_owned());
    let _ = client.batch_execute("ROLLBACK");
    code
}

#[test]
fn each_request_for_memory_that_is_refused_ends_in_53200() {
    let case = Case::new();
    let mut client = case.server.connect();
    let mut all = 0;
    for statement in STATEMENTS {
        for nth in 1.. {
            client.run(&format!("SET state_cache.test_refuse_memory = {nth}"));
            // One that is not undone is made by COMMIT; what it has changed the others can live with.
            let code = outcome(&mut client, statement, true);
            assert!(
                ["00000", "53200"].contains(&&*code),
                "{statement}: {code} where request {nth} is refused"
            );
            if code == "00000" {
                break;
            }
            all += 1;
        }
        client.run("RESET state_cache.test_refuse_memory");
        case.check(&mut client, statement);
    }
    assert!(all > 150, "only {all} requests were refused");
    let mut reader = case.server.connect();
    assert_eq!(reader.number("SELECT count(*) FROM state_verify()"), 0);
}

/// Beyond what the backend has when it begins, in kB: from nothing to where most succeed.
const LIMITS: &[u64] = &[
    0, 400, 1_000, 2_000, 4_000, 4_500, 6_000, 8_000, 12_000, 20_000, 60_000,
];

/// A session of which nothing here is asked commits without the memory that is kept back.
#[test]
fn a_transaction_that_has_nothing_to_do_with_states_needs_no_reserve() {
    let case = Case::new();
    // By another session: DDL has to do with the documents of derived classes.
    let create = "CREATE TABLE plain (n integer); INSERT INTO plain VALUES (1)";
    case.server.connect().run(create);
    let mut client = case.server.connect();
    client.run("SELECT count(*) FROM plain");
    limit_memory(client.pid(), 1_000_000);
    client.run("BEGIN; INSERT INTO plain VALUES (2); SAVEPOINT s; INSERT INTO plain VALUES (3); RELEASE s; COMMIT");
    assert_eq!(client.error("SELECT state_version('big', 'all')"), "53200");
    assert_eq!(client.number("SELECT count(*) FROM plain"), 3);
}

/// Runs every statement under each of these limits, in kB beyond what its backend has.
fn run_at_limits(limits: &[u64]) {
    let case = Case::new();
    let mut own = case.server.connect();
    let (mut failed, mut succeeded) = (0, 0);
    for statement in STATEMENTS {
        for more in limits {
            let mut client = case.server.connect();
            // What a session needs once. Of a time zone, or a language, that it has no memory to load the server says
            // that there is none.
            client.run(
                "SET TimeZone = 'UTC'; RESET TimeZone; DO $$ BEGIN END $$;
                SELECT state_version('big', 'all'), state_cursor()",
            );
            limit_memory(client.pid(), more * 1024);
            // Undone, so that the next limit finds the same.
            match &*outcome(&mut client, statement, false) {
                "00000" => succeeded += 1,
                "53200" => failed += 1,
                other => panic!("{statement}: {other} with {more} kB more"),
            }
        }
        case.check(&mut own, statement);
    }
    assert!(failed > 100 && succeeded > 100, "{failed} and {succeeded}");
}

#[test]
fn a_backend_at_the_limit_of_its_memory_says_so_and_goes_on() {
    run_at_limits(LIMITS);
}

#[test]
#[ignore = "soak"]
fn a_backend_at_any_limit_of_its_memory_says_so_and_goes_on() {
    run_at_limits(&(0..130).map(|step| step * 250).collect::<Vec<_>>());
}
