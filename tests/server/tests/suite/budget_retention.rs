//! Old holds and costs are pruned: nothing that anybody is told changes by it, and counters add up with what is left.

use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, code, eventually};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Sessions that spend at the same time, and how often each does.
const SESSIONS: u64 = 6;
const TURNS: u64 = 120;

/// Spends by holds and by costs; how many cents it was told were charged.
fn spend(server: &Server, number: u64) -> u64 {
    let mut client = server.connect();
    let mut dice = Dice::new(number + 1);
    let mut charged = 0;
    for turn in 0..TURNS {
        let (name, agent) = (
            format!("{number}-{turn}"),
            ["a", "b"][dice.roll(2) as usize],
        );
        let cents = dice.roll(300) + 1;
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let settle = format!("SELECT state_budget_settle('{name}', {amount})");
        match dice.roll(5) {
            0 => {
                client.run(&format!(
                    "SELECT state_budget_record_costs('job', '[{{\"id\": \"{name}\", \"agent\": \"{agent}\", \
                     \"amount\": {amount}, \"expected\": 1}}]')"
                ));
                charged += cents;
            }
            1 => client.run(&format!(
                "SELECT state_budget_reserve('job', '{agent}', 2, '{name}'); SELECT state_budget_void('{name}')"
            )),
            // Its time is over at once: it is settled late, or is gone.
            2 => {
                client.run(&format!(
                    "SELECT state_budget_reserve('job', '{agent}', 2, '{name}', '1 microsecond')"
                ));
                match client.simple_query(&settle) {
                    Ok(_) => charged += cents,
                    Err(error) => assert_eq!(code(&error), "42704", "{error:?}"),
                }
            }
            _ => {
                client.run(&format!(
                    "SELECT state_budget_reserve('job', '{agent}', 2, '{name}', '1 hour'); {settle}"
                ));
                charged += cents;
            }
        }
    }
    charged
}

/// Repeats something until the sessions are done.
fn meanwhile(server: &Server, is_over: &AtomicBool, mut act: impl FnMut(&mut Client)) {
    let mut client = server.connect();
    while !is_over.load(Ordering::SeqCst) {
        act(&mut client);
    }
}

#[test]
fn the_ledger_adds_up_while_old_holds_and_costs_go() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run(
        "CREATE FUNCTION state_budget_test_prune() RETURNS void LANGUAGE c AS '$libdir/state_cache';
        CREATE FUNCTION state_budget_test_expire() RETURNS bigint LANGUAGE c AS '$libdir/state_cache';
        SELECT state_budget_define('team', 100000, 'USD', shards => 2);
        SELECT state_budget_define('job', 90000, 'USD', 'team', '{\"a\": {\"price\": 1}, \"b\": {}}', shards => 4,
            retention => '1 day')",
    );
    let is_over = AtomicBool::new(false);
    // As if days went by.
    let age = "SELECT state_budget_test_expire();
        UPDATE state_budget_hold SET resolved_at = resolved_at - '3 days'::interval
            WHERE resolved_at > now() - '1 day'::interval;
        UPDATE state_budget_hold SET expired_at = expired_at - '3 days'::interval
            WHERE expired_at > now() - '1 day'::interval;
        UPDATE state_budget_cost SET recorded_at = recorded_at - '3 days'::interval
            WHERE recorded_at > now() - '1 day'::interval";
    let charged: u64 = std::thread::scope(|threads| {
        let (server, is_over) = (&server, &is_over);
        threads.spawn(move || meanwhile(server, is_over, |client| client.run(age)));
        threads.spawn(move || {
            meanwhile(server, is_over, |client| {
                client.run("SELECT state_budget_test_prune()");
            });
        });
        // Counters are what is left and what was pruned at every moment.
        threads.spawn(move || meanwhile(server, is_over, adds_up));
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| threads.spawn(move || spend(server, number)))
            .collect();
        let charged: Vec<_> = sessions.into_iter().map(|it| it.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        charged.into_iter().map(|it| it.unwrap()).sum()
    });
    client.run(age);
    client.run("SELECT state_budget_test_prune()");
    adds_up(&mut client);
    for budget in ["job", "team"] {
        assert_eq!(
            client.text(&format!(
                "SELECT ((state_budget_summary('{budget}')->>'spent')::numeric * 100)::bigint"
            )),
            charged.to_string(),
            "{budget}"
        );
        assert_eq!(
            client.text(&format!(
                "SELECT state_budget_summary('{budget}')->'reserved'"
            )),
            "0"
        );
    }
    // Most of what was spent is known by its sums only, and of each agent the newest 50 costs are there.
    assert!(client.flag(
        "SELECT (SELECT sum(spent) FROM state_budget_pruned WHERE budget = 'job' AND agent = '') >
        (SELECT sum(actual) FROM (SELECT actual FROM state_budget_hold
            UNION ALL SELECT actual FROM state_budget_cost) c)"
    ));
    assert_eq!(
        client.rows(
            "SELECT count(*) FROM (SELECT agent FROM state_budget_hold WHERE status = 'settled'
            UNION ALL SELECT agent FROM state_budget_cost) c GROUP BY agent ORDER BY agent"
        ),
        [["50"], ["50"]]
    );
}

