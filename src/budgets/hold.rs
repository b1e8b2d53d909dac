//! Holds: reserving, settling, voiding, extending.

use super::account::{Counters, Limit, charge_alone, limit_of};
use super::error::BudgetError;
use super::path::{accounts, own_shard, path, period_start};
use super::{check_may_write, note_change};
use crate::call::{self, Call, sql_functions};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::store::budgets::{self, Budget, Charged, Hold, Scope, Seen};
use crate::{interval, money, sys, transaction};
use pgrx::pg_sys;
use state_cache_budget::{Amount, price};
use state_cache_memory::try_collect;
use std::rc::Rc;

/// Longest names of holds and owners, in bytes.
const MAX_NAME: usize = 255;

/// Raises `22023` for a name that is empty or too long.
pub fn check_name(what: &str, name: &[u8]) -> Result<()> {
    match name.len() {
        1..=MAX_NAME => Ok(()),
        0 => Err(Error::argument(format!("{what} must not be empty"))),
        len => Err(Error::argument(format!(
            "{what} \"{}\" is too long: {len} bytes, the limit is {MAX_NAME}",
            text(name)
        ))),
    }
}

/// A time to live that somebody gives.
fn ttl(call: &Call<'_>, n: usize) -> Result<pg_sys::Interval> {
    let ttl = call
        .interval(n)
        .ok_or_else(|| Error::null_argument("ttl"))?;
    interval::check_positive("ttl", &ttl, "state_budget_extend() prolongs a hold.")?;
    Ok(ttl)
}

/// The agent that a call names, of a budget: `42704` if it is not there.
pub fn agent_of(catalog: &Catalog, budget: &Budget, name: &[u8]) -> Result<budgets::Agent> {
    let found = budgets::agent(catalog, &budget.name, name, Seen::Now)?;
    found.ok_or_else(|| {
        BudgetError::UnknownAgents {
            budget: text(&budget.name),
            agents: vec![text(name)],
        }
        .into()
    })
}

/// A name for a hold that its caller gives none.
pub fn new_id() -> Result<Box<[u8]>> {
    let mut bytes = [0u8; 16];
    // SAFETY: fills so many bytes.
    if !unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) } {
        return Err(Error::Internal {
            message: "the server has no random numbers".to_owned(),
        });
    }
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes))
        .into_bytes()
        .into())
}

/// What is asked for.
pub struct Asked<'a> {
    /// Of which budget.
    pub budget: &'a [u8],
    /// For whom.
    pub agent: Option<&'a [u8]>,
    /// How much; `None`: the price of the agent.
    pub amount: Option<Amount>,
    /// Under which name.
    pub id: Option<&'a [u8]>,
    /// For how long.
    pub ttl: pg_sys::Interval,
    /// Who holds it.
    pub owner: Option<&'a [u8]>,
    /// What the caller takes the currency of the budget to be.
    pub currency: Option<&'a [u8]>,
}

/// What is known of a budget and an agent before something is reserved.
struct Terms {
    path: Vec<Budget>,
    agent: Option<budgets::Agent>,
    amount: Amount,
}

impl Terms {
    /// What will be left, if nobody changes the accounts meanwhile.
    fn guess(&self) -> Amount {
        let agent = self.agent.and_then(|agent| agent.guess);
        let least = self.path.iter().filter_map(|budget| budget.guess);
        let least = least.chain(agent).min();
        least.map_or(Amount::ZERO, |least| least - self.amount)
    }
}

/// Raises `22023` if a budget is in another currency than its caller says.
fn check_currency(budget: &Budget, currency: Option<&[u8]>) -> Result<()> {
    match currency.filter(|currency| **currency != *budget.currency) {
        None => Ok(()),
        Some(other) => Err(BudgetError::Currency {
            what: format!("budget \"{}\"", text(&budget.name)),
            currency: text(&budget.currency),
            other: text(other),
        }
        .into()),
    }
}

