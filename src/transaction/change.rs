//! Staging: what the functions that change a state do before the flush.

use super::explicit::Whose;
use super::staged::{
    Bytes, Expiry, Folded, Intent, MAX_OPERATIONS, Operation, Pending, State, View, have_edits,
};
use super::view::{committed_ground, read_beneath, read_newest, settle};
use super::{MAX_HELD, OnConflict, Phase, capability, flush, leave, save, with};
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head};
use crate::cache::read::{Found, Ground, Version};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::identity::{Identity, is_sandboxed};
use crate::notify::Touched;
use crate::snapshot::PushedSnapshot;
use crate::store::Checkpoint;
use crate::{behind, interval, settings, store, sys};
use pgrx::pg_sys;
use state_cache_memory::{Grow, collect, copy};
use std::ffi::CStr;
use std::rc::Rc;

/// Raises unless this transaction and this role may change states: `25006`, `25000`, `42501`. What another
/// role has staged is flushed first.
pub fn begin(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    check_may_write(&state.catalog, function)?;
    if with(|batch| batch.phase == Phase::Committing) {
        return Err(Error::TooLateToChange {
            state: state.shown(),
        });
    }
    leave::heed_changes_by_hand(state)?;
    settle(state).map(|_| ())
}

/// Raises unless this transaction and this role may change states at all.
pub fn check_may_write(catalog: &Catalog, function: &CStr) -> Result<()> {
    // SAFETY: both raise PostgreSQL's own errors; the name is NUL-terminated.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(function.as_ptr());
        pg_sys::PreventCommandIfParallelMode(function.as_ptr());
    }
    catalog.check_may_change()
}

fn check_size(state: &StateRef<'_>, document: &[u8]) -> Result<()> {
    let limit = settings::max_state_size();
    if document.len() > limit {
        return Err(Error::TooLarge {
            state: state.shown(),
            size: document.len(),
            limit,
        });
    }
    Ok(())
}

/// When a time to live that counts from now on is over, `22023` for one that is not positive, or too long.
pub fn expires_after(ttl: &pg_sys::Interval) -> Result<i64> {
    interval::check_positive("ttl", ttl, "NULL sets no end, unless the class does.")?;
    Ok(interval::after(sys::statement_timestamp(), ttl))
}

/// What a class's `ttl` makes of a write.
fn class_expiry(state: &StateRef<'_>) -> Option<i64> {
    state
        .class
        .ttl
        .as_ref()
        .map(|ttl| interval::after(sys::statement_timestamp(), ttl))
}

/// Replaces the whole document.
pub fn set(
    state: &StateRef<'_>,
    document: &[u8],
    expected: Option<i64>,
    ttl: Option<pg_sys::Interval>,
    function: &CStr,
) -> Result<()> {
    set_checkpoint(state, document, None, expected, ttl, function)?;
    put_nothing_off(state)
}

/// What code of another role stages within REFRESH MATERIALIZED VIEW, CREATE INDEX, ANALYZE and their like is written
/// there: what triggers and policies do at COMMIT would be out of the server's reach.
fn put_nothing_off(state: &StateRef<'_>) -> Result<()> {
    match is_sandboxed() {
        true => save::write_staged(state),
        false => Ok(()),
    }
}

/// The same for a checkpoint.
pub fn set_checkpoint(
    state: &StateRef<'_>,
    document: &[u8],
    checkpoint: Option<Checkpoint>,
    expected: Option<i64>,
    ttl: Option<pg_sys::Interval>,
    function: &CStr,
) -> Result<()> {
    begin(state, function)?;
    check_size(state, document)?;
    let explicit_expiry = ttl.as_ref().map(expires_after).transpose()?;
    let expires_at = explicit_expiry
        .or_else(|| class_expiry(state))
        .unwrap_or(i64::MAX);
    let expected = check_expected(state, expected)?;
    note_base(state)?;
    let document: Bytes = Rc::new(copy(document)?);
    stage(state, &Touched::document(), |known, pending| {
        let version = next_version(known, pending.as_ref());
        let view = View::Document {
            document: Rc::clone(&document),
            version,
            expires_at,
        };
        let expected = pending.and_then(|pending| pending.expected).or(expected);
        let intent = Intent::Replace(document);
        let mut pending = new_pending(state, intent, Expiry::At(expires_at), expected);
        pending.dedup &= checkpoint.as_ref().is_none_or(Checkpoint::is_skippable);
        pending.checkpoint = checkpoint.map(Rc::new);
        Ok((pending, view))
    })
}

