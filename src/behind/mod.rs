//! Write-behind: a commit in a class of write mode `behind` defers its change, which L1 holds as a dirty entry, and
//! the worker of the database writes it back to L3 later.
//!
//! This room works on data that it is given: it knows no batch. What must be noted in the transaction that writes
//! back is noted there (`transaction::write_back`); the worker's task is given the function that writes one state
//! back.
//!
//! # Contract
//!
//! The newest version of a state of such a class is the dirty entry in L1 if there is one, else what L3
//! holds. Every reader gets the newest version, whatever its snapshot is: a version that L3 has never held
//! belongs to no snapshot, and one that was seen must not be taken back.
//!
//! **Locks**, all heavyweight, taken in this order and held until the transaction has published or failed:
//! 1. The *class lock* ([`lock`]): shared by whoever changes a state of the class, exclusive for whoever
//!    changes the class's write mode. The mode is read again under it.
//! 2. The *state lock*: exclusive, taken when a flush decides what becomes of a state, so that the version
//!    it builds upon is the newest until its own has taken its place. States in the order of class and key.
//!    For very many states the class lock, held alone, takes its place (see [`lock`]).
//! 3. Row locks of L3, by what writes there.
//!
//! **A flush** that may defer its change ([`may_defer`]) decides version and document under these locks and
//! writes nothing. At COMMIT, before the commit record, L1 memory for the version is reserved; a version that L1 does
//! not take is written to L3 then. After the commit record the entry is linked, dirty. A transaction that has done
//! nothing else has no transaction id and writes no WAL.
//!
//! **A change that is written through** in such a class (a delete, one that L1 has no room for, one that
//! user code on the tables must see, one while there is no worker) is decided upon in the same way and then
//! written at once, over what L3 holds; the dirty version it builds upon is never written, so a state that
//! L3 rejects can be mended or deleted. Only for a role to which L1 does not answer (row-level security) the
//! dirty version is written first, and the change is then like any other.
//!
//! **Writing a dirty version** ([`write`]) takes no state lock, so committers do not wait for it. It holds
//! L3's row lock and never writes below what is there:
//! - L3 holds a higher version, or held a row when the state became dirty and holds none now: a change by
//!   hand has overruled the dirty version, which is dropped.
//! - L3 holds this version and this document: somebody else has written it.
//! - L3 holds this version and another document: a change by hand, which is overwritten by the next version.
//!
//! A change by hand that is about to commit decides itself whether it overrules a dirty version
//! (`transaction::commit_by_hand`), under the state locks, so that nobody builds upon a version that is dropped.
//!
//! After the commit of a written version the entry becomes clean if it is still the one that was written; a newer one
//! stays dirty, counted from when the other was read. If the transaction fails the entry stays as it is.
//!
//! **A damaged dirty entry** (`cache::damage`) is no version any more, but its number counts: the next version is
//! above it. Whoever flushes it writes what L3 holds once more, as that version, so that who has seen the lost one is
//! told.
//!
//! **A crash** loses the dirty entries, with the rest of shared memory. L3 then holds a version that was the
//! newest at some moment, at most `flush_interval` and one flush before.

mod dirty;
mod dropped;
mod flusher;
mod lock;
mod write;

use crate::cache::StateRef;
use crate::catalog::{Catalog, Class};
use crate::interval::Ttl;
use crate::{shared, sys};
use state_cache_l1::{Dirty, EntryInfo, Lookup, Want};

pub use dirty::dirty_states;
pub use dropped::drop_orphaned;
pub use flusher::Flusher;
pub use lock::{forget as forget_locks, is_many, lock, lock_class, lock_for_many};
pub use write::{
    Found, Subject, Unwritten, Wrote, become_writer, delete, overrule, unwritten, write,
    write_above,
};

/// Whether a change made now may be deferred. If only the worker is missing, it is asked for.
pub fn may_defer(catalog: &Catalog) -> bool {
    shared::l1().is_some()
        && !sys::recovery_in_progress()
        // What is not in L3 is invisible to the checks of SERIALIZABLE, to policies and to triggers.
        && !sys::isolation_is_serializable()
        && catalog.access().l1
        && !catalog.runs_user_code()
        && has_worker()
}

/// Whether the worker accepts changes; it is asked for if there is none.
fn has_worker() -> bool {
    let Some(database) = shared::database() else {
        return false;
    };
    if database.is_accepting() {
        return true;
    }
    if !database.has_worker()
        && database.want_worker()
        && let Some(databases) = shared::databases()
    {
        databases.wake_launcher();
    }
    false
}

/// Whether the worker has put the state's dirty entry aside.
pub fn is_parked(state: &StateRef<'_>) -> bool {
    dirty(state).is_some_and(|dirty| dirty.parked)
}

/// Whether L1 holds a dirty entry of the state.
pub fn is_dirty(state: &StateRef<'_>) -> bool {
    dirty(state).is_some()
}

/// Version of the state's dirty entry, and that which L3 held when the entry was first made; `None` if it has none.
pub fn version_and_base(state: &StateRef<'_>) -> Option<(i64, i64)> {
    let (info, dirty) = dirty_entry(&state.catalog, &state.class, state.key)?;
    Some((info.version, dirty.base))
}

/// What becomes of the time to live that a state remembers, by its dirty entry.
pub fn ttl(state: &StateRef<'_>) -> Ttl {
    dirty(state).map_or(Ttl::Keep, |dirty| Ttl::unpacked(dirty.beside))
}

fn dirty(state: &StateRef<'_>) -> Option<Dirty> {
    dirty_entry(&state.catalog, &state.class, state.key).map(|(_, dirty)| dirty)
}

/// What is known of the dirty entry of a state, whether or not its document can be read.
pub fn dirty_entry(catalog: &Catalog, class: &Class, key: &[u8]) -> Option<(EntryInfo, Dirty)> {
    let key = catalog.l1_key(class, key);
    match shared::l1()?.read(&key, Want::Info, &mut []) {
        Lookup::Hit(info) => Some((info, info.dirty?)),
        _ => None,
    }
}
