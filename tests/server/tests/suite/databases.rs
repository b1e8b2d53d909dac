//! More databases than have a place in shared memory.

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use state_cache_server_tests::{PATIENCE, Server, Sql};

/// The number in the message of a change, "null" for none.
fn told_number(client: &mut Client, listener: &mut Client) -> String {
    client.run("SELECT state_set('k', jsonb_build_object('n', random()))");
    let mut notifications = listener.notifications();
    let next = notifications.timeout_iter(PATIENCE).next().unwrap();
    let message: serde_json::Value =
        serde_json::from_str(next.expect("a message").payload()).unwrap();
    assert_eq!(message["seq"].is_null(), message["epoch"].is_null());
    message["seq"].to_string()
}

/// Databases `a` and `b`; of both the number that a message has, "null" for none.
fn told_numbers(server: &Server) -> Vec<String> {
    let numbers = ["a", "b"].map(|name| {
        let (mut client, mut listener) = (server.connect_to(name), server.connect_to(name));
        listener.run("LISTEN state_updated");
        told_number(&mut client, &mut listener)
    });
    numbers.to_vec()
}

/// A database without a place is served all the same, and somebody is told why its messages have no numbers.
#[test]
fn a_database_without_a_place_says_so_and_gets_one_by_a_setting() {
    let server = Server::new(&["state_cache.max_databases = 1"]);
    for name in ["a", "b"] {
        server.connect().run(&format!("CREATE DATABASE {name}"));
        server.connect_to(name).run("CREATE EXTENSION state_cache");
    }
    assert!(told_numbers(&server).contains(&"null".to_owned()));
    let warning = "all 1 places for databases with state_cache are taken";
    assert!(server.log().contains(warning), "{}", server.log());
    assert!(server.log().contains("Raise state_cache.max_databases"));
    // A class that is left to the worker elsewhere is written through here.
    let mut client = server.connect_to("b");
    client.run("SELECT state_class_define('left', write_mode => 'behind'); SELECT state_set('k', '1', class => \
        'left')");
    assert_eq!(
        client.text("SELECT state FROM state_current WHERE class = 'left'"),
        "1"
    );

    // More than there were places before there was a setting.
    server.configure(&["state_cache.max_databases = 1000"]);
    server.stop();
    server.start();
    assert_eq!(told_numbers(&server), ["1", "1"]);
}
