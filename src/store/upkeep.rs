//! What the worker's upkeep reads and deletes. Rows that somebody else has locked are left for later.

use super::changes::write;
use super::own_write::OwnWrite;
use super::spi::{Connection, Statement};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::identity::Impersonation;
use crate::interval;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::collect;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    save_protections: OnceCell<Statement>,
    lost_protections: OnceCell<Statement>,
    lock_expired: OnceCell<Statement>,
    earliest_expiry: OnceCell<Statement>,
    tombstones: OnceCell<Statement>,
    lock_tombstone: OnceCell<Statement>,
    drop_snapshots: OnceCell<Statement>,
    drop_log: OnceCell<Statement>,
    drop_lease: OnceCell<Statement>,
    drop_tombstone: OnceCell<Statement>,
    lock_traces: OnceCell<Statement>,
    drop_trace: OnceCell<Statement>,
    limited_classes: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Fires deferrable triggers and constraints with each statement for the rest of the transaction: in the place
/// where the role is right, and not at the commit.
pub fn set_constraints_immediate() {
    let mut statement = pg_sys::ConstraintsSetStmt {
        type_: pg_sys::NodeTag::T_ConstraintsSetStmt,
        constraints: std::ptr::null_mut(),
        deferred: false,
    };
    // SAFETY: as SET CONSTRAINTS ALL IMMEDIATE; no list means all.
    unsafe { pg_sys::AfterTriggerSetState(&mut statement) };
}

/// A place in the order in which states expire.
#[derive(Debug, Clone)]
pub struct Expiring {
    /// When the state expires.
    pub expires_at: i64,
    /// Its class.
    pub class: Box<[u8]>,
    /// Its key.
    pub key: Box<[u8]>,
}

impl Expiring {
    /// Before all states.
    pub fn first() -> Self {
        Self {
            expires_at: i64::MIN,
            class: Box::default(),
            key: Box::default(),
        }
    }
}

/// Locks up to `limit` states behind `after` that have expired by `now`.
pub fn lock_expired(
    catalog: &Catalog,
    after: &Expiring,
    now: i64,
    limit: i64,
) -> Result<Vec<Expiring>> {
    const SQL: &str = "SELECT expires_at, class, key FROM @extschema@.state_head \
         WHERE expires_at OPERATOR(pg_catalog.<=) $4 AND NOT deleted \
         AND ROW(expires_at, class, key) OPERATOR(pg_catalog.>) ROW($1, $2, $3) \
         ORDER BY expires_at, class, key LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).lock_expired,
        &catalog.schema,
        || SQL.to_owned(),
        &[
            pg_sys::TIMESTAMPTZOID,
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::TIMESTAMPTZOID,
            pg_sys::INT8OID,
        ],
    )?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(
        statement,
        [
            Some(bigint_datum(after.expires_at)),
            Some(varlena_datum(&after.class)),
            Some(varlena_datum(&after.key)),
            Some(bigint_datum(now)),
            Some(bigint_datum(limit)),
        ],
    )?;
    let expiring = rows.iter().map(|row| Expiring {
        expires_at: row.bigint(1),
        class: row.text(2),
        key: row.text(3),
    });
    Ok(collect(expiring)?)
}

/// When the next state expires; `None` if none ever does.
pub fn earliest_expiry(catalog: &Catalog) -> Result<Option<i64>> {
    const SQL: &str = "SELECT expires_at FROM @extschema@.state_head \
         WHERE expires_at IS NOT NULL AND NOT deleted ORDER BY expires_at, class, key LIMIT 1";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).earliest_expiry,
        &catalog.schema,
        || SQL.to_owned(),
        &[],
    )?;
    let rows = connection.query(statement, [])?;
    Ok(rows.first().map(|row| row.bigint(1)))
}

/// A tombstone.
pub struct Tombstone {
    /// Class of the state.
    pub class: Box<[u8]>,
    /// Its key.
    pub key: Box<[u8]>,
    /// Version of the tombstone.
    pub version: i64,
    /// When it was written.
    pub updated_at: i64,
    /// By which transaction.
    pub xid: pg_sys::TransactionId,
}

/// Up to `limit` tombstones behind this class and key, in that order.
pub fn tombstones(
    catalog: &Catalog,
    after: &(Box<[u8]>, Box<[u8]>),
    limit: i64,
) -> Result<Vec<Tombstone>> {
    const SQL: &str = "SELECT class, key, version, updated_at, xmin FROM @extschema@.state_head \
         WHERE deleted AND ROW(class, key) OPERATOR(pg_catalog.>) ROW($1, $2) ORDER BY class, key LIMIT $3";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).tombstones,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(&after.0)),
            Some(varlena_datum(&after.1)),
            Some(bigint_datum(limit)),
        ],
    )?;
    let tombstones = rows.iter().map(|row| Tombstone {
        class: row.text(1),
        key: row.text(2),
        version: row.bigint(3),
        updated_at: row.bigint(4),
        xid: row.xid(5),
    });
    Ok(collect(tombstones)?)
}

