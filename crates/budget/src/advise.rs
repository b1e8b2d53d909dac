//! What somebody should look at in a budget.

use crate::Amount;
use crate::project::Projection;

/// A share of a limit below which an agent is nearly out.
const NEARLY_OUT: i64 = 10;
/// Records that prices are judged by, at least.
const JUDGED_BY: i64 = 5;
/// Microseconds that money is reserved without being looked at.
const LONG_AGO: i64 = 3_600_000_000;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// Days within which the end of a budget without periods is told.
const SOON: i64 = 7;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something stands still.
    Error,
    /// Something will.
    Warning,
    /// It is worth knowing.
    Info,
}

impl Severity {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One recommendation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// How much it matters.
    pub severity: Severity,
    /// Which agent it is about; nothing: the budget.
    pub agent: Option<String>,
    /// What should be done.
    pub recommendation: &'static str,
    /// The amount that it is about.
    pub amount: Option<Amount>,
    /// Why.
    pub reason: String,
}

/// What is known of an agent.
#[derive(Debug, Clone, Default)]
pub struct AgentFacts {
    /// Its name.
    pub agent: String,
    /// What it may spend.
    pub limit: Option<Amount>,
    /// What its calls are expected to cost.
    pub price: Option<Amount>,
    /// What is left of its limit.
    pub left: Option<Amount>,
    /// Costs of which both are known, and what they add up to, in all periods.
    pub compared: i64,
    /// Σ expected of these.
    pub expected: Amount,
    /// Σ actual of these.
    pub actual: Amount,
    /// Whether it has ever spent anything.
    pub has_spent: bool,
    /// Microseconds since it was put into the budget.
    pub age: i64,
}

/// Holds that are open.
#[derive(Debug, Clone)]
pub struct OldHolds {
    /// The agent that holds.
    pub agent: Option<String>,
    /// How many of its holds were made more than an hour ago.
    pub count: i64,
    /// What they hold.
    pub amount: Amount,
    /// Microseconds since the oldest was made.
    pub age: i64,
}

/// What is known of a budget.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What is left of it.
    pub left: Amount,
    /// What was charged in the last 24 hours.
    pub spent_today: Amount,
    /// Microseconds to the end of the period.
    pub period_ends_in: Option<i64>,
    /// Its agents.
    pub agents: Vec<AgentFacts>,
    /// Its holds that are older than [`long_ago`].
    pub old_holds: Vec<OldHolds>,
}

/// From which age on a hold is one of [`Facts::old_holds`], in microseconds.
pub const fn long_ago() -> i64 {
    LONG_AGO
}

