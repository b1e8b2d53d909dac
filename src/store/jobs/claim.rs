//! Tasks that are handed out, and their leases.

use super::{LockedTask, locked, names_datum, statements};
use crate::call::{bigint_datum, integer_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::own_write::OwnWrite;
use crate::store::spi::{Connection, Statement};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::collect;

/// Jobs with leases that are over, those that were over first, as far as so many leases tell.
pub fn jobs_with_lapsed(catalog: &Catalog, leases: i64) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "SELECT DISTINCT job_id FROM (SELECT job_id FROM @extschema@.state_task \
         WHERE status OPERATOR(pg_catalog.=) 'running' \
         AND lease_until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() ORDER BY lease_until LIMIT $1) AS t";
    let connection = Connection::open()?;
    let slot = &statements(catalog).lapsed_jobs;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::INT8OID])?;
    let rows = connection.query(statement, [Some(bigint_datum(leases))])?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

/// Which tasks an agent may take: those that name it, or those that name none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those that name the agent.
    Own,
    /// Those that name none.
    Anyones,
}

impl Whose {
    /// The condition, for the agent `$2`, and what makes the index give the order that follows.
    const fn condition(self) -> &'static str {
        match self {
            Self::Own => "agent_name OPERATOR(pg_catalog.=) $2",
            Self::Anyones => "$2 IS NOT NULL AND agent_name IS NULL",
        }
    }
}

/// Jobs behind a name, in the order of their names, with tasks that wait for an agent; each is found by one look into
/// the index.
pub fn jobs_with_waiting(
    catalog: &Catalog,
    after: &[u8],
    agent: &[u8],
    whose: Whose,
    most: i64,
) -> Result<Vec<Box<[u8]>>> {
    let sql = || {
        let next = |after: &str| {
            format!(
                "(SELECT t.job_id FROM @extschema@.state_task AS t WHERE t.status OPERATOR(pg_catalog.=) 'pending' \
                 AND t.job_id OPERATOR(pg_catalog.>) {after} AND {} ORDER BY t.agent_name, t.job_id LIMIT 1)",
                whose.condition()
            )
        };
        format!(
            "WITH RECURSIVE jobs AS ({} UNION ALL SELECT {} FROM jobs WHERE jobs.job_id IS NOT NULL) \
             SELECT job_id FROM jobs WHERE job_id IS NOT NULL LIMIT $3",
            next("$1"),
            next("jobs.job_id")
        )
    };
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID];
    let slot = &statements(catalog).waiting_jobs[whose as usize];
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let arguments = [
        Some(varlena_datum(after)),
        Some(varlena_datum(agent)),
        Some(bigint_datum(most)),
    ];
    let rows = connection.query(statement, arguments)?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

const LOCKED_COLUMNS: &str =
    "task_id, status, attempts::pg_catalog.int8, owner, token, lease_until";

/// Locks tasks of a job that nobody else has locked and whose lease is over; those that an agent may take.
pub fn lock_lapsed(
    catalog: &Catalog,
    job: &[u8],
    agent: &[u8],
    most: i64,
) -> Result<Vec<LockedTask>> {
    let sql = || {
        format!(
            "SELECT {LOCKED_COLUMNS} FROM @extschema@.state_task WHERE status OPERATOR(pg_catalog.=) 'running' \
             AND lease_until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() \
             AND job_id OPERATOR(pg_catalog.=) $1 \
             AND (agent_name IS NULL OR agent_name OPERATOR(pg_catalog.=) $2) \
             ORDER BY lease_until LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED"
        )
    };
    lock_some(
        catalog,
        &statements(catalog).lock_lapsed,
        sql,
        job,
        agent,
        most,
    )
}

/// Locks tasks of a job that nobody else has locked and that wait for an agent, in the order in which they were
/// added.
pub fn lock_waiting(
    catalog: &Catalog,
    job: &[u8],
    agent: &[u8],
    whose: Whose,
    most: i64,
) -> Result<Vec<LockedTask>> {
    let sql = || {
        format!(
            "SELECT {LOCKED_COLUMNS} FROM @extschema@.state_task WHERE status OPERATOR(pg_catalog.=) 'pending' \
             AND job_id OPERATOR(pg_catalog.=) $1 AND {} \
             ORDER BY agent_name, position LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED",
            whose.condition()
        )
    };
    let slot = &statements(catalog).lock_waiting[whose as usize];
    lock_some(catalog, slot, sql, job, agent, most)
}

fn lock_some(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: impl FnOnce() -> String,
    job: &[u8],
    agent: &[u8],
    most: i64,
) -> Result<Vec<LockedTask>> {
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID];
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let arguments = [
        Some(varlena_datum(job)),
        Some(varlena_datum(agent)),
        Some(bigint_datum(most)),
    ];
    let _own = OwnWrite::begin();
    locked(&connection.modify(statement, arguments)?)
}

