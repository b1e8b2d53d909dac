//! What the functions that change a state do before the flush.

use super::batch::{Phase, with};
use super::beneath::committed_ground;
use super::capability;
use super::flush;
use super::known::{Bytes, Expiry, Intent, Pending, View, Whole};
use super::meet::flush_others;
use super::operation::{Operation, check_size};
use super::overrule::overrule_deferred;
use super::stage::{fold_if_many, new_pending, next_version, note_base, stage, with_operation};
use super::view::read_newest;
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head};
use crate::cache::found::{Found, Version};
use crate::call::Given;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::identity::is_sandboxed;
use crate::interval::Ttl;
use crate::notify::Touched;
use crate::store::Checkpoint;
use crate::{call, interval, sys};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::rc::Rc;

/// Raises unless this transaction and this role may change states: `25006`, `25000`, `42501`. What another
/// role has staged is flushed first.
pub fn begin(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    check_may_write(&state.catalog, function)?;
    if state.class.source.is_some() {
        return Err(Error::Computed {
            state: state.shown(),
        });
    }
    if with(|batch| batch.phase == Phase::Committing) {
        return Err(Error::TooLateToChange {
            state: state.shown(),
        });
    }
    overrule_deferred(state)?;
    flush_others(state).map(|_| ())
}

/// Raises unless this transaction and this role may change states at all.
pub fn check_may_write(catalog: &Catalog, function: &CStr) -> Result<()> {
    call::check_may_write(function)?;
    // SAFETY: raises PostgreSQL's own error; the name is NUL-terminated.
    unsafe { pg_sys::PreventCommandIfParallelMode(function.as_ptr()) };
    catalog.check_may_change()
}

/// When a time to live that counts from now on is over, `22023` for one that is not positive, or too long.
pub fn expires_after(ttl: &pg_sys::Interval) -> Result<i64> {
    interval::check_positive("ttl", ttl, "NULL sets no end, unless the class does.")?;
    Ok(interval::after(sys::statement_timestamp(), ttl))
}

/// What a class's `ttl` makes of a write.
pub fn class_expiry(state: &StateRef<'_>) -> Option<i64> {
    state
        .class
        .ttl
        .as_ref()
        .map(|ttl| interval::after(sys::statement_timestamp(), ttl))
}

/// Replaces the whole document.
pub fn set(
    state: &StateRef<'_>,
    document: Given<'_>,
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
        true => flush::write_staged(state),
        false => Ok(()),
    }
}

/// The same for a checkpoint.
pub fn set_checkpoint(
    state: &StateRef<'_>,
    document: Given<'_>,
    checkpoint: Option<Checkpoint>,
    expected: Option<i64>,
    ttl: Option<pg_sys::Interval>,
    function: &CStr,
) -> Result<()> {
    begin(state, function)?;
    capability::check_may_replace(state)?;
    check_size(state, document.binary)?;
    let explicit_expiry = ttl.as_ref().map(expires_after).transpose()?;
    let expires_at = explicit_expiry
        .or_else(|| class_expiry(state))
        .unwrap_or(i64::MAX);
    let expected = check_expected(state, expected)?;
    note_base(state)?;
    // What is packed is packed anew.
    let is_stored = !state.class.packs();
    let document: Bytes = Rc::new(Whole::copy(document, is_stored)?);
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
        pending.ttl = Ttl::Is(ttl);
        pending.dedup &= checkpoint.as_ref().is_none_or(Checkpoint::is_skippable);
        pending.checkpoint = checkpoint.map(Rc::new);
        Ok((pending, view))
    })
}

/// Stages an operation.
pub fn apply(state: &StateRef<'_>, operation: Operation, function: &CStr) -> Result<()> {
    begin(state, function)?;
    let operation = match operation.is_edit() {
        true => operation,
        false => capability::prepare(state, operation)?,
    };
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
    let result: Bytes = Rc::new(result.into());
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
    flush::flush_one(state)
}

/// Gives the state another expiry, and perhaps another time to live to remember; whether there was a state.
pub fn expire_at(state: &StateRef<'_>, expires_at: i64, ttl: Ttl, function: &CStr) -> Result<bool> {
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
        let ttl = pending.ttl.followed_by(ttl);
        let pending = Pending { ttl, ..pending };
        Ok((pending, view))
    })?;
    put_nothing_off(state)?;
    Ok(true)
}

fn version_of<T>(found: &Found<T>) -> Option<Version> {
    match found {
        Found::Absent(_) => None,
        Found::State(version, _) => Some(*version),
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
    let staged = with(|batch| batch.is_staged(state))?;
    if !staged {
        return Ok(Some(expected));
    }
    // On top of a staged change the expected version is one that does not exist yet.
    match with(|batch| batch.beneath(state))? {
        Some(beneath) => Ok(Some(beneath)),
        None => Ok(Some(committed_ground(state)?.number)),
    }
}

/// Whether this transaction's own changes are what has moved a state on from this version (0: absent): nobody else
/// has written, and no retry would come to another end.
fn was_before_own_changes(state: &StateRef<'_>, version: i64) -> Result<bool> {
    let (known, is_staged) = with(|batch| -> Result<_> {
        let known = batch.flushed_of(state)?.map(|it| (it.before, it.number()));
        Ok((known, batch.is_staged(state)?))
    })?;
    Ok(match known {
        Some((before, now)) => version == before || is_staged && version == now,
        None => is_staged && committed_ground(state)?.number == version,
    })
}
