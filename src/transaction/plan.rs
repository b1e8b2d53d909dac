//! Writing one staged state. [`plan`] finds out what is there, whether the caller's expectations hold and what is
//! to be done, and only reads; [`RowChange::write`] does it.
//!
//! Nothing here takes a lock of its own: the statement that writes names what it replaces, and if that is
//! not there any more the flush looks again.

use super::batch::with;
use super::beneath::read_beneath;
use super::capability;
use super::current::{Current, Look, base, floor, lost};
use super::effect::Effect;
use super::known::{Bytes, Expiry, Flushed, Intent, OnConflict, Pending, Place};
use super::operation::{Operation, apply_all};
use super::overrule::subject;
use super::record::Taken;
use super::row_change::{NextRow, Plan, RowChange};
use crate::cache::StateRef;
use crate::cache::forms::{Document, IfIntact, SameAs};
use crate::cache::found::{Found, Ground};
use crate::cache::tables::from_table;
use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::interval::Ttl;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Checkpoint, Storage};
use crate::{behind, sys};
use state_cache_memory::copy;
use std::rc::Rc;

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
    /// What becomes of the time to live that the state remembers.
    ttl: Ttl,
    /// What is said of it.
    checkpoint: Option<Rc<Checkpoint>>,
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
    let wanted = capability::wanted(state, &document)?;
    let expires_at = wanted.expires_at;
    let next = Next {
        document,
        hash,
        expires_at: expires_at.unwrap_or_else(|| pending.expiry.after(current.expires_at)),
        ttl: match current.is_there {
            true => pending.ttl,
            false => pending.ttl.of_new(),
        },
        checkpoint: pending
            .checkpoint
            .clone()
            .or(wanted.checkpoint.map(Rc::new)),
    };
    let is_operation = matches!(pending.intent, Intent::Apply { .. });
    let may_skip = current.same && (pending.dedup || is_operation);
    match (may_skip && is_repeated(state, pending, &mut current)?, way) {
        (true, Way::Defer) => defer_expiry(state, &current, next).map(Plan::Done),
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
    Ok(Some((Rc::new(result.into()), hash)))
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
        ttl,
        checkpoint,
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
    let branch = match &checkpoint {
        Some(checkpoint) => branch(state, &current, checkpoint)?,
        None => None,
    };
    let next = NextRow {
        number: current.next_number(state),
        document,
        hash,
        parent: (current.number > 0).then_some(current.number),
        expires_at,
        ttl,
        base: base.map(|document| (current.number, document, current.storage)),
        branch,
        checkpoint,
        quiet: current.quiet,
    };
    let replaced = current.replaced(pending.expiry);
    Ok(if !current.has_row {
        RowChange::Insert(next)
    } else {
        RowChange::Update(replaced, next)
    })
}

/// The version that a branch goes on from, if it may be stored as the difference from that. It may be pruned or
/// purged before the branch is written, which `store::put_right` finds out.
///
/// Only where nothing is pruned with a write and the rows are as the extension has made them: who prunes by position
/// there, or drops partitions, minds deltas upon the version right before.
fn branch(
    state: &StateRef<'_>,
    current: &Current,
    checkpoint: &Checkpoint,
) -> Result<Option<(i64, Vec<u8>, Storage)>> {
    let (catalog, class) = (&state.catalog, &state.class);
    let is_older = |parent: &i64| (1..current.number).contains(parent);
    let Some(parent) = checkpoint.made_from.filter(is_older) else {
        return Ok(None);
    };
    let may_be = class.packs()
        && class.keep.is_none()
        && !class.behind
        && !checkpoint.recovery_point
        && current.is_there
        && catalog.takes_rows();
    if !may_be {
        return Ok(None);
    }
    let _snapshot = PushedSnapshot::transaction();
    if store::has_keyframe_above(catalog, &class.name, state.key, parent)? {
        return Ok(None);
    }
    let kept = store::kept(catalog, &class.name, state.key, parent)?;
    // One that is damaged is not built upon.
    let kept = kept.and_then(std::result::Result::ok);
    Ok(kept.map(|kept| (parent, kept.document, kept.storage)))
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
            && stored.label == checkpoint.label
    };
    if !is_intact || !stored.is_some_and(is_said_again) {
        return Ok(false);
    }
    let payload = store::payload(&state.catalog, &state.class.name, state.key, current.number)?;
    let is_same = |stored: &Vec<u8>| checkpoint.payload.as_ref() == Some(stored);
    Ok(match payload {
        Some(Ok(payload)) => is_same(&payload),
        Some(Err(_)) => {
            // To be mended, by a version that does not build upon it.
            current.is_damaged = true;
            false
        }
        None => checkpoint.payload.is_none(),
    })
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
        ttl: deferred_ttl(state)?.followed_by(next.ttl),
        base: base(state, current),
        before: current.number,
        is_new: true,
    })
}

/// Gives the current version, whose document is the staged one, another expiry, if it is another.
fn defer_expiry(state: &StateRef<'_>, current: &Current, next: Next) -> Result<Effect> {
    if Some(next.expires_at) == current.expires_at {
        return Ok(Effect::Nothing {
            version: current.number,
        });
    }
    Ok(Effect::Deferred {
        version: current.number,
        document: next.document,
        hash: current.hash,
        expires_at: next.expires_at,
        ttl: deferred_ttl(state)?.followed_by(next.ttl),
        base: base(state, current),
        before: current.number,
        is_new: false,
    })
}

/// What becomes of the remembered time to live by the version that the tables do not hold yet, if there is one.
pub fn deferred_ttl(state: &StateRef<'_>) -> Result<Ttl> {
    match with(|batch| batch.deferred(state))? {
        Some(Flushed {
            place: Place::Deferred { ttl, .. },
            ..
        }) => Ok(ttl),
        _ => Ok(behind::ttl(state)),
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
        document: Rc::new(document.into()),
        expires_at: pending.expiry.after(current.expires_at),
        ttl: pending.ttl,
        checkpoint: None,
    };
    // Where the document of a version is damaged, what L3 holds takes its place: as a version of its own.
    if current.lost > 0 || version.number != current.number {
        return defer_version(state, current, next);
    }
    defer_expiry(state, current, next)
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
        pending.ttl,
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
