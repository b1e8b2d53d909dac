//! Measures `state_cache` beside plain SQL and prints a Markdown table of ratios.
//!
//! `state_cache_bench [--rows name,…] [--rounds N] [--quick] [--scale N]`, on the server that `PGHOST`, `PGPORT`,
//! `PGUSER` and `PGDATABASE` name, in a database that has the extension. It makes a table named `plain` and
//! leaves its rows behind, and restarts the server, so it is meant for a throwaway server (`make bench`).
//!
//! What all rows gave goes as JSON and as a picture to `docs/benchmarks/`, and as a table into the page; what some
//! rows or few rounds gave goes to `target/bench/`. `--draw` makes picture and table of the JSON again, and measures
//! nothing.
//!
//! Times are only comparable within one run, so each figure is the ratio of two sides that took turns. A
//! row's figure is the median over the rounds.

mod behind;
mod budgets;
mod bulk;
mod client;
mod cold;
mod contexts;
mod crew;
mod database;
mod derived;
mod document;
mod growth;
mod jobs;
mod l2;
mod loops;
mod merges;
mod messages;
mod options;
mod page;
mod picture;
mod reads;
mod recording;
mod redis;
mod report;
mod results;
mod rounds;
mod scale;
mod snapshots;
mod space;
mod standby;
mod steps;
mod subscriber;
mod updates;
mod validated;
mod wire;
mod writes;

use std::error::Error;
use std::process::ExitCode;

use document::Document;
use options::Options;
use report::Row;
use results::{Group, Machine, Results, Server, published, trial};
use wire::{Connection, literal};

/// Whatever ends a run.
pub type Failure = Box<dyn Error>;

/// The class whose writes go to the tables with the commit.
pub const CLASS: &str = "run";

/// Size of a small state, in bytes of binary jsonb.
pub const SMALL: usize = 3 * 1024;
/// Size of a middling state, in bytes of binary jsonb.
pub const MIDDLE: usize = 11 * 1024;
/// Size of a large state, in bytes of binary jsonb.
const LARGE: usize = 58 * 1024;

/// The measurements by name, in the order of the table. The last two fill L1, which
/// turns out the others' states.
const ROWS: [&str; 42] = [
    "get_small",
    "get_large",
    "path",
    "text_constant",
    "text_select",
    "updates",
    "unchanged",
    "changed",
    "changed_alone",
    "load",
    "churn",
    "behind",
    "redis",
    "text_small",
    "text_large",
    "notify",
    "receipt",
    "written",
    "snapshot_wal",
    "snapshot_size",
    "snapshot_steps",
    "snapshot_cold",
    "snapshot_growth",
    "context_set",
    "context_merge",
    "derived_reads",
    "derived_writes",
    "derived_polling",
    "validated",
    "job_updates",
    "job_polling",
    "job_workers",
    "budgets",
    "budget_shards",
    "l2_delay",
    "l2_commits",
    "l2_catch_up",
    "client_near",
    "client_l2",
    "hit_rate",
    "payload",
    "scale",
];

