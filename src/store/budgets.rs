//! The tables of budgets. Statements that change or lock run as the caller, but where it says otherwise.

use super::own_write::OwnWrite;
use super::spi::{Connection, Row, Rows, Statement};
use crate::call::{bigint_datum, integer_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::money;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys::{self, Datum, Oid};
use state_cache_budget::{Amount, Share};
use state_cache_memory::{collect, try_collect};

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    budget: [OnceCell<Statement>; 2],
    agent: [OnceCell<Statement>; 2],
    put_budget: OnceCell<Statement>,
    put_agent: OnceCell<Statement>,
    retire_agents: OnceCell<Statement>,
    forget_prices: OnceCell<Statement>,
    children: OnceCell<Statement>,
    lock_definition: [OnceCell<Statement>; 2],
    grant: OnceCell<Statement>,
    has_account: OnceCell<Statement>,
    add_account: OnceCell<Statement>,
    lock_account: OnceCell<Statement>,
    set_share: OnceCell<Statement>,
    charge: OnceCell<Statement>,
    release: OnceCell<Statement>,
    spent: OnceCell<Statement>,
    accounts: OnceCell<Statement>,
    insert_hold: OnceCell<Statement>,
    finish_hold: OnceCell<Statement>,
    hold: OnceCell<Statement>,
    lock_hold: OnceCell<Statement>,
    settle_hold: OnceCell<Statement>,
    void_hold: OnceCell<Statement>,
    extend_hold: OnceCell<Statement>,
    expired: [OnceCell<Statement>; 2],
    learn: OnceCell<Statement>,
    recent: [OnceCell<Statement>; 2],
    reached: OnceCell<Statement>,
    forget_reached: OnceCell<Statement>,
    levels: OnceCell<Statement>,
    summary_accounts: OnceCell<Statement>,
    summary_agents: OnceCell<Statement>,
    open_holds: OnceCell<Statement>,
    lock_expired_holds: OnceCell<Statement>,
    expire_hold: OnceCell<Statement>,
    next_end: OnceCell<Statement>,
    is_held: OnceCell<Statement>,
    insert_cost: OnceCell<Statement>,
    cost: OnceCell<Statement>,
    spent_since: OnceCell<Statement>,
    old_holds: OnceCell<Statement>,
    miscounted: OnceCell<Statement>,
    count_again: OnceCell<Statement>,
    hand_up: OnceCell<Statement>,
    drop: [OnceCell<Statement>; 7],
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Which rows a statement that reads goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Those that the active snapshot sees.
    BySnapshot,
    /// Those that a statement of the caller's would see now.
    Now,
}

/// Runs a statement; what `read` makes of its rows.
fn run<T, const N: usize>(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: &str,
    seen: Seen,
    parameters: impl FnOnce() -> [(Oid, Option<Datum>); N],
    read: impl FnOnce(&Rows) -> Result<T>,
) -> Result<T> {
    let connection = Connection::open()?;
    // Made once SPI is connected, and freed with the connection.
    let parameters = parameters();
    let types = parameters.map(|(of_type, _)| of_type);
    let statement = connection.prepare(slot, &catalog.schema, || sql.to_owned(), &types)?;
    let arguments = parameters.map(|(_, value)| value);
    let rows = match seen {
        Seen::BySnapshot => connection.query(statement, arguments)?,
        Seen::Now => {
            let _own = OwnWrite::begin();
            connection.modify(statement, arguments)?
        }
    };
    read(&rows)
}

fn is_there(rows: &Rows) -> Result<bool> {
    Ok(rows.first().is_some())
}

fn nothing(_: &Rows) -> Result<()> {
    Ok(())
}

fn name(name: &[u8]) -> (Oid, Option<Datum>) {
    (pg_sys::TEXTOID, Some(varlena_datum(name)))
}

fn optional_name(name: Option<&[u8]>) -> (Oid, Option<Datum>) {
    (pg_sys::TEXTOID, name.map(varlena_datum))
}

fn amount(amount: Amount) -> (Oid, Option<Datum>) {
    (pg_sys::NUMERICOID, Some(money::datum(amount)))
}

fn optional_amount(amount: Option<Amount>) -> (Oid, Option<Datum>) {
    (pg_sys::NUMERICOID, amount.map(money::datum))
}

fn time(at: i64) -> (Oid, Option<Datum>) {
    (pg_sys::TIMESTAMPTZOID, Some(bigint_datum(at)))
}

fn number(number: i32) -> (Oid, Option<Datum>) {
    (pg_sys::INT4OID, Some(integer_datum(number)))
}

fn long(number: i64) -> (Oid, Option<Datum>) {
    (pg_sys::INT8OID, Some(bigint_datum(number)))
}

fn interval(interval: Option<&pg_sys::Interval>) -> (Oid, Option<Datum>) {
    let datum = interval.map(|interval| Datum::from(std::ptr::from_ref(interval)));
    (pg_sys::INTERVALOID, datum)
}

fn jsonb(document: Option<&[u8]>) -> (Oid, Option<Datum>) {
    (pg_sys::JSONBOID, document.map(varlena_datum))
}

/// An array of values of a type.
fn array(of: Oid, array_of: Oid, values: &mut [Datum]) -> (Oid, Option<Datum>) {
    let (length, by_value, alignment) = match of {
        pg_sys::TEXTOID => (-1, false, pg_sys::TYPALIGN_INT),
        pg_sys::INT4OID => (4, true, pg_sys::TYPALIGN_INT),
        _ => (8, true, pg_sys::TYPALIGN_DOUBLE),
    };
    // SAFETY: as many values of the type as said, laid out as its catalog row says.
    let array = unsafe {
        pg_sys::construct_array(
            values.as_mut_ptr(),
            values.len() as i32,
            of,
            length,
            by_value,
            alignment as std::ffi::c_char,
        )
    };
    (array_of, Some(Datum::from(array)))
}

fn names<'a>(names: impl Iterator<Item = &'a [u8]>) -> (Oid, Option<Datum>) {
    let mut values: Vec<Datum> = names.map(varlena_datum).collect();
    array(pg_sys::TEXTOID, pg_sys::TEXTARRAYOID, &mut values)
}

