//! The rows of tasks.

use super::own_write::OwnWrite;
use super::spi::{Connection, Row, Rows, Statement};
use crate::call::{bigint_datum, integer_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::varlena::{INTEGER, JSONB, TEXT, array_datum};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::collect;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    insert: OnceCell<Statement>,
    lock: OnceCell<Statement>,
    update: OnceCell<Statement>,
    values: OnceCell<Statement>,
    cancel: OnceCell<Statement>,
    count: OnceCell<Statement>,
    delete: OnceCell<Statement>,
    leave: OnceCell<Statement>,
    documents: OnceCell<Statement>,
    page: [OnceCell<Statement>; 2],
    lapsed_jobs: OnceCell<Statement>,
    waiting_jobs: [OnceCell<Statement>; 2],
    lock_lapsed: OnceCell<Statement>,
    lock_waiting: [OnceCell<Statement>; 2],
    hand_out: OnceCell<Statement>,
    renew: OnceCell<Statement>,
    changes: [OnceCell<Statement>; 3],
    jobs: OnceCell<Statement>,
    jobs_of_tasks: OnceCell<Statement>,
    jobs_left: OnceCell<Statement>,
    delete_left: OnceCell<Statement>,
    forget_left: OnceCell<Statement>,
    lock_exhausted: OnceCell<Statement>,
    next_lease: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// A task that was written: its name, and the status that it has now.
pub type Written = (Box<[u8]>, Box<[u8]>);

/// A task to be added.
pub struct TaskRow<'a> {
    /// Its name.
    pub task_id: &'a [u8],
    /// The agent that is to do it.
    pub agent_name: Option<&'a [u8]>,
    /// Binary jsonb.
    pub input: Option<&'a [u8]>,
}

/// Adds tasks that are not there; the names of those that were added, with the status that each has.
pub fn insert_tasks(catalog: &Catalog, job: &[u8], tasks: &[TaskRow<'_>]) -> Result<Vec<Written>> {
    const SQL: &str = "INSERT INTO @extschema@.state_task (job_id, task_id, agent_name, input) \
         SELECT $1, n.task_id, n.agent_name, n.input FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), \
         pg_catalog.unnest($4)) WITH ORDINALITY AS n (task_id, agent_name, input, place) ORDER BY n.place \
         ON CONFLICT (job_id, task_id) DO NOTHING RETURNING task_id, status";
    let connection = Connection::open()?;
    let types = [
        pg_sys::TEXTOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::JSONBARRAYOID,
    ];
    let slot = &statements(catalog).insert;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let names = tasks.iter().map(|task| Some(varlena_datum(task.task_id)));
    let agents = tasks.iter().map(|task| task.agent_name.map(varlena_datum));
    let inputs = tasks.iter().map(|task| task.input.map(varlena_datum));
    let arguments = [
        Some(varlena_datum(job)),
        Some(array_datum(TEXT, names)?),
        Some(array_datum(TEXT, agents)?),
        Some(array_datum(JSONB, inputs)?),
    ];
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, arguments)?;
    Ok(collect(rows.iter().map(|row| (row.text(1), row.text(2))))?)
}

/// What of a task a decision is about.
pub struct LockedTask {
    /// Its name.
    pub task_id: Box<[u8]>,
    /// Its status.
    pub status: Box<[u8]>,
    /// How often it was started.
    pub attempts: i32,
    /// The agent that has claimed it last.
    pub owner: Option<Box<[u8]>>,
    /// The token under which that was.
    pub token: Option<i64>,
    /// Until when nobody else can claim it.
    pub lease_until: Option<i64>,
}

/// Of columns 1 to 6.
fn locked(rows: &Rows) -> Result<Vec<LockedTask>> {
    let task = |row: Row<'_>| LockedTask {
        task_id: row.text(1),
        status: row.text(2),
        attempts: row.bigint(3) as i32,
        owner: row.column(4).map(|_| row.text(4)),
        token: row.column(5).map(|_| row.bigint(5)),
        lease_until: row.column(6).map(|_| row.bigint(6)),
    };
    Ok(collect(rows.iter().map(task))?)
}

