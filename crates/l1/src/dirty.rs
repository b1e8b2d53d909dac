//! Dirty entries: states that the tables do not hold yet (write-behind).
//!
//! What never happens to them is in the section "Dirty entries" at the crate root; here is what does:
//! they are listed, put aside, settled once the tables hold them, and dropped with their tables.

use std::sync::atomic::Ordering::Relaxed;

use crate::cache::L1;
use crate::class::ClassId;
use crate::entry::{DIRTY, EntryHeader, EntryInfo, Key, PARKED};
use crate::geometry::CHUNK;
use crate::locks::Locks;
use crate::partition::{Shard, ShardMut, lower};
use crate::survey::Names;

/// At most this share of the chunks is dirty: one in two. Derived: what is dirty cannot be evicted, so
/// fills and clean writes live in the rest; with half of it left they evict one another twice as often
/// at worst, and the largest entry admitted, a quarter of the chunks, still finds room.
pub const DIRTY_SHARE: u32 = 2;

/// What makes an entry dirty: the tables do not hold it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// When the oldest change that the tables do not hold was made, in the caller's unit of time.
    pub since: i64,
    /// Version that the tables held when the first of these changes was made, 0 for none.
    pub base: i64,
    /// Role that made the newest change (PostgreSQL oid).
    pub owner: u32,
    /// The worker could not write it and has put it aside.
    pub parked: bool,
}

/// What [`L1::settle`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The entry that was written; it is clean now.
    Clean,
    /// Another dirty entry: the state has changed since it was read for writing.
    Newer,
    /// No dirty entry.
    Gone,
}

impl<K: Locks> ShardMut<'_, K> {
    /// The dirty entry of `key`.
    fn find_dirty(&self, key: &Key<'_>) -> Option<(u32, &EntryHeader)> {
        let at = self.find_or_abandon(key)?;
        let entry = self.entry(at).filter(|entry| entry.is_dirty())?;
        Some((at, entry))
    }

    /// Counts a text form of `chunks` chunks that is about to be attached to `entry`. False when dirty
    /// entries would get more than their share; nothing is counted then.
    pub fn count_text(&self, entry: &EntryHeader, chunks: u32) -> bool {
        if entry.is_dirty() {
            if !self.l1.claim_dirty(u64::from(chunks)) {
                return false;
            }
            self.lists()
                .dirty_chunks
                .fetch_add(u64::from(chunks), Relaxed);
        }
        self.l1
            .class(ClassId(entry.class))
            .bytes
            .fetch_add(u64::from(chunks) * CHUNK as u64, Relaxed);
        true
    }
}

impl<K: Locks> L1<K> {
    /// Counts chunks as dirty ones. False, and nothing counted, when that were more than their share.
    pub(crate) fn claim_dirty(&self, chunks: u64) -> bool {
        let most = u64::from(self.arena.chunks() / DIRTY_SHARE);
        let within = |n: u64| n.checked_add(chunks).filter(|sum| *sum <= most);
        self.arena
            .header()
            .dirty_chunks
            .fetch_update(Relaxed, Relaxed, within)
            .is_ok()
    }

    /// Takes a [`L1::claim_dirty`] back.
    pub(crate) fn unclaim_dirty(&self, chunks: u64) {
        lower(&self.arena.header().dirty_chunks, chunks);
    }

    /// Says that the tables hold the entry with this serial now, as `version`, written by transaction
    /// `xid` from what was read at `read_at`. For the commit callback of its writer: allocates nothing,
    /// cannot fail.
    ///
    /// If the entry is still there it becomes clean, of that version (the writer may have had to give a
    /// higher one) and transaction, in the domain's present generation. If another dirty one has taken
    /// its place, that is from now on based on `version`, and its oldest change that the tables do not
    /// hold was made after `read_at`. A clean entry is left as it is.
    pub fn settle(
        &self,
        key: &Key<'_>,
        serial: u64,
        version: i64,
        xid: u64,
        read_at: i64,
    ) -> Settled {
        let shard = self.shard_mut(key);
        let Some((at, entry)) = shard.find_dirty(key) else {
            return Settled::Gone;
        };
        if entry.serial != serial {
            entry.base.store(version, Relaxed);
            entry.since.fetch_max(read_at, Relaxed);
            return Settled::Newer;
        }
        entry.version.store(version, Relaxed);
        entry.head_xid.store(xid, Relaxed);
        entry.doc_xid.store(xid, Relaxed);
        let generation = self.domain(entry.db).generation();
        entry.domain_generation.store(generation, Relaxed);
        if shard.clean(at, entry) {
            Settled::Clean
        } else {
            Settled::Gone
        }
    }

