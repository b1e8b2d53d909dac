//! Costs that nothing was held for.

use super::account::{Counters, as_owner, limit_of};
use super::check_may_write;
use super::error::BudgetError;
use super::hold::{changed, check_name, counters, learn, scopes_of};
use super::json::{self, Object};
use super::path::{path, unknown};
use crate::call::{self, Call, sql_functions};
use crate::catalog::Catalog;
use crate::error::{Result, text};
use crate::store::budgets::{self, Budget, Charged, NewCost, Scope, Seen};
use crate::{memory, sys};
use state_cache_budget::{Amount, price};
use state_cache_memory::{Grow, boxed, copy};
use std::collections::BTreeMap;

/// Records of one call, at most.
const MOST: usize = 10_000;

/// The records that a call gives, checked.
fn records(call: &Call<'_>, budget: &Budget, at: i64) -> Result<Vec<NewCost>> {
    const KNOWN: &[&str] = &["id", "agent", "amount", "expected", "currency", "metadata"];
    let given = json::elements("records", call.required_jsonb(1, "records")?, MOST)?;
    let mut records = Vec::new();
    for (n, record) in given.iter().enumerate() {
        memory::check()?;
        let place = format!("record {n}");
        let object = Object::open(&place, record, KNOWN)?;
        let required = |name| object.wrong(name, "must not be missing or null");
        let id = object.text("id")?.ok_or_else(|| required("id"))?;
        check_name("id", id)?;
        let actual = object.amount("amount")?.ok_or_else(|| required("amount"))?;
        if actual.is_negative() {
            return Err(object.wrong("amount", &format!("must not be negative: {actual}")));
        }
        let expected = object.amount("expected")?;
        if let Some(expected) = expected.filter(|it| !it.is_positive()) {
            return Err(object.wrong("expected", &format!("must be positive: {expected}")));
        }
        if let Some(currency) = object.text("currency")?
            && *currency != *budget.currency
        {
            return Err(BudgetError::Currency {
                what: format!("budget \"{}\"", text(&budget.name)),
                currency: text(&budget.currency),
                other: text(currency),
            }
            .into());
        }
        records.try_push(NewCost {
            id: boxed(id)?,
            agent: object.text("agent")?.map(boxed).transpose()?,
            expected,
            actual,
            // So that the last ones are the last ones.
            at: at.saturating_add(n as i64),
            metadata: object.member("metadata").map(copy).transpose()?,
        })?;
    }
    Ok(records)
}

/// The agents that records name, with their limits; `42704` naming all that the budget has not.
fn agents_of(
    catalog: &Catalog,
    budget: &Budget,
    records: &[NewCost],
) -> Result<BTreeMap<Box<[u8]>, Option<Amount>>> {
    let (mut agents, mut missing) = (BTreeMap::new(), Vec::new());
    for name in records.iter().filter_map(|record| record.agent.as_ref()) {
        if agents.contains_key(name) {
            continue;
        }
        memory::check()?;
        let found = budgets::agent(catalog, &budget.name, name, Seen::Now)?;
        if found.is_none() {
            missing.try_push(text(name))?;
        }
        agents.insert(name.clone(), found.and_then(|agent| agent.limit));
    }
    match missing.is_empty() {
        true => Ok(agents),
        false => Err(BudgetError::UnknownAgents {
            budget: text(&budget.name),
            agents: missing,
        }
        .into()),
    }
}

/// What records add up to, by agent.
type Sums = BTreeMap<Option<Box<[u8]>>, Charged>;

fn add(sums: &mut Sums, record: &NewCost) {
    let sum = sums.entry(record.agent.clone()).or_default();
    sum.spent += record.actual;
    if let Some(expected) = record.expected {
        let (of, was) = sum.compared.unwrap_or_default();
        sum.compared = Some((of + expected, was + record.actual));
        sum.count += 1;
    }
}

