//! Claims: who owns a run, and under which token it writes.

use super::error::{ContextError, Holder, Loss};
use super::hierarchy::{is_there, lock_place};
use super::run;
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, Call, sql_functions};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Claim, ClaimLock, PlaceLock};
use crate::transaction;
use crate::{interval, sys};
use pgrx::pg_sys;
use state_cache_context::{Status, listed};
use std::ffi::CStr;

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

fn name(state: &StateRef<'_>, token: i64) -> Result<()> {
    transaction::fence_from_here(state, token, |former| check_fence(state, former))
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
    let loss = match &found {
        None => Loss::Gone,
        Some(claim) if claim.status != Status::Running => Loss::Ended(claim.status),
        Some(claim) => holder(claim).map_or(Loss::Released, Loss::Taken),
    };
    run::lost(run, token, loss)
}

/// Does what a call asks for that writes a run under a token, its own or one that the transaction has named: where
/// that fails because the run has ended or is gone, the claim is lost, and `40001` says so.
pub fn under<T>(
    state: &StateRef<'_>,
    token: Option<i64>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let error = match work() {
        Err(Error::Capability(report)) if report.is_end_of(&text(state.key)) => {
            Error::Capability(report)
        }
        other => return other,
    };
    let named = match token {
        None => transaction::fence_of(state)?,
        token => token,
    };
    let Some(token) = named else {
        return Err(error);
    };
    match loss(state)? {
        Some(loss) => Err(run::lost(state.key, token, loss)),
        None => Err(error),
    }
}

/// Why nobody can own a run: it has ended, or is gone. A run that is hidden from this role is neither.
fn loss(state: &StateRef<'_>) -> Result<Option<Loss>> {
    if let Some((_, document)) = transaction::read_latest(state, &mut Document)?.state() {
        let status = run::open(state, &document)?.status();
        return Ok((status != Status::Running).then_some(Loss::Ended(status)));
    }
    Ok((!is_there(state)?).then_some(Loss::Gone))
}

fn holder(claim: &Claim) -> Option<Holder> {
    Some(Holder {
        owner: text(claim.owner.as_ref()?),
        token: claim.token,
        expires_at: claim.expires_at,
    })
}

/// Who wants to own a run.
pub fn owner<'a>(call: &Call<'a>, n: usize) -> Result<&'a [u8]> {
    let owner = call.required_text(n, "owner")?;
    match owner.len() {
        1..=MAX_OWNER => Ok(owner),
        _ => Err(Error::argument(format!(
            "owner must have 1 to {MAX_OWNER} bytes"
        ))),
    }
}

/// A lease that somebody asks for.
pub fn lease(call: &Call<'_>, n: usize) -> Result<pg_sys::Interval> {
    let lease = call
        .interval(n)
        .ok_or_else(|| Error::null_argument("lease"))?;
    interval::check_positive("lease", &lease, "state_context_renew() prolongs a lease.")?;
    Ok(lease)
}

/// The token that a call names.
pub fn token(call: &Call<'_>) -> Result<i64> {
    call.bigint(1).ok_or_else(|| Error::null_argument("token"))
}

/// Raises unless the caller may change the run, and it runs.
fn check_running(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    transaction::check_may_change(state, function)?;
    run::require_running(state)?;
    transaction::note_claim();
    Ok(())
}

/// Whether a claim of a state is that of a run: there is one, or there was one and nobody has claimed the name since
/// as that of another state.
pub fn is_of_run(state: &StateRef<'_>) -> Result<bool> {
    if !run::is_run(state) {
        return Ok(false);
    }
    let (catalog, class) = (&state.catalog, &state.class.name);
    let _owner = Impersonation::owner_of(catalog.context);
    let _snapshot = PushedSnapshot::latest();
    Ok(store::claim(catalog, state.key)?.is_some()
        || store::lease(catalog, class, state.key)?.is_none())
}

/// Whether there is a run of that name, which is claimed as such.
pub fn is_there_as_run(state: &StateRef<'_>) -> Result<bool> {
    if !run::is_run(state) {
        return Ok(false);
    }
    let has_row = {
        let _owner = Impersonation::owner_of(state.catalog.context);
        latest(&state.catalog, state.key)?.is_some()
    };
    if has_row {
        return Ok(true);
    }
    match transaction::read_latest(state, &mut Document)?.state() {
        Some((_, document)) => Ok(listed(&document, state.key)?.is_some()),
        None => Ok(false),
    }
}

