//! Intervals that callers give: how long they are, and which are taken.
//!
//! An interval is checked where it is given, so that no later sum of a time and it is beyond what a timestamp can
//! say: all its parts together, whatever their signs, make at most [`LONGEST`]. What was put into the tables by
//! hand may be longer; a time after that never comes.

use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CStr;

const DAY: i64 = 86_400_000_000;
/// The longest interval, in words and in microseconds: of months of 30 days, as PostgreSQL compares intervals.
const LONGEST: &str = "5000 years";
const LONGEST_MICROSECONDS: i64 = 5000 * 12 * 30 * DAY;

/// What a change does to the time to live that a state remembers.
#[derive(Debug, Clone, Copy)]
pub enum Ttl {
    /// It stays as it is.
    Keep,
    /// It becomes this; `None` where the state was given none.
    Is(Option<pg_sys::Interval>),
}

impl Ttl {
    /// Bits of the packed form: what kind it is.
    const KIND: u32 = 62;
    /// The same: months above days above seconds, of 17, 21 and 24 bits.
    const SECONDS: u32 = 24;
    const DAYS: u32 = 21;

    /// What both come to, if a change with the second follows.
    pub fn followed_by(self, next: Self) -> Self {
        match next {
            Self::Keep => self,
            Self::Is(_) => next,
        }
    }

    /// What becomes of it where there was no state: nothing is remembered from before.
    pub fn of_new(self) -> Self {
        Self::Is(None).followed_by(self)
    }

    /// The new value of the column, if it is another: a pointer into this.
    pub fn value(&self) -> Option<Option<pg_sys::Datum>> {
        match self {
            Self::Keep => None,
            Self::Is(ttl) => Some(
                ttl.as_ref()
                    .map(|ttl| pg_sys::Datum::from(std::ptr::from_ref(ttl))),
            ),
        }
    }

    /// Itself in 64 bits, for L1, which keeps it beside what the tables do not hold yet; `None` for a time to live
    /// that does not fit: one of microseconds beside days or months, or with parts of different signs.
    pub fn packed(&self) -> Option<u64> {
        let (kind, bits) = match *self {
            Self::Keep => (0, 0),
            Self::Is(None) => (1, 0),
            Self::Is(Some(pg_sys::Interval {
                time,
                day: 0,
                month: 0,
            })) => (2, u64::try_from(time).ok()?),
            Self::Is(Some(pg_sys::Interval { time, day, month })) => {
                let (months, days) = (u64::try_from(month).ok()?, u64::try_from(day).ok()?);
                let time = u64::try_from(time).ok()?;
                let seconds = time / 1_000_000;
                let fits = time % 1_000_000 == 0
                    && seconds >> Self::SECONDS == 0
                    && days >> Self::DAYS == 0;
                let above = Self::SECONDS + Self::DAYS;
                (
                    3,
                    fits.then_some(months << above | days << Self::SECONDS | seconds)?,
                )
            }
        };
        (bits >> Self::KIND == 0).then_some(kind << Self::KIND | bits)
    }

    /// What was packed.
    pub fn unpacked(packed: u64) -> Self {
        let bits = |from: u32, count: u32| packed >> from & ((1 << count) - 1);
        match packed >> Self::KIND {
            0 => Self::Keep,
            1 => Self::Is(None),
            2 => Self::Is(Some(pg_sys::Interval {
                time: bits(0, Self::KIND) as i64,
                day: 0,
                month: 0,
            })),
            _ => Self::Is(Some(pg_sys::Interval {
                time: bits(0, Self::SECONDS) as i64 * 1_000_000,
                day: bits(Self::SECONDS, Self::DAYS) as i32,
                month: bits(Self::SECONDS + Self::DAYS, 17) as i32,
            })),
        }
    }
}

/// The length of an interval as PostgreSQL compares intervals: months of 30 days, days of 24 hours.
pub fn microseconds(interval: &pg_sys::Interval) -> i64 {
    let days = i64::from(interval.month) * 30 + i64::from(interval.day);
    days.saturating_mul(DAY).saturating_add(interval.time)
}

/// Whether its parts together are no longer than [`LONGEST`]. None that PostgreSQL 17 calls infinite is.
fn is_bounded(interval: &pg_sys::Interval) -> bool {
    let days =
        i64::from(interval.month.unsigned_abs()) * 30 + i64::from(interval.day.unsigned_abs());
    let time = interval.time.saturating_abs();
    days.saturating_mul(DAY).saturating_add(time) <= LONGEST_MICROSECONDS
}

/// `22023` for an interval that is longer than any caller may give.
fn check_bounded(name: &str, interval: &pg_sys::Interval, none: &'static str) -> Result<()> {
    if is_bounded(interval) {
        return Ok(());
    }
    Err(Error::Argument {
        message: format!(
            "{name} must not be longer than {LONGEST}: {}",
            text(interval)
        ),
        hint: Some(none),
    })
}

/// `22023` unless it is positive and not too long. `none` says how a caller says that there is to be no end.
pub fn check_positive(name: &str, interval: &pg_sys::Interval, none: &'static str) -> Result<()> {
    if microseconds(interval) <= 0 {
        return Err(Error::argument(format!(
            "{name} must be positive: {}",
            text(interval)
        )));
    }
    check_bounded(name, interval, none)
}

/// `22023` if it is negative or too long.
pub fn check_not_negative(
    name: &str,
    interval: &pg_sys::Interval,
    none: &'static str,
) -> Result<()> {
    if microseconds(interval) < 0 {
        return Err(Error::argument(format!(
            "{name} must not be negative: {}",
            text(interval)
        )));
    }
    check_bounded(name, interval, none)
}

/// A time plus an interval, as PostgreSQL adds them; no time for an interval that nobody could give.
pub fn after(at: i64, interval: &pg_sys::Interval) -> i64 {
    if !is_bounded(interval) {
        return i64::MAX;
    }
    let mut interval = *interval;
    let arguments = [
        Some(pg_sys::Datum::from(at)),
        Some(pg_sys::Datum::from(&raw mut interval)),
    ];
    let add = pg_sys::timestamptz_pl_interval;
    // SAFETY: timestamptz_pl_interval takes a timestamptz by value and an interval by pointer.
    let sum = unsafe { pgrx::direct_function_call::<i64>(add, &arguments) };
    sum.unwrap_or(i64::MAX)
}

/// An interval as PostgreSQL writes it.
fn text(interval: &pg_sys::Interval) -> String {
    let mut interval = *interval;
    let argument = Some(pg_sys::Datum::from(&raw mut interval));
    // SAFETY: interval_out takes an interval by pointer and gives a NUL-terminated text in ASCII.
    unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::interval_out, &[argument])
            .map(|text| {
                CStr::from_ptr(text.cast_mut_ptr())
                    .to_string_lossy()
                    .into_owned()
            })
            .unwrap_or_default()
    }
}
