//! The dirty entries of L1 that this transaction has written to the tables.
//!
//! Each with the nesting level of the subtransaction that did it: what that rolls back was not written.

use crate::cache::publish::Settlement;
use crate::error::Result;
use pgrx::pg_sys;
use state_cache_memory::Grow;

/// Nesting level of the top transaction.
const TOP: i32 = 1;

/// What becomes of them when the transaction commits.
#[derive(Default)]
pub struct Settlements(Vec<(i32, Settlement)>);

impl Settlements {
    /// Says what becomes of a dirty entry if this transaction commits.
    pub fn add(&mut self, settlement: Settlement) -> Result<()> {
        self.0.try_push((nest_level(), settlement))?;
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The transaction has committed. Allocates nothing, cannot fail.
    pub fn commit(&self) {
        for (_, settlement) in &self.0 {
            settlement.commit();
        }
    }

    /// Forgets everything. Frees memory and allocates none.
    pub fn clear(&mut self) {
        if !self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// The running subtransaction commits: what it wrote its parent has written.
    pub fn subtransaction_committed(&mut self) {
        let parent = nest_level().saturating_sub(1).max(TOP);
        for (level, _) in &mut self.0 {
            *level = parent.min(*level);
        }
    }

    /// The running subtransaction aborts: what it wrote is gone.
    pub fn subtransaction_aborted(&mut self) {
        let aborted = nest_level();
        self.0.retain(|(level, _)| *level < aborted);
    }
}

fn nest_level() -> i32 {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}