/// What should be done, what matters most first.
pub fn advise(facts: &Facts, projection: Option<&Projection>) -> Vec<Advice> {
    let mut advice = Vec::new();
    let mut add = |severity, agent: Option<&String>, recommendation, amount, reason: String| {
        advice.push(Advice {
            severity,
            agent: agent.cloned(),
            recommendation,
            amount,
            reason,
        });
    };
    for short in projection.iter().flat_map(|it| &it.does_not_fit) {
        let whose = match &short.budget {
            Some(budget) => format!("budget \"{budget}\""),
            None => "the agent's limit".to_owned(),
        };
        let reason = format!(
            "What is planned does not fit into {whose}: {} is left.",
            short.left
        );
        add(
            Severity::Error,
            short.agent.as_ref(),
            "raise the limit or plan less",
            Some(short.short),
            reason,
        );
    }
    for agent in &facts.agents {
        let name = Some(&agent.agent);
        if let (Some(limit), Some(left)) = (agent.limit, agent.left) {
            if !left.is_positive() {
                let reason = format!("Nothing is left of its limit of {limit}.");
                add(Severity::Error, name, "raise the limit", Some(left), reason);
            } else if left.times(NEARLY_OUT) < limit {
                let reason = format!("Less than a tenth is left of its limit of {limit}.");
                add(
                    Severity::Warning,
                    name,
                    "raise the limit",
                    Some(left),
                    reason,
                );
            }
        }
        let off = agent.actual - agent.expected;
        let is_far = off.times(4) > agent.expected || (-off).times(4) > agent.expected;
        if agent.compared >= JUDGED_BY && is_far {
            let mean = agent
                .actual
                .part(usize::try_from(agent.compared).unwrap_or(1));
            let reason = format!(
                "{} costs were expected to be {}, and were {}.",
                agent.compared, agent.expected, agent.actual
            );
            add(
                Severity::Warning,
                name,
                "set the price anew",
                Some(mean),
                reason,
            );
        }
        if !agent.has_spent && agent.limit.is_some() && agent.age > DAY {
            let reason = "It has a limit, and has never spent anything.".to_owned();
            add(
                Severity::Info,
                name,
                "give its limit to others",
                agent.limit,
                reason,
            );
        }
    }
    for holds in &facts.old_holds {
        let reason = format!(
            "{} holds are open since more than an hour, the oldest since {} minutes.",
            holds.count,
            holds.age / 60_000_000
        );
        add(
            Severity::Warning,
            holds.agent.as_ref(),
            "settle or void what is held",
            Some(holds.amount),
            reason,
        );
    }
    if facts.spent_today.is_positive() && facts.left.is_positive() {
        let days = facts.left.estimate() / facts.spent_today.estimate();
        let ends_in = (days * DAY as f64) as i64;
        let until = facts.period_ends_in.unwrap_or(SOON * DAY);
        if ends_in < until {
            let reason = format!(
                "At the rate of the last 24 hours, {} a day, it ends in {days:.1} days.",
                facts.spent_today
            );
            add(
                Severity::Warning,
                None,
                "raise the total or spend less",
                Some(facts.left),
                reason,
            );
        }
    }
    advice.sort_by_key(|one| one.severity);
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            left: Amount::whole(100),
            spent_today: Amount::ZERO,
            period_ends_in: None,
            agents: Vec::new(),
            old_holds: Vec::new(),
        }
    }

    fn said(facts: &Facts) -> Vec<(&'static str, &'static str)> {
        let advice = advise(facts, None);
        advice
            .iter()
            .map(|it| (it.severity.name(), it.recommendation))
            .collect()
    }

    #[test]
    fn a_sound_budget_needs_no_advice() {
        let agent = AgentFacts {
            agent: "a".to_owned(),
            limit: Some(Amount::whole(50)),
            left: Some(Amount::whole(5)),
            has_spent: true,
            ..AgentFacts::default()
        };
        assert!(
            said(&Facts {
                agents: vec![agent],
                ..facts()
            })
            .is_empty()
        );
    }

    #[test]
    fn each_rule_speaks() {
        let agent = |limit, left| AgentFacts {
            agent: "a".to_owned(),
            limit: Some(Amount::whole(limit)),
            left: Some(Amount::whole(left)),
            has_spent: true,
            ..AgentFacts::default()
        };
        let of = |agent| {
            said(&Facts {
                agents: vec![agent],
                ..facts()
            })
        };
        assert_eq!(of(agent(50, 0)), [("error", "raise the limit")]);
        assert_eq!(of(agent(50, 4)), [("warning", "raise the limit")]);
        let never = AgentFacts {
            has_spent: false,
            age: DAY + 1,
            ..agent(50, 50)
        };
        assert_eq!(of(never), [("info", "give its limit to others")]);
        let off = AgentFacts {
            compared: 5,
            expected: Amount::whole(100),
            actual: Amount::whole(126),
            ..agent(500, 400)
        };
        assert_eq!(of(off), [("warning", "set the price anew")]);
        let held = OldHolds {
            agent: None,
            count: 2,
            amount: Amount::whole(3),
            age: 2 * LONG_AGO,
        };
        let held = said(&Facts {
            old_holds: vec![held],
            ..facts()
        });
        assert_eq!(held, [("warning", "settle or void what is held")]);
        let ends = said(&Facts {
            spent_today: Amount::whole(20),
            ..facts()
        });
        assert_eq!(ends, [("warning", "raise the total or spend less")]);
        assert!(
            said(&Facts {
                spent_today: Amount::whole(10),
                ..facts()
            })
            .is_empty()
        );
    }
}