fn times(times: impl Iterator<Item = i64>) -> (Oid, Option<Datum>) {
    let mut values: Vec<Datum> = times.map(bigint_datum).collect();
    array(
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZARRAYOID,
        &mut values,
    )
}

fn numbers(numbers: impl Iterator<Item = i32>) -> (Oid, Option<Datum>) {
    let mut values: Vec<Datum> = numbers.map(integer_datum).collect();
    array(pg_sys::INT4OID, pg_sys::INT4ARRAYOID, &mut values)
}

/// A `numeric` column, `None` for NULL.
fn money_of(row: &Row<'_>, n: i32) -> Result<Option<Amount>> {
    let Some(numeric) = row.column(n) else {
        return Ok(None);
    };
    // The constraints of the tables forbid what is none.
    money::amount_of(numeric)
        .map(Some)
        .map_err(|error| Error::Internal {
            message: format!("a stored amount {error}"),
        })
}

fn amount_at(row: &Row<'_>, n: i32) -> Result<Amount> {
    Ok(money_of(row, n)?.unwrap_or_default())
}

fn text_at(row: &Row<'_>, n: i32) -> Option<Box<[u8]>> {
    row.column(n).map(|_| row.text(n))
}

/// An `interval` column.
fn interval_at(row: &Row<'_>, n: i32) -> Option<pg_sys::Interval> {
    let interval = row.column(n)?.cast_mut_ptr::<pg_sys::Interval>();
    // SAFETY: the statement gives an interval there, which is passed by pointer and copied while the row lives.
    Some(unsafe { *interval })
}

/// What is defined of a budget.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Its name.
    pub name: Box<[u8]>,
    /// What may be spent.
    pub total: Amount,
    /// What amounts are counted in.
    pub currency: Box<[u8]>,
    /// The budget above.
    pub parent: Option<Box<[u8]>>,
    /// How long counters count.
    pub period: Option<pg_sys::Interval>,
    /// From which on spending is told.
    pub soft_limit: Option<Amount>,
    /// Among how many rows counters are distributed.
    pub shards: i32,
    /// Counts what was redefined beside limits.
    pub revision: i64,
    /// Whether there are holds, of any budget, whose time is over and that the counters still count.
    pub has_expired: bool,
}

/// A budget.
pub fn budget(catalog: &Catalog, budget: &[u8], seen: Seen) -> Result<Option<Budget>> {
    run(
        catalog,
        &statements(catalog).budget[seen as usize],
        "SELECT total, currency, parent, period, soft_limit, shards::pg_catalog.int8, revision, EXISTS (SELECT FROM \
         @extschema@.state_budget_hold h WHERE h.status OPERATOR(pg_catalog.=) 'held' AND h.expires_at \
         OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()) \
         FROM @extschema@.state_budget WHERE budget OPERATOR(pg_catalog.=) $1",
        seen,
        || [name(budget)],
        |rows| {
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Budget {
                name: budget.into(),
                total: amount_at(&row, 1)?,
                currency: row.text(2),
                parent: text_at(&row, 3),
                period: interval_at(&row, 4),
                soft_limit: money_of(&row, 5)?,
                shards: row.bigint(6) as i32,
                revision: row.bigint(7),
                has_expired: row.boolean(8),
            }))
        },
    )
}

/// What is defined of an agent, and what was learned.
#[derive(Debug, Clone, Copy)]
pub struct Agent {
    /// What it may spend.
    pub limit: Option<Amount>,
    /// What one of its calls is expected to cost.
    pub price: Option<Amount>,
}

/// An agent of a budget.
pub fn agent(catalog: &Catalog, budget: &[u8], agent: &[u8], seen: Seen) -> Result<Option<Agent>> {
    run(
        catalog,
        &statements(catalog).agent[seen as usize],
        "SELECT a.spending_limit, COALESCE((SELECT p.price FROM @extschema@.state_budget_price p \
         WHERE p.budget OPERATOR(pg_catalog.=) $1 AND p.agent OPERATOR(pg_catalog.=) $2 \
         ORDER BY p.learned_at DESC, p.shard LIMIT 1), a.price) FROM @extschema@.state_budget_agent a \
         WHERE a.budget OPERATOR(pg_catalog.=) $1 AND a.agent OPERATOR(pg_catalog.=) $2",
        seen,
        || [name(budget), name(agent)],
        |rows| {
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Agent {
                limit: money_of(&row, 1)?,
                price: money_of(&row, 2)?,
            }))
        },
    )
}

/// Writes the definition of a budget.
pub fn put_budget(catalog: &Catalog, budget: &Budget) -> Result<()> {
    run(
        catalog,
        &statements(catalog).put_budget,
        "INSERT INTO @extschema@.state_budget \
         (budget, total, currency, parent, period, soft_limit, shards, revision) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (budget) DO UPDATE SET total = excluded.total, \
         currency = excluded.currency, parent = excluded.parent, period = excluded.period, \
         soft_limit = excluded.soft_limit, shards = excluded.shards, revision = excluded.revision",
        Seen::Now,
        || {
            [
                name(&budget.name),
                amount(budget.total),
                name(&budget.currency),
                optional_name(budget.parent.as_deref()),
                interval(budget.period.as_ref()),
                optional_amount(budget.soft_limit),
                number(budget.shards),
                long(budget.revision),
            ]
        },
        nothing,
    )
}

/// Writes the definition of an agent, whose price was named or not.
pub fn put_agent(catalog: &Catalog, budget: &[u8], agent: &[u8], terms: Agent) -> Result<()> {
    run(
        catalog,
        &statements(catalog).put_agent,
        "INSERT INTO @extschema@.state_budget_agent AS a (budget, agent, spending_limit, price) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (budget, agent) DO UPDATE SET spending_limit = excluded.spending_limit, \
         price = COALESCE(excluded.price, a.price)",
        Seen::Now,
        || {
            [
                name(budget),
                name(agent),
                optional_amount(terms.limit),
                optional_amount(terms.price),
            ]
        },
        nothing,
    )
}

