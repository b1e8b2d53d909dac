//! Servers and programs of a test, and the comparison of Redis with the tables.

use postgres::Client;
use redis::Commands;
use state_cache_l2::{Content, Prefix, Unread, Value, field};
use state_cache_server_tests::{Clock, Server, Sql, eventually};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What keys of most tests begin with.
pub const PREFIX: &str = "test:";

/// A port that was free a moment ago, and the one that a node of a cluster opens beside it.
pub fn free_port() -> u16 {
    let port = || TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = port().unwrap().port();
        if port.checked_add(10_000).is_some_and(is_free) {
            return port;
        }
    }
}

/// A Redis of one's own, which keeps its data on SAVE only. It is stopped and removed when dropped.
pub struct Redis {
    pub port: u16,
    directory: PathBuf,
    options: Vec<String>,
    clock: Option<Clock>,
    child: Option<Child>,
}

impl Redis {
    pub fn start(options: &[&str]) -> Self {
        Self::on_host(options, None)
    }

    /// On a host with this clock.
    pub fn on_host(options: &[&str], clock: Option<Clock>) -> Self {
        let port = free_port();
        let directory =
            std::env::temp_dir().join(format!("state_cache_l2.{}.{port}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut redis = Self {
            port,
            directory,
            options,
            clock,
            child: None,
        };
        redis.restart();
        redis
    }

    /// Starts it, with what was saved last.
    pub fn restart(&mut self) {
        let mut command = Command::new("redis-server");
        if let Some(clock) = &self.clock {
            clock.set(&mut command);
        }
        let child = command
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(&self.directory)
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not installed: run make setup");
        self.child = Some(child);
        eventually("Redis answers", || self.try_connect().is_some());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Forgets what was saved.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.directory.join("dump.rdb"));
    }

