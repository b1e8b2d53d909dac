//! One partition under its lock: the hash buckets, the FIFO of its clean entries and the list of its
//! dirty ones.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use crate::arena::Arena;
use crate::cache::L1;
use crate::class::ClassId;
use crate::entry::{EntryHeader, HEADER, Key, text_chunks};
use crate::geometry::{CHUNK, NO_CHUNK};
use crate::locks::{Guard, Locks};

/// Entries linked through `newer` and `older`.
#[repr(C)]
pub(crate) struct List {
    /// Newest entry.
    pub head: AtomicU32,
    /// Oldest entry.
    pub tail: AtomicU32,
    pub entries: AtomicU32,
}

impl List {
    fn clear(&self) {
        self.head.store(NO_CHUNK, Relaxed);
        self.tail.store(NO_CHUNK, Relaxed);
        self.entries.store(0, Relaxed);
    }
}

/// A partition's lists. Changed under its exclusive lock; the numbers of entries are also read without.
///
/// An entry is in one of the two: eviction, which follows the FIFO, does not meet the dirty ones.
#[repr(C, align(64))]
pub(crate) struct Partition {
    /// The clean entries: the FIFO.
    pub clean: List,
    /// Entry that the next eviction looks at first; NO_CHUNK stands for the tail.
    pub hand: AtomicU32,
    /// The dirty entries.
    pub dirty: List,
    /// Chunks of the dirty entries and their text forms: this partition's part of the header's count,
    /// given back as a whole when the partition is abandoned.
    pub dirty_chunks: AtomicU64,
}

impl Partition {
    pub fn clear(&self) {
        self.clean.clear();
        self.hand.store(NO_CHUNK, Relaxed);
        self.dirty.clear();
        self.dirty_chunks.store(0, Relaxed);
    }

    /// The list that `entry` belongs to.
    fn list_of(&self, entry: &EntryHeader) -> &List {
        if entry.is_dirty() {
            &self.dirty
        } else {
            &self.clean
        }
    }

    pub fn entries(&self) -> u32 {
        let dirty = self.dirty.entries.load(Relaxed);
        self.clean.entries.load(Relaxed).saturating_add(dirty)
    }
}

