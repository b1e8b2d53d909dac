//! The rows of claims of states that are no runs.

use super::contexts::ClaimLock;
use super::own_write::OwnWrite;
use super::spi::{Connection, Rows, Statement};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    lease: OnceCell<Statement>,
    lock: [OnceCell<Statement>; 2],
    make_room: OnceCell<Statement>,
    take: OnceCell<Statement>,
    renew: OnceCell<Statement>,
    release: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Who owns a state.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Its token; the next claim has a greater one.
    pub token: i64,
    /// The owner, `None` once it has released the state.
    pub owner: Option<Box<[u8]>>,
    /// Until when nobody else can claim the state.
    pub expires_at: i64,
}

fn lease_of(rows: &Rows) -> Option<Lease> {
    rows.first().map(|row| Lease {
        token: row.bigint(1),
        owner: row.column(2).map(|_| row.text(2)),
        expires_at: row.bigint(3),
    })
}

const LEASE: &str = "SELECT token, owner, expires_at FROM @extschema@.state_lease \
     WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";

fn names(class: &[u8], key: &[u8]) -> [Option<pg_sys::Datum>; 2] {
    [Some(varlena_datum(class)), Some(varlena_datum(key))]
}

/// The claim of a state under the active snapshot.
pub fn lease(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<Option<Lease>> {
    const TYPES: [pg_sys::Oid; 2] = [pg_sys::TEXTOID, pg_sys::TEXTOID];
    let connection = Connection::open()?;
    let slot = &statements(catalog).lease;
    let statement = connection.prepare(slot, &catalog.schema, || LEASE.to_owned(), &TYPES)?;
    let rows = connection.query(statement, names(class, key))?;
    Ok(lease_of(&rows))
}

/// The claim of a state, locked until the transaction ends.
pub fn lock_lease(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    lock: ClaimLock,
) -> Result<Option<Lease>> {
    const TYPES: [pg_sys::Oid; 2] = [pg_sys::TEXTOID, pg_sys::TEXTOID];
    let connection = Connection::open()?;
    let slot = &statements(catalog).lock[lock as usize];
    let sql = || format!("{LEASE} {}", lock.clause());
    let statement = connection.prepare(slot, &catalog.schema, sql, &TYPES)?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, names(class, key))?;
    Ok(lease_of(&rows))
}

/// Runs a statement that changes a claim, if it is the one that the statement means.
fn change<const N: usize>(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: &str,
    types: [pg_sys::Oid; N],
    arguments: [Option<pg_sys::Datum>; N],
) -> Result<Option<Lease>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(slot, &catalog.schema, || sql.to_owned(), &types)?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, arguments)?;
    Ok(lease_of(&rows))
}

/// Makes a row for a state that has none, which nobody owns. Waits for who makes one at the same time.
pub fn make_room_for_lease(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<()> {
    change(
        catalog,
        &statements(catalog).make_room,
        "INSERT INTO @extschema@.state_lease (class, key, token) VALUES ($1, $2, 0) \
         ON CONFLICT (class, key) DO NOTHING RETURNING token, owner, expires_at",
        [pg_sys::TEXTOID, pg_sys::TEXTOID],
        names(class, key),
    )
    .map(drop)
}

/// Claims a state that nobody else holds and that has a row; `None` if there is no such. The token is drawn once the
/// row is locked, so that no claim that came before this one has a greater.
pub fn take_lease(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    owner: &[u8],
    lease: &pg_sys::Interval,
) -> Result<Option<Lease>> {
    let [class, key] = names(class, key);
    change(
        catalog,
        &statements(catalog).take,
        "UPDATE @extschema@.state_lease SET token = DEFAULT, owner = $3, \
         expires_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $4, \
         claimed_at = pg_catalog.clock_timestamp() \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND (owner IS NULL OR owner OPERATOR(pg_catalog.=) $3 \
         OR expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()) RETURNING token, owner, expires_at",
        [
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INTERVALOID,
        ],
        [
            class,
            key,
            Some(varlena_datum(owner)),
            Some(pg_sys::Datum::from(std::ptr::from_ref(lease))),
        ],
    )
}

/// Prolongs a claim, also one whose lease is over as long as nobody has taken the state; `None` if it is not the
/// current one.
pub fn renew_lease(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    token: i64,
    lease: &pg_sys::Interval,
) -> Result<Option<Lease>> {
    let [class, key] = names(class, key);
    change(
        catalog,
        &statements(catalog).renew,
        "UPDATE @extschema@.state_lease SET expires_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $4 \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND token OPERATOR(pg_catalog.=) $3 AND owner IS NOT NULL RETURNING token, owner, expires_at",
        [
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::INTERVALOID,
        ],
        [
            class,
            key,
            Some(bigint_datum(token)),
            Some(pg_sys::Datum::from(std::ptr::from_ref(lease))),
        ],
    )
}

/// Gives a claim up; whether it was the current one.
pub fn release_lease(catalog: &Catalog, class: &[u8], key: &[u8], token: i64) -> Result<bool> {
    let [class, key] = names(class, key);
    let released = change(
        catalog,
        &statements(catalog).release,
        "UPDATE @extschema@.state_lease SET owner = NULL, expires_at = pg_catalog.clock_timestamp() \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND token OPERATOR(pg_catalog.=) $3 AND owner IS NOT NULL RETURNING token, owner, expires_at",
        [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
        [class, key, Some(bigint_datum(token))],
    )?;
    Ok(released.is_some())
}
