//! Amounts of money at the border: PostgreSQL's `numeric` and [`Amount`], digit by digit.

use crate::call::cstring_datum;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use state_cache_budget::{Amount, AmountError};
use std::ffi::CStr;

/// The amount that a `numeric` is.
///
/// # Errors
/// Says why it is none.
pub fn amount_of(numeric: pg_sys::Datum) -> std::result::Result<Amount, AmountError> {
    read(numeric, Amount::parse)
}

/// The counter that a `numeric` is.
///
/// # Errors
/// As for [`amount_of`].
pub fn counter_of(numeric: pg_sys::Datum) -> std::result::Result<Amount, AmountError> {
    read(numeric, Amount::parse_counter)
}

fn read(
    numeric: pg_sys::Datum,
    parse: impl FnOnce(&str) -> std::result::Result<Amount, AmountError>,
) -> std::result::Result<Amount, AmountError> {
    // SAFETY: numeric_out takes a numeric and gives a NUL-terminated text in ASCII.
    let text = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::numeric_out, &[Some(numeric)])
            .map(|text| CStr::from_ptr(text.cast_mut_ptr()))
    };
    let text = text.and_then(|text| text.to_str().ok());
    text.map_or(Err(AmountError::NotFinite), parse)
}

/// An amount as a `numeric`, in the current memory context.
pub fn datum(amount: Amount) -> pg_sys::Datum {
    let (digits, decimals) = amount.digits();
    if let Ok(digits) = i64::try_from(digits) {
        // SAFETY: gives the number divided by so many tens, with as many decimals.
        return unsafe { pg_sys::int64_div_fast_to_numeric(digits, decimals) }.into();
    }
    let arguments = [
        Some(cstring_datum(amount.to_string().as_bytes())),
        Some(pg_sys::Datum::from(pg_sys::InvalidOid)),
        Some(pg_sys::Datum::from(-1_i32)),
    ];
    // SAFETY: numeric_in takes a cstring, an OID and a type modifier, and gives a numeric or raises.
    let numeric = unsafe { pgrx::direct_function_call_as_datum(pg_sys::numeric_in, &arguments) };
    // It is strict and returns no NULL of its own.
    numeric.unwrap_or(pg_sys::Datum::from(0usize))
}

/// An argument, by its name in messages.
///
/// # Errors
/// `22023` for what is no amount.
pub fn argument(argument: Option<pg_sys::Datum>, name: &str) -> Result<Option<Amount>> {
    let Some(numeric) = argument else {
        return Ok(None);
    };
    amount_of(numeric)
        .map(Some)
        .map_err(|error| Error::argument(format!("{name} {error}: {}", shown(numeric))))
}

/// A `numeric` as a message shows it.
fn shown(numeric: pg_sys::Datum) -> String {
    const MOST: usize = 60;
    // SAFETY: as in `amount_of`.
    let text = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::numeric_out, &[Some(numeric)])
            .map(|text| CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy())
    };
    let text = text.unwrap_or_default();
    match text.get(..MOST) {
        Some(front) if text.len() > MOST => format!("{front}..."),
        _ => text.into_owned(),
    }
}
