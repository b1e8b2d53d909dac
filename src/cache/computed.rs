//! Documents in L1 that are computed: under which snapshot, and who may be answered by them.

use super::visibility::{Moment, same_visibility};
use crate::error::Result;
use crate::snapshot::PushedSnapshot;
use crate::sys;
use state_cache_l1::EntryInfo;

/// Whether the active snapshot was not taken before the one that an entry was computed under.
///
/// # Safety
/// The active snapshot goes by transactions (`visibility::has_moment`), and was not taken in recovery.
pub unsafe fn is_seen_by_caller(info: &EntryInfo) -> bool {
    let filled = Moment {
        ended: info.head_xid,
        running: info.doc_xid,
    };
    // SAFETY: the active snapshot is valid, goes by transactions, and was not taken in recovery.
    unsafe { Moment::of(sys::active_snapshot()) }.is_not_before(&filled)
}

/// Computes something under a snapshot taken now, whose moment an entry will name; with whether the caller's own
/// snapshot sees the same.
///
/// # Safety
/// As for [`is_seen_by_caller`].
pub unsafe fn under_fresh_snapshot<T>(
    compute: impl FnOnce(Moment, bool) -> Result<T>,
) -> Result<(T, bool)> {
    let caller = sys::active_snapshot();
    let _fresh = (!crate::fault::leaves_out!(FreshSnapshot)).then(PushedSnapshot::latest);
    let fresh = sys::active_snapshot();
    // SAFETY: the snapshot is on the stack of active ones, and was not taken in recovery, as the caller's was not.
    let moment = unsafe { Moment::of_filler(fresh)? };
    // SAFETY: both snapshots are on the stack of active ones, and the caller's goes by transactions.
    let is_callers = unsafe { same_visibility(caller, fresh) };
    Ok((compute(moment, is_callers)?, is_callers))
}