/// Takes the agents out of a budget that are not among these.
pub fn retire_agents(catalog: &Catalog, budget: &[u8], kept: &[Box<[u8]>]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).retire_agents,
        "DELETE FROM @extschema@.state_budget_agent WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.<>) ALL ($2)",
        Seen::Now,
        || [name(budget), names(kept.iter().map(|it| &**it))],
        nothing,
    )
}

/// Forgets what was learned of the prices of these agents.
pub fn forget_prices(catalog: &Catalog, budget: &[u8], agents: &[Box<[u8]>]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).forget_prices,
        "DELETE FROM @extschema@.state_budget_price WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.=) ANY ($2)",
        Seen::Now,
        || [name(budget), names(agents.iter().map(|it| &**it))],
        nothing,
    )
}

/// The budgets right below one.
pub fn budgets_below(catalog: &Catalog, budget: &[u8]) -> Result<Vec<Box<[u8]>>> {
    run(
        catalog,
        &statements(catalog).children,
        "SELECT budget FROM @extschema@.state_budget WHERE parent OPERATOR(pg_catalog.=) $1 ORDER BY budget",
        Seen::Now,
        || [name(budget)],
        |rows| Ok(collect(rows.iter().map(|row| row.text(1)))?),
    )
}

/// Keeps a budget from being redefined until the transaction ends. To be called as the owner of the table: reserving
/// needs no privilege to redefine.
pub fn lock_definition(catalog: &Catalog, budget: &[u8]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).lock_definition[0],
        "SELECT FROM @extschema@.state_budget WHERE budget OPERATOR(pg_catalog.=) $1 FOR KEY SHARE",
        Seen::Now,
        || [name(budget)],
        nothing,
    )
}

/// Keeps others from adding rows to the accounts of a budget until the transaction ends.
pub fn lock_to_redefine(catalog: &Catalog, budget: &[u8]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).lock_definition[1],
        "SELECT FROM @extschema@.state_budget WHERE budget OPERATOR(pg_catalog.=) $1 FOR UPDATE",
        Seen::Now,
        || [name(budget)],
        nothing,
    )
}

/// Names one account: a budget, or an agent of it (else empty), in a period.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// The budget.
    pub budget: &'a [u8],
    /// The agent; empty: the budget as a whole.
    pub agent: &'a [u8],
    /// When the period began.
    pub period: i64,
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
    run(
        catalog,
        &statements(catalog).grant,
        "UPDATE @extschema@.state_budget_account SET held = held OPERATOR(pg_catalog.+) $5 \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3 AND shard OPERATOR(pg_catalog.=) $4 \
         AND revision OPERATOR(pg_catalog.=) $6 AND (allotted IS NULL OR \
         allotted OPERATOR(pg_catalog.-) spent OPERATOR(pg_catalog.-) held OPERATOR(pg_catalog.>=) $5) \
         RETURNING allotted OPERATOR(pg_catalog.-) spent OPERATOR(pg_catalog.-) held",
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
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
        "SELECT FROM @extschema@.state_budget_account WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.=) $2 AND period OPERATOR(pg_catalog.=) $3 \
         AND shard OPERATOR(pg_catalog.=) $4",
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                number(shard),
            ]
        },
        is_there,
    )
}

/// Adds a row to an account, if there is none.
pub fn add_account(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    allotted: Option<Amount>,
    revision: i64,
) -> Result<()> {
    run(
        catalog,
        &statements(catalog).add_account,
        "INSERT INTO @extschema@.state_budget_account (budget, agent, period, shard, allotted, revision) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                number(shard),
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
        "SELECT shard::pg_catalog.int8, allotted, spent, held, revision, judged_at \
         FROM @extschema@.state_budget_account \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3 AND ($4 IS NULL OR shard OPERATOR(pg_catalog.=) $4) \
         ORDER BY shard FOR NO KEY UPDATE",
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
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
}

/// What is added to the counters of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Charged {
    /// To what is spent.
    pub spent: Amount,
    /// To what is held; below 0 it is released.
    pub held: Amount,
    /// What of it was expected, and was what, if both are known.
    pub compared: Option<(Amount, Amount)>,
    /// How many costs were compared.
    pub count: i64,
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
        "UPDATE @extschema@.state_budget_account SET spent = spent OPERATOR(pg_catalog.+) $5, \
         held = held OPERATOR(pg_catalog.+) $6, expected = expected OPERATOR(pg_catalog.+) $7, \
         actual = actual OPERATOR(pg_catalog.+) $8, compared = compared OPERATOR(pg_catalog.+) $9, \
         allotted = $10, revision = $11, judged_at = COALESCE($12, judged_at) \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3 AND shard OPERATOR(pg_catalog.=) $4",
        Seen::Now,
        || {
            let [spent, held, expected, actual, count] = new.charged.parameters();
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                number(shard),
                spent,
                held,
                expected,
                actual,
                count,
                optional_amount(new.allotted),
                long(new.revision),
                (pg_sys::TIMESTAMPTZOID, new.judged_at.map(bigint_datum)),
            ]
        },
        nothing,
    )
}

/// Charges one row of an account without a look at the others, where that takes no money from them: the account has
/// no limit or one row (`alone`), or the row gives away no more than before, or has room for it. What the row has
/// spent then; `None` where it is not so.
pub fn charge(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    charged: &Charged,
    alone: bool,
    revision: i64,
) -> Result<Option<Amount>> {
    run(
        catalog,
        &statements(catalog).charge,
        "UPDATE @extschema@.state_budget_account SET spent = spent OPERATOR(pg_catalog.+) $5, \
         held = held OPERATOR(pg_catalog.+) $6, expected = expected OPERATOR(pg_catalog.+) $7, \
         actual = actual OPERATOR(pg_catalog.+) $8, compared = compared OPERATOR(pg_catalog.+) $9 \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3 AND shard OPERATOR(pg_catalog.=) $4 \
         AND revision OPERATOR(pg_catalog.=) $11 \
         AND ($10 OR allotted IS NULL OR $5 OPERATOR(pg_catalog.+) $6 OPERATOR(pg_catalog.<=) 0 \
         OR spent OPERATOR(pg_catalog.+) held OPERATOR(pg_catalog.+) $5 OPERATOR(pg_catalog.+) $6 \
         OPERATOR(pg_catalog.<=) allotted) RETURNING spent",
        Seen::Now,
        || {
            let [spent, held, expected, actual, count] = charged.parameters();
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                number(shard),
                spent,
                held,
                expected,
                actual,
                count,
                (pg_sys::BOOLOID, Some(Datum::from(usize::from(alone)))),
                long(revision),
            ]
        },
        |rows| rows.first().map(|row| amount_at(&row, 1)).transpose(),
    )
}

