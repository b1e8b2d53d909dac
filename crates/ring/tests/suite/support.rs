//! What tests share: memory, a lock, records.

use state_cache_ring::{Change, Locks, Record, Ring, encode};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The database that most tests use.
pub const DB: u32 = 5;
/// The number that the ring's lock has; others must not be taken.
const LOCK: usize = 7;
const ALONE: u32 = u32::MAX;

/// One readers-writer lock: the number of readers, or `ALONE`.
#[derive(Default)]
pub struct SpinLock(AtomicU32);

impl SpinLock {
    fn change(&self, change: impl Fn(u32) -> Option<u32>) {
        while self
            .0
            .try_update(Ordering::Acquire, Ordering::Relaxed, &change)
            .is_err()
        {
            std::thread::yield_now();
        }
    }
}

impl Locks for SpinLock {
    fn lock_shared(&self, n: usize) {
        assert_eq!(n, LOCK);
        self.change(|now| (now != ALONE).then(|| now + 1));
    }

    fn lock_exclusive(&self, n: usize) {
        assert_eq!(n, LOCK);
        self.change(|now| (now == 0).then_some(ALONE));
    }

    fn unlock(&self, n: usize) {
        assert_eq!(n, LOCK);
        match self.0.load(Ordering::Relaxed) {
            0 => panic!("not held"),
            ALONE => self.0.store(0, Ordering::Release),
            _ => drop(self.0.fetch_sub(1, Ordering::Release)),
        }
    }
}

/// A ring over memory of its own.
pub struct Memory {
    ring: Ring<SpinLock>,
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: `base` is used by `poke`, which takes the ring alone, and when it is dropped.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(capacity: usize) -> Self {
        let layout =
            Layout::from_size_align(Ring::<SpinLock>::bytes(capacity), 128).expect("a layout");
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: fresh zeroed memory of the size and alignment asked for, freed after the ring.
        let ring = unsafe { Ring::attach(base, capacity, SpinLock::default(), LOCK) };
        Self { ring, base, layout }
    }

    /// Overwrites a byte of the records, as a stray write of somebody else would.
    pub fn poke(&mut self, at: usize, value: u8) {
        let at = at + self.layout.size() - self.ring.capacity();
        assert!(at < self.layout.size());
        // SAFETY: inside the memory, which nobody else uses during the call.
        unsafe { self.base.add(at).write(value) };
    }

    /// Appends one change; where it stands.
    pub fn put(&self, class: &str, key: &str, change: Change) -> Range<u64> {
        self.append(&bytes(&[record(class, key, change)]), |range| range)
    }
}

impl Deref for Memory {
    type Target = Ring<SpinLock>;

    fn deref(&self) -> &Self::Target {
        &self.ring
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ring does not touch its memory when dropped.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// A change in the tests' database.
pub fn record<'a>(class: &'a str, key: &'a str, change: Change) -> Record<'a> {
    Record {
        database: DB,
        class: class.as_bytes(),
        key: key.as_bytes(),
        change,
    }
}

/// Records as they lie in the ring.
pub fn bytes(records: &[Record<'_>]) -> Vec<u8> {
    encode(DB, records, usize::MAX).unwrap()
}
