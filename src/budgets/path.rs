//! A budget and those above it.

use super::error::BudgetError;
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::store::budgets::{self, Account, Budget, Scope, Seen};
use pgrx::pg_sys;
use state_cache_budget::Period;
use state_cache_memory::Grow;

/// Budgets above each other, at most.
pub const MOST: usize = 16;

/// When the period began of counters without periods: `-infinity`.
pub const ENDLESS: i64 = i64::MIN;

/// How long the counters of a budget count.
pub fn period_of(budget: &Budget) -> Period {
    budget.period.map_or(Period::Endless, |it| {
        // What was put into the table by hand and is no period counts for ever.
        Period::of_interval(it.month, it.day, it.time).unwrap_or(Period::Endless)
    })
}

/// When the period began that a time belongs to.
pub fn period_start(budget: &Budget, at: i64) -> i64 {
    period_of(budget).start(at).unwrap_or(ENDLESS)
}

/// A budget; `42704` if there is none, or none that the caller sees.
pub fn require(catalog: &Catalog, name: &[u8], seen: Seen) -> Result<Budget> {
    budgets::budget(catalog, name, seen)?.ok_or_else(|| unknown(name))
}

/// There is no such budget.
pub fn unknown(name: &[u8]) -> Error {
    BudgetError::Unknown { budget: text(name) }.into()
}

/// A budget and those above it, up to the root.
pub fn path(catalog: &Catalog, name: &[u8], seen: Seen) -> Result<Vec<Budget>> {
    let mut path: Vec<Budget> = Vec::new();
    let mut next = Some(Box::<[u8]>::from(name));
    while let Some(name) = next.take() {
        // A circle is there only if somebody has made it by hand.
        if path.len() == MOST {
            return Err(BudgetError::TooDeep {
                budget: text(&name),
                limit: MOST,
            }
            .into());
        }
        let budget = require(catalog, &name, seen)?;
        next.clone_from(&budget.parent);
        path.try_push(budget)?;
    }
    Ok(path)
}

/// The shard that this session takes of an account.
pub fn own_shard(shards: i32) -> i32 {
    // SAFETY: a plain global of this process.
    let process = unsafe { pg_sys::MyProcPid };
    process.rem_euclid(shards.max(1))
}

/// The accounts in which something is counted that is asked of the first budget of a path, in the order in which they
/// are locked, each with its row: that of the agent, and those of the budgets.
pub fn accounts<'a>(
    scopes: &'a [Scope],
    agent: Option<&'a [u8]>,
) -> impl Iterator<Item = (Account<'a>, i32)> {
    let of = |scope: &'a Scope, agent: &'a [u8]| {
        let account = Account {
            budget: &scope.budget,
            agent,
            period: scope.period,
        };
        (account, scope.shard)
    };
    let agents = agent.and_then(|agent| Some(of(scopes.first()?, agent)));
    agents
        .into_iter()
        .chain(scopes.iter().map(move |scope| of(scope, b"")))
}
