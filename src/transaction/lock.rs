//! Locking a state before a decision that must still hold at COMMIT, and what a claim adds to that.

use super::batch::with;
use super::known::OnConflict;
use super::operation::Operation;
use super::view::read_newest;
use super::{change, deferred, flush};
use crate::cache::StateRef;
use crate::cache::found::{Form, Found};
use crate::error::Result;
use crate::snapshot::PushedSnapshot;
use crate::{behind, memory, shared, store};
use std::ffi::CStr;
use std::rc::Rc;

/// Locks a state for the rest of the transaction, before a decision that must still hold at COMMIT: what is read
/// of it from here on ([`read_locked`]) stays until then. An absent state is not locked.
///
/// # Errors
/// As those of a change of the state; at REPEATABLE READ `40001` if it has moved since the snapshot.
pub fn lock(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    change::begin(state, function)?;
    behind::lock(&state.catalog, Rc::clone(&state.class), state.key)?;
    store::lock(&state.catalog, &state.class.name, state.key)?;
    // Outside an explicit batch, staged operations are shown on top of what is there. In a batch, the staged changes
    // are written now: one that fails on conflicts says so here, and one that would overwrite looks here.
    let on_conflict = with(|batch| batch.scope.explicit.own_rule());
    match on_conflict {
        None => Ok(()),
        Some(OnConflict::Error) => flush::write_staged_as(state, OnConflict::Error),
        Some(OnConflict::Reapply | OnConflict::Overwrite) => {
            flush::write_staged_as(state, OnConflict::Reapply)
        }
    }
}

/// Reads a state that is locked, with the changes of this transaction.
pub fn read_locked<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    // The caller's snapshot may be older than the lock.
    let _snapshot = PushedSnapshot::transaction();
    read_newest(state, form)
}

/// Stages an operation on a state that is locked, upon what [`read_locked`] finds. The caller's snapshot may be older
/// than the lock, and a batch that overwrites would write what the operation makes of the older document.
pub fn apply_locked(state: &StateRef<'_>, operation: Operation, function: &CStr) -> Result<()> {
    let _snapshot = PushedSnapshot::transaction();
    change::apply(state, operation, function)
}

/// Before somebody looks at the kept versions in order to go back: writes what this transaction has staged or
/// deferred of the state, and what L1 alone holds of it.
pub fn write_before_recovery(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    change::begin(state, function)?;
    flush::flush_now(state, None)?;
    let class = behind::lock(&state.catalog, Rc::clone(&state.class), state.key)?;
    if class.behind && shared::l1().is_some() {
        let id = state.id();
        deferred::write_back(state, id)?;
    }
    Ok(())
}

/// This transaction holds a lock on a claim: prepared, it would keep everybody from the state, whatever the lease.
pub fn note_claim() {
    with(|batch| batch.holds_claim = true);
}

/// From here on this transaction writes the state under the claim with this token, which a flush checks; or under
/// none.
pub fn fence(state: &StateRef<'_>, token: Option<i64>) -> Result<()> {
    with(|batch| {
        batch.changing(state)?.fence = token;
        Ok(())
    })
}

/// The same for a token that is the current one. What the transaction has staged of the state under another stays
/// under that, which is void by now: `check_former` says so.
pub fn fence_from_here(
    state: &StateRef<'_>,
    token: i64,
    check_former: impl FnOnce(i64) -> Result<()>,
) -> Result<()> {
    if let Some(former) = fence_of(state)?
        && former != token
        && is_staged(state)?
    {
        check_former(former)?;
    }
    fence(state, Some(token))
}

/// The token of the claim under which this transaction writes the state, if one was named.
pub fn fence_of(state: &StateRef<'_>) -> Result<Option<i64>> {
    with(|batch| {
        let id = state.id();
        let known = batch.known(id, &state.class.name, state.key)?;
        Ok(known.and_then(|known| known.fence))
    })
}

/// Whether a change of a state is staged.
pub fn is_staged(state: &StateRef<'_>) -> Result<bool> {
    with(|batch| batch.is_staged(state))
}

/// The keys of a class whose changes this transaction has staged, in order.
pub fn staged_keys(class: &[u8]) -> Result<Vec<Box<[u8]>>> {
    with(|batch| {
        let staged = batch.states.values().filter(|state| state.is_staged());
        let staged = staged.filter(|state| *state.class.name == *class);
        let mut keys = memory::checked(staged.map(|state| Box::from(&*state.key)))?;
        keys.sort_unstable();
        Ok(keys)
    })
}
