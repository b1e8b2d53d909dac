//! The class registry: names, gauges and counters of the classes of each database.
//!
//! A record is two chunks: the record proper and 32 counters. They are never evicted, and never become
//! anything else again, so a class id that outlived its class still leads to counters.

use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use crate::arena::Arena;
use crate::cache::L1;
use crate::entry::MAX_CLASS;
use crate::geometry::NO_CHUNK;
use crate::locks::{Guard, Locks};
use state_cache_memory::{Grow, OutOfMemory};

/// Counters per class. The cache uses the first two, the rest are the caller's.
pub const COUNTERS: usize = 32;

/// Index of the counter of entries evicted for room, with their domain changed, or on request.
pub const COUNTER_EVICTIONS: usize = 0;

/// Index of the counter of entries evicted because they had expired.
pub const COUNTER_EXPIRATIONS: usize = 1;

/// At most this share of the chunks goes to class records: one in eight.
const SHARE: u32 = 8;

/// Tells a record from other chunks, where an index read from shared memory is damaged.
const MAGIC: u32 = 0xC1A5_5000;

/// Names a class record; valid for as long as the memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassId(pub(crate) u32);

impl ClassId {
    /// The record that classes share when there is no room for more records.
    pub const OTHER: ClassId = ClassId(0);
}

/// A class record's first chunk. Names and links change under the exclusive registry lock.
#[repr(C)]
pub(crate) struct ClassRecord {
    magic: AtomicU32,
    counters: AtomicU32,
    next: AtomicU32,
    db: AtomicU32,
    /// Entries linked.
    pub entries: AtomicU64,
    /// Bytes of chunks these entries and their text forms occupy.
    pub bytes: AtomicU64,
    /// Blocks reserved under a limit and not yet linked or discarded.
    pub reserved: AtomicU64,
    /// Dirty ones among the entries linked.
    pub dirty: AtomicU64,
    name_len: AtomicU8,
    name: [AtomicU8; MAX_CLASS],
}

impl ClassRecord {
    fn is(&self, db: u32, name: &[u8]) -> bool {
        self.db.load(Relaxed) == db
            && usize::from(self.name_len.load(Relaxed)) == name.len()
            && self
                .name
                .iter()
                .zip(name)
                .all(|(a, b)| a.load(Relaxed) == *b)
    }

    /// The name: so many of these bytes.
    fn name(&self) -> ([u8; MAX_CLASS], usize) {
        let len = usize::from(self.name_len.load(Relaxed)).min(MAX_CLASS);
        let mut name = [0; MAX_CLASS];
        for (to, from) in name.iter_mut().zip(&self.name[..len]) {
            *to = from.load(Relaxed);
        }
        (name, len)
    }

    fn set_name(&self, db: u32, name: &[u8]) {
        self.db.store(db, Relaxed);
        self.name_len
            .store(name.len().min(MAX_CLASS) as u8, Relaxed);
        for (to, from) in self.name.iter().zip(name) {
            to.store(*from, Relaxed);
        }
    }
}

impl Arena {
    /// The record at `chunk`, if it is one.
    fn class_record(&self, chunk: u32) -> Option<&ClassRecord> {
        let start = self.chunk(chunk)?;
        // SAFETY: chunks are aligned and large enough for a record, which is made of atomics. A
        // damaged index may lead to other bytes, which the magic number then tells apart.
        let record = unsafe { start.cast::<ClassRecord>().as_ref() };
        (record.magic.load(Relaxed) == MAGIC).then_some(record)
    }

    fn class_counters(&self, chunk: u32) -> Option<&[AtomicU64; COUNTERS]> {
        let start = self.chunk(chunk)?;
        // SAFETY: a chunk is as large as 32 counters and aligned for them; only a record's own
        // counters chunk is reached, and it never becomes anything else.
        Some(unsafe { start.cast::<[AtomicU64; COUNTERS]>().as_ref() })
    }

