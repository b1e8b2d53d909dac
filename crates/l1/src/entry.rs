//! What an entry is: its key, its header in shared memory, and what callers hand in and get back.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::class::ClassId;
use crate::dirty::Dirty;
use crate::geometry::{CHUNK, NO_CHUNK};

/// Longest class name in bytes (PostgreSQL's NAMEDATALEN - 1).
pub const MAX_CLASS: usize = 63;

/// Longest key in bytes.
pub const MAX_KEY: usize = 1000;

/// Bytes of the header at the start of an entry's first chunk.
pub(crate) const HEADER: usize = size_of::<EntryHeader>();

// A usual class and key fit into the first chunk, so that a lookup compares them in one piece: 80 bytes
// are left for them, a class name of 12 and a key of two UUIDs in hexadecimal or so. The header is three
// cache lines of 64 bytes.
const _: () = assert!(HEADER <= 176);

/// Bit of [`EntryHeader::flags`]: the entry is dirty, and so in its partition's list of such.
pub(crate) const DIRTY: u8 = 1;

/// Bit of [`EntryHeader::flags`]: the dirty entry has been put aside.
pub(crate) const PARKED: u8 = 2;

/// Bit of [`EntryHeader::flags`]: the state was changed in the tables and the dirty entry left as it is, so
/// that what is written of the entry need not be what the tables hold.
pub(crate) const OVERTAKEN: u8 = 4;

/// Every so many chunks of a long chain, the skip table names one.
pub(crate) const SKIP: usize = 64;

/// Skip table slots per chunk.
pub(crate) const SLOTS: usize = CHUNK / size_of::<u32>();

/// A 128-bit hash over database, incarnation, class and key, computed by the caller. Every bit must be
/// well mixed: partition, bucket and stripe are taken straight from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub u128);

impl KeyId {
    pub(crate) fn words(self) -> [u64; 2] {
        [self.0 as u64, (self.0 >> 64) as u64]
    }
}

/// The full name of a state.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// Hash of all that follows.
    pub id: KeyId,
    /// Database oid.
    pub db: u32,
    /// Which installation of the extension in that database the entry belongs to.
    pub incarnation: u64,
    /// Class name, at most [`MAX_CLASS`] bytes.
    pub class: &'a [u8],
    /// Key, at most [`MAX_KEY`] bytes.
    pub key: &'a [u8],
}

/// What [`L1::reserve`](crate::L1::reserve) copies into a block.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The state's name.
    pub key: Key<'a>,
    /// The class whose gauges and counters the entry belongs to.
    pub class: ClassId,
    /// Most entries of this class in the cache; `None` is no limit.
    pub max_entries: Option<u32>,
    /// The state's version.
    pub version: i64,
    /// Full transaction id that wrote the head row.
    pub head_xid: u64,
    /// Full transaction id that wrote the document row.
    pub doc_xid: u64,
    /// Hash of the value.
    pub hash: u128,
    /// When the state expires, in the caller's unit of time; `i64::MAX` is never.
    pub expires_at: i64,
    /// When it was written or filled, in the same unit. Eviction takes it for the present: entries
    /// with `expires_at` at or before it are victims at once.
    pub loaded_at: i64,
    /// What makes the entry dirty; `None` is clean.
    pub dirty: Option<Dirty>,
    /// How the tables store the value, in the caller's terms; 0 where that is not known.
    pub stored: u64,
    /// The value.
    pub value: &'a [u8],
}

/// What is known of an entry besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryInfo {
    /// The state's version.
    pub version: i64,
    /// Full transaction id that wrote the head row.
    pub head_xid: u64,
    /// Full transaction id that wrote the document row; that of the head row for a dirty entry, which has neither.
    pub doc_xid: u64,
    /// Hash of the value.
    pub hash: u128,
    /// When the state expires, in the caller's unit of time; `i64::MAX` is never. The cache returns
    /// expired entries: the caller has the clock.
    pub expires_at: i64,
    /// When it was written or filled, in the same unit.
    pub loaded_at: i64,
    /// Bytes of the value.
    pub value_len: u32,
    /// Bytes of the text form, where one is attached.
    pub text_len: Option<u32>,
    /// Unique per entry since the memory was initialised: the same serial is the same entry.
    pub serial: u64,
    /// The class whose gauges and counters the entry belongs to.
    pub class: ClassId,
    /// Bytes of chunks that the entry and its text form occupy.
    pub bytes: u64,
    /// What makes the entry dirty; `None` is clean.
    pub dirty: Option<Dirty>,
    /// How the tables store the value, in the caller's terms; 0 where that is not known.
    pub stored: u64,
}