/// Names as an array.
fn names_datum<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<pg_sys::Datum> {
    Ok(array_datum(
        TEXT,
        names.map(|name| Some(varlena_datum(name))),
    )?)
}

/// Locks these tasks of a job, in the order of their names; those that there are.
pub fn lock_tasks<'a>(
    catalog: &Catalog,
    job: &[u8],
    names: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<Vec<LockedTask>> {
    const SQL: &str = "SELECT task_id, status, attempts::pg_catalog.int8, owner, token, lease_until \
         FROM @extschema@.state_task \
         WHERE job_id OPERATOR(pg_catalog.=) $1 AND task_id OPERATOR(pg_catalog.=) ANY ($2) \
         ORDER BY task_id FOR NO KEY UPDATE";
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::TEXTARRAYOID];
    let slot = &statements(catalog).lock;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let arguments = [Some(varlena_datum(job)), Some(names_datum(names)?)];
    let _own = OwnWrite::begin();
    locked(&connection.modify(statement, arguments)?)
}

/// What is to be written of a task.
pub struct TaskChange<'a> {
    /// Its name.
    pub task_id: &'a [u8],
    /// The status that it is to have.
    pub status: &'a [u8],
    /// How often it was started.
    pub attempts: i32,
    /// What came of it, in binary jsonb; `None` leaves what is there.
    pub result: Option<&'a [u8]>,
    /// Why it failed, in binary jsonb; `None` leaves what is there.
    pub error: Option<&'a [u8]>,
}

/// Changes tasks that are locked; their names, with the status that each has then.
pub fn update_tasks(
    catalog: &Catalog,
    job: &[u8],
    changes: &[TaskChange<'_>],
    now: i64,
) -> Result<Vec<Written>> {
    // A claim lasts while the task runs; who had it last is known after its end, and not once it waits again.
    const SQL: &str = "UPDATE @extschema@.state_task AS t SET status = n.status, attempts = n.attempts, \
         result = COALESCE(n.result, t.result), error = COALESCE(n.error, t.error), \
         started_at = CASE WHEN n.attempts OPERATOR(pg_catalog.>) t.attempts THEN $7 ELSE t.started_at END, \
         completed_at = CASE WHEN n.status OPERATOR(pg_catalog.=) 'pending' \
         OR n.status OPERATOR(pg_catalog.=) 'running' THEN NULL ELSE $7 END, \
         owner = CASE WHEN n.status OPERATOR(pg_catalog.=) 'pending' THEN NULL ELSE t.owner END, \
         token = CASE WHEN n.status OPERATOR(pg_catalog.=) 'pending' THEN NULL ELSE t.token END, \
         lease_until = CASE WHEN n.status OPERATOR(pg_catalog.=) 'running' THEN t.lease_until END \
         FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), \
         pg_catalog.unnest($5), pg_catalog.unnest($6)) AS n (task_id, status, attempts, result, error) \
         WHERE t.job_id OPERATOR(pg_catalog.=) $1 AND t.task_id OPERATOR(pg_catalog.=) n.task_id \
         RETURNING t.task_id, t.status";
    let connection = Connection::open()?;
    let types = [
        pg_sys::TEXTOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::INT4ARRAYOID,
        pg_sys::JSONBARRAYOID,
        pg_sys::JSONBARRAYOID,
        pg_sys::TIMESTAMPTZOID,
    ];
    let slot = &statements(catalog).update;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let names = changes.iter().map(|change| change.task_id);
    let statuses = changes.iter().map(|change| change.status);
    let attempts = changes
        .iter()
        .map(|change| Some(integer_datum(change.attempts)));
    let results = changes
        .iter()
        .map(|change| change.result.map(varlena_datum));
    let errors = changes.iter().map(|change| change.error.map(varlena_datum));
    let arguments = [
        Some(varlena_datum(job)),
        Some(names_datum(names)?),
        Some(names_datum(statuses)?),
        Some(array_datum(INTEGER, attempts)?),
        Some(array_datum(JSONB, results)?),
        Some(array_datum(JSONB, errors)?),
        Some(bigint_datum(now)),
    ];
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, arguments)?;
    Ok(collect(rows.iter().map(|row| (row.text(1), row.text(2))))?)
}

