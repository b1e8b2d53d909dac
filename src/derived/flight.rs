//! One session computes a document that is not there; the others wait for it.
//!
//! What they wait for is a lock of the server, which goes with the session that holds it, however that ends. They
//! look for it again and again instead of queueing, so no deadlock comes of it, and each computes for itself after
//! [`PATIENCE`].

use crate::cache::StateRef;
use crate::latch::Backoff;
use crate::shared;
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// How long a session waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks: at first, and at last.
const LOOK: [Duration; 2] = [Duration::from_micros(500), Duration::from_millis(10)];
/// Fourth part of the tag, beside those of users' advisory locks and of `behind`.
const DOCUMENT: u16 = 5;

/// The lock of a document, held for as long as the value lives.
pub struct Flight(pg_sys::LOCKTAG);

impl Flight {
    /// Takes the lock of a document if nobody has it.
    pub fn begin(state: &StateRef<'_>) -> Option<Self> {
        let catalog = &state.catalog;
        let (database, class) = (catalog.database, &state.class.name);
        let id = shared::derived_key(database, catalog.incarnation, class, state.key)
            .id
            .0;
        let tag = pg_sys::LOCKTAG {
            locktag_field1: database,
            locktag_field2: id as u32,
            locktag_field3: (id >> 32) as u32,
            locktag_field4: DOCUMENT,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        let mode = pg_sys::ExclusiveLock as i32;
        // SAFETY: a lock of this transaction, which waits for nobody.
        let result = unsafe { pg_sys::LockAcquire(&tag, mode, false, true) };
        // Made only where the lock is ours: the end of the value releases it.
        (result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL).then(|| Self(tag))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // On an error the server releases it when it aborts the (sub)transaction.
        if !std::thread::panicking() {
            // SAFETY: taken by `begin`, once for each value.
            unsafe { pg_sys::LockRelease(&self.0, pg_sys::ExclusiveLock as i32, false) };
        }
    }
}

/// Waiting for somebody else's flight.
pub struct Wait {
    since: Instant,
    backoff: Backoff,
}

impl Wait {
    /// Begins to wait.
    pub fn begin() -> Self {
        Self {
            since: Instant::now(),
            backoff: Backoff::between(LOOK),
        }
    }

    /// Waits for a moment; false when patience is at an end. Can be interrupted.
    pub fn on(&mut self) -> bool {
        if self.since.elapsed() > PATIENCE {
            return false;
        }
        self.backoff.wait_at_most(PATIENCE);
        true
    }
}
