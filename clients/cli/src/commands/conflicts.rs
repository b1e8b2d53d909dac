//! `conflicts`: what merges left to a person: list them, look at the three sides, decide.

use crate::connect::{Database, Row};
use crate::failure::Failure;
use crate::output::{As, Column, Output, Paint, clean};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::process::ExitCode;

/// Arguments of `conflicts`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List conflicts (what is done without a word)
    List(List),
    /// Show the three sides of a conflict
    Show {
        /// The conflict
        id: i64,
    },
    /// Decide a conflict
    Resolve(Resolve),
}

#[derive(Debug, Default, Args)]
struct List {
    /// Also those that are decided
    #[arg(long)]
    all: bool,
    /// Those of a run
    #[arg(long)]
    run: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("decision").required(true))]
struct Resolve {
    /// The conflict
    id: i64,
    /// The value of one side
    #[arg(long, value_enum, value_name = "SIDE", group = "decision")]
    take: Option<Side>,
    /// Another value, as JSON
    #[arg(long, value_name = "JSON", group = "decision")]
    value: Option<String>,
    /// Why
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Side {
    Base,
    Parent,
    Child,
}

const LIST: [Column; 6] = [
    ("id", "ID", As::Number),
    ("run_id", "RUN", As::Text),
    ("child_run_id", "CHILD", As::Text),
    ("variable", "VARIABLE", As::Text),
    ("status", "STATUS", As::Status),
    ("age", "AGE", As::Span),
];

const HEAD: [Column; 9] = [
    ("id", "conflict", As::Text),
    ("run_id", "run", As::Text),
    ("child_run_id", "child", As::Text),
    ("variable", "variable", As::Text),
    ("sensitivity", "sensitivity", As::Text),
    ("status", "status", As::Text),
    ("opened_at", "opened at", As::Time),
    ("resolved_by", "resolved by", As::Text),
    ("reason", "reason", As::Text),
];

/// Lists, shows or decides.
pub fn run(
    arguments: Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match arguments.action.unwrap_or(Action::List(List::default())) {
        Action::List(List { all, run }) => {
            let all = all.to_string();
            let rows = database.rows(
                "SELECT *, round(extract(epoch FROM now() - opened_at), 1) AS age FROM @.state_conflict
                    WHERE ($1::boolean OR status = 'open') AND ($2::text IS NULL OR run_id = $2) ORDER BY id",
                &[Some(&all), run.as_deref()],
            )?;
            output.table(&LIST, &rows, "no conflicts")?;
        }
        Action::Show { id } => show(&find(id, database)?, output)?,
        Action::Resolve(decision) => resolve(&decision, database, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find(id: i64, database: &mut Database) -> Result<Row, Failure> {
    let text = id.to_string();
    let sql = "SELECT *, jsonb_pretty(base_value) AS base_text, jsonb_pretty(parent_value) AS parent_text,
            jsonb_pretty(child_value) AS child_text, jsonb_pretty(resolved_value) AS resolved_text
        FROM @.state_conflict WHERE id = $1::bigint";
    let row = database.one(sql, &[Some(&text)])?;
    row.ok_or_else(|| Failure::NotFound(format!("there is no conflict {id}")))
}

fn show(row: &Row, output: &Output) -> Result<(), Failure> {
    output.record(&HEAD, row)?;
    if output.json {
        return Ok(());
    }
    let sides = [
        ("base_text", "base", None),
        ("parent_text", "parent", Some("parent_timestamp")),
        ("child_text", "child", Some("child_timestamp")),
        ("resolved_text", "resolved", Some("resolved_at")),
    ];
    for (name, title, when) in sides {
        let value = row.text(name);
        if name == "resolved_text" && value.is_none() {
            continue;
        }
        let when = when.and_then(|when| row.text(when));
        let when = when.map(|when| format!(" (set at {})", crate::output::time(&when)));
        output.line("")?;
        let title = format!("{title}{}", when.unwrap_or_default());
        output.line(&output.paint(Paint::Bold, &title))?;
        match value {
            None => output.line("  (no value)")?,
            Some(value) => {
                for line in value.lines() {
                    output.line(&format!("  {}", clean(line)))?;
                }
            }
        }
    }
    Ok(())
}

fn resolve(decision: &Resolve, database: &mut Database, output: &Output) -> Result<(), Failure> {
    let value = match (decision.take, &decision.value) {
        (Some(side), _) => {
            let name = match side {
                Side::Base => "base_value",
                Side::Parent => "parent_value",
                Side::Child => "child_value",
            };
            let row = find(decision.id, database)?;
            let taken = row.raw(name).map(str::to_owned);
            taken.ok_or_else(|| {
                Failure::NotFound(format!("conflict {} has no such side", decision.id))
            })?
        }
        (None, Some(value)) => {
            // A wrong value is a matter of usage, whatever the server would say.
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(value);
            parsed.map_err(|error| Failure::Usage(format!("--value is no JSON: {error}")))?;
            value.clone()
        }
        (None, None) => return Err(Failure::Usage("--take or --value decides".to_owned())),
    };
    let id = decision.id.to_string();
    database.write(
        "SELECT @.state_conflict_resolve($1::pg_catalog.int8, $2::pg_catalog.jsonb, $3) AS done",
        &[Some(&id), Some(&value), Some(&decision.reason)],
    )?;
    match output.json {
        true => output.line(&format!(
            "{{\"id\":{id},\"status\":\"resolved\",\"resolved_value\":{value}}}"
        )),
        false => output.line(&format!("conflict {id} is resolved")),
    }
}