    /// Makes a record of two chunks that the caller owns.
    fn make_class(&self, record: u32, counters: u32) {
        if let (Some(r), Some(c)) = (self.chunk(record), self.chunk(counters)) {
            // SAFETY: both chunks exist, are the caller's alone, and zero is valid for all atomics.
            unsafe {
                r.cast::<ClassRecord>().write_bytes(0, 1);
                c.cast::<[AtomicU64; COUNTERS]>().write_bytes(0, 1);
            }
            // SAFETY: as in `class_record`; the chunk has just been zeroed.
            let new = unsafe { r.cast::<ClassRecord>().as_ref() };
            new.counters.store(counters, Relaxed);
            new.next.store(NO_CHUNK, Relaxed);
            new.magic.store(MAGIC, Relaxed);
        }
    }

    /// Makes the shared record in the first two chunks of a memory just formatted.
    pub fn make_other_class(&self) {
        if let Some(chain) = self.pop(2) {
            self.make_class(chain.head, chain.tail);
            self.header().class_chunks.store(chain.chunks, Relaxed);
        }
    }

    fn class_bucket(&self, db: u32, name: &[u8]) -> &AtomicU32 {
        let buckets = self.class_buckets();
        let hash = db
            .to_ne_bytes()
            .iter()
            .chain(name)
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
                (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        &buckets[(hash ^ (hash >> 32)) as usize & (buckets.len() - 1)]
    }

    fn class_records(&self) -> u32 {
        self.header().class_chunks.load(Relaxed).min(self.chunks()) / 2
    }

    /// The records of one chain, with their ids. Walks no further than there are records.
    fn class_chain(&self, first: u32) -> impl Iterator<Item = (ClassId, &ClassRecord)> {
        let most = self.class_records() as usize;
        let at = |chunk| self.class_record(chunk).map(|r| (ClassId(chunk), r));
        std::iter::successors(at(first), move |(_, r)| at(r.next.load(Relaxed))).take(most)
    }

    /// Chunks of all class records, in use or awaiting reuse, for the survey of a cache at rest.
    pub fn all_class_chunks(&self) -> Vec<u32> {
        let first = |link: &AtomicU32| link.load(Relaxed);
        self.class_buckets()
            .iter()
            .map(first)
            .chain([first(&self.header().class_free), ClassId::OTHER.0])
            .flat_map(|first| self.class_chain(first))
            .flat_map(|(id, r)| [id.0, r.counters.load(Relaxed)])
            .collect()
    }
}

impl<K: Locks> L1<K> {
    pub(crate) fn class(&self, class: ClassId) -> &ClassRecord {
        let record = self.arena.class_record(class.0);
        record
            .or_else(|| self.arena.class_record(ClassId::OTHER.0))
            .unwrap_or(&NOBODY)
    }

    fn registry(&self) -> usize {
        self.arena.partitions().len()
    }

    fn find_class(&self, db: u32, name: &[u8]) -> Option<ClassId> {
        let first = self.arena.class_bucket(db, name).load(Relaxed);
        self.arena
            .class_chain(first)
            .find(|(_, r)| r.is(db, name))
            .map(|(id, _)| id)
    }

    /// The record of a class, made on first use. Names over [`MAX_CLASS`] bytes, and all new ones once
    /// records fill an eighth of the chunks, get [`ClassId::OTHER`].
    pub fn class_record(&self, db: u32, name: &[u8]) -> ClassId {
        if name.len() > MAX_CLASS {
            return ClassId::OTHER;
        }
        let known = {
            let _registry = Guard::shared(&self.locks, self.registry());
            self.find_class(db, name)
        };
        if let Some(id) = known {
            return id;
        }
        // Chunks first: evicting takes partition locks, which must not be taken under this one.
        let fresh = if self.may_add_class() {
            self.take(2, i64::MIN).ok()
        } else {
            None
        };
        let header = self.arena.header();
        let mut unused = fresh;
        let id = {
            let _registry = Guard::exclusive(&self.locks, self.registry());
            if let Some(id) = self.find_class(db, name) {
                id
            } else {
                let reused = header.class_free.load(Relaxed);
                let record = if let Some(old) = self.arena.class_record(reused) {
                    header.class_free.store(old.next.load(Relaxed), Relaxed);
                    Some(reused)
                } else if self.may_add_class() {
                    unused.take().map(|chain| {
                        self.arena.make_class(chain.head, chain.tail);
                        header.class_chunks.fetch_add(chain.chunks, Relaxed);
                        chain.head
                    })
                } else {
                    None
                };
                record.map_or(ClassId::OTHER, |chunk| {
                    self.name_class(chunk, db, name);
                    ClassId(chunk)
                })
            }
        };
        if let Some(chain) = unused {
            self.arena.push(chain);
        }
        id
    }