impl Asked<'_> {
    /// What is to be reserved, where.
    fn terms(&self, catalog: &Catalog, path: Vec<Budget>) -> Result<Terms> {
        let [budget, ..] = path.as_slice() else {
            return Err(super::path::unknown(self.budget));
        };
        let agent = match self.agent {
            Some(name) => Some(agent_of(catalog, budget, name)?),
            None => None,
        };
        let amount = match (self.amount, self.agent.zip(agent)) {
            (Some(amount), _) => amount,
            (None, Some((name, agent))) => {
                let price = agent.price.filter(|it| it.is_positive());
                price.ok_or_else(|| BudgetError::NoPrice {
                    budget: text(self.budget),
                    agent: text(name),
                })?
            }
            (None, None) => return Err(Error::null_argument("amount")),
        };
        Ok(Terms {
            path,
            agent,
            amount,
        })
    }

    /// What of an earlier hold of the same name is another than what is asked for now.
    fn difference(&self, hold: &Hold) -> Option<&'static str> {
        let same_ttl = (hold.ttl.month, hold.ttl.day, hold.ttl.time)
            == (self.ttl.month, self.ttl.day, self.ttl.time);
        let of = hold.scopes.first().map(|scope| &*scope.budget);
        [
            (of == Some(self.budget), "budget"),
            (hold.agent.as_deref() == self.agent, "agent"),
            (hold.asked == self.amount, "amount"),
            (same_ttl, "ttl"),
            (hold.owner.as_deref() == self.owner, "owner"),
        ]
        .into_iter()
        .find_map(|(is_same, what)| (!is_same).then_some(what))
    }

    /// The answer that was given when the same was asked for before; `42710` if it was something else.
    fn again(&self, hold: Hold) -> Result<Hold> {
        match self.difference(&hold) {
            None => Ok(hold),
            Some(difference) => Err(BudgetError::OtherHold {
                hold: text(&hold.id),
                difference,
            }
            .into()),
        }
    }
}

/// Where something is counted that is asked of a path at a time.
pub fn scopes_of(path: &[Budget], at: i64) -> Result<Vec<Scope>> {
    try_collect(path.iter().map(|budget| {
        Ok::<_, Error>(Scope {
            budget: budget.name.clone(),
            period: period_start(budget, at),
            shard: own_shard(budget.shards),
        })
    }))
}

/// The counters of accounts, with what is defined of each. `path` has the budgets of the scopes.
pub fn counters<'a>(
    path: &'a [Budget],
    scopes: &'a [Scope],
    agent: Option<(&'a [u8], Option<Amount>)>,
) -> impl Iterator<Item = Counters<'a>> {
    accounts(scopes, agent.map(|(name, _)| name)).filter_map(move |(account, shard)| {
        let budget = path.iter().find(|it| *it.name == *account.budget)?;
        let limit = match (account.agent, agent) {
            ([], _) | (_, None) => limit_of(budget),
            (_, Some((_, limit))) => Limit {
                limit,
                soft_limit: None,
            },
        };
        Some(Counters {
            account,
            shard,
            budget,
            limit,
        })
    })
}

