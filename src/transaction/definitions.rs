//! The marks of definitions, as this transaction raises them: that of its database, or those of all. The header of
//! `derived` says what they are for, and why they stay up until the locks are released.

use crate::cache::visibility::{next_full_xid, own_full_xid};
use crate::callback::shielded;
use crate::shared::{self, Tag, Tags};
use crate::sys;
use pgrx::pg_sys::{self, ResourceReleasePhase};
use std::cell::Cell;

/// Whose definitions change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Nobody's.
    Nothing,
    /// Those of this database.
    Database,
    /// Those of all databases: roles, say.
    Server,
}

thread_local! {
    /// What this transaction has changed.
    static CHANGED: Cell<Scope> = const { Cell::new(Scope::Nothing) };
    /// Whose marks this process has raised.
    static RAISED: Cell<Scope> = const { Cell::new(Scope::Nothing) };
}

/// Registers the callback.
pub fn init() {
    // SAFETY: a static callback, registered once per process (or once before the fork).
    unsafe { pg_sys::RegisterResourceReleaseCallback(Some(release), std::ptr::null_mut()) };
}

/// Notes that the running transaction changes definitions of its database.
pub fn note() {
    note_of(Scope::Database);
}

/// Notes that the running transaction changes definitions.
pub fn note_of(scope: Scope) {
    CHANGED.set(CHANGED.get().max(scope));
}

/// Whether the running transaction has changed definitions.
pub fn has_changed() -> bool {
    CHANGED.get() != Scope::Nothing
}

/// Whether subscribers may have to be told of that: a session has looked at a derived class since the server started.
/// Other transactions with DDL have nothing to do with us.
pub fn may_have_to_be_told() -> bool {
    has_changed() && shared::tags().is_none_or(Tags::are_used)
}

/// The marks of a scope.
fn marks(tags: &Tags, scope: Scope) -> &[Tag] {
    match scope {
        Scope::Nothing => &[],
        Scope::Database => std::slice::from_ref(tags.definitions(sys::my_database())),
        Scope::Server => tags.all_definitions(),
    }
}

/// Raises the marks; they stay up until the transaction has ended. Allocates nothing, cannot fail.
pub fn raise(scope: Scope) {
    let Some(tags) = shared::tags() else { return };
    let raised = RAISED.get();
    if scope > raised {
        let up = marks(tags, raised);
        for tag in marks(tags, scope) {
            // That of this database may be up already.
            if !up.iter().any(|known| std::ptr::eq(known, tag)) {
                tag.mark.raise();
            }
        }
        RAISED.set(scope);
    }
}

/// The transaction is about to commit: raises the marks of what it has changed.
pub fn before_commit() {
    if has_changed() {
        raise(CHANGED.get());
        if let Some(tags) = shared::tags() {
            // COMMIT PREPARED has no id of its own, and that of the transaction that it ends is not known here: with
            // the next one the change is told to all that may not have seen it.
            let xid = match own_full_xid() {
                0 => next_full_xid(),
                own => own,
            };
            for tag in marks(tags, CHANGED.get()) {
                tag.note_change(xid);
            }
            let database = match CHANGED.get() {
                Scope::Server => 0,
                Scope::Nothing | Scope::Database => sys::my_database(),
            };
            shared::note_recent(xid, database, &[], &[]);
        }
    }
}

/// The transaction has ended, or is prepared: COMMIT PREPARED raises the mark by itself.
pub fn forget() {
    CHANGED.set(Scope::Nothing);
}

/// The server releases what a transaction has held. Invalidation messages are sent, locks are about to go.
unsafe extern "C-unwind" fn release(
    phase: ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _: *mut std::ffi::c_void,
) {
    let is_end = is_top_level && phase == ResourceReleasePhase::RESOURCE_RELEASE_LOCKS;
    if is_end && RAISED.get() != Scope::Nothing {
        shielded(|| {
            if let Some(tags) = shared::tags() {
                for tag in marks(tags, RAISED.get()) {
                    // Of a transaction that failed at its end nobody knows how far it came.
                    tag.mark.publish();
                    tag.mark.lower();
                }
            }
            RAISED.set(Scope::Nothing);
        });
    }
}
