//! What a reservation and its settlement do to the tables, row by row where statements would do nothing else: the
//! header of `store::rows` says when and how. Each function answers `None` where its statement must be taken.
//!
//! # Contract
//!
//! Each function is a command of its own, as its statement is: it looks under a snapshot that sees what the
//! transaction has done before, locks the row that it changes and no other, and its condition is asked again of the
//! newest version of a row that others have changed. So the order of locks and what two sessions see are those of
//! `budgets`.
//!
//! What the CHECKs of the tables ask holds by what the callers have checked, but for counters below 0, or of more
//! digits than an amount has: with such a row the statement is taken, which raises the server's error.

use super::records::{Account, Charged, Hold, hold_of};
use super::{amount, name, names, numbers, optional_amount, optional_name, times};
use crate::call::{Scratch, bigint_datum, integer_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::money;
use crate::snapshot::PushedSnapshot;
use crate::store::rows::table::{BACKWARD, FORWARD, Found, Shape, Table, Value};
use crate::sys;
use pgrx::pg_sys::{self, Datum};
use state_cache_budget::Amount;
use std::ffi::CStr;

/// Columns of `state_budget`.
mod definition {
    pub const TOTAL: usize = 1;
    pub const CURRENCY: usize = 2;
    pub const PARENT: usize = 3;
    pub const PERIOD: usize = 4;
    pub const SOFT_LIMIT: usize = 5;
    pub const SHARDS: usize = 6;
    pub const REVISION: usize = 7;
    pub const RETENTION: usize = 9;
}

/// Columns of `state_budget_account`.
mod account {
    pub const BUDGET: usize = 0;
    pub const AGENT: usize = 1;
    pub const PERIOD: usize = 2;
    pub const SHARD: usize = 3;
    pub const ALLOTTED: usize = 4;
    pub const SPENT: usize = 5;
    pub const HELD: usize = 6;
    pub const EXPECTED: usize = 7;
    pub const ACTUAL: usize = 8;
    pub const COMPARED: usize = 9;
    pub const REVISION: usize = 10;
    pub const QUIET: usize = 12;
    pub const COUNT: usize = 13;
}

/// Columns of `state_budget_hold`.
mod hold {
    pub const ID: usize = 0;
    pub const STATUS: usize = 11;
    pub const EXPIRES_AT: usize = 13;
    pub const ACTUAL: usize = 15;
    pub const RESOLVED_AT: usize = 16;
    pub const METADATA: usize = 17;
    pub const COUNT: usize = 18;
}

const fn is_text(column: i16) -> (i16, u32, u32) {
    (column, pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ)
}

/// Budgets by their name.
static DEFINITIONS: Shape = Shape {
    conditions: &[is_text(1)],
    is_speculative: false,
    fixed: &[],
};
/// All rows of accounts of a budget and an agent, in the order of periods.
static PERIODS: Shape = Shape {
    conditions: &[is_text(1), is_text(2)],
    is_speculative: false,
    fixed: &[],
};
/// One row of an account.
static ACCOUNTS: Shape = Shape {
    conditions: &[
        is_text(1),
        is_text(2),
        (3, pg_sys::BTEqualStrategyNumber, pg_sys::F_TIMESTAMPTZ_EQ),
        (4, pg_sys::BTEqualStrategyNumber, pg_sys::F_INT4EQ),
    ],
    is_speculative: false,
    fixed: &[1, 2, 3, 4],
};
/// Holds by their name. What is settled keeps its budget, agent and end.
static HOLDS: Shape = Shape {
    conditions: &[is_text(1)],
    is_speculative: true,
    fixed: &[1, 2, 3, 14],
};
/// Holds by their end, of those that are held: the first column of `state_budget_hold_open`.
static ENDS: Shape = Shape {
    conditions: &[(
        1,
        pg_sys::BTLessEqualStrategyNumber,
        pg_sys::F_TIMESTAMPTZ_LE,
    )],
    is_speculative: false,
    fixed: &[],
};

const SELECT: u32 = pg_sys::ACL_SELECT;
const INSERT: u32 = pg_sys::ACL_INSERT;
const UPDATE: u32 = pg_sys::ACL_UPDATE;

/// Runs a command on one of the tables of budgets, which is open while it runs; `None` where a statement must do it.
fn command<T>(
    catalog: &Catalog,
    (table, shape): (pg_sys::Oid, &'static Shape),
    wanted: &[u32],
    run: impl FnOnce(&mut Table) -> T,
) -> Option<T> {
    if crate::fault::way_of_writing!() == Some(false) || !catalog.takes_budget_rows(table, wanted) {
        return None;
    }
    let lock = match wanted {
        [SELECT] => pg_sys::AccessShareLock,
        _ => pg_sys::RowExclusiveLock,
    };
    let memory = Scratch::new();
    let done = memory.keeping(|| {
        // SAFETY: the shapes say what the keys of the indexes are, as `takes_budget_rows` and `ends` have found them;
        // closed below, unless there is an error.
        let mut open = unsafe {
            match std::ptr::eq(shape, &ENDS) {
                false => Table::open(catalog, table, shape, lock)?,
                true => Table::open_by(catalog, table, shape, lock, |_| ends(catalog))?,
            }
        };
        // Whoever held a lock until now may have changed it.
        let done = catalog.takes_budget_rows(table, wanted).then(|| {
            sys::begin_command();
            let _snapshot = PushedSnapshot::transaction();
            let done = run(&mut open);
            open.release();
            done
        });
        open.close();
        done
    })?;
    if lock == pg_sys::RowExclusiveLock {
        sys::begin_command();
    }
    Some(done)
}

/// The index of what is held by its end; `InvalidOid` if it is not as the installation script has made it.
fn ends(catalog: &Catalog) -> pg_sys::Oid {
    let name: &CStr = c"state_budget_hold_open";
    // SAFETY: look-ups in the system caches; the row is let go of before this returns. The index's table is open.
    unsafe {
        let index = pg_sys::get_relname_relid(name.as_ptr(), catalog.namespace());
        let cache = pg_sys::SysCacheIdentifier::INDEXRELID as i32;
        let row = pg_sys::SearchSysCache1(cache, Datum::from(index));
        if row.is_null() {
            return pg_sys::InvalidOid;
        }
        let about = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_index>();
        let is_it = about.indrelid == catalog.budgets.hold
            && about.indisvalid
            && about.indnkeyatts == 1
            && about.indkey.values.as_slice(1) == [hold::EXPIRES_AT as i16 + 1]
            && !pg_sys::heap_attisnull(
                row,
                pg_sys::Anum_pg_index_indpred as i32,
                std::ptr::null_mut(),
            );
        pg_sys::ReleaseSysCache(row);
        if is_it { index } else { pg_sys::InvalidOid }
    }
}

/// A column that is an amount, as far as it is one that we can reckon with.
fn amount_in(row: &Found<'_>, column: usize) -> std::result::Result<Option<Amount>, Beyond> {
    let value = row.value(column);
    value
        .map(|value| money::counter_of(value).map_err(|_| Beyond))
        .transpose()
}

/// A stored number is no amount, but may be a counter.
struct Beyond;

/// What is defined of a budget, as the server keeps it.
pub struct Definition {
    pub total: Amount,
    pub currency: Box<[u8]>,
    pub parent: Option<Box<[u8]>>,
    pub period: Option<pg_sys::Interval>,
    pub soft_limit: Option<Amount>,
    pub shards: i32,
    pub revision: i64,
    pub retention: Option<pg_sys::Interval>,
}

fn text_in(row: &Found<'_>, column: usize) -> Option<Box<[u8]>> {
    // SAFETY: a `text` column.
    unsafe { row.copy(column) }.map(Into::into)
}

fn interval_in(row: &Found<'_>, column: usize) -> Option<pg_sys::Interval> {
    let interval = row.value(column)?.cast_mut_ptr::<pg_sys::Interval>();
    // SAFETY: an `interval` column, whose values are passed by pointer; copied while the row is found.
    Some(unsafe { *interval })
}

/// A budget, if there is one.
pub fn definition(catalog: &Catalog, budget: &[u8]) -> Option<Option<Definition>> {
    use definition::{CURRENCY, PARENT, PERIOD, RETENTION, REVISION, SHARDS, SOFT_LIMIT, TOTAL};
    let table = (catalog.budgets.budget, &DEFINITIONS);
    let found = command(catalog, table, &[SELECT], |budgets| {
        // SAFETY: the name lives as long as the command.
        unsafe { budgets.look_up_by(&[varlena_datum(budget)]) };
        let Some(row) = budgets.next(FORWARD) else {
            return Ok::<_, Beyond>(None);
        };
        Ok(Some(Definition {
            total: amount_in(&row, TOTAL)?.ok_or(Beyond)?,
            currency: text_in(&row, CURRENCY).unwrap_or_default(),
            parent: text_in(&row, PARENT),
            period: interval_in(&row, PERIOD),
            soft_limit: amount_in(&row, SOFT_LIMIT)?,
            shards: row.bigint(SHARDS) as i32,
            revision: row.bigint(REVISION),
            retention: interval_in(&row, RETENTION),
        }))
    })?;
    found.ok()
}

/// What the newest row of counters of a budget has left; `None` inside if there is none, or no limit.
pub fn left_of_newest(catalog: &Catalog, budget: &[u8]) -> Option<Option<Amount>> {
    use account::{ALLOTTED, HELD, SPENT};
    let table = (catalog.budgets.account, &PERIODS);
    let found = command(catalog, table, &[SELECT], |accounts| {
        // SAFETY: the names live as long as the command.
        unsafe { accounts.look_up_by(&[varlena_datum(budget), varlena_datum(b"")]) };
        let Some(row) = accounts.next(BACKWARD) else {
            return Ok::<_, Beyond>(None);
        };
        let (spent, held) = (amount_in(&row, SPENT)?, amount_in(&row, HELD)?);
        let used = spent.unwrap_or_default() + held.unwrap_or_default();
        Ok(amount_in(&row, ALLOTTED)?.map(|allotted| allotted - used))
    })?;
    // It is a guess, which a row that we cannot reckon with only makes worse.
    Some(found.ok().flatten())
}

/// Whether there are holds whose time is over by then and that the counters still count.
pub fn has_expired(catalog: &Catalog, at: i64) -> Option<bool> {
    let table = (catalog.budgets.hold, &ENDS);
    command(catalog, table, &[SELECT], |holds| {
        // SAFETY: a number.
        unsafe { holds.look_up_by(&[bigint_datum(at)]) };
        holds.next(FORWARD).is_some()
    })
}

/// A row of an account: how it is looked up, and whether a row that was found is it.
struct Row<'a> {
    account: &'a Account<'a>,
    shard: i32,
}

impl Row<'_> {
    fn key(&self) -> [Datum; 4] {
        [
            varlena_datum(self.account.budget),
            varlena_datum(self.account.agent),
            bigint_datum(self.account.period),
            integer_datum(self.shard),
        ]
    }

    fn is(&self, row: &Found<'_>) -> bool {
        // SAFETY: `text` columns.
        let names = unsafe { [row.bytes(account::BUDGET), row.bytes(account::AGENT)] };
        names == [Some(self.account.budget), Some(self.account.agent)]
            && row.bigint(account::PERIOD) == self.account.period
            && row.bigint(account::SHARD) as i32 == self.shard
    }

    /// Replaces the row by what `new` makes of it; whether it did. `None` where a statement must.
    fn replace(
        &self,
        catalog: &Catalog,
        mut new: impl FnMut(&Found<'_>) -> std::result::Result<Option<[Value; account::COUNT]>, Beyond>,
    ) -> Option<bool> {
        let table = (catalog.budgets.account, &ACCOUNTS);
        let mut is_beyond = false;
        let is_done = command(catalog, table, &[SELECT, UPDATE], |accounts| {
            // SAFETY: the names live as long as the command.
            unsafe { accounts.look_up_by(&self.key()) };
            if accounts.next(FORWARD).is_none() {
                return false;
            }
            let row = |row: Found<'_>| match self.is(&row) {
                true => new(&row).unwrap_or_else(|Beyond| {
                    is_beyond = true;
                    None
                }),
                false => None,
            };
            // SAFETY: the values of the new row are those of the old one, or new.
            unsafe { accounts.update(row) }
        })?;
        (!is_beyond).then_some(is_done)
    }
}

