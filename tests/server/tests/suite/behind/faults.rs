//! Locks that somebody else holds, and a worker that is killed: others go on, and afterwards all is well.

use super::{
    LONG, await_accepting, await_written, reload, seen_and_stored, server, unwritten, worker,
};
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, inconsistencies, kill};
use std::time::{Duration, Instant};

const SHORT: &str = "state_cache.flush_interval = '200ms'";
/// What the worker waits for a lock, once for a batch and once for the state that is locked, and the flush.
const LOCK_WAITS: Duration = Duration::from_secs(5);

/// States `doc 1` … `doc n`, written.
fn prepare(client: &mut Client, n: usize) {
    client.run(&format!(
        "SELECT count(state_set('doc ' || i, '1', class => 'left')) FROM generate_series(1, {n}) i"
    ));
    client.run("SELECT state_flush()");
}

/// A session that holds the heads' rows `doc 1` … `doc n` locked until it ends its transaction.
fn lock_rows(server: &Server, n: usize) -> Client {
    let mut holder = server.connect();
    holder.run("BEGIN");
    let keys = (1..=n).map(|i| format!("'doc {i}'")).collect::<Vec<_>>();
    holder.run(&format!(
        "SELECT FROM state_head WHERE class = 'left' AND key IN ({}) FOR UPDATE",
        keys.join(", ")
    ));
    holder
}

fn a_locked_row_holds_up_no_other(locked: usize) {
    let server = server(&[SHORT]);
    let mut client = server.connect();
    prepare(&mut client, locked);
    let mut holder = lock_rows(&server, locked);
    // They sort before the one that nobody locks.
    client.run(&format!(
        "SELECT count(state_set('doc ' || i, '2', class => 'left')) FROM generate_series(1, {locked}) i"
    ));
    let start = Instant::now();
    client.run("SELECT state_set('free', '1', class => 'left')");
    eventually("the free one to be written", || {
        !unwritten(&mut client).contains(&"free".into()) || start.elapsed() > 4 * LOCK_WAITS
    });
    let took = start.elapsed();
    // Readers get the newest of the locked ones.
    assert_eq!(
        seen_and_stored(&mut client, "doc 1"),
        ("v2 2".into(), "v1 1".into())
    );
    holder.run("COMMIT");
    await_written(&mut client);
    assert_eq!(seen_and_stored(&mut client, "doc 1").1, "v2 2");
    await_accepting(&mut client);
    assert!(took < LOCK_WAITS, "{took:?}");
}

#[test]
fn a_row_that_somebody_locks_holds_up_no_other() {
    a_locked_row_holds_up_no_other(1);
}

#[test]
fn rows_that_somebody_locks_hold_up_no_other() {
    a_locked_row_holds_up_no_other(8);
}

