//! Commits that fail: cancelled, terminated, timed out, refused at the last moment. The state stays as it
//! was, and no mark is left behind that would keep readers from L1.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, inconsistencies};

/// A server with a state 'a', in L1.
fn server() -> Server {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_set('a', '{\"n\": 1}')");
    client.run("SELECT state_get('a')");
    server
}

/// Nothing came of the commit: 'a' is what it was, and read from L1. A mark left behind would send every
/// reader of its stripe to the tables from now on.
fn left_no_mark(server: &Server) {
    let mut client = server.connect();
    assert_eq!(client.text("SELECT state_get('a')"), "{\"n\": 1}");
    let (hits, writers) = (client.counter("hits"), client.counter("bypass_writers"));
    for _ in 0..5 {
        assert_eq!(client.text("SELECT state_get('a')"), "{\"n\": 1}");
    }
    assert_eq!(client.counter("bypass_writers"), writers);
    assert_eq!(client.counter("hits"), hits + 5);
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    // It can be written again.
    client.run("SELECT state_set('a', '{\"n\": 5}')");
    assert_eq!(
        client.text("SELECT concat(state_get('a') -> 'n', ' ', state_version('a'))"),
        "5 2"
    );
}

/// A session that commits `change` and stops at a point of that, while `meanwhile` happens to it; the result of its
/// COMMIT.
fn stopped_commit(
    server: &Server,
    point: &str,
    lock: u32,
    change: &str,
    meanwhile: impl FnOnce(&mut Client, u32),
) -> String {
    let mut writer = server.connect();
    let pid = writer.pid();
    writer.run(&format!(
        "BEGIN; SET LOCAL state_cache.test_stop_at = '{point}'"
    ));
    writer.run(change);
    std::thread::scope(|threads| {
        // Here, so that the lock goes also if this panics.
        let mut gate = server.connect();
        gate.run(&format!("SELECT pg_advisory_lock(5202, {lock})"));
        let commit = threads.spawn(|| writer.error("COMMIT"));
        eventually("the commit to stop", || {
            gate.flag(&format!(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
            ))
        });
        meanwhile(&mut gate, pid);
        commit.join().unwrap()
    })
}

/// Ways to change 'a'.
const SET: &str = "SELECT state_set('a', '{\"n\": 2}')";
const BY_HAND: &str =
    "UPDATE state_head SET version = version + 1; UPDATE state_snapshot SET version = version + 1";
const TRUNCATE: &str = "TRUNCATE state_head, state_snapshot";

fn cancel(gate: &mut Client, pid: u32) {
    assert!(gate.flag(&format!("SELECT pg_cancel_backend({pid})")));
}

fn terminate(gate: &mut Client, pid: u32) {
    assert!(gate.flag(&format!("SELECT pg_terminate_backend({pid}, 60000)")));
}

#[test]
fn a_commit_cancelled_after_its_flush_leaves_no_mark() {
    let server = server();
    assert_eq!(
        stopped_commit(&server, "after_flush", 1, SET, cancel),
        "57014"
    );
    left_no_mark(&server);
}

#[test]
fn a_commit_cancelled_after_marking_leaves_no_mark() {
    let server = server();
    assert_eq!(stopped_commit(&server, "marked", 2, SET, cancel), "57014");
    left_no_mark(&server);
}

#[test]
fn a_change_by_hand_cancelled_after_marking_leaves_no_mark() {
    for change in [BY_HAND, TRUNCATE] {
        let server = server();
        assert_eq!(
            stopped_commit(&server, "marked", 2, change, cancel),
            "57014"
        );
        left_no_mark(&server);
    }
}

#[test]
fn a_backend_terminated_in_its_commit_leaves_no_mark() {
    for (point, lock) in [("after_flush", 1), ("marked", 2)] {
        let server = server();
        let result = stopped_commit(&server, point, lock, SET, terminate);
        assert!(
            ["57P01", "connection lost"].contains(&result.as_str()),
            "{result}"
        );
        left_no_mark(&server);
    }
}

