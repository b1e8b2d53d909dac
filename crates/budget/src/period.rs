//! Periods of a budget: when its counters begin anew.

use std::fmt;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// Microseconds from the start of PostgreSQL's time, 2000-01-01, to that of periods which are no months: the Monday
/// after it, so that weeks begin on Mondays.
const ORIGIN: i64 = 2 * DAY;
/// The shortest period.
const SHORTEST: i64 = 1_000_000;

/// How long a budget's counters count. Everything is in UTC: sessions of different time zones count alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// For ever.
    Endless,
    /// So many months of the calendar, counted from January 2000.
    Months(i32),
    /// So many microseconds, counted from 2000-01-03.
    Every(i64),
}

/// Why an interval is no period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeriodError {
    /// It is not positive, or has positive and negative parts.
    NotPositive,
    /// It has months and days.
    Mixed,
    /// It is shorter than a second.
    TooShort,
}

impl fmt::Display for PeriodError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotPositive => "must be positive",
            Self::Mixed => "must be made of months, or of days and shorter units, not of both",
            Self::TooShort => "must be at least a second",
        })
    }
}

impl std::error::Error for PeriodError {}

impl Period {
    /// The period of an interval, as PostgreSQL keeps one.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn of_interval(months: i32, days: i32, microseconds: i64) -> Result<Self, PeriodError> {
        let rest = i64::from(days)
            .saturating_mul(DAY)
            .saturating_add(microseconds);
        match (months, rest) {
            (0, 1..SHORTEST) => Err(PeriodError::TooShort),
            (0, SHORTEST..) => Ok(Self::Every(rest)),
            (1.., 0) => Ok(Self::Months(months)),
            (1.., 1..) => Err(PeriodError::Mixed),
            _ => Err(PeriodError::NotPositive),
        }
    }

    /// When the period began that a time belongs to; `None` for [`Period::Endless`]. Times are microseconds since
    /// 2000-01-01 in UTC.
    pub fn start(self, at: i64) -> Option<i64> {
        match self {
            Self::Endless => None,
            Self::Every(length) => {
                let since = (at.saturating_sub(ORIGIN)).rem_euclid(length);
                Some(at.saturating_sub(since))
            }
            Self::Months(count) => {
                let months = i64::from(count.max(1));
                let number = month_number(at.div_euclid(DAY)).div_euclid(months) * months;
                Some(first_day(number) * DAY)
            }
        }
    }

    /// When the period ends that a time belongs to; `None` for [`Period::Endless`].
    pub fn end(self, at: i64) -> Option<i64> {
        let start = self.start(at)?;
        Some(match self {
            Self::Endless => return None,
            Self::Every(length) => start.saturating_add(length),
            Self::Months(count) => {
                let number = month_number(start.div_euclid(DAY)) + i64::from(count.max(1));
                first_day(number) * DAY
            }
        })
    }
}

/// Days from 0000-03-01 to 2000-01-01.
const EPOCH: i64 = 730_425;
/// Days of 400 years, after which the calendar repeats itself.
const ERA: i64 = 146_097;

/// The months from January 2000 to the one that a day belongs to; days are counted from 2000-01-01.
fn month_number(day: i64) -> i64 {
    // Years that begin in March end with the leap day.
    let day = day + EPOCH;
    let (era, day) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (era * 400 + year - 2000) * 12 + month + 2
}

/// The first day of the month that comes so many months after January 2000.
fn first_day(number: i64) -> i64 {
    let from_march = number - 2;
    let (year, month) = (from_march.div_euclid(12) + 2000, from_march.rem_euclid(12));
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    era * ERA + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day of the calendar, counted naively from 2000-01-01.
    fn days(year: i64, month: usize, day: i64) -> i64 {
        let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = |year| {
            let february = if is_leap(year) { 29 } else { 28 };
            [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let years: i64 = match year >= 2000 {
            true => (2000..year)
                .map(|year| lengths(year).iter().sum::<i64>())
                .sum(),
            false => -(year..2000)
                .map(|year| lengths(year).iter().sum::<i64>())
                .sum::<i64>(),
        };
        years + lengths(year)[..month - 1].iter().sum::<i64>() + day - 1
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        for year in [1899, 1900, 1999, 2000, 2001, 2024, 2026, 2100, 2400] {
            for month in 1..=12 {
                let first = days(year, month, 1);
                assert_eq!(first_day((year - 2000) * 12 + month as i64 - 1), first);
                for day in [1, 2, 27, 28] {
                    let at = days(year, month, day) * DAY + 12_345;
                    assert_eq!(Period::Months(1).start(at), Some(first * DAY));
                    assert!(Period::Months(1).end(at) > Some(at));
                }
            }
        }
        let quarter = Period::Months(3).start(days(2026, 11, 30) * DAY);
        assert_eq!(quarter, Some(days(2026, 10, 1) * DAY));
        assert_eq!(
            Period::Months(1).end(days(2026, 12, 31) * DAY),
            Some(days(2027, 1, 1) * DAY)
        );
    }

    #[test]
    fn other_periods_follow_each_other_without_gaps() {
        for length in [SHORTEST, 3_600_000_000, DAY, 7 * DAY, 12_345_678_901] {
            let period = Period::Every(length);
            for at in [-5 * DAY, -1, 0, 1, ORIGIN - 1, ORIGIN, 9_000 * DAY + 77] {
                let (start, end) = (period.start(at).unwrap_or(0), period.end(at).unwrap_or(0));
                assert!(start <= at && at < end && end - start == length);
                assert_eq!(
                    (period.start(end), period.start(end - 1)),
                    (Some(end), Some(start))
                );
            }
        }
        // A Monday.
        assert_eq!(
            Period::Every(7 * DAY).start(days(2026, 11, 30) * DAY + 5),
            Some(days(2026, 11, 30) * DAY)
        );
        assert_eq!(Period::Every(DAY).start(DAY - 1), Some(0));
        assert_eq!(Period::Endless.start(5), None);
    }

    #[test]
    fn intervals_that_are_no_periods_are_refused() {
        assert_eq!(Period::of_interval(1, 0, 0), Ok(Period::Months(1)));
        assert_eq!(Period::of_interval(0, 1, 0), Ok(Period::Every(DAY)));
        assert_eq!(Period::of_interval(1, 1, 0), Err(PeriodError::Mixed));
        assert_eq!(Period::of_interval(0, 0, 5), Err(PeriodError::TooShort));
        for (months, days, time) in [(0, 0, 0), (0, -1, 0), (-1, 40, 0), (1, -1, 0)] {
            assert_eq!(
                Period::of_interval(months, days, time),
                Err(PeriodError::NotPositive)
            );
        }
    }
}