/// What came of a task, and why it failed, in binary jsonb.
pub type TaskValues = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Those of a task that is locked; `None` if there is no such task.
pub fn task_values(catalog: &Catalog, job: &[u8], task: &[u8]) -> Result<Option<TaskValues>> {
    const SQL: &str = "SELECT result, error FROM @extschema@.state_task \
         WHERE job_id OPERATOR(pg_catalog.=) $1 AND task_id OPERATOR(pg_catalog.=) $2";
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::TEXTOID];
    let slot = &statements(catalog).values;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let arguments = [Some(varlena_datum(job)), Some(varlena_datum(task))];
    let rows = connection.modify(statement, arguments)?;
    Ok(rows.first().map(|row| (row.bytes(1), row.bytes(2))))
}

/// Tasks of a status, as text, and how many.
pub type StatusCount = (Box<[u8]>, i64);

fn status_counts(rows: &Rows) -> Result<Vec<StatusCount>> {
    Ok(collect(
        rows.iter().map(|row| (row.text(1), row.bigint(2))),
    )?)
}

/// Cancels all tasks of a job that have not ended; how many there were of each status.
pub fn cancel_tasks(catalog: &Catalog, job: &[u8], now: i64) -> Result<Vec<StatusCount>> {
    const SQL: &str = "WITH open AS MATERIALIZED (SELECT task_id, status FROM @extschema@.state_task \
         WHERE job_id OPERATOR(pg_catalog.=) $1 AND (status OPERATOR(pg_catalog.=) 'pending' \
         OR status OPERATOR(pg_catalog.=) 'running') ORDER BY task_id FOR NO KEY UPDATE), \
         cancelled AS (UPDATE @extschema@.state_task AS t SET status = 'cancelled', completed_at = $2, \
         lease_until = NULL FROM open WHERE t.job_id OPERATOR(pg_catalog.=) $1 \
         AND t.task_id OPERATOR(pg_catalog.=) open.task_id RETURNING open.status) \
         SELECT status, pg_catalog.count(*) FROM cancelled GROUP BY status";
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID];
    let slot = &statements(catalog).cancel;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let _own = OwnWrite::begin();
    let arguments = [Some(varlena_datum(job)), Some(bigint_datum(now))];
    status_counts(&connection.modify(statement, arguments)?)
}

/// Counts the tasks of a job, under the active snapshot.
pub fn count_tasks(catalog: &Catalog, job: &[u8]) -> Result<Vec<StatusCount>> {
    const SQL: &str = "SELECT status, pg_catalog.count(*) FROM @extschema@.state_task \
         WHERE job_id OPERATOR(pg_catalog.=) $1 GROUP BY status";
    let connection = Connection::open()?;
    let slot = &statements(catalog).count;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    status_counts(&connection.query(statement, [Some(varlena_datum(job))])?)
}

/// Deletes the tasks that a job has left which is gone, or has expired; whether somebody else has some of them
/// locked, which stay.
pub fn delete_tasks(catalog: &Catalog, job: &[u8]) -> Result<bool> {
    const SQL: &str = "WITH former AS MATERIALIZED (SELECT task_id FROM @extschema@.state_task \
         WHERE job_id OPERATOR(pg_catalog.=) $1 AND NOT EXISTS (SELECT FROM @extschema@.state_head AS h \
         WHERE h.class OPERATOR(pg_catalog.=) 'job' AND h.key OPERATOR(pg_catalog.=) $1 AND NOT h.deleted \
         AND (h.expires_at IS NULL OR h.expires_at OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp()))), \
         gone AS MATERIALIZED (SELECT t.task_id FROM @extschema@.state_task AS t JOIN former \
         ON t.task_id OPERATOR(pg_catalog.=) former.task_id WHERE t.job_id OPERATOR(pg_catalog.=) $1 \
         FOR UPDATE OF t SKIP LOCKED), \
         deleted AS (DELETE FROM @extschema@.state_task AS t USING gone WHERE t.job_id OPERATOR(pg_catalog.=) $1 \
         AND t.task_id OPERATOR(pg_catalog.=) gone.task_id) \
         SELECT (SELECT pg_catalog.count(*) FROM former) \
         OPERATOR(pg_catalog.>) (SELECT pg_catalog.count(*) FROM gone)";
    let connection = Connection::open()?;
    let slot = &statements(catalog).delete;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, [Some(varlena_datum(job))])?;
    Ok(rows.first().is_some_and(|row| row.boolean(1)))
}

