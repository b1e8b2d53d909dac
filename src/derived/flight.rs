//! One session computes a document that is not there; the others wait for it.
//!
//! What they wait for is a lock of the server, which goes with the session that holds it, however that ends. They
//! look for it again and again instead of queueing, so no deadlock comes of it, and each computes for itself after
//! [`PATIENCE`].

use crate::cache::StateRef;
use crate::latch::Backoff;
use crate::shared;
use crate::user_lock::{self, Kind, Mode};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// How long a session waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks: at first, and at last.
const LOOK: [Duration; 2] = [Duration::from_micros(500), Duration::from_millis(10)];

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
        let tag = user_lock::tag(database, id, Kind::Document);
        // Made only where the lock is ours: the end of the value releases it.
        user_lock::acquire_if_free(&tag, Mode::Alone).then(|| Self(tag))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // On an error the server releases it when it aborts the (sub)transaction.
        if !std::thread::panicking() {
            user_lock::release(&self.0, Mode::Alone);
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
