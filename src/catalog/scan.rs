//! Reading rows of the extension's tables as the server reads its own catalogs: no SQL, no privileges, no
//! policies; the newest committed rows, or this transaction's own. For what the extension must know to do
//! its work, never for what it tells a caller.

use crate::call::varlena_datum;
use crate::error::Error;
use pgrx::pg_sys;

/// What a column of the primary key must be.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// A `text` column.
    Text(&'a [u8]),
    /// A `smallint` column.
    Small(i16),
    /// A `bigint` column.
    Big(i64),
}

/// A row that was found.
pub struct Row<'a> {
    /// At least as many as were asked for; a user may have added columns behind ours.
    pub values: &'a [pg_sys::Datum],
    /// Which of them are NULL.
    pub nulls: &'a [bool],
    /// Who wrote it; of a frozen row too.
    pub xmin: pg_sys::TransactionId,
}

impl Row<'_> {
    /// A `bigint` column, 0 for NULL.
    pub fn bigint(&self, column: usize) -> i64 {
        if self.nulls[column] {
            0
        } else {
            self.values[column].value() as i64
        }
    }
}

/// Calls `row` with the values and nulls of each row whose first columns, which are text, are `keys`: the
/// newest committed ones, or this transaction's own. Both have at least `columns` elements.
///
/// # Safety
/// As for [`scan_rows`].
pub unsafe fn scan(
    relation: pg_sys::Oid,
    keys: &[&[u8]],
    columns: usize,
    mut row: impl FnMut(&[pg_sys::Datum], &[bool]),
) {
    let mut wanted = [Wanted::Text(&[]); 2];
    for (wanted, key) in wanted.iter_mut().zip(keys) {
        *wanted = Wanted::Text(key);
    }
    let wanted = &wanted[..keys.len()];
    // SAFETY: the caller's promise.
    unsafe {
        scan_rows(relation, wanted, columns, std::ptr::null_mut(), |found| {
            row(found.values, found.nulls)
        })
    }
}

/// Calls `row` for each row whose first columns are `keys`, as `snapshot` sees them; null means the newest
/// committed ones, or this transaction's own. Raises `40001` for a table that is gone.
///
/// # Safety
/// `relation` is a table whose primary key begins with columns of the types of the keys (at most two; none
/// needs no primary key); the snapshot is active or registered; what `row` gets is valid during its call only.
pub unsafe fn scan_rows(
    relation: pg_sys::Oid,
    keys: &[Wanted<'_>],
    columns: usize,
    snapshot: pg_sys::Snapshot,
    mut row: impl FnMut(Row<'_>),
) {
    let mut wanted = [pg_sys::ScanKeyData::default(); 2];
    // SAFETY: the relation is locked while it is read; the keys compare columns of their types, by the
    // caller's promise.
    unsafe {
        for ((key, column), scan_key) in keys.iter().zip(1..).zip(&mut wanted) {
            let (equals, value) = match *key {
                Wanted::Text(text) => (pg_sys::F_TEXTEQ, varlena_datum(text)),
                Wanted::Small(n) => (pg_sys::F_INT2EQ, pg_sys::Datum::from(n)),
                Wanted::Big(n) => (pg_sys::F_INT8EQ, pg_sys::Datum::from(n)),
            };
            pg_sys::ScanKeyInit(
                scan_key,
                column,
                pg_sys::BTEqualStrategyNumber as u16,
                equals.into(),
                value,
            );
        }
        let table = pg_sys::try_table_open(relation, pg_sys::AccessShareLock as i32);
        if table.is_null() {
            // Dropped while this transaction did not hold it, by another one.
            Error::Reinstalled.raise();
        }
        let index = primary_key(table);
        let scan = pg_sys::systable_beginscan(
            table,
            index,
            !keys.is_empty() && index != pg_sys::InvalidOid,
            snapshot,
            keys.len() as i32,
            wanted.as_mut_ptr(),
        );
        let columns = ((*(*table).rd_att).natts as usize).max(columns);
        let mut values = vec![pg_sys::Datum::from(0usize); columns];
        let mut nulls = vec![true; columns];
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(
                tuple,
                (*table).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            row(Row {
                values: &values,
                nulls: &nulls,
                xmin: (*(*tuple).t_data).t_choice.t_heap.t_xmin,
            });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as i32);
    }
}

/// The index behind the primary key; `InvalidOid` without one.
///
/// # Safety
/// `table` is open.
pub unsafe fn primary_key(table: pg_sys::Relation) -> pg_sys::Oid {
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    // SAFETY: the table is open, the caller says.
    unsafe {
        pg_sys::RelationGetPrimaryKeyIndex(table)
    }
    // A deferrable key may hold duplicates, so it is no key to scan by.
    #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
    // SAFETY: the table is open, the caller says.
    unsafe {
        pg_sys::RelationGetPrimaryKeyIndex(table, false)
    }
}