/// Deletes a tombstone and all snapshots of its state; whether it was still there and nobody had it locked.
pub fn drop_tombstone(catalog: &Catalog, tombstone: &Tombstone) -> Result<bool> {
    const TYPES: [pg_sys::Oid; 3] = [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID];
    let statements = statements(catalog);
    let arguments = || {
        [
            Some(varlena_datum(&tombstone.class)),
            Some(varlena_datum(&tombstone.key)),
            Some(bigint_datum(tombstone.version)),
        ]
    };
    let locked = write(
        catalog,
        &statements.lock_tombstone,
        "SELECT version FROM @extschema@.state_head \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND version OPERATOR(pg_catalog.=) $3 AND deleted FOR UPDATE SKIP LOCKED",
        TYPES,
        arguments(),
    )?;
    if locked == 0 {
        return Ok(false);
    }
    write(
        catalog,
        &statements.drop_snapshots,
        "DELETE FROM @extschema@.state_snapshot WHERE class OPERATOR(pg_catalog.=) $1 \
         AND key OPERATOR(pg_catalog.=) $2 AND version OPERATOR(pg_catalog.<=) $3",
        TYPES,
        arguments(),
    )?;
    {
        // Who owns the states need not own the logs.
        let _owner = Impersonation::owner_of(catalog.log);
        write(
            catalog,
            &statements.drop_log,
            "DELETE FROM @extschema@.state_log_entry WHERE class OPERATOR(pg_catalog.=) $1 \
             AND key OPERATOR(pg_catalog.=) $2",
            [pg_sys::TEXTOID, pg_sys::TEXTOID],
            [
                Some(varlena_datum(&tombstone.class)),
                Some(varlena_datum(&tombstone.key)),
            ],
        )?;
    }
    {
        // Nor the claims.
        let _owner = Impersonation::owner_of(catalog.context);
        write(
            catalog,
            &statements.drop_lease,
            "DELETE FROM @extschema@.state_lease WHERE class OPERATOR(pg_catalog.=) $1 \
             AND key OPERATOR(pg_catalog.=) $2 \
             AND (owner IS NULL OR expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp())",
            [pg_sys::TEXTOID, pg_sys::TEXTOID],
            [
                Some(varlena_datum(&tombstone.class)),
                Some(varlena_datum(&tombstone.key)),
            ],
        )?;
    }
    let dropped = write(
        catalog,
        &statements.drop_tombstone,
        "DELETE FROM @extschema@.state_head WHERE class OPERATOR(pg_catalog.=) $1 \
         AND key OPERATOR(pg_catalog.=) $2 AND version OPERATOR(pg_catalog.=) $3 AND deleted RETURNING version",
        TYPES,
        arguments(),
    )?;
    Ok(dropped > 0)
}

/// Deletes up to `limit` traces made by `until`, if `may_go` says so of the transaction that made it; how many
/// there were, and how many of them went.
pub fn drop_traces(
    catalog: &Catalog,
    until: i64,
    limit: i64,
    mut may_go: impl FnMut(pg_sys::TransactionId) -> bool,
) -> Result<(usize, usize)> {
    let statements = statements(catalog);
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements.lock_traces,
        &catalog.schema,
        || {
            "SELECT ctid, xmin FROM @extschema@.state_trace \
             WHERE made_at OPERATOR(pg_catalog.<=) $1 LIMIT $2 FOR UPDATE SKIP LOCKED"
                .to_owned()
        },
        &[pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID],
    )?;
    let _own = OwnWrite::begin();
    let arguments = [Some(bigint_datum(until)), Some(bigint_datum(limit))];
    let rows = connection.modify(statement, arguments)?;
    let (mut found, mut dropped) = (0, 0);
    for row in rows.iter() {
        found += 1;
        if may_go(row.xid(2)) {
            dropped += 1;
            write(
                catalog,
                &statements.drop_trace,
                "DELETE FROM @extschema@.state_trace WHERE ctid OPERATOR(pg_catalog.=) $1",
                [pg_sys::TIDOID],
                [row.column(1)],
            )?;
        }
    }
    Ok((found, dropped))
}

/// Notes what users have put onto the tables, for the dumps to come; how much of that a restore has lost.
pub fn save_protections(catalog: &Catalog) -> Result<i64> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).save_protections,
        &catalog.schema,
        || "SELECT @extschema@.state_protections_note()".to_owned(),
        &[],
    )?;
    connection.modify(statement, [])?;
    let statement = connection.prepare(
        &statements(catalog).lost_protections,
        &catalog.schema,
        || {
            "SELECT pg_catalog.count(*) FROM @extschema@.state_protections() WHERE NOT present"
                .to_owned()
        },
        &[],
    )?;
    let rows = connection.modify(statement, [])?;
    Ok(rows.first().map_or(0, |row| row.bigint(1)))
}

/// A class that keeps a limited number of snapshots, or for a limited time.
#[derive(Debug, Clone)]
pub struct LimitedClass {
    /// Its name.
    pub name: Box<[u8]>,
    /// How many it keeps.
    pub keep: Option<i64>,
    /// For how long, in microseconds.
    pub keep_for: Option<i64>,
}

/// The classes that do not keep everything.
pub fn limited_classes(catalog: &Catalog) -> Result<Vec<LimitedClass>> {
    const SQL: &str = "SELECT class, keep::pg_catalog.int8, keep_for FROM \
         (SELECT DISTINCT ON (class) class, keep, keep_for FROM @extschema@.state_class ORDER BY class, changed \
         DESC) c \
         WHERE keep IS NOT NULL OR keep_for IS NOT NULL ORDER BY class";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).limited_classes,
        &catalog.schema,
        || SQL.to_owned(),
        &[],
    )?;
    let rows = connection.query(statement, [])?;
    let classes = rows.iter().map(|row| LimitedClass {
        name: row.text(1),
        keep: row.column(2).map(|_| row.bigint(2)),
        keep_for: row.column(3).map(|datum| {
            // SAFETY: an interval column, which is passed by pointer, read while the rows live.
            interval::microseconds(unsafe { &*datum.cast_mut_ptr::<pg_sys::Interval>() })
        }),
    });
    Ok(collect(classes)?)
}
