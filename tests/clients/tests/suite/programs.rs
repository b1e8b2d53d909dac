//! First steps: a program for each driver, which checks itself.

use state_cache_clients_tests::{Database, Example, Running, program, root};
use std::process::{Command, Stdio};

const PROGRAMS: [Example; 6] = [
    Example::Python("psycopg_sync.py"),
    Example::Python("psycopg_async.py"),
    Example::Python("asyncpg_client.py"),
    Example::Python("sqlalchemy_client.py"),
    Example::Node("node_postgres.js"),
    Example::Rust("rust-client"),
];

/// Runs a program twice: what it leaves behind is in nobody's way.
fn all_is_right(example: Example, database: &str) {
    let database = Database::create(database);
    for _ in 0..2 {
        let (said, status) = Running::start(example.command(&database)).end();
        assert!(
            status.success(),
            "{example:?}: {status}\n{}",
            said.join("\n")
        );
        let right = said.iter().filter(|line| line.ends_with(": ok")).count();
        assert!(
            right >= 9,
            "{example:?}: {right} parts\n{}",
            said.join("\n")
        );
    }
}

#[test]
fn psycopg() {
    all_is_right(PROGRAMS[0], "psycopg");
}

#[test]
fn psycopg_under_asyncio() {
    all_is_right(PROGRAMS[1], "psycopg_async");
}

#[test]
fn asyncpg() {
    all_is_right(PROGRAMS[2], "asyncpg");
}

#[test]
fn sqlalchemy() {
    all_is_right(PROGRAMS[3], "sqlalchemy");
}

#[test]
fn node_postgres() {
    all_is_right(PROGRAMS[4], "node_postgres");
}

#[test]
fn rust() {
    all_is_right(PROGRAMS[5], "rust");
}

#[test]
fn every_script_is_tested() {
    for (folder, extension) in [("python", "py"), ("node", "js")] {
        for entry in std::fs::read_dir(root().join("examples").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_known = PROGRAMS.iter().any(|program| {
                matches!(program, Example::Python(file) | Example::Node(file) if *file == name)
            });
            let is_script = path.extension().is_some_and(|it| it == extension);
            assert!(!is_script || is_known || name == "runner.py", "{name}");
        }
    }
}

/// `make demo-tiers`, with acts that are as short as what they wait for. In the end it compares all tiers, and fails
/// if a read went back.
#[test]
fn three_tiers_are_played() {
    let database = Database::create("tiers_demo");
    let mut command = Command::new(program("state_cache_tiers_demo"));
    command
        .args(["--seconds", "0.5"])
        .arg(root().join("demo/run.jsonl"))
        .env("PGDATABASE", database.name())
        .stdin(Stdio::null());
    let (said, status) = Running::start(command).end();
    let said = said.join("\n");
    assert!(status.success(), "{status}\n{said}");
    // Every act has a row for each tier.
    for tier in ["near cache", "Redis", "PostgreSQL"] {
        let start = format!("  {tier} ");
        let rows = said.lines().filter(|line| line.starts_with(&start));
        assert_eq!(rows.count(), 5, "{tier}\n{said}");
    }
    assert!(said.contains("No read went back."), "{said}");
}
