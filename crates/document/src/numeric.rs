//! The server's `numeric` as an element of a document (`numeric.c`, the same in PostgreSQL 9.1 to 18).
//!
//! A varlena with the four-byte header, in which lie: sign, scale and weight in one word of two bytes if they fit
//! it, else in two; then the digits, of base 10,000 and two bytes each. The weight is the power of 10,000 that the
//! first digit counts, the scale the number of decimals that are shown.

use crate::format::first_word;
use state_cache_memory::{Grow, OutOfMemory};

/// The two bits that say which of these a numeric is.
const FORM: u16 = 0xC000;
/// Sign, scale and weight in one word.
const SHORT: u16 = 0x8000;
/// They are in two words, and the sign is positive.
const LONG_POSITIVE: u16 = 0x0000;
/// They are in two words, and the sign is negative.
const LONG_NEGATIVE: u16 = 0x4000;

const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_SCALE: u16 = 0x1F80;
const SHORT_SCALE_SHIFT: u16 = 7;
/// The weight, in two's complement.
const SHORT_WEIGHT: u16 = 0x007F;
const SHORT_WEIGHT_SIGN: u16 = 0x0040;

const LONG_SCALE: u16 = 0x3FFF;

/// What the short form can hold: decimals, and powers of 10,000.
const SHORT_SCALES: core::ops::RangeInclusive<usize> = 0..=63;
const SHORT_WEIGHTS: core::ops::RangeInclusive<i32> = -64..=63;

/// The base of the digits.
const BASE: u16 = 10_000;
/// Decimals in one digit.
const DECIMALS: usize = 4;

/// Bytes of the varlena header.
const HEADER: usize = 4;

/// Whether `bytes` are one number as `numeric_in` builds it for a JSON number: the shorter form where it can be had,
/// no zero digit at either end, no digit behind the scale, zero without sign and weight, and finite.
pub(crate) fn is_canonical(bytes: &[u8]) -> bool {
    if varlena_length(bytes) != Some(bytes.len()) {
        return false;
    }
    let (words, rest) = bytes[HEADER..].as_chunks();
    let Some((header, mut digits)) = words.split_first() else {
        return false;
    };
    let header = u16::from_ne_bytes(*header);
    let (negative, scale, weight) = match header & FORM {
        SHORT => {
            let weight = i32::from(header & SHORT_WEIGHT);
            let borrow = i32::from(header & SHORT_WEIGHT_SIGN) * 2;
            let scale = usize::from((header & SHORT_SCALE) >> SHORT_SCALE_SHIFT);
            (header & SHORT_NEGATIVE != 0, scale, weight - borrow)
        }
        LONG_POSITIVE | LONG_NEGATIVE => {
            let Some((weight, behind)) = digits.split_first() else {
                return false;
            };
            digits = behind;
            let (scale, weight) = (
                usize::from(header & LONG_SCALE),
                i32::from(i16::from_ne_bytes(*weight)),
            );
            if SHORT_SCALES.contains(&scale) && SHORT_WEIGHTS.contains(&weight) {
                return false;
            }
            (header & FORM == LONG_NEGATIVE, scale, weight)
        }
        // Infinities and NaN, which JSON has not.
        _ => return false,
    };
    rest.is_empty() && digits_are_canonical(digits, negative, scale, weight)
}

/// Most decimals, and greatest exponent, of a number that is written here. The server's own limits are above: a
/// weight of 2^15 - 1, a scale of 2^14 - 1.
const MOST_DECIMALS: usize = 1000;

