//! The locks of our tranche.

use crate::sys;
use pgrx::pg_sys;
use state_cache_l1::{Guard, Locks};

/// Lock `n` is the `n`th of our tranche.
#[derive(Clone, Copy)]
pub struct LwLocks {
    first: *mut pg_sys::LWLockPadded,
}

// SAFETY: LWLocks are made to be shared between processes.
unsafe impl Sync for LwLocks {}
// SAFETY: as above.
unsafe impl Send for LwLocks {}

impl LwLocks {
    /// The locks of a tranche whose first is this one.
    pub(super) fn new(first: *mut pg_sys::LWLockPadded) -> Self {
        Self { first }
    }

    fn lock(&self, n: usize) -> *mut pg_sys::LWLock {
        // SAFETY: L1 asks for `n < Geometry::locks()`, the rest of the server's state for at most as many
        // more as were requested.
        unsafe { &raw mut (*self.first.add(n)).lock }
    }
}

impl Locks for LwLocks {
    fn lock_shared(&self, n: usize) {
        // SAFETY: never acquired twice by one process: only one lock is held at a time.
        unsafe { sys::lwlock_acquire(self.lock(n), pg_sys::LWLockMode::LW_SHARED) };
    }

    fn lock_exclusive(&self, n: usize) {
        // SAFETY: as above.
        unsafe { sys::lwlock_acquire(self.lock(n), pg_sys::LWLockMode::LW_EXCLUSIVE) };
    }

    fn unlock(&self, n: usize) {
        // SAFETY: held by this process, by the contract of the trait.
        unsafe { sys::lwlock_release(self.lock(n)) };
    }
}

/// A lock of what stands beside L1: of the slots (of the databases, and of the commands that show their progress), or
/// of the last changes of derived documents.
#[derive(Clone, Copy)]
pub struct OtherLock {
    locks: LwLocks,
    n: usize,
}

impl OtherLock {
    /// Lock `n` of the tranche.
    pub(super) fn new(locks: LwLocks, n: usize) -> Self {
        Self { locks, n }
    }

    /// Holds it together with other readers; see [`Guard`].
    pub fn shared(&self) -> Guard<'_, LwLocks> {
        Guard::shared(&self.locks, self.n)
    }

    /// Holds it alone; see [`Guard`].
    pub fn exclusive(&self) -> Guard<'_, LwLocks> {
        Guard::exclusive(&self.locks, self.n)
    }
}
