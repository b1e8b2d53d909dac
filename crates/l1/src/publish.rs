//! How a committer makes its change known: the block it links, or the entry it removes.
//!
//! # The order of a commit
//!
//! ```text
//! raise writers | note | commit record | visible to others | publish: link or remove, generation + 1 | lower writers
//! ```
//!
//! Committers do not publish in the order in which they became visible. PostgreSQL makes a transaction
//! visible before it runs the callback that publishes, and before it releases row locks. In between,
//! another transaction can change the same state without waiting, commit, and publish first. Then the
//! first one is late: what it would link is older than what the tables hold.
//!
//! ```text
//! T1: note … visible                                      publish version 7
//! T2:                update, note, visible, publish version 8
//! ```
//!
//! So a committer notes, after it has raised `writers` and before it can become visible, the stripe's
//! generation and the serial of the entry that is there ([`L1::note`]). It publishes under the
//! partition's exclusive lock, and raises the generation under that lock too, so that those who publish
//! one key come one after the other:
//!
//! - **In time**: the generation is the one noted. Nobody has published in this stripe, so nobody has
//!   published this key. The committer links or removes.
//! - **Late**: the generation has moved, by this key or by another one of the stripe.
//!   - The entry that was noted is still there. Whoever publishes a newer version takes that entry away,
//!     so nobody has. The committer links or removes as if in time.
//!   - Another entry is there, clean, of a higher version. It stays.
//!   - Another entry is there, clean, of a lower version: an older committer has published meanwhile, or
//!     numbers were set back by hand. Which of the two cannot be told, so the entry goes and nothing
//!     takes its place.
//!   - Another entry is there, dirty. It stays: committers of such a class hold the state's lock until
//!     they have published, so whoever left it knew of this change.
//!   - No entry is there. Nothing is linked: a newer version may have been linked and evicted.
//!
//! A clean block that was to replace the entry of its key claimed no room under its class's limit. If that
//! entry has been evicted, others may have taken its room, so nothing is linked, in time or late.
//!
//! A *dirty* block is linked in every case. It is the only copy of its version, and the state's lock, held
//! until it is linked, keeps others from publishing that state.
//!
//! To remove a clean entry is always right: the next read asks the tables. No fill comes in between,
//! since `writers` is up from before the note until after the publication.
//!
//! A clean block is linked under the generation of its domain that was noted. If the domain has changed
//! since (TRUNCATE, many changes by hand), nobody can read the entry.

use std::sync::atomic::Ordering::Relaxed;

use crate::cache::{Block, L1};
use crate::entry::{EntryHeader, Key, OVERTAKEN};
use crate::locks::Locks;
use crate::partition::ShardMut;

/// What a committer notes before it can become visible; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Generation of the key's stripe.
    stripe_generation: u64,
    /// Generation of the key's domain.
    domain_generation: u64,
    /// Serial of the key's entry, 0 for none.
    serial: u64,
}

impl Noted {
    /// The same for a committer that has itself published `times` in the stripe since it noted this.
    pub fn after_own(self, times: u64) -> Self {
        Noted {
            stripe_generation: self.stripe_generation + times,
            ..self
        }
    }
}

/// What a new entry has to do with the dirty one whose place it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirtyBefore {
    /// It goes on from there, if it is dirty itself.
    TakenOver,
    /// That one has ended: the committer has written rows of the state.
    Ended,
}

/// Which entries a committer removes that has nothing to link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removes {
    /// The tables hold something newer than the entry, dirty or not.
    Any,
    /// A dirty entry stays, but it no longer says what the tables hold: [`L1::mark_clean`] will not make it
    /// clean.
    Clean,
}

/// What becomes of the entry that a committer finds.
enum Verdict {
    /// The committer's change takes its place.
    Replace,
    /// It stays.
    Keep,
    /// It goes; nothing takes its place.
    Drop,
}

impl<K: Locks> ShardMut<'_, K> {
    /// What becomes of the entry at `old` when a committer publishes version `new` (`None`: nothing but
    /// a removal). The committer's order is in the header of this module.
    fn verdict(
        &self,
        old: Option<u32>,
        generation: u64,
        noted: Noted,
        new: Option<i64>,
    ) -> Verdict {
        let in_time = generation == noted.stripe_generation;
        match old.and_then(|old| self.entry(old)) {
            _ if in_time => Verdict::Replace,
            None => Verdict::Drop,
            Some(entry) if entry.serial == noted.serial => Verdict::Replace,
            Some(entry) if entry.is_dirty() => Verdict::Keep,
            Some(entry) if new.is_some_and(|new| entry.version.load(Relaxed) > new) => {
                Verdict::Keep
            }
            Some(_) => Verdict::Drop,
        }
    }
}

