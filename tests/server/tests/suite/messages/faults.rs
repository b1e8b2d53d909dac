//! Notifications that fail.

use super::{Listener, assert_consecutive, await_told, last_message, reload, server, shown};
use state_cache_server_tests::{Server, Sql, eventually};

/// A session that fails when its messages are queued, as one does whose messages the queue has no room for.
const FAIL: &str = "SET state_cache.test_fail_at = 'told'";

#[test]
fn a_commit_whose_messages_find_no_room_fails_and_leaves_no_gap() {
    // The commit that sends is the one that fails.
    let server = server(&[
        "state_cache.flush_interval = '1h'",
        "state_cache.notify = commit",
    ]);
    let (mut client, mut other) = (server.connect(), server.connect());
    let mut listener = Listener::new(&server);
    let before = last_message(&mut client);
    client.run("SELECT state_set('a', '{\"n\": 1}')");
    other.run("SELECT state_get('a')");
    client.run(FAIL);
    for change in [
        "SELECT state_set('a', '{\"n\": 2}')",
        "SELECT state_delete('a')",
        "SELECT state_invalidate('a*')",
        "UPDATE state_head SET updated_at = now()",
        "TRUNCATE state_head, state_snapshot",
        // What was to be left to the worker is lost with the rest.
        "BEGIN; SELECT state_set('b', '{}', class => 'left'); SELECT state_set('a', '{\"n\": 2}'); COMMIT",
    ] {
        assert_eq!(client.error(change), "54000", "{change}");
        client.run("ROLLBACK");
        assert_eq!(
            other.text("SELECT state_get('a')"),
            "{\"n\": 1}",
            "{change}"
        );
        assert_eq!(other.text("SELECT state_get('b', class => 'left')"), "NULL");
        let (hits, writers) = (other.counter("hits"), other.counter("bypass_writers"));
        other.run("SELECT state_get('a')");
        assert_eq!(
            other.counter("bypass_writers"),
            writers,
            "{change} left a mark"
        );
        assert_eq!(other.counter("hits"), hits + 1, "{change}");
    }
    // Nobody waits for the lock that they have taken; the numbers go on where they were.
    client.run("RESET state_cache.test_fail_at; SELECT state_set('a', '{\"n\": 2}')");
    let heard = listener.await_version("run", "a", 2);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_consecutive(&heard);
    assert_eq!(
        (heard[0].epoch(), heard[0].seq()),
        (&*before.0, before.1 + 1)
    );
}

/// The last that the server looks at, after the messages have their numbers and are in its queue.
#[test]
fn a_serialization_failure_leaves_no_gap() {
    // The worker would tell both changes of a state in one message.
    let server = Server::new(&["state_cache.notify = commit"]);
    let (mut one, mut two) = (server.connect(), server.connect());
    let mut listener = Listener::new(&server);
    one.run("SELECT state_set('a', '{}'), state_set('b', '{}')");
    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE;
        SELECT count(*) FROM state_current";
    one.run(begin);
    two.run(begin);
    one.run("SELECT state_set('a', '{\"n\": 1}'); SELECT count(*) FROM state_batch_commit()");
    two.run("SELECT state_set('b', '{\"n\": 1}'); SELECT count(*) FROM state_batch_commit()");
    one.run("COMMIT");
    assert_eq!(two.error("COMMIT"), "40001");
    two.run("SELECT state_set('b', '{\"n\": 2}')");
    let heard = listener.await_version("run", "b", 2);
    assert_consecutive(&heard);
    assert_eq!(heard.len(), 3, "{heard:?}");
}

#[test]
fn a_worker_whose_messages_find_no_room_tells_later_and_loses_nothing() {
    let server = server(&["state_cache.notify = worker"]);
    let mut client = server.connect();
    let mut listener = Listener::new(&server);
    let (epoch, seq) = last_message(&mut client);
    reload(&server, "state_cache.test_fail_at = 'told'");
    // In this session too, which sends nothing itself.
    eventually("the setting", || {
        client.text("SHOW state_cache.test_fail_at") == "told"
    });
    client.run("SELECT state_set('k' || n, '{}') FROM generate_series(1, 10) n");
    client.run("SELECT state_set('a', '{}', class => 'left')");
    eventually("the worker to fail", || {
        shown(&mut client, "last_error").contains("54000")
    });
    assert_ne!(shown(&mut client, "untold"), "0");
    assert_eq!(last_message(&mut client), (epoch.clone(), seq));
    client.run("SELECT state_set('k1', '{\"n\": 2}')");
    reload(&server, "state_cache.test_fail_at = ''");
    await_told(&mut client);
    client.run("SELECT state_set('end', '{}')");
    let heard = listener.await_version("run", "end", 1);
    assert_eq!((heard[0].epoch(), heard[0].seq()), (&*epoch, seq + 1));
    assert_consecutive(&heard);
    let mut told: Vec<_> = heard.iter().flat_map(|message| message.changes()).collect();
    told.sort();
    let mut expected: Vec<_> = (2..=10).map(|n| (format!("k{n}"), 1)).collect();
    expected
        .extend([("k1", 2), ("a", 1), ("end", 1)].map(|(key, version)| (key.to_owned(), version)));
    expected.sort();
    assert_eq!(told, expected);
}
