//! What callers read as JSON.

use crate::Amount;
use serde::Serialize;

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
