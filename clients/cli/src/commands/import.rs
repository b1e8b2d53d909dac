//! `import`: states from JSON lines, as `export` writes them.
//!
//! Each batch of lines is one transaction. A state that is there with the same document is not written again, so an
//! import that was cut off can be run again from the start; `--from-line` saves the reading.

use crate::connect::Database;
use crate::failure::Failure;
use crate::output::{Output, clean};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The class to import into
    pub class: String,
    /// The file; none: standard input
    pub file: Option<PathBuf>,
    /// Lines to a transaction
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Begin with this line; the first one is 1
    #[arg(long, value_name = "LINE", default_value_t = 1)]
    pub from_line: u64,
    /// What to do with a state that is there with another document
    #[arg(long, value_enum, default_value_t = Present::Replace)]
    pub present: Present,
}

/// What to do with a state that is there with another document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Present {
    /// Write the document of the line.
    Replace,
    /// Leave the state as it is.
    Keep,
}

/// A line; members that are not named here are of no use to an import.
#[derive(Deserialize, Serialize)]
struct Line {
    key: String,
    state: Box<RawValue>,
    #[serde(default)]
    expires_at: Option<String>,
}

/// What was done.
#[derive(Default, Serialize)]
struct Done {
    lines: u64,
    written: u64,
    unchanged: u64,
    kept: u64,
    expired: u64,
}

/// Imports.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let reader: Box<dyn BufRead> = match &arguments.file {
        None => Box::new(BufReader::new(std::io::stdin())),
        Some(path) => {
            let opened = File::open(path).map_err(|error| Failure::file(path.display(), &error))?;
            Box::new(BufReader::new(opened))
        }
    };
    let mut done = Done::default();
    let mut batch = Vec::new();
    let mut number = 0;
    // The first line that is not committed: where to go on after an error.
    let mut next = arguments.from_line;
    let outcome = (|| {
        for line in reader.lines() {
            number += 1;
            let line = line?;
            if number < arguments.from_line || line.trim().is_empty() {
                continue;
            }
            let parsed: Line = serde_json::from_str(&line).map_err(|error| {
                Failure::Usage(format!("line {number}: {}", clean(&error.to_string())))
            })?;
            batch.push(parsed);
            if batch.len() >= arguments.batch as usize {
                write(arguments, database, &batch, &mut done)?;
                batch.clear();
                next = number + 1;
            }
        }
        write(arguments, database, &batch, &mut done)
    })();
    if let Err(failure) = outcome {
        eprintln!(
            "state-cache: the lines before {next} are committed; go on with --from-line {next}"
        );
        return Err(failure);
    }
    let told = serde_json::to_string(&done).map_err(|error| Failure::File(error.to_string()))?;
    match output.json {
        true => output.line(&told)?,
        false => output.line(&format!(
            "{} lines: {} written, {} unchanged, {} kept, {} expired",
            done.lines, done.written, done.unchanged, done.kept, done.expired
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes lines in one transaction: all or none.
fn write(
    arguments: &Arguments,
    database: &mut Database,
    lines: &[Line],
    done: &mut Done,
) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string(lines).map_err(|error| Failure::File(error.to_string()))?;
    let keep = (arguments.present == Present::Keep).to_string();
    // The state is read before it is set: the one that is there decides what becomes of the line. A state that
    // somebody writes in between is overwritten, as by any state_set, or, where it is to be kept, refused with 40001.
    let rows = database.write(
        "SELECT d.what, pg_catalog.count(*) AS number,
                pg_catalog.count(CASE WHEN d.what OPERATOR(pg_catalog.=) 'written' THEN
                    @.state_set(d.key, d.state, CASE WHEN $3::pg_catalog.bool THEN 0::pg_catalog.int8 END,
                        d.ttl, class => $1) END) AS done
            FROM (SELECT l.key, l.state, l.expires_at OPERATOR(pg_catalog.-) pg_catalog.now() AS ttl,
                    CASE WHEN l.expires_at OPERATOR(pg_catalog.<=) pg_catalog.now() THEN 'expired'
                        WHEN c.state::pg_catalog.text OPERATOR(pg_catalog.=) l.state::pg_catalog.text THEN 'unchanged'
                        WHEN $3::pg_catalog.bool AND c.state IS NOT NULL THEN 'kept'
                        ELSE 'written' END AS what
                FROM pg_catalog.jsonb_to_recordset($2::pg_catalog.jsonb)
                    AS l (key pg_catalog.text, state pg_catalog.jsonb, expires_at pg_catalog.timestamptz),
                    LATERAL (SELECT @.state_get(l.key, $1) AS state OFFSET 0) c
                OFFSET 0) d
            GROUP BY d.what",
        &[Some(&arguments.class), Some(&text), Some(&keep)],
    )?;
    for row in rows {
        let number = row.number("number").unwrap_or(0.0) as u64;
        done.lines += number;
        match row.text("what").as_deref() {
            Some("written") => done.written += number,
            Some("unchanged") => done.unchanged += number,
            Some("kept") => done.kept += number,
            _ => done.expired += number,
        }
    }
    Ok(())
}
