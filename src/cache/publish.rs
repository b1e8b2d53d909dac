//! How a commit publishes: marks before the commit record, entries after it.
//!
//! A [`Publication`] is built before the commit record, where it may evict and fail. Once it exists it
//! ends in exactly one of [`Publication::commit`] and [`Publication::abort`], which allocate nothing
//! and cannot fail.
//!
//! A dirty entry leaves L1, or becomes clean, only when a transaction has committed that wrote the state
//! through, or wrote that very entry ([`Settlement`]), or truncated the tables.

use super::read::Version;
use super::stats::Counter;
use super::visibility::own_full_xid;
use crate::catalog::{Catalog, Class};
use crate::shared::{self, Database, SharedL1};
use crate::sys;
use pgrx::pg_sys;
use state_cache_l1::{Block, Dirty, NewEntry, Refused};

/// A state that this transaction has changed.
pub struct Changed<'a> {
    /// Its class's name.
    pub class: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// What L1 is to hold of it.
    pub new: New<'a>,
}

/// What L1 is to hold of a state that has changed.
pub enum New<'a> {
    /// This version, which L3 holds; nothing where there is no room for it.
    Version(NewValue<'a>),
    /// Nothing: what L3 holds is not known here, or not worth the room.
    Nothing,
    /// Nothing, unless L1 holds a version that L3 does not: a change by hand does not end that.
    NothingClean,
}

/// What becomes of a dirty entry when the transaction that wrote it to L3 commits.
pub struct Settlement {
    /// Database.
    pub database: u32,
    /// Installation.
    pub incarnation: u64,
    /// The class's name.
    pub class: Box<[u8]>,
    /// The key.
    pub key: Box<[u8]>,
    /// The entry.
    pub serial: u64,
    /// When it was read, in microseconds since 2000: changes made after that are not in L3.
    pub read_at: i64,
    /// What was written.
    pub wrote: Wrote,
}

/// What was written of a dirty entry.
pub enum Wrote {
    /// L3 holds it, as this version.
    Version {
        /// The version.
        version: i64,
        /// The transaction that wrote it.
        xid: u64,
    },
    /// Nothing: L3 has something newer.
    Nothing,
}

impl Settlement {
    /// The transaction has committed. Allocates nothing, cannot fail.
    pub fn commit(&self) {
        let Some(l1) = shared::l1() else { return };
        let key = shared::key(self.database, self.incarnation, &self.class, &self.key);
        match self.wrote {
            Wrote::Version { version, xid } => {
                l1.settle(&key, self.serial, version, xid, self.read_at);
            }
            Wrote::Nothing => drop(l1.drop_dirty_entry(&key, self.serial)),
        }
    }
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

/// Who has left a version to the worker, and upon what.
#[derive(Debug, Clone, Copy)]
pub struct LeftBy {
    /// The role.
    pub owner: pg_sys::Oid,
    /// Version of L3's row beneath it, 0 for none.
    pub base: i64,
    /// Whether the transaction has rows of the state in L3: a dirty entry of before has nothing to say then.
    pub over_own_rows: bool,
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
    /// The installation whose tables were truncated.
    truncated: Option<(u32, u64)>,
    /// When the first of the states expires; the worker is to remove it then.
    expires: Option<(&'static Database, i64)>,
    /// Whether a version is left to the worker, which must wait for it before it leaves.
    leaving_behind: Option<&'static Database>,
}

struct Entry {
    database: u32,
    incarnation: u64,
    class: Box<[u8]>,
    key: Box<[u8]>,
    block: Option<Block>,
    /// What becomes of a dirty entry of before.
    before: Before,
}

/// What becomes of a dirty entry that a commit finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It goes, as any entry does; a dirty one in its place carries on for it.
    Replaced,
    /// It goes, and nothing carries on for it.
    Ended,
    /// It stays.
    Spared,
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
        // Room for it must be there before memory is reserved that only the list knows of.
        self.entries.reserve(1);
        let block = match &changed.new {
            New::Version(new) => self.reserve(l1, key, new, None),
            New::Nothing | New::NothingClean => None,
        };
        let before = match changed.new {
            New::NothingClean => Before::Spared,
            New::Version(_) | New::Nothing => Before::Replaced,
        };
        self.push(l1, key, block, before);
    }