fn measure(
    name: &str,
    connection: &mut Connection,
    options: &Options,
) -> Result<Vec<Row>, Failure> {
    let plan = &options.plan;
    match name {
        "get_small" => loops::whole(connection, plan, SMALL, 6.0),
        "get_large" => loops::whole(connection, plan, LARGE, 2.5),
        "path" => loops::path(connection, plan, LARGE, 15.0),
        "text_constant" => reads::against_constant(connection, plan, 0.82),
        "text_select" => reads::against_select(connection, plan, 1.6),
        "updates" => updates::updates(connection, plan),
        "unchanged" => writes::unchanged(connection, plan),
        "changed" => writes::changed(connection, plan),
        "changed_alone" => writes::changed_alone(connection, plan),
        "load" => bulk::load(connection, plan),
        "churn" => bulk::churn(connection),
        "behind" => behind::one_client(connection, plan, 4.0),
        "redis" => behind::against_redis(connection, plan, 0.5, 0.6),
        "text_small" => loops::text(connection, plan, SMALL, 3.0),
        "text_large" => loops::text(connection, plan, 300 * 1024, 3.0),
        "notify" => messages::commits(connection, plan),
        "receipt" => messages::receipt(connection, plan),
        "l2_delay" => l2::delay(connection, plan),
        "l2_commits" => l2::commits(connection, plan),
        "l2_catch_up" => l2::catch_up(connection, plan),
        "client_near" => client::near(connection, plan),
        "client_l2" => client::l2(connection, plan),
        "written" => behind::written(connection, 60.0),
        "snapshot_wal" => snapshots::wal(connection, plan),
        "snapshot_size" => snapshots::size(connection),
        "snapshot_steps" => steps::rate(connection, plan),
        "snapshot_cold" => cold::reads(connection, plan),
        "snapshot_growth" => growth::growth(connection, plan),
        "context_set" => contexts::set(connection, plan),
        "context_merge" => merges::merges(connection, plan),
        "derived_reads" => derived::reads(connection, plan),
        "derived_writes" => derived::writes(connection, plan),
        "derived_polling" => derived::polling(connection, plan),
        "validated" => validated::reads(connection, plan),
        "job_updates" => jobs::updates(connection, plan),
        "job_polling" => jobs::polling(connection, plan),
        "job_workers" => jobs::workers(connection, plan),
        "budgets" => budgets::many(connection, plan),
        "budget_shards" => budgets::one(connection, plan),
        "hit_rate" => space::hit_rate(1.0),
        "payload" => space::payload(connection, 0.8),
        "scale" => scale::scale(connection, plan, options.scale),
        _ => Err(format!("no row {name}; there are {}", ROWS.join(", ")).into()),
    }
}

/// Writes a whole state into the plain table.
pub const UPSERT: &str = "INSERT INTO plain VALUES ($1, $2) \
                          ON CONFLICT (key) DO UPDATE SET state = excluded.state";

/// A number of bytes as the table shows it.
pub fn size(bytes: usize) -> String {
    format!("{} KB", bytes / 1024)
}

/// Where the WAL ends, in bytes.
pub fn wal_position(connection: &mut Connection) -> Result<f64, Failure> {
    connection.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
}

/// Does what autovacuum would do at some time of its own choosing.
pub fn tidy(connection: &mut Connection) -> Result<(), Failure> {
    connection.query("VACUUM plain, state_head, state_snapshot")?;
    Ok(())
}

/// Stores a document under every key of so many clients, on both sides.
pub fn store_for_all(
    connection: &mut Connection,
    class: &str,
    clients: usize,
    document: &Document,
) -> Result<(), Failure> {
    let (keys, document) = (crew::all_keys(clients), literal(document.text()));
    connection.query(&format!(
        "INSERT INTO plain SELECT key, {document}::jsonb FROM ({keys}) keys
         ON CONFLICT (key) DO UPDATE SET state = excluded.state;
         SELECT count(state_set(key, {document}, class => '{class}')) FROM ({keys}) keys"
    ))?;
    connection.query("VACUUM ANALYZE plain, state_head, state_snapshot")?;
    Ok(())
}

fn run() -> Result<(), Failure> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    if options.draw {
        let results = Results::read(&published())?;
        results.draw(&published())?;
        return results.publish();
    }
    let mut connection = Connection::open()?;
    let mut results = Results {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        command: options.command(),
        rounds: options.plan.rounds,
        machine: Machine::here()?,
        server: Server::of(&mut connection)?,
        groups: Vec::new(),
    };
    connection.query(
        "DROP TABLE IF EXISTS plain;
         CREATE TABLE plain (key text PRIMARY KEY, state jsonb NOT NULL)",
    )?;
    println!("{}\n\n{}", results.described(), report::HEADING);
    let mut failed = Vec::new();
    for name in &options.rows {
        // What fails costs its own rows only: the others took many minutes.
        let rows = match measure(name, &mut connection, &options) {
            Ok(rows) => rows,
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                continue;
            }
        };
        for row in &rows {
            println!("{}", row.markdown());
        }
        results.groups.push(Group {
            name: name.clone(),
            rows,
        });
        // Whoever stops a run has what it measured until then.
        results.write(&trial())?;
    }
    if !failed.is_empty() {
        return Err(failed.join("; ").into());
    }
    let directory = match options.is_whole() {
        true => published(),
        false => trial(),
    };
    if options.is_whole() {
        results.write(&directory)?;
        results.publish()?;
    }
    println!("\nJSON and picture: {}", directory.display());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("state_cache_bench: {error}");
            ExitCode::FAILURE
        }
    }
}
