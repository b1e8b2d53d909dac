//! The server's `numeric` as an element of a document (`numeric.c`, the same in PostgreSQL 9.1 to 18).
//!
//! A varlena with the four-byte header, in which lie: sign, scale and weight in one word of two bytes if they fit
//! it, else in two; then the digits, of base 10,000 and two bytes each. The weight is the power of 10,000 that the
//! first digit counts, the scale the number of decimals that are shown.

use crate::format::first_word;

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