/// Claims a run; the token.
pub fn claim_run(
    state: &StateRef<'_>,
    owner: &[u8],
    lease: &pg_sys::Interval,
    function: &CStr,
) -> Result<i64> {
    check_running(state, function)?;
    // The token changes: what was staged under the one before is written under that.
    let is_fenced = transaction::fence_of(state)?.is_some();
    if is_fenced {
        transaction::write_staged(state)?;
    }
    let taken = {
        let _owner = Impersonation::owner_of(state.catalog.context);
        take(state, owner, lease)?
    };
    if let Some(claim) = taken {
        if is_fenced {
            transaction::fence(state, Some(claim.token))?;
        }
        // It may have ended, or gone, while this waited.
        let document = run::require(state)?;
        lock_place(state, &run::open(state, &document)?, PlaceLock::Stays)?;
        run::require_running(state)?;
        return Ok(claim.token);
    }
    let _owner = Impersonation::owner_of(state.catalog.context);
    let held = latest(&state.catalog, state.key)?;
    Err(ContextError::Claimed {
        run: text(state.key),
        holder: held.as_ref().and_then(holder),
    }
    .into())
}

/// Prolongs a claim of a run; until when.
pub fn renew_run(
    state: &StateRef<'_>,
    token: i64,
    lease: &pg_sys::Interval,
    function: &CStr,
) -> Result<i64> {
    under(state, Some(token), || check_running(state, function))?;
    let _owner = Impersonation::owner_of(state.catalog.context);
    if sys::isolation_uses_transaction_snapshot() {
        check(state.key, latest(&state.catalog, state.key)?, token)?;
    }
    match store::renew_claim(&state.catalog, state.key, token, lease)? {
        Some(claim) => Ok(claim.expires_at),
        None => Err(fenced(state.key, token, latest(&state.catalog, state.key)?)),
    }
}

/// Gives a claim of a run up.
pub fn release_run(state: &StateRef<'_>, token: i64, function: &CStr) -> Result<()> {
    transaction::check_may_change(state, function)?;
    under(state, Some(token), || run::require(state))?;
    // What was staged under the token is written under it.
    transaction::write_staged(state)?;
    transaction::fence(state, None)?;
    transaction::note_claim();
    let _owner = Impersonation::owner_of(state.catalog.context);
    if sys::isolation_uses_transaction_snapshot() {
        check(state.key, latest(&state.catalog, state.key)?, token)?;
    }
    match store::release_claim(&state.catalog, state.key, token)? {
        true => Ok(()),
        false => Err(fenced(state.key, token, latest(&state.catalog, state.key)?)),
    }
}

/// Makes the transaction of a caller who may change the run write it under a token.
pub fn fence_run(state: &StateRef<'_>, token: i64) -> Result<()> {
    under(state, Some(token), || run::require(state))?;
    fence(state, Some(token))
}

/// Claims a run, `None` if somebody else holds it. A run of which only L1 knows so far has no row yet.
fn take(state: &StateRef<'_>, owner: &[u8], lease: &pg_sys::Interval) -> Result<Option<Claim>> {
    let (catalog, key) = (&state.catalog, state.key);
    let taken = store::take_claim(catalog, key, owner, lease)?;
    if taken.is_some() || latest(catalog, key)?.is_some() {
        return Ok(taken);
    }
    let Some(run) = listed(&run::require(state)?, key)? else {
        return Ok(None);
    };
    store::put_run(catalog, key, &run)?;
    store::take_claim(catalog, key, owner, lease)
}

sql_functions! {
    /// `state_context_claim(run_id, owner, lease)`
    fn state_context_claim(call) {
        let (owner, lease) = (owner(call, 1)?, lease(call, 2)?);
        let token = claim_run(&run::named(call, 0)?, owner, &lease, c"state_context_claim()")?;
        Ok(call::bigint_datum(token))
    }

    /// `state_context_renew(run_id, token, lease)`
    fn state_context_renew(call) {
        let (token, lease) = (token(call)?, lease(call, 2)?);
        let until = renew_run(&run::named(call, 0)?, token, &lease, c"state_context_renew()")?;
        Ok(call::bigint_datum(until))
    }

    /// `state_context_release(run_id, token)`
    fn state_context_release(call) {
        let token = token(call)?;
        release_run(&run::named(call, 0)?, token, c"state_context_release()")?;
        Ok(call::void_datum())
    }

    /// `state_context_fence(run_id, token)`
    fn state_context_fence(call) {
        let token = token(call)?;
        let state = run::named(call, 0)?;
        transaction::check_may_change(&state, c"state_context_fence()")?;
        call.require_block("state_context_fence()")?;
        fence_run(&state, token)?;
        Ok(call::void_datum())
    }
}
