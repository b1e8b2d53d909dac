//! Old holds and costs are pruned: nothing that anybody is told changes by it, and counters add up with what is left.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

const FILL: &str = "
    CREATE FUNCTION state_budget_test_prune() RETURNS void LANGUAGE c AS '$libdir/state_cache';
    SELECT state_budget_define('org', 100000, 'USD', shards => 2);
    SELECT state_budget_define('team', 50000, 'USD', 'org', period => 'month');
    SELECT state_budget_define('job', 30000, 'USD', 'team', '{\"a\": {\"limit\": 20000, \"price\": 1}, \"b\": {}}',
        retention => '30 days');
    SELECT state_budget_define('kept', 5000, 'USD', 'team', '{\"a\": {}}');
    SELECT count(*) FROM generate_series(1, 150) n, unnest(ARRAY['job', 'kept']) w,
        state_budget_reserve(w, 'a', 2, w || '-a-' || n) r, state_budget_settle(r.hold_id, n * 0.1);
    SELECT count(*) FROM generate_series(1, 40) n, state_budget_reserve('job', 'b', 1, 'b' || n) r,
        state_budget_settle(r.hold_id, 0);
    SELECT count(*) FROM generate_series(1, 70) n, state_budget_reserve('job', NULL, 1, 'n' || n) r,
        state_budget_settle(r.hold_id, 1);
    SELECT state_budget_record_costs('job', (SELECT jsonb_agg(jsonb_build_object('id', n::text, 'agent',
        CASE WHEN n % 3 = 0 THEN 'a' END, 'amount', n * 0.01, 'expected', CASE WHEN n % 2 = 0 THEN 1 END))
        FROM generate_series(1, 300) n));
    SELECT count(state_budget_void(hold_id))
        FROM generate_series(1, 20) n, state_budget_reserve('job', 'a', 1, 'v' || n);
    SELECT state_budget_reserve('job', 'a', 1, 'open'), state_budget_reserve('job', 'b', 1, 'over', '1 microsecond');
    CREATE FUNCTION state_budget_test_expire() RETURNS bigint LANGUAGE c AS '$libdir/state_cache';
    SELECT state_budget_test_expire();
    UPDATE state_budget_hold SET resolved_at = resolved_at - '60 days'::interval - random() * '9 days'::interval
        WHERE resolved_at IS NOT NULL AND hold_id NOT IN ('job-a-7', 'v7');
    UPDATE state_budget_hold SET expired_at = expired_at - '60 days'::interval;
    UPDATE state_budget_cost SET recorded_at = recorded_at - '60 days'::interval - random() * '9 days'::interval
        WHERE id <> '9'";