/// Gives back what is held in one row of an account.
pub fn release(catalog: &Catalog, account: &Account<'_>, shard: i32, held: Amount) -> Result<()> {
    run(
        catalog,
        &statements(catalog).release,
        "UPDATE @extschema@.state_budget_account SET held = held OPERATOR(pg_catalog.-) $5 \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3 AND shard OPERATOR(pg_catalog.=) $4",
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                number(shard),
                amount(held),
            ]
        },
        nothing,
    )
}

/// What all rows of an account have spent, and hold.
pub fn spent(catalog: &Catalog, account: &Account<'_>) -> Result<(Amount, Amount)> {
    run(
        catalog,
        &statements(catalog).spent,
        "SELECT pg_catalog.sum(spent), pg_catalog.sum(held) FROM @extschema@.state_budget_account \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3",
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
            ]
        },
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

/// Where a hold or a cost is counted, in one budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The budget.
    pub budget: Box<[u8]>,
    /// When the period began.
    pub period: i64,
    /// In which shard.
    pub shard: i32,
}

/// A hold.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Its name.
    pub id: Box<[u8]>,
    /// The agent.
    pub agent: Option<Box<[u8]>>,
    /// What is held.
    pub amount: Amount,
    /// What was asked for, `None` for the price.
    pub asked: Option<Amount>,
    /// How long it was to be held.
    pub ttl: pg_sys::Interval,
    /// Who holds it.
    pub owner: Option<Box<[u8]>>,
    /// What was left after it.
    pub remaining: Amount,
    /// Where it is counted, from its own budget up to the root.
    pub scopes: Vec<Scope>,
    /// `held`, `settled`, `voided` or `expired`.
    pub status: Box<[u8]>,
    /// When it was made.
    pub made_at: i64,
    /// When it ends.
    pub expires_at: i64,
    /// Whether the counters count it no longer.
    pub is_taken_out: bool,
    /// What it cost.
    pub actual: Option<Amount>,
    /// When it was settled or voided.
    pub resolved_at: i64,
}

const HOLD: &str = "hold_id, agent, amount, asked, ttl, owner, remaining, scopes, periods, shards, status, made_at, \
     expires_at, expired_at IS NOT NULL, actual, resolved_at";

/// The elements of an array of fixed-size values.
fn elements(row: &Row<'_>, n: i32, of: Oid) -> Vec<Datum> {
    let Some(array) = row.column(n) else {
        return Vec::new();
    };
    let length = if of == pg_sys::INT4OID { 4 } else { 8 };
    let alignment = match of {
        pg_sys::INT4OID => pg_sys::TYPALIGN_INT,
        _ => pg_sys::TYPALIGN_DOUBLE,
    };
    let (mut values, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the statement gives an array of that type there; the values are copied while the row lives.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        pg_sys::deconstruct_array(
            array,
            of,
            length,
            true,
            alignment as std::ffi::c_char,
            &mut values,
            std::ptr::null_mut(),
            &mut count,
        );
        match count {
            1.. => std::slice::from_raw_parts(values, count as usize).to_vec(),
            _ => Vec::new(),
        }
    }
}

fn hold_of(row: &Row<'_>) -> Result<Hold> {
    let scopes = match row.column(8) {
        // SAFETY: the statement gives text[] there; its elements are copied while the row lives.
        Some(array) => unsafe { crate::varlena::text_elements(array)? },
        None => Vec::new(),
    };
    let periods = elements(row, 9, pg_sys::TIMESTAMPTZOID);
    let shards = elements(row, 10, pg_sys::INT4OID);
    let scopes = scopes.into_iter().zip(periods).zip(shards);
    let scopes = scopes.map(|((budget, period), shard)| Scope {
        budget: budget.unwrap_or_default().into(),
        period: period.value() as i64,
        shard: shard.value() as i32,
    });
    let ttl = interval_at(row, 5).ok_or_else(|| Error::Internal {
        message: "a hold has no ttl".to_owned(),
    })?;
    Ok(Hold {
        id: row.text(1),
        agent: text_at(row, 2),
        amount: amount_at(row, 3)?,
        asked: money_of(row, 4)?,
        ttl,
        owner: text_at(row, 6),
        remaining: amount_at(row, 7)?,
        scopes: collect(scopes)?,
        status: row.text(11),
        made_at: row.bigint(12),
        expires_at: row.bigint(13),
        is_taken_out: row.boolean(14),
        actual: money_of(row, 15)?,
        resolved_at: row.bigint(16),
    })
}

fn first_hold(rows: &Rows) -> Result<Option<Hold>> {
    rows.first().map(|row| hold_of(&row)).transpose()
}

/// Writes a new hold; whether there was none of its name.
pub fn insert_hold(catalog: &Catalog, hold: &Hold) -> Result<bool> {
    run(
        catalog,
        &statements(catalog).insert_hold,
        "INSERT INTO @extschema@.state_budget_hold (hold_id, budget, agent, amount, asked, ttl, owner, remaining, \
         scopes, periods, shards, made_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (hold_id) DO NOTHING \
         RETURNING true",
        Seen::Now,
        || {
            [
                name(&hold.id),
                optional_name(hold.scopes.first().map(|it| &*it.budget)),
                optional_name(hold.agent.as_deref()),
                amount(hold.amount),
                optional_amount(hold.asked),
                interval(Some(&hold.ttl)),
                optional_name(hold.owner.as_deref()),
                amount(hold.remaining),
                names(hold.scopes.iter().map(|it| &*it.budget)),
                times(hold.scopes.iter().map(|it| it.period)),
                numbers(hold.scopes.iter().map(|it| it.shard)),
                time(hold.made_at),
                time(hold.expires_at),
            ]
        },
        is_there,
    )
}