/// Tasks that go at once with a job, and that the worker deletes in one transaction.
const AT_ONCE: i64 = 1000;

/// Deletes tasks of a job that this transaction has deleted: as many as go at once, of those that nobody has locked.
/// The rest is noted for the worker; whether there is one.
pub fn leave_tasks(catalog: &Catalog, job: &[u8]) -> Result<bool> {
    const SQL: &str = "WITH gone AS MATERIALIZED (SELECT task_id FROM @extschema@.state_task \
         WHERE job_id OPERATOR(pg_catalog.=) $1 ORDER BY task_id LIMIT $2 FOR UPDATE SKIP LOCKED), \
         deleted AS (DELETE FROM @extschema@.state_task AS t USING gone WHERE t.job_id OPERATOR(pg_catalog.=) $1 \
         AND t.task_id OPERATOR(pg_catalog.=) gone.task_id) \
         INSERT INTO @extschema@.state_task_left (job_id) SELECT $1 WHERE (SELECT pg_catalog.count(*) FROM (SELECT \
         FROM @extschema@.state_task WHERE job_id OPERATOR(pg_catalog.=) $1 LIMIT $2 OPERATOR(pg_catalog.+) 1) AS t) \
         OPERATOR(pg_catalog.>) (SELECT pg_catalog.count(*) FROM gone) ON CONFLICT (job_id) DO NOTHING RETURNING 1";
    let left = super::changes::write(
        catalog,
        &statements(catalog).leave,
        SQL,
        [pg_sys::TEXTOID, pg_sys::INT8OID],
        [Some(varlena_datum(job)), Some(bigint_datum(AT_ONCE))],
    )?;
    Ok(left > 0)
}

/// All tasks of a job under the active snapshot, in the order in which they were added: an array, in binary jsonb.
pub fn task_documents(catalog: &Catalog, job: &[u8]) -> Result<Vec<u8>> {
    const SQL: &str = "SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('task_id', task_id, \
         'agent_name', agent_name, 'status', status, 'attempts', attempts, 'owner', owner, \
         'lease_until', lease_until, 'started_at', started_at, 'completed_at', completed_at, \
         'input', input, 'result', result, 'error', error) ORDER BY position), '[]') \
         FROM @extschema@.state_task WHERE job_id OPERATOR(pg_catalog.=) $1";
    let connection = Connection::open()?;
    let slot = &statements(catalog).documents;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    let rows = connection.query(statement, [Some(varlena_datum(job))])?;
    Ok(rows
        .first()
        .and_then(|row| row.bytes(1))
        .unwrap_or_default())
}

/// Which tasks of a job are asked for.
pub struct TaskPage<'a> {
    /// Of this status.
    pub status: Option<&'a [u8]>,
    /// Of this agent.
    pub agent: Option<&'a [u8]>,
    /// Behind this name.
    pub after: Option<&'a [u8]>,
    /// So many at most.
    pub limit: i64,
}

/// Columns of a page.
pub const TASK_COLUMNS: usize = 12;

