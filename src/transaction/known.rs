//! What a transaction knows of one state beyond its snapshot.

use super::operation::{Operation, have_edits};
use crate::cache::found::Ground;
use crate::call::Given;
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::identity::Identity;
use crate::interval::Ttl;
use crate::memory;
use crate::notify::Touched;
use crate::store::{AUTO, Checkpoint, Storage};
use crate::sys;
use pgrx::pg_sys;
use state_cache_memory::{copy, room_in_map};
use std::collections::HashMap;
use std::rc::Rc;

/// Values of one state kept for snapshots older than the newest change (open cursors). A reader that
/// needs an older one is told so.
const MAX_VIEWS: usize = 16;

/// A document of this transaction, shared between views, intents and frames.
pub type Bytes = Rc<Whole>;

/// A document in binary form.
pub struct Whole {
    binary: Vec<u8>,
    /// The same as the server has compressed it, as a value of a column. It can be stored as it is, like a value that
    /// is copied from one table to another.
    stored: Option<Vec<u8>>,
}

impl Whole {
    /// A copy of what a caller has given. What it says of the stored form is kept where that `is_stored`.
    ///
    /// # Errors
    /// `53200`.
    pub fn copy(given: Given<'_>, is_stored: bool) -> Result<Self> {
        let stored = given.stored.filter(|_| is_stored);
        Ok(Self {
            binary: copy(given.binary)?,
            stored: stored.map(copy).transpose()?,
        })
    }

    /// As the server has compressed it, if it has.
    pub fn stored(&self) -> Option<&[u8]> {
        self.stored.as_deref()
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.binary.len() + self.stored.as_ref().map_or(0, Vec::len)
    }
}

impl From<Vec<u8>> for Whole {
    fn from(binary: Vec<u8>) -> Self {
        Self {
            binary,
            stored: None,
        }
    }
}

impl std::ops::Deref for Whole {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.binary
    }
}

/// States by the hash of class and key; subtransactions and explicit batches that would go back to them share one
/// copy.
pub type States = Rc<HashMap<u128, State>>;

/// States to be changed, with room for one more; they are copied first where a subtransaction would go back to them.
pub fn to_change(states: &mut States) -> Result<&mut HashMap<u128, State>> {
    if Rc::get_mut(states).is_none() {
        let mut copied = HashMap::new();
        room_in_map(&mut copied, states.len() + 1)?;
        for (id, state) in &**states {
            memory::check()?;
            copied.insert(*id, state.clone());
        }
        *states = Rc::new(copied);
    }
    let states = Rc::make_mut(states);
    room_in_map(states, 1)?;
    Ok(states)
}

/// What an explicit batch does when a state has moved since it was read or staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Fails with 40001.
    Error,
    /// Applies operations to the new version; a whole document set after a read still fails.
    Reapply,
    /// Writes what is staged, whatever others have written; edits are applied to the new version, as with `Reapply`.
    Overwrite,
}

/// One state.
#[derive(Clone)]
pub struct State {
    /// Its class.
    pub class: Rc<Class>,
    /// The installation that it is of.
    incarnation: u64,
    /// Its key.
    pub key: Rc<[u8]>,
    /// What the transaction's own snapshots see, oldest first.
    views: Vec<(pg_sys::CommandId, View)>,
    /// Snapshots up to this command id need a view that is no longer kept.
    forgotten: Option<pg_sys::CommandId>,
    /// What the next flush is to do.
    pub pending: Option<Pending>,
    /// What the last flush of this transaction made of it.
    pub flushed: Option<Flushed>,
    /// What each role's explicit batch found when it first met the state.
    pub bases: Vec<Base>,
    /// Version (0: absent) beneath the staged changes, once somebody has asked for theirs.
    pub beneath: Option<i64>,
    /// Token of the claim under which this transaction writes the state.
    pub fence: Option<i64>,
}

/// What an explicit batch relies on.
#[derive(Clone)]
pub struct Base {
    /// What was found.
    pub ground: Ground,
    /// Who found it: another role may see less.
    pub reader: Identity,
}

impl Base {
    /// What the current role has found.
    pub fn found(ground: Ground) -> Self {
        Self {
            ground,
            reader: Identity::current(),
        }
    }
}

/// What a snapshot of this transaction sees of a state that the transaction has changed.
#[derive(Clone)]
pub enum View {
    /// No state.
    Absent,
    /// A document.
    Document {
        /// The document.
        document: Bytes,
        /// Its version; provisional while it is staged, `None` while nobody asked what lies beneath.
        version: Option<i64>,
        /// When it expires, `i64::MAX` for never.
        expires_at: i64,
    },
    /// The committed document with another expiry, `i64::MAX` for never.
    Expiry(i64),
    /// What the tables hold.
    Table,
}

