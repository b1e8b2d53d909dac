//! Invalidations: what a second session that listens hears.

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::Value;
use state_cache_server_tests::{Server, Sql};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A listener has the messages of a commit when its next statement is answered, if the commit sends them itself.
const WITH_THE_COMMIT: &[&str] = &["state_cache.notify = commit"];
/// The longest message, in bytes, as the contract has it.
const LONGEST: usize = 7900;

struct Listener(Client);

impl Listener {
    fn new(server: &Server) -> Self {
        let mut client = server.connect();
        client.run("LISTEN state_updated; LISTEN config_changed; LISTEN cache_invalidate");
        Self(client)
    }

    /// What has arrived: (channel, message). A commit's messages arrive before the answer to a statement
    /// that is sent afterwards.
    fn heard(&mut self) -> Vec<(String, Value)> {
        self.0.run("SELECT");
        let mut notifications = self.0.notifications();
        let messages = notifications.iter().map(|notification| {
            let payload = notification.payload();
            assert!(payload.len() <= LONGEST, "{} bytes", payload.len());
            Ok((
                notification.channel().to_string(),
                serde_json::from_str(payload).expect(payload),
            ))
        });
        messages.collect().unwrap()
    }

    fn hears_nothing(&mut self) {
        assert_eq!(self.heard(), []);
    }
}

