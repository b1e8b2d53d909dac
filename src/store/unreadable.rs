//! Kept versions of which PostgreSQL itself cannot read every row: the same as in `history`, row by row and without
//! the columns that hold documents.

use super::changes::write;
use super::history::{Contexts, Version, named, version_of};
use super::integrity::LogId;
use super::integrity::put_aside_sql;
use super::spi::{Connection, Statement};
use super::texts::KEPT;
use crate::call::boolean_datum;
use crate::catalog::Catalog;
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_delta::MAX_HEADER;
use state_cache_memory::collect;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    unread: OnceCell<Statement>,
    version: OnceCell<Statement>,
    put_aside: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// The kept versions of a state under the active snapshot, newest first, without a look at what may be stored out
/// of line: all are [`Encoding::Unreadable`](super::Encoding::Unreadable), of 0 bytes.
pub fn versions_unread(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<Vec<Version>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).unread,
        &catalog.schema,
        || {
            format!(
                "SELECT version, parent_version, checkpoint_type, recovery_point, agent_phase, \
                    NULL::pg_catalog.jsonb, \
                 created_at, 0::pg_catalog.int8, NULL::pg_catalog.jsonb, NULL::pg_catalog.bytea, \
                 label, NULL::pg_catalog.bytea \
                 FROM {KEPT} ORDER BY version USING OPERATOR(pg_catalog.>), in_head USING OPERATOR(pg_catalog.>)"
            )
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let [class, key, _] = named(class, key, 0);
    let rows = connection.query(statement, [class, key])?;
    Ok(collect(rows.iter().map(|row| version_of(&row)))?)
}

/// One of them as `versions` reads it; `None` if it is not kept.
pub fn version(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    number: i64,
    contexts: Contexts,
) -> Result<Option<Version>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).version,
        &catalog.schema,
        || {
            format!(
                "SELECT version, parent_version, checkpoint_type, recovery_point, agent_phase, \
                 CASE WHEN $4 THEN execution_context END, \
                 created_at, pg_catalog.int8(COALESCE(pg_catalog.pg_column_size(state), \
                 pg_catalog.pg_column_size(delta))), state, pg_catalog.substring(delta, 1, {MAX_HEADER}), \
                 label, pg_catalog.substring(payload, 1, {MAX_HEADER}) \
                 FROM {KEPT} WHERE version OPERATOR(pg_catalog.=) $3 \
                 ORDER BY in_head USING OPERATOR(pg_catalog.>) LIMIT 1"
            )
        },
        &[
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::BOOLOID,
        ],
    )?;
    let [class, key, number] = named(class, key, number);
    let contexts = Some(boolean_datum(contexts == Contexts::Read));
    let rows = connection.query(statement, [class, key, number, contexts])?;
    Ok(rows.first().map(|row| version_of(&row)))
}

/// Moves what can be read of a version to `state_damaged`: all but document and execution context.
pub fn put_aside_unread(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
    log_id: &LogId,
) -> Result<()> {
    let columns = "parent_version, hash, checkpoint_type, recovery_point, agent_phase, created_at, writer, label";
    let [class, key, version] = named(class, key, version);
    write(
        catalog,
        &statements(catalog).put_aside,
        &put_aside_sql(columns),
        [
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::UUIDOID,
        ],
        [
            class,
            key,
            version,
            Some(pg_sys::Datum::from(std::ptr::from_ref(log_id))),
        ],
    )?;
    Ok(())
}
