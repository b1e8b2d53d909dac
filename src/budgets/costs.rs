//! Costs that nothing was held for.

use super::account::{Counters, limit_of};
use super::error::BudgetError;
use super::hold::{changed, check_name, counters, learn, scopes_of};
use super::path::{path, unknown};
use super::{check_may_write, json};
use crate::call::{self, Call, sql_functions};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::store::budgets::{self, Budget, Charged, NewCost, Scope, Seen};
use crate::{json_text, memory, sys};
use state_cache_budget::shapes::Record;
use state_cache_budget::{Amount, price};
use state_cache_memory::Grow;
use std::collections::BTreeMap;

/// Records of one call, at most.
const MOST: usize = 10_000;

/// The records that a call gives, checked, in the encoding of the database.
fn records(call: &Call<'_>, budget: &Budget, at: i64) -> Result<Vec<NewCost>> {
    let given: Vec<Record> =
        json::argument(call, 1, "records")?.ok_or_else(|| Error::null_argument("records"))?;
    if given.len() > MOST {
        return Err(Error::argument(format!(
            "records has {} elements, the limit is {MOST}",
            given.len()
        )));
    }
    let mut records = Vec::new();
    for (n, record) in given.into_iter().enumerate() {
        memory::check()?;
        let id = json::in_encoding(record.id.as_bytes())?;
        check_name("id", &id)?;
        let wrong = |what: &str, amount: Amount| {
            Error::argument(format!("cost \"{}\": {what}: {amount}", text(&id)))
        };
        if record.amount.is_negative() {
            return Err(wrong("amount must not be negative", record.amount));
        }
        if let Some(expected) = record.expected.filter(|it| !it.is_positive()) {
            return Err(wrong("expected must be positive", expected));
        }
        if let Some(currency) = &record.currency {
            let currency = json::in_encoding(currency.as_bytes())?;
            if *currency != *budget.currency {
                return Err(BudgetError::Currency {
                    what: format!("budget \"{}\"", text(&budget.name)),
                    currency: text(&budget.currency),
                    other: text(&currency),
                }
                .into());
            }
        }
        let metadata = match &record.metadata {
            Some(metadata) => Some(json_text::parse(&json::in_encoding(
                metadata.get().as_bytes(),
            )?)?),
            None => None,
        };
        records.try_push(NewCost {
            agent: match &record.agent {
                Some(agent) => Some(json::in_encoding(agent.as_bytes())?.into()),
                None => None,
            },
            id: id.into(),
            expected: record.expected,
            actual: record.amount,
            // So that the last ones are the last ones.
            at: at.saturating_add(n as i64),
            metadata,
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
    records.sort_by(|a, b| a.id.cmp(&b.id));
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
    let written = write(&catalog, &scopes, records)?;
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