/// A budget with one hold that is over and old enough to go, in which 7 were spent.
const OVER: &str = "
    SELECT state_budget_define('job', 100, 'USD', retention => '1 day');
    SELECT state_budget_reserve('job', NULL, 7, 'spent'), state_budget_settle('spent', 7),
        state_budget_reserve('job', NULL, 10, 'over', '1 microsecond');
    SELECT state_budget_test_expire();
    UPDATE state_budget_hold SET expired_at = expired_at - '3 days'::interval WHERE hold_id = 'over'";

/// What a session is told that does this while another has done that and has not committed; then it does.
fn told_after(server: &Server, first: &str, end: &str, second: &'static str) -> String {
    let mut ahead = server.connect();
    let mut behind = server.connect();
    ahead.run(&format!("BEGIN; {first}"));
    let pid = behind.number("SELECT pg_backend_pid()");
    let thread = std::thread::spawn(move || match behind.simple_query(second) {
        Ok(_) => "done".to_owned(),
        Err(error) => code(&error),
    });
    let mut other = server.connect();
    eventually("the second to wait, or to be done", || {
        thread.is_finished()
            || other.flag(&format!(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock')"
            ))
    });
    ahead.run(end);
    thread.join().unwrap()
}

#[test]
fn a_hold_is_settled_late_or_pruned() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run(
        "CREATE FUNCTION state_budget_test_prune() RETURNS void LANGUAGE c AS '$libdir/state_cache';
        CREATE FUNCTION state_budget_test_expire() RETURNS bigint LANGUAGE c AS '$libdir/state_cache'",
    );
    const PRUNE: &str = "SELECT state_budget_test_prune()";
    const SETTLE: &str = "SELECT state_budget_settle('over', 5)";
    const VOID: &str = "SELECT state_budget_void('over')";
    const AGAIN: &str = "SELECT state_budget_reserve('job', NULL, 10, 'over', '1 hour')";
    for (first, end, second, told, spent, reserved) in [
        // Who comes behind the pruning finds no hold; a name that is gone is a new one.
        (PRUNE, "COMMIT", SETTLE, "42704", "7", "0"),
        (PRUNE, "ROLLBACK", SETTLE, "done", "12", "0"),
        (PRUNE, "COMMIT", VOID, "42704", "7", "0"),
        (PRUNE, "COMMIT", AGAIN, "done", "7", "10"),
        // Pruning passes over what somebody settles.
        (SETTLE, "COMMIT", PRUNE, "done", "12", "0"),
        (SETTLE, "ROLLBACK", PRUNE, "done", "7", "0"),
        (VOID, "COMMIT", PRUNE, "done", "7", "0"),
    ] {
        client.run(OVER);
        let step = format!("{first}, {end} beside {second}");
        assert_eq!(told_after(&server, first, end, second), told, "{step}");
        assert_eq!(
            client.rows("SELECT s->'spent', s->'reserved' FROM state_budget_summary('job') s"),
            [[spent, reserved]],
            "{step}"
        );
        adds_up(&mut client);
        client.run(
            "SELECT state_budget_void(hold_id) FROM state_budget_hold WHERE status = 'held';
            SELECT state_budget_drop('job')",
        );
    }
}
