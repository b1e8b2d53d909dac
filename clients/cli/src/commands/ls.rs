//! `ls`: classes with the number, size and age of their states; the states of a class by prefix.

use crate::connect::Database;
use crate::failure::Failure;
use crate::output::{As, Column, Output};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The class; none: all classes
    pub class: Option<String>,
    /// What keys begin with
    pub prefix: Option<String>,
    /// List keys behind this one
    #[arg(long, value_name = "KEY")]
    pub after: Option<String>,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub limit: u32,
}

const CLASSES: [Column; 6] = [
    ("class", "CLASS", As::Text),
    ("write_mode", "MODE", As::Text),
    ("states", "STATES", As::Number),
    ("bytes", "SIZE", As::Bytes),
    ("oldest", "OLDEST", As::Span),
    ("newest", "NEWEST", As::Span),
];

const STATES: [Column; 5] = [
    ("key", "KEY", As::Text),
    ("version", "VERSION", As::Number),
    ("bytes", "SIZE", As::Bytes),
    ("age", "AGE", As::Span),
    ("expires_in", "EXPIRES IN", As::Span),
];

/// Lists.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match &arguments.class {
        None => classes(database, output)?,
        Some(class) => states(class, arguments, database, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn classes(database: &mut Database, output: &Output) -> Result<(), Failure> {
    // Classes that are defined, and those that only have states.
    let rows = database.rows(
        "SELECT COALESCE(c.class, h.class) AS class, c.write_mode, COALESCE(h.states, 0) AS states,
                COALESCE(h.bytes, 0) AS bytes, h.oldest, h.newest
            FROM (SELECT DISTINCT ON (class) class, write_mode FROM @.state_class ORDER BY class, changed DESC) c
            FULL JOIN (SELECT class, count(*) AS states, sum(size) AS bytes,
                    round(extract(epoch FROM now() - min(updated_at)), 1) AS oldest,
                    round(extract(epoch FROM now() - max(updated_at)), 1) AS newest
                FROM @.state_head WHERE NOT deleted AND (expires_at IS NULL OR expires_at > now())
                GROUP BY class) h USING (class)
            ORDER BY 1",
        &[],
    )?;
    output.table(&CLASSES, &rows, "no classes")
}

fn states(
    class: &str,
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<(), Failure> {
    let limit = arguments.limit.to_string();
    let rows = database.rows(
        // Of a state that is not written yet there is no size.
        "SELECT $1 AS class, k.key, k.version, h.size AS bytes, k.updated_at,
                round(extract(epoch FROM now() - k.updated_at), 1) AS age, h.expires_at,
                round(extract(epoch FROM h.expires_at - now()), 1) AS expires_in
            FROM @.state_keys(COALESCE($2, ''), $3, $4::integer, class => $1) k
            LEFT JOIN @.state_head h ON h.class = $1 AND h.key = k.key AND h.version = k.version
            ORDER BY k.key COLLATE \"C\"",
        &[
            Some(class),
            arguments.prefix.as_deref(),
            arguments.after.as_deref(),
            Some(&limit),
        ],
    )?;
    output.table(&STATES, &rows, "no states")?;
    if rows.len() == arguments.limit as usize && !output.json {
        // More, perhaps; programs see that from the number of lines.
        let last = rows
            .last()
            .and_then(|row| row.text("key"))
            .unwrap_or_default();
        eprintln!(
            "at most {limit} are listed; more with --after {}",
            crate::output::clean(&last)
        );
    }
    Ok(())
}
