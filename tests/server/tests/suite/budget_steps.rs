//! Budgets step by step: a backend that is killed after any step of a change leaves the ledger as it was before,
//! and the same change can be made again; sessions that make the rows of a budget with shards at once do not exceed
//! it; of charges made at once the one by which a level is reached tells.

use postgres::Client;
use state_cache_server_tests::{Server, Sql};

/// What all tables of budgets say, but the time at which something is defined or told.
const LEDGER: &str = "SELECT (SELECT jsonb_agg(to_jsonb(b) - 'defined_at' ORDER BY budget) FROM state_budget b),
    (SELECT jsonb_agg(to_jsonb(b) - 'defined_at' ORDER BY budget, agent) FROM state_budget_agent b),
    (SELECT jsonb_agg(b ORDER BY budget, agent, period, shard) FROM state_budget_account b),
    (SELECT jsonb_agg(b ORDER BY hold_id) FROM state_budget_hold b),
    (SELECT jsonb_agg(b ORDER BY budget, id) FROM state_budget_cost b),
    (SELECT jsonb_agg(b ORDER BY budget, agent, period, shard) FROM state_budget_pruned b),
    (SELECT jsonb_agg(b ORDER BY budget, agent, shard) FROM state_budget_price b),
    (SELECT jsonb_agg(to_jsonb(b) - 'reached_at' ORDER BY budget, agent, level) FROM state_budget_reached b)";

const SUMMARIES: &str =
    "SELECT state_budget_summary('org'), state_budget_summary('team'), state_budget_summary('job')";

/// Three budgets above each other, an agent with a price, a hold that is open and one whose time is over.
const FILL: &str = "
    CREATE FUNCTION state_budget_test_expire() RETURNS bigint LANGUAGE c AS '$libdir/state_cache';
    SELECT state_budget_define('org', 100, 'USD', soft_limit => 6);
    SELECT state_budget_define('team', 50, 'USD', 'org', shards => 2);
    SELECT state_budget_define('job', 30, 'USD', 'team', '{\"a\": {\"limit\": 20, \"price\": 1}, \"b\": {}}');
    SELECT state_budget_reserve('job', 'a', 4, 'open'), state_budget_reserve('job', 'a', 2, 'over', '1 microsecond'),
        state_budget_reserve('job', 'b', 3, 'done');
    SELECT state_budget_settle('done', 2.5)";

fn adds_up(client: &mut Client) {
    let wrong = client.rows("SELECT * FROM state_budget_verify()");
    assert_eq!(wrong, Vec::<Vec<String>>::new());
}

/// Kills a backend at points of one change, each time on the same ledger; then makes the change.
fn killed_at(change: &str, points: &[&str]) -> Client {
    // No worker: it would take out the hold whose time is over.
    let server = Server::new(&["state_cache.max_workers = 0"]);
    server.connect().run(FILL);
    let before = server.connect().rows(LEDGER);
    for point in points {
        let mut client = server.connect();
        let times_up = server.times_up();
        client.run(&format!("SET state_cache.test_kill_at = '{point}'"));
        assert_eq!(client.error(change), "connection lost", "{point}");
        server.await_recovery(times_up);
        let mut client = server.connect();
        assert_eq!(client.rows(LEDGER), before, "{point}");
        adds_up(&mut client);
    }
    let mut client = server.connect();
    client.run(change);
    assert_ne!(client.rows(LEDGER), before, "the change changes something");
    adds_up(&mut client);
    // What L1 answers is what the tables say.
    let cached = client.rows(SUMMARIES);
    client.run("SET state_cache.enabled = off");
    assert_eq!(client.rows(SUMMARIES), cached);
    client.run("RESET state_cache.enabled");
    // The commit itself: what is marked is not there, what is visible is.
    for (point, is_there) in [("marked", false), ("visible", true)] {
        let mut client = server.connect();
        let times_up = server.times_up();
        let id = format!("at-{point}");
        client.run(&format!(
            "BEGIN; SET LOCAL state_cache.test_kill_at = '{point}'"
        ));
        let reserve = format!("SELECT state_budget_reserve('job', 'b', 1, '{id}')");
        client.run(&reserve);
        assert_eq!(client.error("COMMIT"), "connection lost", "{point}");
        server.await_recovery(times_up);
        let mut client = server.connect();
        let found = format!("SELECT EXISTS (SELECT FROM state_budget_hold WHERE hold_id = '{id}')");
        assert_eq!(client.flag(&found), is_there, "{point}");
        adds_up(&mut client);
        assert_eq!(
            client.text(&reserve.replace("SELECT ", "SELECT amount FROM ")),
            "1"
        );
        adds_up(&mut client);
    }
    client
}

