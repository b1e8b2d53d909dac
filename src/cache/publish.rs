//! How a commit publishes: marks before the commit record, entries after it.
//!
//! A [`Publication`] is built before the commit record, where it may evict and fail. Once it exists it
//! ends in exactly one of [`Publication::publish`] and [`Publication::withdraw`], which allocate nothing
//! and cannot fail; should one of them panic, [`Publication::withdraw`] ends it.
//!
//! # The order of events
//!
//! | | committer | what another backend can do before the next step |
//! | --- | --- | --- |
//! | 1 | flush: rows written, their locks held | wait for the row; commit changes of other states |
//! | 2 | raise `writers`, then note the stripe's generation and the entry that is there | publish an older version:
//! its writer was visible before step 1, its callback comes only now |
//! | 3 | commit record, flush to disk | the same |
//! | 4 | visible (`ProcArrayEndTransaction`); row locks are still held, and nobody waits for them any more | change
//! the same row *without waiting*, raise `writers`, become visible, **publish a newer version** |
//! | 5 | callback: publish in time or late, raise the generation, lower `writers` | the same |
//! | 6 | heavyweight and row locks released | |
//!
//! Whatever happens at 4, a version never takes the place of a newer one: `state_cache_l1` says how a
//! committer that comes late at 5 finds out (`publish`). It goes by what was changed:
//!
//! - **Link** (a version written through) and **remove** (delete, touch, no room): as said there.
//! - **A change by hand** removes a clean entry; a dirty one stays and is marked as overtaken.
//! - **A deferred version** is linked in every case: its state lock is held until 6, and changes
//!   of the state by hand take that lock before 2.
//! - **Marking clean** takes no lock of the state. It makes its entry clean only if nobody has changed the
//!   rows since the entry was linked, and removes it else.
//! - **The domain** (TRUNCATE, many changes by hand): raising its generation makes every entry linked or
//!   noted before unreadable, so a version noted before and linked after is never read. TRUNCATE holds
//!   its table lock until 6, and takes the class locks before 2, so nothing is deferred meanwhile.
//!
//! A dirty entry leaves L1, or becomes clean, only when a transaction has committed that wrote the state
//! through, or wrote that very entry ([`WrittenBack`]), or truncated the tables.

