//! Dirty entries: states that the tables do not hold yet (write-behind).
//!
//! What never happens to them is in the section "Dirty entries" at the crate root; here is what does:
//! they are listed, put aside, cleaned once the tables hold them, and dropped with their tables.

use std::sync::atomic::Ordering::Relaxed;

use crate::cache::L1;
use crate::class::ClassId;
use crate::entry::{EntryHeader, EntryInfo, Key, PARKED};
use crate::geometry::CHUNK;
use crate::locks::Locks;
use crate::partition::{Shard, ShardMut, lower};
use crate::survey::Names;
use state_cache_memory::OutOfMemory;

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
    /// What the tables are to hold beside the value, in the caller's terms.
    pub beside: u64,
    /// The worker could not write it and has put it aside.
    pub parked: bool,
}

/// What [`L1::mark_clean`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// The entry that was written; it is clean now.
    Clean,
    /// Another dirty entry: the state has changed since it was read for writing.
    Newer,
    /// No dirty entry, now.
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
    /// higher one) and transaction. It goes instead where others have changed the state in the tables, or
    /// all of its domain, since it was linked: the writer became visible before it says so here, and they
    /// may have come after it. If another dirty one has taken its place, that is from now on based on
    /// `version`, and its oldest change that the tables do not hold was made after `read_at`. A clean entry
    /// is left as it is.
    pub fn mark_clean(
        &self,
        key: &Key<'_>,
        serial: u64,
        version: i64,
        xid: u64,
        read_at: i64,
    ) -> Cleaned {
        let shard = self.shard_mut(key);
        let Some((at, entry)) = shard.find_dirty(key) else {
            return Cleaned::Gone;
        };
        if entry.serial != serial {
            // Another writer may have said before this one that the tables hold a later version.
            entry.base.fetch_max(version, Relaxed);
            entry.since.fetch_max(read_at, Relaxed);
            return Cleaned::Newer;
        }
        let domain_generation = self.domain(entry.db).generation();
        if entry.is_overtaken() || entry.domain_generation.load(Relaxed) != domain_generation {
            let garbage = shard.detach(at);
            drop(shard);
            if let Some(garbage) = garbage {
                garbage.release(&self.arena);
            }
            return Cleaned::Gone;
        }
        entry.version.store(version, Relaxed);
        entry.head_xid.store(xid, Relaxed);
        entry.doc_xid.store(xid, Relaxed);
        if shard.clean(at, entry) {
            Cleaned::Clean
        } else {
            Cleaned::Gone
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
        match parked {
            true => entry.flags.fetch_or(PARKED, Relaxed),
            false => entry.flags.fetch_and(!PARKED, Relaxed),
        };
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
    ///
    /// # Errors
    /// [`OutOfMemory`], before `f` is called for the entries of that partition.
    pub fn for_each_dirty(
        &self,
        db: u32,
        incarnation: u64,
        mut f: impl FnMut(&[u8], &[u8], &EntryInfo),
    ) -> Result<(), OutOfMemory> {
        let mut found: Vec<(Names, EntryInfo)> = Vec::new();
        for (n, partition) in self.arena.partitions().iter().enumerate() {
            let list = &partition.dirty;
            if list.entries.load(Relaxed) == 0 {
                continue;
            }
            found.clear();
            self.with_room(n, &[list], &mut found, |shard, found| {
                shard.copy_list(list, db, incarnation, found);
            })?;
            // In place: a stable sort takes memory.
            found.sort_unstable_by_key(|(_, info)| info.dirty.map(|dirty| dirty.since));
            for (names, info) in &found {
                f(names.class(), names.key(), info);
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::{DIRTY, KeyId, NewEntry};
    use crate::geometry::Geometry;
    use crate::read::{Lookup, Want};
    use std::ptr::NonNull;
    use std::sync::atomic::AtomicU64;

    /// Locks for one thread: they count how often they were taken.
    #[derive(Default)]
    struct Counted(AtomicU64);

    impl Locks for Counted {
        fn lock_shared(&self, _: usize) {
            self.0.fetch_add(1, Relaxed);
        }
        fn lock_exclusive(&self, _: usize) {
            self.0.fetch_add(1, Relaxed);
        }
        fn unlock(&self, _: usize) {}
    }

    #[repr(C, align(128))]
    #[derive(Clone)]
    struct Line([u8; 128]);

    /// Runs `f` on a fresh cache of several partitions.
    fn with_cache(f: impl FnOnce(&L1<Counted>)) {
        let geometry = Geometry::for_memory(8 << 20);
        let mut memory = vec![Line([0; 128]); geometry.bytes().div_ceil(128)];
        let base = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        // SAFETY: zeroed, aligned, large enough, and used by this cache alone, in this thread.
        f(&unsafe { L1::init(base, geometry, Counted::default()) });
    }

    /// Key number `n`, in partition `n`.
    fn key(n: u64) -> Key<'static> {
        Key {
            id: KeyId(u128::from(n)),
            db: 1,
            incarnation: 1,
            class: b"run",
            key: b"k",
        }
    }

    fn link(l1: &L1<Counted>, n: u64, class: ClassId, since: Option<i64>) -> u64 {
        let dirty = since.map(|since| Dirty {
            since,
            base: 0,
            owner: 10,
            beside: 0,
            parked: false,
        });
        let block = l1.reserve(&NewEntry {
            key: key(n),
            class,
            max_entries: None,
            version: 1,
            head_xid: 0,
            doc_xid: 0,
            hash: 0,
            expires_at: i64::MAX,
            loaded_at: 0,
            dirty,
            stored: 0,
            value: &[0; 1_000],
        });
        l1.link(
            block.unwrap(),
            l1.note(&key(n)),
            crate::DirtyBefore::TakenOver,
        );
        match l1.read(&key(n), Want::Info, &mut []) {
            Lookup::Hit(info) => info.serial,
            _ => 0,
        }
    }

    #[test]
    fn partitions_without_dirty_entries_cost_no_lock() {
        with_cache(|l1| {
            for n in 0..8 {
                link(l1, n, ClassId::OTHER, None);
            }
            let before = l1.locks.0.load(Relaxed);
            l1.for_each_dirty(1, 1, |_, _, _| ()).unwrap();
            l1.drop_dirty(1, |_, _, _| true);
            assert_eq!(l1.locks.0.load(Relaxed), before);
            let serial = link(l1, 3, ClassId::OTHER, Some(1));
            let before = l1.locks.0.load(Relaxed);
            let mut found = 0;
            l1.for_each_dirty(1, 1, |_, _, _| found += 1).unwrap();
            assert_eq!((found, l1.locks.0.load(Relaxed)), (1, before + 1));
            l1.mark_clean(&key(3), serial, 1, 1, 1);
            let before = l1.locks.0.load(Relaxed);
            l1.for_each_dirty(1, 1, |_, _, _| found += 1).unwrap();
            assert_eq!((found, l1.locks.0.load(Relaxed)), (1, before));
        });
    }

    #[test]
    fn an_abandoned_partition_has_no_dirty_entries_and_gives_its_share_back() {
        with_cache(|l1| {
            let class = l1.class_record(1, b"run");
            // Two entries in partition 3 (of 8), one in another.
            for n in [3, 11, 4] {
                link(l1, n, class, Some(1));
            }
            l1.attach_text(&key(4), 3, &[0; 600]).unwrap();
            let each = l1.memory().dirty - 3 * CHUNK as u64;
            ShardMut::lock(l1, 3).abandon();
            assert_eq!(l1.dirty(class), 1);
            // Told once how many are lost.
            assert_eq!((l1.take_lost(), l1.take_lost()), (2, 0));
            assert_eq!(l1.memory().dirty, each / 3 + 3 * CHUNK as u64);
            let mut found = 0;
            l1.for_each_dirty(1, 1, |_, _, _| found += 1).unwrap();
            assert_eq!(found, 1);
            assert_eq!(l1.mark_clean(&key(3), 1, 1, 1, 1), Cleaned::Gone);
            // It is usable again.
            let serial = link(l1, 3, class, Some(5));
            assert_eq!(
                (l1.dirty(class), l1.memory().dirty),
                (2, each / 3 * 2 + 768)
            );
            assert_eq!(l1.mark_clean(&key(3), serial, 1, 1, 1), Cleaned::Clean);
        });
    }

    #[test]
    fn a_record_used_again_counts_no_dirty_entries_that_damage_has_left_on_it() {
        with_cache(|l1| {
            let class = l1.class_record(1, b"run");
            link(l1, 3, class, Some(1));
            l1.class(class).dirty.fetch_add(1, Relaxed);
            l1.remove_database(1);
            assert_eq!(l1.class_record(2, b"run"), class);
            assert_eq!(l1.dirty(class), 0);
        });
    }

    #[test]
    fn an_entry_of_a_broken_list_is_not_marked_clean() {
        with_cache(|l1| {
            let serial = link(l1, 3, ClassId::OTHER, Some(1));
            l1.arena.partitions()[3].dirty.head.store(7, Relaxed);
            assert_eq!(l1.mark_clean(&key(3), serial, 1, 1, 1), Cleaned::Gone);
            assert_eq!((l1.memory().entries, l1.memory().dirty), (0, 0));
            link(l1, 3, ClassId::OTHER, Some(1));
            assert_eq!(l1.memory().entries, 1);
        });
    }

    #[test]
    fn the_survey_finds_what_contradicts_itself() {
        type Break = fn(&L1<Counted>);
        fn on_entry(l1: &L1<Counted>, n: u64, f: impl FnOnce(&EntryHeader)) {
            let shard = ShardMut::lock(l1, n as usize);
            let at = shard.find(&key(n)).unwrap().unwrap();
            f(shard.entry(at).unwrap());
        }
        let breaks: [(&str, Break); 9] = [
            ("flags say clean", |l1| {
                on_entry(l1, 3, |e| e.flags.store(0, Relaxed));
            }),
            ("flags say dirty", |l1| {
                on_entry(l1, 5, |e| e.flags.store(DIRTY, Relaxed));
            }),
            ("clean but parked", |l1| {
                on_entry(l1, 5, |e| e.flags.store(PARKED, Relaxed));
            }),
            ("link back", |l1| {
                on_entry(l1, 3, |e| e.newer.store(1, Relaxed));
            }),
            ("count of the list", |l1| {
                l1.arena.partitions()[3].dirty.entries.store(2, Relaxed);
            }),
            ("tail of the list", |l1| {
                l1.arena.partitions()[3].dirty.tail.store(0, Relaxed);
            }),
            ("chunks of the partition", |l1| {
                l1.arena.partitions()[3].dirty_chunks.fetch_add(1, Relaxed);
            }),
            ("chunks of the cache", |l1| l1.unclaim_dirty(1)),
            ("gauge of the class", |l1| {
                l1.class(ClassId::OTHER).dirty.fetch_add(1, Relaxed);
            }),
        ];
        for (what, does) in breaks {
            with_cache(|l1| {
                link(l1, 3, ClassId::OTHER, Some(1));
                link(l1, 5, ClassId::OTHER, None);
                assert_eq!(l1.verify().map(|report| report.dirty), Ok(1));
                does(l1);
                assert!(l1.verify().is_err(), "{what}");
            });
        }
        with_cache(|l1| {
            l1.claim_dirty(1);
            assert!(l1.verify().is_err(), "nothing is reserved");
        });
    }
}
