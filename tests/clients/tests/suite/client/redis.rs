//! A Redis of a test's own, the feeder, and what the feeder would write, written by hand.

use ::redis::{Commands, Connection, Script};
use postgres::Client;
use state_cache_clients_tests::program;
use state_cache_l2::{Compression, FORMAT, Prefix, Value, field, script};
use state_cache_server_tests::{Sql, eventually};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the names of all keys begin with.
pub const PREFIX: &str = "test:";
/// How long what is written by hand stays, in milliseconds.
const TTL: u64 = 3_600_000;

/// A running Redis on a socket, gone when dropped.
pub struct Redis {
    process: Option<Child>,
    directory: PathBuf,
    pub prefix: Prefix,
    pub generation: u64,
}

impl Redis {
    pub fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("{name}.{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let mut redis = Self {
            process: None,
            directory,
            prefix: Prefix::new(PREFIX).unwrap(),
            generation: 1,
        };
        redis.revive();
        redis
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    pub fn address(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Starts it, empty.
    pub fn revive(&mut self) {
        let child = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(child);
        eventually("redis-server to answer", || self.try_connect().is_ok());
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    fn try_connect(&self) -> ::redis::RedisResult<Connection> {
        let mut connection = ::redis::Client::open(self.address())?.get_connection()?;
        ::redis::cmd("PING").query::<String>(&mut connection)?;
        Ok(connection)
    }

    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap()
    }

    /// Says what a feeder says that is alive and has these classes.
    pub fn tell_meta(&self, session: &mut Client, classes: &str) {
        let owner = session.text(
            "SELECT (pg_control_system()).system_identifier || '/' || d.oid || '/' || e.extnamespace::regnamespace
             FROM pg_database d, pg_extension e WHERE datname = current_database() AND extname = 'state_cache'",
        );
        let fields = [
            (field::FORMAT, FORMAT.to_string()),
            (field::OWNER, owner),
            (field::GENERATION, self.generation.to_string()),
            (field::CLASSES, classes.to_owned()),
            (field::MODE, "script".to_owned()),
        ];
        let mut connection = self.connect();
        connection
            .hset_multiple::<_, _, _, ()>(self.prefix.meta(), &fields)
            .unwrap();
        connection
            .set::<_, _, ()>(self.prefix.alive(), "1")
            .unwrap();
    }

    /// Says what Redis says when no feeder has been alive for a while.
    pub fn end_alive(&self) {
        let mut connection = self.connect();
        connection.del::<_, ()>(self.prefix.alive()).unwrap();
    }

    /// The generation that a feeder has begun; 0 if none has.
    pub fn fed_generation(&self) -> u64 {
        let text: Option<String> = self
            .connect()
            .hget(self.prefix.meta(), field::GENERATION)
            .unwrap();
        text.map_or(0, |text| text.parse().unwrap())
    }

    pub fn name(&self, class: &str, key: &str) -> String {
        self.prefix.state(self.generation, class, key)
    }

    /// Writes a version as the feeder does: only over an older one.
    pub fn write(&self, class: &str, key: &str, version: u64, document: Option<&str>) {
        let value = match document {
            Some(document) => {
                Value::document(class, key, version, document, Compression::default()).unwrap()
            }
            None => Value::tombstone(class, key, version),
        };
        let mut connection = self.connect();
        let call = Script::new(script::WRITE);
        let mut call = call.key(self.name(class, key));
        call.arg(value).arg(TTL);
        call.invoke::<::redis::Value>(&mut connection).unwrap();
    }

    /// Puts any bytes under the key of a state.
    pub fn put(&self, class: &str, key: &str, bytes: &[u8]) {
        self.connect()
            .set::<_, _, ()>(self.name(class, key), bytes)
            .unwrap();
    }

    /// The bytes under the key of a state.
    pub fn bytes(&self, class: &str, key: &str) -> Option<Vec<u8>> {
        self.connect().get(self.name(class, key)).unwrap()
    }

    /// The value under the key of a state.
    pub fn value(&self, class: &str, key: &str) -> Option<Value> {
        Some(Value::read(class, key, &self.bytes(class, key)?).unwrap())
    }

    /// For how long Redis holds a state yet, in milliseconds.
    pub fn left(&self, class: &str, key: &str) -> i64 {
        self.connect().pttl(self.name(class, key)).unwrap()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(self.directory());
    }
}

/// The feeder, `state-cache-l2`, killed when dropped.
pub struct Feeder(Child);

impl Feeder {
    /// Starts it, quick to notice. Where Redis is away it tries again by itself.
    pub fn start(parameters: &str, redis: &str, options: &[&str]) -> Self {
        let child = Command::new(program("state-cache-l2"))
            .args(["--postgres", parameters, "--redis", redis])
            .args(["--prefix", PREFIX, "--log", "error"])
            .args(options)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago, and the one that a node of a cluster opens beside it.
fn free_port() -> u16 {
    let port = || TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = port().unwrap().port();
        if port.checked_add(10_000).is_some_and(is_free) {
            return port;
        }
    }
}

/// Three nodes of a cluster, gone when dropped.
pub struct Cluster {
    nodes: Vec<(Child, u16)>,
    directory: PathBuf,
}

impl Cluster {
    pub fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("{name}.{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let mut cluster = Self {
            nodes: Vec::new(),
            directory,
        };
        for _ in 0..3 {
            let port = free_port();
            let child = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--cluster-enabled", "yes"])
                .args(["--cluster-config-file", &format!("nodes.{port}")])
                .arg("--dir")
                .arg(&cluster.directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            cluster.nodes.push((child, port));
            eventually("a node to answer", || {
                ::redis::Client::open(cluster.addresses().pop().unwrap())
                    .unwrap()
                    .get_connection()
                    .is_ok()
            });
        }
        let places = cluster.places();
        let mut words = vec!["--cluster", "create"];
        words.extend(places.iter().map(String::as_str));
        words.push("--cluster-yes");
        cluster.command(&words);
        eventually("the cluster to be whole", || {
            let client = ::redis::cluster::ClusterClient::new(cluster.addresses()).unwrap();
            client.get_connection().is_ok_and(|mut connection| {
                (0..100).all(|n| connection.set::<_, _, ()>(format!("probe{n}"), "1").is_ok())
            })
        });
        cluster
    }

    fn places(&self) -> Vec<String> {
        let place = |(_, port): &(Child, u16)| format!("127.0.0.1:{port}");
        self.nodes.iter().map(place).collect()
    }

    pub fn addresses(&self) -> Vec<String> {
        let address = |place| format!("redis://{place}");
        self.places().into_iter().map(address).collect()
    }

    fn command(&self, words: &[&str]) {
        let status = Command::new("redis-cli")
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{words:?}");
    }

    fn ask<T: ::redis::FromRedisValue>(&self, node: usize, words: [&str; 2]) -> T {
        let client = ::redis::Client::open(self.addresses()[node].clone()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut connection).unwrap()
    }

    /// How many keys of states a node holds.
    pub fn states(&self, node: usize) -> usize {
        let pattern = format!("{PREFIX}[0-9]*");
        self.ask::<Vec<String>>(node, ["KEYS", &pattern]).len()
    }

    /// Moves slots from the first node to the second.
    pub fn move_slots(&self, slots: usize) {
        let [from, to] = [0, 1].map(|node| self.ask::<String>(node, ["CLUSTER", "MYID"]));
        let place = &self.places()[0];
        self.command(&[
            "--cluster",
            "reshard",
            place,
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            &slots.to_string(),
            "--cluster-yes",
        ]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (node, _) in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