/// Calls `each` with the columns of each task of a page under the active snapshot, in the order of their names.
pub fn task_page(
    catalog: &Catalog,
    job: &[u8],
    page: &TaskPage<'_>,
    mut each: impl FnMut([Option<pg_sys::Datum>; TASK_COLUMNS]),
) -> Result<()> {
    // The failed have an index of their own.
    let failed = page.status == Some(b"failed");
    let sql = || {
        let status = match failed {
            true => "status OPERATOR(pg_catalog.=) 'failed' AND ",
            false => "",
        };
        format!(
            "SELECT task_id, agent_name, status, attempts, owner, lease_until, created_at, started_at, completed_at, \
             input, result, error FROM @extschema@.state_task \
             WHERE {status}job_id OPERATOR(pg_catalog.=) $1 AND task_id OPERATOR(pg_catalog.>) $4 \
             AND ($2 IS NULL OR status OPERATOR(pg_catalog.=) $2) \
             AND ($3 IS NULL OR agent_name OPERATOR(pg_catalog.=) $3) ORDER BY task_id LIMIT $5"
        )
    };
    let connection = Connection::open()?;
    let types = [
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::INT8OID,
    ];
    let slot = &statements(catalog).page[usize::from(failed)];
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let arguments = [
        Some(varlena_datum(job)),
        page.status.map(varlena_datum),
        page.agent.map(varlena_datum),
        Some(varlena_datum(page.after.unwrap_or_default())),
        Some(bigint_datum(page.limit)),
    ];
    let rows = connection.query(statement, arguments)?;
    for row in rows.iter() {
        each(std::array::from_fn(|n| row.column(n as i32 + 1)));
    }
    Ok(())
}

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

/// The call of a trigger for a statement on `state_task`.
pub struct Transition(*mut pg_sys::TriggerData);

impl Transition {
    /// What a function is called for, if by a trigger.
    pub fn of(context: *mut pg_sys::Node) -> Option<Self> {
        // SAFETY: context is NULL or a node.
        let node = unsafe { context.as_ref() }?;
        (node.type_ == pg_sys::NodeTag::T_TriggerData).then(|| Self(context.cast()))
    }

    fn event(&self) -> u32 {
        // SAFETY: the server passes a complete node, which outlives the call.
        unsafe { (*self.0).tg_event & pg_sys::TRIGGER_EVENT_OPMASK }
    }

    /// The table that was changed.
    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: as above; the server has opened the relation for the trigger.
        unsafe { (*(*self.0).tg_relation).rd_id }
    }

    /// Whether rows were added.
    pub fn inserts(&self) -> bool {
        self.event() == pg_sys::TRIGGER_EVENT_INSERT
    }

    /// Whether all rows are gone.
    pub fn truncates(&self) -> bool {
        self.event() == pg_sys::TRIGGER_EVENT_TRUNCATE
    }
}

/// So many more tasks of a status than before.
pub struct CountedChange {
    /// The job that the rows name.
    pub job: Box<[u8]>,
    /// The status.
    pub status: Box<[u8]>,
    /// How many.
    pub tasks: i64,
}

/// What a statement has changed, in the order of jobs: the triggers call the rows before it `old_tasks`, and those
/// after it `new_tasks`.
pub fn counted_changes(catalog: &Catalog, transition: &Transition) -> Result<Vec<CountedChange>> {
    const OLD: &str = "SELECT job_id, status, -1 AS n FROM old_tasks";
    const NEW: &str = "SELECT job_id, status, 1 AS n FROM new_tasks";
    let (slot, rows) = match transition.event() {
        pg_sys::TRIGGER_EVENT_INSERT => (0, NEW.to_owned()),
        pg_sys::TRIGGER_EVENT_DELETE => (1, OLD.to_owned()),
        _ => (2, format!("{OLD} UNION ALL {NEW}")),
    };
    let sql = || {
        format!(
            "SELECT job_id, status, pg_catalog.sum(n) FROM ({rows}) AS t GROUP BY job_id, status \
             HAVING pg_catalog.sum(n) OPERATOR(pg_catalog.<>) 0 ORDER BY job_id"
        )
    };
    let connection = Connection::open()?;
    connection.register(transition.0)?;
    let slot = &statements(catalog).changes[slot];
    let statement = connection.prepare(slot, &catalog.schema, sql, &[])?;
    let rows = connection.query(statement, [])?;
    let change = |row: Row<'_>| CountedChange {
        job: row.text(1),
        status: row.text(2),
        tasks: row.bigint(3),
    };
    Ok(collect(rows.iter().map(change))?)
}

