//! When the connection is lost, or is one in name only.

use super::{App, LISTENING, WITH_THE_COMMIT, attentive, document, quiet, set};
use postgres::Client;
use state_cache_client::Event;
use state_cache_server_tests::{Server, Sql, Stopped, eventually};

/// Ends the session that listens.
fn cut(client: &mut Client) {
    assert_eq!(
        client.text(&format!(
            "SELECT bool_and(pg_terminate_backend(pid, 60000)) {LISTENING}"
        )),
        "t"
    );
}

fn allow_connections(server: &Server, allow: bool) {
    // Not from within: a session cannot shut out others from its own database.
    server.connect_to("template1").run(&format!(
        "ALTER DATABASE postgres ALLOW_CONNECTIONS {allow}"
    ));
}

#[test]
fn while_it_cannot_listen_it_reads_and_afterwards_it_keeps_what_did_not_change() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = server.connect();
    for key in ["x", "y", "z"] {
        set(&mut client, key, 1);
    }
    let mut app = App::new(&server.parameters(), quiet());
    app.fill(&["x", "y", "z"]);
    allow_connections(&server, false);
    cut(&mut client);
    app.await_loss();
    set(&mut client, "y", 2);
    assert!(!app.holds("x") && !app.holds("y"));
    assert_eq!(app.get("y"), document(2));
    set(&mut client, "y", 3);
    assert_eq!(app.get("y"), document(3));
    assert_eq!(app.get("x"), document(1));
    client.run("DELETE FROM state_head WHERE key = 'z'");
    allow_connections(&server, true);
    let events = app.await_catching_up();
    assert!(!events.contains(&Event::StartedAnew), "{events:?}");
    assert!(app.holds("x"), "nothing happened to this one");
    assert!(!app.holds("y") && !app.holds("z"));
    assert_eq!(app.get("y"), document(3));
    assert_eq!(app.get("z"), None);
    // And it hears again.
    app.fill(&["x"]);
    set(&mut client, "x", 2);
    eventually("the message", || !app.holds("x"));
    assert_eq!(app.get("x"), document(2));
}

#[test]
fn a_server_that_was_restarted_is_trusted_for_nothing_held() {
    for crash in [false, true] {
        let server = Server::new(WITH_THE_COMMIT);
        let mut client = server.connect();
        set(&mut client, "x", 1);
        let mut app = App::new(&server.parameters(), quiet());
        app.fill(&["x"]);
        if crash {
            server.kill_postmaster();
        } else {
            server.stop();
        }
        app.await_loss();
        assert!(!app.holds("x"));
        assert!(crash || app.try_get("run", "x").is_err());
        server.start();
        let events = app.await_catching_up();
        assert!(events.contains(&Event::StartedAnew), "{events:?}");
        assert!(!app.holds("x"));
        app.fill(&["x"]);
        set(&mut server.connect(), "x", 2);
        eventually("the message", || !app.holds("x"));
        assert_eq!(app.get("x"), document(2));
    }
}

#[test]
fn a_connection_that_says_nothing_any_more_is_replaced() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    let mut app = App::new(&server.parameters(), attentive());
    app.fill(&["x"]);
    let pid = client.number(&format!("SELECT pid {LISTENING}"));
    let _stopped = Stopped::new(pid.try_into().unwrap());
    set(&mut client, "x", 2);
    app.await_loss();
    assert_eq!(app.get("x"), document(2));
    app.await_catching_up();
    app.fill(&["x"]);
    set(&mut client, "x", 3);
    eventually("the message", || !app.holds("x"));
    assert_eq!(app.get("x"), document(3));
}

#[test]
fn reading_recovers_from_a_lost_connection() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    let app = App::new(&server.parameters(), quiet());
    assert_eq!(app.get("x"), document(1));
    client.run(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
         WHERE application_name = 'subscriber under test' AND query LIKE '%state_get_if_newer%'",
    );
    set(&mut client, "x", 2);
    eventually("it to read", || {
        app.try_get("run", "x")
            .is_ok_and(|read| read == document(2))
    });
}