/// Reserves what is asked for.
///
/// # Errors
/// `53400` without room, `42704` for a budget or an agent that is not there, `42710` for the name of another hold.
pub fn reserve(catalog: &Rc<Catalog>, asked: &Asked<'_>) -> Result<Hold> {
    let path = path(catalog, asked.budget, Seen::Now);
    if let Ok([budget, ..]) = path.as_deref() {
        check_currency(budget, asked.currency)?;
    }
    let terms = match path.and_then(|path| asked.terms(catalog, path)) {
        Ok(terms) => terms,
        // The budget or the agent may have changed since the same was asked for before.
        Err(error) => match asked.id.map(|id| budgets::hold(catalog, id)).transpose()? {
            Some(Some(hold)) => return asked.again(hold),
            _ => return Err(error),
        },
    };
    let made_at = sys::now();
    let mut hold = Hold {
        id: match asked.id {
            Some(id) => id.into(),
            None => new_id()?,
        },
        agent: asked.agent.map(Into::into),
        amount: terms.amount,
        asked: asked.amount,
        ttl: asked.ttl,
        owner: asked.owner.map(Into::into),
        remaining: terms.guess(),
        scopes: scopes_of(&terms.path, made_at)?,
        status: b"held".as_slice().into(),
        made_at,
        expires_at: interval::after(made_at, &asked.ttl),
        is_taken_out: false,
        actual: None,
        resolved_at: 0,
    };
    // A name that is given may be given by another session too, or was given before: it waits here, before anything
    // is locked. What is left is guessed, since the row is seldom written again then.
    if asked.id.is_some() && !budgets::insert_hold(catalog, &hold)? {
        return match budgets::hold(catalog, &hold.id)? {
            Some(other) => asked.again(other),
            None => Err(BudgetError::UnknownHold {
                hold: text(&hold.id),
            }
            .into()),
        };
    }
    crate::fault::stop_at!(HoldMade);
    let mut least: Option<Amount> = None;
    let limits = asked.agent.zip(terms.agent.map(|agent| agent.limit));
    for counters in counters(&terms.path, &hold.scopes, limits) {
        if let Some(left) = counters.hold(catalog, terms.amount)? {
            least = Some(least.map_or(left, |least| least.min(left)));
        }
        crate::fault::stop_at!(HoldCountedOnce);
    }
    let guessed = std::mem::replace(&mut hold.remaining, least.unwrap_or_default());
    match asked.id {
        Some(_) if hold.remaining == guessed => {}
        Some(id) => budgets::finish_hold(catalog, id, hold.remaining)?,
        // Nobody else knows the name.
        None => {
            budgets::insert_hold(catalog, &hold)?;
        }
    }
    crate::fault::stop_at!(HoldCounted);
    changed(catalog, &hold.scopes)?;
    transaction::needs_worker_by(hold.expires_at);
    Ok(hold)
}

/// Notes that the budgets of these scopes change.
pub fn changed(catalog: &Rc<Catalog>, scopes: &[Scope]) -> Result<()> {
    scopes
        .iter()
        .try_for_each(|scope| note_change(catalog, &scope.budget))
}

/// The budgets of scopes as they are defined now.
fn budgets_of(catalog: &Catalog, scopes: &[Scope]) -> Result<Vec<Budget>> {
    try_collect(
        scopes
            .iter()
            .map(|scope| super::path::require(catalog, &scope.budget, Seen::Now)),
    )
}

/// Charges the cost of a hold in all of its accounts.
///
/// The rows decide first, without a look at what is defined: a cost that is no more than was held seldom needs more.
fn charge(catalog: &Catalog, hold: &Hold, charged: &Charged) -> Result<()> {
    let (scopes, agent) = (hold.scopes.as_slice(), hold.agent.as_deref());
    let mut done = 0;
    for (account, shard) in accounts(scopes, agent) {
        if !charge_alone(catalog, &account, shard, charged, false)? {
            break;
        }
        crate::fault::stop_at!(HoldChargedOnce);
        done += 1;
    }
    if done == accounts(scopes, agent).count() {
        return Ok(());
    }
    let path = budgets_of(catalog, scopes)?;
    let limit = match (agent, scopes.first()) {
        (Some(name), Some(scope)) => {
            let found = budgets::agent(catalog, &scope.budget, name, Seen::Now)?;
            // One that was taken out of the budget has no limit that could be told of.
            Some((name, found.and_then(|agent| agent.limit)))
        }
        _ => None,
    };
    for counters in counters(&path, scopes, limit).skip(done) {
        counters.charge(catalog, charged)?;
        crate::fault::stop_at!(HoldChargedOnce);
    }
    Ok(())
}

/// Learns the price of an agent from a cost that was far from what was expected. The cost is in the tables.
pub fn learn(
    catalog: &Catalog,
    scope: &Scope,
    agent: &[u8],
    (expected, actual): (Amount, Amount),
    at: i64,
) -> Result<()> {
    if !price::is_off(expected, actual) {
        return Ok(());
    }
    let most = price::LEARNED_FROM as i64;
    let costs = budgets::recent_costs(catalog, &scope.budget, Some(agent), most, Seen::Now)?;
    let costs = try_collect(costs.iter().map(|cost| Ok::<_, Error>(cost.actual)))?;
    match price::learned(&costs) {
        Some(learned) => budgets::learn(catalog, &scope.budget, agent, scope.shard, learned, at),
        None => Ok(()),
    }
}