fn job_names(catalog: &Catalog, slot: &OnceCell<Statement>, sql: &str) -> Result<Vec<Box<[u8]>>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(slot, &catalog.schema, || sql.to_owned(), &[])?;
    let rows = connection.query(statement, [])?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

/// The jobs that there are under the active snapshot, in order.
pub fn jobs(catalog: &Catalog) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "SELECT key FROM @extschema@.state_head WHERE class OPERATOR(pg_catalog.=) 'job' \
         AND NOT deleted ORDER BY key";
    job_names(catalog, &statements(catalog).jobs, SQL)
}

/// The jobs that rows name under the active snapshot, in order; each is found by one look into the index.
pub fn jobs_of_tasks(catalog: &Catalog) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "WITH RECURSIVE jobs AS ((SELECT job_id FROM @extschema@.state_task ORDER BY job_id LIMIT 1) \
         UNION ALL SELECT (SELECT t.job_id FROM @extschema@.state_task AS t WHERE t.job_id OPERATOR(pg_catalog.>) \
         jobs.job_id ORDER BY t.job_id LIMIT 1) FROM jobs WHERE jobs.job_id IS NOT NULL) \
         SELECT job_id FROM jobs WHERE job_id IS NOT NULL";
    job_names(catalog, &statements(catalog).jobs_of_tasks, SQL)
}

/// Some of the jobs that are gone and have left tasks.
pub fn jobs_left(catalog: &Catalog) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "SELECT job_id FROM @extschema@.state_task_left ORDER BY job_id LIMIT 1000";
    job_names(catalog, &statements(catalog).jobs_left, SQL)
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

/// Rows without a job: one snapshot shows both, or neither.
const LEFT: &str = "SELECT task_id FROM @extschema@.state_task WHERE job_id OPERATOR(pg_catalog.=) $1 \
     AND NOT EXISTS (SELECT FROM @extschema@.state_head AS h WHERE h.class OPERATOR(pg_catalog.=) 'job' \
     AND h.key OPERATOR(pg_catalog.=) $1 AND NOT h.deleted)";

/// Deletes tasks of a job that is not there, as many as go at once; whether there were any.
pub fn delete_left_tasks(catalog: &Catalog, job: &[u8]) -> Result<bool> {
    let sql = format!(
        "WITH gone AS MATERIALIZED ({LEFT} ORDER BY task_id LIMIT $2 FOR UPDATE SKIP LOCKED) \
         DELETE FROM @extschema@.state_task AS t USING gone WHERE t.job_id OPERATOR(pg_catalog.=) $1 \
         AND t.task_id OPERATOR(pg_catalog.=) gone.task_id RETURNING 1"
    );
    let deleted = super::changes::write(
        catalog,
        &statements(catalog).delete_left,
        &sql,
        [pg_sys::TEXTOID, pg_sys::INT8OID],
        [Some(varlena_datum(job)), Some(bigint_datum(AT_ONCE))],
    )?;
    Ok(deleted > 0)
}

/// Forgets that a job has left tasks, if it has none, or is there again; whether that is so.
pub fn forget_left(catalog: &Catalog, job: &[u8]) -> Result<bool> {
    let sql = format!(
        "DELETE FROM @extschema@.state_task_left WHERE job_id OPERATOR(pg_catalog.=) $1 \
         AND NOT EXISTS ({LEFT}) RETURNING 1"
    );
    let forgotten = super::changes::write(
        catalog,
        &statements(catalog).forget_left,
        &sql,
        [pg_sys::TEXTOID],
        [Some(varlena_datum(job))],
    )?;
    Ok(forgotten > 0)
}