/// Writes the records that are not there yet, in the order of their names; those.
fn write(catalog: &Catalog, scopes: &[Scope], mut records: Vec<NewCost>) -> Result<Vec<NewCost>> {
    records.sort_unstable_by(|a, b| (&a.id, a.at).cmp(&(&b.id, b.at)));
    let Some(scope) = scopes.first() else {
        return Ok(Vec::new());
    };
    let mut written = Vec::new();
    for record in records {
        memory::check()?;
        if budgets::insert_cost(catalog, scopes, &record)? {
            written.try_push(record)?;
            continue;
        }
        let other = budgets::cost(catalog, &scope.budget, &record.id)?;
        let is_same = other.is_some_and(|other| {
            other.agent == record.agent
                && other.actual == record.actual
                && other.expected == record.expected
        });
        if !is_same {
            return Err(BudgetError::OtherCost {
                budget: text(&scope.budget),
                id: text(&record.id),
            }
            .into());
        }
    }
    Ok(written)
}

fn record_costs(call: &Call<'_>) -> Result<usize> {
    let catalog = check_may_write(call, c"state_budget_record_costs()")?;
    let name = call.required_text(0, "budget")?;
    let path = path(&catalog, name, Seen::Now)?;
    let budget = path.first().ok_or_else(|| unknown(name))?;
    let at = sys::now();
    let records = records(call, budget, at)?;
    let limits = agents_of(&catalog, budget, &records)?;
    let scopes = scopes_of(&path, at)?;
    // Who adds a row to an account must hold none of the budget, and the agents come one after the other.
    if limits.len() > 1 {
        let _owner = as_owner(&catalog);
        budgets::lock_definition(&catalog, name)?;
    }
    let written = write(&catalog, &scopes, records)?;
    crate::fault::stop_at!(CostsWritten);
    let (mut sums, mut whole) = (Sums::new(), Charged::default());
    for record in &written {
        add(&mut sums, record);
    }
    for (agent, charged) in &sums {
        whole.spent += charged.spent;
        whole.count += charged.count;
        if let Some((expected, actual)) = charged.compared {
            let (of, was) = whole.compared.unwrap_or_default();
            whole.compared = Some((of + expected, was + actual));
        }
        let Some(agent) = agent else { continue };
        let limit = limits.get(agent).copied().flatten();
        // The first of these is the agent's; the budgets come last, once.
        let first = counters(&path, &scopes, Some((&**agent, limit))).next();
        first.map_or(Ok(()), |it| it.charge(&catalog, charged))?;
    }
    if written.is_empty() {
        return Ok(0);
    }
    for (budget, scope) in path.iter().zip(&scopes) {
        let counters = Counters {
            account: budgets::Account {
                budget: &scope.budget,
                agent: b"",
                period: scope.period,
            },
            shard: scope.shard,
            budget,
            limit: limit_of(budget),
        };
        counters.charge(&catalog, &whole)?;
    }
    learn_from(&catalog, &scopes, &written)?;
    changed(&catalog, &scopes)?;
    Ok(written.len())
}

/// Learns the price of each agent that had a cost far from what was expected, once.
fn learn_from(catalog: &Catalog, scopes: &[Scope], written: &[NewCost]) -> Result<()> {
    let mut last = BTreeMap::new();
    for record in written {
        if let (Some(agent), Some(expected)) = (&record.agent, record.expected)
            && price::is_off(expected, record.actual)
        {
            last.insert(agent, (expected, record.actual, record.at));
        }
    }
    let Some(scope) = scopes.first() else {
        return Ok(());
    };
    for (agent, (expected, actual, at)) in last {
        learn(catalog, scope, agent, (expected, actual), at)?;
    }
    Ok(())
}

sql_functions! {
    /// `state_budget_record_costs(budget, records)`
    fn state_budget_record_costs(call) {
        Ok(call::count_datum(record_costs(call)? as u64))
    }
}