/// Stages an operation.
pub fn apply(state: &StateRef<'_>, operation: Operation, function: &CStr) -> Result<()> {
    begin(state, function)?;
    let found = read_newest(state, &mut Document)?;
    note_base(state)?;
    let base = match &found {
        Found::Absent(_) => None,
        Found::State(_, document) => Some(document.as_slice()),
    };
    if base.is_none() && operation.needs_state() {
        return Ok(());
    }
    let result = operation.apply(state, base)?;
    check_size(state, &result)?;
    let result: Bytes = Rc::new(result);
    let before = version_of(&found);
    let expiry = class_expiry(state).map_or(Expiry::Keep, Expiry::AtLeast);
    let touched = operation.touched();
    stage(state, &touched, |known, pending| {
        let expires_at = expiry.after(before.map(|version| version.expires_at));
        let version = match pending {
            Some(_) => next_version(known, pending.as_ref()),
            None => before.map(|version| version.number + 1),
        };
        let view = View::Document {
            document: Rc::clone(&result),
            version,
            expires_at,
        };
        let pending = with_operation(state, pending, operation, result, &found, expiry)?;
        Ok((pending, view))
    })?;
    fold_if_many(state)?;
    put_nothing_off(state)
}

/// Deletes; whether there was a state.
pub fn delete(state: &StateRef<'_>, expected: Option<i64>, function: &CStr) -> Result<bool> {
    begin(state, function)?;
    let expected = check_expected(state, expected)?;
    let found = read_newest(state, &mut Head)?.state();
    note_base(state)?;
    let Some((version, ())) = found else {
        return Ok(false);
    };
    capability::check_may_delete(state)?;
    stage(state, &Touched::document(), |known, pending| {
        if pending.is_none() {
            known.beneath = Some(version.number);
        }
        let expected = pending.and_then(|pending| pending.expected).or(expected);
        let pending = new_pending(state, Intent::Delete, Expiry::Keep, expected);
        Ok((pending, View::Absent))
    })?;
    put_nothing_off(state)?;
    Ok(true)
}

/// Deletes a state that has expired by `now` and whose row is locked, at once.
pub fn expire(state: &StateRef<'_>, now: i64, function: &CStr) -> Result<()> {
    begin(state, function)?;
    stage(state, &Touched::document(), |_, _| {
        let pending = new_pending(state, Intent::Expire(now), Expiry::Keep, None);
        Ok((pending, View::Absent))
    })?;
    super::flush::flush_one(state)
}

/// Gives the state another expiry; whether there was a state.
pub fn touch(state: &StateRef<'_>, expires_at: i64, function: &CStr) -> Result<bool> {
    begin(state, function)?;
    let found = read_newest(state, &mut Head)?.state();
    note_base(state)?;
    if found.is_none() {
        return Ok(false);
    }
    stage(state, &Touched::default(), |known, pending| {
        let expiry = Expiry::At(expires_at);
        // Of a state that is not staged nothing but the expiry is this transaction's.
        let view = match known.newest() {
            _ if pending.is_none() => View::Expiry(expires_at),
            Some(View::Document {
                document, version, ..
            }) => View::Document {
                document: Rc::clone(document),
                version: *version,
                expires_at,
            },
            _ => View::Expiry(expires_at),
        };
        let pending = match pending {
            Some(pending) => Pending { expiry, ..pending },
            None => new_pending(state, Intent::Touch, expiry, None),
        };
        Ok((pending, view))
    })?;
    put_nothing_off(state)?;
    Ok(true)
}

/// Replaces what is pending on a state, and what the transaction sees of it. `touched` is what of the state the change
/// touches.
fn stage(
    state: &StateRef<'_>,
    touched: &Touched,
    change: impl FnOnce(&mut State, Option<Pending>) -> Result<(Pending, View)>,
) -> Result<()> {
    // SAFETY: marks the running command as one that changes something, as a table's change does.
    let command = unsafe { pg_sys::GetCurrentCommandId(true) };
    with(|batch| {
        let only_flushed = !batch.by_hand.any();
        let known = batch.changing(state)?;
        if only_flushed
            && let (None, None, Some(flushed)) = (&known.pending, known.beneath, &known.flushed)
        {
            known.beneath = Some(flushed.number());
        }
        let before = known.pending.take();
        let touched = match &before {
            Some(before) if before.has_ended() => Touched::document().and(touched),
            Some(before) => before.touched.clone().and(touched),
            None => touched.clone(),
        };
        let belongs_to_written = before.as_ref().is_some_and(|it| it.belongs_to_written);
        let (mut pending, view) = change(known, before)?;
        pending.touched = touched;
        pending.belongs_to_written = belongs_to_written;
        known.pending = Some(pending);
        known.push_view(command, view);
        let staged = known.staged_bytes();
        batch.holds_too_much(staged)
    })
    .and_then(|too_much| if too_much { make_room(state) } else { Ok(()) })
}