/// Appends the number that `spelling`, a number of JSON, stands for, as `numeric_in` builds it; `None` for what is
/// left to the server, and then nothing is appended.
///
/// # Errors
/// [`OutOfMemory`].
pub(crate) fn write(spelling: &[u8], out: &mut Vec<u8>) -> Result<Option<()>, OutOfMemory> {
    let Some(Spelled {
        negative,
        before,
        behind,
        exponent,
    }) = Spelled::of(spelling)
    else {
        return Ok(None);
    };
    let decimals = before.len() + behind.len();
    if decimals > MOST_DECIMALS {
        return Ok(None);
    }
    // Of all that follows nothing exceeds some thousands.
    let (length, scale) = (decimals as i32, behind.len() as i32 - exponent);
    // The power of ten that the first decimal counts, and the power of 10,000 that the first digit counts.
    let first = before.len() as i32 - 1 + exponent;
    let weight = first.div_euclid(DECIMALS as i32);
    // Decimals of the first digit that stand before the first decimal.
    let ahead = DECIMALS as i32 - 1 - first.rem_euclid(DECIMALS as i32);
    let count = (ahead + length).div_euclid(DECIMALS as i32)
        + i32::from((ahead + length).rem_euclid(DECIMALS as i32) != 0);
    let decimal = |place: i32| match usize::try_from(place) {
        Ok(place) if place < before.len() => u16::from(before[place] - b'0'),
        Ok(place) if place < decimals => u16::from(behind[place - before.len()] - b'0'),
        _ => 0,
    };
    let digit = |number: i32| {
        let place = number * DECIMALS as i32 - ahead;
        (place..place + DECIMALS as i32).fold(0, |digit, place| 10 * digit + decimal(place))
    };
    let leading = (0..count).take_while(|number| digit(*number) == 0).count() as i32;
    let trailing = (leading..count)
        .rev()
        .take_while(|number| digit(*number) == 0)
        .count() as i32;
    let digits = leading..count - trailing;
    let (negative, weight) = match digits.is_empty() {
        true => (false, 0),
        false => (negative, weight - leading),
    };
    put(
        out,
        negative,
        scale.max(0) as usize,
        weight,
        digits.map(digit),
    )?;
    Ok(Some(()))
}

/// The parts of a number as it is spelled.
struct Spelled<'a> {
    negative: bool,
    /// The digits before the point.
    before: &'a [u8],
    /// The digits behind the point.
    behind: &'a [u8],
    exponent: i32,
}

impl<'a> Spelled<'a> {
    /// The parts of a number of JSON; `None` where the exponent is beyond [`MOST_DECIMALS`].
    fn of(spelling: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match spelling.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, spelling),
        };
        let (mantissa, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&rest[..at], Self::exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (before, behind) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        Some(Self {
            negative,
            before,
            behind,
            exponent,
        })
    }

    fn exponent(spelling: &[u8]) -> Option<i32> {
        let exponent: i32 = core::str::from_utf8(spelling).ok()?.parse().ok()?;
        (exponent.unsigned_abs() as usize <= MOST_DECIMALS).then_some(exponent)
    }
}

/// Appends a number of these parts, in the shorter form where the number can have it.
fn put(
    out: &mut Vec<u8>,
    negative: bool,
    scale: usize,
    weight: i32,
    digits: impl ExactSizeIterator<Item = u16>,
) -> Result<(), OutOfMemory> {
    let is_short = SHORT_SCALES.contains(&scale) && SHORT_WEIGHTS.contains(&weight);
    let length = HEADER + if is_short { 2 } else { 4 } + 2 * digits.len();
    out.try_room(length)?;
    // A number of a few thousand decimals.
    let length = length as u32;
    let header = if cfg!(target_endian = "little") {
        length << 2
    } else {
        length
    };
    out.extend_from_slice(&header.to_ne_bytes());
    // Scale and weight are in the range of the form.
    let (scale, weight) = (scale as u16, weight as i16);
    if is_short {
        let sign = if negative { SHORT_NEGATIVE } else { 0 };
        let weight = weight.cast_unsigned() & SHORT_WEIGHT;
        let word = SHORT | sign | scale << SHORT_SCALE_SHIFT | weight;
        out.extend_from_slice(&word.to_ne_bytes());
    } else {
        let sign = if negative {
            LONG_NEGATIVE
        } else {
            LONG_POSITIVE
        };
        out.extend_from_slice(&(sign | scale).to_ne_bytes());
        out.extend_from_slice(&weight.to_ne_bytes());
    }
    for digit in digits {
        out.extend_from_slice(&digit.to_ne_bytes());
    }
    Ok(())
}

