//! Checkpoints: a whole document that is written at once.

use super::batch::with;
use super::effect::{Action, Done};
use super::{change, flush};
use crate::cache::StateRef;
use crate::error::{Error, Result};
use crate::store::Checkpoint;
use pgrx::pg_sys;
use std::ffi::CStr;
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
    /// The version is deferred.
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
    change::set_checkpoint(
        state,
        document.into(),
        Some(checkpoint),
        expected,
        ttl,
        function,
    )?;
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
        _ if with(|batch| batch.deferred(state))?.is_some() => SaveAction::Deferred,
        Action::Written | Action::Deleted => SaveAction::Saved,
    };
    Ok(Saved {
        action,
        version: done.version,
    })
}
