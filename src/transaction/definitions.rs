//! The mark of the definitions of the server, as this transaction raises it. The header of `derived` says what it is
//! for, and why it stays up until the locks are released.

use crate::cache::own_full_xid;
use crate::callback::shielded;
use crate::shared::{self, Tags};
use pgrx::pg_sys::{self, ResourceReleasePhase};
use std::cell::Cell;

thread_local! {
    /// This transaction has changed definitions.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// This process has raised the mark.
    static RAISED: Cell<bool> = const { Cell::new(false) };
}

/// Registers the callback.
pub fn init() {
    // SAFETY: a static callback, registered once per process (or once before the fork).
    unsafe { pg_sys::RegisterResourceReleaseCallback(Some(release), std::ptr::null_mut()) };
}

/// Notes that the running transaction changes definitions.
pub fn note() {
    CHANGED.set(true);
}

/// Whether the running transaction has changed definitions.
pub fn has_changed() -> bool {
    CHANGED.get()
}

/// Whether subscribers may have to be told of that: a session has looked at a derived class since the server started.
/// Other transactions with DDL have nothing to do with us.
pub fn may_have_to_be_told() -> bool {
    CHANGED.get() && shared::tags().is_none_or(Tags::are_used)
}

/// Raises the mark; it stays up until the transaction has ended. Allocates nothing, cannot fail.
pub fn raise() {
    if let (Some(tags), false) = (shared::tags(), RAISED.get()) {
        tags.definitions().mark.raise();
        RAISED.set(true);
    }
}

/// The transaction is about to commit: raises the mark if it has changed definitions.
pub fn before_commit() {
    if CHANGED.get() {
        raise();
        if let Some(tags) = shared::tags() {
            tags.definitions().note_change(own_full_xid());
        }
    }
}

/// The transaction has ended, or is prepared: COMMIT PREPARED raises the mark by itself.
pub fn forget() {
    CHANGED.set(false);
}

/// The server releases what a transaction has held. Invalidation messages are sent, locks are about to go.
unsafe extern "C-unwind" fn release(
    phase: ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _: *mut std::ffi::c_void,
) {
    let is_end = is_top_level && phase == ResourceReleasePhase::RESOURCE_RELEASE_LOCKS;
    if is_end && RAISED.get() {
        shielded(|| {
            if let Some(tags) = shared::tags() {
                // Of a transaction that failed at its end nobody knows how far it came.
                tags.definitions().mark.publish();
                tags.definitions().mark.lower();
            }
            RAISED.set(false);
        });
    }
}
