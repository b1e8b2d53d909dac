//! One server for all tests, a database for each, and the program.

use postgres::Client;
use serde_json::Value;
use state_cache_server_tests::{Server, Sql};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The server that the tests share. It goes with this process.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    // Messages go with the commit: a listener hears each change by itself, and none from before its LISTEN.
    // What commits leave to a worker stays unwritten.
    SERVER.get_or_init(|| {
        Server::new(&[
            "state_cache.notify = commit",
            "state_cache.flush_interval = 1h",
            "max_connections = 100",
        ])
    })
}

/// A database with the extension in a schema that wants quotes, and a session in it.
pub struct Database {
    pub name: &'static str,
    pub session: Client,
}

/// Makes a database.
pub fn database(name: &'static str) -> Database {
    let mut first = server().connect();
    first.run(&format!("CREATE DATABASE {name}"));
    first.run(&format!(
        "ALTER DATABASE {name} SET search_path = \"Agents\", public"
    ));
    let mut session = server().connect_to(name);
    session.run("CREATE SCHEMA \"Agents\"");
    session.run("CREATE EXTENSION state_cache SCHEMA \"Agents\"");
    Database { name, session }
}

/// What the program has done.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The lines of a success.
    pub fn lines(&self) -> Vec<&str> {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out.lines().collect()
    }

    /// Each line as JSON.
    pub fn json(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        self.out.lines().map(parse).collect()
    }
}

/// The program, with an environment that leads nowhere.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_state-cache"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nowhere").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Database {
    /// The program, led to this database as the owner of everything.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_as("postgres", arguments)
    }

    /// The program as another role.
    pub fn command_as(&self, role: &str, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .env("PGHOST", server().host())
            .env("PGUSER", role)
            .env("PGDATABASE", self.name)
            .args(arguments);
        command
    }

    /// Runs the program.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        finish(&mut self.command(arguments))
    }

    /// Runs the program as another role.
    pub fn run_as(&self, role: &str, arguments: &[&str]) -> Ran {
        finish(&mut self.command_as(role, arguments))
    }
}