use super::found::Version;
use super::visibility::own_full_xid;
use crate::catalog::{Catalog, Class};
use crate::counters::Counter;
use crate::shared::{self, Database, SharedL1};
use crate::sys;
use pgrx::pg_sys;
use state_cache_l1::{Block, Dirty, DirtyBefore, Mark, NewEntry, Noted, Refused, Removes};
use state_cache_memory::{Grow, OutOfMemory};

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
pub struct WrittenBack {
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

impl WrittenBack {
    /// The transaction has committed. Allocates nothing, cannot fail.
    pub fn mark_clean(&self) {
        let Some(l1) = shared::l1() else { return };
        let key = shared::key(self.database, self.incarnation, &self.class, &self.key);
        match self.wrote {
            Wrote::Version { version, xid } => {
                l1.mark_clean(&key, self.serial, version, xid, self.read_at);
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
pub struct DeferredBy {
    /// The role.
    pub owner: pg_sys::Oid,
    /// Version of L3's row beneath it, 0 for none.
    pub base: i64,
    /// Whether the transaction has rows of the state in L3: a dirty entry of before has nothing to say then.
    pub over_own_rows: bool,
    /// What becomes of the time to live that the state remembers, packed.
    pub ttl: u64,
}

/// One transaction may not replace more than this part of L1; what it changes beyond that leaves L1.
const LARGEST_SHARE: u64 = 2;

/// The marks of one transaction.
#[derive(Default)]
pub struct Publication {
    entries: Vec<Entry>,
    /// Marks of derived classes of which any document may have changed.
    classes: Vec<&'static Mark>,
    /// Bytes of the documents that have L1 memory reserved.
    reserved: u64,
    /// The database as a whole, when not single keys but everything changed.
    domain: Option<u32>,
    /// The installation whose tables were truncated.
    truncated: Option<(u32, u64)>,
    /// When the first of the states expires; the worker is to remove it then.
    expires: Option<(&'static Database, i64)>,
    /// The database whose worker waits for this transaction before it leaves, since the transaction defers a version.
    deferring: Option<&'static Database>,
}

struct Entry {
    database: u32,
    incarnation: u64,
    class: Box<[u8]>,
    key: Box<[u8]>,
    block: Option<Block>,
    /// What becomes of a dirty entry of before.
    before: Before,
    /// The number of the state's stripe.
    stripe: usize,
    /// What tells whether it is published late.
    noted: Noted,
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
    /// There is none: the entry is a derived document, which goes.
    Computed,
}

impl Publication {
    /// Reserves room for what L1 is to hold of a state, and marks the state as about to change.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is reserved or marked then.
    pub fn add(&mut self, catalog: &Catalog, changed: &Changed<'_>) -> Result<(), OutOfMemory> {
        let Some(l1) = shared::l1() else {
            return Ok(());
        };
        let key = shared::key(
            catalog.database,
            catalog.incarnation,
            changed.class,
            changed.key,
        );
        // Room for it must be there before memory is reserved that only the list knows of.
        self.entries.try_room(1)?;
        let block = match &changed.new {
            New::Version(new) => self.reserve(l1, key, new, None),
            New::Nothing | New::NothingClean => None,
        };
        let before = match changed.new {
            New::NothingClean => Before::Spared,
            New::Version(_) | New::Nothing => Before::Replaced,
        };
        self.push(l1, key, block, before);
        Ok(())
    }

    /// Marks the document of a derived class as about to change.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is marked then.
    pub fn add_derived(
        &mut self,
        catalog: &Catalog,
        class: &[u8],
        key: &[u8],
    ) -> Result<(), OutOfMemory> {
        let Some(l1) = shared::l1() else {
            return Ok(());
        };
        self.entries.try_room(1)?;
        if let Some(tag) = shared::class_tag(catalog.database, catalog.incarnation, class) {
            tag.note_change(own_full_xid());
        }
        shared::note_recent(own_full_xid(), catalog.database, class, key);
        let key = shared::derived_key(catalog.database, catalog.incarnation, class, key);
        self.push(l1, key, None, Before::Computed);
        Ok(())
    }

    /// Marks all documents of a derived class as about to change.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is marked then.
    pub fn add_derived_class(
        &mut self,
        catalog: &Catalog,
        class: &[u8],
    ) -> Result<(), OutOfMemory> {
        let Some(tag) = shared::class_tag(catalog.database, catalog.incarnation, class) else {
            return Ok(());
        };
        tag.note_change(own_full_xid());
        shared::note_recent(own_full_xid(), catalog.database, class, &[]);
        let mark = &tag.mark;
        if !self.classes.iter().any(|known| std::ptr::eq(*known, mark)) {
            self.classes.try_push(mark)?;
            if !crate::fault::leaves_out!(WritersMark) {
                mark.raise();
            }
        }
        Ok(())
    }

    /// Reserves room for a version that is deferred, and marks the state as about to change;
    /// whether L1 takes it. If so [`Publication::begin_deferring`] was called before.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is reserved or marked then.
    pub fn defer(
        &mut self,
        catalog: &Catalog,
        name: (&[u8], &[u8]),
        new: &NewValue<'_>,
        deferred_by: DeferredBy,
    ) -> Result<bool, OutOfMemory> {
        let Some(l1) = shared::l1() else {
            return Ok(false);
        };
        let key = shared::key(catalog.database, catalog.incarnation, name.0, name.1);
        self.entries.try_room(1)?;
        let dirty = Dirty {
            since: sys::now(),
            base: deferred_by.base,
            owner: deferred_by.owner.to_u32(),
            beside: deferred_by.ttl,
            parked: false,
        };
        match self.reserve(l1, key, new, Some(dirty)) {
            Some(block) => {
                let before = match deferred_by.over_own_rows {
                    true => Before::Ended,
                    false => Before::Replaced,
                };
                self.push(l1, key, Some(block), before);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The worker has something to do at that time (`i64::MAX` for never).
    pub fn needs_worker_by(&mut self, time: i64) {
        if time < self.expires.map_or(i64::MAX, |(_, time)| time) {
            self.expires = shared::database().map(|database| (database, time));
        }
    }

    /// Asks whether versions may be deferred; from then on the worker waits for this transaction.
    pub fn begin_deferring(&mut self) -> bool {
        if self.deferring.is_none() {
            self.deferring = shared::database().filter(|database| database.begin_deferring());
        }
        self.deferring.is_some()
    }

    fn push(&mut self, l1: &SharedL1, key: shared::Key<'_>, block: Option<Block>, before: Before) {
        let (class, name) = (key.class.into(), key.key.into());
        if !crate::fault::leaves_out!(WritersMark) {
            l1.stripe(key.id).raise();
        }
        self.entries.push(Entry {
            database: key.db,
            incarnation: key.incarnation,
            class,
            key: name,
            block,
            before,
            stripe: l1.stripe_number(key.id),
            noted: l1.note(&key),
        });
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
            l1.domain(catalog.database).raise();
            self.domain = Some(catalog.database);
        }
    }

    /// Marks the tables of an installation as about to be emptied: what L1 alone holds goes with them.
    pub fn truncate(&mut self, catalog: &Catalog) {
        self.add_all(catalog);
        self.truncated = Some((catalog.database, catalog.incarnation));
    }

    /// All marks are raised. States of one stripe are published one after the other, so that what this
    /// transaction publishes itself is not taken for what others do.
    pub fn seal(&mut self) {
        self.entries.sort_unstable_by_key(|entry| entry.stripe);
    }

    /// Publishes; the commit is visible to others.
    pub fn publish(&mut self) {
        let Some(l1) = shared::l1() else { return };
        self.reserved = 0;
        if let Some((database, incarnation)) = self.truncated.take() {
            l1.drop_dirty(database, |of, _, _| of == incarnation);
        }
        if let Some(database) = self.domain.take() {
            let domain = l1.domain(database);
            domain.publish();
            domain.lower();
        }
        while let Some(class) = self.classes.pop() {
            class.publish();
            lower(class);
        }
        // How often this transaction itself has published in the stripe that it is at.
        let mut own = (usize::MAX, 0);
        while let Some(entry) = self.entries.last_mut() {
            own = match own {
                (stripe, times) if stripe == entry.stripe => (stripe, times + 1),
                _ => (entry.stripe, 0),
            };
            entry.publish(l1, own.1);
            self.entries.pop();
        }
        if let Some((database, time)) = self.expires.take() {
            database.need_worker_by(time);
        }
        if let Some(database) = self.deferring {
            database.want_flush();
        }
        self.end_deferring();
    }

    fn end_deferring(&mut self) {
        if let Some(database) = self.deferring.take() {
            database.end_deferring();
        }
    }

    /// Takes everything back; the transaction has failed.
    pub fn withdraw(&mut self) {
        let Some(l1) = shared::l1() else { return };
        self.reserved = 0;
        self.truncated = None;
        self.expires = None;
        self.end_deferring();
        if let Some(database) = self.domain.take() {
            l1.domain(database).lower();
        }
        while let Some(class) = self.classes.pop() {
            lower(class);
        }
        while let Some(entry) = self.entries.last_mut() {
            entry.withdraw(l1);
            self.entries.pop();
        }
    }

    /// Takes the marks back of what neither [`Publication::publish`] nor [`Publication::withdraw`] has come to,
    /// and the entries of those states out of L1: whether they are right nobody knows. Versions of these
    /// states that only L1 held are lost with them.
    pub fn give_up(&mut self) {
        if let Some(l1) = shared::l1() {
            for entry in &self.entries {
                l1.unlink(&entry.key(), entry.noted, Removes::Any);
            }
            for class in &self.classes {
                class.publish();
            }
        }
        self.withdraw();
    }
}

impl Entry {
    fn key(&self) -> shared::Key<'_> {
        shared::key(self.database, self.incarnation, &self.class, &self.key)
    }

    /// Publishes the state; `own` times this transaction has published in its stripe already.
    fn publish(&mut self, l1: &SharedL1, own: u64) {
        let block = self.block.take();
        let key = self.key();
        let noted = match crate::fault::leaves_out!(PublishOrder) {
            true => l1.note(&key),
            false => self.noted.after_own(own),
        };
        match (block, self.before) {
            (Some(block), Before::Ended) => l1.link(block, noted, DirtyBefore::Ended),
            (Some(block), _) => l1.link(block, noted, DirtyBefore::TakenOver),
            (None, Before::Spared) => drop(l1.unlink(&key, noted, Removes::Clean)),
            (None, Before::Computed) => {
                if l1.unlink(&key, noted, Removes::Any) {
                    shared::note_changed(key.id);
                }
            }
            (None, Before::Replaced | Before::Ended) => drop(l1.unlink(&key, noted, Removes::Any)),
        }
        self.lower(l1);
    }

    /// The transaction has failed.
    fn withdraw(&mut self, l1: &SharedL1) {
        if let Some(block) = self.block.take() {
            l1.discard(block);
        }
        self.lower(l1);
    }

    /// Lowers the mark of the state's stripe.
    fn lower(&self, l1: &SharedL1) {
        if !crate::fault::leaves_out!(WritersMark) {
            l1.stripe(self.key().id).lower();
        }
    }
}

/// Lowers a mark that this transaction has raised.
fn lower(mark: &Mark) {
    if !crate::fault::leaves_out!(WritersMark) {
        mark.lower();
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