fn amount_datum(amount: Amount) -> Value {
    Some(money::datum(amount))
}

/// What the counters of a row are together with what is added; not if one of them would be none.
fn sum(
    row: &Found<'_>,
    column: usize,
    added: Amount,
) -> std::result::Result<(Amount, Amount), Beyond> {
    let before = amount_in(row, column)?.ok_or(Beyond)?;
    match before + added {
        after if after.is_negative() => Err(Beyond),
        after => Ok((before, after)),
    }
}

/// See [`super::grant`].
pub fn grant(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    asked: Amount,
    revision: i64,
) -> Option<Option<Option<Amount>>> {
    use account::{ALLOTTED, HELD, REVISION, SPENT};
    let mut left = None;
    let is_granted = Row { account, shard }.replace(catalog, |row| {
        let allotted = amount_in(row, ALLOTTED)?;
        let (_, held) = sum(row, HELD, asked)?;
        let (spent, _) = sum(row, SPENT, Amount::ZERO)?;
        left = allotted.map(|allotted| allotted - spent - held);
        if row.bigint(REVISION) != revision || left.is_some_and(Amount::is_negative) {
            return Ok(None);
        }
        let mut new: [Value; account::COUNT] = std::array::from_fn(|column| row.value(column));
        new[HELD] = amount_datum(held);
        Ok(Some(new))
    })?;
    Some(is_granted.then_some(left))
}

