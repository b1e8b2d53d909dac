//! Tasks as they are counted and shown.

use super::{StatusCount, statements, status_counts};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::spi::Connection;
use pgrx::pg_sys;

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

/// Whether a job has so many tasks, or more, under the active snapshot.
pub fn has_tasks(catalog: &Catalog, job: &[u8], at_least: i64) -> Result<bool> {
    const SQL: &str = "SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>=) $2 FROM (SELECT \
         FROM @extschema@.state_task WHERE job_id OPERATOR(pg_catalog.=) $1 LIMIT $2) AS t";
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::INT8OID];
    let slot = &statements(catalog).has_tasks;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let arguments = [Some(varlena_datum(job)), Some(bigint_datum(at_least))];
    let rows = connection.query(statement, arguments)?;
    Ok(rows.first().is_some_and(|row| row.boolean(1)))
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
