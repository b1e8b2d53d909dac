//! `jobs`: a list of jobs with their counts, or one job with its tasks.

use crate::connect::{Database, Row};
use crate::failure::Failure;
use crate::output::{As, Column, Output};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `jobs`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A job: show its counts and tasks
    pub job: Option<String>,
    /// Show tasks with this status: pending, running, completed, failed, cancelled
    #[arg(long, requires = "job")]
    pub status: Option<String>,
    /// Show the tasks of an agent
    #[arg(long, requires = "job")]
    pub agent: Option<String>,
    /// List jobs, or show tasks, behind this one
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// List only jobs that are not complete
    #[arg(long, conflicts_with = "job")]
    pub open: bool,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub limit: u32,
}

const LIST: [Column; 8] = [
    ("job_id", "JOB", As::Text),
    ("total", "TASKS", As::Number),
    ("pending", "PENDING", As::Number),
    ("running", "RUNNING", As::Number),
    ("completed", "COMPLETED", As::Number),
    ("failed", "FAILED", As::Number),
    ("cancelled", "CANCELLED", As::Number),
    ("age", "CHANGED", As::Span),
];

const TASKS: [Column; 7] = [
    ("task_id", "TASK", As::Text),
    ("status", "STATUS", As::Status),
    ("agent_name", "AGENT", As::Text),
    ("attempts", "STARTS", As::Number),
    ("owner", "OWNER", As::Text),
    ("lease_in", "LEASE", As::Span),
    ("says", "RESULT OR ERROR", As::Text),
];

const SUMMARY: &str =
    "(s.summary ->> 'total')::bigint AS total, (s.summary ->> 'pending')::bigint AS pending,
    (s.summary ->> 'running')::bigint AS running, (s.summary ->> 'completed')::bigint AS completed,
    (s.summary ->> 'failed')::bigint AS failed, (s.summary ->> 'cancelled')::bigint AS cancelled,
    (s.summary ->> 'is_complete')::boolean AS is_complete";

/// Shows or lists.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let limit = arguments.limit.to_string();
    match &arguments.job {
        None => {
            let open = arguments.open.to_string();
            let rows = database.rows(
                &format!(
                    "SELECT h.key AS job_id, {SUMMARY}, h.updated_at,
                        round(extract(epoch FROM now() - h.updated_at), 1) AS age
                    FROM @.state_head h, LATERAL (SELECT @.state_job_summary(h.key) AS summary) s
                    WHERE h.class = 'job' AND NOT h.deleted AND (h.expires_at IS NULL OR h.expires_at > now())
                        AND ($1::text IS NULL OR h.key > $1)
                        AND NOT ($2::boolean AND (s.summary ->> 'is_complete')::boolean)
                    ORDER BY h.key LIMIT $3::bigint"
                ),
                &[arguments.after.as_deref(), Some(&open), Some(&limit)],
            )?;
            output.table(&LIST, &rows, "no jobs")?;
        }
        Some(job) => tasks(job, arguments, &limit, database, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tasks(
    job: &str,
    arguments: &Arguments,
    limit: &str,
    database: &mut Database,
    output: &Output,
) -> Result<(), Failure> {
    let summary = database.one(
        &format!(
            "SELECT $1 AS job_id, {SUMMARY}, round(extract(epoch FROM now() - h.updated_at), 1) AS age
            FROM (SELECT @.state_job_summary($1) AS summary) s
            LEFT JOIN @.state_head h ON h.class = 'job' AND h.key = $1"
        ),
        &[Some(job)],
    )?;
    let summary: Row = summary
        .filter(|row| row.raw("total").is_some())
        .ok_or_else(|| Failure::NotFound(format!("there is no job \"{job}\"")))?;
    let rows = database.rows(
        "SELECT *, round(extract(epoch FROM lease_until - clock_timestamp()), 1) AS lease_in,
                left(COALESCE(error, result)::text, 60) AS says
            FROM @.state_job_tasks($1, $2, $3, $4, $5::integer)",
        &[
            Some(job),
            arguments.status.as_deref(),
            arguments.agent.as_deref(),
            arguments.after.as_deref(),
            Some(limit),
        ],
    )?;
    if !output.json {
        output.table(&LIST, &[summary], "")?;
        output.line("")?;
    }
    output.table(&TASKS, &rows, "no such tasks")
}
