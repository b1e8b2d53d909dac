//! Messages as a whole: numbered without gaps in the order in which they arrive, heard when what they tell can
//! be seen, none lost; whether they go with the commit or the worker sends them.

mod auto;
mod encodings;
mod epochs;
mod faults;
mod items;
mod load;
mod worker;

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::Value;
use state_cache_server_tests::{PATIENCE, Server, Sql, eventually};
use std::time::Duration;

/// All channels that the extension comes with.
const CHANNELS: [&str; 3] = ["cache_invalidate", "config_changed", "state_updated"];

/// A message, with the channel that it came on.
#[derive(Debug, Clone, PartialEq)]
struct Message {
    channel: String,
    body: Value,
}

impl Message {
    fn seq(&self) -> u64 {
        self.body["seq"].as_u64().expect("a number")
    }

    fn epoch(&self) -> &str {
        self.body["epoch"].as_str().expect("an epoch")
    }

    fn op(&self) -> &str {
        self.body["op"].as_str().expect("an operation")
    }

    fn class(&self) -> &str {
        self.body["class"].as_str().unwrap_or("NULL")
    }

    /// (key, version) of each change.
    fn changes(&self) -> Vec<(String, i64)> {
        let changes = self.body["changes"].as_array();
        changes
            .into_iter()
            .flatten()
            .map(|change| {
                let key = change["key"].as_str().unwrap().to_owned();
                (key, change["version"].as_i64().unwrap())
            })
            .collect()
    }

    fn tells(&self, class: &str, key: &str, version: i64) -> bool {
        self.class() == class && self.changes().contains(&(key.to_owned(), version))
    }

    /// Whether subscribers are to drop everything.
    fn drops_everything(&self) -> bool {
        self.op() == "invalidate" && self.body["class"].is_null() && self.body["pattern"] == "*"
    }
}

/// A session that listens on all channels.
struct Listener(Client);

impl Listener {
    fn new(server: &Server) -> Self {
        let mut client = server.connect();
        for channel in CHANNELS {
            client.run(&format!("LISTEN {channel}"));
        }
        Self(client)
    }

    /// The next message, if one arrives in time.
    fn next_within(&mut self, time: Duration) -> Option<Message> {
        let mut notifications = self.0.notifications();
        let notification = notifications.timeout_iter(time).next().unwrap()?;
        Some(Message {
            channel: notification.channel().to_owned(),
            body: serde_json::from_str(notification.payload()).expect("JSON"),
        })
    }

    /// All messages up to the first that is wanted.
    fn await_message(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut heard = Vec::new();
        loop {
            let next = self.next_within(PATIENCE);
            heard.push(next.unwrap_or_else(|| {
                panic!("still waiting: {what}; heard last: {:?}", heard.last())
            }));
            if heard.last().is_some_and(&wanted) {
                return heard;
            }
        }
    }

    /// All messages up to the one that tells of a version.
    fn await_version(&mut self, class: &str, key: &str, version: i64) -> Vec<Message> {
        let what = format!("{class} {key} {version}");
        self.await_message(&what, |message| message.tells(class, key, version))
    }
}

/// No number is missing, and all are of one epoch.
fn assert_consecutive(messages: &[Message]) {
    for pair in messages.windows(2) {
        assert_eq!(
            (pair[1].epoch(), pair[1].seq()),
            (pair[0].epoch(), pair[0].seq() + 1),
            "{pair:?}"
        );
    }
}

/// Epoch and number of the last message, as the server has them.
fn last_message(client: &mut Client) -> (String, u64) {
    let row = client
        .rows("SELECT epoch, seq FROM state_cursor()")
        .remove(0);
    (row[0].clone(), row[1].parse().unwrap())
}

/// A column of the view of workers.
fn shown(client: &mut Client, column: &str) -> String {
    client.text(&format!(
        "SELECT coalesce((SELECT {column}::text FROM state_cache_workers
            WHERE database = current_database()), 'NULL')"
    ))
}

/// Calls the worker of a session's database, and waits until it is there.
fn call_worker(client: &mut Client) {
    client.run(
        "CREATE FUNCTION call_worker() RETURNS void LANGUAGE c AS 'state_cache', 'state_cache_test_call_worker'",
    );
    client.run("SELECT call_worker()");
    await_worker(client);
}

/// Waits until there is a worker.
fn await_worker(client: &mut Client) {
    eventually("a worker", || {
        ["idle", "running"].contains(&&*shown(client, "state"))
    });
}

/// Waits until the worker has told all that was left to it.
fn await_told(client: &mut Client) {
    eventually("the worker to tell", || shown(client, "untold") == "0");
}

/// A server with a worker, whose class `left` is left to it.
fn server(settings: &[&str]) -> Server {
    let server = Server::new(settings);
    let mut client = server.connect();
    client.run("SELECT state_class_define('left', write_mode => 'behind')");
    crate::behind::await_accepting(&mut client);
    await_told(&mut client);
    server
}

/// Changes the configuration while the server runs.
fn reload(server: &Server, setting: &str) {
    server.configure(&[setting]);
    server.connect().run("SELECT pg_reload_conf()");
}

/// Runs `meanwhile` while a commit with a message stops between becoming visible and releasing the lock of
/// NOTIFY, so that nobody can send another.
fn while_nobody_can_notify(server: &Server, meanwhile: impl FnOnce()) {
    let mut committer = server.connect();
    let pid = committer.pid();
    committer.run("SET state_cache.notify = commit; SET state_cache.test_stop_at = 'visible'");
    std::thread::scope(|threads| {
        // Here, so that its lock goes also if this panics.
        let mut gate = server.connect();
        gate.run("SELECT pg_advisory_lock(5202, 3)");
        threads.spawn(|| {
            committer.run("SELECT state_set('stopped', jsonb_build_object('r', random()))")
        });
        eventually("the commit to stop", || {
            gate.flag(&format!(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
            ))
        });
        meanwhile();
    });
}
