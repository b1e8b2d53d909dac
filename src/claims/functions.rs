//! The SQL functions of claims.

use super::error::ClaimsError;
use super::rules::{check, check_fence, holder, latest};
use crate::cache::StateRef;
use crate::cache::forms::Head;
use crate::call::{self, Call, sql_functions};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::store::{self, Lease};
use crate::{catalog, context, sys, transaction};
use pgrx::pg_sys;

/// The state that a call is about.
fn state<'a>(call: &Call<'a>, class: usize) -> Result<StateRef<'a>> {
    let key = call.required_text(0, "key")?;
    let class = call.required_text(class, "class")?;
    StateRef::new(&catalog::current(call.function())?, class, key)
}

/// `42501` where row-level security does not show the state to the caller, who would keep others from it, take it
/// from its owner by a guessed token, or hear who that is.
fn check_is_shown(state: &StateRef<'_>) -> Result<()> {
    let is_hidden = state.catalog.access().row_security
        && transaction::read_latest(state, &mut Head)?
            .state()
            .is_none();
    match is_hidden {
        true => Err(Error::Hidden {
            state: state.shown(),
        }),
        false => Ok(()),
    }
}

/// Claims a state, `None` if somebody else holds it. One that was never claimed has no row yet.
fn take(state: &StateRef<'_>, owner: &[u8], lease: &pg_sys::Interval) -> Result<Option<Lease>> {
    let (catalog, name) = (&state.catalog, (&*state.class.name, state.key));
    let taken = store::take_lease(catalog, name, owner, lease)?;
    if taken.is_some() || latest(state)?.is_some() {
        return Ok(taken);
    }
    store::make_room_for_lease(catalog, name.0, name.1)?;
    store::take_lease(catalog, name, owner, lease)
}

/// Claims a state that is no run; the token.
fn claim(state: &StateRef<'_>, owner: &[u8], lease: &pg_sys::Interval) -> Result<i64> {
    check_is_shown(state)?;
    transaction::note_claim();
    // The token changes: what was staged under the one before is written under that.
    let is_fenced = transaction::fence_of(state)?.is_some();
    if is_fenced {
        transaction::write_staged(state)?;
    }
    let (taken, held) = {
        let _owner = Impersonation::owner_of(state.catalog.context);
        match take(state, owner, lease)? {
            Some(taken) => (Some(taken), None),
            None => (None, latest(state)?),
        }
    };
    let Some(taken) = taken else {
        return Err(ClaimsError::Claimed {
            state: state.shown(),
            holder: held.as_ref().and_then(holder),
        }
        .into());
    };
    if is_fenced {
        transaction::fence(state, Some(taken.token))?;
    }
    Ok(taken.token)
}

/// Prolongs the claim of a state that is no run; until when.
fn renew(state: &StateRef<'_>, token: i64, lease: &pg_sys::Interval) -> Result<i64> {
    check_is_shown(state)?;
    transaction::note_claim();
    let _owner = Impersonation::owner_of(state.catalog.context);
    if sys::isolation_uses_transaction_snapshot() {
        check(state, latest(state)?, token)?;
    }
    let name = (&*state.class.name, state.key);
    match store::renew_lease(&state.catalog, name, token, lease)? {
        Some(lease) => Ok(lease.expires_at),
        None => Err(lost(state, token)),
    }
}

/// Gives the claim of a state up that is no run.
fn release(state: &StateRef<'_>, token: i64) -> Result<()> {
    check_is_shown(state)?;
    // What was staged under the token is written under it.
    transaction::write_staged(state)?;
    transaction::fence(state, None)?;
    transaction::note_claim();
    let _owner = Impersonation::owner_of(state.catalog.context);
    if sys::isolation_uses_transaction_snapshot() {
        check(state, latest(state)?, token)?;
    }
    match store::release_lease(&state.catalog, &state.class.name, state.key, token)? {
        true => Ok(()),
        false => Err(lost(state, token)),
    }
}

/// The error for a token that is not the current one.
fn lost(state: &StateRef<'_>, token: i64) -> Error {
    let found = latest(state).and_then(|found| check(state, found, token));
    // The claim was not the current one a moment ago, and no token comes back.
    found.err().unwrap_or_else(|| {
        ClaimsError::Claimed {
            state: state.shown(),
            holder: None,
        }
        .into()
    })
}

/// Makes this transaction write a state that is no run under a token.
fn fence(state: &StateRef<'_>, token: i64) -> Result<()> {
    check_is_shown(state)?;
    {
        let _owner = Impersonation::owner_of(state.catalog.context);
        check(state, latest(state)?, token)?;
    }
    transaction::fence_from_here(state, token, |former| check_fence(state, former))
}

sql_functions! {
    /// `state_claim(key, owner, lease, class)`
    fn state_claim(call) {
        let (owner, lease) = (context::owner(call, 1)?, context::lease(call, 2)?);
        let state = state(call, 3)?;
        transaction::check_may_change(&state, c"state_claim()")?;
        let token = match context::is_there_as_run(&state)? {
            true => context::claim_run(&state, owner, &lease, c"state_claim()")?,
            false => claim(&state, owner, &lease)?,
        };
        Ok(call::bigint_datum(token))
    }

    /// `state_renew(key, token, lease, class)`
    fn state_renew(call) {
        let (token, lease) = (context::token(call)?, context::lease(call, 2)?);
        let state = state(call, 3)?;
        transaction::check_may_change(&state, c"state_renew()")?;
        let until = match context::is_of_run(&state)? {
            true => context::renew_run(&state, token, &lease, c"state_renew()")?,
            false => renew(&state, token, &lease)?,
        };
        Ok(call::bigint_datum(until))
    }

    /// `state_release(key, token, class)`
    fn state_release(call) {
        let token = context::token(call)?;
        let state = state(call, 2)?;
        transaction::check_may_change(&state, c"state_release()")?;
        match context::is_of_run(&state)? {
            true => context::release_run(&state, token, c"state_release()")?,
            false => release(&state, token)?,
        }
        Ok(call::void_datum())
    }

    /// `state_fence(key, token, class)`
    fn state_fence(call) {
        let token = context::token(call)?;
        let state = state(call, 2)?;
        transaction::check_may_change(&state, c"state_fence()")?;
        call.require_block("state_fence()")?;
        match context::is_of_run(&state)? {
            true => context::fence_run(&state, token)?,
            false => fence(&state, token)?,
        }
        Ok(call::void_datum())
    }
}
