//! How right prices were, what planned work will cost, and what somebody should look at.

use super::error::BudgetError;
use super::json::{self, Object};
use super::path::{ENDLESS, path, period_of, period_start, require, unknown};
use crate::call::{self, Call, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, text};
use crate::store::budgets::{self, Account, Budget, Seen, Totals};
use crate::{memory, money, sys};
use state_cache_budget::advise::{self, AgentFacts, Facts, OldHolds};
use state_cache_budget::project::{self, Projection, Work};
use state_cache_budget::{Amount, price};
use state_cache_memory::Grow;
use std::rc::Rc;

/// Planned kinds of work, at most.
const MOST: usize = 1000;
/// Calls that one plan can have.
const MOST_CALLS: i64 = 1_000_000_000;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// What is left of an account by the counters of a period, under the active snapshot.
fn left(
    catalog: &Catalog,
    budget: &Budget,
    limit: Amount,
    agent: &[u8],
    totals: &[Totals],
    at: i64,
) -> Result<Amount> {
    let account = Account {
        budget: &budget.name,
        agent,
        period: period_start(budget, at),
    };
    let expired = match budget.has_expired {
        true => budgets::expired(catalog, &account, at, Seen::BySnapshot)?,
        false => Amount::ZERO,
    };
    let counted = totals.iter().find(|it| *it.agent == *agent);
    let used = counted.map_or(Amount::ZERO, |it| it.spent + it.held);
    Ok(limit - used + expired)
}

/// The work that a call plans, in a budget.
fn planned(call: &Call<'_>, catalog: &Catalog, budget: &Budget, at: i64) -> Result<Vec<Work>> {
    let given = json::elements("planned", call.required_jsonb(1, "planned")?, MOST)?;
    let totals = budgets::totals(catalog, &budget.name, period_start(budget, at))?;
    let mut work: Vec<Work> = Vec::new();
    for (n, one) in given.iter().enumerate() {
        memory::check()?;
        let place = format!("plan {n}");
        let object = Object::open(&place, one, &["agent", "count", "price"])?;
        let count = match object.amount("count")? {
            Some(count) => count
                .whole_units()
                .filter(|it| (0..=MOST_CALLS).contains(it)),
            None => Some(1),
        };
        let count = count.ok_or_else(|| {
            object.wrong(
                "count",
                &format!("must be a whole number, 0 to {MOST_CALLS}"),
            )
        })?;
        let named_price = object.amount("price")?;
        if let Some(price) = named_price.filter(|it| it.is_negative()) {
            return Err(object.wrong("price", &format!("must not be negative: {price}")));
        }
        let agent = object.text("agent")?;
        let shown = agent.map(json::unicode);
        // What an agent has left is for all that is planned of it.
        let known = work
            .iter_mut()
            .find(|it| it.agent == shown && it.named_price == named_price);
        if let Some(known) = known {
            known.count += count;
            continue;
        }
        let (mut price, mut left_to, mut costs) = (None, None, Vec::new());
        if let Some(agent) = agent {
            let found = budgets::agent(catalog, &budget.name, agent, Seen::BySnapshot)?;
            let found = found.ok_or_else(|| BudgetError::UnknownAgents {
                budget: text(&budget.name),
                agents: vec![text(agent)],
            })?;
            price = found.price;
            if let Some(limit) = found.limit {
                left_to = Some(left(catalog, budget, limit, agent, &totals, at)?);
            }
            let most = project::LOOKED_AT as i64;
            for cost in
                budgets::recent_costs(catalog, &budget.name, Some(agent), most, Seen::BySnapshot)?
            {
                costs.try_push(cost.actual)?;
            }
        }
        work.try_push(Work {
            agent: shown,
            count,
            named_price,
            price,
            costs,
            left: left_to,
        })?;
    }
    Ok(work)
}

/// What planned work will cost.
fn projection(call: &Call<'_>, catalog: &Catalog, name: &[u8], at: i64) -> Result<Projection> {
    let path = path(catalog, name, Seen::BySnapshot)?;
    let budget = path.first().ok_or_else(|| unknown(name))?;
    let work = planned(call, catalog, budget, at)?;
    let mut scopes = Vec::new();
    for scope in &path {
        let totals = budgets::totals(catalog, &scope.name, period_start(scope, at))?;
        let left = left(catalog, scope, scope.total, b"", &totals, at)?;
        scopes.try_push((json::unicode(&scope.name), left))?;
    }
    project::project(json::unicode(&budget.currency), &work, &scopes).map_err(|unknown| {
        match unknown.0 {
            Some(agent) => BudgetError::NoPrice {
                budget: text(name),
                agent,
            }
            .into(),
            None => Error::null_argument("price of work of nobody in particular"),
        }
    })
}