    /// Names the record at `chunk` and links it; the exclusive registry lock is held.
    fn name_class(&self, chunk: u32, db: u32, name: &[u8]) {
        if let Some(record) = self.arena.class_record(chunk) {
            record.set_name(db, name);
            let bucket = self.arena.class_bucket(db, name);
            record.next.store(bucket.load(Relaxed), Relaxed);
            bucket.store(chunk, Relaxed);
        }
    }

    fn may_add_class(&self) -> bool {
        self.arena.class_records() < self.arena.chunks() / SHARE / 2
    }

    /// The counters of a class.
    pub fn counters(&self, class: ClassId) -> &[AtomicU64; COUNTERS] {
        let chunk = self.class(class).counters.load(Relaxed);
        self.arena.class_counters(chunk).unwrap_or(&NO_COUNTERS)
    }

    /// Entries of a class, and bytes of chunks that they occupy.
    pub fn gauges(&self, class: ClassId) -> (u64, u64) {
        let record = self.class(class);
        (record.entries.load(Relaxed), record.bytes.load(Relaxed))
    }

    /// Calls `f` with the name and id of every class of a database, no lock held. The shared record
    /// is not among them.
    ///
    /// # Errors
    /// [`OutOfMemory`], before `f` is called.
    pub fn for_each_class(
        &self,
        db: u32,
        mut f: impl FnMut(&[u8], ClassId),
    ) -> Result<(), OutOfMemory> {
        let records = || {
            let buckets = self.arena.class_buckets().iter();
            let records = buckets.flat_map(|bucket| self.arena.class_chain(bucket.load(Relaxed)));
            records.filter(|(_, record)| record.db.load(Relaxed) == db)
        };
        let mut found = Vec::new();
        // Memory is asked for without the lock, and asked for again where classes came meanwhile.
        let mut wanted = 0;
        loop {
            found.try_room(wanted)?;
            let _registry = Guard::shared(&self.locks, self.registry());
            wanted = records().count();
            if wanted <= found.capacity() {
                found.extend(records().map(|(id, record)| (record.name(), id)));
                break;
            }
        }
        for ((name, len), id) in &found {
            f(&name[..*len], *id);
        }
        Ok(())
    }

    /// Sets aside the records of a database for reuse.
    pub(crate) fn free_classes(&self, db: u32) {
        let _registry = Guard::exclusive(&self.locks, self.registry());
        let header = self.arena.header();
        let most = self.arena.class_records();
        for bucket in self.arena.class_buckets() {
            let mut link = bucket;
            for _ in 0..most {
                let chunk = link.load(Relaxed);
                let Some(record) = self.arena.class_record(chunk) else {
                    break;
                };
                if record.db.load(Relaxed) != db {
                    link = &record.next;
                    continue;
                }
                link.store(record.next.load(Relaxed), Relaxed);
                record.next.store(header.class_free.load(Relaxed), Relaxed);
                header.class_free.store(chunk, Relaxed);
                for gauge in [
                    &record.entries,
                    &record.bytes,
                    &record.reserved,
                    &record.dirty,
                ] {
                    gauge.store(0, SeqCst);
                }
                for counter in self.counters(ClassId(chunk)) {
                    counter.store(0, Relaxed);
                }
            }
        }
    }
}

/// Stands in where even the shared record is damaged: what is counted there is lost, nothing else.
static NOBODY: ClassRecord = ClassRecord {
    magic: AtomicU32::new(MAGIC),
    counters: AtomicU32::new(NO_CHUNK),
    next: AtomicU32::new(NO_CHUNK),
    db: AtomicU32::new(0),
    entries: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
    reserved: AtomicU64::new(0),
    dirty: AtomicU64::new(0),
    name_len: AtomicU8::new(0),
    name: [const { AtomicU8::new(0) }; MAX_CLASS],
};

static NO_COUNTERS: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];
