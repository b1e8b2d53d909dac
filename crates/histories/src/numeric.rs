//! The server's `numeric`, as it lies in jsonb behind its length (`numeric.c`): signs, scale and weight in
//! two or four bytes, then digits of base 10,000 without zeros at either end.

const SHORT: u16 = 0x8000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_SCALE_SHIFT: u16 = 7;
const SHORT_MAX_SCALE: usize = 0x3F;
const SHORT_WEIGHT_NEGATIVE: u16 = 0x0040;
const SHORT_WEIGHT: u16 = 0x003F;
const NEGATIVE: u16 = 0x4000;
const SCALE: u16 = 0x3FFF;

/// Decimal digits in one digit of base 10,000.
const GROUP: usize = 4;

/// The bytes behind the length. `None` for what is no JSON number or does not fit.
pub fn encode(spelling: &str) -> Option<Vec<u8>> {
    let (negative, rest) = match spelling.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, spelling),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, i64::from(exponent.parse::<i32>().ok()?)),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut decimals = whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !decimals.all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = i64::try_from(fraction.len()).ok()? - exponent;
    let scale = usize::try_from(scale.max(0)).ok()?;

    // The decimal point comes to stand between two groups.
    let point = i64::try_from(whole.len()).ok()? + exponent;
    let front = usize::try_from((-point).rem_euclid(4)).ok()?;
    let mut decimals = vec![b'0'; front];
    decimals.extend(whole.bytes().chain(fraction.bytes()));
    decimals.resize(decimals.len().next_multiple_of(GROUP), b'0');
    let mut weight = (point + i64::try_from(front).ok()?) / 4 - 1;

    let mut digits = Vec::new();
    for group in decimals.chunks(GROUP) {
        digits.push(str::from_utf8(group).ok()?.parse::<u16>().ok()?);
    }
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..zeros);
    weight -= i64::try_from(zeros).ok()?;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    if digits.is_empty() {
        weight = 0;
    }
    let negative = negative && !digits.is_empty();

    let mut bytes = Vec::new();
    if scale <= SHORT_MAX_SCALE && (-64..64).contains(&weight) {
        let scale = u16::try_from(scale).ok()? << SHORT_SCALE_SHIFT;
        let sign = if negative { SHORT_NEGATIVE } else { 0 };
        // Two's complement in seven bits.
        let weight = u16::try_from(weight.rem_euclid(128)).ok()?;
        bytes.extend((SHORT | sign | scale | weight).to_ne_bytes());
    } else {
        let scale = u16::try_from(scale).ok().filter(|scale| *scale <= SCALE)?;
        let sign = if negative { NEGATIVE } else { 0 };
        bytes.extend((sign | scale).to_ne_bytes());
        bytes.extend(i16::try_from(weight).ok()?.to_ne_bytes());
    }
    for digit in digits {
        bytes.extend(digit.to_ne_bytes());
    }
    Some(bytes)
}

/// The number as the server spells it. `None` for what it did not write.
pub fn decode(bytes: &[u8]) -> Option<String> {
    let (words, []) = bytes.as_chunks::<2>() else {
        return None;
    };
    let words: Vec<u16> = words.iter().map(|word| u16::from_ne_bytes(*word)).collect();
    let (header, rest) = words.split_first()?;
    let (negative, scale, weight, digits) = match header & 0xC000 {
        SHORT => {
            let low = i64::from(header & SHORT_WEIGHT);
            let negative_weight = header & SHORT_WEIGHT_NEGATIVE != 0;
            let weight = if negative_weight { low - 64 } else { low };
            let scale = usize::from(header >> SHORT_SCALE_SHIFT) & SHORT_MAX_SCALE;
            (header & SHORT_NEGATIVE != 0, scale, weight, rest)
        }
        0 | NEGATIVE => {
            let (weight, digits) = rest.split_first()?;
            let weight = i64::from(weight.cast_signed());
            let scale = usize::from(header & SCALE);
            (header & NEGATIVE != 0, scale, weight, digits)
        }
        // Infinities and NaN, which JSON has not.
        _ => return None,
    };
    let group = |place: i64| {
        let digit = usize::try_from(place).ok().and_then(|at| digits.get(at));
        format!("{:04}", digit.copied().unwrap_or(0))
    };
    let whole: String = (0..=weight).map(group).collect();
    let whole = whole.trim_start_matches('0');
    // Places before the first digit are zeros too.
    let groups = i64::try_from(scale.div_ceil(GROUP)).ok()?;
    let mut fraction: String = (weight + 1..=weight + groups).map(group).collect();
    fraction.truncate(scale);
    let sign = if negative { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_as_the_server_spells_them() {
        for (spelling, server) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("0e5", "0"),
            ("0e-3", "0.000"),
            ("1.0", "1.0"),
            ("1.00", "1.00"),
            ("-10000", "-10000"),
            ("1e4", "10000"),
            ("1E+2", "100"),
            ("1.5e-3", "0.0015"),
            ("0.00001", "0.00001"),
            ("12345.6789", "12345.6789"),
            ("100.250e1", "1002.50"),
        ] {
            let bytes = encode(spelling);
            let read = bytes.as_deref().and_then(decode);
            assert_eq!(read.as_deref(), Some(server), "{spelling}");
        }
        let huge = encode("-1e400").as_deref().and_then(decode);
        assert_eq!(huge, Some(format!("-1{}", "0".repeat(400))));
        let tiny = encode("7e-300").as_deref().and_then(decode);
        assert_eq!(tiny, Some(format!("0.{}7", "0".repeat(299))));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for spelling in ["", "-", "x", "+1", "1e", "1.x", "1e99999999", "1e-20000"] {
            assert_eq!(encode(spelling), None, "{spelling}");
        }
        assert_eq!(decode(&[0]), None);
        assert_eq!(decode(&0xC000_u16.to_ne_bytes()), None, "NaN");
    }
}
