//! Money.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

/// Decimals that an amount has at most.
pub const DECIMALS: usize = 9;
/// Billionths of one.
const ONE: i128 = 1_000_000_000;
/// What no amount that somebody gives reaches: sums of a hundred billion such amounts are exact still.
const LIMIT: i128 = 1_000_000_000_000_000_000 * ONE;
/// What no counter reaches: a number of 28 digits before the point.
const COUNTER_LIMIT: i128 = 10_000_000_000_000_000_000_000_000_000 * ONE;

/// A sum of money: a whole number of billionths of the currency. A difference may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(i128);

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmountError {
    /// It is no decimal number: `NaN`, an infinity, or no number at all.
    NotFinite,
    /// It has more than [`DECIMALS`] decimals.
    TooFine,
    /// It is beyond a billion billions.
    TooLarge,
}

impl fmt::Display for AmountError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotFinite => "must be a finite decimal number",
            Self::TooFine => "must have at most 9 decimals",
            Self::TooLarge => "must be below 1000000000000000000",
        })
    }
}

impl std::error::Error for AmountError {}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many billionths.
    pub const fn from_billionths(billionths: i128) -> Self {
        Self(billionths)
    }

    /// How many billionths it is.
    pub const fn billionths(self) -> i128 {
        self.0
    }

    /// So many whole units.
    pub const fn whole(units: i64) -> Self {
        Self(units as i128 * ONE)
    }

    /// Reads a decimal number: digits with an optional sign and an optional point. Decimals that are 0 do not count.
    ///
    /// # Errors
    /// Says why the text is no amount.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        Self::parse_below(text, LIMIT)
    }

    /// Reads a counter, which adds up amounts, in the same form.
    ///
    /// # Errors
    /// As [`Amount::parse`], for more than 28 digits before the point.
    pub fn parse_counter(text: &str) -> Result<Self, AmountError> {
        Self::parse_below(text, COUNTER_LIMIT)
    }

    fn parse_below(text: &str, limit: i128) -> Result<Self, AmountError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_decimal(whole) || !is_decimal(fraction) {
            return Err(AmountError::NotFinite);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > DECIMALS {
            return Err(AmountError::TooFine);
        }
        let mut billionths: i128 = 0;
        let padding = std::iter::repeat_n(b'0', DECIMALS - fraction.len());
        for digit in whole.bytes().chain(fraction.bytes()).chain(padding) {
            // Below the limit before, and so below the end of the type after.
            billionths = billionths * 10 + i128::from(digit - b'0');
            if billionths >= limit {
                return Err(AmountError::TooLarge);
            }
        }
        Ok(Self(if negative { -billionths } else { billionths }))
    }

    /// The amount as a whole number of units, if it is one.
    pub fn whole_units(self) -> Option<i64> {
        match self.0 % ONE {
            0 => i64::try_from(self.0 / ONE).ok(),
            _ => None,
        }
    }

    /// The amount as a whole number of the smallest decimals that it has, and how many decimals these are.
    pub fn digits(self) -> (i128, i32) {
        let (mut digits, mut decimals) = (self.0, DECIMALS as i32);
        while decimals > 0 && digits % 10 == 0 {
            digits /= 10;
            decimals -= 1;
        }
        (digits, decimals)
    }

    /// Whether it is above 0.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Whether it is below 0.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// So many times the amount.
    #[must_use]
    pub const fn times(self, count: i64) -> Self {
        Self(self.0.saturating_mul(count as i128))
    }

    /// The amount divided into so many parts, rounded down; the whole for none.
    #[must_use]
    pub const fn part(self, parts: usize) -> Self {
        match parts {
            0 => self,
            parts => Self(self.0.div_euclid(parts as i128)),
        }
    }

    /// The mean of amounts, rounded to the nearest billionth, a half upwards; `None` of none.
    pub fn mean(amounts: &[Self]) -> Option<Self> {
        let count = i128::try_from(amounts.len()).ok().filter(|it| *it > 0)?;
        let sum: Self = amounts.iter().copied().sum();
        Some(Self((2 * sum.0 + count).div_euclid(2 * count)))
    }

    /// The amount as a floating point number, for estimates and for nothing else.
    pub fn estimate(self) -> f64 {
        self.0 as f64 / ONE as f64
    }

    /// The amount nearest to an estimate, not below 0 and not beyond what an amount can be.
    pub fn of_estimate(estimate: f64) -> Self {
        Self(((estimate * ONE as f64).round() as i128).clamp(0, LIMIT - 1))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (
            self.0.unsigned_abs() / ONE as u128,
            self.0.unsigned_abs() % ONE as u128,
        );
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction == 0 {
            return write!(out, "{sign}{whole}");
        }
        let fraction = format!("{fraction:09}");
        write!(out, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::add)
    }
}

