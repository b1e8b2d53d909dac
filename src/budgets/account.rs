//! Counters: a quick attempt at one row, and all rows together where that does not do.

use super::error::BudgetError;
use super::told;
use crate::catalog::Catalog;
use crate::error::{Result, text};
use crate::identity::Impersonation;
use crate::store::budgets::{self, Account, AccountRow, Budget, Charged, NewShare, Seen};
use crate::{subtransaction, sys};
use pgrx::pg_sys;
use state_cache_budget::{self as rules, Amount, Share, allot, quiet};
use state_cache_memory::{collect, try_collect};

/// What an account may spend, by its definition.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// What may be spent; `None`: nothing of its own.
    pub limit: Option<Amount>,
    /// From which on spending is told.
    pub soft_limit: Option<Amount>,
}

/// That of a budget.
pub fn limit_of(budget: &Budget) -> Limit {
    Limit {
        limit: Some(budget.total),
        soft_limit: budget.soft_limit,
    }
}

/// An account with what is defined of it.
pub struct Counters<'a> {
    /// The account.
    pub account: Account<'a>,
    /// Its row.
    pub shard: i32,
    /// The budget that it belongs to.
    pub budget: &'a Budget,
    /// What it may spend.
    pub limit: Limit,
}

/// The owner of a table of ours.
pub fn as_owner(catalog: &Catalog) -> Impersonation {
    // SAFETY: a look-up in the system caches; the name is NUL-terminated.
    let table = unsafe { pg_sys::get_relname_relid(c"state_budget".as_ptr(), catalog.namespace()) };
    Impersonation::owner_of(table)
}

/// Runs a quick attempt at one row of an account. If it fails it leaves no lock, since all rows are locked then in
/// their order; but that of the first row, with which the order begins.
fn attempt<T>(shard: i32, f: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
    match shard {
        0 => f(),
        _ => subtransaction::kept_if_some(f),
    }
}

/// Charges an account by one of its rows, whatever definition the caller knows; whether that row alone may be.
pub fn charge_alone(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    charged: &Charged,
    alone: bool,
) -> Result<bool> {
    let quick = attempt(shard, || {
        let charged = budgets::charge(catalog, account, shard, charged, alone)?;
        Ok(charged.then_some(()))
    })?;
    Ok(quick.is_some())
}

