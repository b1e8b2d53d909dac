//! Claims: who owns a run, and under which token it writes.

use super::error::{ContextError, Holder};
use super::hierarchy::lock_place;
use super::run;
use crate::cache::StateRef;
use crate::call::{self, Call, sql_functions};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Claim, ClaimLock, PlaceLock};
use crate::transaction;
use crate::{interval, sys};
use pgrx::pg_sys;

/// Longest name of an owner, in bytes.
const MAX_OWNER: usize = 255;

/// Raises `40001` unless the claim with this token is the current one, and keeps it so until the transaction ends.
pub fn check_fence(state: &StateRef<'_>, token: i64) -> Result<()> {
    let catalog = &state.catalog;
    transaction::note_claim();
    let _owner = Impersonation::owner_of(catalog.context);
    if sys::isolation_uses_transaction_snapshot() {
        // PostgreSQL's own error for a row that has moved would not say who owns the run.
        check(state.key, latest(catalog, state.key)?, token)?;
    }
    check(
        state.key,
        store::lock_claim(catalog, state.key, ClaimLock::Shared)?,
        token,
    )
}

/// Makes this transaction write the run under a token, if there is one: `40001` if it is not the current one now, and
/// when the run is written if it is not then.
pub fn fence(state: &StateRef<'_>, token: Option<i64>) -> Result<()> {
    let Some(token) = token else {
        return Ok(());
    };
    {
        let _owner = Impersonation::owner_of(state.catalog.context);
        check(state.key, latest(&state.catalog, state.key)?, token)?;
    }
    name(state, token)
}

/// Makes this transaction write the run under a token that is the current one. What it has staged of the run under
/// another stays under that, which is void by now: `40001`.
fn name(state: &StateRef<'_>, token: i64) -> Result<()> {
    if let Some(former) = transaction::fence_of(state)?
        && former != token
        && transaction::is_staged(state)?
    {
        check_fence(state, former)?;
    }
    transaction::fence(state, Some(token))
}

/// The same for a function that locks the run at once: from here on nobody else can claim the run until the
/// transaction ends, and what it writes elsewhere stands under the token too. A token that an earlier call of the
/// transaction has named holds for this one as well.
pub fn fence_now(state: &StateRef<'_>, token: Option<i64>) -> Result<()> {
    let named = match token {
        None => transaction::fence_of(state)?,
        token => token,
    };
    let Some(token) = named else {
        return Ok(());
    };
    check_fence(state, token)?;
    name(state, token)
}

/// The claim as it is now, whatever the isolation level.
fn latest(catalog: &Catalog, run: &[u8]) -> Result<Option<Claim>> {
    let _snapshot = PushedSnapshot::latest();
    store::claim(catalog, run)
}

fn check(run: &[u8], found: Option<Claim>, token: i64) -> Result<()> {
    match found {
        Some(claim) if claim.token == token && claim.owner.is_some() => Ok(()),
        found => Err(fenced(run, token, found)),
    }
}

fn fenced(run: &[u8], token: i64, found: Option<Claim>) -> Error {
    let holder = found.and_then(|claim| holder(&claim));
    ContextError::Fenced {
        run: text(run),
        token,
        holder,
    }
    .into()
}

fn holder(claim: &Claim) -> Option<Holder> {
    Some(Holder {
        owner: text(claim.owner.as_ref()?),
        token: claim.token,
        expires_at: claim.expires_at,
    })
}

/// A lease that somebody asks for.
fn lease(call: &Call<'_>, n: usize) -> Result<pg_sys::Interval> {
    let lease = call
        .interval(n)
        .ok_or_else(|| Error::null_argument("lease"))?;
    interval::check_positive("lease", &lease, "state_context_renew() prolongs a lease.")?;
    Ok(lease)
}

fn token(call: &Call<'_>) -> Result<i64> {
    call.bigint(1).ok_or_else(|| Error::null_argument("token"))
}

/// The run that a call is about, which the caller may change and which runs.
fn running<'a>(call: &Call<'a>, function: &std::ffi::CStr) -> Result<StateRef<'a>> {
    let state = run::named(call, 0)?;
    transaction::check_may_change(&state, function)?;
    run::require_running(&state)?;
    transaction::note_claim();
    Ok(state)
}

sql_functions! {
    /// `state_context_claim(run_id, owner, lease)`
    fn state_context_claim(call) {
        let owner = call.required_text(1, "owner")?;
        if owner.is_empty() || owner.len() > MAX_OWNER {
            return Err(Error::argument(format!("owner must have 1 to {MAX_OWNER} bytes")));
        }
        let lease = lease(call, 2)?;
        let state = running(call, c"state_context_claim()")?;
        // The token changes: what was staged under the one before is written under that.
        let is_fenced = transaction::fence_of(&state)?.is_some();
        if is_fenced {
            transaction::write_staged(&state)?;
        }
        let taken = {
            let _owner = Impersonation::owner_of(state.catalog.context);
            store::take_claim(&state.catalog, state.key, owner, &lease)?
        };
        if let Some(claim) = taken {
            if is_fenced {
                transaction::fence(&state, Some(claim.token))?;
            }
            // It may have ended, or gone, while this waited.
            let document = run::require(&state)?;
            lock_place(&state, &run::open(&state, &document)?, PlaceLock::Stays)?;
            run::require_running(&state)?;
            return Ok(call::bigint_datum(claim.token));
        }
        let _owner = Impersonation::owner_of(state.catalog.context);
        let held = latest(&state.catalog, state.key)?;
        Err(ContextError::Claimed { run: text(state.key), holder: held.as_ref().and_then(holder) }.into())
    }

    /// `state_context_renew(run_id, token, lease)`
    fn state_context_renew(call) {
        let (token, lease) = (token(call)?, lease(call, 2)?);
        let state = running(call, c"state_context_renew()")?;
        let _owner = Impersonation::owner_of(state.catalog.context);
        if sys::isolation_uses_transaction_snapshot() {
            check(state.key, latest(&state.catalog, state.key)?, token)?;
        }
        match store::renew_claim(&state.catalog, state.key, token, &lease)? {
            Some(claim) => Ok(call::bigint_datum(claim.expires_at)),
            None => Err(fenced(state.key, token, latest(&state.catalog, state.key)?)),
        }
    }

    /// `state_context_release(run_id, token)`
    fn state_context_release(call) {
        let token = token(call)?;
        let state = run::named(call, 0)?;
        transaction::check_may_change(&state, c"state_context_release()")?;
        run::require(&state)?;
        // What was staged under the token is written under it.
        transaction::write_staged(&state)?;
        transaction::fence(&state, None)?;
        transaction::note_claim();
        let _owner = Impersonation::owner_of(state.catalog.context);
        if sys::isolation_uses_transaction_snapshot() {
            check(state.key, latest(&state.catalog, state.key)?, token)?;
        }
        if store::release_claim(&state.catalog, state.key, token)? {
            return Ok(call::void_datum());
        }
        Err(fenced(state.key, token, latest(&state.catalog, state.key)?))
    }

    /// `state_context_fence(run_id, token)`
    fn state_context_fence(call) {
        let token = token(call)?;
        let state = run::named(call, 0)?;
        transaction::check_may_change(&state, c"state_context_fence()")?;
        call.require_block("state_context_fence()")?;
        run::require(&state)?;
        fence(&state, Some(token))?;
        Ok(call::void_datum())
    }
}
