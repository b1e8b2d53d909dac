//! Runs to be taken: where lists and the queue are read from, that no run is taken twice, and what a crash leaves.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, kill};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// Runs of the tests of indexes.
const RUNS: i64 = 100_000;

/// `RUNS` runs, one in fifty of which runs, in a hundred swarms; every thousandth is a child of `r1`.
fn many_runs(client: &mut Client) {
    client.run(&format!(
        "SELECT count(state_set('r' || i, jsonb_build_object('runId', 'r' || i, 'variables', '{{}}'::jsonb,
             'swarmId', 's' || i % 100, 'routineId', 'o' || i % 7,
             'status', CASE WHEN i % 50 = 0 THEN 'running' WHEN i % 3 = 0 THEN 'failed' ELSE 'completed' END)
             || CASE WHEN i % 1000 = 1 THEN '{{\"parentRunId\": \"r1\"}}'::jsonb ELSE '{{}}' END))
         FROM generate_series(1, {RUNS}) i"
    ));
}

/// What a list, or a claim, reads of the tables.
const READS: [&str; 14] = [
    "state_context_list()",
    "state_context_list(status => 'running')",
    "state_context_list(status => 'completed', \"limit\" => 10)",
    "state_context_list(status => 'cancelled')",
    "state_context_list(swarm_id => 's7')",
    "state_context_list(swarm_id => 's50', status => 'running')",
    "state_context_list(swarm_id => 's51', status => 'running')",
    "state_context_list(parent_run_id => 'r1')",
    "state_context_list(owner => 'me')",
    "state_context_list(owner => 'me', status => 'running', claimed => true)",
    "state_context_list(claimed => true)",
    "state_context_list(claimed => false, status => 'running')",
    "state_context_list(after => 'r50000')",
    "state_context_claim_next('me', '1 hour', 's50', 'o1')",
];

/// The most rows that each of them may look at in a table: a page, and what is beside that.
const MOST_ROWS: i64 = 300;

/// Reads all lists, and says what was not from an index.
fn from_indexes(server: &Server) {
    for read in READS {
        // What a session counts is counted together, as long as it has not told the others.
        let mut client = server.connect();
        client.run(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
             SET auto_explain.log_level = 'log'",
        );
        client.run("BEGIN");
        let before = server.log().len();
        client.run(&format!("SELECT * FROM {read}"));
        // What this transaction has looked at so far.
        let looked = client.rows(
            "SELECT relname, seq_scan, coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
             WHERE relname IN ('state_claim', 'state_head', 'state_snapshot') ORDER BY relname",
        );
        client.run("COMMIT");
        for table in looked {
            assert_eq!(table[1], "0", "{read} walks over {table:?}");
            let rows: i64 = table[2].parse().unwrap();
            assert!(rows <= MOST_ROWS, "{read} looks at {table:?}");
            if read.contains("_list") && table[0] == "state_snapshot" {
                assert_eq!(rows, 0, "{read} looks at kept versions");
            }
        }
        let log = server.log();
        let plans = &log[before..];
        assert!(plans.contains("using state_claim_"), "{read}: {plans}");
        for table in ["claim", "head", "snapshot"] {
            let walk = format!("Seq Scan on state_{table}");
            assert!(!plans.contains(&walk), "{read}: {plans}");
        }
    }
}

#[test]
fn lists_and_the_queue_are_read_from_indexes() {
    let server = Server::new(&["autovacuum = off"]);
    let mut client = server.connect();
    many_runs(&mut client);
    client.run("SELECT count(state_context_claim('r' || i * 50, 'me', '1 hour')) FROM generate_series(1, 100) i");
    assert_eq!(
        client.number("SELECT count(*) FROM state_context_list(claimed => true)"),
        100
    );
    // A server that was restored knows nothing of its tables' contents yet.
    from_indexes(&server);
    client.run("ANALYZE");
    from_indexes(&server);

    // All pages together, while nothing is written.
    let (mut after, mut seen) = ("NULL".to_owned(), BTreeSet::new());
    loop {
        let page = client.rows(&format!(
            "SELECT run_id FROM state_context_list(status => 'running', after => {after}, \"limit\" => 300)"
        ));
        let Some(last) = page.last() else {
            break;
        };
        after = format!("'{}'", last[0]);
        for row in page {
            assert!(seen.insert(row[0].clone()), "{row:?} twice");
        }
    }
    assert_eq!(seen.len() as i64, RUNS / 50);
}