/// The start of an entry's first chunk. The plain fields are written before the entry is linked and
/// never again; the atomic ones change under the partition's exclusive lock, `visited` under either.
#[repr(C)]
pub(crate) struct EntryHeader {
    pub id: [u64; 2],
    pub incarnation: u64,
    pub version: AtomicI64,
    pub head_xid: AtomicU64,
    /// Of a dirty entry, whose document no row holds: [`Dirty::beside`].
    pub doc_xid: AtomicU64,
    pub hash: [u64; 2],
    pub expires_at: i64,
    pub loaded_at: i64,
    pub serial: u64,
    pub stored: u64,
    /// Of a dirty entry: [`Dirty::since`].
    pub since: AtomicI64,
    /// Of a dirty entry: [`Dirty::base`].
    pub base: AtomicI64,
    pub domain_generation: AtomicU64,
    pub db: u32,
    pub class: u32,
    pub class_len: u16,
    pub key_len: u16,
    pub value_len: u32,
    /// All chunks of the chain, skip table included.
    pub chunks: u32,
    /// First chunk of the skip table, or NO_CHUNK.
    pub skip: u32,
    pub text_head: AtomicU32,
    pub text_len: AtomicU32,
    pub bucket_next: AtomicU32,
    /// Neighbour towards the head of the FIFO, or of the dirty list.
    pub newer: AtomicU32,
    /// Neighbour towards the tail of the FIFO, or of the dirty list.
    pub older: AtomicU32,
    /// Of a dirty entry: [`Dirty::owner`].
    pub owner: u32,
    pub visited: AtomicU8,
    /// [`DIRTY`], [`PARKED`] and [`OVERTAKEN`].
    pub flags: AtomicU8,
}

/// How many chunks hold `bytes` bytes of header, names and value, and how many the skip table over
/// them adds. The table names chunk 64, 128, ... of the chain, so that reading a few bytes far inside a
/// long value need not follow every link.
pub(crate) fn chunks_for(bytes: usize) -> (usize, usize) {
    let data = bytes.div_ceil(CHUNK);
    let slots = data.saturating_sub(1) / SKIP;
    (data, slots.div_ceil(SLOTS))
}

/// Chunks of a text form of `len` bytes.
pub(crate) fn text_chunks(len: u32) -> u32 {
    len.div_ceil(CHUNK as u32)
}

/// The flags of an entry that is dirty, or not.
pub(crate) fn flags_of(dirty: Option<Dirty>) -> u8 {
    match dirty {
        None => 0,
        Some(Dirty { parked: false, .. }) => DIRTY,
        Some(Dirty { parked: true, .. }) => DIRTY | PARKED,
    }
}

impl EntryHeader {
    /// Where the value begins, counted from the start of the chain.
    pub fn value_at(&self) -> usize {
        HEADER + usize::from(self.class_len) + usize::from(self.key_len)
    }

    /// Do the lengths agree with each other?
    pub fn is_sound(&self) -> bool {
        let (data, skip) = chunks_for(self.value_at() + self.value_len as usize);
        usize::from(self.class_len) <= MAX_CLASS
            && usize::from(self.key_len) <= MAX_KEY
            && data + skip == self.chunks as usize
            && (skip == 0) == (self.skip == NO_CHUNK)
    }

    /// Is this the entry of `key`, as far as the header tells?
    pub fn may_be(&self, key: &Key<'_>) -> bool {
        self.id == key.id.words()
            && self.db == key.db
            && self.incarnation == key.incarnation
            && usize::from(self.class_len) == key.class.len()
            && usize::from(self.key_len) == key.key.len()
    }

    /// The hash that names the entry's state.
    pub fn key_id(&self) -> KeyId {
        KeyId(u128::from(self.id[0]) | u128::from(self.id[1]) << 64)
    }

    pub fn text(&self) -> Option<(u32, u32)> {
        match self.text_head.load(Relaxed) {
            NO_CHUNK => None,
            head => Some((head, self.text_len.load(Relaxed))),
        }
    }

    /// Marks a hit. Read first: a store would take the cache line away from all other readers.
    pub fn touch(&self) {
        if self.visited.load(Relaxed) == 0 {
            self.visited.store(1, Relaxed);
        }
    }

    pub fn is_dirty(&self) -> bool {
        self.flags.load(Relaxed) & DIRTY != 0
    }

    pub fn dirty(&self) -> Option<Dirty> {
        self.is_dirty().then(|| Dirty {
            since: self.since.load(Relaxed),
            base: self.base.load(Relaxed),
            owner: self.owner,
            beside: self.doc_xid.load(Relaxed),
            parked: self.flags.load(Relaxed) & PARKED != 0,
        })
    }

    pub fn occupied_chunks(&self) -> u64 {
        let text = self.text().map_or(0, |(_, len)| text_chunks(len));
        u64::from(self.chunks) + u64::from(text)
    }

    pub fn info(&self) -> EntryInfo {
        let dirty = self.dirty();
        EntryInfo {
            version: self.version.load(Relaxed),
            head_xid: self.head_xid.load(Relaxed),
            doc_xid: match dirty {
                None => self.doc_xid.load(Relaxed),
                Some(_) => self.head_xid.load(Relaxed),
            },
            hash: u128::from(self.hash[0]) | u128::from(self.hash[1]) << 64,
            expires_at: self.expires_at,
            loaded_at: self.loaded_at,
            value_len: self.value_len,
            text_len: self.text().map(|(_, len)| len),
            serial: self.serial,
            class: ClassId(self.class),
            bytes: self.occupied_chunks() * CHUNK as u64,
            dirty,
            stored: self.stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skip_table_has_a_slot_for_every_64th_chunk() {
        assert_eq!(chunks_for(1), (1, 0));
        assert_eq!(chunks_for(64 * CHUNK), (64, 0));
        assert_eq!(chunks_for(64 * CHUNK + 1), (65, 1));
        assert_eq!(chunks_for(64 * 65 * CHUNK), (64 * 65, 1));
        assert_eq!(chunks_for(64 * 65 * CHUNK + 1), (64 * 65 + 1, 2));
    }
}
