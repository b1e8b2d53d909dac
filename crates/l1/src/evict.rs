//! Eviction: SIEVE, a FIFO with a visited bit and a hand that moves from the oldest entry to the newest.
//!
//! A hit only sets a bit, under the shared lock. The hand clears bits as it passes and takes the first
//! entry without one. Entries of a changed domain and expired ones go at once. Dirty entries are not in
//! the FIFO, so the hand never meets them, however many there are.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::arena::Chain;
use crate::cache::{L1, Refused};
use crate::class::{COUNTER_EVICTIONS, COUNTER_EXPIRATIONS, ClassId};
use crate::entry::{EntryHeader, Key};
use crate::geometry::NO_CHUNK;
use crate::locks::Locks;
use crate::partition::ShardMut;

/// Entries the hand passes while one lock is held: a partition of a large cache holds a million.
const STEPS: u32 = 1024;

/// Which entries the hand passes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spares {
    /// Those that were read since it came by.
    Visited,
    /// None.
    Nothing,
}

/// What one look at a partition came to.
enum Sweep {
    Evicted,
    Empty,
    /// All entries seen had been visited; they no longer count as visited.
    Tired,
}

impl<K: Locks> ShardMut<'_, K> {
    /// Takes the entry at `chunk` out and gives its chunks back, counting it in its class.
    fn evict(&self, chunk: u32, counter: usize) {
        let class = self
            .entry(chunk)
            .map_or(ClassId::OTHER, |e| ClassId(e.class));
        if let Some(garbage) = self.detach(chunk) {
            garbage.release(&self.l1.arena);
            self.l1.counters(class)[counter].fetch_add(1, Relaxed);
        }
    }

    /// The counter that the loss of `entry` belongs to, if it is worthless already.
    fn worthless(&self, entry: &EntryHeader, now: i64) -> Option<usize> {
        if entry.expires_at <= now {
            Some(COUNTER_EXPIRATIONS)
        } else if self.is_stale(entry) {
            Some(COUNTER_EVICTIONS)
        } else {
            None
        }
    }

    /// Moves the hand to the next victim.
    fn sweep(&self, now: i64, spares: Spares) -> Sweep {
        let lists = self.lists();
        let mut at = lists.hand.load(Relaxed);
        for _ in 0..STEPS {
            if at == NO_CHUNK {
                at = lists.clean.tail.load(Relaxed);
            }
            if at == NO_CHUNK {
                return Sweep::Empty;
            }
            let Some(entry) = self.entry(at) else {
                self.abandon();
                return Sweep::Empty;
            };
            let next = entry.newer.load(Relaxed);
            let worthless = self.worthless(entry, now);
            if worthless.is_some() || spares == Spares::Nothing || entry.visited.load(Relaxed) == 0
            {
                lists.hand.store(next, Relaxed);
                self.evict(at, worthless.unwrap_or(COUNTER_EVICTIONS));
                return Sweep::Evicted;
            }
            entry.visited.store(0, Relaxed);
            at = next;
        }
        lists.hand.store(at, Relaxed);
        Sweep::Tired
    }

    /// One round from the hand over the entries of one class, which leaves the others and the hand
    /// alone. False when the class has no clean entry here.
    fn sweep_class(&self, class: ClassId, now: i64) -> bool {
        let lists = self.lists();
        let mut at = lists.hand.load(Relaxed);
        let mut first = None;
        for _ in 1..self.steps_of(&lists.clean) {
            if at == NO_CHUNK {
                at = lists.clean.tail.load(Relaxed);
            }
            let Some(entry) = self.entry(at) else {
                self.abandon();
                return false;
            };
            if entry.class == class.0 {
                let worthless = self.worthless(entry, now);
                if worthless.is_some() || entry.visited.load(Relaxed) == 0 {
                    self.evict(at, worthless.unwrap_or(COUNTER_EVICTIONS));
                    return true;
                }
                entry.visited.store(0, Relaxed);
                first = first.or(Some(at));
            }
            at = entry.newer.load(Relaxed);
        }
        // All had been visited: the hand of a second round would take the first of them.
        if let Some(at) = first {
            self.evict(at, COUNTER_EVICTIONS);
        }
        first.is_some()
    }

    /// As [`ShardMut::evict`], for a removal that is asked for.
    pub fn evict_on_request(&self, chunk: u32) {
        self.evict(chunk, COUNTER_EVICTIONS);
    }
}

