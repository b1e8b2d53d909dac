//! Checkpoints: a whole document that is written at once.

use super::flush::{self, Action, Done};
use super::{Batch, OnConflict, change, leave, with};
use crate::cache::StateRef;
use crate::error::{Error, Result};
use crate::store::Checkpoint;
use crate::{behind, shared};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::rc::Rc;
use strum::IntoStaticStr;

/// What a checkpoint came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// What was done.
    pub action: SaveAction,
    /// The version that holds the document: one of which there is a row, unless the row is the worker's to write.
    pub version: i64,
}

/// What was done, by the names that `state_save` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum SaveAction {
    /// A version was written.
    Saved,
    /// The state is stored like that already, and intact.
    Unchanged,
    /// The version is left to the worker.
    Deferred,
}

/// Replaces the whole document and writes it, whether or not a batch is open; only a rollback of the transaction,
/// or of the subtransaction, takes it back.
pub fn save(
    state: &StateRef<'_>,
    document: &[u8],
    checkpoint: Checkpoint,
    expected: Option<i64>,
    ttl: Option<pg_sys::Interval>,
    function: &CStr,
) -> Result<Saved> {
    change::set_checkpoint(state, document, Some(checkpoint), expected, ttl, function)?;
    let on_conflict = with(|batch| batch.scope.explicit.own_rule());
    let done = match flush::flush_now(state, on_conflict)? {
        Some(done) => Some(done),
        // A transaction that holds too much has flushed it already.
        None => with(|batch| batch.flushed_of(state).map(|it| it.map(|it| it.version)))?.map(
            |version| Done {
                action: Action::Written,
                version,
            },
        ),
    };
    let Some(done) = done else {
        // Only a trigger on the tables that changes the same state can have come before.
        return Err(Error::Swallowed {
            state: state.shown(),
        });
    };
    let action = match done.action {
        Action::Unchanged => SaveAction::Unchanged,
        _ if with(|batch| batch.left(state))?.is_some() => SaveAction::Deferred,
        Action::Written | Action::Deleted => SaveAction::Saved,
    };
    Ok(Saved {
        action,
        version: done.version,
    })
}

/// Writes what is staged of a state, whether or not a batch is open.
pub fn write_staged(state: &StateRef<'_>) -> Result<()> {
    let on_conflict = with(|batch| batch.scope.explicit.own_rule());
    flush::flush_now(state, on_conflict).map(|_| ())
}

/// The same as if the batch had been opened with this.
pub(super) fn write_staged_as(state: &StateRef<'_>, on_conflict: OnConflict) -> Result<()> {
    flush::flush_now(state, Some(on_conflict)).map(|_| ())
}

/// Sees to it that what is staged of a state stands or falls with something that was written at once: it is kept, as by
/// [`keep`], and not left to the worker.
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

/// Sees to it that only a rollback of the transaction, or of the subtransaction, takes back what is staged of a state:
/// dropping what is staged does not. An explicit batch writes it.
pub fn keep(state: &StateRef<'_>) -> Result<()> {
    match with(|batch| batch.scope.explicit.own_rule().is_some()) {
        true => write_staged(state),
        false => with(|batch| batch.keep(state)),
    }
}

/// Before somebody looks at the kept versions in order to go back: what this transaction has staged or left of the
/// state, and what L1 alone holds of it, is written.
pub fn settle_before_recovery(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    change::begin(state, function)?;
    flush::flush_now(state, None)?;
    let class = behind::lock(&state.catalog, Rc::clone(&state.class), state.key)?;
    if class.behind && shared::l1().is_some() {
        let id = Batch::id(&state.catalog, &state.class.name, state.key);
        leave::bring_down(state, id)?;
    }
    Ok(())
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
        if known.is_dirty() {
            let kept = known.clone();
            let id = Self::id(&state.catalog, &state.class.name, state.key);
            self.scope.explicit.keep(id, &kept)?;
            super::to_change(&mut self.scope.kept)?.insert(id, kept);
        }
        Ok(())
    }
}
