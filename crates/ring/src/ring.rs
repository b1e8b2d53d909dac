//! The ring itself.

use crate::record::{MAX_RECORD, whole_records};
use state_cache_l1::{Guard, Locks};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Bytes in front of the records: the head, in a cache line of its own.
const HEADER: usize = 128;

/// What the reader has not read yet is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lapped;

/// The ring, as one process sees it.
pub struct Ring<K: Locks> {
    base: NonNull<u8>,
    capacity: usize,
    locks: K,
    /// The lock that guards the ring.
    lock: usize,
}

// SAFETY: the memory is shared by design; the head is atomic and the bytes are used under the lock only.
unsafe impl<K: Locks + Sync> Sync for Ring<K> {}
// SAFETY: as above.
unsafe impl<K: Locks + Send> Send for Ring<K> {}

impl<K: Locks> Ring<K> {
    /// Memory that a ring of `capacity` bytes of records takes, in bytes.
    pub const fn bytes(capacity: usize) -> usize {
        HEADER + capacity
    }

    /// Uses a ring, here or in another process. Zeroed memory is an empty ring at position 0.
    ///
    /// # Safety
    ///
    /// `base` points to `Self::bytes(capacity)` bytes, zeroed once before the first use, aligned to 8, that
    /// stay mapped as long as the ring, and are used only through rings of the same capacity and lock.
    pub unsafe fn attach(base: NonNull<u8>, capacity: usize, locks: K, lock: usize) -> Self {
        Self {
            base,
            capacity,
            locks,
            lock,
        }
    }

    /// Bytes of records that it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn head_word(&self) -> &AtomicU64 {
        // SAFETY: the header lies in front of the records, aligned by the promise to `attach`.
        unsafe { self.base.cast().as_ref() }
    }

    /// The position behind the last record.
    pub fn head(&self) -> u64 {
        self.head_word().load(SeqCst)
    }

    /// Appends records, overwriting the oldest ones. `appended` is told where they stand while the lock is
    /// still held. Allocates nothing and cannot fail, so it may run in a commit callback.
    pub fn append<T>(&self, records: &[u8], appended: impl FnOnce(Range<u64>) -> T) -> T {
        let _guard = Guard::exclusive(&self.locks, self.lock);
        let start = self.head();
        let end = start + records.len() as u64;
        // Of more than the ring holds only the end would be left; every reader is lapped then.
        let skipped = records.len().saturating_sub(self.capacity);
        self.copy_in(start + skipped as u64, &records[skipped..]);
        self.head_word().store(end, SeqCst);
        appended(start..end)
    }

    /// Reads whole records from position `from` on, about `max_bytes` of them and at least one if there is
    /// any, into `into`, replacing what that held. The position behind them.
    ///
    /// # Errors
    ///
    /// [`Lapped`] if the records at `from` have been overwritten, or are none.
    pub fn read(&self, from: u64, max_bytes: usize, into: &mut Vec<u8>) -> Result<u64, Lapped> {
        let most = max_bytes.max(MAX_RECORD).min(self.capacity);
        into.clear();
        // Before the lock is taken.
        into.reserve(most);
        {
            let _guard = Guard::shared(&self.locks, self.lock);
            let there = self.head().checked_sub(from).ok_or(Lapped)?;
            if there > self.capacity as u64 {
                return Err(Lapped);
            }
            self.copy_out(from, most.min(there as usize), into);
        }
        let whole = whole_records(into);
        if whole == 0 && !into.is_empty() {
            return Err(Lapped);
        }
        into.truncate(whole);
        Ok(from + whole as u64)
    }

    /// The two stretches of memory that `len` bytes at a position lie in: (offset, length).
    fn stretches(&self, position: u64, len: usize) -> [(usize, usize); 2] {
        let at = (position % self.capacity as u64) as usize;
        let first = len.min(self.capacity - at);
        [(at, first), (0, len - first)]
    }

    /// The lock is held alone.
    fn copy_in(&self, position: u64, bytes: &[u8]) {
        let mut from = bytes;
        for (at, len) in self.stretches(position, bytes.len()) {
            let (stretch, rest) = from.split_at(len);
            // SAFETY: `at + len` is at most the capacity, and nobody else uses the bytes.
            unsafe {
                let to = self.base.as_ptr().add(HEADER + at);
                std::ptr::copy_nonoverlapping(stretch.as_ptr(), to, len);
            }
            from = rest;
        }
    }

    /// The lock is held; `into` has room.
    fn copy_out(&self, position: u64, len: usize, into: &mut Vec<u8>) {
        for (at, len) in self.stretches(position, len) {
            // SAFETY: `at + len` is at most the capacity, and nobody writes the bytes.
            into.extend_from_slice(unsafe {
                std::slice::from_raw_parts(self.base.as_ptr().add(HEADER + at), len)
            });
        }
    }
}