    /// Notes whether the dirty entry with this serial is put aside; false when it is not there. A newer
    /// entry of the key is not put aside again. Allocates nothing.
    pub fn set_parked(&self, key: &Key<'_>, serial: u64, parked: bool) -> bool {
        let shard = self.shard_mut(key);
        let found = shard
            .find_dirty(key)
            .filter(|(_, entry)| entry.serial == serial);
        let Some((_, entry)) = found else {
            return false;
        };
        let flags = if parked { DIRTY | PARKED } else { DIRTY };
        entry.flags.store(flags, Relaxed);
        true
    }

    /// Removes the dirty entry with this serial: the tables have something newer. False when it is not
    /// there. Allocates nothing.
    pub fn drop_dirty_entry(&self, key: &Key<'_>, serial: u64) -> bool {
        let shard = self.shard_mut(key);
        let found = shard
            .find_dirty(key)
            .filter(|(_, entry)| entry.serial == serial)
            .map(|(at, _)| at);
        let garbage = found.and_then(|at| shard.detach(at));
        drop(shard);
        let Some(garbage) = garbage else {
            return false;
        };
        garbage.release(&self.arena);
        true
    }

    /// Removes the dirty entries of a database for which `gone(incarnation, class, key)` is true, and
    /// those that fail their check; returns how many. For TRUNCATE and for an installation that is
    /// dropped: they are lost, which is what was asked for. Not counted as evictions. Allocates nothing.
    ///
    /// `gone` runs under a partition's exclusive lock: it must not block, call the cache, allocate from
    /// PostgreSQL or raise errors.
    pub fn drop_dirty(&self, db: u32, mut gone: impl FnMut(u64, &[u8], &[u8]) -> bool) -> u64 {
        let mut dropped = 0;
        for (n, partition) in self.arena.partitions().iter().enumerate() {
            if partition.dirty.entries.load(Relaxed) == 0 {
                continue;
            }
            self.remove_in(n, &partition.dirty, |shard, at, entry| {
                let goes = entry.db == db
                    && shard
                        .names(at, entry)
                        .is_none_or(|names| gone(entry.incarnation, names.class(), names.key()));
                dropped += u64::from(goes);
                goes
            });
        }
        dropped
    }

    /// Calls `f(class, key, info)` for every dirty entry of one incarnation, those of each partition by
    /// [`Dirty::since`], the oldest first. Each partition is copied under its shared lock; `f` runs
    /// without one. A partition without dirty entries costs no lock: who must find an entry is told
    /// of it by its committer, through something that orders memory, after it was linked.
    pub fn for_each_dirty(
        &self,
        db: u32,
        incarnation: u64,
        mut f: impl FnMut(&[u8], &[u8], &EntryInfo),
    ) {
        for (n, partition) in self.arena.partitions().iter().enumerate() {
            if partition.dirty.entries.load(Relaxed) == 0 {
                continue;
            }
            let mut found: Vec<(Names, EntryInfo)> = Vec::new();
            Shard::lock(self, n).copy_list(&partition.dirty, db, incarnation, &mut found);
            found.sort_by_key(|(_, info)| info.dirty.map(|dirty| dirty.since));
            for (names, info) in &found {
                f(names.class(), names.key(), info);
            }
        }
    }

    /// How many entries of a database are dirty, and [`Dirty::since`] of the oldest; exact only while nothing
    /// changes.
    pub fn backlog(&self, db: u32) -> (u64, Option<i64>) {
        let (mut count, mut oldest) = (0, None::<i64>);
        for (n, partition) in self.arena.partitions().iter().enumerate() {
            let list = &partition.dirty;
            if list.entries.load(Relaxed) == 0 {
                continue;
            }
            let shard = Shard::lock(self, n);
            let mut at = list.head.load(Relaxed);
            for _ in 0..shard.steps_of(list) {
                let Some(entry) = shard.entry(at) else { break };
                if entry.db == db {
                    let since = entry.since.load(Relaxed);
                    oldest = Some(oldest.map_or(since, |known| known.min(since)));
                    count += 1;
                }
                at = entry.older.load(Relaxed);
            }
        }
        (count, oldest)
    }

    /// How many entries of a class are dirty.
    pub fn dirty(&self, class: ClassId) -> u64 {
        self.class(class).dirty.load(Relaxed)
    }
}
