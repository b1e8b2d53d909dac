//! What the tests of the example programs share: a database for each, and a program that runs beside the test.
//!
//! The server is the one that `PGHOST`, `PGPORT` and `PGUSER` lead to. `python` and `node` on `PATH` know the
//! drivers. `STATE_CACHE_PROGRAMS` is the directory of the Rust programs (`make clients` sees to all of it).
//!
//! What goes wrong here is a failed test, so everything panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use postgres::{Client, NoTls};
use state_cache_server_tests::{PATIENCE, Sql};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A database of a test's own, with the extension.
pub struct Database {
    name: String,
}

impl Database {
    /// Creates the database. No two tests may give it the same name.
    pub fn create(name: &str) -> Self {
        connect("postgres").run(&format!("CREATE DATABASE \"{name}\""));
        connect(name).run("CREATE EXTENSION state_cache");
        Self { name: name.into() }
    }

    /// A session in the database.
    pub fn session(&self) -> Client {
        connect(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its connection string.
    pub fn parameters(&self) -> String {
        parameters(&self.name)
    }
}

fn parameters(database: &str) -> String {
    let variable = |name| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run make clients"))
    };
    let [host, port, user] = ["PGHOST", "PGPORT", "PGUSER"].map(variable);
    format!("host={host} port={port} user={user} dbname={database}")
}

fn connect(database: &str) -> Client {
    Client::connect(&parameters(database), NoTls).unwrap()
}

/// The root of the project.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

/// A Rust program of the project, built beside the tests.
pub fn program(name: &str) -> PathBuf {
    let programs = std::env::var_os("STATE_CACHE_PROGRAMS")
        .expect("STATE_CACHE_PROGRAMS is not set: run make clients");
    PathBuf::from(programs).join(name)
}

/// A program of `examples/`.
#[derive(Debug, Clone, Copy)]
pub enum Example {
    /// The name of a file in `examples/python`.
    Python(&'static str),
    /// The name of a file in `examples/node`.
    Node(&'static str),
    /// The name of a Rust program.
    Rust(&'static str),
}

impl Example {
    /// The command that runs the program in a database. A Rust program takes its connection string as an argument.
    pub fn command(self, database: &Database) -> Command {
        let script = |interpreter: &str, folder: &str, file: &str| {
            let mut command = Command::new(interpreter);
            command.arg(root().join("examples").join(folder).join(file));
            command
        };
        let mut command = match self {
            Self::Python(file) => script("python", "python", file),
            Self::Node(file) => script("node", "node", file),
            Self::Rust(name) => {
                let mut command = Command::new(program(name));
                command.arg(database.parameters());
                command
            }
        };
        command
            .env("PGDATABASE", &database.name)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null());
        command
    }
}

/// A program that runs beside the test, and ends with it.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            said: Vec::new(),
        }
    }

    /// Waits for a line of its output that begins so, and gives the rest of the line.
    pub fn says(&mut self, start: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line);
                    if let Some(rest) = self.said.last().unwrap().strip_prefix(start) {
                        return rest.to_owned();
                    }
                }
                Err(_) => panic!("it did not say {start:?}, but: {:#?}", self.said),
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(sent.success(), "{command}");
    }

    /// Whether it is stopped.
    pub fn is_stopped(&self) -> bool {
        let stat = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(stat).unwrap();
        // The name in parentheses may hold anything; the state is the field after it.
        stat.rsplit_once(") ")
            .is_some_and(|(_, fields)| fields.starts_with('T'))
    }

    /// Writes a line into its input, which its command has as a pipe.
    pub fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    /// Waits for its end. All lines of its output, and its exit status.
    pub fn end(mut self) -> (Vec<String>, ExitStatus) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < PATIENCE, "it goes on: {:#?}", self.said),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.said.extend(self.lines.iter());
        (std::mem::take(&mut self.said), status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
