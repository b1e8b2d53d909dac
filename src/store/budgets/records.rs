//! Accounts and holds, as the other files pass them on.

use super::{money_in, text_of};
use crate::error::{Error, Result};
use pgrx::pg_sys::{self, Datum, Oid};
use state_cache_budget::Amount;
use state_cache_memory::collect;

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

/// The elements of an array of fixed-size values.
fn elements(array: Option<Datum>, of: Oid) -> Vec<Datum> {
    let Some(array) = array else {
        return Vec::new();
    };
    let length = if of == pg_sys::INT4OID { 4 } else { 8 };
    let alignment = match of {
        pg_sys::INT4OID => pg_sys::TYPALIGN_INT,
        _ => pg_sys::TYPALIGN_DOUBLE,
    };
    let (mut values, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the column is an array of that type; the values are copied while the row lives.
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

/// A hold of the columns of its row, as the table has them, counted from 0.
pub fn hold_of(column: impl Fn(usize) -> Option<Datum>) -> Result<Hold> {
    // SAFETY: `text` columns, copied while the row lives.
    let text = |n| column(n).map(|text| unsafe { text_of(text) });
    let money = |n| column(n).map(money_in).transpose();
    let long = |n| column(n).map_or(0, |number| number.value() as i64);
    let scopes = match column(8) {
        // SAFETY: `text[]`, whose elements are copied while the row lives.
        Some(array) => unsafe { crate::varlena::text_elements(array)? },
        None => Vec::new(),
    };
    let periods = elements(column(9), pg_sys::TIMESTAMPTZOID);
    let shards = elements(column(10), pg_sys::INT4OID);
    let scopes = scopes.into_iter().zip(periods).zip(shards);
    let scopes = scopes.map(|((budget, period), shard)| Scope {
        budget: budget.unwrap_or_default().into(),
        period: period.value() as i64,
        shard: shard.value() as i32,
    });
    let ttl = column(5).map(|ttl| ttl.cast_mut_ptr::<pg_sys::Interval>());
    let ttl = ttl.ok_or_else(|| Error::Internal {
        message: "a hold has no ttl".to_owned(),
    })?;
    Ok(Hold {
        id: text(0).unwrap_or_default(),
        agent: text(2),
        amount: money(3)?.unwrap_or_default(),
        asked: money(4)?,
        // SAFETY: an interval, which is passed by pointer and copied while the row lives.
        ttl: unsafe { *ttl },
        owner: text(6),
        remaining: money(7)?.unwrap_or_default(),
        scopes: collect(scopes)?,
        status: text(11).unwrap_or_default(),
        made_at: long(12),
        expires_at: long(13),
        is_taken_out: column(14).is_some(),
        actual: money(15)?,
        resolved_at: long(16),
    })
}
