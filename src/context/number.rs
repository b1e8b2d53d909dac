//! Amounts: decimal numbers as PostgreSQL reckons with them, so that money is never floating point.

use crate::error::{Error, Result};
use crate::varlena;
use pgrx::{AnyNumeric, FromDatum, IntoDatum, pg_sys};
use state_cache_document::DocumentError;
use state_cache_memory::with_capacity;
use std::fmt;
use std::ops::{Add, Sub};

/// Digits that a message shows of a number.
const SHOWN: usize = 60;

/// A finite decimal number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(AnyNumeric);

impl Number {
    /// 0
    pub fn zero() -> Self {
        Self::from(0)
    }

    /// An argument that must be neither negative nor infinite nor no number.
    pub fn amount(argument: Option<pg_sys::Datum>, name: &str) -> Result<Self> {
        let datum = argument.ok_or_else(|| Error::null_argument(name))?;
        let type_of = pg_sys::NUMERICOID;
        // SAFETY: the SQL declaration says numeric.
        let number = unsafe { AnyNumeric::from_polymorphic_datum(datum, false, type_of) };
        let number = number.map(Self).ok_or_else(|| Error::null_argument(name))?;
        // Before the comparison, which holds NaN greater than all numbers.
        number
            .document()
            .map_err(|_| Error::argument(format!("{name} must be finite: {number}")))?;
        if number < Self::zero() {
            return Err(Error::argument(format!(
                "{name} must not be negative: {number}"
            )));
        }
        Ok(number)
    }

    /// The number that a document is.
    pub fn of_document(document: &[u8]) -> Option<Self> {
        let numeric = state_cache_document::as_number(document)?;
        let payload = numeric.get(varlena::VARHDRSZ..)?;
        let datum = crate::call::varlena_datum(payload);
        // SAFETY: a numeric as the server laid it out.
        unsafe { AnyNumeric::from_polymorphic_datum(datum, false, pg_sys::NUMERICOID) }.map(Self)
    }

    /// The document that is the number.
    pub fn document(&self) -> Result<Vec<u8>> {
        let none = || Error::Internal {
            message: format!("{} is no number of JSON", self.0),
        };
        let datum = self.clone().datum().ok_or_else(none)?;
        // SAFETY: a numeric is a varlena.
        let payload = unsafe { varlena::detoasted_bytes(datum.cast_mut_ptr()) };
        // A numeric has far fewer than 2^30 bytes.
        let header = varlena::varsize_header((payload.len() + varlena::VARHDRSZ) as u32);
        let mut numeric = with_capacity(varlena::VARHDRSZ + payload.len())?;
        numeric.extend(header.to_ne_bytes());
        numeric.extend_from_slice(payload);
        state_cache_document::number(&numeric).map_err(|error| match error {
            DocumentError::OutOfMemory(refused) => refused.into(),
            _ => none(),
        })
    }

    /// The id that a document is.
    pub fn id_of_document(document: &[u8]) -> Option<i64> {
        i64::try_from(Self::of_document(document)?.0).ok()
    }

    /// As a result of an SQL function.
    pub fn datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self(AnyNumeric::from(number))
    }
}

impl Add for Number {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Number {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        match digits.get(..SHOWN) {
            Some(front) if digits.len() > SHOWN => {
                write!(out, "{front}... ({} digits)", digits.len())
            }
            _ => out.write_str(&digits),
        }
    }
}