/// Keeps a transaction that changes very many states within bounds.
fn make_room(state: &StateRef<'_>) -> Result<()> {
    if with(|batch| batch.scope.explicit.own_rule().is_some()) {
        return Err(Error::BatchTooLarge {
            state: state.shown(),
            limit: MAX_HELD,
        });
    }
    let _snapshot = PushedSnapshot::transaction();
    flush::flush(Whose::NoBatch)?;
    with(|batch| batch.spill(true))
}

fn new_pending(
    state: &StateRef<'_>,
    intent: Intent,
    expiry: Expiry,
    expected: Option<i64>,
) -> Pending {
    let dedup = state.class.dedup && settings::dedup();
    Pending {
        intent,
        expiry,
        stager: Identity::current(),
        dedup,
        expected,
        folded: None,
        checkpoint: None,
        touched: Touched::default(),
        belongs_to_written: false,
    }
}

/// What is pending once an operation has been added to it.
fn with_operation(
    state: &StateRef<'_>,
    pending: Option<Pending>,
    operation: Operation,
    result: Bytes,
    found: &Found<Vec<u8>>,
    expiry: Expiry,
) -> Result<Pending> {
    let first = |operation, result| Intent::Apply {
        operations: Rc::new(vec![Rc::new(operation)]),
        base: ground_of(found),
        result,
    };
    Ok(match pending {
        None => new_pending(state, first(operation, result), expiry, None),
        Some(pending) => {
            // Staged and gone again, deleted or expired: what comes now starts from nothing.
            let starts_anew =
                pending.has_ended() || matches!(pending.intent, Intent::Delete | Intent::Expire(_));
            let is_edit = operation.is_edit();
            let folded = pending.folded.map(|folded| Folded {
                has_edits: folded.has_edits || is_edit,
                ..folded
            });
            let intent = match pending.intent {
                _ if starts_anew => Intent::Replace(result),
                Intent::Replace(_) | Intent::Delete | Intent::Expire(_) => Intent::Replace(result),
                Intent::Touch => first(operation, result),
                Intent::Apply {
                    mut operations,
                    base,
                    ..
                } => {
                    if Rc::get_mut(&mut operations).is_none() {
                        // What a subtransaction would go back to has them, too.
                        let copied = operations.iter().map(Rc::clone);
                        operations = Rc::new(collect(copied)?);
                    }
                    Rc::make_mut(&mut operations).try_push(Rc::new(operation))?;
                    Intent::Apply {
                        operations,
                        base,
                        result,
                    }
                }
            };
            let expiry = match (pending.expiry, expiry) {
                (_, expiry) if starts_anew => Expiry::At(expiry.after(None)),
                (Expiry::At(at), Expiry::AtLeast(least)) => Expiry::At(at.max(least)),
                (before, Expiry::Keep) => before,
                (_, after) => after,
            };
            Pending {
                intent,
                expiry,
                expected: pending.expected,
                folded,
                ..new_pending(state, Intent::Touch, expiry, None)
            }
        }
    })
}

impl Pending {
    /// Whether the staged change has given the state an expiry that has passed.
    fn has_ended(&self) -> bool {
        matches!(self.expiry, Expiry::At(at) if at != i64::MAX && at <= sys::statement_timestamp())
    }
}

fn version_of<T>(found: &Found<T>) -> Option<Version> {
    match found {
        Found::Absent(_) => None,
        Found::State(version, _) => Some(*version),
    }
}

/// What an operation builds upon, also where the transaction's own view of the state knows no hash.
fn ground_of(found: &Found<Vec<u8>>) -> Ground {
    match (found.ground(), found) {
        (Ground { number, hash: 0 }, Found::State(_, document)) => Ground {
            number,
            hash: state_cache_document::hash(document),
        },
        (ground, _) => ground,
    }
}

/// The version that a change will make, as far as it is known: that of the changes staged before, since
/// all of them make one. Where those are a duplicate they show the stored version, which this change may
/// not keep.
fn next_version(known: &State, pending: Option<&Pending>) -> Option<i64> {
    match (&pending?.intent, known.newest()?) {
        (Intent::Replace(_) | Intent::Apply { .. }, View::Document { version, .. }) => {
            version.filter(|version| known.beneath.is_none_or(|beneath| *version > beneath))
        }
        _ => None,
    }
}