/// What is known of a budget.
fn facts(catalog: &Catalog, name: &[u8], at: i64) -> Result<Facts> {
    let budget = require(catalog, name, Seen::BySnapshot)?;
    let totals = budgets::totals(catalog, name, period_start(&budget, at))?;
    let mut agents = Vec::new();
    for (agent, limit, since) in budgets::agents(catalog, name)? {
        let counted = totals
            .iter()
            .find(|it| it.agent == agent)
            .cloned()
            .unwrap_or_default();
        let known = budgets::agent(catalog, name, &agent, Seen::BySnapshot)?;
        agents.try_push(AgentFacts {
            agent: json::unicode(&agent),
            limit,
            price: known.and_then(|it| it.price),
            left: match limit {
                Some(limit) => Some(left(catalog, &budget, limit, &agent, &totals, at)?),
                None => None,
            },
            compared: counted.compared,
            expected: counted.expected,
            actual: counted.actual,
            has_spent: counted.has_spent,
            age: at.saturating_sub(since),
        })?;
    }
    let before = at.saturating_sub(advise::long_ago());
    let mut old_holds = Vec::new();
    for held in budgets::old_holds(catalog, name, before, at)? {
        old_holds.try_push(OldHolds {
            agent: held.agent.as_deref().map(json::unicode),
            count: held.count,
            amount: held.amount,
            age: at.saturating_sub(held.oldest),
        })?;
    }
    let end = period_of(&budget).end(at).filter(|end| *end != ENDLESS);
    Ok(Facts {
        left: left(catalog, &budget, budget.total, b"", &totals, at)?,
        spent_today: budgets::spent_since(catalog, name, at.saturating_sub(DAY))?,
        period_ends_in: end.map(|end| end.saturating_sub(at)),
        agents,
        old_holds,
    })
}

fn installed(call: &Call<'_>) -> Result<Rc<Catalog>> {
    catalog::current(call.function())
}

sql_functions! {
    /// `state_budget_accuracy(budget)`
    fn state_budget_accuracy(call) {
        let name = call.required_text(0, "budget")?;
        let catalog = installed(call)?;
        let budget = require(&catalog, name, Seen::BySnapshot)?;
        let totals = budgets::totals(&catalog, name, period_start(&budget, sys::now()))?;
        let mut rows = call.rows()?;
        for total in totals.iter().filter(|it| it.compared > 0) {
            rows.push([
                (!total.agent.is_empty()).then(|| call::varlena_datum(&total.agent)),
                Some(call::bigint_datum(total.compared)),
                Some(money::datum(total.expected)),
                Some(money::datum(total.actual)),
                price::accuracy(total.expected, total.actual).map(money::datum),
            ]);
        }
        Ok(call::void_datum())
    }

    /// `state_budget_project(budget, planned)`
    fn state_budget_project(call) {
        let name = call.required_text(0, "budget")?;
        let catalog = installed(call)?;
        let projection = projection(call, &catalog, name, sys::now())?;
        Ok(call::varlena_datum(&json::document(&projection)?))
    }

    /// `state_budget_recommend(budget, planned)`
    fn state_budget_recommend(call) {
        let name = call.required_text(0, "budget")?;
        let catalog = installed(call)?;
        let at = sys::now();
        let projection = match call.argument(1) {
            Some(_) => Some(projection(call, &catalog, name, at)?),
            None => None,
        };
        let advice = advise::advise(&facts(&catalog, name, at)?, projection.as_ref());
        let mut rows = call.rows()?;
        for one in advice {
            let agent = one.agent.map(|agent| json::in_encoding(agent.as_bytes())).transpose()?;
            rows.push([
                Some(call::varlena_datum(one.severity.name().as_bytes())),
                agent.as_deref().map(call::varlena_datum),
                Some(call::varlena_datum(one.recommendation.as_bytes())),
                one.amount.map(money::datum),
                Some(call::varlena_datum(&json::in_encoding(one.reason.as_bytes())?)),
            ]);
        }
        Ok(call::void_datum())
    }
}
