//! Taking expired holds out of the counters.

use super::account::as_owner;
use super::hold::{changed, release};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::shared;
use crate::store::{self, budgets};
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;
use std::rc::Rc;

/// Holds that one transaction takes out.
const BATCH: i64 = 100;
/// Between two steps, in microseconds.
const PAUSE: i64 = 20_000;
/// How often the worker looks, in microseconds, when nothing is known to be due.
const LOOK: i64 = 5_000_000;

/// Takes out holds whose time is over, all of the same accounts, so that these are locked in their order; how many.
/// What somebody else has locked is left to them.
fn take_out(catalog: &Rc<Catalog>, of: Option<&[u8]>, at: i64) -> Result<usize> {
    let holds = budgets::lock_expired_holds(catalog, of, at, BATCH)?;
    let Some(first) = holds.first() else {
        return Ok(0);
    };
    let mut together = first.clone();
    together.amount = holds.iter().map(|hold| hold.amount).sum();
    release(catalog, &together)?;
    crate::fault::stop_at!(HoldsReleased);
    for hold in &holds {
        budgets::expire_hold(catalog, &hold.id, at)?;
    }
    crate::fault::stop_at!(HoldsExpired);
    changed(catalog, &first.scopes)?;
    Ok(holds.len())
}

/// Takes out all holds of a budget whose time is over.
pub fn take_out_all(catalog: &Rc<Catalog>, budget: &[u8], at: i64) -> Result<()> {
    while take_out(catalog, Some(budget), at)? > 0 {}
    Ok(())
}

/// The worker's task.
#[derive(Default)]
pub struct Expired {
    /// When the next hold ends, as far as it was known when this looked last.
    due: i64,
}

impl Task for Expired {
    fn name(&self) -> &'static str {
        "taking expired holds out of budgets"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        if round.leaving || round.now < self.due {
            return Ok(Next::At(self.due));
        }
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        let taken = transaction(|| {
            let _owner = as_owner(&catalog);
            store::set_constraints_immediate();
            take_out(&catalog, None, round.now)
        })?;
        if taken > 0 {
            return Ok(Next::At(round.now.saturating_add(PAUSE)));
        }
        let next = transaction(|| budgets::next_end(&catalog))?;
        self.due = match next {
            // Somebody has it locked.
            Some(at) if at <= round.now => round.now.saturating_add(LOOK),
            next => next.unwrap_or(i64::MAX).min(round.now.saturating_add(LOOK)),
        };
        if let (Some(at), Some(database)) = (next, shared::database()) {
            // A worker is needed then, also if this one has left.
            database.knows_of(at.max(round.now));
        }
        Ok(Next::At(self.due))
    }

    fn holds_work(&self) -> bool {
        false
    }
}

#[cfg(feature = "fault_injection")]
crate::call::sql_functions! {
    /// `state_budget_test_expire()`: what the worker does, in the caller's transaction; how many holds that were.
    fn state_budget_test_expire(call) {
        let _ = call;
        let catalog = catalog::installed()?.ok_or(Error::NotInstalled)?;
        let taken = take_out(&catalog, None, crate::sys::now())?;
        Ok(crate::call::count_datum(taken as u64))
    }
}
