//! Defining budgets, and dropping them.

use super::account::{Counters, Limit, limit_of};
use super::error::BudgetError;
use super::hold::{check_name, not_negative};
use super::json::{self, Object};
use super::path::{MOST, path, period_start, unknown};
use super::{check_may_write, note_change};
use crate::call::{self, Call, sql_functions};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::store::budgets::{self, Account, Agent, Budget, Seen};
use crate::{interval, memory, sys};
use pgrx::pg_sys;
use state_cache_budget::{Amount, Period};
use state_cache_memory::Grow;
use std::ffi::CStr;

/// Rows among which counters are distributed, at most.
const MOST_SHARDS: i32 = 64;
/// Agents of a budget, at most.
const MOST_AGENTS: usize = 10_000;
/// The longest name of a currency, in bytes.
const MAX_CURRENCY: usize = 63;

/// Locks the definitions of all budgets against each other: one is redefined at a time.
fn lock_definitions(catalog: &Catalog) -> Result<()> {
    let lock = pg_sys::ShareRowExclusiveLock as i32;
    // SAFETY: look-ups in the system caches, then a lock that is held until the transaction ends.
    unsafe {
        let table = pg_sys::get_relname_relid(c"state_budget".as_ptr(), catalog.namespace());
        let wanted = pg_sys::AclMode::from(pg_sys::ACL_UPDATE);
        let answer = pg_sys::pg_class_aclcheck(table, sys::current_user(), wanted);
        if answer != pg_sys::AclResult::ACLCHECK_OK {
            return Err(Error::Privilege {
                table: "state_budget",
                wanted: "UPDATE",
            });
        }
        pg_sys::LockRelationOid(table, lock);
    }
    Ok(())
}

/// What `period` says: nothing, `none`, `hour`, `day`, `week`, `month`, `year`, or an interval.
fn period(call: &Call<'_>, n: usize) -> Result<Option<Option<pg_sys::Interval>>> {
    let Some(given) = call.text(n) else {
        return Ok(None);
    };
    let spelled = match given {
        b"none" => return Ok(Some(None)),
        b"hour" => b"1 hour",
        b"day" => b"1 day".as_slice(),
        b"week" => b"7 days",
        b"month" => b"1 month",
        b"year" => b"12 months",
        other => other,
    };
    let interval = interval_of("period", spelled)?;
    Period::of_interval(interval.month, interval.day, interval.time)
        .map_err(|error| Error::argument(format!("period {error}: {}", text(given))))?;
    Ok(Some(Some(interval)))
}

/// What `retention` says: nothing, `none`, or an interval of a day or more.
fn retention(call: &Call<'_>, n: usize) -> Result<Option<Option<pg_sys::Interval>>> {
    const DAY: i64 = 86_400_000_000;
    let Some(given) = call.text(n) else {
        return Ok(None);
    };
    if given == b"none" {
        return Ok(Some(None));
    }
    let retention = interval_of("retention", given)?;
    let hint = "'none' keeps holds and costs for ever.";
    interval::check_positive("retention", &retention, hint)?;
    match interval::microseconds(&retention) < DAY {
        true => Err(Error::argument(format!(
            "retention must be a day or more: {}",
            text(given)
        ))),
        false => Ok(Some(Some(retention))),
    }
}

/// An interval that a text spells; raises `22007` for what is none.
fn interval_of(what: &str, spelled: &[u8]) -> Result<pg_sys::Interval> {
    let arguments = [
        Some(call::cstring_datum(spelled)),
        Some(pg_sys::Datum::from(pg_sys::InvalidOid)),
        Some(pg_sys::Datum::from(-1_i32)),
    ];
    // SAFETY: interval_in takes a cstring, an OID and a type modifier, and gives an interval or raises.
    let interval = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::interval_in, &arguments)
            .map(|interval| *interval.cast_mut_ptr::<pg_sys::Interval>())
    };
    interval.ok_or_else(|| Error::null_argument(what))
}

fn same_period(a: Option<&pg_sys::Interval>, b: Option<&pg_sys::Interval>) -> bool {
    let parts = |it: &pg_sys::Interval| (it.month, it.day, it.time);
    a.map(parts) == b.map(parts)
}

/// An agent as it is to be.
struct NewAgent {
    name: Box<[u8]>,
    terms: Agent,
}

