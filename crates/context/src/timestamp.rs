//! Timestamps as RFC 3339 writes them.

const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// The first and the last time that RFC 3339 can express in UTC: those of the years 0 and 9999.
const FIRST: i64 = -62_167_219_200_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// The time as text, in UTC and with all six decimals: `2026-11-21T09:17:05.123456Z`. A time that a text in another zone
/// means, but none in UTC, becomes the next that one does: what is written can always be read.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    let micros = micros.clamp(FIRST, LAST);
    let seconds = micros.div_euclid(MICROS);
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        micros.rem_euclid(MICROS)
    )
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
    let year = number(&front[..4])?;
    let month = number(&front[5..7])?;
    let day = number(&front[8..10])?;
    let hour = number(&front[11..13])?;
    let minute = number(&front[14..16])?;
    let second = number(&front[17..])?;
    if !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
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
    let local = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    Some((local - offset(zone)?) * MICROS + micros)
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

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of January of a year.
fn year_days(year: i64) -> i64 {
    // Leap years before this one, from the year 1 on; the year 0 is behind a whole cycle of 400.
    let leaps = |year: i64| {
        let before = year - 1;
        before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400)
    };
    365 * (year - 1970) + leaps(year) - leaps(1970)
}

/// Days from 1970-01-01 to a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    year_days(year) + months + day - 1
}

/// Year, month and day of a number of days from 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    // A year has 365.2425 days on average, so this is at most one off.
    let mut year = 1970 + (days * 400).div_euclid(146_097);
    while year_days(year) > days {
        year -= 1;
    }
    while year_days(year + 1) <= days {
        year += 1;
    }
    let mut rest = days - year_days(year);
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn every_day_of_ten_thousand_years_is_read_back() {
        let (first, last) = (year_days(0), year_days(10_000));
        let mut text = String::new();
        for day in first..last {
            let micros = day * DAY * MICROS + day.rem_euclid(DAY * MICROS);
            let next = rfc3339(micros);
            assert_eq!(parse_rfc3339(next.as_bytes()), Some(micros), "{next}");
            assert!(text < next, "{text} is not before {next}");
            text = next;
        }
        assert!(text.starts_with("9999-12-31T"));
        // No input has it run into an overflow.
        for (micros, text) in [(i64::MIN, FIRST), (i64::MAX, LAST)] {
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