/// Under which claim tasks are handed out.
pub struct TaskClaim<'a> {
    /// The agent.
    pub agent: &'a [u8],
    /// The token.
    pub token: i64,
    /// Until when nobody else can claim the tasks.
    pub lease_until: i64,
    /// When it is made.
    pub now: i64,
}

/// Columns of a task that was handed out.
pub const HANDED_OUT: usize = 7;

/// Starts tasks that are locked under a claim, and calls `each` with the columns of each task, in the order in which
/// they were added; how many there were of each status that the rows have then.
pub fn hand_out_tasks<'a>(
    catalog: &Catalog,
    job: &[u8],
    names: impl ExactSizeIterator<Item = &'a [u8]>,
    claim: &TaskClaim<'_>,
    mut each: impl FnMut(&[u8], [Option<pg_sys::Datum>; HANDED_OUT]),
) -> Result<()> {
    const SQL: &str = "WITH started AS (UPDATE @extschema@.state_task AS t SET status = 'running', \
         attempts = t.attempts OPERATOR(pg_catalog.+) 1, owner = $3, token = $4, lease_until = $5, started_at = $6, \
         completed_at = NULL FROM pg_catalog.unnest($2) AS n (task_id) WHERE t.job_id OPERATOR(pg_catalog.=) $1 \
         AND t.task_id OPERATOR(pg_catalog.=) n.task_id RETURNING t.*) \
         SELECT status, job_id, task_id, token, agent_name, attempts, lease_until, input FROM started \
         ORDER BY position";
    let connection = Connection::open()?;
    let types = [
        pg_sys::TEXTOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::TEXTOID,
        pg_sys::INT8OID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZOID,
    ];
    let slot = &statements(catalog).hand_out;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let arguments = [
        Some(varlena_datum(job)),
        Some(names_datum(names)?),
        Some(varlena_datum(claim.agent)),
        Some(bigint_datum(claim.token)),
        Some(bigint_datum(claim.lease_until)),
        Some(bigint_datum(claim.now)),
    ];
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, arguments)?;
    for row in rows.iter() {
        each(
            &row.text(1),
            std::array::from_fn(|n| row.column(n as i32 + 2)),
        );
    }
    Ok(())
}

/// Locks tasks of a job that nobody else has locked, whose lease is over and that were started so often.
pub fn lock_exhausted(
    catalog: &Catalog,
    job: &[u8],
    max_attempts: i32,
    most: i64,
) -> Result<Vec<LockedTask>> {
    let sql = || {
        format!(
            "SELECT {LOCKED_COLUMNS} FROM @extschema@.state_task WHERE status OPERATOR(pg_catalog.=) 'running' \
             AND lease_until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() \
             AND job_id OPERATOR(pg_catalog.=) $1 AND attempts OPERATOR(pg_catalog.>=) $2 \
             ORDER BY lease_until LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED"
        )
    };
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::INT4OID, pg_sys::INT8OID];
    let slot = &statements(catalog).lock_exhausted;
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let arguments = [
        Some(varlena_datum(job)),
        Some(integer_datum(max_attempts)),
        Some(bigint_datum(most)),
    ];
    let _own = OwnWrite::begin();
    locked(&connection.modify(statement, arguments)?)
}

/// Gives tasks that are locked a lease until then; how many there were.
pub fn renew_leases<'a>(
    catalog: &Catalog,
    job: &[u8],
    names: impl ExactSizeIterator<Item = &'a [u8]>,
    lease_until: i64,
) -> Result<usize> {
    const SQL: &str = "UPDATE @extschema@.state_task SET lease_until = $3 \
         WHERE job_id OPERATOR(pg_catalog.=) $1 AND task_id OPERATOR(pg_catalog.=) ANY ($2) RETURNING task_id";
    let connection = Connection::open()?;
    let types = [
        pg_sys::TEXTOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::TIMESTAMPTZOID,
    ];
    let slot = &statements(catalog).renew;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let arguments = [
        Some(varlena_datum(job)),
        Some(names_datum(names)?),
        Some(bigint_datum(lease_until)),
    ];
    let _own = OwnWrite::begin();
    Ok(connection.modify(statement, arguments)?.iter().count())
}

/// When the first lease is over, also one that is already.
pub fn next_lease(catalog: &Catalog) -> Result<Option<i64>> {
    const SQL: &str = "SELECT pg_catalog.min(lease_until) FROM @extschema@.state_task \
         WHERE status OPERATOR(pg_catalog.=) 'running' AND lease_until IS NOT NULL";
    let connection = Connection::open()?;
    let slot = &statements(catalog).next_lease;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[])?;
    let rows = connection.query(statement, [])?;
    Ok(rows
        .first()
        .and_then(|row| row.column(1).map(|_| row.bigint(1))))
}
