//! Writing one state to L3: head and snapshot in one statement, old snapshots pruned by the same.
//!
//! Every write names the version that it replaces. If that is not the current one any more nothing is
//! written, and the caller looks again.

use super::own_write::OwnWrite;
use super::spi::{Connection, Statement};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::{Catalog, Class};
use crate::error::{Error, Result, Shown};
use pgrx::pg_sys::{self, panic::CaughtError};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;

/// Ways of pruning, each with its own statement: a snapshot falls out of `keep`, or none does.
pub const PRUNINGS: usize = 2;

/// A document to be written.
pub struct NewVersion<'a> {
    /// Its version, above the one to be replaced; for a state without a head row the least it may have.
    pub number: i64,
    /// Binary jsonb.
    pub document: &'a [u8],
    /// Hash of the document.
    pub hash: u128,
    /// Version that it was made from; `None` where there was no state.
    pub parent: Option<i64>,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
}

/// What a write replaces; if it is not there any more, nothing is written.
#[derive(Clone, Copy)]
pub struct Replaced {
    /// The current version.
    pub version: i64,
    /// Hash of its document, since a change by hand may leave the version as it was; `None` where that is
    /// not known.
    pub hash: Option<u128>,
}

/// The versions of a `behind` class have gaps, so its snapshots are counted instead ([`prune_gaps`]).
fn pruning(class: &Class) -> usize {
    usize::from(class.keep.is_none() || class.behind)
}

/// Prunes a state of a `behind` class after a version was made; `tombstone`: that is one of those to be kept.
fn prune_gaps(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    made: Option<i64>,
    tombstone: bool,
) -> Result<Option<i64>> {
    if let (Some(_), true, Some(keep)) = (made, class.behind, class.keep) {
        prune_state(catalog, class, key, keep - i64::from(tombstone))?;
    }
    Ok(made)
}

/// The part of a statement that prunes the snapshot that falls out of `keep` once the CTE `head` has made
/// a version; `version` names the parameter with the snapshot's. It is named exactly: a range would visit
/// every version of the state since the last VACUUM.
fn pruning_sql(pruning: usize, version: &str) -> String {
    if pruning > 0 {
        return String::new();
    }
    format!(
        ", pruned AS (DELETE FROM @extschema@.state_snapshot s USING head \
         WHERE s.class OPERATOR(pg_catalog.=) $1 AND s.key OPERATOR(pg_catalog.=) $2 \
         AND s.version OPERATOR(pg_catalog.=) {version})"
    )
}

/// The rows of the state in question.
const OF_STATE: &str = "class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";

/// Its head row, if it is still the one to be replaced: version $3, hash $4 unless that is NULL. A
/// tombstone has no hash.
const UNMOVED: &str = "class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
     AND version OPERATOR(pg_catalog.=) $3 \
     AND ($4 IS NULL OR COALESCE(hash, '') OPERATOR(pg_catalog.=) $4)";

/// The version that a state without a head row begins with: none is used again.
const FIRST_VERSION: &str = "SELECT COALESCE(pg_catalog.max(version), 0) OPERATOR(pg_catalog.+) 1 \
     FROM @extschema@.state_snapshot WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";

fn insert_sql() -> String {
    format!(
        "WITH head AS (INSERT INTO @extschema@.state_head (class, key, version, hash, size, expires_at) \
         SELECT $1, $2, GREATEST(({FIRST_VERSION}), $7), $3, $4, $5 \
         ON CONFLICT (class, key) DO NOTHING RETURNING version) \
         INSERT INTO @extschema@.state_snapshot (class, key, version, state, hash) \
         SELECT $1, $2, version, $6, $3 FROM head RETURNING version"
    )
}

fn update_sql(how: usize) -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = $11, hash = $5, size = $6, deleted = false, \
         expires_at = $7, updated_at = pg_catalog.clock_timestamp() \
         WHERE {UNMOVED} RETURNING version){} \
         INSERT INTO @extschema@.state_snapshot (class, key, version, parent_version, state, hash) \
         SELECT $1, $2, version, $8, $9, $5 FROM head RETURNING version",
        pruning_sql(how, "$10")
    )
}

