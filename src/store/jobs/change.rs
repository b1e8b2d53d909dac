//! Tasks that are added, locked and changed.

use super::{LockedTask, StatusCount, Written, locked, names_datum, statements, status_counts};
use crate::call::{bigint_datum, integer_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::own_write::OwnWrite;
use crate::store::spi::Connection;
use crate::varlena::{INTEGER, JSONB, TEXT, array_datum};
use pgrx::pg_sys;
use state_cache_memory::collect;

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
