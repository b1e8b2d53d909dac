//! What runs charge to budgets.

use super::error::BudgetError;
use super::hold::{changed, counters, new_id, scopes_of};
use super::path::{path, require, unknown};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::store::budgets::{self, Charged, NewCost, Seen};
use crate::{money, sys};
use pgrx::pg_sys;
use state_cache_document as document;
use std::rc::Rc;

/// What a run has spent.
pub struct Spent<'a> {
    /// The budget that it is charged to.
    pub budget: &'a [u8],
    /// The agent that has spent it, if the budget has one of that name.
    pub agent: Option<&'a [u8]>,
    /// The run.
    pub run: &'a [u8],
}

/// Raises `42704` unless there is such a budget.
pub fn check_exists(catalog: &Catalog, budget: &[u8]) -> Result<()> {
    require(catalog, budget, Seen::Now).map(|_| ())
}

/// Charges what a run has spent, a `numeric` that is not negative, as a cost for which there must be room.
///
/// # Errors
/// `53400` without room, `22023` for what is no amount, `42704` for a budget that is gone.
pub fn spend(
    catalog: &Rc<Catalog>,
    spent: &Spent<'_>,
    amount: Option<pg_sys::Datum>,
) -> Result<()> {
    let Some(amount) = money::argument(amount, "amount")?.filter(|it| it.is_positive()) else {
        return Ok(());
    };
    let path = path(catalog, spent.budget, Seen::Now)?;
    if path.is_empty() {
        return Err(unknown(spent.budget));
    }
    let agent = match spent.agent {
        Some(name) => budgets::agent(catalog, spent.budget, name, Seen::Now)?.map(|it| (name, it)),
        None => None,
    };
    let at = sys::now();
    let scopes = scopes_of(&path, at)?;
    let run = document::string(spent.run)
        .and_then(|run| document::object(&[("run", run)]))
        .map_err(|error| Error::argument(format!("run \"{}\": {error}", text(spent.run))))?;
    let cost = NewCost {
        id: new_id()?,
        agent: agent.map(|(name, _)| name.into()),
        expected: None,
        actual: amount,
        at,
        metadata: Some(run),
    };
    if !budgets::insert_cost(catalog, &scopes, &cost)? {
        return Err(BudgetError::OtherCost {
            budget: text(spent.budget),
            id: text(&cost.id),
        }
        .into());
    }
    let charged = Charged {
        spent: amount,
        held: -amount,
        ..Charged::default()
    };
    let limits = agent.map(|(name, agent)| (name, agent.limit));
    for counters in counters(&path, &scopes, limits) {
        counters.hold(catalog, amount)?;
        counters.charge(catalog, &charged)?;
    }
    changed(catalog, &scopes)
}
