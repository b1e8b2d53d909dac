//! Head rows, for what the extension does on its own account: telling subscribers, and making sure that a
//! duplicate is one of the newest version.

use super::scan::{Wanted, scan_rows};
use crate::varlena;
use pgrx::pg_sys;

/// What matters of a row of `state_head`.
pub struct HeadRow {
    /// The current version.
    pub version: i64,
    /// Whether that is a tombstone.
    pub deleted: bool,
    /// Hash of the document.
    pub hash: Option<u128>,
    /// The transaction that wrote the row.
    pub xid: pg_sys::TransactionId,
}

/// The first columns of `state_head`: class, key, version, hash, size, deleted.
const COLUMNS: usize = 6;

/// The head row of a state as it is now, if there is one.
pub fn read(relation: pg_sys::Oid, class: &[u8], key: &[u8]) -> Option<HeadRow> {
    let mut found = None;
    let wanted = [Wanted::Text(class), Wanted::Text(key)];
    // SAFETY: the relation is `state_head`, whose primary key is (class, key); a hash is a bytea.
    unsafe {
        scan_rows(relation, &wanted, COLUMNS, std::ptr::null_mut(), |row| {
            let hash =
                (!row.nulls[3]).then(|| varlena::detoasted_bytes(row.values[3].cast_mut_ptr()));
            found = Some(HeadRow {
                version: row.bigint(2),
                deleted: !row.nulls[5] && row.values[5].value() & 0xff != 0,
                hash: hash.and_then(|hash| Some(u128::from_be_bytes(hash.try_into().ok()?))),
                xid: row.xmin,
            });
        });
    }
    found
}
