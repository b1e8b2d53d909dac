//! What the tables of budgets ask in their CHECKs.

use crate::call::{self, sql_functions};
use crate::money;
use pgrx::pg_sys;
use state_cache_budget::Amount;
use std::ffi::CStr;

/// The digits that a counter has at most before the point.
const MOST_DIGITS: usize = 28;
/// Longest name of a hold, in bytes.
const MAX_NAME: usize = 255;

/// Whether a number can be a counter: finite, not negative, of at most 28 digits.
fn is_counter(numeric: pg_sys::Datum) -> bool {
    // SAFETY: numeric_out takes a numeric and gives a NUL-terminated text in ASCII.
    let text = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::numeric_out, &[Some(numeric)])
            .map(|text| CStr::from_ptr(text.cast_mut_ptr()).to_bytes())
    };
    // NaN, infinities and negative numbers begin with no digit.
    let digits = text.map(|text| text.iter().take_while(|byte| byte.is_ascii_digit()).count());
    digits.is_some_and(|digits| (1..=MOST_DIGITS).contains(&digits))
}

/// How many elements an array has.
///
/// # Safety
/// The datum is an array.
unsafe fn length(array: pg_sys::Datum) -> i32 {
    // SAFETY: the caller's promise; a detoasted array has its dimensions behind its header.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let dimensions = array.byte_add(size_of::<pg_sys::ArrayType>()).cast::<i32>();
        pg_sys::ArrayGetNItems((*array).ndim, dimensions)
    }
}

/// The columns of a hold that depend on each other.
struct Columns<'a> {
    id: &'a [u8],
    amount: Option<Amount>,
    actual: Option<Amount>,
    has_actual: bool,
    status: &'a [u8],
    was_taken_out: bool,
    is_resolved: bool,
    lengths: [i32; 3],
}

impl Columns<'_> {
    fn are_sound(&self) -> bool {
        let (needs_cost, may_be_taken_out, must_be_taken_out, needs_end) = match self.status {
            b"held" => (false, false, false, false),
            b"settled" => (true, true, false, true),
            b"voided" => (false, true, false, true),
            b"expired" => (false, true, true, false),
            _ => return false,
        };
        let [scopes, periods, shards] = self.lengths;
        (1..=MAX_NAME).contains(&self.id.len())
            && self.amount.is_some_and(Amount::is_positive)
            && self.has_actual == needs_cost
            && (!needs_cost || self.actual.is_some_and(|actual| !actual.is_negative()))
            && (may_be_taken_out || !self.was_taken_out)
            && (!must_be_taken_out || self.was_taken_out)
            && self.is_resolved == needs_end
            && scopes == periods
            && scopes == shards
    }
}

sql_functions! {
    /// `state_money(amount)`
    fn state_money(call) {
        let is_amount = call.argument(0).is_some_and(|it| money::amount_of(it).is_ok());
        Ok(call::boolean_datum(is_amount))
    }

    /// `state_counters(spent, held)`
    fn state_counters(call) {
        let are_counters = (0..2).all(|n| call.argument(n).is_some_and(is_counter));
        Ok(call::boolean_datum(are_counters))
    }

    /// `state_hold_is_sound(hold_id, amount, actual, status, expired_at, resolved_at, scopes, periods, shards)`
    fn state_hold_is_sound(call) {
        let amount = |n| call.argument(n).and_then(|it| money::amount_of(it).ok());
        // SAFETY: the declaration says that these three are arrays.
        let length = |n| call.argument(n).map_or(-1, |array| unsafe { length(array) });
        let columns = Columns {
            id: call.text(0).unwrap_or_default(),
            amount: amount(1),
            actual: amount(2),
            has_actual: call.argument(2).is_some(),
            status: call.text(3).unwrap_or_default(),
            was_taken_out: call.argument(4).is_some(),
            is_resolved: call.argument(5).is_some(),
            lengths: [length(6), length(7), length(8)],
        };
        Ok(call::boolean_datum(columns.are_sound()))
    }
}