/// See [`super::charge`].
pub fn charge(
    catalog: &Catalog,
    account: &Account<'_>,
    shard: i32,
    charged: &Charged,
    alone: bool,
) -> Option<bool> {
    use account::{ACTUAL, ALLOTTED, COMPARED, EXPECTED, HELD, QUIET, SPENT};
    Row { account, shard }.replace(catalog, |row| {
        let quiet = amount_in(row, QUIET)?;
        let allotted = amount_in(row, ALLOTTED)?;
        let (_, spent) = sum(row, SPENT, charged.spent)?;
        let (_, held) = sum(row, HELD, charged.held)?;
        let is_quiet = charged.spent == Amount::ZERO || quiet.is_none_or(|quiet| spent < quiet);
        let takes_more = (charged.spent + charged.held).is_positive();
        let has_room =
            alone || !takes_more || allotted.is_none_or(|allotted| spent + held <= allotted);
        if !is_quiet || !has_room {
            return Ok(None);
        }
        let mut new: [Value; account::COUNT] = std::array::from_fn(|column| row.value(column));
        new[SPENT] = amount_datum(spent);
        new[HELD] = amount_datum(held);
        if let Some((expected, actual)) = charged.compared {
            new[EXPECTED] = amount_datum(sum(row, EXPECTED, expected)?.1);
            new[ACTUAL] = amount_datum(sum(row, ACTUAL, actual)?.1);
            new[COMPARED] = Some(bigint_datum(
                row.bigint(COMPARED).saturating_add(charged.count),
            ));
        }
        Ok(Some(new))
    })
}

