//! Reading the head row of a state, and the row that holds its document.

use super::columns::{head, snapshot};
use super::may_read;
use super::table::{FORWARD, Found, Range, Table};
use crate::call::{Scratch, varlena_datum};
use crate::catalog::{Catalog, Class};
use crate::store::storage::{Columns, Holder};
use pgrx::pg_sys;

/// A head row.
pub struct Head {
    pub version: i64,
    pub deleted: bool,
    /// `i64::MAX` for never.
    pub expires_at: i64,
    pub xid: pg_sys::TransactionId,
    pub hash: Option<u128>,
    /// The row that holds the document, if the state has one.
    pub held: Option<Held>,
}

/// The row that holds a document.
pub struct Held {
    pub holder: Holder,
    pub xid: pg_sys::TransactionId,
    /// What it says of the document's hash.
    pub hash: Option<u128>,
    pub columns: Columns,
    pub is_recovery_point: bool,
}

/// The head row of a state as the active snapshot sees it, `Some(None)` without one; `None` where a statement must
/// read it.
pub fn read(catalog: &Catalog, class: &Class, key: &[u8]) -> Option<Option<Head>> {
    if !may_read(catalog) {
        return None;
    }
    let memory = Scratch::new();
    memory.keeping(|| {
        let names = [varlena_datum(&class.name), varlena_datum(key)];
        let row = |table, keys, range| {
            let lock = pg_sys::AccessShareLock;
            // SAFETY: it is one of the tables, and closed below; the names live as long as the memory.
            let mut table = unsafe { Table::open(catalog, table, keys, lock)? };
            // Whoever held a lock until now may have changed it.
            let is_plain = may_read(catalog);
            if is_plain {
                // SAFETY: as above.
                unsafe { table.look_up(names, range) };
            }
            Some((table, is_plain))
        };
        let (mut heads, is_plain) = row(catalog.head, 2, None)?;
        let found = is_plain.then(|| heads.next(FORWARD).map(|row| of_head(&row)));
        heads.release();
        heads.close();
        let Some(Some(mut found)) = found else {
            return found;
        };
        if found.held.is_none() && !found.deleted {
            let Head { version, .. } = found;
            let range = Range {
                from: version,
                to: version,
            };
            let (mut snapshots, is_plain) = row(catalog.snapshot, 4, Some(range))?;
            let held = is_plain.then(|| snapshots.next(FORWARD).map(|row| of_snapshot(&row)));
            snapshots.release();
            snapshots.close();
            found.held = held?;
        }
        Some(Some(found))
    })
}

fn of_head(row: &Found<'_>) -> Head {
    let deleted = row.boolean(head::DELETED);
    let xid = row.xmin();
    let hash = hash(row, head::HASH);
    let holds = !deleted && row.value(head::STATE).is_some();
    Head {
        version: row.bigint(head::VERSION),
        deleted,
        expires_at: row.expiry(head::EXPIRES_AT),
        xid,
        hash,
        held: holds.then(|| Held {
            holder: Holder::Head,
            xid,
            hash,
            // SAFETY: a `jsonb` column.
            columns: Columns::new(unsafe { row.copy(head::STATE) }, || None),
            is_recovery_point: false,
        }),
    }
}

fn of_snapshot(row: &Found<'_>) -> Held {
    Held {
        holder: Holder::Snapshot,
        xid: row.xmin(),
        hash: hash(row, snapshot::HASH),
        // SAFETY: a `jsonb` and a `bytea` column.
        columns: unsafe { Columns::new(row.copy(snapshot::STATE), || row.copy(snapshot::DELTA)) },
        is_recovery_point: row.boolean(snapshot::RECOVERY_POINT),
    }
}

/// A hash column; `None` for NULL and for anything that is not 16 bytes.
fn hash(row: &Found<'_>, column: usize) -> Option<u128> {
    // SAFETY: a `bytea` column.
    let bytes = unsafe { row.bytes(column)? };
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}
