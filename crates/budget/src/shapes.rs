//! What callers write and read as JSON.

use crate::Amount;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Agents of a budget, by name: `{"writer": {"limit": 10, "price": 0.5}}`.
pub type Agents = BTreeMap<String, Terms>;

/// What an agent may spend, and what one of its calls is expected to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What it may spend; nothing: as much as the budget.
    #[serde(default)]
    pub limit: Option<Amount>,
    /// What it reserves where nobody says how much.
    #[serde(default)]
    pub price: Option<Amount>,
}

/// A cost that nothing was held for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its name: a record of the same name is charged once.
    pub id: String,
    /// Whose cost it is; nothing: nobody's in particular.
    #[serde(default)]
    pub agent: Option<String>,
    /// What it cost.
    pub amount: Amount,
    /// What was expected, if anything was.
    #[serde(default)]
    pub expected: Option<Amount>,
    /// Checked against that of the budget.
    #[serde(default)]
    pub currency: Option<String>,
    /// Whatever the caller wants to keep beside it.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
}

/// Work that is planned: so many calls of an agent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Whose calls.
    #[serde(default)]
    pub agent: Option<String>,
    /// How many.
    #[serde(default = "one")]
    pub count: i64,
    /// What each is expected to cost; nothing: what the agent's calls have cost.
    #[serde(default)]
    pub price: Option<Amount>,
}

fn one() -> i64 {
    1
}

/// What `state_budget_summary` answers.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The budget.
    pub budget: String,
    /// Its currency.
    pub currency: String,
    /// What may be spent.
    pub total: Amount,
    /// What was charged in this period.
    pub spent: Amount,
    /// What is held in this period, without what has expired.
    pub reserved: Amount,
    /// Total less the other two; negative after an overrun.
    pub remaining: Amount,
    /// From which on its spending is told.
    pub soft_limit: Option<Amount>,
    /// The budget above.
    pub parent: Option<String>,
    /// When this period began and ends, in RFC 3339.
    pub period: Option<[String; 2]>,
    /// Among how many rows its counters are distributed.
    pub shards: i64,
    /// Holds that are open and have not expired, of all periods.
    pub holds: i64,
    /// What was reached in this period.
    pub reached: Vec<String>,
    /// Of all agents and costs.
    pub accuracy: Option<Amount>,
    /// By agent, also those that are in the budget no longer and have spent.
    pub agents: Vec<AgentSummary>,
    /// The last ten, the newest first.
    pub last_costs: Vec<Cost>,
}

/// One agent in a summary.
#[derive(Debug, Serialize)]
pub struct AgentSummary {
    /// The agent.
    pub agent: String,
    /// What it may spend.
    pub limit: Option<Amount>,
    /// What one of its calls is expected to cost.
    pub price: Option<Amount>,
    /// What was charged in this period.
    pub spent: Amount,
    /// What is held in this period.
    pub reserved: Amount,
    /// The less of what is left to it and to the budget.
    pub remaining: Amount,
    /// How far its costs were from what was expected, in all periods.
    pub accuracy: Option<Amount>,
}

/// One cost.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The hold, or the record.
    pub id: String,
    /// Whose it is.
    pub agent: Option<String>,
    /// What was expected.
    pub expected: Option<Amount>,
    /// What it cost.
    pub actual: Amount,
    /// When it was charged, in RFC 3339.
    pub at: String,
}
