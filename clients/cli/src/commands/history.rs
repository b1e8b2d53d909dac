//! `history`: the kept versions of a state.

use super::no_state;
use crate::connect::Database;
use crate::failure::Failure;
use crate::output::{As, Column, Output};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The key
    pub key: String,
    /// The class
    #[arg(short, long, default_value = "run")]
    pub class: String,
    /// How many at most, newest first
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<u32>,
}

const COLUMNS: [Column; 9] = [
    ("version", "VERSION", As::Number),
    ("parent_version", "PARENT", As::Number),
    ("created_at", "CREATED", As::Time),
    ("checkpoint_type", "TYPE", As::Text),
    ("agent_phase", "PHASE", As::Text),
    ("recovery", "POINT", As::Text),
    ("encoding", "STORED AS", As::Text),
    ("bytes_stored", "STORED", As::Bytes),
    ("bytes", "SIZE", As::Bytes),
];

/// Lists.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let Arguments { key, class, limit } = arguments;
    let limit = limit.map(|limit| limit.to_string());
    let rows = database.rows(
        "SELECT *, CASE WHEN recovery_point THEN 'yes' END AS recovery
            FROM @.state_history($2, class => $1) LIMIT $3::bigint",
        &[Some(class), Some(key), limit.as_deref()],
    )?;
    if rows.is_empty() {
        return Err(no_state(class, key));
    }
    output.table(&COLUMNS, &rows, "no versions")?;
    Ok(ExitCode::SUCCESS)
}
