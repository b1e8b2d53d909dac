//! What verification reads beside the versions themselves, and where it puts what it finds.

use super::changes::write;
use super::history::named;
use super::spi::{Connection, Statement};
use super::texts::{KEPT, OF_STATE, holds_nothing};
use crate::call::{bigint_datum, boolean_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::collect;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    log: OnceCell<Statement>,
    put_aside: OnceCell<Statement>,
    put_first_aside: OnceCell<Statement>,
    classes: OnceCell<Statement>,
    count_heads: OnceCell<Statement>,
    keys: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What goes into `state_recovery_log`.
pub struct LogEntry<'a> {
    /// Class and key of the state.
    pub state: (&'a [u8], &'a [u8]),
    /// Version that was damaged, or current before.
    pub version: Option<i64>,
    /// What kind of error it is.
    pub error_type: &'static str,
    /// How bad it is.
    pub severity: &'static str,
    /// What was wrong.
    pub fault: &'a str,
    /// What was done.
    pub strategy: &'static str,
    /// What came of it.
    pub outcome: &'a str,
    /// Version whose content the state has now.
    pub restored: Option<i64>,
    /// Whether it is left out if the last entry about this fault of the state's version says the same.
    pub once: bool,
}

/// The name of an entry of `state_recovery_log`.
pub type LogId = [u8; 16];

/// Adds an entry to `state_recovery_log`; its name, `None` if it is there.
pub fn log(catalog: &Catalog, entry: &LogEntry<'_>) -> Result<Option<LogId>> {
    const SQL: &str = "INSERT INTO @extschema@.state_recovery_log \
         (class, key, version, error_type, severity, fault, strategy, outcome, restored_version) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 WHERE NOT ($10 AND EXISTS (\
         SELECT FROM (SELECT outcome FROM @extschema@.state_recovery_log \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND version OPERATOR(pg_catalog.=) $3 AND fault OPERATOR(pg_catalog.=) $6 \
         ORDER BY found_at USING OPERATOR(pg_catalog.>) LIMIT 1) l \
         WHERE l.outcome OPERATOR(pg_catalog.=) $8)) \
         RETURNING id";
    let connection = Connection::open()?;
    let text = pg_sys::TEXTOID;
    let statement = connection.prepare(
        &statements(catalog).log,
        &catalog.schema,
        || SQL.to_owned(),
        &[
            text,
            text,
            pg_sys::INT8OID,
            text,
            text,
            text,
            text,
            text,
            pg_sys::INT8OID,
            pg_sys::BOOLOID,
        ],
    )?;
    let string = |text: &str| Some(varlena_datum(text.as_bytes()));
    let rows = connection.modify(
        statement,
        [
            Some(varlena_datum(entry.state.0)),
            Some(varlena_datum(entry.state.1)),
            entry.version.map(bigint_datum),
            string(entry.error_type),
            string(entry.severity),
            string(entry.fault),
            string(entry.strategy),
            string(entry.outcome),
            entry.restored.map(bigint_datum),
            Some(boolean_datum(entry.once)),
        ],
    )?;
    let id = rows.first().and_then(|row| row.column(1));
    // SAFETY: a uuid is passed by pointer to its 16 bytes; copied while the rows live.
    Ok(id.map(|id| unsafe { *id.cast_mut_ptr::<LogId>() }))
}

/// The statement that moves these columns of a version to `state_damaged`, from the row that holds it.
pub(super) fn put_aside_sql(columns: &str) -> String {
    let of_version = format!("{OF_STATE} AND version OPERATOR(pg_catalog.=) $3");
    format!(
        "WITH gone AS (DELETE FROM @extschema@.state_snapshot WHERE {of_version}), \
         emptied AS (UPDATE @extschema@.state_head SET {} WHERE {of_version} AND state IS NOT NULL) \
         INSERT INTO @extschema@.state_damaged (log_id, class, key, version, {columns}) \
         SELECT $4, $1, $2, $3, {columns} FROM {KEPT} WHERE version OPERATOR(pg_catalog.=) $3",
        holds_nothing()
    )
}

/// Moves a version to `state_damaged`.
pub fn put_aside(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
    log_id: &LogId,
) -> Result<()> {
    let columns = "parent_version, hash, checkpoint_type, recovery_point, agent_phase, execution_context, \
         created_at, writer, state, delta, label, payload";
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

/// The same of the snapshot row that was written first, of a version that is held more than once: by a partitioned
/// table, or by the head row too.
pub fn put_first_aside(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
    log_id: &LogId,
) -> Result<()> {
    const SQL: &str = "WITH first AS (SELECT tableoid AS t, ctid AS c FROM @extschema@.state_snapshot \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND version OPERATOR(pg_catalog.=) $3 ORDER BY created_at, tableoid LIMIT 1), \
         gone AS (DELETE FROM @extschema@.state_snapshot s USING first \
         WHERE s.class OPERATOR(pg_catalog.=) $1 AND s.key OPERATOR(pg_catalog.=) $2 \
         AND s.version OPERATOR(pg_catalog.=) $3 \
         AND s.tableoid OPERATOR(pg_catalog.=) first.t AND s.ctid OPERATOR(pg_catalog.=) first.c RETURNING s.*) \
         INSERT INTO @extschema@.state_damaged (log_id, class, key, version, parent_version, hash, \
         checkpoint_type, recovery_point, agent_phase, execution_context, created_at, writer, state, delta, \
         label, payload) SELECT $4, class, key, version, parent_version, hash, \
         checkpoint_type, recovery_point, agent_phase, execution_context, created_at, writer, state, delta, \
         label, payload FROM gone";
    let [class, key, version] = named(class, key, version);
    write(
        catalog,
        &statements(catalog).put_first_aside,
        SQL,
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

/// The names of all classes that have states, in order.
pub fn classes(catalog: &Catalog) -> Result<Vec<Box<[u8]>>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).classes,
        &catalog.schema,
        || {
            "SELECT class FROM @extschema@.state_class UNION SELECT class FROM @extschema@.state_head \
             UNION SELECT class FROM @extschema@.state_snapshot ORDER BY class"
                .to_owned()
        },
        &[],
    )?;
    let rows = connection.query(statement, [])?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

/// How many head rows a class has, tombstones included.
pub fn count_heads(catalog: &Catalog, class: &[u8]) -> Result<u64> {
    const SQL: &str = "SELECT pg_catalog.count(*) FROM @extschema@.state_head \
         WHERE class OPERATOR(pg_catalog.=) $1";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).count_heads,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::TEXTOID],
    )?;
    let rows = connection.query(statement, [Some(varlena_datum(class))])?;
    let count = rows.first().map_or(0, |row| row.bigint(1));
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Up to `limit` keys of a class behind `after` that have a head row or a snapshot, in order.
pub fn keys(catalog: &Catalog, class: &[u8], after: &[u8], limit: i64) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "SELECT key FROM (\
         (SELECT key FROM @extschema@.state_head WHERE class OPERATOR(pg_catalog.=) $1 \
         AND key OPERATOR(pg_catalog.>) $2 ORDER BY key LIMIT $3) UNION \
         (SELECT DISTINCT key FROM @extschema@.state_snapshot WHERE class OPERATOR(pg_catalog.=) $1 \
         AND key OPERATOR(pg_catalog.>) $2 ORDER BY key LIMIT $3)) k ORDER BY key LIMIT $3";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).keys,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(after)),
            Some(bigint_datum(limit)),
        ],
    )?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}
