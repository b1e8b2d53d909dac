//! The counters of accounts, and which levels they have reached.

use super::records::{Account, Charged};
use super::{
    Seen, amount, amount_at, is_there, long, money_of, name, nothing, number, optional_amount,
    rows, run, statements, time,
};
use crate::call::{bigint_datum, integer_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use pgrx::pg_sys::{self, Datum, Oid};
use state_cache_budget::{Amount, Share};
use state_cache_memory::{collect, try_collect};
use std::ops::RangeInclusive;

/// Which rows are those of an account, of the parameters that [`of`] gives.
macro_rules! in_account {
    () => {
        "budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 AND period OPERATOR(pg_catalog.=) $3"
    };
}

/// An account, as parameters 1 to 3 of a statement.
fn of(account: &Account<'_>) -> [(Oid, Option<Datum>); 3] {
    [
        name(account.budget),
        name(account.agent),
        time(account.period),
    ]
}

/// Holds an amount in one row of an account if its allotment has room, under this revision; what the row has left
/// then. The inner `None` is a row without limit.
pub fn grant(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    asked: Amount,
    revision: i64,
) -> Result<Option<Option<Amount>>> {
    if let Some(granted) = rows::grant(catalog, account, shard, asked, revision) {
        return Ok(granted);
    }
    run(
        catalog,
        &statements(catalog).grant,
        concat!(
            "UPDATE @extschema@.state_budget_account SET held = held OPERATOR(pg_catalog.+) $5 WHERE ",
            in_account!(),
            " AND shard OPERATOR(pg_catalog.=) $4 \
         AND revision OPERATOR(pg_catalog.=) $6 AND (allotted IS NULL OR \
         allotted OPERATOR(pg_catalog.-) spent OPERATOR(pg_catalog.-) held OPERATOR(pg_catalog.>=) $5) \
         RETURNING allotted OPERATOR(pg_catalog.-) spent OPERATOR(pg_catalog.-) held"
        ),
        Seen::Now,
        || {
            let [budget, agent, period] = of(account);
            [
                budget,
                agent,
                period,
                number(shard),
                amount(asked),
                long(revision),
            ]
        },
        |rows| rows.first().map(|row| money_of(&row, 1)).transpose(),
    )
}

/// Whether an account has a row of this number.
pub fn has_account(catalog: &Catalog, account: &Account<'_>, shard: i32) -> Result<bool> {
    run(
        catalog,
        &statements(catalog).has_account,
        concat!(
            "SELECT FROM @extschema@.state_budget_account WHERE ",
            in_account!(),
            " AND shard OPERATOR(pg_catalog.=) $4"
        ),
        Seen::Now,
        || {
            let [budget, agent, period] = of(account);
            [budget, agent, period, number(shard)]
        },
        is_there,
    )
}

/// Adds the rows of these numbers to an account that are missing, in their order.
pub fn add_account(
    catalog: &Catalog,
    account: &Account<'_>,
    rows: &RangeInclusive<i32>,
    allotted: Option<Amount>,
    revision: i64,
) -> Result<()> {
    run(
        catalog,
        &statements(catalog).add_account,
        "INSERT INTO @extschema@.state_budget_account (budget, agent, period, shard, allotted, revision) \
         SELECT $1, $2, $3, n, $6, $7 FROM pg_catalog.generate_series($4, $5) n ORDER BY n ON CONFLICT DO NOTHING",
        Seen::Now,
        || {
            let [budget, agent, period] = of(account);
            [
                budget,
                agent,
                period,
                number(*rows.start()),
                number(*rows.end()),
                optional_amount(allotted),
                long(revision),
            ]
        },
        nothing,
    )
}

/// One row of an account.
#[derive(Debug, Clone, Copy)]
pub struct AccountRow {
    /// Its number.
    pub shard: i32,
    /// Its counters; without a limit, an allotment of 0.
    pub share: Share,
    /// The revision of the budget that it was allotted under.
    pub revision: i64,
    /// Up to when holds were judged to have expired.
    pub judged_at: i64,
    /// Below which what it has spent reaches nothing that is told.
    pub quiet: Option<Amount>,
}

/// Locks all rows of an account, or one of them, in their order.
pub fn lock_account(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: Option<i32>,
) -> Result<Vec<AccountRow>> {
    run(
        catalog,
        &statements(catalog).lock_account,
        concat!(
            "SELECT shard::pg_catalog.int8, allotted, spent, held, revision, judged_at, quiet \
         FROM @extschema@.state_budget_account WHERE ",
            in_account!(),
            " AND ($4 IS NULL OR shard OPERATOR(pg_catalog.=) $4) \
         ORDER BY shard FOR NO KEY UPDATE"
        ),
        Seen::Now,
        || {
            let [budget, agent, period] = of(account);
            [
                budget,
                agent,
                period,
                (pg_sys::INT4OID, shard.map(integer_datum)),
            ]
        },
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(AccountRow {
                    shard: row.bigint(1) as i32,
                    share: Share {
                        allotted: amount_at(&row, 2)?,
                        spent: amount_at(&row, 3)?,
                        held: amount_at(&row, 4)?,
                    },
                    revision: row.bigint(5),
                    judged_at: row.column(6).map_or(i64::MIN, |at| at.value() as i64),
                    quiet: money_of(&row, 7)?,
                })
            }))
        },
    )
}

