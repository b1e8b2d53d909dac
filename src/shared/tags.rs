//! Marks of what derived documents depend on beside their own keys: all of a class, and the definitions of a
//! database. What they are for says the header of `derived`.

use state_cache_l1::Mark;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Marks of classes. Classes whose names have the same hash share one: a change of the one costs the other its
/// entries.
const CLASSES: usize = 256;
/// Marks of the definitions of databases. Databases whose numbers leave the same remainder share one, likewise.
const DATABASES: usize = 64;

/// The marks; all bytes are zero at first.
#[repr(C)]
pub struct Tags {
    /// Some session has looked at a derived class since the server started. Until then nobody holds a document.
    used: AtomicBool,
    definitions: [Tag; DATABASES],
    classes: [Tag; CLASSES],
}

/// What documents depend on.
#[repr(C)]
pub struct Tag {
    /// Of documents that depend on it: which commits are in progress, and how many there have been.
    pub mark: Mark,
    /// The highest full id of a transaction that was about to commit a change of it; 0 for none since the server
    /// started. For a class also of single documents.
    changed: AtomicU64,
    /// How often somebody has had entries of the class evicted.
    evicted: AtomicU64,
}

impl Tag {
    /// A transaction is about to commit a change. Allocates nothing, cannot fail.
    pub fn note_change(&self, xid: u64) {
        self.changed.fetch_max(xid, SeqCst);
    }

    /// The last one that was, 0 for none. Asked after a snapshot was taken, the answer is not below any that the
    /// snapshot sees.
    pub fn last_change(&self) -> u64 {
        self.changed.load(SeqCst)
    }

    /// Entries of the class are about to be evicted by request: fills begun before this are refused.
    pub fn note_eviction(&self) {
        self.evicted.fetch_add(1, SeqCst);
    }

    /// How often that has happened.
    pub fn evictions(&self) -> u64 {
        self.evicted.load(SeqCst)
    }
}

impl Tags {
    /// A session looks at a derived class.
    pub fn note_use(&self) {
        if !self.used.load(SeqCst) {
            self.used.store(true, SeqCst);
        }
    }

    /// Whether one has since the server started.
    pub fn are_used(&self) -> bool {
        self.used.load(SeqCst)
    }

    /// The definitions of a database: tables, functions, privileges, and the roles of the server.
    pub fn definitions(&self, database: u32) -> &Tag {
        &self.definitions[database as usize % DATABASES]
    }

    /// Those of all databases.
    pub fn all_definitions(&self) -> &[Tag] {
        &self.definitions
    }

    /// All classes, of all databases.
    pub fn all_classes(&self) -> &[Tag] {
        &self.classes
    }

    /// All documents of a class, by the hash of its name.
    pub fn class(&self, hash: u128) -> &Tag {
        &self.classes[hash as usize % CLASSES]
    }
}
