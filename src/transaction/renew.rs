//! Giving a state a time to live, or letting the one start again that it was given before.

use super::batch::with;
use super::change::{class_expiry, expire_at, expires_after};
use super::lock::{lock, read_locked};
use super::plan::deferred_ttl;
use crate::cache::StateRef;
use crate::cache::forms::Head;
use crate::error::Result;
use crate::interval::Ttl;
use crate::snapshot::PushedSnapshot;
use crate::store;
use pgrx::pg_sys;
use std::ffi::CStr;

/// Gives a state a time to live: none for `None`, and the one that it remembers for 0. Whether there was a state.
pub fn touch(state: &StateRef<'_>, ttl: Option<pg_sys::Interval>, function: &CStr) -> Result<bool> {
    let (expires_at, ttl) = match ttl {
        Some(pg_sys::Interval {
            time: 0,
            day: 0,
            month: 0,
        }) => return renew(state, function),
        Some(ttl) => (expires_after(&ttl)?, Some(ttl)),
        None => (i64::MAX, None),
    };
    expire_at(state, expires_at, Ttl::Is(ttl), function)
}

/// Lets the time to live that the state remembers start again, or that of its class if it remembers none; without
/// either its expiry stays. Whether there was a state. The row is locked: what is read is what holds at COMMIT.
fn renew(state: &StateRef<'_>, function: &CStr) -> Result<bool> {
    lock(state, function)?;
    if read_locked(state, &mut Head)?.state().is_none() {
        return Ok(false);
    }
    let expires_at = match remembered(state)? {
        Some(ttl) => Some(expires_after(&ttl)?),
        None => class_expiry(state),
    };
    match expires_at {
        Some(expires_at) => expire_at(state, expires_at, Ttl::Keep, function),
        None => Ok(true),
    }
}

/// The time to live that a state remembers, as this transaction sees the state.
fn remembered(state: &StateRef<'_>) -> Result<Option<pg_sys::Interval>> {
    let staged = with(|batch| -> Result<_> {
        let known = batch.known(state.id(), &state.class.name, state.key)?;
        let known = known.and_then(|known| known.pending.as_ref());
        Ok(known.map_or(Ttl::Keep, |pending| pending.ttl))
    })?;
    match deferred_ttl(state)?.followed_by(staged) {
        Ttl::Is(ttl) => Ok(ttl),
        Ttl::Keep => {
            let _snapshot = PushedSnapshot::transaction();
            store::remembered_ttl(&state.catalog, &state.class.name, state.key)
        }
    }
}
