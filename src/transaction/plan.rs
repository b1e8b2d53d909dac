//! Writing one staged state. [`plan`] finds out what is there, whether the caller's expectations hold and what is
//! to be done, and only reads; [`RowChange::write`] does it, or the flush does it together with others (`together`).
//!
//! Nothing here takes a lock of its own: the statement that writes names what it replaces, and if that is
//! not there any more the flush looks again.

use super::batch::with;
use super::beneath::read_beneath;
use super::effect::Effect;
use super::known::{Bytes, Expiry, Intent, OnConflict, Pending};
use super::operation::{Operation, apply_all};
use super::overrule::{own_floor, subject};
use super::record::Taken;
use super::row_change::{NextRow, Plan, RowChange, quiet};
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head, IfIntact, SameAs};
use crate::cache::found::{Form, Found, Ground};
use crate::cache::tables::from_table;
use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Replaced, Storage};
use crate::{behind, shared, sys};
use state_cache_l1::FillToken;
use state_cache_memory::copy;
use std::rc::Rc;

/// What L3 holds before the write.
struct Current {
    /// The version, 0 if absent.
    number: i64,
    /// The last version there was: `number`, or that of a deleted or expired state.
    last: i64,
    /// Whether there is a state, and not only a tombstone or nothing.
    is_there: bool,
    /// Whether there is a head row, of version `last`.
    has_row: bool,
    /// The highest version that the next one must be above, as far as it was looked for.
    highest: i64,
    /// Hash of the document, 0 where that is not known.
    hash: u128,
    /// When it expires, `None` where there is no state.
    expires_at: Option<i64>,
    /// Whether it is what the change would make of it.
    same: bool,
    /// The document, where the next version may be stored as the difference from it.
    document: Option<Vec<u8>>,
    /// How it is stored.
    storage: Storage,
    /// Taken before it was read.
    quiet: Option<FillToken>,
    /// Whether L3 was found not to hold it as it should.
    is_damaged: bool,
    /// A version that was acknowledged and is lost, above the last there is; 0 for none.
    lost: i64,
}

impl Current {
    fn read(state: &StateRef<'_>, wanted: Option<&SameAs<'_>>, look: Look) -> Result<Self> {
        let quiet = quiet(state);
        let found = match wanted {
            Some(&SameAs { document, hash }) => {
                let found = look.read(state, &mut SameAs { document, hash })?;
                match found {
                    // Another look, for what the next version may build upon; most changes change something.
                    Found::State(_, false) if state.class.packs() => look
                        .read(state, &mut IfIntact)?
                        .map(|before| (before.as_deref() == Some(document), before)),
                    found => found.map(|same| (same, None)),
                }
            }
            None => look.read(state, &mut Head)?.map(|()| (false, None)),
        };
        let Ground { number, hash } = found.ground();
        let mut current = match found {
            Found::Absent(last) => Self {
                number,
                last,
                is_there: false,
                has_row: last != 0,
                highest: last,
                hash,
                expires_at: None,
                same: false,
                document: None,
                storage: Storage::UNKNOWN,
                quiet,
                is_damaged: false,
                lost: 0,
            },
            Found::State(version, (same, document)) => Self {
                number,
                last: number,
                is_there: true,
                has_row: true,
                highest: number,
                hash,
                expires_at: Some(version.expires_at),
                same,
                document,
                storage: version.storage,
                quiet,
                is_damaged: false,
                lost: 0,
            },
        };
        if look == Look::Close {
            current.look_closer(state)?;
        }
        Ok(current)
    }

    /// The head row may be older than what is kept, or of a version that none can be: then somebody has changed it,
    /// or it is damaged.
    fn look_closer(&mut self, state: &StateRef<'_>) -> Result<()> {
        let (catalog, class) = (&state.catalog, &state.class.name);
        let newest = store::newest_kept(catalog, class, state.key)?;
        self.highest = self.highest.max(newest);
        if self.last < 1
            && let Some(head) = store::target(catalog, class, state.key)?
        {
            (self.last, self.has_row, self.hash) = (head.version, true, 0);
        }
        Ok(())
    }

