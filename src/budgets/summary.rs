//! What was spent, is held and remains.

use super::json;
use super::path::{ENDLESS, period_of, period_start, require};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::budgets::{self, Account, Seen, Totals};
use state_cache_budget::{Amount, price, shapes};
use state_cache_context::rfc3339;
use state_cache_memory::Grow;

/// Costs that a summary shows.
const LAST_COSTS: i64 = 10;

/// A summary, and until when it is right if nothing is changed.
pub struct Computed {
    /// The document.
    pub document: Vec<u8>,
    /// The next moment at which the clock changes it.
    pub until: i64,
}

/// A time in RFC 3339.
fn time(at: i64) -> String {
    /// Microseconds from 1970 to 2000.
    const EPOCH: i64 = 946_684_800_000_000;
    rfc3339(at.saturating_add(EPOCH))
}

/// One cost as a summary shows it.
fn shown(cost: budgets::Cost) -> shapes::Cost {
    shapes::Cost {
        id: json::unicode(&cost.id),
        agent: cost.agent.as_deref().map(json::unicode),
        expected: cost.expected,
        actual: cost.actual,
        at: time(cost.at),
    }
}

/// The summary of a budget under the active snapshot, as of a time.
///
/// # Errors
/// `42704` if there is no such budget.
pub fn compute(catalog: &Catalog, name: &[u8], at: i64) -> Result<Computed> {
    let seen = Seen::BySnapshot;
    let budget = require(catalog, name, seen)?;
    let period = period_start(&budget, at);
    let account = |agent| Account {
        budget: name,
        agent,
        period,
    };
    let expired = |agent| match budget.has_expired {
        true => budgets::expired(catalog, &account(agent), at, seen),
        false => Ok(Amount::ZERO),
    };
    let totals = budgets::totals(catalog, name, period)?;
    let of = |agent: &[u8]| totals.iter().find(|it| *it.agent == *agent).cloned();
    let whole = of(b"").unwrap_or_default();
    let reserved = whole.held - expired(b"")?;
    let remaining = budget.total - whole.spent - reserved;
    let defined = budgets::agents(catalog, name)?;
    let mut agents = Vec::new();
    let retired = totals
        .iter()
        .filter(|it| !it.agent.is_empty() && !defined.iter().any(|(agent, ..)| *agent == it.agent));
    let all = defined
        .iter()
        .map(|(agent, limit, _)| (agent, *limit, true))
        .chain(retired.map(|it| (&it.agent, Some(Amount::ZERO), false)));
    for (agent, limit, is_defined) in all {
        let counted = of(agent).unwrap_or_else(|| Totals {
            agent: agent.clone(),
            ..Totals::default()
        });
        let reserved = counted.held - expired(agent)?;
        let left = limit.map(|limit| limit - counted.spent - reserved);
        let price = match is_defined {
            true => budgets::agent(catalog, name, agent, seen)?.and_then(|it| it.price),
            false => None,
        };
        agents.try_push(shapes::AgentSummary {
            agent: json::unicode(agent),
            limit,
            price,
            spent: counted.spent,
            reserved,
            remaining: left.map_or(remaining, |left| left.min(remaining)),
            accuracy: price::accuracy(counted.expected, counted.actual),
        })?;
    }
    let (holds, next_end) = budgets::open_holds(catalog, name, at)?;
    let bounds = period_of(&budget);
    let (start, end) = (bounds.start(at), bounds.end(at));
    let mut last_costs = Vec::new();
    for cost in budgets::recent_costs(catalog, name, None, LAST_COSTS, seen)? {
        last_costs.try_push(shown(cost))?;
    }
    let reached = budgets::levels(catalog, name, period)?;
    let summary = shapes::Summary {
        budget: json::unicode(name),
        currency: json::unicode(&budget.currency),
        total: budget.total,
        spent: whole.spent,
        reserved,
        remaining,
        soft_limit: budget.soft_limit,
        parent: budget.parent.as_deref().map(json::unicode),
        period: match (start, end) {
            (Some(start), Some(end)) if start != ENDLESS => Some([time(start), time(end)]),
            _ => None,
        },
        shards: i64::from(budget.shards),
        holds,
        reached: reached.iter().map(|it| json::unicode(it)).collect(),
        accuracy: price::accuracy(whole.expected, whole.actual),
        agents,
        last_costs,
    };
    Ok(Computed {
        document: json::document(&summary)?,
        until: end.unwrap_or(i64::MAX).min(next_end.unwrap_or(i64::MAX)),
    })
}