/// Writes what was left after a hold.
pub fn finish_hold(catalog: &Catalog, id: &[u8], remaining: Amount) -> Result<()> {
    run(
        catalog,
        &statements(catalog).finish_hold,
        "UPDATE @extschema@.state_budget_hold SET remaining = $2 WHERE hold_id OPERATOR(pg_catalog.=) $1",
        Seen::Now,
        || [name(id), amount(remaining)],
        nothing,
    )
}

/// A hold.
pub fn hold(catalog: &Catalog, id: &[u8]) -> Result<Option<Hold>> {
    run(
        catalog,
        &statements(catalog).hold,
        &format!(
            "SELECT {HOLD} FROM @extschema@.state_budget_hold WHERE hold_id OPERATOR(pg_catalog.=) $1"
        ),
        Seen::Now,
        || [name(id)],
        first_hold,
    )
}

/// A hold, locked until the transaction ends.
pub fn lock_hold(catalog: &Catalog, id: &[u8]) -> Result<Option<Hold>> {
    run(
        catalog,
        &statements(catalog).lock_hold,
        &format!(
            "SELECT {HOLD} FROM @extschema@.state_budget_hold WHERE hold_id OPERATOR(pg_catalog.=) $1 \
             FOR NO KEY UPDATE"
        ),
        Seen::Now,
        || [name(id)],
        first_hold,
    )
}

/// Settles a hold that is neither settled nor voided; what it was, with what it is now.
pub fn settle_hold(
    catalog: &Catalog,
    id: &[u8],
    actual: Amount,
    metadata: Option<&[u8]>,
    at: i64,
) -> Result<Option<Hold>> {
    run(
        catalog,
        &statements(catalog).settle_hold,
        &format!(
            "UPDATE @extschema@.state_budget_hold SET status = 'settled', actual = $2, metadata = $3, \
             resolved_at = $4 WHERE hold_id OPERATOR(pg_catalog.=) $1 \
             AND status OPERATOR(pg_catalog.=) ANY (ARRAY['held', 'expired']) RETURNING {HOLD}"
        ),
        Seen::Now,
        || [name(id), amount(actual), jsonb(metadata), time(at)],
        first_hold,
    )
}

/// Voids a hold that is neither settled nor voided.
pub fn void_hold(catalog: &Catalog, id: &[u8], at: i64) -> Result<Option<Hold>> {
    run(
        catalog,
        &statements(catalog).void_hold,
        &format!(
            "UPDATE @extschema@.state_budget_hold SET status = 'voided', resolved_at = $2 \
             WHERE hold_id OPERATOR(pg_catalog.=) $1 \
             AND status OPERATOR(pg_catalog.=) ANY (ARRAY['held', 'expired']) RETURNING {HOLD}"
        ),
        Seen::Now,
        || [name(id), time(at)],
        first_hold,
    )
}

/// Gives a hold that is locked another end.
pub fn extend_hold(catalog: &Catalog, id: &[u8], expires_at: i64) -> Result<()> {
    run(
        catalog,
        &statements(catalog).extend_hold,
        "UPDATE @extschema@.state_budget_hold SET expires_at = $2 WHERE hold_id OPERATOR(pg_catalog.=) $1",
        Seen::Now,
        || [name(id), time(expires_at)],
        nothing,
    )
}

/// What the holds of an account hold whose time is over by then and that the counters still count.
pub fn expired(catalog: &Catalog, account: &Account<'_>, at: i64, seen: Seen) -> Result<Amount> {
    run(
        catalog,
        &statements(catalog).expired[seen as usize],
        "SELECT pg_catalog.sum(amount) FROM @extschema@.state_budget_hold \
         WHERE status OPERATOR(pg_catalog.=) 'held' AND expires_at OPERATOR(pg_catalog.<=) $4 \
         AND $3 OPERATOR(pg_catalog.=) periods[pg_catalog.array_position(scopes, $1)] \
         AND ($2 OPERATOR(pg_catalog.=) '' OR (agent OPERATOR(pg_catalog.=) $2 \
         AND budget OPERATOR(pg_catalog.=) $1))",
        seen,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                time(at),
            ]
        },
        |rows| {
            rows.first()
                .map_or(Ok(Amount::ZERO), |row| amount_at(&row, 1))
        },
    )
}

/// Keeps a price that was learned.
pub fn learn(
    catalog: &Catalog,
    budget: &[u8],
    agent: &[u8],
    shard: i32,
    price: Amount,
    at: i64,
) -> Result<()> {
    run(
        catalog,
        &statements(catalog).learn,
        "INSERT INTO @extschema@.state_budget_price (budget, agent, shard, price, learned_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (budget, agent, shard) DO UPDATE SET price = excluded.price, \
         learned_at = excluded.learned_at",
        Seen::Now,
        || {
            [
                name(budget),
                name(agent),
                number(shard),
                amount(price),
                time(at),
            ]
        },
        nothing,
    )
}

/// One cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// The hold, or the record.
    pub id: Box<[u8]>,
    /// Whose it is.
    pub agent: Option<Box<[u8]>>,
    /// What was expected.
    pub expected: Option<Amount>,
    /// What it was.
    pub actual: Amount,
    /// When it was charged.
    pub at: i64,
}