impl Counters<'_> {
    /// Whether one row has all of the limit, so that what it says is what the account says.
    fn is_alone(&self) -> bool {
        self.budget.shards == 1 && self.shard == 0
    }

    /// What can be reached in it by a limit; `None` without one.
    fn watched(&self, limit: Limit) -> Option<told::Watched<'_>> {
        Some(told::Watched {
            account: self.account,
            limit: limit.limit?,
            soft_limit: limit.soft_limit,
        })
    }

    /// Holds an amount; what is left then, `None` without a limit.
    ///
    /// # Errors
    /// `53400` without room.
    pub fn hold(&self, catalog: &Catalog, asked: Amount) -> Result<Option<Amount>> {
        let revision = self.budget.revision;
        let granted = attempt(self.shard, || {
            budgets::grant(catalog, &self.account, self.shard, asked, revision)
        })?;
        let Some(left) = granted else {
            return self.hold_with_all(catalog, asked);
        };
        let (Some(left), Some(limit)) = (left, self.limit.limit) else {
            return Ok(None);
        };
        let expired = self.expired(catalog, sys::now())?;
        if self.is_alone() {
            return Ok(Some(left + expired));
        }
        let (spent, held) = budgets::spent(catalog, &self.account)?;
        Ok(Some(limit - spent - held + expired))
    }

    /// What has expired and is counted still, if there is any.
    fn expired(&self, catalog: &Catalog, at: i64) -> Result<Amount> {
        match self.budget.has_expired {
            true => budgets::expired(catalog, &self.account, at, Seen::Now),
            false => Ok(Amount::ZERO),
        }
    }

    /// The same with all rows of the account locked.
    fn hold_with_all(&self, catalog: &Catalog, asked: Amount) -> Result<Option<Amount>> {
        let (rows, limit) = self.lock_all(catalog)?;
        let (name, agent) = (self.account.budget, self.account.agent);
        if !agent.is_empty() && budgets::agent(catalog, name, agent, Seen::Now)?.is_none() {
            return Err(self.redefined());
        }
        // After the locks are held: nobody extends a hold from here on that is over by then.
        let at = sys::now();
        let Some(most) = limit.limit else {
            self.write(catalog, &rows, limit, held(asked), None)?;
            return Ok(None);
        };
        let expired = budgets::expired(catalog, &self.account, at, Seen::Now)?;
        let shares: Vec<Share> = collect(rows.iter().map(|row| row.share))?;
        let account = rules::Account {
            limit: most,
            shares: &shares,
            expired,
        };
        account
            .admit(asked)
            .map_err(|refusal| BudgetError::NoRoom {
                budget: text(self.account.budget),
                agent: (!self.account.agent.is_empty()).then(|| text(self.account.agent)),
                left: refusal.left,
                asked: refusal.asked,
                currency: text(&self.budget.currency),
            })?;
        let judged_at = (asked > account.left() - expired).then_some(at);
        self.write(catalog, &rows, limit, held(asked), judged_at)?;
        Ok(Some(account.left() - asked))
    }

    /// Locks all rows of the account, among them the session's own, which is made if it is not there. With what may
    /// be spent by the definition as it is now that the locks are held.
    ///
    /// Who makes a row makes all that are missing, in their order and before any is locked: of two that make rows at
    /// once the second waits for the first, and sees its rows then. Were each to make its own, each would see a limit
    /// of which nobody else has a part.
    ///
    /// Rows that others have made while this waited for a lock are seen by the second look. Who makes more from there
    /// on waits for these locks before it gives its rows a part.
    ///
    /// # Errors
    /// `40001` if more than limits was redefined meanwhile.
    fn lock_all(&self, catalog: &Catalog) -> Result<(Vec<AccountRow>, Limit)> {
        if !budgets::has_account(catalog, &self.account, self.shard)? {
            {
                let _owner = as_owner(catalog);
                budgets::lock_definition(catalog, self.account.budget)?;
            }
            let limit = self.limit_now(catalog)?.limit;
            // Among several, new rows get their parts with the others, by the caller.
            let (allotted, rows) = match limit {
                Some(limit) if self.is_alone() => (Some(limit), 0..=0),
                Some(_) => (
                    Some(Amount::ZERO),
                    0..=self.shard.max(self.budget.shards - 1),
                ),
                None => (None, self.shard..=self.shard),
            };
            let revision = self.budget.revision;
            budgets::add_account(catalog, &self.account, &rows, allotted, revision)?;
        }
        budgets::lock_account(catalog, &self.account, None)?;
        let rows = budgets::lock_account(catalog, &self.account, None)?;
        Ok((rows, self.limit_now(catalog)?))
    }

    /// What may be spent by the definition as it is now.
    fn limit_now(&self, catalog: &Catalog) -> Result<Limit> {
        let name = self.account.budget;
        let now = budgets::budget(catalog, name, Seen::Now)?;
        let now = now.filter(|now| now.revision == self.budget.revision);
        let now = now.ok_or_else(|| self.redefined())?;
        match self.account.agent {
            [] => Ok(limit_of(&now)),
            // One that is in the budget no longer has no limit: what it has held is settled still.
            agent => Ok(Limit {
                limit: budgets::agent(catalog, name, agent, Seen::Now)?.and_then(|it| it.limit),
                soft_limit: None,
            }),
        }
    }

    fn redefined(&self) -> crate::error::Error {
        BudgetError::Redefined {
            budget: text(self.account.budget),
        }
        .into()
    }

    /// Adds to the session's row of the account, all rows of which are locked, and makes the allotments anew.
    fn write(
        &self,
        catalog: &Catalog,
        rows: &[AccountRow],
        limit: Limit,
        charged: Charged,
        judged_at: Option<i64>,
    ) -> Result<()> {
        let mut used: Vec<Amount> = collect(rows.iter().map(|row| row.share.used()))?;
        let mut spent: Vec<Amount> = collect(rows.iter().map(|row| row.share.spent))?;
        if let Some(own) = rows.iter().position(|row| row.shard == self.shard) {
            used[own] += charged.spent + charged.held;
            spent[own] += charged.spent;
        }
        let shards = rows
            .iter()
            .filter(|row| row.shard < self.budget.shards)
            .count();
        let quiet = limit
            .limit
            .and_then(|most| quiet(most, limit.soft_limit, &spent));
        let quiet = |n: usize| quiet.as_ref().and_then(|parts| parts.get(n).copied());
        let allotted = match limit.limit {
            Some(limit) => try_collect(
                allot(limit, &used, shards)
                    .into_iter()
                    .map(|it| Ok::<_, crate::error::Error>(Some(it))),
            )?,
            None => vec![None; rows.len()],
        };
        for (n, (row, allotted)) in rows.iter().zip(allotted).enumerate() {
            let is_own = row.shard == self.shard;
            let is_same = allotted.unwrap_or_default() == row.share.allotted
                && quiet(n) == row.quiet
                && row.revision == self.budget.revision
                && judged_at.is_none();
            if is_own || !is_same {
                let new = NewShare {
                    allotted,
                    charged: if is_own { charged } else { Charged::default() },
                    revision: self.budget.revision,
                    judged_at,
                    quiet: quiet(n),
                };
                budgets::set_share(catalog, &self.account, row.shard, &new)?;
            }
        }
        Ok(())
    }

    /// Charges a cost, whatever is left, and tells of what is reached by it.
    ///
    /// The quick attempt reaches nothing. Who may reach something has all rows locked, and what they say together is
    /// exact then: of charges made at once the one by which a level is reached tells.
    pub fn charge(&self, catalog: &Catalog, charged: &Charged) -> Result<()> {
        let alone = self.is_alone();
        if charge_alone(catalog, &self.account, self.shard, charged, alone)? {
            return Ok(());
        }
        let (rows, limit) = self.lock_all(catalog)?;
        self.write(catalog, &rows, limit, *charged, None)?;
        let before = rows.iter().map(|row| row.share.spent).sum();
        match self.watched(limit) {
            Some(watched) => told::after_charge(catalog, &watched, before, charged.spent),
            None => Ok(()),
        }
    }

    /// Makes the allotments anew after a redefinition. The rows are locked by it until the transaction ends.
    pub fn allot_again(&self, catalog: &Catalog) -> Result<()> {
        let rows = budgets::lock_account(catalog, &self.account, None)?;
        self.write(catalog, &rows, self.limit, Charged::default(), None)?;
        match self.watched(self.limit) {
            Some(watched) => told::after_redefinition(catalog, &watched),
            None => Ok(()),
        }
    }
}

fn held(amount: Amount) -> Charged {
    Charged {
        held: amount,
        ..Charged::default()
    }
}
