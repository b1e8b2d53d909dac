//! The default, `state_cache.notify = auto`: the worker tells where one is there and can, else the commit does.

use super::{
    Listener, assert_consecutive, await_told, await_worker, call_worker, last_message, reload,
    shown, while_nobody_can_notify,
};
use postgres::Client;
use state_cache_server_tests::{PATIENCE, Server, Sql, eventually};
use std::time::Duration;

/// How long a listener waits for what must not come.
const QUIET: Duration = Duration::from_millis(300);
/// The worker sends one message and then none for longer than a test lasts.
const ONE_MESSAGE: &str = "state_cache.notify_interval = '1min'";

fn set(client: &mut Client, key: &str) {
    client.run(&format!(
        "SELECT state_set('{key}', jsonb_build_object('r', random()))"
    ));
}

/// Ends the workers, and lets none come.
fn without_workers(server: &Server, client: &mut Client) {
    reload(server, "state_cache.max_workers = 0");
    eventually("the worker to leave", || shown(client, "pid") == "NULL");
}

/// A commit that told by itself would fail here: it gets no lock.
#[test]
fn by_default_commits_leave_their_messages_to_the_worker() {
    let server = Server::new(&[]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    assert_eq!(client.text("SHOW state_cache.notify"), "auto");
    call_worker(&mut client);
    client.run("SET lock_timeout = '5s'");
    while_nobody_can_notify(&server, || {
        set(&mut client, "a");
        client.run("SELECT state_invalidate('a*')");
        assert_ne!(shown(&mut client, "untold"), "0");
    });
    await_told(&mut client);
    set(&mut client, "end");
    let heard = listener.await_version("run", "end", 1);
    assert_consecutive(&heard);
    assert!(heard.iter().any(|message| message.tells("run", "a", 1)));
    assert!(
        heard.iter().any(|message| message.body["pattern"] == "a*"),
        "{heard:?}"
    );
}

#[test]
fn a_commit_that_finds_no_worker_tells_by_itself() {
    let server = Server::new(&[]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    call_worker(&mut client);
    without_workers(&server, &mut client);
    set(&mut client, "a");
    assert!(["0", "NULL"].contains(&&*shown(&mut client, "untold")));
    let heard = listener.await_version("run", "a", 1);
    assert_eq!(heard.len(), 1, "{heard:?}");
    // It has asked for one, which comes when it may, and tells from then on.
    reload(&server, "state_cache.max_workers = 4");
    await_worker(&mut client);
    client.run("SET lock_timeout = '5s'");
    while_nobody_can_notify(&server, || set(&mut client, "a"));
    let more = listener.await_version("run", "a", 2);
    assert_consecutive(&[heard, more].concat());
}

#[test]
fn without_preloading_the_commit_tells() {
    let server = Server::without_extension(&[]);
    let mut client = server.connect();
    client.run("CREATE EXTENSION state_cache");
    assert_eq!(client.text("SHOW state_cache.notify"), "auto");
    let mut listener = Listener::new(&server);
    set(&mut client, "a");
    let heard = listener.await_version("run", "a", 1);
    assert!(heard[0].body["seq"].is_null());
}

/// What the worker would tell less of, or cannot tell, the commit tells, and with it all that it changed.
#[test]
fn what_the_worker_cannot_tell_goes_with_the_commit() {
    let server = Server::new(&[ONE_MESSAGE, "state_cache.notify_buffer = '16kB'"]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    call_worker(&mut client);
    set(&mut client, "first");
    listener.await_version("run", "first", 1);
    set(&mut client, "later");
    assert_eq!(listener.next_within(QUIET), None);
    let untold = shown(&mut client, "untold");
    assert_ne!(untold, "0");

    client.run(
        "BEGIN; SELECT state_blackboard_add('team', 'item', '1'); SELECT state_set('beside', '1'); COMMIT",
    );
    let heard = listener.await_version("swarm", "team", 1);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].tells("run", "beside", 1));
    // More than a quarter of the ring holds.
    client.run("SELECT state_set('key ' || n, '1') FROM generate_series(1, 300) n");
    let mut told = 0;
    while told < 300 {
        let heard = listener.next_within(PATIENCE).expect("the rest");
        assert_eq!((heard.op(), heard.class()), ("update", "run"));
        told += heard.changes().len();
    }
    assert_eq!(told, 300);
    assert_eq!(shown(&mut client, "untold"), untold);
    // The setting `worker` leaves it to the worker all the same.
    client.run("SET state_cache.notify = worker");
    client.run("SELECT state_set('key ' || n, '2') FROM generate_series(1, 300) n");
    assert_eq!(listener.next_within(QUIET), None);
    assert_ne!(shown(&mut client, "untold"), untold);
    reload(&server, "state_cache.notify_interval = 0");
    let heard = listener.await_message("the class", |message| message.op() == "invalidate");
    assert_eq!(heard.last().unwrap().class(), "run");
}

/// Runs `meanwhile` while a commit that leaves its messages to the worker stops before they are in the ring.
fn while_a_commit_hands_over(server: &Server, meanwhile: impl FnOnce(&mut Client)) {
    let (mut committer, mut client) = (server.connect(), server.connect());
    let pid = committer.pid();
    committer.run("SET state_cache.test_stop_at = 'visible'");
    std::thread::scope(|threads| {
        let mut gate = server.connect();
        gate.run("SELECT pg_advisory_lock(5202, 3)");
        threads.spawn(|| set(&mut committer, "stopped"));
        eventually("the commit to stop", || {
            gate.flag(&format!(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
            ))
        });
        meanwhile(&mut client);
    });
}

#[test]
fn a_worker_that_leaves_waits_for_commits_that_count_on_it() {
    let server = Server::new(&[]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    call_worker(&mut client);
    let pid = shown(&mut client, "pid");
    while_a_commit_hands_over(&server, |client| {
        reload(&server, "state_cache.max_workers = 0");
        eventually("the worker to be about to leave", || {
            shown(client, "state") == "leaving"
        });
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(shown(client, "pid"), pid);
        // A commit that comes now does not count on it.
        set(client, "after");
        listener.await_version("run", "after", 1);
    });
    listener.await_version("run", "stopped", 1);
    eventually("the worker to leave", || {
        shown(&mut client, "pid") == "NULL"
    });
}

/// It cannot wait for ever: the commit may.
#[test]
fn what_comes_into_the_ring_after_the_worker_has_left_is_told_where_none_may_stay() {
    let server = Server::new(&[]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    call_worker(&mut client);
    while_a_commit_hands_over(&server, |client| without_workers(&server, client));
    listener.await_version("run", "stopped", 1);
    eventually("the worker to leave", || {
        shown(&mut client, "pid") == "NULL"
    });
}

/// The crash of a worker is one of the server: listeners lose their connections, and the numbers begin anew.
#[test]
fn a_worker_that_is_killed_takes_the_listeners_with_it() {
    let server = Server::new(&[ONE_MESSAGE]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    call_worker(&mut client);
    set(&mut client, "first");
    listener.await_version("run", "first", 1);
    set(&mut client, "a");
    assert_ne!(shown(&mut client, "untold"), "0");
    let (epoch, _) = last_message(&mut client);
    let (times_up, pid) = (server.times_up(), shown(&mut client, "pid"));
    state_cache_server_tests::kill(pid.parse().unwrap());
    server.await_recovery(times_up);
    assert!(listener.0.batch_execute("SELECT 1").is_err());
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    assert_ne!(last_message(&mut client).0, epoch);
    set(&mut client, "a");
    listener.await_version("run", "a", 2);
}

#[test]
fn changes_in_a_class_without_messages_are_told_by_nobody() {
    let server = Server::new(&[]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run("SELECT state_class_define('quiet', notify => 'off')");
    client.run("SELECT state_class_define('left', write_mode => 'behind', notify => 'off')");
    crate::behind::await_accepting(&mut client);
    // In either order: the worker may tell of both at once.
    let ends = [(); 2].map(|()| {
        let heard = listener.await_message("an end", |message| message.op() == "invalidate");
        let last = heard.last().unwrap();
        assert_eq!(last.channel, "cache_invalidate");
        assert_eq!(last.body["pattern"], "*");
        last.class().to_owned()
    });
    assert!(
        ends.contains(&"quiet".to_owned()) && ends.contains(&"left".to_owned()),
        "{ends:?}"
    );
    let (mut told, told_of) = (
        Vec::new(),
        |listener: &mut Listener, client: &mut Client| {
            set(client, "end");
            let version = client.number("SELECT state_version('end')");
            listener.await_version("run", "end", version)
        },
    );
    for mode in ["auto", "worker", "commit"] {
        let cursor = client.text("SELECT cursor FROM state_cursor()");
        client.run(&format!("SET state_cache.notify = {mode}"));
        for class in ["quiet", "left"] {
            client.run(&format!(
                "SELECT state_set('a', to_jsonb('{mode}'::text), class => '{class}');
                 SELECT state_set('b', to_jsonb('{mode}'::text), class => '{class}'),
                    state_set('{class}', to_jsonb('{mode}'::text))"
            ));
            client.run(&format!("SELECT state_delete('b', class => '{class}')"));
        }
        client.run("UPDATE state_head SET updated_at = now() WHERE class = 'quiet'");
        told.extend(told_of(&mut listener, &mut client));
        let changed = client.text(&format!(
            "SELECT string_agg(class || ' ' || key, ', ' ORDER BY class, key) FROM state_changes('{cursor}')
                WHERE class <> 'run'"
        ));
        assert_eq!(changed, "left a, left b, quiet a, quiet b", "{mode}");
    }
    assert!(
        told.iter().all(|message| message.class() == "run"),
        "{told:?}"
    );
    for class in ["quiet", "left"] {
        let named = told.iter().filter(|message| {
            let changes = message.changes();
            changes.iter().any(|(key, _)| key == class)
        });
        assert!(named.count() >= 3, "what changed beside it is told");
    }
    // What is asked for by name is told, and what is about everything.
    client.run("SELECT state_invalidate('a*', 'quiet')");
    let heard = told_of(&mut listener, &mut client);
    assert_eq!(
        (heard[0].class(), &heard[0].body["pattern"]),
        ("quiet", &"a*".into())
    );
    client
        .run("SELECT state_class_define('quiet', channel => 'state_updated', notify => 'default')");
    client.run("SELECT state_set('a', '\"again\"', class => 'quiet')");
    let version = client.number("SELECT state_version('a', class => 'quiet')");
    listener.await_version("quiet", "a", version);
    client.run("SELECT state_class_define('quiet', notify => 'off')");
    client.run("TRUNCATE state_head, state_snapshot");
    listener.await_message("the truncation", |message| message.drops_everything());
}