/// The last costs of a budget, or of one agent of it, the newest first.
pub fn recent_costs(
    catalog: &Catalog,
    budget: &[u8],
    agent: Option<&[u8]>,
    most: i64,
    seen: Seen,
) -> Result<Vec<Cost>> {
    run(
        catalog,
        &statements(catalog).recent[seen as usize],
        "(SELECT hold_id, agent, amount, actual, resolved_at AS at FROM @extschema@.state_budget_hold \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR agent OPERATOR(pg_catalog.=) $2) \
         AND status OPERATOR(pg_catalog.=) 'settled' ORDER BY resolved_at DESC, hold_id DESC LIMIT $3) \
         UNION ALL \
         (SELECT id, agent, expected, actual, recorded_at FROM @extschema@.state_budget_cost \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR agent OPERATOR(pg_catalog.=) $2) \
         ORDER BY recorded_at DESC, id DESC LIMIT $3) \
         ORDER BY at DESC, hold_id DESC LIMIT $3",
        seen,
        || [name(budget), optional_name(agent), long(most)],
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(Cost {
                    id: row.text(1),
                    agent: text_at(&row, 2),
                    expected: money_of(&row, 3)?,
                    actual: amount_at(&row, 4)?,
                    at: row.bigint(5),
                })
            }))
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
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                name(level.as_bytes()),
            ]
        },
        is_there,
    )
}

/// Forgets that a level was reached: its limit was raised above what is spent.
pub fn forget_reached(catalog: &Catalog, account: &Account<'_>, level: &str) -> Result<()> {
    run(
        catalog,
        &statements(catalog).forget_reached,
        "DELETE FROM @extschema@.state_budget_reached WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.=) $2 AND period OPERATOR(pg_catalog.=) $3 \
         AND level OPERATOR(pg_catalog.=) $4",
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                name(level.as_bytes()),
            ]
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

/// An agent of a budget: its name, its limit, and when it was put there.
pub type Defined = (Box<[u8]>, Option<Amount>, i64);

/// The agents of a budget, under the active snapshot.
pub fn agents(catalog: &Catalog, budget: &[u8]) -> Result<Vec<Defined>> {
    run(
        catalog,
        &statements(catalog).summary_agents,
        "SELECT agent, spending_limit, defined_at FROM @extschema@.state_budget_agent \
         WHERE budget OPERATOR(pg_catalog.=) $1 ORDER BY agent",
        Seen::BySnapshot,
        || [name(budget)],
        |rows| {
            try_collect(
                rows.iter()
                    .map(|row| Ok((row.text(1), money_of(&row, 2)?, row.bigint(3)))),
            )
        },
    )
}

/// How many holds of a budget are open by then, and when the next of those that any budget counts in it ends; under
/// the active snapshot.
pub fn open_holds(catalog: &Catalog, budget: &[u8], at: i64) -> Result<(i64, Option<i64>)> {
    run(
        catalog,
        &statements(catalog).open_holds,
        "SELECT pg_catalog.count(*) FILTER (WHERE budget OPERATOR(pg_catalog.=) $1), pg_catalog.min(expires_at) \
         FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         AND expires_at OPERATOR(pg_catalog.>) $2 AND $1 OPERATOR(pg_catalog.=) ANY (scopes)",
        Seen::BySnapshot,
        || [name(budget), time(at)],
        |rows| {
            Ok(rows.first().map_or((0, None), |row| {
                (row.bigint(1), row.column(2).map(|at| at.value() as i64))
            }))
        },
    )
}

/// Deletes all rows about a budget; raises `42704` where there is none.
pub fn drop_budget(catalog: &Catalog, budget: &[u8]) -> Result<()> {
    const TABLES: [&str; 7] = [
        "state_budget_reached",
        "state_budget_price",
        "state_budget_agent",
        "state_budget_cost",
        "state_budget_hold",
        "state_budget_account",
        "state_budget",
    ];
    for (slot, table) in statements(catalog).drop.iter().zip(TABLES) {
        let is_gone = run(
            catalog,
            slot,
            &format!(
                "DELETE FROM @extschema@.{table} WHERE budget OPERATOR(pg_catalog.=) $1 RETURNING true"
            ),
            Seen::Now,
            || [name(budget)],
            is_there,
        )?;
        if table == "state_budget" && !is_gone {
            return Err(Error::Internal {
                message: format!("budget \"{}\" could not be deleted", text(budget)),
            });
        }
    }
    Ok(())
}

/// Locks holds that are over by then, of one budget or of any, all counted in the same accounts as the first of them;
/// what somebody else has locked is passed over.
pub fn lock_expired_holds(
    catalog: &Catalog,
    of: Option<&[u8]>,
    at: i64,
    most: i64,
) -> Result<Vec<Hold>> {
    let sql = format!(
        "WITH first AS (SELECT budget, agent, scopes, periods, shards FROM @extschema@.state_budget_hold \
         WHERE status OPERATOR(pg_catalog.=) 'held' AND expires_at OPERATOR(pg_catalog.<=) $2 \
         AND ($1 IS NULL OR budget OPERATOR(pg_catalog.=) $1) ORDER BY expires_at LIMIT 1 \
         FOR NO KEY UPDATE SKIP LOCKED) \
         SELECT {HOLD} FROM @extschema@.state_budget_hold h WHERE h.status OPERATOR(pg_catalog.=) 'held' \
         AND h.expires_at OPERATOR(pg_catalog.<=) $2 AND EXISTS (SELECT FROM first f \
         WHERE f.budget OPERATOR(pg_catalog.=) h.budget AND f.agent IS NOT DISTINCT FROM h.agent \
         AND f.scopes OPERATOR(pg_catalog.=) h.scopes AND f.periods OPERATOR(pg_catalog.=) h.periods \
         AND f.shards OPERATOR(pg_catalog.=) h.shards) ORDER BY h.expires_at LIMIT $3 \
         FOR NO KEY UPDATE OF h SKIP LOCKED"
    );
    run(
        catalog,
        &statements(catalog).lock_expired_holds,
        &sql,
        Seen::Now,
        || [optional_name(of), time(at), long(most)],
        |rows| try_collect(rows.iter().map(|row| hold_of(&row))),
    )
}

/// Notes that a hold, which is locked, was taken out of the counters.
pub fn expire_hold(catalog: &Catalog, id: &[u8], at: i64) -> Result<()> {
    run(
        catalog,
        &statements(catalog).expire_hold,
        "UPDATE @extschema@.state_budget_hold SET status = 'expired', expired_at = $2 \
         WHERE hold_id OPERATOR(pg_catalog.=) $1",
        Seen::Now,
        || [name(id), time(at)],
        nothing,
    )
}

/// When the next hold ends.
pub fn next_end(catalog: &Catalog) -> Result<Option<i64>> {
    run(
        catalog,
        &statements(catalog).next_end,
        "SELECT expires_at FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         ORDER BY expires_at LIMIT 1",
        Seen::Now,
        || [],
        |rows| Ok(rows.first().map(|row| row.bigint(1))),
    )
}

/// Whether anything is held in a budget by a hold that is not over by then.
pub fn is_held(catalog: &Catalog, budget: &[u8], at: i64) -> Result<bool> {
    run(
        catalog,
        &statements(catalog).is_held,
        "SELECT FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         AND expires_at OPERATOR(pg_catalog.>) $2 AND $1 OPERATOR(pg_catalog.=) ANY (scopes) LIMIT 1",
        Seen::Now,
        || [name(budget), time(at)],
        is_there,
    )
}

/// A cost that nothing was held for.
#[derive(Debug, Clone)]
pub struct NewCost {
    /// Its name.
    pub id: Box<[u8]>,
    /// Whose it is.
    pub agent: Option<Box<[u8]>>,
    /// What was expected.
    pub expected: Option<Amount>,
    /// What it was.
    pub actual: Amount,
    /// When it was recorded.
    pub at: i64,
    /// Whatever the caller wants to keep beside it.
    pub metadata: Option<Vec<u8>>,
}

/// Writes a cost; whether there was none of its name.
pub fn insert_cost(catalog: &Catalog, scopes: &[Scope], cost: &NewCost) -> Result<bool> {
    run(
        catalog,
        &statements(catalog).insert_cost,
        "INSERT INTO @extschema@.state_budget_cost (budget, id, agent, expected, actual, scopes, periods, \
         recorded_at, metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (budget, id) DO NOTHING \
         RETURNING true",
        Seen::Now,
        || {
            [
                optional_name(scopes.first().map(|it| &*it.budget)),
                name(&cost.id),
                optional_name(cost.agent.as_deref()),
                optional_amount(cost.expected),
                amount(cost.actual),
                names(scopes.iter().map(|it| &*it.budget)),
                times(scopes.iter().map(|it| it.period)),
                time(cost.at),
                jsonb(cost.metadata.as_deref()),
            ]
        },
        is_there,
    )
}

/// A cost that nothing was held for.
pub fn cost(catalog: &Catalog, budget: &[u8], id: &[u8]) -> Result<Option<Cost>> {
    run(
        catalog,
        &statements(catalog).cost,
        "SELECT id, agent, expected, actual, recorded_at FROM @extschema@.state_budget_cost \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2",
        Seen::Now,
        || [name(budget), name(id)],
        |rows| {
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Cost {
                id: row.text(1),
                agent: text_at(&row, 2),
                expected: money_of(&row, 3)?,
                actual: amount_at(&row, 4)?,
                at: row.bigint(5),
            }))
        },
    )
}

