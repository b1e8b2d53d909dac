//! Keeping what is staged: dropping a batch does not take it back.

use super::batch::{Batch, with};
use super::flush::write_staged;
use super::known::to_change;
use crate::cache::StateRef;
use crate::error::Result;

/// Makes what is staged of a state stand or fall with something that was written at once: the staged change is kept,
/// as by [`keep`], and never deferred.
pub fn keep_staged(state: &StateRef<'_>) -> Result<()> {
    with(|batch| batch.belongs_to_written(state))?;
    keep(state)
}

/// The same for a state that is not locked, and need not be before the commit: an explicit batch does not write it
/// either.
pub fn keep_for_commit(state: &StateRef<'_>) -> Result<()> {
    with(|batch| {
        batch.belongs_to_written(state)?;
        batch.keep(state)
    })
}

/// Keeps what is staged of a state: only a rollback of the transaction, or of the subtransaction, takes it back, and
/// dropping what is staged does not. In an explicit batch the change is written at once.
pub fn keep(state: &StateRef<'_>) -> Result<()> {
    match with(|batch| batch.scope.explicit.own_rule().is_some()) {
        true => write_staged(state),
        false => with(|batch| batch.keep(state)),
    }
}

impl Batch {
    /// What is staged of a state stands or falls with something that was written.
    fn belongs_to_written(&mut self, state: &StateRef<'_>) -> Result<()> {
        if let Some(pending) = &mut self.changing(state)?.pending {
            pending.belongs_to_written = true;
        }
        Ok(())
    }

    /// What is staged of a state now is what dropping it goes back to.
    fn keep(&mut self, state: &StateRef<'_>) -> Result<()> {
        let known = self.changing(state)?;
        if known.is_staged() {
            let kept = known.clone();
            let id = state.id();
            self.scope.explicit.keep(id, &kept)?;
            to_change(&mut self.scope.kept)?.insert(id, kept);
        }
        Ok(())
    }
}