    /// Reserves room for a version that is left to the worker, and marks the state as about to change;
    /// whether L1 takes it. If so [`Publication::enter_behind`] was called before.
    pub fn leave(
        &mut self,
        catalog: &Catalog,
        name: (&[u8], &[u8]),
        new: &NewValue<'_>,
        left_by: LeftBy,
    ) -> bool {
        let Some(l1) = shared::l1() else { return false };
        let key = shared::key(catalog.database, catalog.incarnation, name.0, name.1);
        self.entries.reserve(1);
        let dirty = Dirty {
            since: sys::now(),
            base: left_by.base,
            owner: left_by.owner.to_u32(),
            parked: false,
        };
        match self.reserve(l1, key, new, Some(dirty)) {
            Some(block) => {
                let before = match left_by.over_own_rows {
                    true => Before::Ended,
                    false => Before::Replaced,
                };
                self.push(l1, key, Some(block), before);
                true
            }
            None => false,
        }
    }

    /// The worker has something to do at that time (`i64::MAX` for never).
    pub fn needs_worker_by(&mut self, time: i64) {
        if time < self.expires.map_or(i64::MAX, |(_, time)| time) {
            self.expires = shared::database().map(|database| (database, time));
        }
    }

    /// Asks whether versions may be left to the worker; from then on it waits for this transaction.
    pub fn enter_behind(&mut self) -> bool {
        if self.leaving_behind.is_none() {
            self.leaving_behind = shared::database().filter(|database| database.enter_behind());
        }
        self.leaving_behind.is_some()
    }

    fn push(&mut self, l1: &SharedL1, key: shared::Key<'_>, block: Option<Block>, before: Before) {
        let entry = Entry {
            database: key.db,
            incarnation: key.incarnation,
            class: key.class.into(),
            key: key.key.into(),
            block,
            before,
        };
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
        dirty: Option<Dirty>,
    ) -> Option<Block> {
        let wanted = new.document.len() as u64;
        if self.reserved + wanted > l1.geometry().bytes() as u64 / LARGEST_SHARE {
            return None;
        }
        let block = reserve(l1, key, new, dirty)?;
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

    /// Marks the tables of an installation as about to be emptied: what L1 alone holds goes with them.
    pub fn truncate(&mut self, catalog: &Catalog) {
        self.add_all(catalog);
        self.truncated = Some((catalog.database, catalog.incarnation));
    }

    /// Publishes; the commit is visible to others.
    pub fn commit(&mut self) {
        let Some(l1) = shared::l1() else { return };
        self.reserved = 0;
        if let Some((database, incarnation)) = self.truncated.take() {
            l1.drop_dirty(database, |of, _, _| of == incarnation);
        }
        if let Some(database) = self.domain.take() {
            let domain = l1.domain(database);
            domain.publish();
            domain.leave();
        }
        for entry in self.entries.drain(..) {
            let key = shared::key(entry.database, entry.incarnation, &entry.class, &entry.key);
            match (entry.block, entry.before) {
                (Some(block), Before::Ended) => {
                    l1.remove(&key);
                    l1.link(block);
                }
                (Some(block), _) => l1.link(block),
                (None, Before::Spared) => drop(l1.remove_clean(&key)),
                (None, _) => drop(l1.remove(&key)),
            }
            let stripe = l1.stripe(key.id);
            stripe.publish();
            if !crate::fault::leaves_out!(WritersMark) {
                stripe.leave();
            }
        }
        if let Some((database, time)) = self.expires.take() {
            database.need_worker_by(time);
        }
        if let Some(database) = self.leaving_behind {
            database.want_flush();
        }
        self.leave_behind();
    }

    fn leave_behind(&mut self) {
        if let Some(database) = self.leaving_behind.take() {
            database.leave_behind();
        }
    }

    /// Takes everything back; the transaction has failed.
    pub fn abort(&mut self) {
        let Some(l1) = shared::l1() else { return };
        self.reserved = 0;
        self.truncated = None;
        self.expires = None;
        self.leave_behind();
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

fn reserve(
    l1: &SharedL1,
    key: shared::Key<'_>,
    new: &NewValue<'_>,
    dirty: Option<Dirty>,
) -> Option<Block> {
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
        value: new.document,
        dirty,
        stored: new.version.storage.bits(),
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
