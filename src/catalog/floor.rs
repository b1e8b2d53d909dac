//! Floors: the versions of states whose head rows are gone, in as few rows as their keys fall into buckets.

use super::scan::{Wanted, scan_rows};
use pgrx::pg_sys;

/// Buckets of a class. Derived: at 100 bytes a row and its index entry, 400 kB for a class in which states
/// come and go forever; and a new state takes over the version of one of 4096 parts of what there was, so the
/// jump it makes is rarely to the highest of all.
const BUCKETS: u128 = 4096;

/// The bucket of a key.
pub fn bucket(key: &[u8]) -> i16 {
    (state_cache_document::hash(key) % BUCKETS) as i16
}

/// Columns of `state_floor`: class, bucket, version.
const COLUMNS: usize = 3;

/// The floor of a key's bucket, 0 for none.
pub fn read(relation: pg_sys::Oid, class: &[u8], key: &[u8]) -> i64 {
    let mut floor = 0;
    let wanted = [Wanted::Text(class), Wanted::Small(bucket(key))];
    // SAFETY: the relation is `state_floor`, whose primary key is (class, bucket).
    unsafe {
        scan_rows(relation, &wanted, COLUMNS, std::ptr::null_mut(), |row| {
            floor = floor.max(row.bigint(2));
        });
    }
    floor
}
