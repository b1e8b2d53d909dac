//! Removing what is damaged, and nothing else; see "Damage" at the crate root.

use std::sync::atomic::Ordering::SeqCst;

use crate::cache::L1;
use crate::entry::{EntryInfo, Key};
use crate::locks::Locks;

impl<K: Locks> L1<K> {
    /// Removes the entry with this serial, unless it is dirty; was it there? Not counted as an eviction.
    /// Allocates nothing.
    pub fn remove_clean_entry(&self, key: &Key<'_>, serial: u64) -> bool {
        let shard = self.shard_mut(key);
        let garbage = shard
            .find_or_abandon(key)
            .filter(|at| {
                let entry = shard.entry(*at);
                entry.is_some_and(|entry| entry.serial == serial && !entry.is_dirty())
            })
            .and_then(|at| shard.detach(at));
        drop(shard);
        let found = garbage.is_some();
        if let Some(garbage) = garbage {
            garbage.release(&self.arena);
        }
        found
    }

    /// Removes the entry of a key, dirty or not, if its header contradicts itself, and says what the header
    /// holds. Empties a partition whose lists are broken. Allocates nothing.
    pub fn remove_unsound(&self, key: &Key<'_>) -> Option<EntryInfo> {
        let shard = self.shard_mut(key);
        let found = shard
            .find_or_abandon(key)
            .and_then(|at| Some((at, shard.entry(at)?)))
            .filter(|(_, entry)| !entry.is_sound());
        let (at, entry) = found?;
        let info = entry.info();
        let garbage = shard.detach(at);
        drop(shard);
        if let Some(garbage) = garbage {
            garbage.release(&self.arena);
        }
        Some(info)
    }

    /// How many dirty entries have gone with broken lists since this was last asked, of all databases.
    pub fn take_lost(&self) -> u64 {
        self.arena.header().lost_dirty.swap(0, SeqCst)
    }
}

/// What tests can break.
#[cfg(feature = "damage")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A byte of the value.
    Value,
    /// The chain: it ends after its first chunk.
    Chain,
    /// The header: its lengths do not agree.
    Header,
    /// The list that the entry is in.
    List,
}

#[cfg(feature = "damage")]
impl<K: Locks> L1<K> {
    /// For tests: breaks a part of the entry of a key; was there one?
    pub fn damage(&self, key: &Key<'_>, part: Part) -> bool {
        use crate::entry::EntryHeader;
        use crate::geometry::{CHUNK, NO_CHUNK};
        use std::sync::atomic::Ordering::Relaxed;
        let shard = self.shard_mut(key);
        let found = shard
            .find_or_abandon(key)
            .and_then(|at| Some((at, shard.entry(at)?, self.arena.chunk(at)?)));
        let Some((at, entry, first)) = found else {
            return false;
        };
        match part {
            Part::Value => {
                let last = entry.value_at() + entry.value_len as usize - 1;
                let mut chunk = at;
                for _ in 0..last / CHUNK {
                    chunk = self.arena.after(chunk);
                }
                if let Some(start) = self.arena.chunk(chunk) {
                    // SAFETY: a byte of this entry, whose partition is locked.
                    unsafe { *start.as_ptr().add(last % CHUNK) ^= 1 };
                }
            }
            Part::Chain => self.arena.join(at, NO_CHUNK),
            Part::Header => {
                let header = first.as_ptr().cast::<EntryHeader>();
                // SAFETY: the header of this entry, whose partition is locked.
                unsafe { (&raw mut (*header).value_len).write(u32::MAX) };
            }
            Part::List => entry.older.store(at, Relaxed),
        }
        true
    }
}
