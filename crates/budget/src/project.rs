//! What planned work will cost.
//!
//! Of an agent whose last k costs (at most 50) have the mean m and the standard deviation s, n more calls are
//! expected to cost n · m. Low and high are the ends of the prediction interval for the sum of n future observations
//! of a normal distribution, of which k were seen: n · m ± t · s · √(n + n² / k), with t the 97.5 % quantile of
//! Student's distribution of k − 1 degrees of freedom (Hahn and Meeker, *Statistical Intervals*, the interval for the
//! mean of n future observations, times n). Low is never below 0. Agents are taken to be independent of each other:
//! for several, the squares of what is beside the `±` add up.
//!
//! With fewer than two costs, or with a price that the caller names, all three are n times that price.

use crate::Amount;
use serde::Serialize;

/// Costs that a projection looks at, at most.
pub const LOOKED_AT: usize = 50;

/// 97.5 % quantiles of Student's distribution, by degrees of freedom from 1.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
/// The same for more degrees of freedom: a little too much rather than too little.
const STUDENT_BEYOND: f64 = 2.042;

/// Work of one agent.
#[derive(Debug, Clone)]
pub struct Work {
    /// The agent; nothing: nobody in particular.
    pub agent: Option<String>,
    /// So many calls.
    pub count: i64,
    /// What the caller says each costs.
    pub named_price: Option<Amount>,
    /// What the agent's calls are expected to cost.
    pub price: Option<Amount>,
    /// What they have cost, at most [`LOOKED_AT`].
    pub costs: Vec<Amount>,
    /// What is left to the agent; nothing without a limit of its own.
    pub left: Option<Amount>,
}

/// What something is expected to cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Exact: a count times a mean.
    pub expected: Amount,
    /// 95 of 100 times it is between this...
    pub low: Amount,
    /// ... and this.
    pub high: Amount,
}

/// What the work of an agent will cost.
#[derive(Debug, Serialize)]
pub struct AgentProjection {
    /// The agent.
    pub agent: Option<String>,
    /// So many calls.
    pub count: i64,
    /// So many costs were looked at.
    pub costs: usize,
    /// In all.
    pub expected: Amount,
    /// As [`Estimate::low`].
    pub low: Amount,
    /// As [`Estimate::high`].
    pub high: Amount,
    /// What is left to it.
    pub left: Option<Amount>,
    /// Whether what is expected fits.
    pub fits: bool,
}

/// What that is to a budget, or one above it.
#[derive(Debug, Serialize)]
pub struct ScopeProjection {
    /// The budget.
    pub budget: String,
    /// What is left.
    pub left: Amount,
    /// Whether what is expected fits.
    pub fits: bool,
    /// Whether also [`Estimate::high`] does.
    pub fits_high: bool,
}

