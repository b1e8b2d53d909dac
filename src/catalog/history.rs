//! What is known of changes that no head row tells, as one snapshot sees it; and of the starts of the server.

use super::scan::{Wanted, scan_rows};
use crate::varlena;
use pgrx::pg_sys;

/// A row of `state_trace`.
pub struct Trace<'a> {
    /// Class and key of the state; `None` if anything may have changed.
    pub name: Option<(&'a [u8], &'a [u8])>,
    /// The transaction that changed it.
    pub xid: pg_sys::TransactionId,
}

/// Calls `each` for every trace.
///
/// # Safety
/// `relation` is `state_trace`; the snapshot is active or registered.
pub unsafe fn traces(
    relation: pg_sys::Oid,
    snapshot: pg_sys::Snapshot,
    mut each: impl FnMut(Trace<'_>),
) {
    // SAFETY: the caller's promise; the first two columns are text.
    unsafe {
        scan_rows(relation, &[], 2, snapshot, |row| {
            let text = |n: usize| {
                (!row.nulls[n]).then(|| varlena::detoasted_bytes(row.values[n].cast_mut_ptr()))
            };
            each(Trace {
                name: text(0).zip(text(1)),
                xid: row.xmin,
            });
        });
    }
}

/// The latest transaction of which something was dropped, 0 for none.
///
/// # Safety
/// `relation` is `state_horizon`; the snapshot is active or registered.
pub unsafe fn horizon(relation: pg_sys::Oid, snapshot: pg_sys::Snapshot) -> u64 {
    let mut horizon = 0;
    // SAFETY: the caller's promise; the primary key is a bigint, the second column an xid8.
    unsafe {
        let system = Wanted::Big(pg_sys::GetSystemIdentifier() as i64);
        scan_rows(relation, &[system], 2, snapshot, |row| {
            horizon = row.bigint(1) as u64;
        });
    }
    horizon
}

/// A row of `state_start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownStart {
    /// The name of the start.
    pub name: u64,
    /// The timeline on which the server began it.
    pub timeline: u32,
    /// One more than that of the start before.
    pub number: u64,
    /// Where in the WAL it began.
    pub position: u64,
}

/// The starts of this server, in no order.
pub fn starts(relation: pg_sys::Oid) -> Vec<KnownStart> {
    let mut starts = Vec::new();
    // SAFETY: reads what is known since the server's start.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    // SAFETY: the relation is `state_start`, whose first five columns are as they are read; none is NULL.
    unsafe {
        scan_rows(relation, &[], 5, std::ptr::null_mut(), |row| {
            if row.bigint(0) as u64 == system {
                starts.push(KnownStart {
                    name: row.bigint(1) as u64,
                    timeline: row.values[2].value() as u32,
                    number: row.bigint(3) as u64,
                    position: row.bigint(4) as u64,
                });
            }
        });
    }
    starts
}