/// What was charged to a budget itself since a time, under the active snapshot.
pub fn spent_since(catalog: &Catalog, budget: &[u8], since: i64) -> Result<Amount> {
    run(
        catalog,
        &statements(catalog).spent_since,
        "SELECT pg_catalog.sum(actual) FROM (SELECT actual FROM @extschema@.state_budget_hold \
         WHERE status OPERATOR(pg_catalog.=) 'settled' AND resolved_at OPERATOR(pg_catalog.>) $2 \
         AND $1 OPERATOR(pg_catalog.=) ANY (scopes) UNION ALL SELECT actual FROM @extschema@.state_budget_cost \
         WHERE recorded_at OPERATOR(pg_catalog.>) $2 AND $1 OPERATOR(pg_catalog.=) ANY (scopes)) c",
        Seen::BySnapshot,
        || [name(budget), time(since)],
        |rows| {
            rows.first()
                .map_or(Ok(Amount::ZERO), |row| amount_at(&row, 1))
        },
    )
}

/// Open holds of an agent.
#[derive(Debug, Clone)]
pub struct Held {
    /// The agent.
    pub agent: Option<Box<[u8]>>,
    /// How many.
    pub count: i64,
    /// What they hold.
    pub amount: Amount,
    /// When the oldest was made.
    pub oldest: i64,
}

/// Holds of a budget that were made before a time and are open at another, by agent, under the active snapshot.
pub fn old_holds(catalog: &Catalog, budget: &[u8], before: i64, at: i64) -> Result<Vec<Held>> {
    run(
        catalog,
        &statements(catalog).old_holds,
        "SELECT agent, pg_catalog.count(*), pg_catalog.sum(amount), pg_catalog.min(made_at) \
         FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         AND budget OPERATOR(pg_catalog.=) $1 AND made_at OPERATOR(pg_catalog.<) $2 \
         AND expires_at OPERATOR(pg_catalog.>) $3 GROUP BY agent ORDER BY agent",
        Seen::BySnapshot,
        || [name(budget), time(before), time(at)],
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(Held {
                    agent: text_at(&row, 1),
                    count: row.bigint(2),
                    amount: amount_at(&row, 3)?,
                    oldest: row.bigint(4),
                })
            }))
        },
    )
}

/// An account whose counters are wrong: what they say, and what holds and costs add up to.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The budget.
    pub budget: Box<[u8]>,
    /// The agent; empty: the budget as a whole.
    pub agent: Box<[u8]>,
    /// When the period began.
    pub period: i64,
    /// Spent: as counted, as found.
    pub spent: (Amount, Amount),
    /// Held: as counted, as found.
    pub held: (Amount, Amount),
}

