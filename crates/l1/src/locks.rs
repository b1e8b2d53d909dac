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
    /// Takes lock `n` together with other readers. To be called by [`Guard`] only.
    fn lock_shared(&self, n: usize);
    /// Takes lock `n` alone. To be called by [`Guard`] only.
    fn lock_exclusive(&self, n: usize);
    /// Releases lock `n`, however it was taken. To be called by [`Guard`] only.
    fn unlock(&self, n: usize);
}

/// Holds one of the locks until dropped, also where a panic unwinds: the only way to take one.
///
/// # Contract
///
/// Whoever holds a guard takes no second lock, waits for nothing, and neither allocates nor raises an error of the
/// server: interrupts are held off meanwhile, and an error that jumps over the frame would leave the lock held.
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard<'a, K: Locks> {
    locks: &'a K,
    n: usize,
}

impl<'a, K: Locks> Guard<'a, K> {
    /// Takes lock `n` together with other readers.
    pub fn shared(locks: &'a K, n: usize) -> Self {
        locks.lock_shared(n);
        Guard { locks, n }
    }

    /// Takes lock `n` alone.
    pub fn exclusive(locks: &'a K, n: usize) -> Self {
        locks.lock_exclusive(n);
        Guard { locks, n }
    }
}

impl<K: Locks> Drop for Guard<'_, K> {
    fn drop(&mut self) {
        self.locks.unlock(self.n);
    }
}
