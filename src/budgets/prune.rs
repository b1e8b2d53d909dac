//! Pruning: holds that have ended, and costs, are deleted after the retention of their budget. Their sums stay
//! counted.
//!
//! A step deletes rows and adds what they add up to to `state_budget_pruned`, in one statement: counters are what
//! holds, costs and that table add up to, before it and after it. No account is locked, since none changes. Nor does
//! a summary: the newest costs of each agent stay, however old they are, and what is younger than a day.
//!
//! What the rows were for otherwise ends with them: a name that is given again is a new hold or cost, and a hold that
//! has expired can be settled no longer.

use super::account::as_owner;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::interval;
use crate::store::{self, budgets};
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;

/// Rows that one transaction deletes.
const BATCH: i64 = 200;
/// Agents that one transaction looks at.
const AGENTS: i64 = 50;
/// Between two steps, in microseconds.
const PAUSE: i64 = 20_000;
/// Between two passes, in microseconds.
const LOOK: i64 = 600_000_000;

/// Where a pass is.
#[derive(Default, Clone)]
struct Place {
    /// The last budget that is done, or the one that it is at.
    budget: Option<Box<[u8]>>,
    /// The last agent of the budget that is done.
    agent: Option<Box<[u8]>>,
    /// Whether the budget has more agents.
    is_within: bool,
}

/// The worker's task.
#[derive(Default)]
pub struct Pruned {
    place: Place,
    /// While a step runs: where the pass goes on if the step fails.
    beyond: Option<Place>,
    /// When the next pass begins.
    due: i64,
}

impl Task for Pruned {
    fn name(&self) -> &'static str {
        "pruning the holds and costs of budgets"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        if round.leaving || round.now < self.due {
            return Ok(Next::At(self.due));
        }
        if let Some(beyond) = self.beyond.take() {
            self.place = beyond;
        }
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        let is_over = transaction(|| {
            let _owner = as_owner(&catalog);
            store::set_constraints_immediate();
            self.step(&catalog, round.now)
        })?;
        self.beyond = None;
        if !is_over {
            return Ok(Next::At(round.now.saturating_add(PAUSE)));
        }
        self.place = Place::default();
        self.due = round.now.saturating_add(LOOK);
        Ok(Next::At(self.due))
    }

    fn holds_work(&self) -> bool {
        false
    }
}

impl Pruned {
    /// Prunes some of the next budget; whether there is none.
    fn step(&mut self, catalog: &Catalog, now: i64) -> Result<bool> {
        let at = self.place.clone();
        let found = match at.is_within {
            true => {
                let name = at.budget.as_deref().unwrap_or_default();
                let found = budgets::budget(catalog, name, budgets::Seen::Now)?;
                found.and_then(|it| Some((it.name, it.retention?)))
            }
            false => budgets::next_retention(catalog, at.budget.as_deref())?,
        };
        let Some((budget, retention)) = found else {
            // The one that it was at is gone, or keeps all now; else it was the last.
            self.place.is_within = false;
            return Ok(!at.is_within);
        };
        let agent = at.agent.filter(|_| at.is_within);
        let before = now.saturating_sub(interval::microseconds(&retention));
        // A budget whose step fails is passed over.
        self.beyond = Some(Place {
            budget: Some(budget.clone()),
            agent: None,
            is_within: false,
        });
        self.place = prune(catalog, &budget, agent, before)?;
        Ok(false)
    }
}

/// Prunes a budget from an agent on; where it goes on.
fn prune(
    catalog: &Catalog,
    budget: &[u8],
    mut done: Option<Box<[u8]>>,
    before: i64,
) -> Result<Place> {
    let mut left = BATCH - budgets::prune_free(catalog, budget, before, BATCH)?;
    let agents = budgets::agents_counted(catalog, budget, done.as_deref(), AGENTS)?;
    let is_last = (agents.len() as i64) < AGENTS;
    for agent in agents {
        if left > 0 {
            left -= budgets::prune_costs(catalog, budget, &agent, before, left)?;
        }
        if left <= 0 {
            break;
        }
        done = Some(agent);
    }
    crate::fault::stop_at!(CostsPruned);
    Ok(Place {
        budget: Some(budget.into()),
        agent: done,
        is_within: left <= 0 || !is_last,
    })
}

#[cfg(feature = "fault_injection")]
crate::call::sql_functions! {
    /// `state_budget_test_prune()`: what the worker does in one pass, in the caller's transaction.
    fn state_budget_test_prune(call) {
        let _ = call;
        let catalog = catalog::installed()?.ok_or(Error::NotInstalled)?;
        let mut task = Pruned::default();
        while !task.step(&catalog, crate::sys::now())? {}
        Ok(crate::call::void_datum())
    }
}