/// What becomes of one row of an account that is locked.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewShare {
    /// Its allotment; `None` without a limit.
    pub allotted: Option<Amount>,
    /// What is charged.
    pub charged: Charged,
    /// The revision that the allotment is made under.
    pub revision: i64,
    /// Up to when holds were judged to have expired, if they were.
    pub judged_at: Option<i64>,
    /// Below which what it has spent reaches nothing that is told; `None`: nothing can be reached.
    pub quiet: Option<Amount>,
}

impl Charged {
    fn parameters(&self) -> [(Oid, Option<Datum>); 5] {
        let (expected, actual) = self.compared.unwrap_or_default();
        [
            amount(self.spent),
            amount(self.held),
            amount(expected),
            amount(actual),
            long(if self.compared.is_some() {
                self.count
            } else {
                0
            }),
        ]
    }
}

/// Writes one row of an account that is locked.
pub fn set_share(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    new: &NewShare,
) -> Result<()> {
    run(
        catalog,
        &statements(catalog).set_share,
        concat!(
            "UPDATE @extschema@.state_budget_account SET spent = spent OPERATOR(pg_catalog.+) $5, \
         held = held OPERATOR(pg_catalog.+) $6, expected = expected OPERATOR(pg_catalog.+) $7, \
         actual = actual OPERATOR(pg_catalog.+) $8, compared = compared OPERATOR(pg_catalog.+) $9, \
         allotted = $10, revision = $11, judged_at = COALESCE($12, judged_at), quiet = $13 WHERE ",
            in_account!(),
            " AND shard OPERATOR(pg_catalog.=) $4"
        ),
        Seen::Now,
        || {
            let [spent, held, expected, actual, count] = new.charged.parameters();
            let [budget, agent, period] = of(account);
            [
                budget,
                agent,
                period,
                number(shard),
                spent,
                held,
                expected,
                actual,
                count,
                optional_amount(new.allotted),
                long(new.revision),
                (pg_sys::TIMESTAMPTZOID, new.judged_at.map(bigint_datum)),
                optional_amount(new.quiet),
            ]
        },
        nothing,
    )
}

/// Charges one row of an account without a look at the others, where that takes no money from them (the account has
/// no limit or one row (`alone`), or the row gives away no more than before, or has room for it), and reaches nothing
/// that is told. Whether it was so; if not, nothing is charged.
///
/// What the row itself says decides, whatever definition the caller knows: who redefines writes the rows anew.
pub fn charge(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    charged: &Charged,
    alone: bool,
) -> Result<bool> {
    if let Some(is_charged) = rows::charge(catalog, account, shard, charged, alone) {
        return Ok(is_charged);
    }
    run(
        catalog,
        &statements(catalog).charge,
        concat!(
            "UPDATE @extschema@.state_budget_account SET spent = spent OPERATOR(pg_catalog.+) $5, \
         held = held OPERATOR(pg_catalog.+) $6, expected = expected OPERATOR(pg_catalog.+) $7, \
         actual = actual OPERATOR(pg_catalog.+) $8, compared = compared OPERATOR(pg_catalog.+) $9 WHERE ",
            in_account!(),
            " AND shard OPERATOR(pg_catalog.=) $4 \
         AND (quiet IS NULL OR spent OPERATOR(pg_catalog.+) $5 OPERATOR(pg_catalog.<) quiet \
         OR $5 OPERATOR(pg_catalog.=) 0) \
         AND ($10 OR allotted IS NULL OR $5 OPERATOR(pg_catalog.+) $6 OPERATOR(pg_catalog.<=) 0 \
         OR spent OPERATOR(pg_catalog.+) held OPERATOR(pg_catalog.+) $5 OPERATOR(pg_catalog.+) $6 \
         OPERATOR(pg_catalog.<=) allotted) RETURNING true"
        ),
        Seen::Now,
        || {
            let [spent, held, expected, actual, count] = charged.parameters();
            let [budget, agent, period] = of(account);
            [
                budget,
                agent,
                period,
                number(shard),
                spent,
                held,
                expected,
                actual,
                count,
                (pg_sys::BOOLOID, Some(Datum::from(usize::from(alone)))),
            ]
        },
        is_there,
    )
}

/// Gives back what is held in one row of an account.
pub fn release(catalog: &Catalog, account: &Account<'_>, shard: i32, held: Amount) -> Result<()> {
    run(
        catalog,
        &statements(catalog).release,
        concat!(
            "UPDATE @extschema@.state_budget_account SET held = held OPERATOR(pg_catalog.-) $5 WHERE ",
            in_account!(),
            " AND shard OPERATOR(pg_catalog.=) $4"
        ),
        Seen::Now,
        || {
            let [budget, agent, period] = of(account);
            [budget, agent, period, number(shard), amount(held)]
        },
        nothing,
    )
}