/// What becomes of documents that only snapshots from before the newest change see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlderViews {
    /// They are kept.
    Keep,
    /// They are given up, since memory is short; such a snapshot is told so.
    GiveUp,
}

/// What the next flush is to do with a state.
#[derive(Clone)]
pub struct Pending {
    /// The change.
    pub intent: Intent,
    /// What becomes of its expiry.
    pub expiry: Expiry,
    /// What becomes of the time to live that the state remembers.
    pub ttl: Ttl,
    /// The role that staged it, and its `search_path`: triggers on the tables run under both.
    pub stager: Identity,
    /// Whether the change is skipped if the state is stored like that already.
    pub dedup: bool,
    /// Version (0: absent) that the caller relied on.
    pub expected: Option<i64>,
    /// What became of operations that are no longer kept apart.
    pub folded: Option<Folded>,
    /// What `state_save` says about it.
    pub checkpoint: Option<Rc<Checkpoint>>,
    /// What of the state it touches.
    pub touched: Touched,
    /// Whether the change stands or falls with rows that are written in any case, so that it is not deferred.
    pub belongs_to_written: bool,
}

/// What operations were applied to that are no longer kept apart.
#[derive(Clone, Copy)]
pub struct Folded {
    /// What was there.
    pub ground: Ground,
    /// Whether rules of another room were among them.
    pub has_edits: bool,
}

impl Pending {
    /// Whether the change is written over whatever others have made of the state. Edits never are: their rules hold
    /// for the document that is there.
    pub fn overwrites(&self, on_conflict: Option<OnConflict>) -> bool {
        let has_edits = match &self.intent {
            Intent::Apply { operations, .. } => have_edits(operations),
            Intent::Replace(_) => self.folded.is_some_and(|folded| folded.has_edits),
            Intent::Delete | Intent::Touch | Intent::Expire(_) => false,
        };
        on_conflict == Some(OnConflict::Overwrite) && !has_edits
    }

    /// Whether it is a document, and not only an end or a new expiry.
    pub fn is_document(&self) -> bool {
        matches!(self.intent, Intent::Replace(_) | Intent::Apply { .. })
    }

    /// Whether the change must not be deferred: L1 keeps next to nothing beside the document, and the ring through
    /// which the worker tells of a change has no room for items.
    pub fn is_urgent(&self) -> bool {
        let has_label = |it: &Checkpoint| {
            *it.checkpoint_type != *AUTO
                || it.recovery_point
                || it.agent_phase.is_some()
                || it.execution_context.is_some()
                || it.parent.is_some()
                || it.made_from.is_some()
                || it.label.is_some()
                || it.payload.is_some()
        };
        self.belongs_to_written
            || self.ttl.packed().is_none()
            || self.touched.has_items()
            || self.checkpoint.as_deref().is_some_and(has_label)
    }
}

/// A change.
#[derive(Clone)]
pub enum Intent {
    /// The state becomes this document.
    Replace(Bytes),
    /// Operations, to be applied to the version that is current when the row is locked. `result` is the document that
    /// they make of the one at `base`.
    Apply {
        operations: Rc<Vec<Rc<Operation>>>,
        base: Ground,
        result: Bytes,
    },
    /// The state is deleted.
    Delete,
    /// Only the expiry changes.
    Touch,
    /// The state is deleted, if it has expired by this time; its row is locked.
    Expire(i64),
}

/// What a change does to the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It stays as it is.
    Keep,
    /// It becomes this; `i64::MAX` for never.
    At(i64),
    /// It becomes this unless it is later already: a class's `ttl` counts from the last write.
    AtLeast(i64),
}

impl Expiry {
    /// The expiry after the change, given the one before it; `None` where there was no state.
    pub fn after(self, before: Option<i64>) -> i64 {
        match (self, before) {
            (Self::Keep, before) => before.unwrap_or(i64::MAX),
            (Self::At(at), _) | (Self::AtLeast(at), None) => at,
            (Self::AtLeast(at), Some(before)) => before.max(at),
        }
    }
}

/// What a flush of this transaction made of a state.
#[derive(Clone)]
pub struct Flushed {
    /// The version in L3.
    pub version: i64,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// What is there.
    pub content: Content,
    /// Where the version is until the transaction ends.
    pub place: Place,
    /// The version that there was before the transaction's first flush of it, 0 for none.
    pub before: i64,
    /// What of the state the transaction's flushes have changed.
    pub touched: Touched,
}

