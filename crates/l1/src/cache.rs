//! The cache itself: marks, reserving, linking, removing.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64};

use crate::arena::{Arena, Chain, Writer};
use crate::class::ClassId;
use crate::entry::{
    EntryHeader, HEADER, Key, KeyId, MAX_CLASS, MAX_KEY, NewEntry, SKIP, chunks_for, flags_of,
    text_chunks,
};
use crate::geometry::{CHUNK, DOMAINS, Geometry, NO_CHUNK};
use crate::locks::Locks;
use crate::mark::Mark;
use crate::partition::{Garbage, Shard, ShardMut};

/// The cache, as one process sees it.
pub struct L1<K: Locks> {
    pub(crate) arena: Arena,
    pub(crate) locks: K,
}

/// Why something is not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is more than a quarter of the cache, or a name is too long.
    TooLarge,
    /// Eviction did not free enough, or dirty entries would get more than their share.
    Full,
    /// The entry that the text form belongs to is no longer there, or has one already.
    Gone,
}

/// A filled entry that nobody else sees yet. It must be given to [`L1::link`],
/// [`L1::link_if_unchanged`] or [`L1::discard`], else its chunks stay out of use.
#[derive(Debug)]
#[must_use = "its chunks are lost unless it is linked or discarded"]
pub struct Block {
    pub(crate) head: u32,
    /// Counted in the class's gauge of reserved blocks.
    claimed: bool,
    /// No room under its class's limit was claimed for it, since it is to replace the entry of its key.
    pub(crate) only_replaces: bool,
}

/// What must not have changed between the start of a fill and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillToken {
    /// Generation of the key's stripe.
    pub stripe_generation: u64,
    /// Generation of the key's domain.
    pub domain_generation: u64,
}

/// How the memory is used, in bytes except for `entries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of the block.
    pub total: u64,
    /// All chunks.
    pub chunk_bytes: u64,
    /// Chunks in use.
    pub used: u64,
    /// Free chunks.
    pub free: u64,
    /// Chunks of dirty entries, linked or reserved, and of their text forms: part of `used`.
    pub dirty: u64,
    /// Entries linked.
    pub entries: u64,
}

impl<K: Locks> L1<K> {
    /// Makes a cache.
    ///
    /// # Safety
    ///
    /// `base` points to `geometry.bytes()` zeroed bytes, aligned to 128, that nobody else uses yet, stay
    /// mapped as long as the cache, and are used only through caches of the same geometry and locks.
    pub unsafe fn init(base: NonNull<u8>, geometry: Geometry, locks: K) -> Self {
        // SAFETY: the caller's promise.
        let arena = unsafe { Arena::new(base, geometry) };
        arena.format();
        arena.make_other_class();
        L1 { arena, locks }
    }

    /// Uses a cache that [`L1::init`] has made, here or in another process.
    ///
    /// # Safety
    ///
    /// `base` is where this process maps the memory given to [`L1::init`], with the same geometry and
    /// the same locks.
    pub unsafe fn attach(base: NonNull<u8>, geometry: Geometry, locks: K) -> Self {
        // SAFETY: the caller's promise.
        let arena = unsafe { Arena::new(base, geometry) };
        L1 { arena, locks }
    }

    /// How the memory is divided.
    pub fn geometry(&self) -> &Geometry {
        self.arena.geometry()
    }

    /// The mark of the stripe that a key belongs to.
    pub fn stripe(&self, id: KeyId) -> &Mark {
        &self.arena.stripes()[self.stripe_number(id)]
    }

    /// The mark of a stripe by its number.
    pub fn stripe_at(&self, number: usize) -> &Mark {
        &self.arena.stripes()[number & (self.arena.stripes().len() - 1)]
    }

    /// The number of the stripe that a key belongs to.
    pub fn stripe_number(&self, id: KeyId) -> usize {
        id.words()[1] as usize & (self.arena.stripes().len() - 1)
    }

    /// The mark of a database, for changes that are not of one key. Publishing it makes every entry of
    /// the database unreadable. Databases may share one.
    pub fn domain(&self, db: u32) -> &Mark {
        // Database oids count up, so a multiplicative hash spreads them evenly (Knuth's constant).
        &self.arena.domains()[(db.wrapping_mul(0x9E37_79B1) >> 26) as usize & (DOMAINS - 1)]
    }

    pub(crate) fn partition_of(&self, id: [u64; 2]) -> usize {
        id[0] as usize & (self.arena.partitions().len() - 1)
    }

