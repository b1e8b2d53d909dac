//! `budgets`: a list of budgets, or one with its agents, holds and what to look at.

use crate::connect::{Database, Row};
use crate::failure::{FINDINGS, Failure};
use crate::output::{As, Column, Output};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `budgets`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A budget: show its agents, its holds, and what to look at
    pub budget: Option<String>,
    /// Compare counters with holds and costs; what differs is exit code 1
    #[arg(long)]
    pub verify: bool,
}

const LIST: [Column; 7] = [
    ("budget", "BUDGET", As::Text),
    ("parent", "PARENT", As::Text),
    ("currency", "CURRENCY", As::Text),
    ("total", "TOTAL", As::Number),
    ("spent", "SPENT", As::Number),
    ("reserved", "RESERVED", As::Number),
    ("remaining", "REMAINING", As::Number),
];

const SUMMARY: [Column; 9] = [
    ("budget", "budget", As::Text),
    ("parent", "parent", As::Text),
    ("currency", "currency", As::Text),
    ("total", "total", As::Text),
    ("soft_limit", "soft limit", As::Text),
    ("spent", "spent", As::Text),
    ("reserved", "reserved", As::Text),
    ("remaining", "remaining", As::Text),
    ("period", "period", As::Text),
];

const AGENTS: [Column; 5] = [
    ("agent", "AGENT", As::Text),
    ("limit", "LIMIT", As::Number),
    ("price", "PRICE", As::Number),
    ("spent", "SPENT", As::Number),
    ("reserved", "RESERVED", As::Number),
];

const HOLDS: [Column; 6] = [
    ("hold_id", "HOLD", As::Text),
    ("agent", "AGENT", As::Text),
    ("amount", "AMOUNT", As::Number),
    ("owner", "OWNER", As::Text),
    ("status", "STATUS", As::Status),
    ("expires_in", "EXPIRES IN", As::Span),
];

const ADVICE: [Column; 5] = [
    ("severity", "SEVERITY", As::Status),
    ("agent", "AGENT", As::Text),
    ("recommendation", "RECOMMENDATION", As::Text),
    ("amount", "AMOUNT", As::Number),
    ("reason", "REASON", As::Text),
];

const WRONG: [Column; 7] = [
    ("budget", "BUDGET", As::Text),
    ("agent", "AGENT", As::Text),
    ("period", "PERIOD", As::Time),
    ("spent", "SPENT", As::Number),
    ("spent_found", "FOUND", As::Number),
    ("held", "HELD", As::Number),
    ("held_found", "FOUND", As::Number),
];

/// Shows or lists.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let budget = arguments.budget.as_deref();
    if arguments.verify {
        let rows = database.rows("SELECT * FROM @.state_budget_verify($1)", &[budget])?;
        output.table(&WRONG, &rows, "all counters are right")?;
        return Ok(match rows.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(FINDINGS),
        });
    }
    match budget {
        None => {
            let rows = database.rows(
                "SELECT b.budget, b.parent, b.currency, s.summary -> 'total' AS total, s.summary -> 'spent' AS spent,
                        s.summary -> 'reserved' AS reserved, s.summary -> 'remaining' AS remaining
                    FROM @.state_budget b, LATERAL (SELECT @.state_budget_summary(b.budget) AS summary) s
                    ORDER BY b.budget",
                &[],
            )?;
            output.table(&LIST, &rows, "no budgets")?;
        }
        Some(budget) => show(budget, database, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(budget: &str, database: &mut Database, output: &Output) -> Result<(), Failure> {
    let parameters = [Some(budget)];
    let row = database.one("SELECT @.state_budget_summary($1) AS summary", &parameters)?;
    let summary: Row = row
        .and_then(|row| row.object("summary"))
        .ok_or_else(|| Failure::NotFound(format!("there is no budget \"{budget}\"")))?;
    output.record(&SUMMARY, &summary)?;
    if output.json {
        return Ok(());
    }
    let agents = database.rows(
        "SELECT a ->> 'agent' AS agent, a -> 'limit' AS \"limit\", a -> 'price' AS price, a -> 'spent' AS spent,
                a -> 'reserved' AS reserved
            FROM jsonb_array_elements(@.state_budget_summary($1) -> 'agents') a ORDER BY 1",
        &parameters,
    )?;
    output.line("")?;
    output.table(&AGENTS, &agents, "no agents")?;
    let holds = database.rows(
        "SELECT *, round(extract(epoch FROM expires_at - clock_timestamp()), 1) AS expires_in
            FROM @.state_budget_holds WHERE budget = $1 AND status = 'held' ORDER BY expires_at LIMIT 20",
        &parameters,
    )?;
    output.line("")?;
    output.table(&HOLDS, &holds, "nothing is held")?;
    let advice = database.rows("SELECT * FROM @.state_budget_recommend($1)", &parameters)?;
    if !advice.is_empty() {
        output.line("")?;
        output.table(&ADVICE, &advice, "")?;
    }
    Ok(())
}