/// The agents that a call defines.
fn agents(call: &Call<'_>, n: usize) -> Result<Option<Vec<NewAgent>>> {
    let Some(given) = call.jsonb(n) else {
        return Ok(None);
    };
    let given = json::members("agents", given)?;
    if given.len() > MOST_AGENTS {
        return Err(Error::argument(format!(
            "agents has {} members, the limit is {MOST_AGENTS}",
            given.len()
        )));
    }
    let mut agents = Vec::new();
    for (name, terms) in &given {
        memory::check()?;
        check_name("agent", name)?;
        let what = format!("agent \"{}\"", text(name));
        let object = Object::open(&what, terms, &["limit", "price"])?;
        let terms = Agent {
            limit: object.amount("limit")?,
            price: object.amount("price")?,
            guess: None,
        };
        if let Some(limit) = terms.limit.filter(|it| it.is_negative()) {
            return Err(object.wrong("limit", &format!("must not be negative: {limit}")));
        }
        if let Some(price) = terms.price.filter(|it| !it.is_positive()) {
            return Err(object.wrong("price", &format!("must be positive: {price}")));
        }
        agents.try_push(NewAgent {
            name: (*name).into(),
            terms,
        })?;
    }
    // In the order in which accounts are locked.
    agents.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(agents))
}

/// Raises unless the budget may stand below a parent.
fn check_parent(catalog: &Catalog, budget: &Budget, parent: &[u8], is_new: bool) -> Result<()> {
    let above = path(catalog, parent, Seen::Now)?;
    if above.iter().any(|it| it.name == budget.name) {
        return Err(BudgetError::Circle {
            budget: text(&budget.name),
            parent: text(parent),
        }
        .into());
    }
    if let Some(other) = above.iter().find(|it| it.currency != budget.currency) {
        return Err(BudgetError::Currency {
            what: format!("budget \"{}\"", text(&other.name)),
            currency: text(&other.currency),
            other: text(&budget.currency),
        }
        .into());
    }
    let mut height = 1;
    let mut level = vec![budget.name.clone()];
    while !is_new && !level.is_empty() && above.len() + height <= MOST {
        let mut below = Vec::new();
        for name in &level {
            for child in budgets::budgets_below(catalog, name)? {
                below.try_push(child)?;
            }
        }
        height += usize::from(!below.is_empty());
        level = below;
    }
    match above.len() + height > MOST {
        false => Ok(()),
        true => Err(BudgetError::TooDeep {
            budget: text(&budget.name),
            limit: MOST,
        }
        .into()),
    }
}

/// Locks all rows of all accounts of a budget; what is held in all of them, and spent in the period of a time.
fn lock_accounts(catalog: &Catalog, budget: &Budget, at: i64) -> Result<(Amount, Amount)> {
    let now = period_start(budget, at);
    let (mut held, mut spent) = (Amount::ZERO, Amount::ZERO);
    for (agent, period) in budgets::accounts(catalog, &budget.name)? {
        let account = Account {
            budget: &budget.name,
            agent: &agent,
            period,
        };
        for row in budgets::lock_account(catalog, &account, None)? {
            if agent.is_empty() {
                held += row.share.held;
                spent += if period == now {
                    row.share.spent
                } else {
                    Amount::ZERO
                };
            }
        }
    }
    Ok((held, spent))
}

/// Makes the allotments of this period's accounts anew.
fn allot_again(catalog: &Catalog, budget: &Budget, at: i64) -> Result<()> {
    let now = period_start(budget, at);
    for (agent, period) in budgets::accounts(catalog, &budget.name)? {
        if period != now {
            continue;
        }
        let limit = match &*agent {
            [] => limit_of(budget),
            name => Limit {
                limit: match budgets::agent(catalog, &budget.name, name, Seen::Now)? {
                    Some(agent) => agent.limit,
                    // It is in the budget no longer.
                    None => Some(Amount::ZERO),
                },
                soft_limit: None,
            },
        };
        let counters = Counters {
            account: Account {
                budget: &budget.name,
                agent: &agent,
                period,
            },
            shard: 0,
            budget,
            limit,
        };
        counters.allot_again(catalog)?;
    }
    Ok(())
}

/// Raises if what is to change cannot while there is money in the budget.
fn check_unused(
    catalog: &Catalog,
    old: &Budget,
    new: &Budget,
    used: (Amount, Amount),
) -> Result<()> {
    let what = if old.parent != new.parent {
        "the parent"
    } else if old.currency != new.currency {
        "the currency"
    } else {
        return Ok(());
    };
    let has_children = || budgets::budgets_below(catalog, &old.name).map(|it| !it.is_empty());
    if used != (Amount::ZERO, Amount::ZERO) || old.currency != new.currency && has_children()? {
        return Err(BudgetError::InUse {
            budget: text(&old.name),
            what,
        }
        .into());
    }
    Ok(())
}