    /// The number of the next version.
    fn next_number(&self, state: &StateRef<'_>) -> i64 {
        let floor = match self.last {
            // There is none, or none that tells what there was.
            ..1 => floor(state),
            _ => 0,
        };
        self.highest.max(floor).max(0) + 1
    }

    fn ground(&self) -> Ground {
        Ground {
            number: self.number,
            hash: self.hash,
        }
    }

    /// Whether there is a snapshot of it.
    fn is_intact(&self) -> bool {
        self.number > 0 && self.hash != 0
    }

    /// What a write replaces that gives it this expiry.
    fn replaced(&self, expiry: Expiry) -> Replaced {
        Replaced {
            version: self.last,
            hash: (self.hash != 0).then_some(self.hash),
            expires_at: match expiry {
                Expiry::At(_) => None,
                Expiry::Keep | Expiry::AtLeast(_) => self.expires_at,
            },
            is_newest: self.storage.is_newest(),
        }
    }
}

/// How a state is looked at before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As a reader would, which is right unless somebody else has just changed it.
    Quick,
    /// With its row locked: in the tables, and all versions that are kept.
    Close,
}

impl Look {
    fn read<F: Form>(self, state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
        let only_in_l1 = state.class.behind && shared::l1().is_some();
        match self {
            Self::Close if !only_in_l1 => from_table(state, form),
            _ => read_beneath(state, form),
        }
    }
}

/// What becomes of the version that a flush decides upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is written to the tables.
    WriteThrough,
    /// It is deferred, which the locks of a `behind` class allow.
    Defer,
}

/// The version that a flush decides upon, but for its number.
struct Next {
    /// Binary jsonb.
    document: Bytes,
    /// Hash of the document.
    hash: u128,
    /// When it expires, `i64::MAX` for never.
    expires_at: i64,
}

/// What is to be done about a staged change.
pub fn plan(state: &StateRef<'_>, taken: &Taken, way: Way, look: Look) -> Result<Plan> {
    let pending = &taken.pending;
    let staged = match &pending.intent {
        Intent::Replace(document)
        | Intent::Apply {
            result: document, ..
        } => Some((document, state_cache_document::hash(document))),
        // The tables' version has been overtaken; the newest is written soon, and looked at again.
        Intent::Expire(_) if way == Way::Defer && !is_in_tables(state)? => {
            return Ok(Plan::Done(Effect::Nothing { version: 0 }));
        }
        Intent::Expire(now) => return Ok(Plan::Write(RowChange::Expire(*now))),
        Intent::Delete | Intent::Touch => None,
    };
    let wanted = staged.map(|(document, hash)| SameAs { document, hash });
    // Row-level security may hide what is kept from the statement, which would compare the number with it.
    let look = match state.catalog.access().row_security {
        true => Look::Close,
        false => look,
    };
    let mut current = Current::read(state, wanted.as_ref(), look)?;
    check_version(state, taken, current.ground())?;
    current.lost = lost(state, &current);
    current.highest = current.highest.max(current.lost);
    // What others may have seen is gone: the document that takes its place is a new version, whatever it is.
    current.same &= current.lost == 0;
    let (document, hash) = match (&pending.intent, staged) {
        (
            Intent::Apply {
                operations, base, ..
            },
            _,
        ) if *base != current.ground() && !taken.overwrites() => {
            match apply_again(state, &mut current, operations, look)? {
                Some(again) => again,
                None => return Ok(Plan::Done(Effect::Nothing { version: 0 })),
            }
        }
        (_, Some((document, hash))) => (Rc::clone(document), hash),
        (_, None) => return plan_without_document(state, &current, pending, way),
    };
    let next = Next {
        document,
        hash,
        expires_at: pending.expiry.after(current.expires_at),
    };
    let is_operation = matches!(pending.intent, Intent::Apply { .. });
    let may_skip = current.same && (pending.dedup || is_operation);
    match (may_skip && is_repeated(state, pending, &mut current)?, way) {
        (true, Way::Defer) => Ok(Plan::Done(defer_expiry(state, &current, next))),
        (true, Way::WriteThrough) => {
            check_newest(state, &current)?;
            Ok(touch(&current, pending))
        }
        (false, Way::Defer) => defer_version(state, &current, next).map(Plan::Done),
        (false, Way::WriteThrough) => next_version(state, pending, current, next).map(Plan::Write),
    }
}

