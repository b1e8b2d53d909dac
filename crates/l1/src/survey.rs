//! What looks at all entries: removal by predicate, listing, removing a database, memory in use.

use std::sync::atomic::Ordering::Relaxed;

use crate::cache::{L1, Memory};
use crate::entry::{EntryHeader, EntryInfo, HEADER, MAX_CLASS, MAX_KEY};
use crate::geometry::{CHUNK, NO_CHUNK};
use crate::locks::Locks;
use crate::partition::{List, Shard, ShardMut};
use state_cache_memory::{Grow, OutOfMemory};

/// Class and key of an entry, copied out of its chain.
pub(crate) struct Names {
    bytes: [u8; MAX_CLASS + MAX_KEY],
    class_len: usize,
    len: usize,
}

impl Names {
    pub fn class(&self) -> &[u8] {
        &self.bytes[..self.class_len]
    }

    pub fn key(&self) -> &[u8] {
        &self.bytes[self.class_len..self.len]
    }
}

impl<K: Locks> Shard<'_, K> {
    pub fn names(&self, chunk: u32, entry: &EntryHeader) -> Option<Names> {
        let class_len = usize::from(entry.class_len);
        let len = class_len + usize::from(entry.key_len);
        let mut names = Names {
            bytes: [0; MAX_CLASS + MAX_KEY],
            class_len,
            len,
        };
        if !entry.is_sound() {
            return None;
        }
        // SAFETY: the entry is linked in this partition, whose lock `self` holds.
        unsafe {
            self.l1
                .arena
                .copy_out(chunk, HEADER, &mut names.bytes[..len])
        }
        .then_some(names)
    }

    /// Appends the readable entries of one incarnation in `list`, a list of this partition; `found` has room for
    /// all that the list holds.
    pub fn copy_list(
        &self,
        list: &List,
        db: u32,
        incarnation: u64,
        found: &mut Vec<(Names, EntryInfo)>,
    ) {
        let mut at = list.head.load(Relaxed);
        for _ in 0..self.steps_of(list) {
            let Some(entry) = self.entry(at) else { break };
            if entry.db == db
                && entry.incarnation == incarnation
                && !self.is_stale(entry)
                && let Some(names) = self.names(at, entry)
            {
                found.push((names, entry.info()));
            }
            at = entry.older.load(Relaxed);
        }
    }
}

