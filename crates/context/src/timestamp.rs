//! Timestamps as RFC 3339 writes them.
//!
//! `jiff` knows the calendar. The grammar is ours: `jiff` reads more than RFC 3339 has, takes a leap second for the
//! second before, and its timestamps end a day before the year 9999 does.

use jiff::civil::DateTime;
use jiff::{SignedDuration, civil};

/// The time from which microseconds are counted.
const EPOCH: DateTime = civil::date(1970, 1, 1).at(0, 0, 0, 0);

/// The first and the last time that RFC 3339 can express in UTC: those of the years 0 and 9999.
const FIRST: DateTime = civil::date(0, 1, 1).at(0, 0, 0, 0);
const LAST: DateTime = civil::date(9999, 12, 31).at(23, 59, 59, 999_999_000);

/// The time as text, in UTC and with all six decimals: `2026-11-21T09:17:05.123456Z`. A time that a text in another
/// zone means, but none in UTC, becomes the next that one does: what is written can always be read.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    let nearest = if micros < 0 { FIRST } else { LAST };
    let time = EPOCH.checked_add(SignedDuration::from_micros(micros));
    let time = time.unwrap_or(nearest).clamp(FIRST, LAST);
    format!("{time:.6}Z")
}

/// The time that a text of RFC 3339 means; `None` for any other. Decimals beyond the sixth are dropped. A leap second
/// is the first second of the next minute, as PostgreSQL has it.
#[must_use]
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    let (front, rest) = text.split_first_chunk::<19>()?;
    for (place, expected) in [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")] {
        if front[place] != expected[0] {
            return None;
        }
    }
    if !matches!(front[10], b'T' | b't') {
        return None;
    }
    let year = i16::try_from(number(&front[..4])?).ok()?;
    let [month, day] = [two_digits(&front[5..7])?, two_digits(&front[8..10])?];
    let [hour, minute] = [two_digits(&front[11..13])?, two_digits(&front[14..16])?];
    let second = two_digits(&front[17..])?;
    let leap_second = i64::from(second == 60);
    let second = if second == 60 { 59 } else { second };
    let local = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let (decimals, zone) = match rest.split_first() {
        Some((b'.', rest)) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
            rest.split_at(digits.count())
        }
        _ => (&b"0"[..], rest),
    };
    if decimals.is_empty() {
        return None;
    }
    let micros = (0..6).fold(0, |micros, place| {
        let digit = decimals.get(place).map_or(0, |byte| byte - b'0');
        10 * micros + i64::from(digit)
    });
    let seconds = local.duration_since(EPOCH).as_secs() + leap_second;
    Some((seconds - offset(zone)?) * 1_000_000 + micros)
}

/// Seconds by which a zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match *zone {
        [b'Z' | b'z'] => return Some(0),
        [sign, a, b, b':', c, d] => (sign, number(&[a, b])?, number(&[c, d])?),
        _ => return None,
    };
    let ahead = hours * 3600 + minutes * 60;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => Some(ahead),
        b'-' => Some(-ahead),
        _ => None,
    }
}

/// A number of few digits, and of nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| 10 * number + i64::from(digit - b'0'))
    })
}

/// A number as `jiff` takes the fields of dates and times.
fn two_digits(digits: &[u8]) -> Option<i8> {
    i8::try_from(number(digits)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROS: i64 = 1_000_000;

    #[test]
    fn known_times() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            // Of `date -u -d ... +%s`.
            ("2026-11-21T09:17:05.123456Z", 1_795_252_625_123_456),
            ("2000-02-29T23:59:59.000000Z", 951_868_799_000_000),
            ("1900-03-01T00:00:00.000000Z", -2_203_891_200_000_000),
            ("0000-01-01T00:00:00.000000Z", -62_167_219_200_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(micros), "{text}");
            assert_eq!(rfc3339(micros), text);
        }
    }

    #[test]
    fn days_of_ten_thousand_years_are_read_back() {
        const DAY: i64 = 86_400;
        // Every fifth from 0000-01-01, and the last of 9999, as days from 1970-01-01.
        let mut text = String::new();
        for day in (-719_528..2_932_897).step_by(5).chain([2_932_896]) {
            let micros = day * DAY * MICROS + day.rem_euclid(DAY * MICROS);
            let next = rfc3339(micros);
            assert_eq!(parse_rfc3339(next.as_bytes()), Some(micros), "{next}");
            assert!(text < next, "{text} is not before {next}");
            text = next;
        }
        assert!(text.starts_with("9999-12-31T"));
        // No input has it run into an overflow.
        for (micros, text) in [
            (i64::MIN, -62_167_219_200_000_000),
            (i64::MAX, 253_402_300_799_999_999),
        ] {
            assert_eq!(parse_rfc3339(rfc3339(micros).as_bytes()), Some(text));
        }
    }

    #[test]
    fn a_time_of_another_zone_beyond_the_last_year_is_read_back() {
        for (text, written) in [
            ("9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:60Z", "9999-12-31T23:59:59.999999Z"),
            ("0000-01-01T00:00:00+00:01", "0000-01-01T00:00:00.000000Z"),
            ("0000-01-01T00:00:00-00:01", "0000-01-01T00:01:00.000000Z"),
        ] {
            let micros = parse_rfc3339(text.as_bytes());
            let found = micros.map(rfc3339);
            assert_eq!(found.as_deref(), Some(written), "{text}");
            assert!(parse_rfc3339(written.as_bytes()).is_some());
        }
    }

    #[test]
    fn forms_that_rfc_3339_has() {
        let expected = parse_rfc3339(b"2026-11-21T09:17:05Z");
        assert!(expected.is_some());
        for text in [
            "2026-11-21t09:17:05z",
            "2026-11-21T09:17:05.0Z",
            "2026-11-21T09:17:05.0000009999Z",
            "2026-11-21T09:17:05+00:00",
            "2026-11-21T09:17:05-00:00",
            "2026-11-21T14:47:05+05:30",
            "2026-11-20T23:17:05-10:00",
            "2026-11-21T09:16:60+00:00",
        ] {
            // The leap second is one that the others have five seconds after.
            let seconds = if text.contains(":60") { 5 } else { 0 };
            let found = parse_rfc3339(text.as_bytes()).map(|micros| micros + seconds * MICROS);
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(parse_rfc3339(b"1970-01-01T00:00:00.5Z"), Some(MICROS / 2));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T09:17:05",
            "2026-11-21 09:17:05Z",
            "2026-11-21T09:17:05.Z",
            "2026-11-21T09:17:05,5Z",
            "2026-11-21T09:17Z",
            "2026-11-21T09:17:05Z ",
            " 2026-11-21T09:17:05Z",
            "2026-11-21T09:17:05+0000",
            "2026-11-21T09:17:05+00",
            "2026-11-21T09:17:05+24:00",
            "2026-11-21T09:17:05+00:60",
            "2026-11-21T09:17:05 00:00",
            "2026-11-21T24:00:00Z",
            "2026-11-21T23:60:00Z",
            "2026-11-21T23:59:61Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-04-00T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "+026-11-21T09:17:05Z",
            "2026-1a-21T09:17:05Z",
            "infinity",
            "20226-11-21T09:17:05Z",
            "2026-11-21T09:17:05\u{e9}",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
        }
    }
}