/// What is to be done about a staged delete, or about a new expiry alone.
fn plan_without_document(
    state: &StateRef<'_>,
    current: &Current,
    pending: &Pending,
    way: Way,
) -> Result<Plan> {
    match (&pending.intent, way) {
        (Intent::Delete, Way::Defer) => delete_behind(state, current).map(Plan::Done),
        (Intent::Delete, Way::WriteThrough) => Ok(delete(state, current)),
        (_, Way::Defer) if !is_in_tables(state)? => {
            touch_behind(state, current, pending).map(Plan::Done)
        }
        _ => Ok(touch(current, pending)),
    }
}

/// What staged operations make of the document that is there now, with its hash; `None` if there is no state and none
/// of them makes one.
fn apply_again(
    state: &StateRef<'_>,
    current: &mut Current,
    operations: &[Rc<Operation>],
    look: Look,
) -> Result<Option<(Bytes, u128)>> {
    let before = look.read(state, &mut Document)?.state();
    let before = before.map(|(_, document)| document);
    let kept = before.as_deref().map(copy).transpose()?;
    let Some(result) = apply_all(state, operations, kept)? else {
        return Ok(None);
    };
    current.same = current.lost == 0 && before.as_ref() == Some(&result);
    let hash = state_cache_document::hash(&result);
    Ok(Some((Rc::new(result), hash)))
}

fn next_version(
    state: &StateRef<'_>,
    pending: &Pending,
    mut current: Current,
    next: Next,
) -> Result<RowChange> {
    let Next {
        document,
        hash,
        expires_at,
    } = next;
    // It may be that L1 holds what is damaged in L3.
    let is_reinstated = pending
        .checkpoint
        .as_ref()
        .is_some_and(|it| it.parent.is_some());
    let same = match current.same {
        true => Some(copy(&document)?),
        false => None,
    };
    let base = current.document.take().or(same);
    let base = base.filter(|_| state.class.packs() && !is_reinstated && !current.is_damaged);
    let next = NextRow {
        number: current.next_number(state),
        document,
        hash,
        parent: (current.number > 0).then_some(current.number),
        expires_at,
        base: base.map(|document| (current.number, document, current.storage)),
        checkpoint: pending.checkpoint.clone(),
        quiet: current.quiet,
    };
    let replaced = current.replaced(pending.expiry);
    Ok(if !current.has_row {
        RowChange::Insert(next)
    } else if state.class.keeps_one()
        && current.is_intact()
        && current.storage.may_be_replaced()
        && state.catalog.may_replace_snapshots()
    {
        RowChange::Replace(replaced, next)
    } else {
        RowChange::Update(replaced, next)
    })
}

/// Whether nothing but the document would be new in a version with the same document. A checkpoint is compared
/// with what L3 holds, and only if that is intact: L1 does not know all of it, and a damaged row is to be mended, by
/// a version that does not build upon it.
fn is_repeated(state: &StateRef<'_>, pending: &Pending, current: &mut Current) -> Result<bool> {
    let Some(checkpoint) = &pending.checkpoint else {
        return Ok(true);
    };
    if !checkpoint.is_skippable() {
        return Ok(false);
    }
    if !is_in_tables(state)? {
        // A deferred version is no more than its document.
        return Ok(!pending.is_urgent());
    }
    let is_intact = match from_table(state, &mut IfIntact)? {
        Found::State(version, document) => {
            version.ground() == current.ground() && document.is_some()
        }
        Found::Absent(_) => false,
    };
    current.is_damaged = !is_intact;
    let stored = store::label(&state.catalog, &state.class.name, state.key, current.number)?;
    let is_said_again = |stored: store::Label| {
        stored.checkpoint_type == checkpoint.checkpoint_type
            && stored.agent_phase == checkpoint.agent_phase
            && stored.execution_context == checkpoint.execution_context
    };
    Ok(is_intact && stored.is_some_and(is_said_again))
}

