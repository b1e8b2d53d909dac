//! Rows that go while changes are on their way: those of classes, and tombstones.

use super::{LONG, await_accepting, reload, seen_and_stored, server, unwritten};
use state_cache_server_tests::{Sql, eventually};
use std::sync::atomic::{AtomicBool, Ordering};

/// A transaction that has changed the only state of a class, which is about to commit.
#[test]
fn a_class_that_goes_takes_no_change_along_that_is_on_its_way() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('going', write_mode => 'behind')");
    client
        .run("BEGIN; SELECT state_set('doc', '1', class => 'going'); SELECT state_batch_commit()");
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            server.connect().run(
                "CREATE TEMP TABLE staying AS SELECT * FROM state_class WHERE class <> 'going';
                 TRUNCATE state_class; INSERT INTO state_class SELECT * FROM staying",
            );
            over.store(true, Ordering::SeqCst);
        });
        let mut other = server.connect();
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE \
            '%TRUNCATE%' AND pid <> pg_backend_pid())";
        eventually("it to wait for the commit, or to be over", || {
            over.load(Ordering::SeqCst) || other.flag(waits)
        });
        assert!(!over.load(Ordering::SeqCst), "it did not wait");
        client.run("COMMIT");
    });
    // It was written before the row of its class went.
    let stored = "SELECT key, state FROM state_current WHERE class = 'going'";
    assert_eq!(client.rows(stored), [["doc", "1"]]);
    assert_eq!(
        client
            .rows("SELECT * FROM state_cache_unwritten WHERE class = 'going'")
            .len(),
        0
    );
    assert_eq!(
        client.error("SELECT state_get('doc', class => 'going')"),
        "42704"
    );
    client.run("SELECT state_flush()");
}

/// Deleted over a version that was dirty, and set again: the tombstone is no row that somebody might delete by hand.
#[test]
fn a_tombstone_that_goes_takes_no_change_along_that_came_after_it() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    client.run("SELECT state_set('doc', '1', class => 'left')");
    client.run("SELECT state_flush()");
    client.run("SELECT state_set('doc', '2', class => 'left')");
    client.run("SELECT state_delete('doc', class => 'left')");
    client.run("SELECT state_set('doc', '\"acked\"', class => 'left')");
    reload(&server, "state_cache.tombstone_retention = 0");
    let tombstone = "SELECT EXISTS (SELECT FROM state_head WHERE class = 'left' AND key = 'doc')";
    eventually("the tombstone to go", || !client.flag(tombstone));
    assert_eq!(unwritten(&mut client), ["doc"]);
    client.run("SELECT state_flush()");
    assert_eq!(
        seen_and_stored(&mut client, "doc"),
        ("v4 \"acked\"".into(), "v4 \"acked\"".into())
    );
    await_accepting(&mut client);
}