    pub(crate) fn shard(&self, key: &Key<'_>) -> Shard<'_, K> {
        Shard::lock(self, self.partition_of(key.id.words()))
    }

    pub(crate) fn shard_mut(&self, key: &Key<'_>) -> ShardMut<'_, K> {
        ShardMut::lock(self, self.partition_of(key.id.words()))
    }

    /// What a filler notes before it reads the tables; `None` while a commit is in progress.
    pub fn fill_token(&self, key: &Key<'_>) -> Option<FillToken> {
        Some(FillToken {
            stripe_generation: self.stripe(key.id).quiet_generation()?,
            domain_generation: self.domain(key.db).quiet_generation()?,
        })
    }

    /// Takes chunks, evicting others if need be, and fills them.
    ///
    /// # Errors
    ///
    /// [`Refused::TooLarge`] for more than a quarter of the chunks or names over the limits,
    /// [`Refused::Full`] when there is nothing left to evict, or nothing of the class whose
    /// `max_entries` is reached (dirty entries are not evicted, not even for a dirty one), and for a
    /// dirty entry when more than one chunk in [`DIRTY_SHARE`](crate::DIRTY_SHARE) would be dirty. An
    /// older dirty entry of the key counts until it has been replaced.
    pub fn reserve(&self, entry: &NewEntry<'_>) -> Result<Block, Refused> {
        let (class, key) = (entry.key.class, entry.key.key);
        if class.len() > MAX_CLASS || key.len() > MAX_KEY {
            return Err(Refused::TooLarge);
        }
        let value_len = u32::try_from(entry.value.len()).map_err(|_| Refused::TooLarge)?;
        let names = class.len() + key.len();
        let (data, skip) = chunks_for(HEADER + names + entry.value.len());
        if data + skip > self.arena.chunks() as usize / 4 {
            return Err(Refused::TooLarge);
        }
        let chunks = (data + skip) as u64;
        if entry.dirty.is_some() && !self.claim_dirty(chunks) {
            return Err(Refused::Full);
        }
        let (chain, table, claimed) = match self.take_for(entry, data, skip) {
            Ok(taken) => taken,
            Err(refused) => {
                if entry.dirty.is_some() {
                    self.unclaim_dirty(chunks);
                }
                return Err(refused);
            }
        };
        let (since, base, owner, beside) = match entry.dirty {
            Some(dirty) => (dirty.since, dirty.base, dirty.owner, dirty.beside),
            None => (0, 0, 0, entry.doc_xid),
        };
        let header = EntryHeader {
            id: entry.key.id.words(),
            incarnation: entry.key.incarnation,
            version: AtomicI64::new(entry.version),
            head_xid: AtomicU64::new(entry.head_xid),
            doc_xid: AtomicU64::new(beside),
            hash: [entry.hash as u64, (entry.hash >> 64) as u64],
            expires_at: entry.expires_at,
            loaded_at: entry.loaded_at,
            serial: self.arena.header().serial.fetch_add(1, Relaxed) + 1,
            stored: entry.stored,
            since: AtomicI64::new(since),
            base: AtomicI64::new(base),
            domain_generation: AtomicU64::new(0),
            db: entry.key.db,
            class: entry.class.0,
            class_len: class.len() as u16,
            key_len: key.len() as u16,
            value_len,
            chunks: chain.chunks + table.map_or(0, |t| t.chunks),
            skip: table.map_or(NO_CHUNK, |t| t.head),
            text_head: AtomicU32::new(NO_CHUNK),
            text_len: AtomicU32::new(0),
            bucket_next: AtomicU32::new(NO_CHUNK),
            newer: AtomicU32::new(NO_CHUNK),
            older: AtomicU32::new(NO_CHUNK),
            owner,
            visited: AtomicU8::new(0),
            flags: AtomicU8::new(flags_of(entry.dirty)),
        };
        if let Some(first) = self.arena.chunk(chain.head) {
            // SAFETY: the chunk was just taken from the free list, so it is ours alone; it is aligned
            // and larger than a header.
            unsafe { first.cast::<EntryHeader>().write(header) };
        }
        let room = names + entry.value.len();
        // SAFETY: all chunks of the chain were just taken from the free list, so they are ours alone.
        let mut writer = unsafe { Writer::new(&self.arena, chain.head, HEADER, room) };
        for part in [class, key, entry.value] {
            writer.write(part);
        }
        if let Some(table) = table {
            self.write_table(&chain, &table);
            self.concat(chain, table);
        }
        Ok(Block {
            head: chain.head,
            claimed,
            only_replaces: entry.max_entries.is_some() && !claimed,
        })
    }

    /// Room under the class's limit, and the chains of the entry's bytes and of its skip table.
    fn take_for(
        &self,
        entry: &NewEntry<'_>,
        data: usize,
        skip: usize,
    ) -> Result<(Chain, Option<Chain>, bool), Refused> {
        let claimed = match entry.max_entries {
            Some(max) => self.claim(&entry.key, entry.class, max, entry.loaded_at)?,
            None => false,
        };
        match self.take_with_table(data, skip, entry.loaded_at) {
            Ok((chain, table)) => Ok((chain, table, claimed)),
            Err(refused) => {
                self.unclaim(entry.class, claimed);
                Err(refused)
            }
        }
    }

    /// The chains of an entry's bytes and of its skip table.
    fn take_with_table(
        &self,
        data: usize,
        skip: usize,
        now: i64,
    ) -> Result<(Chain, Option<Chain>), Refused> {
        let chain = self.take(data, now)?;
        if skip == 0 {
            return Ok((chain, None));
        }
        match self.take(skip, now) {
            Ok(table) => Ok((chain, Some(table))),
            Err(refused) => {
                self.arena.push(chain);
                Err(refused)
            }
        }
    }

    /// Notes chunk 64, 128, ... of `chain` in `table`.
    fn write_table(&self, chain: &Chain, table: &Chain) {
        let room = table.chunks as usize * CHUNK;
        // SAFETY: the table's chunks were just taken from the free list.
        let mut writer = unsafe { Writer::new(&self.arena, table.head, 0, room) };
        let mut chunk = chain.head;
        for number in 1..chain.chunks {
            chunk = self.arena.after(chunk);
            if (number as usize).is_multiple_of(SKIP) {
                writer.write(&chunk.to_ne_bytes());
            }
        }
    }

    fn unclaim(&self, class: ClassId, claimed: bool) {
        if claimed {
            self.class(class).reserved.fetch_sub(1, SeqCst);
        }
    }

    /// The header of a block.
    pub(crate) fn header_of(&self, block: &Block) -> Option<&EntryHeader> {
        // SAFETY: an unlinked block belongs to its holder alone.
        unsafe { self.arena.entry(block.head) }
    }

    /// Gives a block's chunks back. Takes no lock.
    pub fn discard(&self, block: Block) {
        if let Some(entry) = self.header_of(&block) {
            self.unclaim(ClassId(entry.class), block.claimed);
            if entry.is_dirty() {
                self.unclaim_dirty(u64::from(entry.chunks));
            }
            self.arena.release(block.head, entry.chunks);
        }
    }

    /// Makes a block the entry of its key if no commit has touched its stripe or domain since `token`
    /// was made, none is in progress, there is no dirty entry, which is newer than anything filled, and its
    /// class's limit has room for it; else discards it and returns false.
    ///
    /// The check is made under the partition's lock: a committer that enters after it takes that lock
    /// later, to link or remove, and so has the last word.
    pub fn link_if_unchanged(&self, block: Block, token: FillToken) -> bool {
        self.link_if_unchanged_and(block, token, || true)
    }

    /// The same, if `holds` says so under the lock of the partition: who makes it say no first, and removes entries
    /// then, finds what was linked before, and nothing is linked after.
    pub fn link_if_unchanged_and(
        &self,
        block: Block,
        token: FillToken,
        holds: impl FnOnce() -> bool,
    ) -> bool {
        let Some(entry) = self.header_of(&block) else {
            return false;
        };
        let shard = ShardMut::lock(self, self.partition_of(entry.id));
        let old = self.find_same(&shard, block.head, entry);
        if self.stripe(entry.key_id()).quiet_generation() != Some(token.stripe_generation)
            || self.domain(entry.db).quiet_generation() != Some(token.domain_generation)
            || (block.only_replaces && old.is_none())
            || !holds()
            || old
                .and_then(|old| shard.entry(old))
                .is_some_and(EntryHeader::is_dirty)
        {
            drop(shard);
            self.discard(block);
            return false;
        }
        let garbage = self.link_locked(&shard, block, entry, old, token.domain_generation);
        drop(shard);
        if let Some(garbage) = garbage {
            garbage.release(&self.arena);
        }
        true
    }

    /// Links under the exclusive lock in place of `old`; returns the entry replaced.
    pub(crate) fn link_locked(
        &self,
        shard: &ShardMut<'_, K>,
        block: Block,
        entry: &EntryHeader,
        old: Option<u32>,
        generation: u64,
    ) -> Option<Garbage> {
        entry.domain_generation.store(generation, Relaxed);
        // Before the old entry is taken off the gauge: in between, another process must not find room
        // under the class's limit that is not there.
        let class = self.class(ClassId(entry.class));
        class.entries.fetch_add(1, SeqCst);
        class
            .bytes
            .fetch_add(entry.occupied_chunks() * CHUNK as u64, Relaxed);
        let replaced = old.and_then(|o| shard.entry(o));
        if let (true, Some(before)) = (entry.is_dirty(), replaced) {
            // The tables may have got a version after the block was made.
            let base = match before.dirty() {
                Some(dirty) => {
                    entry.since.fetch_min(dirty.since, Relaxed);
                    dirty.base
                }
                // Of one that its domain has made unreadable nobody knows what the tables hold.
                None if shard.is_stale(before) => 0,
                None => before.version.load(Relaxed),
            };
            entry.base.fetch_max(base, Relaxed);
        }
        // A new version takes the place of the old one and counts as a visit: writing a state is using
        // it. At the head of the FIFO it would be the first that the hand meets after wrapping round.
        // Where the one is dirty and the other is not, they belong to different lists.
        let newer = replaced
            .filter(|o| o.is_dirty() == entry.is_dirty())
            .map(|o| o.newer.load(Relaxed));
        let garbage = old.and_then(|o| shard.detach(o));
        let newer = match &garbage {
            Some(_) => {
                entry.visited.store(1, Relaxed);
                newer.unwrap_or(NO_CHUNK)
            }
            None => NO_CHUNK,
        };
        shard.insert(block.head, newer);
        self.unclaim(ClassId(entry.class), block.claimed);
        garbage
    }

    /// The linked entry that has the names of the block at `head`.
    pub(crate) fn find_same(
        &self,
        shard: &ShardMut<'_, K>,
        head: u32,
        entry: &EntryHeader,
    ) -> Option<u32> {
        /// Names that most are no longer than: the room for them is filled with zeros first, at each commit.
        const SHORT: usize = MAX_CLASS + 255;
        match usize::from(entry.class_len) + usize::from(entry.key_len) {
            ..=SHORT => self.find_within::<SHORT>(shard, head, entry),
            _ => self.find_within::<{ MAX_CLASS + MAX_KEY }>(shard, head, entry),
        }
    }

    /// The same where the names have at most so many bytes.
    fn find_within<const MOST: usize>(
        &self,
        shard: &ShardMut<'_, K>,
        head: u32,
        entry: &EntryHeader,
    ) -> Option<u32> {
        let mut names = [0; MOST];
        let (class_len, key_len) = (usize::from(entry.class_len), usize::from(entry.key_len));
        let names = names.get_mut(..class_len + key_len)?;
        // SAFETY: the block belongs to the caller alone.
        if !unsafe { self.arena.copy_out(head, HEADER, names) } {
            return None;
        }
        let (class, key) = names.split_at(class_len);
        shard.find_or_abandon(&Key {
            id: entry.key_id(),
            db: entry.db,
            incarnation: entry.incarnation,
            class,
            key,
        })
    }

    /// Attaches a text form to the entry that has this serial. An empty one is not kept.
    ///
    /// # Errors
    ///
    /// [`Refused::Gone`] when another entry or none is there, or it has a text form already; else as
    /// [`L1::reserve`].
    pub fn attach_text(&self, key: &Key<'_>, serial: u64, text: &[u8]) -> Result<(), Refused> {
        let len = u32::try_from(text.len()).map_err(|_| Refused::TooLarge)?;
        let count = text_chunks(len);
        if count == 0 {
            return Ok(());
        }
        let chain = self.take(count as usize, i64::MIN)?;
        // SAFETY: the chain was just taken from the free list.
        unsafe { Writer::new(&self.arena, chain.head, 0, text.len()) }.write(text);
        let shard = self.shard_mut(key);
        let entry = shard
            .find_or_abandon(key)
            .and_then(|head| shard.entry(head))
            .filter(|entry| entry.serial == serial && entry.text().is_none());
        let attached = match entry {
            None => Err(Refused::Gone),
            // The text form of an entry that is not evicted is not evicted either.
            Some(entry) if !shard.count_text(entry, count) => Err(Refused::Full),
            Some(entry) => {
                entry.text_len.store(len, Relaxed);
                entry.text_head.store(chain.head, Relaxed);
                Ok(())
            }
        };
        drop(shard);
        if attached.is_err() {
            self.arena.push(chain);
        }
        attached
    }

    /// Removes the entry of a key, dirty or not; was there one? Not counted as an eviction. Allocates
    /// nothing, cannot fail.
    pub fn remove(&self, key: &Key<'_>) -> bool {
        let shard = self.shard_mut(key);
        let garbage = shard
            .find_or_abandon(key)
            .and_then(|head| shard.detach(head));
        drop(shard);
        let found = garbage.is_some();
        if let Some(garbage) = garbage {
            garbage.release(&self.arena);
        }
        found
    }
}
