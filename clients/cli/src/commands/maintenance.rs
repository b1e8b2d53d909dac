//! `verify` and `prune`, with a bar that shows how far the server has come.

use crate::connect::{Database, Row};
use crate::failure::{FINDINGS, Failure};
use crate::output::{As, Column, Output};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The class; none: all classes
    pub class: Option<String>,
    /// Put damaged versions aside, and go back to the last intact one
    #[arg(long)]
    pub repair: bool,
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// The class
    pub class: String,
    /// How many versions of each state stay; without, what the class says
    #[arg(long, value_name = "NUMBER")]
    pub keep: Option<u32>,
    /// Only versions older than this, as in "7 days"
    #[arg(long, value_name = "INTERVAL")]
    pub older_than: Option<String>,
    /// Recovery points too
    #[arg(long)]
    pub recovery_points: bool,
}

const FAULTS: [Column; 4] = [
    ("class", "CLASS", As::Text),
    ("key", "KEY", As::Text),
    ("version", "VERSION", As::Number),
    ("fault", "FAULT", As::Text),
];

/// Verifies; faults are exit code 1.
pub fn verify(
    arguments: &Verify,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let repair = arguments.repair.to_string();
    let rows = with_bar(database, |database| {
        database.write(
            "SELECT * FROM @.state_verify($1, $2::pg_catalog.bool)",
            &[arguments.class.as_deref(), Some(&repair)],
        )
    })?;
    output.table(&FAULTS, &rows, "every kept version is intact")?;
    Ok(match rows.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FINDINGS),
    })
}

/// Prunes.
pub fn prune(
    arguments: &Prune,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let keep = arguments.keep.map(|keep| keep.to_string());
    let points = arguments.recovery_points.to_string();
    let rows = with_bar(database, |database| {
        database.write(
            "SELECT @.state_prune($1, $2::pg_catalog.int4, $3::pg_catalog.interval, $4::pg_catalog.bool) AS deleted",
            &[
                Some(&arguments.class),
                keep.as_deref(),
                arguments.older_than.as_deref(),
                Some(&points),
            ],
        )
    })?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::NotFound(format!("no class \"{}\"", arguments.class)))?;
    match output.json {
        true => output.row(row)?,
        false => {
            let deleted = row.text("deleted").unwrap_or_default();
            output.line(&format!("{deleted} versions were deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command; on a terminal, a second connection asks meanwhile how far it has come.
fn with_bar(
    database: &mut Database,
    command: impl FnOnce(&mut Database) -> Result<Vec<Row>, Failure>,
) -> Result<Vec<Row>, Failure> {
    if !std::io::stderr().is_terminal() {
        return command(database);
    }
    let process = database.one("SELECT pg_backend_pid() AS pid", &[])?;
    let process = process.and_then(|row| row.text("pid")).unwrap_or_default();
    // Without a second connection, or without the privilege, there is no bar.
    let Ok(watcher) = database.another() else {
        return command(database);
    };
    let (done, ended) = channel::<()>();
    let bar = std::thread::spawn(move || show_bar(watcher, &process, &ended));
    let outcome = command(database);
    drop(done);
    // What the thread shows is of no use any more, however it has ended.
    let _ = bar.join();
    outcome
}

fn show_bar(mut watcher: Database, process: &str, ended: &Receiver<()>) {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} states, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_millis(200)) {
        let sql = "SELECT command, states_done, states_total FROM @.state_progress WHERE pid = $1::integer";
        let Ok(row) = watcher.one(sql, &[Some(process)]) else {
            break;
        };
        if let Some(row) = row {
            bar.set_message(row.text("command").unwrap_or_default());
            bar.set_length(row.number("states_total").unwrap_or(0.0) as u64);
            bar.set_position(row.number("states_done").unwrap_or(0.0) as u64);
        }
    }
    bar.finish_and_clear();
}
