//! When the numbers begin anew.

use super::{Listener, assert_consecutive, last_message};
use state_cache_server_tests::{Server, Sql, eventually};

/// Sends two messages on a new run of the server, and gives their epoch.
fn begins_with_one(server: &Server, known: &[String]) -> String {
    let (mut client, mut listener) = (server.connect(), Listener::new(server));
    let (epoch, seq) = last_message(&mut client);
    assert_eq!(seq, 0);
    assert!(!known.contains(&epoch), "{epoch} again");
    // The worker might tell both in one message.
    client.run("SET state_cache.notify = commit");
    for _ in 0..2 {
        client.run("SELECT state_set('a', jsonb_build_object('r', random()))");
    }
    let version = client.number("SELECT state_version('a')");
    let heard = listener.await_version("run", "a", version);
    assert_consecutive(&heard);
    assert_eq!(
        (heard.len(), heard[0].seq(), heard[0].epoch()),
        (2, 1, &*epoch)
    );
    epoch
}

#[test]
fn a_server_that_starts_again_begins_a_new_epoch() {
    let server = Server::new(&[]);
    let mut known = vec![begins_with_one(&server, &[])];
    server.stop();
    server.start();
    known.push(begins_with_one(&server, &known));
    // The crash of a backend takes the shared memory with it.
    let (times_up, mut client) = (server.times_up(), server.connect());
    state_cache_server_tests::kill(client.pid());
    server.await_recovery(times_up);
    known.push(begins_with_one(&server, &known));
    server.kill_everything();
    server.start();
    begins_with_one(&server, &known);
}

#[test]
fn a_standby_that_is_promoted_begins_a_new_epoch() {
    let primary = Server::new(&[]);
    let known = vec![begins_with_one(&primary, &[])];
    let standby = primary.standby();
    let mut reader = standby.connect();
    reader.run("SELECT state_get('a')");
    assert_eq!(reader.error("LISTEN state_updated"), "25006");
    reader.run("SELECT pg_promote()");
    eventually("the promotion", || {
        !reader.flag("SELECT pg_is_in_recovery()")
    });
    begins_with_one(&standby, &known);
}
