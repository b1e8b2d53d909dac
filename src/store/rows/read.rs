//! Reading the head row of a state, and the row that holds its document.

use super::columns::{HEADS, SNAPSHOTS, head, snapshot};
use super::glance::{self, StoredHead};
use super::may_read;
use super::table::{FORWARD, Found, Range, Table};
use crate::call::{Scratch, varlena_datum};
use crate::catalog::{Catalog, Class};
use crate::store::storage::{Columns, Holder};
use pgrx::pg_sys;

/// The row that holds a document.
pub struct Held {
    pub holder: Holder,
    pub xid: pg_sys::TransactionId,
    /// What it says of the document's hash.
    pub hash: Option<u128>,
    pub columns: Columns,
    pub is_recovery_point: bool,
}

/// The head row of a state as the active snapshot sees it, and the row that holds the document; `Some(None)` without
/// a head row; `None` where a statement must read them.
pub fn read(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
) -> Option<Option<(StoredHead, Option<Held>)>> {
    let memory = Scratch::new();
    memory.keeping(|| {
        let names = [varlena_datum(&class.name), varlena_datum(key)];
        let of = |row: &Found<'_>| {
            let head = of_head(row);
            let held = held_by_head(row, &head);
            (head, held)
        };
        let Some((head, held)) = look_up(catalog, catalog.head, names, None, of)? else {
            return Some(None);
        };
        if held.is_some() || head.deleted {
            return Some(Some((head, held)));
        }
        let range = Range {
            from: head.version,
            to: head.version,
        };
        let held = look_up(catalog, catalog.snapshot, names, Some(range), of_snapshot)?;
        Some(Some((head, held)))
    })
}

/// The head row alone, likewise, of the state with this hash.
pub fn read_head(
    catalog: &Catalog,
    state: u64,
    class: &[u8],
    key: &[u8],
) -> Option<Option<StoredHead>> {
    if !may_read(catalog) {
        return None;
    }
    if let Some(found) = glance::at_head(catalog.head, state, class, key) {
        return Some(found);
    }
    let memory = Scratch::new();
    memory.keeping(|| {
        let names = [varlena_datum(class), varlena_datum(key)];
        look_up(catalog, catalog.head, names, None, of_head)
    })
}

/// The first row of a state in one of the tables, in the current memory, which outlives the call.
fn look_up<T>(
    catalog: &Catalog,
    table: pg_sys::Oid,
    names: [pg_sys::Datum; 2],
    range: Option<Range>,
    of: impl FnOnce(&Found<'_>) -> T,
) -> Option<Option<T>> {
    if !may_read(catalog) {
        return None;
    }
    let shape = match range {
        Some(_) => &SNAPSHOTS,
        None => &HEADS,
    };
    // SAFETY: it is one of the tables, and closed below.
    let mut table = unsafe { Table::open(catalog, table, shape, pg_sys::AccessShareLock)? };
    // Whoever held a lock until now may have changed it.
    let found = may_read(catalog).then(|| {
        // SAFETY: the names live as long as the current memory.
        unsafe { table.look_up(names, range) };
        table.next(FORWARD).map(|row| of(&row))
    });
    table.release();
    table.close();
    found
}

fn of_head(row: &Found<'_>) -> StoredHead {
    StoredHead {
        version: row.bigint(head::VERSION),
        deleted: row.boolean(head::DELETED),
        expires_at: row.expiry(head::EXPIRES_AT),
        xid: row.xmin(),
        hash: hash(row, head::HASH),
    }
}

/// The document, where the head row holds it.
fn held_by_head(row: &Found<'_>, found: &StoredHead) -> Option<Held> {
    let holds = !found.deleted && row.value(head::STATE).is_some();
    holds.then(|| Held {
        holder: Holder::Head,
        xid: found.xid,
        hash: found.hash,
        // SAFETY: a `jsonb` column.
        columns: Columns::new(unsafe { row.copy(head::STATE) }, || None),
        is_recovery_point: false,
    })
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