    /// `SIGSTOP` or `SIGCONT`.
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap().id(), name);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn try_connect(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client
            .get_connection_with_timeout(Duration::from_secs(1))
            .ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }

    pub fn connect(&self) -> redis::Connection {
        self.try_connect().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Sends a signal to a process that this test has started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// The program, running. It is killed when dropped.
pub struct Feeder {
    pub child: Child,
    said: Arc<Mutex<String>>,
    port: u16,
}

impl Feeder {
    /// Starts the program, quick to notice, with these further options.
    pub fn start(parameters: &str, redis: &str, options: &[&str]) -> Self {
        let patience = [options, &["--patience-ms", "2000"]].concat();
        Self::waiting(parameters, redis, &patience)
    }

    /// Starts the program, which waits for an answer as long as a test may, and writes few states at a time.
    pub fn patient(parameters: &str, redis: &str) -> Self {
        let options = ["--patience-ms", "120000", "--batch", "7"];
        Self::waiting(parameters, redis, &options)
    }

    /// Starts the program on a host with this clock.
    pub fn on_host(parameters: &str, redis: &str, clock: &Clock) -> Self {
        let (mut command, port) = Self::command(parameters, redis, &[]);
        clock.set(&mut command);
        Self::run(command, port)
    }

    fn waiting(parameters: &str, redis: &str, options: &[&str]) -> Self {
        let (command, port) = Self::command(parameters, redis, options);
        Self::run(command, port)
    }

    fn command(parameters: &str, redis: &str, options: &[&str]) -> (Command, u16) {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_state-cache-l2"));
        command
            .args([
                "--postgres",
                parameters,
                "--redis",
                redis,
                "--prefix",
                PREFIX,
            ])
            .args(["--heartbeat-ms", "200", "--alive-ms", "1500"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(options);
        (command, port)
    }

    pub fn run(mut command: Command, port: u16) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut said = heard.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self { child, said, port }
    }

    /// All that it has logged.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn await_said(&self, what: &str) {
        eventually(what, || self.said().contains(what));
    }

    /// A page of it: status and text.
    pub fn page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// What it has measured, 0 for what was never counted.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").unwrap_or_default();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("state_cache_l2_{name} ")));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Waits until it says that all was heard.
    pub fn await_alive(&self) {
        eventually("the feeder is alive", || {
            self.page("/healthz")
                .is_some_and(|page| page.starts_with("HTTP/1.1 200"))
        });
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end, which must be an error.
    pub fn await_failure(&mut self) {
        eventually("the feeder ends", || {
            self.child.try_wait().unwrap().is_some()
        });
        assert!(!self.child.wait().unwrap().success(), "{}", self.said());
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            println!("the feeder has said:\n{}", self.said());
        }
    }
}

/// A PostgreSQL with class `shared` in L2, and a Redis.
pub fn servers() -> (Server, Client, Redis) {
    let server = Server::new(&["fsync = off"]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('shared', l2_ttl => '10 minutes')");
    (server, client, Redis::start(&[]))
}

/// What Redis holds of a state in the current generation: `Ok(None)` where the key is missing.
pub fn read(
    redis: &mut impl redis::ConnectionLike,
    class: &str,
    key: &str,
) -> Result<Option<Value>, Unread> {
    let bytes: Option<Vec<u8>> = {
        let key = redis_key(redis, class, key);
        redis.get(key).unwrap()
    };
    bytes
        .map(|bytes| Value::read(class, key, &bytes))
        .transpose()
}

pub fn meta(redis: &mut impl redis::ConnectionLike, name: &str) -> Option<String> {
    redis
        .hget(Prefix::new(PREFIX).unwrap().meta(), name)
        .unwrap()
}

/// Whether readers are told that all was heard.
pub fn is_alive(redis: &mut impl redis::ConnectionLike) -> bool {
    redis.exists(Prefix::new(PREFIX).unwrap().alive()).unwrap()
}

pub fn generation(redis: &mut impl redis::ConnectionLike) -> u64 {
    meta(redis, field::GENERATION).map_or(0, |text| text.parse().unwrap())
}

pub fn redis_key(redis: &mut impl redis::ConnectionLike, class: &str, key: &str) -> String {
    let generation = generation(redis);
    Prefix::new(PREFIX).unwrap().state(generation, class, key)
}

/// Version and document of a state in Redis; `None` for a tombstone, and for what is missing.
pub fn document(
    redis: &mut impl redis::ConnectionLike,
    class: &str,
    key: &str,
) -> Option<(u64, String)> {
    match read(redis, class, key).unwrap()? {
        Value {
            version,
            content: Content::Document(text),
        } => Some((version, text)),
        _ => None,
    }
}

/// The states of a class in the tables.
pub fn tables(client: &mut Client, class: &str) -> BTreeMap<String, (u64, String)> {
    let query = format!(
        "SELECT h.key, h.version, state_get_text(h.key, '{class}') FROM state_head h
            WHERE class = '{class}' AND state_exists(h.key, '{class}')"
    );
    let rows = client.rows(&query).into_iter();
    rows.map(|row| (row[0].clone(), (row[1].parse().unwrap(), row[2].clone())))
        .collect()
}

/// How Redis differs from the tables: a state that is there and another one. With `all`, also one that is missing.
pub fn differences(
    client: &mut Client,
    redis: &mut impl redis::ConnectionLike,
    class: &str,
    all: bool,
) -> Vec<String> {
    let truth = tables(client, class);
    let keys = client.rows(&format!(
        "SELECT key FROM state_head WHERE class = '{class}'"
    ));
    let mut wrong = Vec::new();
    for key in keys.into_iter().map(|mut row| row.remove(0)) {
        let held = match read(redis, class, &key) {
            Ok(None) if !all => continue,
            Ok(None) => None,
            Ok(Some(Value {
                version,
                content: Content::Document(text),
            })) => Some((version, text)),
            Ok(Some(_)) => None,
            Err(error) => Some((0, error.to_string())),
        };
        if held.as_ref() != truth.get(&key) {
            wrong.push(format!("{key}: {held:?}, not {:?}", truth.get(&key)));
        }
    }
    wrong
}

/// Waits until Redis is as the tables are.
pub fn await_equal(
    client: &mut Client,
    redis: &mut impl redis::ConnectionLike,
    class: &str,
    all: bool,
) {
    let start = std::time::Instant::now();
    loop {
        let wrong = differences(client, redis, class, all);
        if wrong.is_empty() {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} differ: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)]
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