impl<K: Locks> L1<K> {
    /// Walks one list of partition `n` under its exclusive lock and removes the entries that `gone`
    /// says. Clean ones count as evictions.
    pub(crate) fn remove_in(
        &self,
        n: usize,
        list: &List,
        mut gone: impl FnMut(&ShardMut<'_, K>, u32, &EntryHeader) -> bool,
    ) {
        let shard = ShardMut::lock(self, n);
        let mut at = list.tail.load(Relaxed);
        for _ in 0..shard.steps_of(list) {
            if at == NO_CHUNK {
                return;
            }
            let Some(entry) = shard.entry(at) else {
                shard.abandon();
                return;
            };
            let next = entry.newer.load(Relaxed);
            if gone(&shard, at, entry) {
                if entry.is_dirty() {
                    shard.drop_entry(at);
                } else {
                    shard.evict_on_request(at);
                }
            }
            at = next;
        }
    }

    /// Removes the entries of one incarnation for which `pred(class, key, info)` is true; returns how
    /// many. They count as evictions. Entries that can no longer be read, because their domain has
    /// changed or they fail their check, are removed unasked and not part of the result. Dirty entries
    /// stay, and `pred` is not asked about them.
    ///
    /// `pred` runs under the partition's exclusive lock: it must not block, call the cache, allocate
    /// from PostgreSQL or raise errors.
    pub fn remove_if(
        &self,
        db: u32,
        incarnation: u64,
        mut pred: impl FnMut(&[u8], &[u8], &EntryInfo) -> bool,
    ) -> u64 {
        let mut removed = 0;
        for (n, partition) in self.arena.partitions().iter().enumerate() {
            self.remove_in(n, &partition.clean, |shard, at, entry| {
                if entry.db != db || entry.incarnation != incarnation {
                    return false;
                }
                if shard.is_stale(entry) {
                    return true;
                }
                let Some(names) = shard.names(at, entry) else {
                    return true;
                };
                let hit = pred(names.class(), names.key(), &entry.info());
                removed += u64::from(hit);
                hit
            });
        }
        removed
    }

    /// Calls `f(class, key, info)` for every readable entry of one incarnation, dirty or clean. Each
    /// partition is copied under its shared lock; `f` runs without one.
    ///
    /// # Errors
    /// [`OutOfMemory`], before `f` is called for the entries of that partition.
    pub fn for_each(
        &self,
        db: u32,
        incarnation: u64,
        mut f: impl FnMut(&[u8], &[u8], &EntryInfo),
    ) -> Result<(), OutOfMemory> {
        let mut found = Vec::new();
        for (n, partition) in self.arena.partitions().iter().enumerate() {
            let lists = [&partition.dirty, &partition.clean];
            found.clear();
            self.with_room(n, &lists, &mut found, |shard, found| {
                for list in lists {
                    shard.copy_list(list, db, incarnation, found);
                }
            })?;
            for (names, info) in &found {
                f(names.class(), names.key(), info);
            }
        }
        Ok(())
    }

    /// Runs `copy` under the shared lock of partition `n`, with room in `found` for every entry of these lists of
    /// it: memory is asked for without the lock, and asked for again where the lists have grown meanwhile.
    pub(crate) fn with_room<T>(
        &self,
        n: usize,
        lists: &[&List],
        found: &mut Vec<T>,
        copy: impl FnOnce(&Shard<'_, K>, &mut Vec<T>),
    ) -> Result<(), OutOfMemory> {
        loop {
            // As many as a walk over the lists takes steps.
            let steps = || -> usize {
                let entries = lists.iter().map(|list| list.entries.load(Relaxed));
                let steps = entries.map(|entries| entries.min(self.arena.chunks()) as usize + 1);
                steps.sum()
            };
            found.try_room(steps())?;
            let shard = Shard::lock(self, n);
            if steps() <= found.capacity() - found.len() {
                copy(&shard, found);
                return Ok(());
            }
        }
    }

    /// Calls `f(database, incarnation, class, key)` for every readable entry: first those that were used since
    /// the hand last passed them, then the others, each newest first within its partition. No process may be
    /// changing the cache much, or entries are passed over or come twice.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn for_each_resident(
        &self,
        mut f: impl FnMut(u32, u64, &[u8], &[u8]),
    ) -> Result<(), OutOfMemory> {
        let mut found: Vec<(u32, u64, Names)> = Vec::new();
        for used in [true, false] {
            for (n, partition) in self.arena.partitions().iter().enumerate() {
                let lists = [&partition.dirty, &partition.clean];
                found.clear();
                self.with_room(n, &lists, &mut found, |shard, found| {
                    for list in lists {
                        let mut at = list.head.load(Relaxed);
                        for _ in 0..shard.steps_of(list) {
                            let Some(entry) = shard.entry(at) else { break };
                            if (entry.visited.load(Relaxed) != 0) == used
                                && !shard.is_stale(entry)
                                && let Some(names) = shard.names(at, entry)
                            {
                                found.push((entry.db, entry.incarnation, names));
                            }
                            at = entry.older.load(Relaxed);
                        }
                    }
                })?;
                for (db, incarnation, names) in &found {
                    f(*db, *incarnation, names.class(), names.key());
                }
            }
        }
        Ok(())
    }

    /// Removes the entries, dirty ones too, and the class records of a database that no longer exists.
    /// No process may be at work in that database.
    pub fn remove_database(&self, db: u32) {
        for (n, partition) in self.arena.partitions().iter().enumerate() {
            for list in [&partition.dirty, &partition.clean] {
                self.remove_in(n, list, |_, _, entry| entry.db == db);
            }
        }
        self.free_classes(db);
    }

    /// How the memory is used. Exact only while nothing changes.
    pub fn memory(&self) -> Memory {
        let chunk_bytes = u64::from(self.arena.chunks()) * CHUNK as u64;
        let free = self.arena.free_chunks() * CHUNK as u64;
        let entries = |p: &crate::partition::Partition| u64::from(p.entries());
        Memory {
            total: self.geometry().bytes() as u64,
            chunk_bytes,
            used: chunk_bytes - free,
            free,
            dirty: self.arena.header().dirty_chunks.load(Relaxed) * CHUNK as u64,
            entries: self.arena.partitions().iter().map(entries).sum(),
        }
    }
}