/// What anybody is told of the budgets.
const TOLD: &str = "SELECT b, state_budget_summary(b), state_budget_project(b, '[{\"agent\": \"a\", \"count\": 3},
        {\"agent\": \"b\"}]'), (SELECT jsonb_agg(r) FROM state_budget_recommend(b) r),
        (SELECT jsonb_agg(a) FROM state_budget_accuracy(b) a)
    FROM unnest(ARRAY['job']) b
    UNION ALL SELECT b, state_budget_summary(b), NULL, NULL, (SELECT jsonb_agg(a) FROM state_budget_accuracy(b) a)
    FROM unnest(ARRAY['org', 'team', 'kept']) b ORDER BY 1";

const ROWS: &str = "SELECT (SELECT count(*) FROM state_budget_hold WHERE budget = 'job'),
    (SELECT count(*) FROM state_budget_cost), (SELECT count(*) FROM state_budget_hold WHERE budget = 'kept')";

fn adds_up(client: &mut Client) {
    let wrong = client.rows("SELECT * FROM state_budget_verify()");
    assert_eq!(wrong, Vec::<Vec<String>>::new());
}

#[test]
fn what_anybody_is_told_stays_when_old_holds_and_costs_go() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run(FILL);
    adds_up(&mut client);
    let told = client.rows(TOLD);
    assert_eq!(client.rows(ROWS), [["282", "300", "150"]]);
    client.run("SELECT state_budget_test_prune()");
    // Of each agent, and of nobody in particular, the newest 50 costs; what is young; what is held.
    assert_eq!(
        client.rows(
            "SELECT count(*) FROM (SELECT agent FROM state_budget_hold WHERE budget = 'job' AND actual IS NOT NULL
            UNION ALL SELECT agent FROM state_budget_cost) c GROUP BY agent ORDER BY agent"
        ),
        [["50"], ["40"], ["50"]]
    );
    assert_eq!(
        client.rows(
            "SELECT hold_id FROM state_budget_hold WHERE budget = 'job' AND (actual IS NULL OR hold_id = 'job-a-7')
            UNION ALL SELECT id FROM state_budget_cost WHERE id = '9' ORDER BY 1"
        ),
        [["9"], ["job-a-7"], ["open"], ["v7"]]
    );
    assert_eq!(
        client.number("SELECT count(*) FROM state_budget_hold WHERE budget = 'kept'"),
        150
    );
    assert_eq!(client.rows(TOLD), told);
    adds_up(&mut client);
    // Again there is nothing to do.
    let left = client.rows(ROWS);
    client.run("SELECT state_budget_test_prune()");
    assert_eq!(client.rows(ROWS), left);

    // A name that is gone is a new one; a hold that is gone cannot be settled.
    assert_eq!(
        client.error("SELECT state_budget_settle('over', 1)"),
        "42704"
    );
    assert_eq!(
        client.text(
            "SELECT state_budget_record_costs('job', jsonb_build_array(jsonb_build_object('id', n, 'amount', 0.01)))
            FROM (SELECT n::text FROM generate_series(1, 300) n WHERE NOT EXISTS (SELECT FROM state_budget_cost
            WHERE id = n::text) LIMIT 1) gone"
        ),
        "1"
    );
    // Counters are counted anew from what is left and what was pruned.
    let told = client.rows(TOLD);
    client.run(
        "UPDATE state_budget_account SET spent = spent + 1, expected = 0, actual = 0, compared = 0",
    );
    assert!(client.number("SELECT count(*) FROM state_budget_verify(repair => true)") > 3);
    adds_up(&mut client);
    assert_eq!(client.rows(TOLD), told);
    // The sums of a budget that is dropped stay in those above.
    client.run("SELECT state_budget_void('open')");
    let above =
        "SELECT state_budget_summary('team')->'spent', state_budget_summary('org')->'spent'";
    let spent = client.rows(above);
    client.run("SELECT state_budget_drop('job')");
    assert_eq!(client.rows(above), spent);
    assert_eq!(
        client.number("SELECT count(*) FROM state_budget_pruned WHERE budget = 'job'"),
        0
    );
    adds_up(&mut client);
}

#[test]
fn a_backend_killed_while_it_prunes_has_pruned_nothing() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    server.connect().run(FILL);
    let mut client = server.connect();
    let (told, rows) = (client.rows(TOLD), client.rows(ROWS));
    let times_up = server.times_up();
    client.run("SET state_cache.test_kill_at = 'costs_pruned'");
    assert_eq!(
        client.error("SELECT state_budget_test_prune()"),
        "connection lost"
    );
    server.await_recovery(times_up);
    let mut client = server.connect();
    assert_eq!((client.rows(TOLD), client.rows(ROWS)), (told, rows));
    adds_up(&mut client);
}

#[test]
fn the_worker_prunes() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    server.connect().run(FILL);
    let told = server.connect().rows(TOLD);
    server.configure(&["state_cache.max_workers = 4"]);
    server.stop();
    server.start();
    let mut client = server.connect();
    client.run("SELECT state_set('wakes', '{}')");
    eventually("old costs to go", || {
        client.number("SELECT count(*) FROM state_budget_hold WHERE budget = 'job'") < 150
            && client.number("SELECT count(*) FROM state_budget_cost") < 110
    });
    eventually("the pass to end", || {
        let left = client.rows(ROWS);
        std::thread::sleep(std::time::Duration::from_millis(200));
        client.rows(ROWS) == left
    });
    assert_eq!(client.rows(TOLD), told);
    adds_up(&mut client);
}
