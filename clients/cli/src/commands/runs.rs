//! `runs`: a list of runs, or one run with its limits and all below it.

use crate::connect::{Database, Row};
use crate::failure::Failure;
use crate::output::{As, Column, Output, Paint, clean, span, status_paint};
use clap::Args;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A run: show it, its limits, and the runs below it
    pub run: Option<String>,
    /// List runs with this status: running, paused, completed, failed, cancelled
    #[arg(long)]
    pub status: Option<String>,
    /// List the runs of a swarm
    #[arg(long, value_name = "ID")]
    pub swarm: Option<String>,
    /// List the children of a run
    #[arg(long, value_name = "RUN")]
    pub parent: Option<String>,
    /// List the runs that somebody has claimed
    #[arg(long)]
    pub owner: Option<String>,
    /// List runs that are claimed now, or with =false those that are not
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub claimed: Option<bool>,
    /// List the runs behind this one
    #[arg(long, value_name = "RUN")]
    pub after: Option<String>,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub limit: u32,
}

const LIST: [Column; 8] = [
    ("run_id", "RUN", As::Text),
    ("parent", "PARENT", As::Text),
    ("status", "STATUS", As::Status),
    ("step", "STEP", As::Text),
    ("owner", "OWNER", As::Text),
    ("lease_in", "LEASE", As::Span),
    ("version", "VERSION", As::Number),
    ("age", "CHANGED", As::Span),
];

/// Shows or lists.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match &arguments.run {
        Some(run) => tree(run, database, output)?,
        None => list(arguments, database, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(arguments: &Arguments, database: &mut Database, output: &Output) -> Result<(), Failure> {
    let limit = arguments.limit.to_string();
    let claimed = arguments.claimed.map(|claimed| claimed.to_string());
    let rows = database.rows(
        "SELECT *, round(extract(epoch FROM lease_until - clock_timestamp()), 1) AS lease_in,
                round(extract(epoch FROM clock_timestamp() - updated_at), 1) AS age
            FROM @.state_context_list($1, $2, $3, $4, $5::boolean, $6, $7::integer)",
        &[
            arguments.status.as_deref(),
            arguments.swarm.as_deref(),
            arguments.parent.as_deref(),
            arguments.owner.as_deref(),
            claimed.as_deref(),
            arguments.after.as_deref(),
            Some(&limit),
        ],
    )?;
    output.table(&LIST, &rows, "no runs")
}

/// One run and those below it.
fn tree(run: &str, database: &mut Database, output: &Output) -> Result<(), Failure> {
    // What the tree does not say, the lists of the owners do: until when a lease lasts.
    let rows = database.rows(
        "WITH t AS MATERIALIZED (SELECT row_number() OVER () AS place, * FROM @.state_context_tree($1)),
                leases AS MATERIALIZED (SELECT l.run_id, l.lease_until
                    FROM (SELECT DISTINCT owner FROM t WHERE owner IS NOT NULL) o,
                        LATERAL @.state_context_list(owner => o.owner, \"limit\" => 10000) l)
            SELECT t.run_id, t.parent_run_id, t.depth, t.status, t.step, t.version, t.routine_id, t.owner,
                l.lease_until, round(extract(epoch FROM l.lease_until - clock_timestamp()), 1) AS lease_in,
                c.document -> 'resourceLimits' AS limits, c.document -> 'usage' AS usage, t.created_at
            FROM t LEFT JOIN leases l USING (run_id),
                LATERAL (SELECT @.state_context_get(t.run_id) AS document) c
            ORDER BY t.place",
        &[Some(run)],
    )?;
    if rows.is_empty() {
        return Err(Failure::NotFound(format!("there is no run \"{run}\"")));
    }
    if output.json {
        return rows.iter().try_for_each(|row| output.row(row));
    }
    let mut children: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().skip(1) {
        children
            .entry(row.text("parent_run_id").unwrap_or_default())
            .or_default()
            .push(row);
    }
    // Depth first, and no recursion: a tree may be deep.
    let mut waiting: Vec<(&Row, String, &str)> = vec![(&rows[0], String::new(), "")];
    while let Some((row, indent, branch)) = waiting.pop() {
        output.line(&format!("{indent}{branch}{}", describe(row, output)))?;
        let below = match branch {
            "" => String::new(),
            "└─ " => format!("{indent}   "),
            _ => format!("{indent}│  "),
        };
        let own = children.get(&row.text("run_id").unwrap_or_default());
        let own = own.map(Vec::as_slice).unwrap_or_default();
        for (index, child) in own.iter().enumerate().rev() {
            let last = index + 1 == own.len();
            waiting.push((child, below.clone(), if last { "└─ " } else { "├─ " }));
        }
    }
    Ok(())
}

/// A run on one line: name, status, step, owner and lease, limits.
fn describe(row: &Row, output: &Output) -> String {
    let text = |name: &str| row.text(name).map(|text| clean(&text));
    let mut parts = vec![output.paint(Paint::Bold, &text("run_id").unwrap_or_default())];
    if let Some(status) = text("status") {
        parts.push(match status_paint(&status) {
            Some(paint) => output.paint(paint, &status),
            None => status,
        });
    }
    if let Some(version) = text("version") {
        parts.push(output.paint(Paint::Dim, &format!("v{version}")));
    }
    if let Some(step) = text("step") {
        parts.push(format!("step {step}"));
    }
    if let Some(owner) = text("owner") {
        let lease = match row.number("lease_in") {
            None => String::new(),
            Some(left) if left > 0.0 => format!(" for {}", span(left)),
            Some(left) => output.paint(Paint::Red, &format!(", lease over since {}", span(-left))),
        };
        parts.push(format!("owner {owner}{lease}"));
    }
    if let Some(limits) = row.object("limits") {
        let limits: Vec<String> = limits
            .columns()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        if !limits.is_empty() {
            parts.push(output.paint(Paint::Dim, &clean(&limits.join(", "))));
        }
    }
    parts.join("  ")
}