#[test]
fn a_backend_killed_while_it_reserves_has_reserved_nothing() {
    killed_at(
        "SELECT state_budget_reserve('job', 'a', 3, 'new')",
        &["hold_made", "hold_counted_once", "hold_counted"],
    );
}

#[test]
fn a_backend_killed_while_it_settles_has_charged_nothing() {
    // More than was held, and beyond what is told: every step is taken.
    killed_at(
        "SELECT state_budget_settle('open', 5)",
        &[
            "hold_settled",
            "hold_charged_once",
            "hold_charged",
            "price_learned",
        ],
    );
}

#[test]
fn a_backend_killed_while_it_expires_holds_has_released_nothing() {
    killed_at(
        "SELECT state_budget_test_expire()",
        &["holds_released", "holds_expired"],
    );
}

#[test]
fn a_backend_killed_while_it_changes_a_period_has_changed_nothing() {
    killed_at(
        "SELECT state_budget_define('job', 40, 'USD', period => 'month', shards => 2)",
        &["budget_locked", "budget_defined", "budget_allotted"],
    );
}

#[test]
fn a_backend_killed_while_it_records_costs_has_charged_nothing() {
    killed_at(
        "SELECT state_budget_record_costs('job', '[{\"id\": \"1\", \"agent\": \"a\", \"amount\": 4},
            {\"id\": \"2\", \"agent\": \"b\", \"amount\": 0.5, \"expected\": 1}]')",
        &["costs_written"],
    );
}

/// Sessions whose shards of eight are not the same.
fn of_other_shards(server: &Server) -> [Client; 2] {
    let mut first = server.connect();
    let shard = |client: &mut Client| client.number("SELECT pg_backend_pid() % 8");
    let taken = shard(&mut first);
    let mut others = Vec::new();
    loop {
        let mut other = server.connect();
        if shard(&mut other) != taken {
            return [first, other];
        }
        others.push(other);
        assert!(others.len() < 20, "all processes have the same shard");
    }
}

/// Begins a statement whose session waits for another.
fn waits<'a>(
    scope: &'a std::thread::Scope<'a, '_>,
    server: &Server,
    mut client: Client,
    sql: &'static str,
) -> std::thread::ScopedJoinHandle<'a, (Client, Result<String, String>)> {
    let pid = client.number("SELECT pg_backend_pid()");
    let waiting = scope.spawn(move || {
        let answer = client.simple_query(sql).map_err(|error| {
            error
                .code()
                .map_or_else(|| error.to_string(), |code| code.code().to_owned())
        });
        let value = answer.map(|messages| {
            messages
                .iter()
                .find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
                .unwrap_or_default()
        });
        (client, value)
    });
    let mut look = server.connect();
    state_cache_server_tests::eventually("the other session to wait", || {
        look.flag(&format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock')"
        ))
    });
    waiting
}

