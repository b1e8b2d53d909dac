//! Changes of blackboards, which are told with the keys of the items.

use super::{Listener, Message, assert_consecutive, call_worker, server};
use serde_json::{Value, json};
use state_cache_server_tests::{Server, Sql};

/// What a message says of the items of each state that it names.
fn items(message: &Message) -> Vec<(&str, Option<&Value>)> {
    let changes = message.body["changes"].as_array().into_iter().flatten();
    changes
        .map(|change| (change["key"].as_str().unwrap(), change.get("items")))
        .collect()
}

/// The fault seen elsewhere: they never are.
#[test]
fn blackboard_changes_are_reported() {
    for (notify, mode) in [
        ("commit", "through"),
        ("worker", "through"),
        ("auto", "through"),
        ("commit", "behind"),
        ("worker", "behind"),
        ("auto", "behind"),
    ] {
        let server = Server::new(&[&format!("state_cache.notify = {notify}")]);
        let (mut client, mut listener) = (server.connect(), Listener::new(&server));
        call_worker(&mut client);
        client.run(&format!(
            "SELECT state_class_define('swarm', write_mode => '{mode}')"
        ));
        client.run("SELECT state_blackboard_add('board', 'plan-a', '1')");
        client.run("SELECT state_blackboard_update('board', 'plan-a', '2')");
        client.run(
            "BEGIN; SELECT state_blackboard_add('board', 'b', '1');
            SELECT state_blackboard_remove('board', 'plan-a'); COMMIT",
        );
        client.run("SELECT state_update('board', '{\"team\": []}', class => 'swarm')");
        let heard = listener.await_version("swarm", "board", 4);
        assert_consecutive(&heard);
        let of_board: Vec<_> = heard
            .iter()
            .filter(|message| message.class() == "swarm")
            .flat_map(items)
            .collect();
        assert_eq!(
            of_board,
            [
                ("board", Some(&json!(["plan-a"]))),
                ("board", Some(&json!(["plan-a"]))),
                ("board", Some(&json!(["b", "plan-a"]))),
                ("board", None),
            ],
            "notify = {notify}, {mode}"
        );
    }
}

/// Of many states with many items each, every one is named, and no message is too long for NOTIFY.
#[test]
fn messages_with_items_have_room_for_all_states() {
    let server = server(&[]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run(
        "SELECT count(state_blackboard_add(repeat(chr(1), 252) || s, repeat(chr(2), 150) || i, '1'))
            FROM generate_series(100, 109) s, generate_series(100, 101) i",
    );
    client.run("SELECT state_blackboard_add('last', 'item', '1')");
    let heard = listener.await_version("swarm", "last", 1);
    assert_consecutive(&heard);
    let told: Vec<_> = heard.iter().flat_map(items).collect();
    assert_eq!(told.len(), 11);
    let named = told.iter().filter(|(key, items)| {
        key.starts_with('\u{1}')
            && items
                .and_then(Value::as_array)
                .is_some_and(|it| it.len() == 2)
    });
    assert_eq!(named.count(), 10, "{told:?}");
}