/// What each hold and cost is to each account that counts it: budget, agent, period, shard, spent, held, expected.
const ENTRIES: &str = "SELECT s.budget, ''::pg_catalog.text AS agent, s.period, s.shard, \
     COALESCE(h.actual, 0) AS spent, \
     CASE WHEN h.status OPERATOR(pg_catalog.=) 'held' THEN h.amount ELSE 0 END AS held, \
     CASE WHEN h.actual IS NOT NULL THEN h.amount END AS expected \
     FROM @extschema@.state_budget_hold h, ROWS FROM (pg_catalog.unnest(h.scopes), pg_catalog.unnest(h.periods), \
     pg_catalog.unnest(h.shards)) s (budget, period, shard) \
     UNION ALL SELECT h.budget, h.agent, h.periods[1], h.shards[1], COALESCE(h.actual, 0), \
     CASE WHEN h.status OPERATOR(pg_catalog.=) 'held' THEN h.amount ELSE 0 END, \
     CASE WHEN h.actual IS NOT NULL THEN h.amount END \
     FROM @extschema@.state_budget_hold h WHERE h.agent IS NOT NULL \
     UNION ALL SELECT s.budget, '', s.period, 0, c.actual, 0, c.expected FROM @extschema@.state_budget_cost c, \
     ROWS FROM (pg_catalog.unnest(c.scopes), pg_catalog.unnest(c.periods)) s (budget, period) \
     UNION ALL SELECT c.budget, c.agent, c.periods[1], 0, c.actual, 0, c.expected \
     FROM @extschema@.state_budget_cost c WHERE c.agent IS NOT NULL";

/// The accounts of a budget, or of all, whose counters are not what holds and costs add up to.
pub fn miscounted(catalog: &Catalog, budget: Option<&[u8]>) -> Result<Vec<Counted>> {
    let sql = format!(
        "WITH found AS (SELECT budget, agent, period, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held \
         FROM ({ENTRIES}) e WHERE $1 IS NULL OR budget OPERATOR(pg_catalog.=) $1 GROUP BY budget, agent, period), \
         counted AS (SELECT budget, agent, period, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held \
         FROM @extschema@.state_budget_account WHERE $1 IS NULL OR budget OPERATOR(pg_catalog.=) $1 \
         GROUP BY budget, agent, period) \
         SELECT COALESCE(f.budget, c.budget), COALESCE(f.agent, c.agent), COALESCE(f.period, c.period), \
         COALESCE(c.spent, 0), COALESCE(f.spent, 0), COALESCE(c.held, 0), COALESCE(f.held, 0) \
         FROM found f FULL JOIN counted c ON c.budget OPERATOR(pg_catalog.=) f.budget \
         AND c.agent OPERATOR(pg_catalog.=) f.agent AND c.period OPERATOR(pg_catalog.=) f.period \
         WHERE COALESCE(c.spent, 0) OPERATOR(pg_catalog.<>) COALESCE(f.spent, 0) \
         OR COALESCE(c.held, 0) OPERATOR(pg_catalog.<>) COALESCE(f.held, 0) ORDER BY 1, 2, 3"
    );
    run(
        catalog,
        &statements(catalog).miscounted,
        &sql,
        Seen::Now,
        || [optional_name(budget)],
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(Counted {
                    budget: row.text(1),
                    agent: row.text(2),
                    period: row.bigint(3),
                    spent: (amount_at(&row, 4)?, amount_at(&row, 5)?),
                    held: (amount_at(&row, 6)?, amount_at(&row, 7)?),
                })
            }))
        },
    )
}

/// Writes the counters of an account anew, whose rows are locked, from holds and costs. Allotments are made anew
/// after it.
pub fn count_again(catalog: &Catalog, account: &Account<'_>, revision: i64) -> Result<()> {
    let sql = format!(
        "WITH found AS (SELECT shard, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held, \
         pg_catalog.sum(expected) AS expected, pg_catalog.sum(spent) FILTER (WHERE expected IS NOT NULL) AS actual, \
         pg_catalog.count(expected) AS compared FROM ({ENTRIES}) e WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.=) $2 AND period OPERATOR(pg_catalog.=) $3 GROUP BY shard), \
         emptied AS (UPDATE @extschema@.state_budget_account SET spent = 0, held = 0, expected = 0, actual = 0, \
         compared = 0 WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3 AND shard OPERATOR(pg_catalog.<>) ALL (SELECT shard FROM found)) \
         INSERT INTO @extschema@.state_budget_account \
         (budget, agent, period, shard, allotted, spent, held, expected, actual, compared, revision) \
         SELECT $1, $2, $3, shard, 0, spent, held, COALESCE(expected, 0), COALESCE(actual, 0), compared, $4 \
         FROM found ON CONFLICT (budget, agent, period, shard) DO UPDATE SET \
         spent = excluded.spent, held = excluded.held, expected = excluded.expected, actual = excluded.actual, \
         compared = excluded.compared"
    );
    run(
        catalog,
        &statements(catalog).count_again,
        &sql,
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                long(revision),
            ]
        },
        nothing,
    )
}

/// What a budget that is dropped has spent stays in those above as costs of its parent, one for each period.
pub fn hand_up(catalog: &Catalog, budget: &[u8], parent: &[u8]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).hand_up,
        "INSERT INTO @extschema@.state_budget_cost (budget, id, actual, scopes, periods, recorded_at, metadata) \
         SELECT $2, 'dropped-' OPERATOR(pg_catalog.||) pg_catalog.gen_random_uuid()::pg_catalog.text, \
         pg_catalog.sum(c.actual), c.scopes[2:], c.periods[2:], pg_catalog.max(c.at), \
         pg_catalog.jsonb_build_object('dropped', $1) FROM ( \
         SELECT actual, scopes, periods, resolved_at AS at FROM @extschema@.state_budget_hold \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND status OPERATOR(pg_catalog.=) 'settled' \
         UNION ALL SELECT actual, scopes, periods, recorded_at FROM @extschema@.state_budget_cost \
         WHERE budget OPERATOR(pg_catalog.=) $1) c WHERE pg_catalog.cardinality(c.scopes) OPERATOR(pg_catalog.>) 1 \
         AND c.scopes[2] OPERATOR(pg_catalog.=) $2 GROUP BY c.scopes[2:], c.periods[2:]",
        Seen::Now,
        || [name(budget), name(parent)],
        nothing,
    )
}
