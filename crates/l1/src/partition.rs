//! One partition under its lock: the hash buckets and the FIFO of its entries.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use crate::arena::Arena;
use crate::cache::L1;
use crate::class::ClassId;
use crate::entry::{EntryHeader, HEADER, Key, text_chunks};
use crate::geometry::{CHUNK, NO_CHUNK};
use crate::locks::{Guard, Locks};

/// A partition's lists. Changed under its exclusive lock; `entries` is also read without.
#[repr(C, align(64))]
pub(crate) struct Partition {
    /// Newest entry of the FIFO.
    pub head: AtomicU32,
    /// Oldest entry of the FIFO.
    pub tail: AtomicU32,
    /// Entry that the next eviction looks at first; NO_CHUNK stands for the tail.
    pub hand: AtomicU32,
    pub entries: AtomicU32,
}

impl Partition {
    pub fn clear(&self) {
        self.head.store(NO_CHUNK, Relaxed);
        self.tail.store(NO_CHUNK, Relaxed);
        self.hand.store(NO_CHUNK, Relaxed);
        self.entries.store(0, Relaxed);
    }
}

/// A list or header of the partition contradicts itself.
#[derive(Debug)]
pub(crate) struct Broken;

/// Chains of an entry that is no longer in any list.
#[must_use = "the chunks are lost unless released"]
pub(crate) struct Garbage {
    pub head: u32,
    pub chunks: u32,
    /// Head and number of chunks of the text form.
    pub text: Option<(u32, u32)>,
}

impl Garbage {
    pub fn release(self, arena: &Arena) {
        arena.release(self.head, self.chunks);
        if let Some((head, chunks)) = self.text {
            arena.release(head, chunks);
        }
    }
}

/// A partition whose lock is held.
pub(crate) struct Shard<'a, K: Locks> {
    pub l1: &'a L1<K>,
    pub n: usize,
    _guard: Guard<'a, K>,
}

/// A partition whose lock is held alone.
pub(crate) struct ShardMut<'a, K: Locks>(Shard<'a, K>);

impl<'a, K: Locks> std::ops::Deref for ShardMut<'a, K> {
    type Target = Shard<'a, K>;
    fn deref(&self) -> &Shard<'a, K> {
        &self.0
    }
}

impl<'a, K: Locks> Shard<'a, K> {
    pub fn lock(l1: &'a L1<K>, n: usize) -> Self {
        Shard {
            l1,
            n,
            _guard: Guard::shared(&l1.locks, n),
        }
    }

    pub fn lists(&self) -> &'a Partition {
        &self.l1.arena.partitions()[self.n]
    }

    /// The entry at `chunk`, if that can be one of this partition.
    pub fn entry(&self, chunk: u32) -> Option<&EntryHeader> {
        // SAFETY: the index comes from this partition's lists, whose lock `self` holds.
        let entry = unsafe { self.l1.arena.entry(chunk) }?;
        (self.l1.partition_of(entry.id) == self.n).then_some(entry)
    }

    /// Was the entry loaded before its domain last changed?
    pub fn is_stale(&self, entry: &EntryHeader) -> bool {
        entry.domain_generation.load(Relaxed) != self.l1.domain(entry.db).generation()
    }

    fn bucket(&self, id: [u64; 2]) -> &AtomicU32 {
        let buckets = self.l1.arena.buckets();
        let each = buckets.len() / self.l1.arena.partitions().len();
        &buckets[self.n * each + ((id[0] >> 32) as usize & (each - 1))]
    }

    /// Most steps that a walk in this partition can take: one per entry and one to see the end.
    pub fn steps(&self) -> u32 {
        self.lists()
            .entries
            .load(Relaxed)
            .min(self.l1.arena.chunks())
            + 1
    }

    fn names_match(&self, chunk: u32, entry: &EntryHeader, key: &Key<'_>) -> bool {
        entry.may_be(key) && {
            // SAFETY: the entry is linked in this partition, whose lock `self` holds.
            unsafe {
                let arena = &self.l1.arena;
                arena.holds(chunk, HEADER, key.class)
                    && arena.holds(chunk, HEADER + key.class.len(), key.key)
            }
        }
    }

    /// The first chunk of the entry of `key`, stale or not.
    pub fn find(&self, key: &Key<'_>) -> Result<Option<u32>, Broken> {
        let mut chunk = self.bucket(key.id.words()).load(Relaxed);
        for _ in 0..self.steps() {
            if chunk == NO_CHUNK {
                return Ok(None);
            }
            let entry = self.entry(chunk).ok_or(Broken)?;
            if self.names_match(chunk, entry, key) {
                return Ok(Some(chunk));
            }
            chunk = entry.bucket_next.load(Relaxed);
        }
        if chunk == NO_CHUNK {
            Ok(None)
        } else {
            Err(Broken)
        }
    }
}