/// PostgreSQL's own `statement_timeout` ends before a COMMIT does its work, so it bounds a flush inside a
/// statement; `lock_timeout` bounds either.
#[test]
fn a_flush_that_runs_out_of_time_leaves_no_mark() {
    let server = server();
    let (mut writer, mut holder) = (server.connect(), server.connect());
    holder.run("BEGIN; SELECT FROM state_head WHERE key = 'a' FOR UPDATE");
    writer.run("BEGIN; SET LOCAL statement_timeout = '100ms'; SELECT state_set('a', '{\"n\": 2}')");
    assert_eq!(writer.error("SELECT state_batch_commit()"), "57014");
    writer.run("ROLLBACK");
    holder.run("ROLLBACK");
    left_no_mark(&server);
}

#[test]
fn a_flush_that_waits_too_long_for_a_row_leaves_no_mark() {
    let server = server();
    let (mut writer, mut holder) = (server.connect(), server.connect());
    holder.run("BEGIN; SELECT FROM state_head WHERE key = 'a' FOR UPDATE");
    writer.run("BEGIN; SET LOCAL lock_timeout = '50ms'; SELECT state_set('a', '{\"n\": 2}')");
    assert_eq!(writer.error("COMMIT"), "55P03");
    assert_eq!(writer.text("SELECT state_get('a')"), "{\"n\": 1}");
    holder.run("ROLLBACK");
    left_no_mark(&server);
}

#[test]
fn a_deadlock_of_flushes_leaves_no_mark() {
    let server = Server::new(&["deadlock_timeout = '20ms'"]);
    let mut setup = server.connect();
    setup.run("SELECT state_set('a', '{\"n\": 1}'), state_set('b', '{}')");
    setup.run("SELECT state_get('a'), state_get('b')");
    let (mut first, mut second) = (server.connect(), server.connect());
    first.run("BEGIN; SELECT state_set('a', '{\"n\": 1, \"by\": 1}'); SELECT state_batch_commit()");
    second.run("BEGIN; SELECT state_set('b', '{\"by\": 2}'); SELECT state_batch_commit()");
    first.run("SELECT state_set('b', '{\"by\": 1}')");
    second.run("SELECT state_set('a', '{\"n\": 2}')");
    let results = std::thread::scope(|threads| {
        let [first, second] = [&mut first, &mut second].map(|client| {
            threads.spawn(|| {
                client
                    .batch_execute("COMMIT")
                    .map_err(|error| state_cache_server_tests::code(&error))
            })
        });
        [first.join().unwrap(), second.join().unwrap()]
    });
    let failed: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    assert_eq!(failed, ["40P01"]);
    let mut client = server.connect();
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    let by = client.text("SELECT state_get('b') ->> 'by'");
    assert_eq!(by, if results[0].is_ok() { "1" } else { "2" });
    client.run("SELECT state_get('a')");
    let writers = client.counter("bypass_writers");
    client.run("SELECT state_get('a'), state_get('b')");
    assert_eq!(client.counter("bypass_writers"), writers);
}

/// SSI decides at the very end of a commit, after everything of ours is marked.
#[test]
fn a_serialization_failure_at_commit_leaves_no_mark() {
    let server = server();
    server.connect().run("SELECT state_set('b', '{\"n\": 1}')");
    let (mut first, mut second) = (server.connect(), server.connect());
    for client in [&mut first, &mut second] {
        client.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT state_get('a'), state_get('b')");
    }
    // Flushed before the conflict is there, so that only COMMIT is left to find it.
    first.run("SELECT state_set('b', '{\"n\": 2}'); SELECT state_batch_commit()");
    second.run("SELECT state_set('a', '{\"n\": 2}'); SELECT state_batch_commit()");
    first.run("COMMIT");
    assert_eq!(second.error("COMMIT"), "40001");
    left_no_mark(&server);
}

/// A prepared transaction is refused, and what it had flushed is undone.
#[test]
fn a_refused_prepare_leaves_no_mark() {
    let server = Server::new(&["max_prepared_transactions = 2"]);
    let mut client = server.connect();
    client.run("SELECT state_set('a', '{\"n\": 1}')");
    client.run("SELECT state_get('a')");
    client.run("BEGIN; SELECT state_set('a', '{\"n\": 2}'); SELECT state_batch_commit()");
    assert_eq!(client.error("PREPARE TRANSACTION 'p'"), "0A000");
    left_no_mark(&server);
}