/// Where a flush has put a version.
#[derive(Clone)]
pub enum Place {
    /// In the tables, as rows of this transaction. The flag says that the locks of a `behind` class were held.
    Tables { locked: bool },
    /// In the batch only: the version is deferred.
    Deferred {
        /// Who staged it.
        stager: Identity,
        /// What becomes of the time to live that the state remembers.
        ttl: Ttl,
        /// Version of the tables' row beneath it, 0 for none.
        base: i64,
        /// The command that flushed the version; changes staged by later commands build upon it.
        command: pg_sys::CommandId,
        /// Whether subscribers are to hear of it; not of a new expiry.
        is_news: bool,
        /// Whether this transaction has rows of it in the tables, so that no dirty entry counts any more.
        over_own_rows: bool,
    },
}

impl Flushed {
    /// Whether subscribers are to hear of it, as far as its place says.
    pub fn is_news(&self) -> bool {
        !matches!(self.place, Place::Deferred { is_news: false, .. })
    }

    /// Whether the version is deferred.
    pub fn is_deferred(&self) -> bool {
        matches!(self.place, Place::Deferred { .. })
    }

    /// The version that is there, 0 for a tombstone.
    pub fn number(&self) -> i64 {
        if matches!(self.content, Content::Deleted) {
            0
        } else {
            self.version
        }
    }
}

/// What a flush wrote.
#[derive(Clone)]
pub enum Content {
    /// This document.
    Document {
        document: Bytes,
        hash: u128,
        storage: Storage,
    },
    /// A document that is in the tables only.
    Unkept,
    /// A tombstone.
    Deleted,
    /// Only a new expiry: the document is that of before the transaction, and subscribers hear nothing.
    Touched,
}

impl State {
    /// A state of which nothing is known.
    pub fn new(class: Rc<Class>, incarnation: u64, key: &[u8]) -> Self {
        Self {
            class,
            incarnation,
            key: key.into(),
            views: Vec::new(),
            forgotten: None,
            pending: None,
            flushed: None,
            bases: Vec::new(),
            beneath: None,
            fence: None,
        }
    }

    /// Whether the state is one of this installation and not of one that the transaction has dropped.
    pub fn belongs_to(&self, catalog: &Catalog) -> bool {
        self.incarnation == catalog.incarnation
    }

    /// The same without the documents that the transaction sees, and without what is staged.
    pub fn without_views(&self) -> Self {
        Self {
            class: Rc::clone(&self.class),
            incarnation: self.incarnation,
            key: Rc::clone(&self.key),
            views: Vec::new(),
            forgotten: None,
            pending: None,
            flushed: self.flushed.clone(),
            bases: self.bases.clone(),
            beneath: self.beneath,
            fence: self.fence,
        }
    }

    /// Forgets everything but the name.
    pub fn clear(&mut self) {
        self.forget_views();
        self.pending = None;
        self.flushed = None;
        self.bases = Vec::new();
        self.beneath = None;
        self.fence = None;
    }

    /// Whether the tables hold rows of this transaction for it.
    pub fn is_in_tables(&self) -> bool {
        self.flushed
            .as_ref()
            .is_some_and(|flushed| !flushed.is_deferred())
    }

    /// Bytes of the document of the deferred version, 0 if there is none.
    pub fn deferred_bytes(&self) -> usize {
        match &self.flushed {
            Some(Flushed {
                content: Content::Document { document, .. },
                place: Place::Deferred { .. },
                ..
            }) => document.len(),
            _ => 0,
        }
    }

    /// Whether subscribers are to hear of items that this transaction has changed and flushed.
    pub fn has_told_items(&self) -> bool {
        let flushed = self.flushed.as_ref();
        flushed.is_some_and(|flushed| flushed.touched.has_items())
    }