/// For a class that keeps one snapshot: the row itself becomes the next version, which writes a third of
/// the WAL of a new row.
fn replace_sql() -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = $9, hash = $5, size = $6, deleted = false, \
         expires_at = $7, updated_at = pg_catalog.clock_timestamp() \
         WHERE {UNMOVED} RETURNING version) \
         UPDATE @extschema@.state_snapshot \
         SET version = $9, parent_version = version, hash = $5, \
         checkpoint_type = DEFAULT, recovery_point = DEFAULT, agent_phase = NULL, \
         execution_context = NULL, created_at = DEFAULT, writer = DEFAULT, state = $8, delta = NULL \
         WHERE {OF_STATE} AND version OPERATOR(pg_catalog.=) $3 AND EXISTS (SELECT FROM head) \
         RETURNING version"
    )
}

fn delete_sql(how: usize) -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = $6, hash = NULL, size = 0, deleted = true, \
         expires_at = NULL, updated_at = pg_catalog.clock_timestamp() \
         WHERE {UNMOVED} RETURNING version){} \
         SELECT version FROM head",
        pruning_sql(how, "$5")
    )
}

fn insert_tombstone_sql() -> String {
    "INSERT INTO @extschema@.state_head (class, key, version, size, deleted) \
     VALUES ($1, $2, $3, 0, true) ON CONFLICT (class, key) DO NOTHING RETURNING version"
        .to_owned()
}

/// The snapshots that a state no longer keeps, found by counting: versions written behind leave gaps.
fn prune_state_sql() -> String {
    format!(
        "DELETE FROM @extschema@.state_snapshot WHERE {OF_STATE} AND version OPERATOR(pg_catalog.<=) \
         (SELECT version FROM @extschema@.state_snapshot WHERE {OF_STATE} \
         ORDER BY version USING OPERATOR(pg_catalog.>) OFFSET $3 LIMIT 1)"
    )
}

fn touch_sql() -> String {
    format!(
        "UPDATE @extschema@.state_head SET expires_at = $5 \
         WHERE {UNMOVED} RETURNING version"
    )
}

/// Writes a state that has no head row; its version (1, unless there were versions before or the caller
/// wants a higher one), or `None` when there is a head row by now.
///
/// # Errors
/// `40001` if another transaction has just written the state and deleted its head row by hand: the versions
/// that this statement saw were fewer.
pub fn insert(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    new: &NewVersion<'_>,
) -> Result<Option<i64>> {
    let statement = || {
        run(catalog, &catalog.statements.insert, insert_sql, || {
            [
                text(&class.name),
                text(key),
                hash(Some(new.hash)),
                size(new.document),
                expiry(new.expires_at),
                document(new.document),
                bigint(Some(new.number)),
            ]
        })
    };
    let state = Shown::new(&class.name, key);
    PgTryBuilder::new(AssertUnwindSafe(statement))
        .catch_when(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, move |error| {
            let is_ours = matches!(&error, CaughtError::PostgresError(report)
                if report.message().contains("state_snapshot_pkey"));
            if !is_ours {
                error.rethrow();
            }
            let state = state.clone();
            Error::Raced { state }.raise()
        })
        .execute()
}

/// Writes a version after the one to be replaced; `None` when that is not current any more.
pub fn update(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    new: &NewVersion<'_>,
) -> Result<Option<i64>> {
    let how = pruning(class);
    let made = run(
        catalog,
        &catalog.statements.update[how],
        || update_sql(how),
        || {
            [
                text(&class.name),
                text(key),
                bigint(Some(replaced.version)),
                hash(replaced.hash),
                hash(Some(new.hash)),
                size(new.document),
                expiry(new.expires_at),
                bigint(new.parent),
                document(new.document),
                bigint(class.keep.map(|keep| new.number - keep)),
                bigint(Some(new.number)),
            ]
        },
    )?;
    prune_gaps(catalog, class, key, made, false)
}

/// Writes a version over the snapshot of the one to be replaced, which must be there; as [`update`]
/// otherwise.
pub fn replace(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    new: &NewVersion<'_>,
) -> Result<Option<i64>> {
    run(catalog, &catalog.statements.replace, replace_sql, || {
        [
            text(&class.name),
            text(key),
            bigint(Some(replaced.version)),
            hash(replaced.hash),
            hash(Some(new.hash)),
            size(new.document),
            expiry(new.expires_at),
            document(new.document),
            bigint(Some(new.number)),
        ]
    })
}

/// Puts a tombstone in place of the version to be replaced; its version `number`, or `None` as for [`update`].
pub fn delete(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    number: i64,
) -> Result<Option<i64>> {
    let how = pruning(class);
    let made = run(
        catalog,
        &catalog.statements.delete[how],
        || delete_sql(how),
        || {
            [
                text(&class.name),
                text(key),
                bigint(Some(replaced.version)),
                hash(replaced.hash),
                bigint(class.keep.map(|keep| number - keep)),
                bigint(Some(number)),
            ]
        },
    )?;
    prune_gaps(catalog, class, key, made, true)
}