/// See [`super::insert_hold`]. A name that is there is left to the statement, which waits for whoever deletes it.
pub fn insert_hold(catalog: &Catalog, hold: &Hold) -> Option<bool> {
    let table = (catalog.budgets.hold, &HOLDS);
    command(catalog, table, &[SELECT, INSERT], |holds| {
        let id = varlena_datum(&hold.id);
        // SAFETY: the name lives as long as the command.
        unsafe { holds.look_up_by(&[id]) };
        if holds.next(FORWARD).is_some() {
            return None;
        }
        let ttl = Datum::from(&raw const hold.ttl);
        Some(holds.insert_unless_there::<{ hold::COUNT }>([
            Some(id),
            optional_name(hold.scopes.first().map(|it| &*it.budget)).1,
            optional_name(hold.agent.as_deref()).1,
            amount(hold.amount).1,
            optional_amount(hold.asked).1,
            Some(ttl),
            optional_name(hold.owner.as_deref()).1,
            amount(hold.remaining).1,
            names(hold.scopes.iter().map(|it| &*it.budget)).1,
            times(hold.scopes.iter().map(|it| it.period)).1,
            numbers(hold.scopes.iter().map(|it| it.shard)).1,
            name(b"held").1,
            Some(bigint_datum(hold.made_at)),
            Some(bigint_datum(hold.expires_at)),
            None,
            None,
            None,
            None,
        ]))
    })?
}

/// See [`super::settle_hold`].
pub fn settle_hold(
    catalog: &Catalog,
    id: &[u8],
    actual: Amount,
    metadata: Option<&[u8]>,
    at: i64,
) -> Option<Result<Option<Hold>>> {
    let table = (catalog.budgets.hold, &HOLDS);
    command(catalog, table, &[SELECT, UPDATE], |holds| {
        // SAFETY: the name lives as long as the command.
        unsafe { holds.look_up_by(&[varlena_datum(id)]) };
        if holds.next(FORWARD).is_none() {
            return Ok(None);
        }
        let row = |row: Found<'_>| {
            // SAFETY: `text` columns.
            let (name, status) = unsafe { (row.bytes(hold::ID), row.bytes(hold::STATUS)) };
            if name != Some(id) || !matches!(status, Some(b"held" | b"expired")) {
                return None;
            }
            let mut new: [Value; hold::COUNT] = std::array::from_fn(|column| row.value(column));
            new[hold::STATUS] = Some(varlena_datum(b"settled"));
            new[hold::ACTUAL] = amount_datum(actual);
            new[hold::RESOLVED_AT] = Some(bigint_datum(at));
            new[hold::METADATA] = metadata.map(varlena_datum);
            Some(new)
        };
        // SAFETY: the values of the new row are those of the old one, or new.
        if !unsafe { holds.update(row) } {
            return Ok(None);
        }
        let before = holds.found();
        let mut settled = hold_of(|column| before.value(column))?;
        settled.status = b"settled".as_slice().into();
        settled.actual = Some(actual);
        settled.resolved_at = at;
        Ok(Some(settled))
    })
}