    /// Whether a flush has something to do.
    pub fn is_staged(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether this role has staged what the flush has to do.
    pub fn is_staged_by(&self, role: pg_sys::Oid) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.stager.user == role)
    }

    /// What the explicit batch of this role relies on.
    pub fn base_of(&self, role: pg_sys::Oid) -> Option<&Base> {
        self.bases.iter().find(|base| base.reader.user == role)
    }

    /// Remembers what the explicit batch of the current role has found, unless it has met the state before.
    pub fn note_base(&mut self, ground: Ground) {
        if self.base_of(sys::current_user()).is_none() {
            self.bases.push(Base::found(ground));
        }
    }

    /// The explicit batch of this role relies on it no longer.
    pub fn forget_base(&mut self, role: pg_sys::Oid) {
        self.bases.retain(|base| base.reader.user != role);
    }

    /// Goes back to what was staged once, and to what the transaction saw of it. The token that the transaction named
    /// last stays, and so does what it has flushed and what its batches have read.
    pub fn go_back_to(&mut self, saved: &Self) {
        let bases = std::mem::take(&mut self.bases);
        let (fence, flushed) = (self.fence, self.flushed.take());
        *self = saved.clone();
        (self.bases, self.fence, self.flushed) = (bases, fence, flushed);
    }

    /// The view of a snapshot with this command id: `Ok(None)` if the snapshot is from before all changes, `Err` if
    /// its view is not kept any more.
    pub fn view_at(&self, command: pg_sys::CommandId) -> std::result::Result<Option<&View>, ()> {
        match self.views.iter().rev().find(|(made, _)| *made < command) {
            Some((_, view)) => Ok(Some(view)),
            None if self.forgotten.is_some_and(|first| first < command) => Err(()),
            None => Ok(None),
        }
    }

    /// Whether a snapshot with this command id sees the newest change.
    pub fn sees_newest(&self, command: pg_sys::CommandId) -> bool {
        self.views.last().is_some_and(|(made, _)| *made < command)
    }

    /// What the transaction sees of the state after its newest change.
    pub fn newest(&self) -> Option<&View> {
        self.views.last().map(|(_, view)| view)
    }

    /// The newest view, to be corrected once more is known.
    pub fn newest_mut(&mut self) -> Option<&mut View> {
        self.views.last_mut().map(|(_, view)| view)
    }

    /// From command `command` on, the transaction sees this.
    pub fn push_view(&mut self, command: pg_sys::CommandId, view: View) {
        match self.views.last_mut() {
            Some((made, newest)) if *made == command => *newest = view,
            // Of most states there is one view, and a vector begins with room for four.
            None => self.views = vec![(command, view)],
            _ => self.views.push((command, view)),
        }
        if self.views.len() > MAX_VIEWS {
            let (made, _) = self.views.remove(0);
            self.forgotten.get_or_insert(made);
        }
    }

    /// The transaction has changed nothing after all: the committed state counts again.
    pub fn forget_views(&mut self) {
        self.views.clear();
        self.forgotten = None;
    }

    /// Drops the staged change: the version of this transaction's last flush counts again, if there was one. The
    /// tables show that version to every snapshot of the transaction.
    pub fn unstage(&mut self) {
        self.pending = None;
        self.beneath = None;
        let Some(Flushed {
            version,
            expires_at,
            content: Content::Document { document, .. },
            place: Place::Deferred { command, .. },
            ..
        }) = &self.flushed
        else {
            return self.forget_views();
        };
        // A deferred version is in the batch only, and its view may have been given up among many.
        let (command, version) = (*command, Some(*version));
        let view = View::Document {
            document: Rc::clone(document),
            version,
            expires_at: *expires_at,
        };
        self.views.retain(|(made, _)| *made < command);
        self.push_view(command.saturating_sub(1), view);
    }

    /// Bytes of the documents held of this state, those of operations not counted.
    pub fn held_bytes(&self) -> usize {
        let view = |(_, view): &(_, View)| match view {
            View::Document { document, .. } => document.size(),
            View::Absent | View::Expiry(_) | View::Table => 0,
        };
        self.views.iter().map(view).sum()
    }

    /// Whether nothing is staged and no document is held: a flush has nothing to do with the state.
    pub fn is_settled(&self) -> bool {
        let holds = (self.flushed.as_ref())
            .is_some_and(|flushed| matches!(flushed.content, Content::Document { .. }));
        !self.is_staged() && !holds && self.held_bytes() == 0
    }

    /// Whether documents are held that only snapshots from before the newest change see.
    pub fn has_older_views(&self) -> bool {
        self.views.len() > 1
    }

    /// Gives up the documents that only snapshots from before the newest change see; such a snapshot is told so.
    pub fn give_up_older_views(&mut self) {
        let first = self.views.first().map(|(made, _)| *made);
        if let (Some(first), Some(newest)) = (first, self.views.pop()) {
            self.forgotten.get_or_insert(first);
            self.views.clear();
            self.views.push(newest);
        }
    }

    /// Relies on the tables for the flushed version: snapshots that see command `flushed_by` find it there.
    /// What becomes of the documents staged before, which older snapshots see, `older` says.
    pub fn spill(&mut self, flushed_by: pg_sys::CommandId, older: OlderViews) {
        if self.is_staged() {
            return;
        }
        if let Some(Flushed {
            content: content @ Content::Document { .. },
            place: Place::Tables { .. },
            ..
        }) = &mut self.flushed
        {
            *content = Content::Unkept;
            if older == OlderViews::GiveUp
                && let Some((first, _)) = self.views.first()
            {
                self.forgotten.get_or_insert(*first);
                self.views.clear();
            }
            self.push_view(flushed_by, View::Table);
        }
    }

    /// Bytes held for changes that are not flushed.
    pub fn staged_bytes(&self) -> usize {
        match self.pending.as_ref().map(|pending| &pending.intent) {
            Some(
                Intent::Replace(document)
                | Intent::Apply {
                    result: document, ..
                },
            ) => document.size(),
            Some(Intent::Delete | Intent::Touch | Intent::Expire(_)) | None => 0,
        }
    }
}