/// A number in JSON, digit by digit as it is written: never through floating point.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap_or(Amount::from_billionths(i128::MIN))
    }

    #[test]
    fn reads_and_writes_decimals_exactly() {
        for (text, shown) in [
            ("0", "0"),
            ("0.1", "0.1"),
            ("0.100000000000", "0.1"),
            ("-3.000000001", "-3.000000001"),
            ("12345678901234567.999999999", "12345678901234567.999999999"),
        ] {
            assert_eq!(amount(text).to_string(), shown);
        }
        assert_eq!(amount("0.1") + amount("0.2"), amount("0.3"));
    }

    #[test]
    fn refuses_what_is_no_amount() {
        for (text, error) in [
            ("NaN", AmountError::NotFinite),
            ("Infinity", AmountError::NotFinite),
            ("-Infinity", AmountError::NotFinite),
            ("", AmountError::NotFinite),
            ("1e3", AmountError::NotFinite),
            ("\"1\"", AmountError::NotFinite),
            ("0.0000000001", AmountError::TooFine),
            ("1000000000000000000", AmountError::TooLarge),
            (&"9".repeat(1000), AmountError::TooLarge),
        ] {
            assert_eq!(Amount::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn counters_are_read_beyond_what_one_amount_is() {
        let counter = |text: &str| Amount::parse_counter(text).map(|it| it.to_string());
        let most = format!("{}.{}", "9".repeat(28), "9".repeat(9));
        assert_eq!(counter(&most), Ok(most));
        assert_eq!(
            counter("2700000000000000000.1"),
            Ok("2700000000000000000.1".to_owned())
        );
        assert_eq!(
            counter(&format!("1{}", "0".repeat(28))),
            Err(AmountError::TooLarge)
        );
    }

    #[test]
    fn digits_are_the_smallest_decimals() {
        for (text, digits) in [
            ("0", (0, 0)),
            ("1200", (1200, 0)),
            ("-0.9", (-9, 1)),
            ("3.000000001", (3_000_000_001, 9)),
        ] {
            assert_eq!(amount(text).digits(), digits, "{text}");
        }
    }

    #[test]
    fn means_round_to_the_nearest_billionth() {
        let mean = |texts: &[&str]| {
            let amounts: Vec<_> = texts.iter().map(|text| amount(text)).collect();
            Amount::mean(&amounts).map(|mean| mean.to_string())
        };
        assert_eq!(mean(&["1", "1", "2"]).as_deref(), Some("1.333333333"));
        assert_eq!(mean(&["1", "2", "2"]).as_deref(), Some("1.666666667"));
        assert_eq!(mean(&["0.000000001", "0"]).as_deref(), Some("0.000000001"));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn json_numbers_keep_all_digits() {
        let amounts = [amount("0.1"), amount("12345678901234567.123456789")];
        let json = serde_json::to_string(&amounts);
        assert_eq!(
            json.ok().as_deref(),
            Some("[0.1,12345678901234567.123456789]")
        );
    }
}