/// A settled hold, and whether that came after its time.
fn is_late(hold: &Hold) -> bool {
    hold.resolved_at >= hold.expires_at
}

/// Settles a hold.
///
/// # Errors
/// `42704` without such a hold; `55000` if it was settled with another amount, or voided; `22023` in another
/// currency.
pub fn settle(
    catalog: &Rc<Catalog>,
    id: &[u8],
    actual: Amount,
    metadata: Option<&[u8]>,
    currency: Option<&[u8]>,
) -> Result<Hold> {
    let check = |hold: &Hold| match (currency, hold.scopes.first()) {
        (Some(_), Some(scope)) => {
            let budget = super::path::require(catalog, &scope.budget, Seen::Now)?;
            check_currency(&budget, currency)
        }
        _ => Ok(()),
    };
    let at = sys::now();
    let Some(hold) = budgets::settle_hold(catalog, id, actual, metadata, at)? else {
        let Some(hold) = budgets::hold(catalog, id)? else {
            return Err(BudgetError::UnknownHold { hold: text(id) }.into());
        };
        check(&hold)?;
        return match hold.actual {
            Some(settled) if settled == actual => Ok(hold),
            Some(settled) => Err(BudgetError::Settled {
                hold: text(id),
                actual: settled,
                asked: actual,
            }
            .into()),
            None => Err(BudgetError::HoldEnded {
                hold: text(id),
                status: text(&hold.status),
                wanted: "settled",
            }
            .into()),
        };
    };
    check(&hold)?;
    crate::fault::stop_at!(HoldSettled);
    let released = match hold.is_taken_out {
        true => Amount::ZERO,
        false => hold.amount,
    };
    let charged = Charged {
        spent: actual,
        held: -released,
        compared: Some((hold.amount, actual)),
        count: 1,
    };
    charge(catalog, &hold, &charged)?;
    crate::fault::stop_at!(HoldCharged);
    if let (Some(agent), Some(scope)) = (&hold.agent, hold.scopes.first()) {
        learn(catalog, scope, agent, (hold.amount, actual), at)?;
    }
    crate::fault::stop_at!(PriceLearned);
    changed(catalog, &hold.scopes)?;
    Ok(hold)
}

/// Gives back what a hold holds, in all of its accounts.
pub fn release(catalog: &Catalog, hold: &Hold) -> Result<()> {
    for (account, shard) in accounts(&hold.scopes, hold.agent.as_deref()) {
        budgets::release(catalog, &account, shard, hold.amount)?;
    }
    Ok(())
}

/// Voids a hold.
fn void(catalog: &Rc<Catalog>, id: &[u8]) -> Result<Hold> {
    let Some(hold) = budgets::void_hold(catalog, id, sys::now())? else {
        return match budgets::hold(catalog, id)? {
            None => Err(BudgetError::UnknownHold { hold: text(id) }.into()),
            Some(hold) if *hold.status == *b"voided" => Ok(hold),
            Some(hold) => Err(BudgetError::HoldEnded {
                hold: text(id),
                status: text(&hold.status),
                wanted: "voided",
            }
            .into()),
        };
    };
    if !hold.is_taken_out {
        release(catalog, &hold)?;
    }
    changed(catalog, &hold.scopes)?;
    Ok(hold)
}

