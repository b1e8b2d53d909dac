//! Before a role meets a state that another role has changed.

use super::batch::with;
use super::{deferred, flush};
use crate::cache::StateRef;
use crate::error::{Error, Result};
use crate::sys;
use pgrx::pg_sys;

/// Flushes what another role has staged of a state, before this one reads or changes it: the tables'
/// privileges and policies must have answered for the one before they answer for the other. Whether
/// there was something to flush. A role that may not read the tables makes nobody else's change be written.
pub fn flush_others(state: &StateRef<'_>) -> Result<bool> {
    if !state.catalog.access().l1 && with(|batch| batch.deferred(state))?.is_some() {
        state.catalog.check_may_read()?;
        // Only the tables can say whether this role may see it.
        let id = state.id();
        deferred::write_deferred(&state.catalog, id)?;
        // SAFETY: as below.
        unsafe { pg_sys::CommandCounterIncrement() };
        return flush_others(state).map(|_| true);
    }
    let Some(stager) = with(|batch| batch.other_stager(state, sys::current_user()))? else {
        return Ok(false);
    };
    state.catalog.check_may_read()?;
    if with(|batch| batch.scope.explicit.rule_of(stager).is_some()) {
        return Err(Error::StagedByOther {
            state: state.shown(),
        });
    }
    flush::flush_one(state)?;
    // SAFETY: makes the rows visible to the snapshots that are taken next.
    unsafe { pg_sys::CommandCounterIncrement() };
    Ok(true)
}