impl<K: Locks> L1<K> {
    /// What a committer notes of a key: after it has entered the stripe, before it can become visible.
    pub fn note(&self, key: &Key<'_>) -> Noted {
        let stripe_generation = self.stripe(key.id).generation();
        let domain_generation = self.domain(key.db).generation();
        let shard = self.shard(key);
        let entry = shard.find(key).ok().flatten();
        let entry = entry.and_then(|head| shard.entry(head));
        Noted {
            stripe_generation,
            domain_generation,
            serial: entry.map_or(0, |entry| entry.serial),
        }
    }

    /// Publishes a version that its committer has in a block: makes the block the entry of its key, or
    /// discards it if the committer is late, or its class's limit has no room for it. Raises the stripe's
    /// generation. Allocates nothing, cannot fail.
    ///
    /// A clean block replaces a dirty entry as it does any: the tables hold something newer. A dirty
    /// block takes over from a dirty entry the version that the tables hold
    /// ([`Dirty::base`](crate::Dirty::base)) and since when they have been behind
    /// ([`Dirty::since`](crate::Dirty::since)), but not that it was put aside. After rows of the
    /// committer's own it takes over nothing ([`DirtyBefore::Ended`]).
    pub fn link(&self, block: Block, noted: Noted, before: DirtyBefore) {
        let Some(entry) = self.header_of(&block) else {
            return;
        };
        let stripe = self.stripe(entry.key_id());
        let shard = ShardMut::lock(self, self.partition_of(entry.id));
        let mut old = self.find_same(&shard, block.head, entry);
        let generation = stripe.generation();
        let version = entry.version.load(Relaxed);
        let verdict = match entry.is_dirty() {
            true => Verdict::Replace,
            // The entry that it was to replace has been evicted, and others have taken its room.
            false if block.only_replaces && old.is_none() => Verdict::Drop,
            false => shard.verdict(old, generation, noted, Some(version)),
        };
        let ended = match (&verdict, old) {
            (Verdict::Replace, Some(at)) if before == DirtyBefore::Ended => {
                old = None;
                shard.detach(at)
            }
            (Verdict::Drop, Some(at)) => shard.detach(at),
            _ => None,
        };
        let mut unlinked = None;
        let replaced = match verdict {
            Verdict::Replace => {
                self.link_locked(&shard, block, entry, old, noted.domain_generation)
            }
            Verdict::Keep | Verdict::Drop => {
                unlinked = Some(block);
                None
            }
        };
        stripe.publish();
        drop(shard);
        for garbage in [ended, replaced].into_iter().flatten() {
            garbage.release(&self.arena);
        }
        if let Some(block) = unlinked {
            self.discard(block);
        }
    }

    /// Publishes a change without a block: removes the entry of its key; was one removed? Raises the stripe's
    /// generation. Not counted as an eviction. Allocates nothing, cannot fail.
    pub fn unlink(&self, key: &Key<'_>, noted: Noted, removes: Removes) -> bool {
        let stripe = self.stripe(key.id);
        let shard = self.shard_mut(key);
        let found = shard.find_or_abandon(key);
        let spared = found
            .and_then(|at| shard.entry(at))
            .filter(|entry| entry.is_dirty() && removes == Removes::Clean);
        let garbage = match (
            spared,
            shard.verdict(found, stripe.generation(), noted, None),
        ) {
            (Some(entry), _) => {
                entry.overtake();
                None
            }
            (None, Verdict::Keep) => None,
            (None, Verdict::Replace | Verdict::Drop) => found.and_then(|at| shard.detach(at)),
        };
        stripe.publish();
        drop(shard);
        let removed = garbage.is_some();
        if let Some(garbage) = garbage {
            garbage.release(&self.arena);
        }
        removed
    }
}

impl EntryHeader {
    /// Somebody has changed the state in the tables and left this dirty entry where it is.
    fn overtake(&self) {
        self.flags.fetch_or(OVERTAKEN, Relaxed);
    }

    /// Whether the tables may hold something else than what was written of this dirty entry.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.flags.load(Relaxed) & OVERTAKEN != 0
    }
}