/// Something that does not fit.
#[derive(Debug, Serialize)]
pub struct Short {
    /// The budget, where it is one.
    pub budget: Option<String>,
    /// The agent, where it is one.
    pub agent: Option<String>,
    /// What is left.
    pub left: Amount,
    /// What is missing.
    pub short: Amount,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Projection {
    /// The budget.
    pub budget: String,
    /// Its currency.
    pub currency: String,
    /// In all.
    pub expected: Amount,
    /// As [`Estimate::low`].
    pub low: Amount,
    /// As [`Estimate::high`].
    pub high: Amount,
    /// Whether what is expected fits everywhere.
    pub fits: bool,
    /// By agent.
    pub agents: Vec<AgentProjection>,
    /// By budget, up to the root.
    pub scopes: Vec<ScopeProjection>,
    /// What does not fit.
    pub does_not_fit: Vec<Short>,
}

/// An agent of whose calls nobody knows what they cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPrice(pub Option<String>);

/// What n calls will cost, and half the width of the interval.
fn estimate(work: &Work) -> Result<(Amount, f64), UnknownPrice> {
    if let Some(price) = work.named_price {
        return Ok((price.times(work.count), 0.0));
    }
    let mean = match work.costs.as_slice() {
        [] | [_] => work.price.or(work.costs.first().copied()),
        costs => Amount::mean(costs),
    };
    let mean = mean.ok_or_else(|| UnknownPrice(work.agent.clone()))?;
    let seen = work.costs.len();
    if seen < 2 {
        return Ok((mean.times(work.count), 0.0));
    }
    let squares: f64 = work
        .costs
        .iter()
        .map(|cost| (cost.estimate() - mean.estimate()).powi(2))
        .sum();
    let deviation = (squares / (seen - 1) as f64).sqrt();
    let student = STUDENT.get(seen - 2).copied().unwrap_or(STUDENT_BEYOND);
    let n = work.count as f64;
    let half = student * deviation * (n + n * n / seen as f64).sqrt();
    Ok((mean.times(work.count), half))
}

fn around(expected: Amount, half: f64) -> Estimate {
    if half == 0.0 {
        return Estimate {
            expected,
            low: expected,
            high: expected,
        };
    }
    Estimate {
        expected,
        low: Amount::of_estimate(expected.estimate() - half),
        high: Amount::of_estimate(expected.estimate() + half).max(expected),
    }
}

/// What planned work will cost in a budget, and whether it fits: into what is left to each agent, and to each budget
/// up to the root (the first is the budget itself).
///
/// # Errors
/// Names an agent that has no price and no costs.
pub fn project(
    currency: String,
    work: &[Work],
    scopes: &[(String, Amount)],
) -> Result<Projection, UnknownPrice> {
    let (mut total, mut squares) = (Amount::ZERO, 0.0);
    let (mut agents, mut does_not_fit) = (Vec::new(), Vec::new());
    for one in work {
        let (expected, half) = estimate(one)?;
        let of_agent = around(expected, half);
        total += expected;
        squares += half * half;
        let fits = one.left.is_none_or(|left| expected <= left);
        if let (false, Some(left)) = (fits, one.left) {
            does_not_fit.push(Short {
                budget: None,
                agent: one.agent.clone(),
                left,
                short: expected - left,
            });
        }
        agents.push(AgentProjection {
            agent: one.agent.clone(),
            count: one.count,
            costs: one.costs.len(),
            expected,
            low: of_agent.low,
            high: of_agent.high,
            left: one.left,
            fits,
        });
    }
    let all = around(total, squares.sqrt());
    let mut of_scopes = Vec::new();
    for (budget, left) in scopes {
        let fits = total <= *left;
        if !fits {
            does_not_fit.push(Short {
                budget: Some(budget.clone()),
                agent: None,
                left: *left,
                short: total - *left,
            });
        }
        of_scopes.push(ScopeProjection {
            budget: budget.clone(),
            left: *left,
            fits,
            fits_high: all.high <= *left,
        });
    }
    Ok(Projection {
        budget: scopes
            .first()
            .map(|(budget, _)| budget.clone())
            .unwrap_or_default(),
        currency,
        expected: all.expected,
        low: all.low,
        high: all.high,
        fits: does_not_fit.is_empty(),
        agents,
        scopes: of_scopes,
        does_not_fit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(agent: &str, count: i64, costs: &[i64], left: Option<i64>) -> Work {
        Work {
            agent: Some(agent.to_owned()),
            count,
            named_price: None,
            price: None,
            costs: costs.iter().copied().map(Amount::whole).collect(),
            left: left.map(Amount::whole),
        }
    }

    fn of(work: &[Work], left: i64) -> Projection {
        let nothing = || Projection {
            budget: String::new(),
            currency: String::new(),
            expected: Amount::ZERO,
            low: Amount::ZERO,
            high: Amount::ZERO,
            fits: false,
            agents: Vec::new(),
            scopes: Vec::new(),
            does_not_fit: Vec::new(),
        };
        project(
            "USD".to_owned(),
            work,
            &[("b".to_owned(), Amount::whole(left))],
        )
        .unwrap_or_else(|_| nothing())
    }

    #[test]
    fn expects_the_mean_and_says_how_far_off_it_may_be() {
        let projection = of(&[work("a", 10, &[1, 3], None)], 20);
        assert_eq!(projection.expected, Amount::whole(20));
        assert!(projection.fits && !projection.scopes[0].fits_high);
        // 12.706 · √2 · √(10 + 100 / 2)
        let half = 12.706 * 2_f64.sqrt() * 60_f64.sqrt();
        assert!((projection.high.estimate() - 20.0 - half).abs() < 1e-6);
        assert_eq!(projection.low, Amount::ZERO);
        let steady = of(&[work("a", 10, &[2, 2, 2], None)], 20);
        assert_eq!(
            (steady.low, steady.high),
            (Amount::whole(20), Amount::whole(20))
        );
    }

    #[test]
    fn says_what_does_not_fit() {
        let projection = of(
            &[work("a", 4, &[2, 2], Some(5)), work("b", 1, &[3], Some(5))],
            10,
        );
        assert!(!projection.fits);
        let short: Vec<_> = projection
            .does_not_fit
            .iter()
            .map(|it| {
                (
                    it.agent.as_deref(),
                    it.budget.as_deref(),
                    it.short.to_string(),
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                (Some("a"), None, "3".to_owned()),
                (None, Some("b"), "1".to_owned())
            ]
        );
    }

    #[test]
    fn an_agent_without_price_and_costs_is_named() {
        let unknown = project("USD".to_owned(), &[work("new", 1, &[], None)], &[]);
        assert_eq!(unknown.err(), Some(UnknownPrice(Some("new".to_owned()))));
    }
}
