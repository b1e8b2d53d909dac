//! How a commit publishes: marks before the commit record, entries after it.
//!
//! A [`Publication`] is built before the commit record, where it may evict and fail. Once it exists it
//! ends in exactly one of [`Publication::commit`] and [`Publication::abort`], which allocate nothing
//! and cannot fail.

use super::read::Version;
use super::stats::Counter;
use super::visibility::own_full_xid;
use crate::catalog::{Catalog, Class};
use crate::shared::{self, SharedL1};
use crate::sys;
use state_cache_l1::{Block, NewEntry, Refused};

/// A state that this transaction has changed.
pub struct Changed<'a> {
    /// Its class's name.
    pub class: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// What L1 is to hold of it, if that is known and worth it; else its entry is removed.
    pub new: Option<NewValue<'a>>,
}

/// The version that this transaction made.
pub struct NewValue<'a> {
    /// The class, for its limits and counters.
    pub class: &'a Class,
    /// Number, expiry and hash.
    pub version: Version,
    /// Binary jsonb.
    pub document: &'a [u8],
}

/// One transaction may not replace more than this part of L1; what it changes beyond that leaves L1.
const LARGEST_SHARE: u64 = 2;

/// The marks of one transaction.
#[derive(Default)]
pub struct Publication {
    entries: Vec<Entry>,
    /// Bytes of the documents that have L1 memory reserved.
    reserved: u64,
    /// The database as a whole, when not single keys but everything changed.
    domain: Option<u32>,
}

struct Entry {
    database: u32,
    incarnation: u64,
    class: Box<[u8]>,
    key: Box<[u8]>,
    block: Option<Block>,
}

impl Publication {
    /// Reserves room for what L1 is to hold of a state, and marks the state as about to change.
    pub fn add(&mut self, catalog: &Catalog, changed: &Changed<'_>) {
        let Some(l1) = shared::l1() else { return };
        let key = shared::key(
            catalog.database,
            catalog.incarnation,
            changed.class,
            changed.key,
        );
        let mut entry = Entry {
            database: key.db,
            incarnation: key.incarnation,
            class: changed.class.into(),
            key: changed.key.into(),
            block: None,
        };
        // Room for it must be there before memory is reserved that only the list knows of.
        self.entries.reserve(1);
        entry.block = changed
            .new
            .as_ref()
            .and_then(|new| self.reserve(l1, key, new));
        if !crate::fault::leaves_out!(WritersMark) {
            l1.stripe(key.id).enter();
        }
        self.entries.push(entry);
    }

    fn reserve(
        &mut self,
        l1: &SharedL1,
        key: shared::Key<'_>,
        new: &NewValue<'_>,
    ) -> Option<Block> {
        let wanted = new.document.len() as u64;
        if self.reserved + wanted > l1.geometry().bytes() as u64 / LARGEST_SHARE {
            return None;
        }
        let block = reserve(l1, key, new)?;
        self.reserved += wanted;
        Some(block)
    }

    /// Marks everything in this database as about to change.
    pub fn add_all(&mut self, catalog: &Catalog) {
        if let (Some(l1), None) = (shared::l1(), self.domain) {
            l1.domain(catalog.database).enter();
            self.domain = Some(catalog.database);
        }
    }

    /// Publishes; the commit is visible to others.
    pub fn commit(&mut self) {
        let Some(l1) = shared::l1() else { return };
        self.reserved = 0;
        if let Some(database) = self.domain.take() {
            let domain = l1.domain(database);
            domain.publish();
            domain.leave();
        }
        for entry in self.entries.drain(..) {
            let key = shared::key(entry.database, entry.incarnation, &entry.class, &entry.key);
            match entry.block {
                Some(block) => l1.link(block),
                None => drop(l1.remove(&key)),
            }
            let stripe = l1.stripe(key.id);
            stripe.publish();
            if !crate::fault::leaves_out!(WritersMark) {
                stripe.leave();
            }
        }
    }

    /// Takes everything back; the transaction has failed.
    pub fn abort(&mut self) {
        let Some(l1) = shared::l1() else { return };
        self.reserved = 0;
        if let Some(database) = self.domain.take() {
            l1.domain(database).leave();
        }
        for entry in self.entries.drain(..) {
            let key = shared::key(entry.database, entry.incarnation, &entry.class, &entry.key);
            if let Some(block) = entry.block {
                l1.discard(block);
            }
            if !crate::fault::leaves_out!(WritersMark) {
                l1.stripe(key.id).leave();
            }
        }
    }
}

fn reserve(l1: &SharedL1, key: shared::Key<'_>, new: &NewValue<'_>) -> Option<Block> {
    let writer = own_full_xid();
    let reserved = l1.reserve(&NewEntry {
        key,
        class: new.class.counters.class_id(),
        max_entries: new.class.max_entries,
        version: new.version.number,
        head_xid: writer,
        doc_xid: writer,
        hash: new.version.hash,
        expires_at: new.version.expires_at,
        loaded_at: sys::statement_timestamp(),
        dirty: None,
        value: new.document,
    });
    match reserved {
        Ok(block) => Some(block),
        Err(Refused::TooLarge) => {
            new.class.counters.count(Counter::TooLarge);
            None
        }
        Err(Refused::Full | Refused::Gone) => None,
    }
}
