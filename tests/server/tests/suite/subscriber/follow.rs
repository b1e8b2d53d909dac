//! As long as the connection holds.

use super::{App, WITH_THE_COMMIT, attentive, document, quiet, set};
use state_cache_client::Event;
use state_cache_server_tests::{Server, Sql, eventually};

#[test]
fn it_answers_from_memory_until_it_hears_of_a_change() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    let app = App::new(&server.parameters(), quiet());
    assert!(!app.holds("x"));
    app.fill(&["x", "absent"]);
    let reads = client.counter("hits") + client.counter("misses");
    assert_eq!(app.get("x"), document(1));
    assert_eq!(app.get("absent"), None);
    assert_eq!(client.counter("hits") + client.counter("misses"), reads);

    set(&mut client, "x", 2);
    set(&mut client, "absent", 1);
    eventually("the messages", || !app.holds("x") && !app.holds("absent"));
    assert_eq!(app.get("x"), document(2));
    assert_eq!(app.get("absent"), document(1));
    app.fill(&["x", "absent"]);
    client.run("SELECT state_delete('x')");
    eventually("the message", || !app.holds("x"));
    assert_eq!(app.get("x"), None);
    assert!(app.holds("absent"), "nothing happened to this one");
    client.run("SELECT state_invalidate('*')");
    eventually("the message", || !app.holds("absent"));
}

/// Keys reach it as escapes of Unicode, from databases of other encodings too.
#[test]
fn it_knows_keys_that_are_not_ascii() {
    let server = Server::new(WITH_THE_COMMIT);
    server.connect().run(
        "CREATE DATABASE euc_jp TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    for database in ["postgres", "euc_jp"] {
        let mut client = server.connect_to(database);
        client.run("CREATE EXTENSION IF NOT EXISTS state_cache");
        set(&mut client, "漢", 1);
        set(&mut client, "あ", 1);
        let parameters = server
            .parameters()
            .replace("dbname=postgres", &format!("dbname={database}"));
        let app = App::new(&parameters, quiet());
        app.fill(&["漢", "あ"]);
        set(&mut client, "漢", 2);
        eventually("the message", || !app.holds("漢"));
        assert_eq!(app.get("漢"), document(2));
        assert!(app.holds("あ"), "nothing happened to this one");
    }
}

/// Nobody would tell it when they change.
#[test]
fn it_remembers_no_state_of_a_class_without_messages() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    let app = App::new(&server.parameters(), quiet());
    let set = |client: &mut postgres::Client, n| {
        client.run(&format!(
            "SELECT state_set('x', '{{\"n\": {n}}}', class => 'swarm')"
        ));
    };
    let get = || app.try_get("swarm", "x").unwrap();
    let holds = || app.subscriber.peek("swarm", "x").is_some();
    set(&mut client, 1);
    eventually("it to be held", || {
        get();
        holds()
    });
    client.run("SELECT state_class_define('swarm', notify => 'off')");
    eventually("the message", || !holds());
    for n in 2..5 {
        set(&mut client, n);
        assert_eq!(get(), document(n));
        assert!(!holds());
    }
    assert_eq!(app.try_get("swarm", "absent").unwrap(), None);
    client.run("SELECT state_class_define('swarm', notify => 'default')");
    eventually("it to be held again", || {
        assert_eq!(get(), document(4));
        holds()
    });
}

#[test]
fn it_hears_of_changes_by_hand() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    set(&mut client, "y", 1);
    set(&mut client, "z", 7);
    let app = App::new(&server.parameters(), quiet());
    app.fill(&["x", "y", "z"]);
    client.run("DELETE FROM state_head WHERE key = 'x'");
    eventually("the message", || !app.holds("x"));
    assert_eq!(app.get("x"), None);
    // The version stays what it was.
    client.run(
        "BEGIN;
         UPDATE state_snapshot SET state = '{\"n\": 2}', hash = state_hash('{\"n\": 2}') WHERE key = 'y';
         UPDATE state_head SET hash = state_hash('{\"n\": 2}') WHERE key = 'y';
         COMMIT",
    );
    eventually("the message", || !app.holds("y"));
    assert_eq!(app.get("y"), document(2));
    assert!(app.holds("z"), "nothing happened to this one");
    client.run("TRUNCATE state_head, state_snapshot");
    eventually("the message", || !app.holds("z"));
    assert_eq!(app.get("z"), None);
}