/// Each claimer takes runs until there is none, now and then giving one back by a rollback; what it has taken for
/// good.
fn claimer(server: &Server, number: usize) -> Vec<String> {
    let mut client = server.connect();
    let mut taken = Vec::new();
    loop {
        let rolls_back = (taken.len() + number).is_multiple_of(5);
        client.run("BEGIN");
        let next = client.rows(&format!(
            "SELECT run_id, token FROM state_context_claim_next('claimer {number}', '1 hour')"
        ));
        let Some(next) = next.first() else {
            client.run("COMMIT");
            // What others give back comes again.
            let is_over = "SELECT NOT EXISTS (SELECT FROM state_context_list(status => 'running', claimed => false))";
            if client.flag(is_over) {
                return taken;
            }
            continue;
        };
        if rolls_back {
            client.run("ROLLBACK");
            // So that the next one is another.
            client.run("BEGIN");
            let next = client.rows(&format!(
                "SELECT run_id, token FROM state_context_claim_next('claimer {number}', '1 hour')"
            ));
            taken.extend(next.first().map(|row| row[0].clone()));
            client.run("COMMIT");
            continue;
        }
        let (run, token) = (&next[0], &next[1]);
        client.run(&format!(
            "SELECT state_context_set('{run}', 'by', '{number}', token => {token})"
        ));
        client.run("COMMIT");
        taken.push(run.clone());
    }
}

#[test]
fn sixteen_claimers_take_each_of_a_thousand_runs_once() {
    const CLAIMERS: usize = 16;
    const RUNS: usize = 1000;
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run(&format!(
        "SELECT count(state_context_create('run ' || i)) FROM generate_series(1, {RUNS}) i"
    ));
    let taken: Vec<Vec<String>> = thread::scope(|scope| {
        let claimers: Vec<_> = (0..CLAIMERS)
            .map(|number| {
                let server = &server;
                scope.spawn(move || claimer(server, number))
            })
            .collect();
        claimers
            .into_iter()
            .map(|claimer| claimer.join().unwrap())
            .collect()
    });
    let all: Vec<&String> = taken.iter().flatten().collect();
    let each: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), each.len()), (RUNS, RUNS));
    // The tables tell the same.
    for (number, taken) in taken.iter().enumerate() {
        let owned = client.number(&format!(
            "SELECT count(*) FROM state_context_list(owner => 'claimer {number}', claimed => true, \"limit\" => 9999)"
        ));
        assert_eq!(owned as usize, taken.len(), "claimer {number}");
    }
    assert_eq!(
        client.number("SELECT count(DISTINCT token) FROM state_claim"),
        RUNS as i64
    );
}

#[test]
fn a_killed_claimer_leaves_the_run_to_the_next() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_context_create('first'), state_context_create('second')");
    let next = |client: &mut Client, owner: &str, lease: &str| {
        client.text(&format!(
            "SELECT coalesce((SELECT run_id FROM state_context_claim_next('{owner}', '{lease}')), 'none')"
        ))
    };
    let crash = |mut claimer: Client| {
        let times_up = server.times_up();
        kill(claimer.pid());
        server.await_recovery(times_up);
        drop(claimer);
        server.connect()
    };

    // Before its COMMIT: the run is the first again.
    let mut claimer = server.connect();
    claimer.run("BEGIN");
    assert_eq!(next(&mut claimer, "dead", "1 day"), "first");
    let mut client = crash(claimer);
    assert_eq!(next(&mut client, "one", "1 day"), "first");

    // After it: once the lease is over, and not before.
    let mut claimer = server.connect();
    assert_eq!(next(&mut claimer, "dead", "2 s"), "second");
    let token = claimer.number("SELECT token FROM state_claim WHERE run_id = 'second'");
    let mut client = crash(claimer);
    assert_eq!(next(&mut client, "two", "1 day"), "none");
    assert_eq!(
        client.rows("SELECT run_id, owner FROM state_context_list(claimed => true)"),
        [["second", "dead"], ["first", "one"]]
    );
    eventually("the lease is over", || {
        thread::sleep(Duration::from_millis(50));
        next(&mut client, "two", "1 day") == "second"
    });
    let late = format!("SELECT state_context_set('second', 'x', '1', token => {token})");
    assert_eq!(client.error(&late), "40001");
}