/// The highest version that a state of this one's bucket had whose head row is gone, 0 for none.
fn floor(state: &StateRef<'_>) -> i64 {
    let own = own_floor(&state.class.name, state.key);
    own.max(state.catalog.floor(&state.class.name, state.key))
}

/// Makes a tombstone of a head row of version `version` that has no snapshot; its version, above any that was used.
pub fn bury(state: &StateRef<'_>, version: i64) -> Result<i64> {
    let (catalog, class, key) = (&state.catalog, &state.class, state.key);
    let replaced = Replaced {
        version,
        hash: None,
        expires_at: None,
        is_newest: false,
    };
    let newest = {
        let _snapshot = PushedSnapshot::latest();
        store::newest_kept(catalog, &class.name, key)?
    };
    let number = version.max(newest + 1).max(floor(state));
    let buried = store::delete(catalog, class, key, replaced, number)?;
    buried.ok_or_else(|| Error::Raced {
        state: state.shown(),
    })
}

/// The version of a dirty entry, and that of the tables' row beneath it. What is dirty goes with the rows that this
/// transaction has emptied the tables of.
fn dirty_entry(state: &StateRef<'_>) -> Option<(i64, i64)> {
    let entry = behind::version_and_base(state)?;
    (!with(|batch| batch.by_hand.truncated())).then_some(entry)
}

/// A version above the last that was found: L1 cannot read it any more, or this transaction has overruled it by hand.
fn lost(state: &StateRef<'_>, current: &Current) -> i64 {
    if !state.class.behind {
        return 0;
    }
    match dirty_entry(state) {
        Some((version, _)) if version > current.last => version,
        _ => 0,
    }
}

/// Version of the tables' row beneath a version that is only decided upon, 0 for none.
fn base(state: &StateRef<'_>, current: &Current) -> i64 {
    match dirty_entry(state) {
        Some((version, base)) if version == current.last => base,
        // It was found in the tables.
        _ => current.number,
    }
}

/// Decides on the next version, which is deferred.
fn defer_version(state: &StateRef<'_>, current: &Current, next: Next) -> Result<Effect> {
    let version = match current.last {
        ..1 => {
            let _snapshot = PushedSnapshot::latest();
            let newest = store::newest_kept(&state.catalog, &state.class.name, state.key)?;
            newest.max(floor(state)).max(current.highest).max(0) + 1
        }
        _ => current.highest + 1,
    };
    Ok(Effect::Deferred {
        version,
        document: next.document,
        hash: next.hash,
        expires_at: next.expires_at,
        base: base(state, current),
        before: current.number,
        is_new: true,
    })
}

/// Gives the current version, whose document is the staged one, another expiry, if it is another.
fn defer_expiry(state: &StateRef<'_>, current: &Current, next: Next) -> Effect {
    if Some(next.expires_at) == current.expires_at {
        return Effect::Nothing {
            version: current.number,
        };
    }
    Effect::Deferred {
        version: current.number,
        document: next.document,
        hash: current.hash,
        expires_at: next.expires_at,
        base: base(state, current),
        before: current.number,
        is_new: false,
    }
}

/// `40001` if the state is not in the version that the change relies on.
fn check_version(state: &StateRef<'_>, taken: &Taken, current: Ground) -> Result<()> {
    let (known, pending, on_conflict) = (&taken.known, &taken.pending, taken.on_conflict);
    let relied_on = match on_conflict {
        Some(OnConflict::Error) => known.base_of(pending.stager.user),
        Some(OnConflict::Reapply) if !matches!(pending.intent, Intent::Apply { .. }) => {
            known.base_of(pending.stager.user)
        }
        _ => None,
    };
    let unexpected = pending
        .expected
        .filter(|expected| *expected != current.number);
    let folded = pending
        .folded
        .filter(|_| !taken.overwrites())
        .map(|folded| folded.ground);
    let moved = relied_on
        .map(|base| base.ground)
        .or(folded)
        .or_else(|| read_before(state, taken))
        .filter(|ground| *ground != current)
        .map(|ground| ground.number);
    match unexpected.or(moved) {
        Some(expected) => Err(conflict(state, expected, current.number)),
        None => Ok(()),
    }
}