#[test]
fn a_table_that_somebody_locks_keeps_nobody_from_reading_and_loses_nothing() {
    let server = server(&[SHORT]);
    let mut client = server.connect();
    prepare(&mut client, 5);
    client.run("SELECT state_class_define('other', write_mode => 'behind')");
    let mut holder = server.connect();
    holder.run("BEGIN; LOCK TABLE state_head, state_snapshot IN SHARE ROW EXCLUSIVE MODE");
    // Left behind at first; from some moment on written through, and so made to wait.
    client.run("SET lock_timeout = '300ms'");
    let (mut newest, mut waited) = (1, false);
    eventually("a commit to be made to wait", || {
        let next = newest + 1;
        let change = format!(
            "SELECT count(state_set('doc ' || i, '{next}', class => 'left')) FROM generate_series(1, 5) i"
        );
        match client.batch_execute(&change) {
            Ok(()) => newest = next,
            Err(error) => {
                assert_eq!(state_cache_server_tests::code(&error), "55P03");
                waited = true;
            }
        }
        let seen = client.rows(
            "SELECT DISTINCT state_get_text('doc ' || i, class => 'left') FROM \
            generate_series(1, 5) i",
        );
        assert_eq!(seen, [[newest.to_string()]]);
        waited
    });
    assert!(newest > 1, "something was left behind");
    client.run("RESET lock_timeout");
    // The worker notices when it is to go: its waits are short.
    let pid = worker(&mut client);
    client.run(&format!("SELECT pg_terminate_backend({pid})"));
    eventually("the worker to leave", || worker(&mut client) != pid);
    holder.run("COMMIT");
    drop(holder);
    eventually("a worker to write what is left", || {
        unwritten(&mut client).is_empty()
    });
    let found = client
        .rows("SELECT DISTINCT state FROM state_current WHERE class = 'left' AND key LIKE 'doc %'");
    assert_eq!(found, [[newest.to_string()]]);
    await_accepting(&mut client);
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn changes_are_left_to_the_worker_again_after_trouble_that_sessions_have_mended() {
    let server = server(&[SHORT]);
    let mut client = server.connect();
    prepare(&mut client, 5);
    let mut holder = lock_rows(&server, 5);
    client.run(
        "SELECT count(state_set('doc ' || i, '2', class => 'left')) FROM generate_series(1, 5) i",
    );
    let parked = "SELECT count(*) FROM state_cache_unwritten WHERE parked";
    eventually("states to be put aside", || client.number(parked) >= 3);
    std::thread::scope(|threads| {
        // Written through, because they are put aside: waits for the lock, and then all are written.
        threads.spawn(|| {
            server.connect().run(
                "SELECT count(state_set('doc ' || i, '3', class => 'left')) FROM generate_series(1, 5) i",
            );
        });
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND \
            wait_event_type = 'Lock')";
        eventually("it to wait", || client.flag(waits));
        holder.run("COMMIT");
    });
    await_written(&mut client);
    await_accepting(&mut client);
}

#[test]
fn a_killed_worker_costs_what_was_not_written_and_no_more() {
    let server = server(&[LONG, "fsync = on"]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('critical')");
    client.run(
        "SELECT state_set('doc', '1', class => 'left'), state_set('doc', '1', class => 'critical')",
    );
    client.run("SELECT state_flush()");
    client.run(
        "SELECT state_set('doc', '2', class => 'left'), state_set('doc', '2', class => 'critical')",
    );
    assert_eq!(unwritten(&mut client), ["doc"]);
    let times_up = server.times_up();
    let pid = worker(&mut client);
    kill(pid);
    server.await_recovery(times_up);
    let mut client = server.connect();
    // Shared memory is gone with it, as after any crash.
    assert_eq!(
        seen_and_stored(&mut client, "doc"),
        ("v1 1".into(), "v1 1".into())
    );
    assert_eq!(
        client.text("SELECT state_get_text('doc', class => 'critical')"),
        "2"
    );
    await_accepting(&mut client);
    client.run("SELECT state_set('doc', '3', class => 'left')");
    assert_eq!(seen_and_stored(&mut client, "doc").0, "v2 3");
    reload(&server, SHORT);
    await_written(&mut client);
    assert_eq!(seen_and_stored(&mut client, "doc").1, "v2 3");
}

/// Locks a catalog that a worker reads in each of its transactions, as VACUUM FULL does.
fn lock_catalog(server: &Server) -> Client {
    let mut holder = server.connect();
    holder.run("BEGIN; LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE");
    holder
}

/// Waits until the flusher has waited for that lock in vain, so many times.
fn await_failures(client: &mut Client, times: usize) {
    let waits =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'state_cache worker'
        AND wait_event_type = 'Lock' AND query = 'write-behind')";
    for n in 1..=times {
        eventually(&format!("the flusher to wait, {n}"), || client.flag(waits));
        eventually(&format!("it to give up, {n}"), || !client.flag(waits));
    }
}

