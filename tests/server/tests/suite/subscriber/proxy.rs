//! Through a connection pooler. One that pools transactions accepts LISTEN, and the notifications are lost.

use super::{App, attentive, document, quiet, set};
use state_cache_client::{Error, Event};
use state_cache_server_tests::{Proxy, Server, eventually};

#[test]
fn a_pool_of_transactions_is_noticed_at_the_start() {
    let server = Server::new(&[]);
    // With one connection to the server, whoever sends the notification has the session that listens.
    for (mode, pool) in [("transaction", 1), ("transaction", 5), ("statement", 5)] {
        let proxy = Proxy::new(&server, mode, pool);
        let refused = App::try_new(proxy.parameters(), attentive()).map(drop);
        assert!(
            matches!(refused, Err(Error::NotDelivered)),
            "{mode} {pool}: {refused:?}"
        );
    }
}

#[test]
fn a_pool_of_sessions_will_do() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    let proxy = Proxy::new(&server, "session", 5);
    let app = App::new(proxy.parameters(), quiet());
    app.fill(&["x"]);
    set(&mut client, "x", 2);
    eventually("the message", || !app.holds("x"));
    assert_eq!(app.get("x"), document(2));
}

#[test]
fn a_pooler_that_is_configured_anew_is_noticed_when_it_comes_back() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    let proxy = Proxy::new(&server, "session", 5);
    let mut app = App::new(proxy.parameters(), attentive());
    app.fill(&["x"]);
    drop(proxy);
    let _proxy = Proxy::new(&server, "transaction", 5);
    let not_delivered = Error::NotDelivered.to_string();
    app.await_event(|event| *event == Event::Lost(not_delivered.clone()));
    // It reads, which a pool of transactions is good for.
    set(&mut client, "x", 2);
    assert!(!app.holds("x"));
    eventually("it to read", || {
        app.try_get("run", "x")
            .is_ok_and(|read| read == document(2))
    });
    assert!(!app.holds("x"));
}