impl<'a, K: Locks> ShardMut<'a, K> {
    pub fn lock(l1: &'a L1<K>, n: usize) -> Self {
        ShardMut(Shard {
            l1,
            n,
            _guard: Guard::exclusive(&l1.locks, n),
        })
    }

    /// Empties the partition without trusting its lists. Its chunks stay out of use, and the gauges of
    /// its classes keep counting them.
    pub fn abandon(&self) {
        let buckets = self.l1.arena.buckets();
        let each = buckets.len() / self.l1.arena.partitions().len();
        for bucket in &buckets[self.n * each..(self.n + 1) * each] {
            bucket.store(NO_CHUNK, Relaxed);
        }
        self.lists().clear();
    }

    /// The entry of `key`; a broken partition is emptied first, so then there is none.
    pub fn find_or_abandon(&self, key: &Key<'_>) -> Option<u32> {
        self.find(key).unwrap_or_else(|Broken| {
            self.abandon();
            None
        })
    }

    /// Puts the entry at `chunk` into its bucket and into the FIFO just below `newer`, or at the head
    /// where that is NO_CHUNK. The caller has counted it in its class.
    pub fn insert(&self, chunk: u32, newer: u32) {
        if self.try_insert(chunk, newer).is_err() {
            self.abandon();
            // Into empty lists, so it cannot fail again; and if it did, the entry were only lost.
            let _ = self.try_insert(chunk, NO_CHUNK);
        }
    }

    fn try_insert(&self, chunk: u32, newer: u32) -> Result<(), Broken> {
        let entry = self.entry(chunk).ok_or(Broken)?;
        let lists = self.lists();
        let above = match newer {
            NO_CHUNK => None,
            n => Some(self.entry(n).ok_or(Broken)?),
        };
        let older = above.map_or(&lists.head, |e| &e.older).load(Relaxed);
        let below = match older {
            NO_CHUNK => None,
            o => Some(self.entry(o).ok_or(Broken)?),
        };
        entry.newer.store(newer, Relaxed);
        entry.older.store(older, Relaxed);
        above
            .map_or(&lists.head, |e| &e.older)
            .store(chunk, Relaxed);
        below
            .map_or(&lists.tail, |e| &e.newer)
            .store(chunk, Relaxed);
        let bucket = self.bucket(entry.id);
        entry.bucket_next.store(bucket.load(Relaxed), Relaxed);
        bucket.store(chunk, Relaxed);
        lists.entries.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Takes the entry at `chunk` out of the bucket and the FIFO; the hand moves on if it stood there.
    /// `None` when the lists are broken: the partition is then empty, the chunks lost.
    pub fn detach(&self, chunk: u32) -> Option<Garbage> {
        let garbage = self.try_detach(chunk);
        if garbage.is_err() {
            self.abandon();
        }
        garbage.ok()
    }

    fn try_detach(&self, chunk: u32) -> Result<Garbage, Broken> {
        let entry = self.entry(chunk).ok_or(Broken)?;
        let lists = self.lists();
        let (newer, older) = (entry.newer.load(Relaxed), entry.older.load(Relaxed));
        let above = match newer {
            NO_CHUNK => None,
            n => Some(self.entry(n).ok_or(Broken)?),
        };
        let below = match older {
            NO_CHUNK => None,
            o => Some(self.entry(o).ok_or(Broken)?),
        };
        let to_above = above.map_or(&lists.head, |e| &e.older);
        let to_below = below.map_or(&lists.tail, |e| &e.newer);
        if to_above.load(Relaxed) != chunk || to_below.load(Relaxed) != chunk {
            return Err(Broken);
        }
        self.link_to(chunk, entry)?
            .store(entry.bucket_next.load(Relaxed), Relaxed);
        to_above.store(older, Relaxed);
        to_below.store(newer, Relaxed);
        if lists.hand.load(Relaxed) == chunk {
            lists.hand.store(newer, Relaxed);
        }
        lists.entries.fetch_sub(1, Relaxed);
        let class = self.l1.class(ClassId(entry.class));
        class
            .bytes
            .fetch_sub(entry.occupied_chunks() * CHUNK as u64, Relaxed);
        class.entries.fetch_sub(1, SeqCst);
        Ok(Garbage {
            head: chunk,
            chunks: entry.chunks,
            text: entry.text().map(|(head, len)| (head, text_chunks(len))),
        })
    }

    /// The link of the bucket's chain that leads to `chunk`.
    fn link_to(&self, chunk: u32, entry: &EntryHeader) -> Result<&AtomicU32, Broken> {
        let mut link = self.bucket(entry.id);
        for _ in 0..self.steps() {
            let at = link.load(Relaxed);
            if at == chunk {
                return Ok(link);
            }
            link = &self.entry(at).ok_or(Broken)?.bucket_next;
        }
        Err(Broken)
    }
}
