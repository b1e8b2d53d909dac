//! The locks that the caller lends.

/// Readers-writer locks numbered from 0 to [`Geometry::locks`](crate::Geometry::locks) - 1.
///
/// The cache holds at most one at a time, never for longer than a copy or one walk of a partition, and
/// runs nothing of the caller's under it but what the method at hand says.
///
/// # Implementing
///
/// The cache's memory safety rests on these locks: while `lock_exclusive(n)` is held nobody else holds
/// `n`, across all processes that map the memory, and what was written under a lock is seen by the next
/// holder.
pub trait Locks {
    /// Takes lock `n` together with other readers.
    fn lock_shared(&self, n: usize);
    /// Takes lock `n` alone.
    fn lock_exclusive(&self, n: usize);
    /// Releases lock `n`, however it was taken.
    fn unlock(&self, n: usize);
}

/// Holds lock `n` until dropped.
pub(crate) struct Guard<'a, K: Locks> {
    locks: &'a K,
    n: usize,
}

impl<'a, K: Locks> Guard<'a, K> {
    pub(crate) fn shared(locks: &'a K, n: usize) -> Self {
        locks.lock_shared(n);
        Guard { locks, n }
    }

    pub(crate) fn exclusive(locks: &'a K, n: usize) -> Self {
        locks.lock_exclusive(n);
        Guard { locks, n }
    }
}

impl<K: Locks> Drop for Guard<'_, K> {
    fn drop(&mut self) {
        self.locks.unlock(self.n);
    }
}