/// Writes a tombstone for a state that has no head row; its version `number`, or `None` when there is a head
/// row by now.
pub fn insert_tombstone(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    number: i64,
) -> Result<Option<i64>> {
    run(
        catalog,
        &catalog.statements.insert_tombstone,
        insert_tombstone_sql,
        || [text(&class.name), text(key), bigint(Some(number))],
    )
}

/// Deletes all but the newest `keep` snapshots of a state.
fn prune_state(catalog: &Catalog, class: &Class, key: &[u8], keep: i64) -> Result<()> {
    run(
        catalog,
        &catalog.statements.prune_state,
        prune_state_sql,
        || [text(&class.name), text(key), bigint(Some(keep))],
    )?;
    Ok(())
}

/// The version that a state without a head row would begin with.
pub fn first_version(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<i64> {
    let version = run(
        catalog,
        &catalog.statements.first_version,
        || FIRST_VERSION.to_owned(),
        || [text(class), text(key)],
    )?;
    Ok(version.unwrap_or(1))
}

/// Gives the current version another expiry; the version, or `None` as for [`update`].
pub fn touch(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    expires_at: i64,
) -> Result<Option<i64>> {
    run(catalog, &catalog.statements.touch, touch_sql, || {
        [
            text(&class.name),
            text(key),
            bigint(Some(replaced.version)),
            hash(replaced.hash),
            expiry(expires_at),
        ]
    })
}

fn expire_sql() -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = version OPERATOR(pg_catalog.+) 1, hash = NULL, size = 0, deleted = true, \
         expires_at = NULL, updated_at = pg_catalog.clock_timestamp() \
         WHERE {OF_STATE} AND expires_at OPERATOR(pg_catalog.<=) $3 AND NOT deleted RETURNING version), \
         pruned AS (DELETE FROM @extschema@.state_snapshot s USING head \
         WHERE s.class OPERATOR(pg_catalog.=) $1 AND s.key OPERATOR(pg_catalog.=) $2 \
         AND s.version OPERATOR(pg_catalog.=) (head.version OPERATOR(pg_catalog.-) $4)) \
         SELECT version FROM head"
    )
}

/// Makes the version after the current one a tombstone if the state has expired by `now`; its version.
pub fn expire(catalog: &Catalog, class: &Class, key: &[u8], now: i64) -> Result<Option<i64>> {
    run(catalog, &catalog.statements.expire, expire_sql, || {
        [
            text(&class.name),
            text(key),
            (pg_sys::TIMESTAMPTZOID, Some(bigint_datum(now))),
            bigint(class.keep),
        ]
    })
}

/// A parameter: its type and its value, `None` for NULL.
type Parameter = (pg_sys::Oid, Option<pg_sys::Datum>);

/// Runs a statement that returns the version it made. The parameters are built once SPI is connected, so
/// that they are freed with the connection.
fn run<const N: usize>(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: impl FnOnce() -> String,
    parameters: impl FnOnce() -> [Parameter; N],
) -> Result<Option<i64>> {
    let connection = Connection::open()?;
    let parameters = parameters();
    let types = parameters.map(|(of_type, _)| of_type);
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, parameters.map(|(_, value)| value))?;
    let version = rows.first().and_then(|row| row.column(1));
    Ok(version.map(|version| version.value() as i64))
}

fn text(text: &[u8]) -> Parameter {
    (pg_sys::TEXTOID, Some(varlena_datum(text)))
}

fn bigint(value: Option<i64>) -> Parameter {
    (pg_sys::INT8OID, value.map(bigint_datum))
}

fn hash(hash: Option<u128>) -> Parameter {
    let bytes = hash.map(u128::to_be_bytes);
    (pg_sys::BYTEAOID, bytes.map(|bytes| varlena_datum(&bytes)))
}

fn document(document: &[u8]) -> Parameter {
    (pg_sys::JSONBOID, Some(varlena_datum(document)))
}

/// The size of a document, which is at most 256 MiB.
fn size(document: &[u8]) -> Parameter {
    (
        pg_sys::INT4OID,
        Some(pg_sys::Datum::from(document.len() as i32)),
    )
}

/// An expiry, `i64::MAX` for never.
fn expiry(expires_at: i64) -> Parameter {
    let ends = (expires_at != i64::MAX).then(|| bigint_datum(expires_at));
    (pg_sys::TIMESTAMPTZOID, ends)
}
