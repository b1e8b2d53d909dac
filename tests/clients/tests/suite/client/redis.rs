//! A Redis of a test's own, the feeder, and what the feeder would write, written by hand.

use ::redis::{Commands, Connection, Script};
use postgres::Client;
use state_cache_clients_tests::program;
use state_cache_l2::{Compression, FORMAT, Prefix, Value, field, script};
use state_cache_server_tests::{Sql, eventually};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
            prefix: Prefix::new("test:").unwrap(),
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
    pub fn start(parameters: &str, redis: &Redis, options: &[&str]) -> Self {
        let child = Command::new(program("state-cache-l2"))
            .args(["--postgres", parameters, "--redis", &redis.address()])
            .args(["--prefix", redis.prefix.as_str(), "--log", "error"])
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