/// Holds for so long from now; until when.
fn extend(catalog: &Rc<Catalog>, id: &[u8], ttl: &pg_sys::Interval) -> Result<i64> {
    let Some(hold) = budgets::lock_hold(catalog, id)? else {
        return Err(BudgetError::UnknownHold { hold: text(id) }.into());
    };
    if !matches!(&*hold.status, b"held" | b"expired") {
        return Err(BudgetError::HoldEnded {
            hold: text(id),
            status: text(&hold.status),
            wanted: "extended",
        }
        .into());
    }
    // Who has judged that the hold is over has held one of these rows.
    let mut judged_at = i64::MIN;
    for (account, shard) in accounts(&hold.scopes, hold.agent.as_deref()) {
        let rows = match crate::fault::leaves_out!(BudgetExtendLock) {
            true => Vec::new(),
            false => budgets::lock_account(catalog, &account, Some(shard))?,
        };
        judged_at = rows.iter().fold(judged_at, |at, row| at.max(row.judged_at));
    }
    let now = sys::now();
    if hold.is_taken_out || hold.expires_at <= now.max(judged_at) {
        return Err(BudgetError::Expired {
            hold: text(id),
            at: hold.expires_at,
        }
        .into());
    }
    let expires_at = interval::after(now, ttl);
    budgets::extend_hold(catalog, id, expires_at)?;
    changed(catalog, &hold.scopes)?;
    transaction::needs_worker_by(expires_at);
    Ok(expires_at)
}

/// An argument that is a positive amount.
fn positive(call: &Call<'_>, n: usize, name: &str) -> Result<Option<Amount>> {
    let amount = money::argument(call.argument(n), name)?;
    match amount {
        Some(amount) if !amount.is_positive() => Err(Error::argument(format!(
            "{name} must be positive: {amount}"
        ))),
        amount => Ok(amount),
    }
}

/// An argument that is an amount of 0 or more.
pub fn not_negative(call: &Call<'_>, n: usize, name: &str) -> Result<Option<Amount>> {
    let amount = money::argument(call.argument(n), name)?;
    match amount {
        Some(amount) if amount.is_negative() => Err(Error::argument(format!(
            "{name} must not be negative: {amount}"
        ))),
        amount => Ok(amount),
    }
}

sql_functions! {
    /// `state_budget_reserve(budget, agent, amount, hold_id, ttl, owner, currency)`
    fn state_budget_reserve(call) {
        let catalog = check_may_write(call, c"state_budget_reserve()")?;
        let asked = Asked {
            budget: call.required_text(0, "budget")?,
            agent: call.text(1),
            amount: positive(call, 2, "amount")?,
            id: call.text(3),
            ttl: ttl(call, 4)?,
            owner: call.text(5),
            currency: call.text(6),
        };
        asked.id.map_or(Ok(()), |id| check_name("hold_id", id))?;
        asked.owner.map_or(Ok(()), |owner| check_name("owner", owner))?;
        let hold = reserve(&catalog, &asked)?;
        call.record([
            Some(call::varlena_datum(&hold.id)),
            Some(money::datum(hold.amount)),
            Some(money::datum(hold.remaining)),
        ])
    }

    /// `state_budget_settle(hold_id, actual, metadata, currency)`
    fn state_budget_settle(call) {
        let catalog = check_may_write(call, c"state_budget_settle()")?;
        let id = call.required_text(0, "hold_id")?;
        let actual = not_negative(call, 1, "actual")?.ok_or_else(|| Error::null_argument("actual"))?;
        let hold = settle(&catalog, id, actual, call.jsonb(2), call.text(3))?;
        call.record([
            Some(call::varlena_datum(&hold.id)),
            Some(money::datum(hold.amount)),
            Some(money::datum(actual)),
            Some(call::boolean_datum(actual > hold.amount)),
            Some(call::boolean_datum(is_late(&hold))),
        ])
    }

    /// `state_budget_void(hold_id)`
    fn state_budget_void(call) {
        let catalog = check_may_write(call, c"state_budget_void()")?;
        let hold = void(&catalog, call.required_text(0, "hold_id")?)?;
        Ok(money::datum(hold.amount))
    }

    /// `state_budget_extend(hold_id, ttl)`
    fn state_budget_extend(call) {
        let catalog = check_may_write(call, c"state_budget_extend()")?;
        let ttl = ttl(call, 1)?;
        let until = extend(&catalog, call.required_text(0, "hold_id")?, &ttl)?;
        Ok(call::bigint_datum(until))
    }
}
