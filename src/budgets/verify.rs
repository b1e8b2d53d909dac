//! Comparing counters with the holds and costs that they count.

use super::account::{Counters, as_owner};
use super::error::BudgetError;
use super::path::{path, period_start};
use super::{check_may_write, note_change};
use crate::call::{self, Call, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Result, text};
use crate::store::budgets::{self, Account, Counted, Seen};
use crate::{money, sys};
use state_cache_memory::collect;
use std::rc::Rc;

/// Puts the counters of an account right, with all of its rows locked.
fn repair(catalog: &Rc<Catalog>, wrong: &Counted) -> Result<()> {
    let account = Account {
        budget: &wrong.budget,
        agent: &wrong.agent,
        period: wrong.period,
    };
    let Some(budget) = budgets::budget(catalog, &wrong.budget, Seen::Now)? else {
        return Ok(());
    };
    {
        // Nobody adds a row meanwhile.
        let _owner = as_owner(catalog);
        budgets::lock_to_redefine(catalog, &wrong.budget)?;
    }
    budgets::lock_account(catalog, &account, None)?;
    let revision = budget.revision;
    budgets::count_again(catalog, &account, revision)?;
    let agent = match &*wrong.agent {
        [] => None,
        name => Some((
            name,
            budgets::agent(catalog, &wrong.budget, name, Seen::Now)?.and_then(|it| it.limit),
        )),
    };
    let limit = match agent {
        None => super::account::limit_of(&budget),
        Some((_, limit)) => super::account::Limit {
            limit,
            soft_limit: None,
        },
    };
    if wrong.period == period_start(&budget, sys::now()) {
        let counters = Counters {
            account,
            shard: 0,
            budget: &budget,
            limit,
        };
        counters.allot_again(catalog)?;
    }
    note_change(catalog, &wrong.budget)
}

fn installed(call: &Call<'_>, repair: bool) -> Result<Rc<Catalog>> {
    match repair {
        true => check_may_write(call, c"state_budget_verify()"),
        false => catalog::current(call.function()),
    }
}

/// The accounts whose counters are not what holds and costs add up to.
fn verify(catalog: &Rc<Catalog>, budget: Option<&[u8]>, repairs: bool) -> Result<Vec<Counted>> {
    if let Some(name) = budget
        && budgets::budget(catalog, name, Seen::Now)?.is_none()
    {
        return Err(BudgetError::Unknown { budget: text(name) }.into());
    }
    let mut wrong = budgets::miscounted(catalog, budget)?;
    if !repairs {
        return Ok(wrong);
    }
    // Agents before their budgets, and those before the ones above: the order of locks.
    let depth = |it: &Counted| path(catalog, &it.budget, Seen::Now).map_or(0, |path| path.len());
    let depths: Vec<usize> = collect(wrong.iter().map(depth))?;
    let mut order: Vec<usize> = collect(0..wrong.len())?;
    order.sort_unstable_by_key(|n| (std::cmp::Reverse(depths[*n]), wrong[*n].agent.is_empty()));
    for n in order {
        repair(catalog, &wrong[n])?;
    }
    wrong.sort_unstable_by(|a, b| {
        (&a.budget, &a.agent, a.period).cmp(&(&b.budget, &b.agent, b.period))
    });
    Ok(wrong)
}

sql_functions! {
    /// `state_budget_verify(budget, repair)`
    fn state_budget_verify(call) {
        let repairs = call.boolean(1).unwrap_or(false);
        let catalog = installed(call, repairs)?;
        let wrong = verify(&catalog, call.text(0), repairs)?;
        let mut rows = call.rows()?;
        for one in wrong {
            rows.push([
                Some(call::varlena_datum(&one.budget)),
                (!one.agent.is_empty()).then(|| call::varlena_datum(&one.agent)),
                Some(call::bigint_datum(one.period)),
                Some(money::datum(one.spent.0)),
                Some(money::datum(one.spent.1)),
                Some(money::datum(one.held.0)),
                Some(money::datum(one.held.1)),
            ]);
        }
        Ok(call::void_datum())
    }
}