impl<K: Locks> L1<K> {
    /// Frees the chunks of one entry. False when there is none left to evict.
    ///
    /// The rotor gives the first partition only. Were it asked for each, processes that take turns at it
    /// could each see their own half of the partitions, and miss the clean entries of the other half
    /// where dirty ones leave few.
    fn evict_one(&self, now: i64) -> bool {
        let partitions = self.arena.partitions();
        let first = self.arena.header().rotor.fetch_add(1, Relaxed) as usize;
        let mut empty = 0;
        // After four rounds others set bits as fast as the hand clears them: take what is there.
        let patience = 4 * partitions.len() + 16;
        let mut tries = 0;
        for i in 0.. {
            let n = first.wrapping_add(i) & (partitions.len() - 1);
            if partitions[n].clean.entries.load(Relaxed) != 0 {
                tries += 1;
                let spares = match tries > patience {
                    true => Spares::Nothing,
                    false => Spares::Visited,
                };
                match ShardMut::lock(self, n).sweep(now, spares) {
                    Sweep::Evicted => return true,
                    Sweep::Tired => {
                        empty = 0;
                        continue;
                    }
                    Sweep::Empty => {}
                }
            }
            empty += 1;
            if empty == partitions.len() {
                break;
            }
        }
        false
    }

    /// Takes `count` chunks, evicting others where the free list runs out.
    pub(crate) fn take(&self, count: usize, now: i64) -> Result<Chain, Refused> {
        if count > self.arena.chunks() as usize / 4 {
            return Err(Refused::TooLarge);
        }
        let count = u32::try_from(count).map_err(|_| Refused::TooLarge)?;
        let mut taken: Option<Chain> = None;
        // Others may take what is evicted here; who loses that race so often gives up.
        let mut evictions = 2 * u64::from(count) + 64;
        loop {
            let have = taken.map_or(0, |c| c.chunks);
            if have == count
                && let Some(chain) = taken
            {
                return Ok(chain);
            }
            if let Some(more) = self.arena.pop(count - have) {
                taken = Some(match taken {
                    None => more,
                    Some(chain) => self.concat(chain, more),
                });
                continue;
            }
            if evictions == 0 || !self.evict_one(now) {
                if let Some(chain) = taken {
                    self.arena.push(chain);
                }
                return Err(Refused::Full);
            }
            evictions -= 1;
        }
    }

    /// One chain of two.
    pub(crate) fn concat(&self, first: Chain, second: Chain) -> Chain {
        self.arena.join(first.tail, second.head);
        Chain {
            head: first.head,
            tail: second.tail,
            chunks: first.chunks + second.chunks,
        }
    }

    /// Claims room for one more entry of `class`, evicting others of the class until there is. False
    /// when the key is in the cache already, so that linking will only replace it. The claim is in the
    /// class's `reserved` gauge until the block is linked or discarded.
    pub(crate) fn claim(
        &self,
        key: &Key<'_>,
        class: ClassId,
        max: u32,
        now: i64,
    ) -> Result<bool, Refused> {
        let record = self.class(class);
        record.reserved.fetch_add(1, SeqCst);
        let home = self.partition_of(key.id.words());
        let partitions = self.arena.partitions();
        let mut n = home;
        let mut without = 0;
        while record
            .entries
            .load(SeqCst)
            .saturating_add(record.reserved.load(SeqCst))
            > u64::from(max)
        {
            let shard = ShardMut::lock(self, n);
            if n == home && matches!(shard.find(key), Ok(Some(_))) {
                record.reserved.fetch_sub(1, SeqCst);
                return Ok(false);
            }
            if shard.sweep_class(class, now) {
                without = 0;
                continue;
            }
            drop(shard);
            without += 1;
            if without == partitions.len() {
                record.reserved.fetch_sub(1, SeqCst);
                return Err(Refused::Full);
            }
            n = (n + 1) & (partitions.len() - 1);
        }
        Ok(true)
    }
}