/// Whether a number with the four-byte header is below zero; zero has no sign.
pub(crate) fn is_negative(bytes: &[u8]) -> bool {
    let Some((header, _)) = bytes[HEADER.min(bytes.len())..].split_first_chunk() else {
        return false;
    };
    let header = u16::from_ne_bytes(*header);
    match header & FORM {
        SHORT => header & SHORT_NEGATIVE != 0,
        form => form == LONG_NEGATIVE,
    }
}

/// The whole number that a number with the four-byte header is; `None` for any other, and for one beyond 64 bits.
pub(crate) fn as_integer(bytes: &[u8]) -> Option<i64> {
    let (words, _) = bytes.get(HEADER..)?.as_chunks();
    let (header, mut digits) = words.split_first()?;
    let header = u16::from_ne_bytes(*header);
    let (negative, weight) = match header & FORM {
        SHORT => {
            let borrow = i32::from(header & SHORT_WEIGHT_SIGN) * 2;
            let weight = i32::from(header & SHORT_WEIGHT) - borrow;
            (header & SHORT_NEGATIVE != 0, weight)
        }
        form @ (LONG_POSITIVE | LONG_NEGATIVE) => {
            let (weight, behind) = digits.split_first()?;
            digits = behind;
            (
                form == LONG_NEGATIVE,
                i32::from(i16::from_ne_bytes(*weight)),
            )
        }
        // Infinities and NaN.
        _ => return None,
    };
    // Digits behind the point: none but zeros, which a canonical number has not.
    let before = usize::try_from(weight + 1).ok()?;
    if digits.len() > before && !digits.is_empty() {
        return None;
    }
    let mut number = 0i128;
    for place in 0..before {
        let digit = digits
            .get(place)
            .map_or(0, |digit| u16::from_ne_bytes(*digit));
        number = number
            .checked_mul(i128::from(BASE))?
            .checked_add(i128::from(digit))?;
    }
    i64::try_from(if negative { -number } else { number }).ok()
}

fn digits_are_canonical(digits: &[[u8; 2]], negative: bool, scale: usize, weight: i32) -> bool {
    let (Some(first), Some(last)) = (digits.first(), digits.last()) else {
        return !negative && weight == 0;
    };
    let last = u16::from_ne_bytes(*last);
    let in_base = |digit: &[u8; 2]| u16::from_ne_bytes(*digit) < BASE;
    if u16::from_ne_bytes(*first) == 0 || last == 0 || !digits.iter().all(in_base) {
        return false;
    }
    // Digits behind the decimal point, the last one not being zero; negative where it stands before.
    let Ok(behind) = i64::try_from(digits.len()).map(|count| count - 1 - i64::from(weight)) else {
        return false;
    };
    let Ok(behind) = usize::try_from(behind) else {
        return true;
    };
    let hidden = (behind * DECIMALS).saturating_sub(scale);
    match hidden {
        0 => true,
        1 => last.is_multiple_of(10),
        2 => last.is_multiple_of(100),
        3 => last.is_multiple_of(1000),
        _ => false,
    }
}

/// What the four-byte header of a varlena that is neither compressed nor elsewhere says of its length.
pub(crate) fn varlena_length(bytes: &[u8]) -> Option<usize> {
    let header = first_word(bytes)?;
    let (plain, length) = if cfg!(target_endian = "little") {
        (header & 0x03 == 0, header >> 2)
    } else {
        (header & 0xC000_0000 == 0, header & 0x3FFF_FFFF)
    };
    plain.then_some(length as usize)
}