#[test]
fn a_flusher_that_fails_before_it_looks_knows_that_there_is_something_to_write() {
    let server = server(&[SHORT]);
    let mut client = server.connect();
    // Written by the worker, which knows then that nothing is left.
    client.run("SELECT state_set('doc 1', '1', class => 'left')");
    await_written(&mut client);
    let mut holder = lock_catalog(&server);
    client.run("SELECT state_set('doc 1', '2', class => 'left')");
    await_failures(&mut client, 1);
    holder.run("COMMIT");
    // It tries again by itself, and soon: nobody changes anything that would wake it.
    let start = Instant::now();
    eventually("it to be written", || {
        unwritten(&mut client).is_empty() || start.elapsed() > 4 * LOCK_WAITS
    });
    assert_eq!(unwritten(&mut client), Vec::<String>::new());
    assert_eq!(seen_and_stored(&mut client, "doc 1").1, "v2 2");
}

#[test]
fn a_worker_that_is_sent_away_while_it_cannot_look_leaves_its_work_to_the_next() {
    let server = server(&[SHORT]);
    let mut client = server.connect();
    client.run("SELECT state_set('doc 1', '1', class => 'left')");
    await_written(&mut client);
    let mut holder = lock_catalog(&server);
    // Else there is something to tell as well, and the worker knows of that.
    client.run("SET state_cache.notify = off");
    client.run("SELECT state_set('doc 1', '2', class => 'left')");
    await_failures(&mut client, 1);
    let pid = worker(&mut client);
    client.run(&format!("SELECT pg_terminate_backend({pid})"));
    eventually("the worker to leave", || worker(&mut client) != pid);
    holder.run("COMMIT");
    let start = Instant::now();
    eventually("it to be written", || {
        unwritten(&mut client).is_empty() || start.elapsed() > 4 * LOCK_WAITS
    });
    assert_eq!(unwritten(&mut client), Vec::<String>::new());
}

#[test]
fn a_shutdown_does_not_wait_for_the_next_attempt_of_a_flusher_that_has_failed() {
    let server = server(&[SHORT]);
    let mut client = server.connect();
    prepare(&mut client, 1);
    let mut holder = lock_catalog(&server);
    client.run("SELECT state_set('doc 1', '2', class => 'left')");
    // By then it makes a pause of eight seconds, longer than a worker goes on that cannot write.
    await_failures(&mut client, 4);
    holder.run("COMMIT");
    drop((holder, client));
    server.stop();
    server.start();
    let mut client = server.connect();
    assert_eq!(
        seen_and_stored(&mut client, "doc 1"),
        ("v2 2".into(), "v2 2".into())
    );
}

/// A backend that dies on its way takes shared memory along; before that point it has acknowledged nothing.
#[test]
fn a_backend_killed_before_it_has_left_its_change_has_left_nothing() {
    for point in ["after_flush", "marked", "visible"] {
        let server = server(&[LONG, "fsync = on"]);
        let mut client = server.connect();
        client.run("SELECT state_set('doc', '1', class => 'left')");
        client.run("SELECT state_flush()");
        let times_up = server.times_up();
        client.run(&format!(
            "BEGIN; SET LOCAL state_cache.test_kill_at = '{point}'; SELECT state_set('doc', '2', \
            class => 'left')"
        ));
        assert_eq!(client.error("COMMIT"), "connection lost", "{point}");
        server.await_recovery(times_up);
        let mut client = server.connect();
        assert_eq!(
            seen_and_stored(&mut client, "doc"),
            ("v1 1".into(), "v1 1".into()),
            "{point}"
        );
        await_accepting(&mut client);
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    }
}

/// The writer of dirty versions dies between its commit record and what follows from it.
#[test]
fn a_flush_killed_after_its_commit_has_written() {
    let server = server(&[LONG, "fsync = on"]);
    let mut client = server.connect();
    client.run("SELECT state_set('doc', '1', class => 'left')");
    client.run("SELECT state_flush()");
    client.run("SELECT state_set('doc', '2', class => 'left')");
    let times_up = server.times_up();
    client.run("BEGIN; SET LOCAL state_cache.test_kill_at = 'visible'; SELECT state_flush()");
    assert_eq!(client.error("COMMIT"), "connection lost");
    server.await_recovery(times_up);
    let mut client = server.connect();
    assert_eq!(
        seen_and_stored(&mut client, "doc"),
        ("v2 2".into(), "v2 2".into())
    );
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}
