//! The jobs that there are, and tasks of those that are gone.

use super::statements;
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::changes;
use crate::store::own_write::OwnWrite;
use crate::store::spi::{Connection, Statement};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::collect;

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
    let left = changes::write(
        catalog,
        &statements(catalog).leave,
        SQL,
        [pg_sys::TEXTOID, pg_sys::INT8OID],
        [Some(varlena_datum(job)), Some(bigint_datum(AT_ONCE))],
    )?;
    Ok(left > 0)
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
    let deleted = changes::write(
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
    let forgotten = changes::write(
        catalog,
        &statements(catalog).forget_left,
        &sql,
        [pg_sys::TEXTOID],
        [Some(varlena_datum(job))],
    )?;
    Ok(forgotten > 0)
}