/// The links that lead to an entry in its list: the upper neighbour's and the lower one's, or the
/// list's own.
struct Around<'a> {
    from_above: &'a AtomicU32,
    from_below: &'a AtomicU32,
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

    /// Was the entry loaded before its domain last changed? A dirty entry was not loaded: it is newer
    /// than whatever changed the tables.
    pub fn is_stale(&self, entry: &EntryHeader) -> bool {
        !entry.is_dirty()
            && entry.domain_generation.load(Relaxed) != self.l1.domain(entry.db).generation()
    }

    fn bucket(&self, id: [u64; 2]) -> &AtomicU32 {
        let buckets = self.l1.arena.buckets();
        let each = buckets.len() / self.l1.arena.partitions().len();
        &buckets[self.n * each + ((id[0] >> 32) as usize & (each - 1))]
    }

    /// Most steps that a walk along a bucket can take: one per entry and one to see the end.
    fn steps(&self) -> u32 {
        self.lists().entries().min(self.l1.arena.chunks()) + 1
    }

    /// Most steps that a walk along a list can take: one per entry and one to see the end.
    pub fn steps_of(&self, list: &List) -> u32 {
        list.entries.load(Relaxed).min(self.l1.arena.chunks()) + 1
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

    /// Empties the partition without trusting its lists; its dirty entries are lost. Its chunks stay out
    /// of use, and the gauges of its classes keep counting them, but for the number of dirty entries,
    /// whose fall to zero is waited for: that is corrected as far as the list of them can be followed.
    pub fn abandon(&self) {
        let lists = self.lists();
        let mut at = lists.dirty.head.load(Relaxed);
        for _ in 1..self.steps_of(&lists.dirty) {
            let Some(entry) = self.entry(at).filter(|e| e.is_dirty()) else {
                break;
            };
            lower(&self.l1.class(ClassId(entry.class)).dirty, 1);
            at = entry.older.load(Relaxed);
        }
        let lost = lists.dirty.entries.load(Relaxed);
        let told_of = &self.l1.arena.header().lost_dirty;
        told_of.fetch_add(u64::from(lost), Relaxed);
        self.l1.unclaim_dirty(lists.dirty_chunks.load(Relaxed));
        let buckets = self.l1.arena.buckets();
        let each = buckets.len() / self.l1.arena.partitions().len();
        for bucket in &buckets[self.n * each..(self.n + 1) * each] {
            bucket.store(NO_CHUNK, Relaxed);
        }
        lists.clear();
    }

    /// The entry of `key`; a broken partition is emptied first, so then there is none.
    pub fn find_or_abandon(&self, key: &Key<'_>) -> Option<u32> {
        self.find(key).unwrap_or_else(|Broken| {
            self.abandon();
            None
        })
    }

    /// Puts the entry at `chunk` into its bucket and into its list just below `newer`, or at the head
    /// where that is NO_CHUNK. The caller has counted it in its class, and its chunks as dirty ones if it
    /// is dirty.
    pub fn insert(&self, chunk: u32, newer: u32) {
        if self.try_insert(chunk, newer).is_err() {
            self.abandon();
            // Into empty lists, so it cannot fail again; and if it did, the entry were only lost.
            let _ = self.try_insert(chunk, NO_CHUNK);
        }
    }

    fn try_insert(&self, chunk: u32, newer: u32) -> Result<(), Broken> {
        let entry = self.entry(chunk).ok_or(Broken)?;
        self.enlist(chunk, entry, newer)?;
        let bucket = self.bucket(entry.id);
        entry.bucket_next.store(bucket.load(Relaxed), Relaxed);
        bucket.store(chunk, Relaxed);
        Ok(())
    }

    /// Puts the entry into the list it belongs to, just below `newer` or at the head.
    fn enlist(&self, chunk: u32, entry: &EntryHeader, newer: u32) -> Result<(), Broken> {
        let lists = self.lists();
        let list = lists.list_of(entry);
        let above = self.neighbour(newer)?;
        let older = above.map_or(&list.head, |e| &e.older).load(Relaxed);
        let below = self.neighbour(older)?;
        entry.newer.store(newer, Relaxed);
        entry.older.store(older, Relaxed);
        above.map_or(&list.head, |e| &e.older).store(chunk, Relaxed);
        below.map_or(&list.tail, |e| &e.newer).store(chunk, Relaxed);
        list.entries.fetch_add(1, Relaxed);
        if entry.is_dirty() {
            lists
                .dirty_chunks
                .fetch_add(entry.occupied_chunks(), Relaxed);
            let class = self.l1.class(ClassId(entry.class));
            class.dirty.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// The entry that a list's link leads to; `None` at the end.
    fn neighbour(&self, chunk: u32) -> Result<Option<&EntryHeader>, Broken> {
        match chunk {
            NO_CHUNK => Ok(None),
            n => self.entry(n).ok_or(Broken).map(Some),
        }
    }

    /// Finds the links that lead to the entry in its list. Changes nothing.
    fn around(&self, chunk: u32, entry: &EntryHeader) -> Result<Around<'_>, Broken> {
        let list = self.lists().list_of(entry);
        let above = self.neighbour(entry.newer.load(Relaxed))?;
        let below = self.neighbour(entry.older.load(Relaxed))?;
        let around = Around {
            from_above: above.map_or(&list.head, |e| &e.older),
            from_below: below.map_or(&list.tail, |e| &e.newer),
        };
        let links = [around.from_above, around.from_below];
        if links.iter().any(|link| link.load(Relaxed) != chunk) {
            return Err(Broken);
        }
        Ok(around)
    }

    /// Takes the entry out of its list; the hand moves on if it stood there. What counts dirty entries
    /// and their chunks counts this one no more.
    fn delist(&self, chunk: u32, entry: &EntryHeader, around: &Around<'_>) {
        let lists = self.lists();
        let newer = entry.newer.load(Relaxed);
        around.from_above.store(entry.older.load(Relaxed), Relaxed);
        around.from_below.store(newer, Relaxed);
        if lists.hand.load(Relaxed) == chunk {
            lists.hand.store(newer, Relaxed);
        }
        // Not below zero: damage can bring an entry here that was counted in the other list.
        let entries = &lists.list_of(entry).entries;
        entries.store(entries.load(Relaxed).saturating_sub(1), Relaxed);
        if entry.is_dirty() {
            lower(&lists.dirty_chunks, entry.occupied_chunks());
            self.l1.unclaim_dirty(entry.occupied_chunks());
            lower(&self.l1.class(ClassId(entry.class)).dirty, 1);
        }
    }

    /// Takes the entry at `chunk` out of its bucket and its list. `None` when the lists are broken: the
    /// partition is then empty, the chunks lost.
    pub fn detach(&self, chunk: u32) -> Option<Garbage> {
        let garbage = self.try_detach(chunk);
        if garbage.is_err() {
            self.abandon();
        }
        garbage.ok()
    }

    /// Takes the entry at `chunk` out and gives its chunks back.
    pub fn drop_entry(&self, chunk: u32) {
        if let Some(garbage) = self.detach(chunk) {
            garbage.release(&self.l1.arena);
        }
    }

    fn try_detach(&self, chunk: u32) -> Result<Garbage, Broken> {
        let entry = self.entry(chunk).ok_or(Broken)?;
        let around = self.around(chunk, entry)?;
        self.link_to(chunk, entry)?
            .store(entry.bucket_next.load(Relaxed), Relaxed);
        self.delist(chunk, entry, &around);
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

    /// Moves a dirty entry to the head of the FIFO, clean. False when the lists are broken: the
    /// partition is then empty, the entry lost.
    pub fn clean(&self, chunk: u32, entry: &EntryHeader) -> bool {
        let Ok(around) = self.around(chunk, entry) else {
            self.abandon();
            return false;
        };
        self.delist(chunk, entry, &around);
        entry.flags.store(0, Relaxed);
        if self.enlist(chunk, entry, NO_CHUNK).is_err() {
            self.abandon();
            return false;
        }
        true
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

/// Lowers a count, not below zero: after damage it may have less than is taken from it.
pub(crate) fn lower(count: &AtomicU64, by: u64) {
    // The closure always returns a value, so this cannot fail.
    let _ = count.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(by)));
}
