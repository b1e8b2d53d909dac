//! What a flush asks of a state that is written under a token.

use super::error::{ClaimsError, Loss};
use crate::cache::StateRef;
use crate::context::{self, Holder};
use crate::error::{Result, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, ClaimLock, Lease};
use crate::sys;
use crate::transaction::{self, Capability};

/// The rules of claims.
pub struct Claims;

impl Capability for Claims {
    fn check_fence(&self, state: &StateRef<'_>, token: i64) -> Result<()> {
        match context::is_of_run(state)? {
            true => Ok(()),
            false => check_fence(state, token),
        }
    }
}

/// Raises `40001` unless the claim with this token is the current one, and keeps it so until the transaction ends.
pub fn check_fence(state: &StateRef<'_>, token: i64) -> Result<()> {
    transaction::note_claim();
    let _owner = Impersonation::owner_of(state.catalog.context);
    if sys::isolation_uses_transaction_snapshot() {
        // PostgreSQL's own error for a row that has moved would not say who owns the state.
        check(state, latest(state)?, token)?;
    }
    let (catalog, class) = (&state.catalog, &state.class.name);
    let found = store::lock_lease(catalog, class, state.key, ClaimLock::Shared)?;
    check(state, found, token)
}

/// The claim as it is now, whatever the isolation level.
pub fn latest(state: &StateRef<'_>) -> Result<Option<Lease>> {
    let _snapshot = PushedSnapshot::latest();
    store::lease(&state.catalog, &state.class.name, state.key)
}

/// Raises `40001` unless this claim has the token, and an owner.
pub fn check(state: &StateRef<'_>, found: Option<Lease>, token: i64) -> Result<()> {
    match found {
        Some(lease) if lease.token == token && lease.owner.is_some() => Ok(()),
        found => {
            let holder = found.as_ref().and_then(holder);
            Err(ClaimsError::Lost {
                state: state.shown(),
                token,
                loss: holder.map_or(Loss::Released, Loss::Taken),
            }
            .into())
        }
    }
}

/// Who holds a claim, also one whose lease is over.
pub fn holder(lease: &Lease) -> Option<Holder> {
    Some(Holder {
        owner: text(lease.owner.as_ref()?),
        token: lease.token,
        expires_at: lease.expires_at,
    })
}
