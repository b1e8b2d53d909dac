//! Reading rows of the extension's tables as the server reads its own catalogs: no SQL, no privileges, no
//! policies; the newest committed rows, or this transaction's own. For what the extension must know to do
//! its work, never for what it tells a caller.

use crate::call::varlena_datum;
use pgrx::pg_sys;

/// Calls `row` with the values and nulls of each row whose first columns, which are text, are `keys`. Both
/// have at least `columns` elements; a user may have added columns behind ours.
///
/// # Safety
/// `relation` is a table whose primary key begins with as many text columns as there are keys (at most
/// two); the values are valid during the call of `row` only.
pub unsafe fn scan(
    relation: pg_sys::Oid,
    keys: &[&[u8]],
    columns: usize,
    mut row: impl FnMut(&[pg_sys::Datum], &[bool]),
) {
    let mut wanted = [pg_sys::ScanKeyData::default(); 2];
    // SAFETY: the relation is locked while it is read; the keys compare text columns, by the caller's
    // promise.
    unsafe {
        for ((key, column), scan_key) in keys.iter().zip(1..).zip(&mut wanted) {
            pg_sys::ScanKeyInit(
                scan_key,
                column,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::F_TEXTEQ.into(),
                varlena_datum(key),
            );
        }
        let table = pg_sys::table_open(relation, pg_sys::AccessShareLock as i32);
        let index = primary_key(table);
        let scan = pg_sys::systable_beginscan(
            table,
            index,
            !keys.is_empty() && index != pg_sys::InvalidOid,
            std::ptr::null_mut(),
            keys.len() as i32,
            wanted.as_mut_ptr(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let columns = ((*(*table).rd_att).natts as usize).max(columns);
            let mut values = vec![pg_sys::Datum::from(0usize); columns];
            let mut nulls = vec![true; columns];
            pg_sys::heap_deform_tuple(
                tuple,
                (*table).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            row(&values, &nulls);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as i32);
    }
}

/// The index behind the primary key; `InvalidOid` without one.
///
/// # Safety
/// `table` is open.
unsafe fn primary_key(table: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        pg_sys::RelationGetPrimaryKeyIndex(table)
    }
    // SAFETY: the caller's promise. A deferrable key may hold duplicates, so it is no key to scan by.
    #[cfg(feature = "pg18")]
    unsafe {
        pg_sys::RelationGetPrimaryKeyIndex(table, false)
    }
}