/// What the transaction has found of a state of a `behind` class under its one snapshot, unless it has changed it
/// since. Of a class that is written through PostgreSQL itself says that the row has moved.
fn read_before(state: &StateRef<'_>, taken: &Taken) -> Option<Ground> {
    if taken.known.flushed.is_some() || taken.on_conflict == Some(OnConflict::Overwrite) {
        return None;
    }
    with(|batch| batch.read_behind(state))
}

fn delete(state: &StateRef<'_>, current: &Current) -> Plan {
    if !current.is_there {
        return Plan::Done(Effect::Nothing { version: 0 });
    }
    // Whatever its expiry is.
    let replaced = current.replaced(Expiry::At(i64::MAX));
    let number = current.next_number(state);
    Plan::Write(RowChange::Delete(replaced, number, current.quiet))
}

/// Whether the newest version is in the tables.
fn is_in_tables(state: &StateRef<'_>) -> Result<bool> {
    Ok(!behind::is_dirty(state) && with(|batch| batch.deferred(state))?.is_none())
}

/// The same where L3 may hold an older version, or none.
fn delete_behind(state: &StateRef<'_>, current: &Current) -> Result<Effect> {
    if current.number == 0 {
        return Ok(Effect::Nothing { version: 0 });
    }
    let newest = current.number.max(current.lost);
    let version = behind::delete(subject(&state.catalog, &state.class, state.key), newest)?;
    Ok(Effect::Deleted { version })
}

/// Gives a version that L3 does not hold another expiry.
fn touch_behind(state: &StateRef<'_>, current: &Current, pending: &Pending) -> Result<Effect> {
    let Found::State(version, document) = read_beneath(state, &mut Document)? else {
        return Ok(Effect::Nothing { version: 0 });
    };
    let next = Next {
        hash: state_cache_document::hash(&document),
        document: Rc::new(document),
        expires_at: pending.expiry.after(current.expires_at),
    };
    // Where the document of a version is damaged, what L3 holds takes its place: as a version of its own.
    if current.lost > 0 || version.number != current.number {
        return defer_version(state, current, next);
    }
    Ok(defer_expiry(state, current, next))
}

/// Changes the expiry only, if it changes at all.
fn touch(current: &Current, pending: &Pending) -> Plan {
    let expires_at = pending.expiry.after(current.expires_at);
    if current.number == 0 || Some(expires_at) == current.expires_at {
        return Plan::Done(Effect::Nothing {
            version: current.number,
        });
    }
    Plan::Write(RowChange::Touch(
        current.replaced(pending.expiry),
        expires_at,
    ))
}

/// A change is skipped only against the newest version. Where the transaction's snapshot may be older
/// than that, a newer one is a conflict, as it would be for an UPDATE.
fn check_newest(state: &StateRef<'_>, current: &Current) -> Result<()> {
    if !sys::isolation_uses_transaction_snapshot() || with(|batch| batch.has_own_rows(state))? {
        return Ok(());
    }
    match state.catalog.head_row(&state.class.name, state.key) {
        Some(head)
            if !head.deleted
                && (head.version, head.hash) == (current.number, Some(current.hash)) =>
        {
            Ok(())
        }
        Some(head) if !head.deleted => Err(conflict(state, current.number, head.version)),
        Some(_) | None => Err(conflict(state, current.number, 0)),
    }
}

/// The error for a state that is not what the caller relies on; counted.
pub fn conflict(state: &StateRef<'_>, expected: i64, found: i64) -> Error {
    state.class.counters.count(Counter::Conflicts);
    Error::Conflict {
        state: state.shown(),
        expected,
        found,
    }
}