#[test]
fn sessions_that_make_the_rows_of_a_budget_at_once_do_not_exceed_it() {
    let server = Server::new(&[]);
    server
        .connect()
        .run("SELECT state_budget_define('b', 10, 'USD', shards => 8)");
    let [mut first, second] = of_other_shards(&server);
    first.run("BEGIN; SELECT state_budget_reserve('b', NULL, 8)");
    std::thread::scope(|scope| {
        let sql = "SELECT remaining FROM state_budget_reserve('b', NULL, 8)";
        let waiting = waits(scope, &server, second, sql);
        first.run("COMMIT");
        let (mut second, answer) = waiting.join().unwrap();
        assert_eq!(answer, Err("53400".to_owned()));
        assert_eq!(
            second.text("SELECT remaining FROM state_budget_reserve('b', NULL, 2)"),
            "0"
        );
        adds_up(&mut second);
    });
}

#[test]
fn a_session_with_an_older_snapshot_makes_no_rows_beside_those_of_another() {
    let server = Server::new(&[]);
    server
        .connect()
        .run("SELECT state_budget_define('b', 10, 'USD', shards => 8)");
    let [mut first, mut second] = of_other_shards(&server);
    second.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    first.run("SELECT state_budget_reserve('b', NULL, 8)");
    assert_eq!(
        second.error("SELECT state_budget_reserve('b', NULL, 8)"),
        "40001"
    );
}

#[test]
fn sessions_that_add_rows_to_a_budget_do_not_exceed_it() {
    let server = Server::new(&[]);
    server.connect().run(
        "SELECT state_budget_define('b', 10, 'USD', shards => 2); SELECT state_budget_reserve('b', NULL, 1);
        SELECT state_budget_define('b', 10, 'USD', shards => 8)",
    );
    let [mut first, second] = of_other_shards(&server);
    first.run("BEGIN; SELECT state_budget_reserve('b', NULL, 8)");
    std::thread::scope(|scope| {
        let sql = "SELECT remaining FROM state_budget_reserve('b', NULL, 8)";
        let waiting = waits(scope, &server, second, sql);
        first.run("COMMIT");
        let (mut second, answer) = waiting.join().unwrap();
        assert_eq!(answer, Err("53400".to_owned()));
        adds_up(&mut second);
    });
}

#[test]
fn of_two_charges_that_reach_a_level_together_one_tells() {
    let server = Server::new(&[]);
    server.connect().run(
        "SELECT state_budget_define('b', 100, 'USD', soft_limit => 10, shards => 8);
        SELECT state_budget_record_costs('b', '[{\"id\": \"0\", \"amount\": 1}]')",
    );
    let [mut first, second] = of_other_shards(&server);
    let told = "SELECT count(*) FROM state_budget_reached WHERE level = 'soft_limit'";
    first.run("BEGIN; SELECT state_budget_record_costs('b', '[{\"id\": \"1\", \"amount\": 5}]')");
    std::thread::scope(|scope| {
        // Neither reaches it alone.
        let sql = "SELECT state_budget_record_costs('b', '[{\"id\": \"2\", \"amount\": 5}]')";
        let waiting = waits(scope, &server, second, sql);
        assert_eq!(server.connect().number(told), 0);
        first.run("COMMIT");
        let (mut second, answer) = waiting.join().unwrap();
        assert_eq!(answer, Ok("1".to_owned()));
        assert_eq!(second.number(told), 1);
        adds_up(&mut second);
    });
}

#[test]
fn charges_far_from_a_level_do_not_wait_for_each_other() {
    let server = Server::new(&[]);
    server.connect().run(
        "SELECT state_budget_define('b', 100, 'USD', soft_limit => 80, shards => 8);
        SELECT state_budget_record_costs('b', '[{\"id\": \"0\", \"amount\": 1}]')",
    );
    let [mut first, mut second] = of_other_shards(&server);
    second.run("SET lock_timeout = '5s'");
    first.run("BEGIN; SELECT state_budget_record_costs('b', '[{\"id\": \"1\", \"amount\": 5}]')");
    second.run("SELECT state_budget_record_costs('b', '[{\"id\": \"2\", \"amount\": 5}]')");
    first.run("COMMIT");
    adds_up(&mut second);
}