/// What all rows of an account have spent, and hold.
pub fn spent(catalog: &Catalog, account: &Account<'_>) -> Result<(Amount, Amount)> {
    run(
        catalog,
        &statements(catalog).spent,
        concat!(
            "SELECT pg_catalog.sum(spent), pg_catalog.sum(held) FROM @extschema@.state_budget_account WHERE ",
            in_account!()
        ),
        Seen::Now,
        || of(account),
        |rows| match rows.first() {
            Some(row) => Ok((amount_at(&row, 1)?, amount_at(&row, 2)?)),
            None => Ok(Default::default()),
        },
    )
}

/// The accounts that a budget has, in the order in which they are locked: by agent, the budget as a whole last.
pub fn accounts(catalog: &Catalog, budget: &[u8]) -> Result<Vec<(Box<[u8]>, i64)>> {
    run(
        catalog,
        &statements(catalog).accounts,
        "SELECT agent, period FROM @extschema@.state_budget_account WHERE budget OPERATOR(pg_catalog.=) $1 \
         GROUP BY agent, period ORDER BY agent OPERATOR(pg_catalog.=) '', agent, period",
        Seen::Now,
        || [name(budget)],
        |rows| {
            Ok(collect(
                rows.iter().map(|row| (row.text(1), row.bigint(2))),
            )?)
        },
    )
}

/// Notes that a level is reached in an account; whether it was not before.
pub fn reach(catalog: &Catalog, account: &Account<'_>, level: &str) -> Result<bool> {
    run(
        catalog,
        &statements(catalog).reached,
        "INSERT INTO @extschema@.state_budget_reached (budget, agent, period, level) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING RETURNING true",
        Seen::Now,
        || {
            let [budget, agent, period] = of(account);
            [budget, agent, period, name(level.as_bytes())]
        },
        is_there,
    )
}

/// Forgets that a level was reached: its limit was raised above what is spent.
pub fn forget_reached(catalog: &Catalog, account: &Account<'_>, level: &str) -> Result<()> {
    run(
        catalog,
        &statements(catalog).forget_reached,
        concat!(
            "DELETE FROM @extschema@.state_budget_reached WHERE ",
            in_account!(),
            " AND level OPERATOR(pg_catalog.=) $4"
        ),
        Seen::Now,
        || {
            let [budget, agent, period] = of(account);
            [budget, agent, period, name(level.as_bytes())]
        },
        nothing,
    )
}

/// The levels that are reached in a budget as a whole.
pub fn levels(catalog: &Catalog, budget: &[u8], period: i64) -> Result<Vec<Box<[u8]>>> {
    run(
        catalog,
        &statements(catalog).levels,
        "SELECT level FROM @extschema@.state_budget_reached WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.=) '' AND period OPERATOR(pg_catalog.=) $2 ORDER BY reached_at, level",
        Seen::BySnapshot,
        || [name(budget), time(period)],
        |rows| Ok(collect(rows.iter().map(|row| row.text(1)))?),
    )
}

/// What the accounts of a budget add up to.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// The agent; empty: the budget as a whole.
    pub agent: Box<[u8]>,
    /// Spent in the period.
    pub spent: Amount,
    /// Held in the period, expired holds included.
    pub held: Amount,
    /// Of costs compared, in all periods: what was expected.
    pub expected: Amount,
    /// What it was.
    pub actual: Amount,
    /// How many.
    pub compared: i64,
    /// Whether anything was spent in any period.
    pub has_spent: bool,
}

/// What the accounts of a budget add up to, under the active snapshot.
pub fn totals(catalog: &Catalog, budget: &[u8], period: i64) -> Result<Vec<Totals>> {
    run(
        catalog,
        &statements(catalog).summary_accounts,
        "SELECT agent, pg_catalog.sum(spent) FILTER (WHERE period OPERATOR(pg_catalog.=) $2), \
         pg_catalog.sum(held) FILTER (WHERE period OPERATOR(pg_catalog.=) $2), pg_catalog.sum(expected), \
         pg_catalog.sum(actual), pg_catalog.sum(compared)::pg_catalog.int8, \
         pg_catalog.bool_or(spent OPERATOR(pg_catalog.>) 0) FROM @extschema@.state_budget_account \
         WHERE budget OPERATOR(pg_catalog.=) $1 GROUP BY agent ORDER BY agent",
        Seen::BySnapshot,
        || [name(budget), time(period)],
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(Totals {
                    agent: row.text(1),
                    spent: amount_at(&row, 2)?,
                    held: amount_at(&row, 3)?,
                    expected: amount_at(&row, 4)?,
                    actual: amount_at(&row, 5)?,
                    compared: row.bigint(6),
                    has_spent: row.boolean(7),
                })
            }))
        },
    )
}