fn names(message: &Value) -> BTreeSet<&str> {
    message
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// (key, version) of each change.
fn changes(message: &Value) -> Vec<(String, i64)> {
    let changes = message["changes"].as_array().unwrap();
    changes
        .iter()
        .map(|change| {
            assert_eq!(names(change), BTreeSet::from(["key", "version"]));
            (
                change["key"].as_str().unwrap().to_string(),
                change["version"].as_i64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn purges_and_copies_are_told() {
    let server = Server::new(WITH_THE_COMMIT);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run("SELECT state_set('a/1', '{\"n\": 1}'), state_set('a/2', '{}')");
    client.run("SELECT state_set('a/1', '{\"n\": 2}')");
    let told = |listener: &mut Listener| -> Vec<Vec<(String, i64)>> {
        let heard = listener.heard();
        heard.iter().map(|(_, message)| changes(message)).collect()
    };
    told(&mut listener);
    client.run("SELECT state_copy('a/', 'b/')");
    let copied = [("b/1", 2), ("b/2", 1)].map(|(key, version)| (key.to_string(), version));
    assert_eq!(told(&mut listener), [copied]);
    // An older version is nobody's news; the current one is.
    client.run("SELECT state_purge('{b/1}', keep => 1)");
    listener.hears_nothing();
    client.run("SELECT state_purge('{a/1}', versions => '{2}')");
    assert_eq!(told(&mut listener), [[("a/1".to_string(), 3)]]);
    client.run("SELECT state_purge(prefix => 'b/')");
    let erased = [("b/1", 3), ("b/2", 2)].map(|(key, version)| (key.to_string(), version));
    assert_eq!(told(&mut listener), [erased]);
    client.run("BEGIN; SELECT state_purge(prefix => ''); SELECT state_copy('a/', 'c/'); ROLLBACK");
    listener.hears_nothing();
}

#[test]
fn a_message_says_what_changed() {
    let server = Server::new(WITH_THE_COMMIT);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run("SELECT state_set('run-42', '{\"secret\": 1}')");
    client.run("SELECT state_set('limits', '{}', class => 'config')");
    client.run("SELECT state_delete('run-42')");
    client.run("SELECT state_invalidate('run-*', 'run')");
    let heard = listener.heard();
    let channels: Vec<&str> = heard.iter().map(|(channel, _)| channel.as_str()).collect();
    assert_eq!(
        channels,
        [
            "state_updated",
            "config_changed",
            "state_updated",
            "cache_invalidate"
        ]
    );
    for ((_, message), (class, op)) in heard.iter().zip([
        ("run", "update"),
        ("config", "update"),
        ("run", "delete"),
        ("run", "invalidate"),
    ]) {
        let last = if op == "invalidate" {
            "pattern"
        } else {
            "changes"
        };
        assert_eq!(
            names(message),
            BTreeSet::from(["class", "op", last, "seq", "epoch"])
        );
        assert_eq!(
            (message["class"].as_str(), message["op"].as_str()),
            (Some(class), Some(op))
        );
        assert!(
            message["seq"].is_u64() && message["epoch"].is_string(),
            "{message}"
        );
        assert!(!message.to_string().contains("secret"));
    }
    assert_eq!(changes(&heard[0].1), [("run-42".to_string(), 1)]);
    assert_eq!(changes(&heard[1].1), [("limits".to_string(), 1)]);
    assert_eq!(changes(&heard[2].1), [("run-42".to_string(), 2)]);
    assert_eq!(heard[3].1["pattern"], "run-*");
    let numbers: Vec<u64> = heard
        .iter()
        .map(|(_, message)| message["seq"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{numbers:?}"
    );
    assert!(
        heard
            .iter()
            .all(|(_, message)| message["epoch"] == heard[0].1["epoch"])
    );
}

#[test]
fn a_commit_coalesces_its_messages() {
    let server = Server::new(WITH_THE_COMMIT);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run(
        "DO $$ BEGIN
        FOR n IN 1..30 LOOP
            PERFORM state_update('k' || n % 3, jsonb_build_object('n', n));
            IF n = 10 THEN PERFORM count(*) FROM state_batch_commit(); END IF;
        END LOOP;
    END $$",
    );
    let heard = listener.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let newest: BTreeMap<String, i64> = changes(&heard[0].1).into_iter().collect();
    assert_eq!(changes(&heard[0].1).len(), 3);
    let versions = client.rows("SELECT key, version FROM state_head ORDER BY key");
    assert_eq!(
        versions,
        newest
            .iter()
            .map(|(key, version)| vec![key.clone(), version.to_string()])
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_did_not_happen_is_not_told() {
    let server = Server::new(WITH_THE_COMMIT);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run("SELECT state_set('a', '{\"n\": 1}')");
    assert_eq!(listener.heard().len(), 1);
    client.run("BEGIN; SELECT state_set('a', '{\"n\": 2}'); ROLLBACK");
    client.run("BEGIN; SELECT state_set('a', '{\"n\": 2}'); SELECT state_batch_commit(); ROLLBACK");
    client.run("SELECT state_set('a', '{\"n\": 1}')");
    client.run("SELECT state_update('a', '{}')");
    client.run("SELECT state_touch('a', '1 hour')");
    client.run("SET state_cache.notify = off; SELECT state_set('a', '{\"n\": 3}')");
    assert_eq!(
        client.error("SET state_cache.notify = commit; SELECT state_set('a', '{\"n\": 4}'), 1 / 0"),
        "22012"
    );
    listener.hears_nothing();
    // Half of a transaction undone: half of it told.
    client.run("SET state_cache.notify = commit");
    client.run(
        "BEGIN; SELECT state_set('b', '{}'); SAVEPOINT s; SELECT state_set('a', '{}'); SELECT \
        state_batch_commit(); ROLLBACK TO s; COMMIT",
    );
    let heard = listener.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(changes(&heard[0].1), [("b".to_string(), 1)]);
}

/// A few messages tell every key; many are replaced by one that tells to forget everything.
#[test]
fn large_commits_are_told_in_few_short_messages() {
    let server = Server::new(WITH_THE_COMMIT);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    // Keys of 255 bytes, of the kind that JSON has to escape, and of the kind that takes two bytes each.
    client.run(
        "SELECT state_set(key, '{}') FROM (
             SELECT rpad('plain ' || n, 255, 'x') FROM generate_series(1, 60) n
             UNION ALL SELECT rpad('escaped ' || n, 255, E'\\x01\"\\\\') FROM generate_series(1, 20) n
             UNION ALL SELECT rpad('é ' || n, 120, 'é') FROM generate_series(1, 20) n) keys (key)",
    );
    let heard = listener.heard();
    assert!((2..=8).contains(&heard.len()), "{} messages", heard.len());
    assert!(
        heard
            .iter()
            .all(|(channel, message)| channel == "state_updated" && message["op"] == "update")
    );
    let mut told: Vec<(String, i64)> = heard
        .iter()
        .flat_map(|(_, message)| changes(message))
        .collect();
    told.sort();
    let rows = client.rows("SELECT key, version FROM state_head ORDER BY key COLLATE \"C\"");
    assert_eq!(
        rows,
        told.iter()
            .map(|(key, version)| vec![key.clone(), version.to_string()])
            .collect::<Vec<_>>()
    );

    client.run("SELECT state_set(rpad(n::text, 255, '\"'), '{}') FROM generate_series(1, 5000) n");
    let heard = listener.heard();
    assert!((1..=9).contains(&heard.len()), "{} messages", heard.len());
    let everything = heard
        .iter()
        .filter(|(_, message)| message["op"] == "invalidate")
        .collect::<Vec<_>>();
    assert_eq!(everything.len(), 1, "{heard:?}");
    assert_eq!(
        (
            everything[0].1["class"].as_str(),
            everything[0].1["pattern"].as_str()
        ),
        (Some("run"), Some("*"))
    );
}

#[test]
fn changes_by_hand_are_told_too() {
    let server = Server::new(WITH_THE_COMMIT);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run("SELECT state_set('a', '{\"n\": 1}'), state_set('b', '{}')");
    listener.heard();
    client.run("UPDATE state_head SET updated_at = now() WHERE key = 'a'");
    let heard = listener.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(
        (heard[0].0.as_str(), heard[0].1["op"].as_str()),
        ("state_updated", Some("update"))
    );
    assert_eq!(changes(&heard[0].1), [("a".to_string(), 1)]);
    client.run("BEGIN; DELETE FROM state_head; DELETE FROM state_snapshot; ROLLBACK");
    listener.hears_nothing();
    // Whatever channel someone listens on, they learn that everything is gone.
    client.run("TRUNCATE state_head, state_snapshot");
    let heard = listener.heard();
    for (_, message) in &heard {
        assert_eq!(
            names(message),
            BTreeSet::from(["class", "op", "pattern", "seq", "epoch"])
        );
        assert_eq!(
            (message["op"].as_str(), message["pattern"].as_str()),
            (Some("invalidate"), Some("*"))
        );
        assert!(message["class"].is_null());
    }
    let channels: Vec<&str> = heard.iter().map(|(channel, _)| channel.as_str()).collect();
    assert_eq!(
        channels,
        ["cache_invalidate", "config_changed", "state_updated"]
    );
}

/// Who hears of a version and looks at once finds it, or a newer one.
#[test]
fn what_is_told_is_visible() {
    const COMMITS: i64 = 500;
    let server = Server::new(WITH_THE_COMMIT);
    server
        .connect()
        .run("SELECT state_set('k1', '{}'), state_set('k2', '{}')");
    let listening = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let listener = threads.spawn(|| {
            let (mut listener, mut reader) = (Listener::new(&server).0, server.connect());
            listening.store(true, Ordering::SeqCst);
            let mut newest: BTreeMap<String, i64> = BTreeMap::new();
            while newest.len() < 2 || newest.values().any(|version| *version <= COMMITS) {
                let notification = listener
                    .notifications()
                    .timeout_iter(Duration::from_secs(60))
                    .next()
                    .unwrap()
                    .expect("a notification");
                let message: Value = serde_json::from_str(notification.payload()).unwrap();
                for (key, version) in changes(&message) {
                    let seen = reader.number(&format!("SELECT state_version('{key}')"));
                    assert!(seen >= version, "{key}: told {version}, saw {seen}");
                    let last = newest.insert(key, version).unwrap_or(1);
                    assert_eq!(version, last + 1, "every commit is told, in order");
                }
            }
        });
        while !listening.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        for key in ["k1", "k2"] {
            let server = &server;
            threads.spawn(move || {
                let mut client = server.connect();
                for n in 0..COMMITS {
                    client.run(&format!("SELECT state_update('{key}', '{{\"n\": {n}}}')"));
                }
            });
        }
        listener.join().unwrap();
    });
}
