//! The tables of budgets. Statements that change or lock run as the caller, but where it says otherwise.

mod accounts;
mod costs;
mod counted;
mod definitions;
mod holds;
mod records;
mod rows;

use super::own_write::OwnWrite;
use super::spi::{Connection, Row, Rows, Statement};
use crate::call::{bigint_datum, integer_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::{memory, money, varlena};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys::{self, Datum, Oid};
use state_cache_budget::Amount;
use state_cache_memory::boxed;

pub use accounts::{
    AccountRow, NewShare, Totals, accounts, add_account, charge, forget_reached, grant,
    has_account, levels, lock_account, reach, release, set_share, spent, totals,
};
pub use costs::{Cost, NewCost, cost, insert_cost, learn, recent_costs, spent_since};
pub use counted::{
    Counted, agents_counted, count_again, miscounted, next_retention, prune_costs, prune_free,
};
pub use definitions::{
    Agent, Budget, agent, agents, budget, budgets_below, drop_budget, forget_prices, hand_up,
    lock_definition, lock_to_redefine, put_agent, put_budget, retire_agents,
};
pub use holds::{
    expire_hold, expired, extend_hold, finish_hold, hold, insert_hold, is_held, lock_expired_holds,
    lock_hold, next_end, old_holds, open_holds, settle_hold, void_hold,
};
pub use records::{Account, Charged, Hold, Scope};

/// The prepared statements of these files.
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
    prune_costs: [OnceCell<Statement>; 2],
    prune_free: OnceCell<Statement>,
    next_retention: OnceCell<Statement>,
    agents_counted: OnceCell<Statement>,
    hand_up: OnceCell<Statement>,
    drop: [OnceCell<Statement>; 8],
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

/// What a `numeric` column holds.
fn money_in(numeric: Datum) -> Result<Amount> {
    // The constraints of the tables forbid what is none. Counters add up many amounts.
    money::counter_of(numeric).map_err(|error| Error::Internal {
        message: format!("a stored amount {error}"),
    })
}

/// A `numeric` column, `None` for NULL.
fn money_of(row: &Row<'_>, n: i32) -> Result<Option<Amount>> {
    row.column(n).map(money_in).transpose()
}

/// A copy of what a `text` column holds.
///
/// # Safety
/// It is `text`.
unsafe fn text_of(text: Datum) -> Box<[u8]> {
    // SAFETY: the caller's promise; copied at once.
    let bytes = unsafe { varlena::detoasted_bytes(text.cast_mut_ptr()) };
    memory::or_raise(boxed(bytes))
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