#[test]
fn it_listens_to_classes_that_come_later() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    let app = App::new(&server.parameters(), attentive());
    client.run("SELECT state_class_define('later', channel => 'Later \"changes\"')");
    client.run("SELECT state_set('x', '{\"n\": 1}', class => 'later')");
    let get = || app.try_get("later", "x").unwrap();
    for n in 2..5 {
        eventually("it to be held", || {
            get();
            app.subscriber.peek("later", "x").is_some()
        });
        client.run(&format!(
            "SELECT state_set('x', '{{\"n\": {n}}}', class => 'later')"
        ));
        eventually("the change", || get() == document(n));
    }
}

/// What nobody was told of (`state_cache.notify = off`) is among the changes, and only that is dropped.
#[test]
fn a_gap_in_the_numbers_makes_it_ask_for_changes() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = server.connect();
    for key in ["x", "y", "z"] {
        set(&mut client, key, 1);
    }
    let mut app = App::new(&server.parameters(), quiet());
    app.fill(&["x", "y", "z"]);
    client.run("SET state_cache.notify = off");
    set(&mut client, "y", 2);
    client.run("SELECT state_delete('z')");
    client.run("RESET state_cache.notify");
    assert!(app.holds("x") && app.holds("y") && app.holds("z"));
    client.run(
        "SELECT pg_notify('state_updated', jsonb_build_object('class', 'run', 'op', 'update', 'changes', '[]'::jsonb,
             'seq', seq + 2, 'epoch', epoch)::text) FROM state_cursor()",
    );
    let events = app.await_catching_up();
    assert!(
        events.iter().all(|event| !matches!(
            event,
            Event::StartedAnew | Event::Lost(_) | Event::Invalidated { .. }
        )),
        "{events:?}"
    );
    assert!(app.holds("x"), "nothing happened to this one");
    assert!(!app.holds("y") && !app.holds("z"));
    assert_eq!(app.get("y"), document(2));
    assert_eq!(app.get("z"), None);
    // It is not thrown off by the number that nobody had given.
    app.fill(&["x", "y"]);
    set(&mut client, "y", 3);
    eventually("the message", || !app.holds("y"));
    assert_eq!(app.get("y"), document(3));
    assert!(app.holds("x"));
}

#[test]
fn it_drops_everything_when_the_server_does_not_remember_that_far_back() {
    let server = Server::new(WITH_THE_COMMIT);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    let mut app = App::new(&server.parameters(), quiet());
    app.fill(&["x"]);
    client.run("SET state_cache.notify = off");
    client.run("TRUNCATE state_head, state_snapshot");
    assert!(app.holds("x"));
    client.run("NOTIFY state_updated, 'no message of ours'");
    let events = app.await_catching_up();
    assert!(events.contains(&Event::StartedAnew), "{events:?}");
    assert_eq!(app.get("x"), None);
}

#[test]
fn it_works_where_messages_have_no_numbers() {
    let server = Server::without_extension(&[]);
    let mut client = server.connect();
    client.run("CREATE EXTENSION state_cache");
    set(&mut client, "x", 1);
    set(&mut client, "y", 1);
    let app = App::new(&server.parameters(), quiet());
    app.fill(&["x", "y"]);
    for n in 2..5 {
        set(&mut client, "x", n);
        eventually("the change", || app.get("x") == document(n));
        app.fill(&["x", "y"]);
    }
}

#[test]
fn an_application_reads_what_it_has_just_written() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    set(&mut client, "x", 1);
    let app = App::new(&server.parameters(), quiet());
    app.fill(&["x"]);
    // No message will come.
    client.run("SET state_cache.notify = off");
    set(&mut client, "x", 2);
    assert_eq!(app.get("x"), document(1));
    app.subscriber.forget("run", "x");
    assert_eq!(app.get("x"), document(2));
}