fn define(call: &Call<'_>) -> Result<()> {
    let catalog = check_may_write(call, c"state_budget_define()")?;
    let name = call.required_text(0, "budget")?;
    check_name("budget", name)?;
    let total = not_negative(call, 1, "total")?.ok_or_else(|| Error::null_argument("total"))?;
    let currency = call.required_text(2, "currency")?;
    if !(1..=MAX_CURRENCY).contains(&currency.len()) {
        return Err(Error::argument(format!(
            "currency must have 1 to {MAX_CURRENCY} bytes"
        )));
    }
    let parent = call.text(3).map(|it| Some(it).filter(|it| !it.is_empty()));
    let (agents, period) = (agents(call, 4)?, period(call, 5)?);
    let retention = retention(call, 8)?;
    let soft_limit = not_negative(call, 6, "soft_limit")?;
    let shards = call.integer(7);
    if let Some(shards) = shards.filter(|it| !(1..=MOST_SHARDS).contains(it)) {
        return Err(Error::argument(format!(
            "shards must be 1 to {MOST_SHARDS}: {shards}"
        )));
    }
    lock_definitions(&catalog)?;
    let at = sys::now();
    let old = budgets::budget(&catalog, name, Seen::Now)?;
    let mut new = Budget {
        name: name.into(),
        total,
        currency: currency.into(),
        parent: match (parent, &old) {
            (Some(parent), _) => parent.map(Into::into),
            (None, old) => old.as_ref().and_then(|old| old.parent.clone()),
        },
        period: match (period, &old) {
            (Some(period), _) => period,
            (None, old) => old.as_ref().and_then(|old| old.period),
        },
        soft_limit: soft_limit.or(old.as_ref().and_then(|old| old.soft_limit)),
        shards: shards.or(old.as_ref().map(|old| old.shards)).unwrap_or(1),
        revision: old.as_ref().map_or(1, |old| old.revision),
        retention: match (retention, &old) {
            (Some(retention), _) => retention,
            (None, old) => old.as_ref().and_then(|old| old.retention),
        },
        has_expired: false,
        guess: None,
    };
    if let Some(parent) = new.parent.as_deref() {
        check_parent(&catalog, &new, parent, old.is_none())?;
    }
    if let Some(old) = &old {
        // From here on nobody adds a row to its accounts.
        budgets::lock_to_redefine(&catalog, name)?;
        let used = lock_accounts(&catalog, old, at)?;
        check_unused(&catalog, old, &new, used)?;
        let is_same = old.parent == new.parent
            && old.currency == new.currency
            && old.shards == new.shards
            && same_period(old.period.as_ref(), new.period.as_ref());
        new.revision += i64::from(!is_same);
    }
    crate::fault::stop_at!(BudgetLocked);
    budgets::put_budget(&catalog, &new)?;
    if let Some(agents) = agents {
        let mut names = Vec::new();
        let mut priced = Vec::new();
        for agent in &agents {
            budgets::put_agent(&catalog, name, &agent.name, agent.terms)?;
            names.try_push(agent.name.clone())?;
            if agent.terms.price.is_some() {
                priced.try_push(agent.name.clone())?;
            }
        }
        budgets::retire_agents(&catalog, name, &names)?;
        budgets::forget_prices(&catalog, name, &priced)?;
    }
    crate::fault::stop_at!(BudgetDefined);
    allot_again(&catalog, &new, at)?;
    crate::fault::stop_at!(BudgetAllotted);
    note_change(&catalog, name)
}

fn drop_budget(call: &Call<'_>, function: &CStr) -> Result<()> {
    let catalog = check_may_write(call, function)?;
    let name = call.required_text(0, "budget")?;
    lock_definitions(&catalog)?;
    let budget = budgets::budget(&catalog, name, Seen::Now)?.ok_or_else(|| unknown(name))?;
    if let Some(child) = budgets::budgets_below(&catalog, name)?.first() {
        return Err(BudgetError::HasChildren {
            budget: text(name),
            child: text(child),
        }
        .into());
    }
    let at = sys::now();
    budgets::lock_to_redefine(&catalog, name)?;
    lock_accounts(&catalog, &budget, at)?;
    if budgets::is_held(&catalog, name, at)? {
        return Err(BudgetError::Held { budget: text(name) }.into());
    }
    // Holds whose time is over are counted in the budgets above still.
    super::expire::take_out_all(&catalog, name, at)?;
    if let Some(parent) = &budget.parent {
        budgets::hand_up(&catalog, name, parent)?;
    }
    budgets::drop_budget(&catalog, name)?;
    note_change(&catalog, name)
}

sql_functions! {
    /// `state_budget_define(budget, total, currency, parent, agents, period, soft_limit, shards, retention)`
    fn state_budget_define(call) {
        define(call)?;
        Ok(call::void_datum())
    }

    /// `state_budget_drop(budget)`
    fn state_budget_drop(call) {
        drop_budget(call, c"state_budget_drop()")?;
        Ok(call::void_datum())
    }
}
