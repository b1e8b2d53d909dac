//! Waiting for all that a cursor speaks of.

use super::Patience;
use super::error::CausalError;
use crate::cache::visibility::{is_of_recovery, next_full_xid, same_visibility};
use crate::call::{self, sql_functions};
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::{catalog, changes, sys};
use state_cache_formats::{Cursor, widen_at_most};

/// Waits until replay has brought all that the cursor speaks of. `given` is read anew for each look: the server may
/// follow a promotion meanwhile, or be promoted.
fn wait(catalog: &catalog::Catalog, given: &[u8], patience: &mut Patience) -> Result<Cursor> {
    loop {
        let in_recovery = sys::recovery_in_progress();
        let replayed = sys::flush_wal();
        let cursor = match changes::cursor(catalog, given) {
            // A standby may not have followed to the timeline of the cursor, nor know of the start it was taken
            // under.
            Err(Error::StaleCursor { .. }) if in_recovery && patience.on() => continue,
            Err(Error::StaleCursor { reason }) => {
                return Err(CausalError::ForeignCursor { reason }.into());
            }
            cursor => cursor?,
        };
        // A primary that takes the cursor for one of its own history has all of it.
        if !in_recovery || replayed >= cursor.position {
            return Ok(cursor);
        }
        if !patience.on() {
            return Err(CausalError::CursorLate {
                wanted: cursor.position,
                replayed,
                time: patience.time,
            }
            .into());
        }
    }
}

/// Whether the active snapshot, the transaction's only one, sees all that the cursor speaks of, which is there now.
fn shows(cursor: &Cursor) -> bool {
    let active = sys::active_snapshot();
    // SAFETY: an MVCC snapshot; so is the one that is pushed.
    unsafe {
        let xmin = widen_at_most((*active).xmin.into_inner(), next_full_xid());
        if !is_of_recovery(active) && cursor.has_seen_none_from(xmin) {
            return true;
        }
        let _fresh = PushedSnapshot::latest();
        same_visibility(active, sys::active_snapshot())
    }
}

sql_functions! {
    /// `state_wait_for(cursor, timeout)`
    fn state_wait_for(call) {
        let given = call.required_text(0, "cursor")?;
        let timeout = call.interval(1).ok_or_else(|| Error::null_argument("timeout"))?;
        let catalog = catalog::current(call.function())?;
        let cursor = wait(&catalog, given, &mut Patience::new(&timeout)?)?;
        if sys::isolation_uses_transaction_snapshot() && !shows(&cursor) {
            return Err(CausalError::SnapshotBeforeCursor.into());
        }
        Ok(call::void_datum())
    }
}