/// Compares the version that the caller expects with the one it sees; what the flush is to compare the
/// committed version with.
fn check_expected(state: &StateRef<'_>, expected: Option<i64>) -> Result<Option<i64>> {
    let Some(expected) = expected else {
        return Ok(None);
    };
    if expected < 0 {
        return Err(Error::argument(format!(
            "expected_version must not be negative: {expected}"
        )));
    }
    let found = read_newest(state, &mut Head)?
        .state()
        .map_or(0, |(version, ())| version.number);
    if found != expected {
        if was_before_own_changes(state, expected)? {
            return Err(Error::ChangedHere {
                state: state.shown(),
                expected,
                found,
            });
        }
        state
            .class
            .counters
            .count(crate::counters::Counter::Conflicts);
        return Err(Error::Conflict {
            state: state.shown(),
            expected,
            found,
        });
    }
    let staged = with(|batch| batch.is_dirty(state))?;
    if !staged {
        return Ok(Some(expected));
    }
    // On top of a staged change the expected version is one that does not exist yet.
    match with(|batch| batch.beneath(state))? {
        Some(beneath) => Ok(Some(beneath)),
        None => Ok(Some(committed_ground(state)?.number)),
    }
}

/// Whether this transaction's own changes are what has moved a state on from this version (0: absent): nobody else has
/// written, and no retry would come to another end.
fn was_before_own_changes(state: &StateRef<'_>, version: i64) -> Result<bool> {
    let (known, is_dirty) = with(|batch| -> Result<_> {
        let known = batch.flushed_of(state)?.map(|it| (it.before, it.number()));
        Ok((known, batch.is_dirty(state)?))
    })?;
    Ok(match known {
        Some((before, now)) => version == before || is_dirty && version == now,
        None => is_dirty && committed_ground(state)?.number == version,
    })
}

/// In an explicit batch that fails on conflicts: remembers what is being built upon.
fn note_base(state: &StateRef<'_>) -> Result<()> {
    let wanted =
        with(|batch| -> Result<bool> {
            let on_conflict = batch.scope.explicit.own_rule();
            let role = sys::current_user();
            Ok(on_conflict == Some(OnConflict::Error)
                && batch.changing(state)?.base_of(role).is_none())
        })?;
    if wanted {
        let ground = committed_ground(state)?;
        with(|batch| batch.changing(state).map(|known| known.note_base(ground)))?;
    }
    Ok(())
}

/// Bounds what a transaction keeps of one state: past the limit the row is locked, the operations are
/// applied to what is there then, and only their result is kept.
fn fold_if_many(state: &StateRef<'_>) -> Result<()> {
    let many = with(|batch| -> Result<_> {
        Ok(match &batch.changing(state)?.pending {
            Some(Pending {
                intent:
                    Intent::Apply {
                        operations,
                        base,
                        result,
                    },
                ..
            }) if are_many(operations) => Some((Rc::clone(operations), *base, Rc::clone(result))),
            _ => None,
        })
    })?;
    let Some((operations, base, result)) = many else {
        return Ok(());
    };
    behind::lock(&state.catalog, Rc::clone(&state.class), state.key)?;
    store::lock(&state.catalog, &state.class.name, state.key)?;
    let current = {
        let _snapshot = PushedSnapshot::transaction();
        read_beneath(state, &mut Document)?
    };
    let ground = current.ground();
    let result = if ground == base {
        Some(result)
    } else {
        let document = current.state().map(|(_, document)| document);
        apply_all(state, &operations, document)?.map(Rc::new)
    };
    with(|batch| {
        let known = batch.changing(state)?;
        known.beneath = Some(ground.number);
        if let Some(pending) = &mut known.pending {
            pending.intent = match &result {
                Some(result) => Intent::Replace(Rc::clone(result)),
                None => Intent::Delete,
            };
            pending.folded = Some(Folded {
                ground,
                has_edits: have_edits(&operations),
            });
        }
        match (known.newest_mut(), result) {
            (Some(View::Document { document, .. }), Some(result)) => *document = result,
            (Some(view), None) => *view = View::Absent,
            _ => {}
        }
        Ok(())
    })
}

fn are_many(operations: &[Rc<Operation>]) -> bool {
    let (count, bytes) = MAX_OPERATIONS;
    operations.len() > count
        || operations
            .iter()
            .map(|operation| operation.bytes())
            .sum::<usize>()
            > bytes
}

/// Operations applied one after the other to a document, `None` where there is no state. What comes of it is `None` if
/// that is so and none of them makes one.
pub fn apply_all(
    state: &StateRef<'_>,
    operations: &[Rc<Operation>],
    base: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let mut document = base;
    for operation in operations {
        if document.is_none() && operation.needs_state() {
            continue;
        }
        let next = operation.apply(state, document.as_deref())?;
        check_size(state, &next)?;
        document = Some(next);
    }
    Ok(document)
}
