//! What `state_changes` reads, and what it needs kept of changes that no head row tells.

use super::own_write::OwnWrite;
use super::spi::{Connection, Proceed, Row, Statement};
use crate::call::{bigint_datum, integer_datum, varlena_datum};
use crate::catalog::{Catalog, Class, KnownStart};
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    heads: OnceCell<Statement>,
    head: OnceCell<Statement>,
    newest_keys: OnceCell<Statement>,
    count: OnceCell<Statement>,
    trace: OnceCell<Statement>,
    raise_floor: OnceCell<Statement>,
    raise_horizon: OnceCell<Statement>,
    insert_start: OnceCell<Statement>,
    delete_starts: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What matters of a head row to whoever catches up.
pub struct Head {
    /// The current version.
    pub version: i64,
    /// Whether that is a tombstone.
    pub deleted: bool,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// The transaction that wrote the row.
    pub xid: pg_sys::TransactionId,
}

impl Head {
    /// Of columns 1 to 4.
    fn of(row: &Row<'_>) -> Self {
        Self {
            version: row.bigint(1),
            deleted: row.boolean(2),
            expires_at: row.expiry(3),
            xid: row.xid(4),
        }
    }
}

/// Calls `each` with class, key and head of all states that the current role sees under the active snapshot.
pub fn heads(
    catalog: &Catalog,
    mut each: impl FnMut(&[u8], &[u8], &Head) -> Result<()>,
) -> Result<()> {
    const SQL: &str =
        "SELECT version, deleted, expires_at, xmin, class, key FROM @extschema@.state_head";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).heads,
        &catalog.schema,
        || SQL.to_owned(),
        &[],
    )?;
    connection.for_each(statement, [], |row| {
        each(&row.text(5), &row.text(6), &Head::of(&row))?;
        Ok(Proceed::On)
    })
}

/// One of them.
pub fn head(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<Option<Head>> {
    const SQL: &str = "SELECT version, deleted, expires_at, xmin FROM @extschema@.state_head \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).head,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let name = [Some(varlena_datum(class)), Some(varlena_datum(key))];
    let rows = connection.query(statement, name)?;
    Ok(rows.first().map(|row| Head::of(&row)))
}

/// Calls `each` with the keys of a class's states, those written last first, until it has enough.
pub fn newest_keys(
    catalog: &Catalog,
    class: &Class,
    mut each: impl FnMut(&[u8]) -> Result<Proceed>,
) -> Result<()> {
    const SQL: &str = "SELECT key FROM @extschema@.state_head \
         WHERE class OPERATOR(pg_catalog.=) $1 AND NOT deleted ORDER BY updated_at DESC, key";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).newest_keys,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::TEXTOID],
    )?;
    let name = Some(varlena_datum(&class.name));
    connection.for_each(statement, [name], |row| each(&row.text(1)))
}

/// How many states a class has.
pub fn count(catalog: &Catalog, class: &Class) -> Result<u64> {
    const SQL: &str = "SELECT pg_catalog.count(*) FROM @extschema@.state_head \
         WHERE class OPERATOR(pg_catalog.=) $1 AND NOT deleted";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).count,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::TEXTOID],
    )?;
    let rows = connection.query(statement, [Some(varlena_datum(&class.name))])?;
    let count = rows.first().map_or(0, |row| row.bigint(1));
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Runs a statement that writes a table of ours; how many rows it gave back.
pub(super) fn write<const N: usize>(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: &str,
    types: [pg_sys::Oid; N],
    arguments: [Option<pg_sys::Datum>; N],
) -> Result<usize> {
    let connection = Connection::open()?;
    let statement = connection.prepare(slot, &catalog.schema, || sql.to_owned(), &types)?;
    let _own = OwnWrite::begin();
    Ok(connection.modify(statement, arguments)?.iter().count())
}

/// Notes that a state, or for `None` that anything may have changed in a way that no head row shows.
pub fn trace(catalog: &Catalog, name: Option<(&[u8], &[u8])>) -> Result<()> {
    write(
        catalog,
        &statements(catalog).trace,
        "INSERT INTO @extschema@.state_trace (class, key) VALUES ($1, $2)",
        [pg_sys::TEXTOID, pg_sys::TEXTOID],
        [
            name.map(|(class, _)| varlena_datum(class)),
            name.map(|(_, key)| varlena_datum(key)),
        ],
    )?;
    Ok(())
}

/// Lets new states of a bucket begin above a version.
pub fn raise_floor(catalog: &Catalog, class: &[u8], bucket: i16, version: i64) -> Result<()> {
    write(
        catalog,
        &statements(catalog).raise_floor,
        "INSERT INTO @extschema@.state_floor AS f (class, bucket, version) VALUES ($1, $2, $3) \
         ON CONFLICT (class, bucket) DO UPDATE SET version = EXCLUDED.version \
         WHERE f.version OPERATOR(pg_catalog.<) EXCLUDED.version",
        [pg_sys::TEXTOID, pg_sys::INT2OID, pg_sys::INT8OID],
        [
            Some(varlena_datum(class)),
            Some(pg_sys::Datum::from(bucket)),
            Some(bigint_datum(version)),
        ],
    )?;
    Ok(())
}

/// Changes by transactions up to this one, given by its full id, may no longer be known.
pub fn raise_horizon(catalog: &Catalog, xid: u64) -> Result<()> {
    write(
        catalog,
        &statements(catalog).raise_horizon,
        "INSERT INTO @extschema@.state_horizon AS h (system, xid) VALUES ($1, $2) \
         ON CONFLICT (system) DO UPDATE SET xid = EXCLUDED.xid \
         WHERE h.xid OPERATOR(pg_catalog.<) EXCLUDED.xid",
        [pg_sys::INT8OID, pg_sys::XID8OID],
        [Some(system()), Some(bigint_datum(xid as i64))],
    )?;
    Ok(())
}

/// Notes a start of this server.
pub fn insert_start(catalog: &Catalog, start: &KnownStart) -> Result<()> {
    write(
        catalog,
        &statements(catalog).insert_start,
        "INSERT INTO @extschema@.state_start (system, name, timeline, number, position) VALUES ($1, $2, $3, $4, $5)",
        [
            pg_sys::INT8OID,
            pg_sys::INT8OID,
            pg_sys::INT4OID,
            pg_sys::INT8OID,
            pg_sys::PG_LSNOID,
        ],
        [
            Some(system()),
            Some(bigint_datum(start.name as i64)),
            Some(integer_datum(start.timeline as i32)),
            Some(bigint_datum(start.number as i64)),
            Some(bigint_datum(start.position as i64)),
        ],
    )?;
    Ok(())
}

/// Deletes the starts of this server with lower numbers.
pub fn delete_starts(catalog: &Catalog, below: u64) -> Result<()> {
    write(
        catalog,
        &statements(catalog).delete_starts,
        "DELETE FROM @extschema@.state_start WHERE system OPERATOR(pg_catalog.=) $1 AND number \
            OPERATOR(pg_catalog.<) $2",
        [pg_sys::INT8OID, pg_sys::INT8OID],
        [Some(system()), Some(bigint_datum(below as i64))],
    )?;
    Ok(())
}

/// The system identifier of this server.
fn system() -> pg_sys::Datum {
    // SAFETY: reads what was read from the control file at the start.
    bigint_datum(unsafe { pg_sys::GetSystemIdentifier() } as i64)
}
