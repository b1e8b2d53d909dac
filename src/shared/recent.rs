//! The last changes of derived documents, for subscribers that were away.
//!
//! # Contract
//!
//! - **Who writes.** A commit, before its commit record and under the lock of the ring alone: for each document that
//!   may be another one now, for each class of which any may be, and for definitions that it changes. One that aborts
//!   after that has written in vain.
//! - **Who reads.** Whoever asks what has changed since a cursor, under the lock shared with others, after taking a
//!   snapshot. Whatever the snapshot sees was written before it was taken, so the reader finds it here, or finds
//!   that it was overwritten.
//! - **What is overwritten** raises the horizon to its transaction id. A reader whose cursor may not see all up to
//!   the horizon goes by the classes' own last changes ([`super::Tag::last_change`]).
//! - A writer that dies under the lock makes the server start anew: then nothing is known, which readers find out by
//!   the start that their cursor names.
//!
//! Records stand one after the other in words of 8 bytes, around the end: transaction id; number of the database,
//! length of class and of key; class and key. Positions only grow.

use crate::error::Result;
use state_cache_memory::Grow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Words of the ring: 256 kB, some thousand records.
const WORDS: usize = 32 * 1024;
/// Words in front of the names.
const HEAD: usize = 2;

/// The ring; all bytes are zero at first.
#[repr(C)]
pub(super) struct Ring {
    head: AtomicU64,
    tail: AtomicU64,
    horizon: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// Which database, and how long the names are.
fn sizes(word: u64) -> (u32, usize, usize) {
    (
        word as u32,
        (word >> 32 & 0xff) as usize,
        (word >> 40) as usize,
    )
}

fn words_of(class: usize, key: usize) -> usize {
    HEAD + (class + key).div_ceil(size_of::<u64>())
}

impl Ring {
    fn word(&self, at: u64) -> &AtomicU64 {
        &self.words[at as usize % WORDS]
    }

    /// Writes a record; the lock is held alone.
    pub fn append(&self, xid: u64, database: u32, class: &[u8], key: &[u8]) {
        let wanted = words_of(class.len(), key.len());
        if wanted > WORDS / 2 {
            // No name is that long; then nobody may rely on what is here.
            self.horizon.store(u64::MAX, Relaxed);
            return;
        }
        let head = self.head.load(Relaxed);
        let end = head + wanted as u64;
        let mut tail = self.tail.load(Relaxed);
        while end - tail > WORDS as u64 {
            let (_, class, key) = sizes(self.word(tail + 1).load(Relaxed));
            self.horizon
                .fetch_max(self.word(tail).load(Relaxed), Relaxed);
            tail += words_of(class, key) as u64;
        }
        self.tail.store(tail, Relaxed);
        self.word(head).store(xid, Relaxed);
        let sizes = u64::from(database) | (class.len() as u64) << 32 | (key.len() as u64) << 40;
        self.word(head + 1).store(sizes, Relaxed);
        let mut at = head + HEAD as u64;
        let mut bytes = class.iter().chain(key).copied();
        while at < end {
            let mut word = [0; size_of::<u64>()];
            word.fill_with(|| bytes.next().unwrap_or(0));
            self.word(at).store(u64::from_ne_bytes(word), Relaxed);
            at += 1;
        }
        self.head.store(end, Relaxed);
    }

    /// Copies everything into a room that was made before; the lock is held.
    pub fn copy(&self, mut into: Vec<u64>) -> Recent {
        let (mut at, head) = (self.tail.load(Relaxed), self.head.load(Relaxed));
        into.clear();
        while at < head && into.len() < into.capacity() {
            into.push(self.word(at).load(Relaxed));
            at += 1;
        }
        Recent {
            words: into,
            horizon: self.horizon.load(Relaxed),
        }
    }

    /// Room for everything.
    ///
    /// # Errors
    /// `53200`.
    pub fn room() -> Result<Vec<u64>> {
        let mut room = Vec::new();
        room.try_room(WORDS)?;
        Ok(room)
    }
}

/// What the ring held at a moment.
pub struct Recent {
    words: Vec<u64>,
    /// No record is missing of transactions above that.
    pub horizon: u64,
}

/// One change.
pub struct Change<'a> {
    /// The transaction.
    pub xid: u64,
    /// Of which database; 0 for all.
    pub database: u32,
    /// The class; empty for all of the database.
    pub class: &'a [u8],
    /// The document; empty for all of the class.
    pub key: &'a [u8],
}

impl Recent {
    /// The changes, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let [xid, word] = *self.words.get(at..at + HEAD)? else {
                return None;
            };
            let (database, class, key) = sizes(word);
            let names = self.words.get(at + HEAD..at + words_of(class, key))?;
            // SAFETY: the bytes of numbers, which live as long as `self`.
            let names = unsafe {
                std::slice::from_raw_parts(names.as_ptr().cast::<u8>(), size_of_val(names))
            };
            at += words_of(class, key);
            let (class, rest) = names.split_at_checked(class)?;
            Some(Change {
                xid,
                database,
                class,
                key: rest.get(..key)?,
            })
        })
    }
}
