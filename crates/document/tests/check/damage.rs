//! Each rule, broken by itself.

use state_cache_document::DocumentError::Damaged;

use crate::{check, words};

const ARRAY: u32 = 0x4000_0000;
const OBJECT: u32 = 0x2000_0000;
const SCALAR: u32 = 0x5000_0001;
const END: u32 = 0x8000_0000;
const NUMERIC: u32 = 0x1000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;

/// Words, and data behind them.
fn document(front: &[u32], data: &[u8]) -> Vec<u8> {
    [&words(front), data].concat()
}

#[test]
fn what_holds_a_document_together_is_checked() {
    for (what, bytes) in [
        ("nothing", vec![]),
        ("half a header", vec![0, 0]),
        ("no shape", words(&[0])),
        ("two shapes", words(&[ARRAY | OBJECT])),
        ("a reserved flag", words(&[END | ARRAY])),
        (
            "an object of a scalar",
            words(&[OBJECT | SCALAR, END | NULL, NULL]),
        ),
        ("a scalar of none", words(&[SCALAR - 1])),
        ("a scalar of two", words(&[SCALAR + 1, END | NULL, NULL])),
        (
            "a scalar that is a container",
            words(&[SCALAR, END | CONTAINER | 4, ARRAY]),
        ),
        (
            "a scalar within",
            words(&[ARRAY | 1, END | CONTAINER | 8, SCALAR, END | NULL]),
        ),
        (
            "more elements than bytes",
            words(&[ARRAY | 200_000_000, END | NULL]),
        ),
        (
            "the most pairs there can be",
            words(&[OBJECT | 0x0FFF_FFFF, END]),
        ),
        ("a pair without value", words(&[OBJECT | 1, END])),
        ("no end at the first", words(&[ARRAY | 1, NULL])),
        (
            "an end at the second",
            words(&[ARRAY | 2, END | NULL, END | NULL]),
        ),
        ("data beyond the last", words(&[ARRAY | 1, END | NULL, 0])),
        (
            "an element beyond the data",
            document(&[ARRAY | 1, END | 9], b"abcdefgh"),
        ),
        (
            "a length beyond the data",
            document(&[ARRAY | 2, END | 4, 0x0FFF_FFFF], b"abcd"),
        ),
        (
            "a kind that is none",
            words(&[ARRAY | 1, END | 0x6000_0000]),
        ),
        (
            "a null with data",
            document(&[ARRAY | 1, END | NULL | 4], &[0; 4]),
        ),
        (
            "a true with data",
            document(&[ARRAY | 1, END | TRUE | 4], &[0; 4]),
        ),
        (
            "an empty container without header",
            words(&[ARRAY | 1, END | CONTAINER]),
        ),
        (
            "a container that is too long",
            words(&[ARRAY | 1, END | CONTAINER | 8, ARRAY, 0]),
        ),
        (
            "a container without padding",
            [
                &document(&[ARRAY | 2, END | 1, CONTAINER | 4], b"a")[..],
                &words(&[ARRAY]),
            ]
            .concat(),
        ),
        (
            "padding that is not zero",
            [
                &document(&[ARRAY | 2, END | 1, CONTAINER | 7], b"a\0\x01\0")[..],
                &words(&[ARRAY]),
            ]
            .concat(),
        ),
        (
            "padding that is cut",
            document(&[ARRAY | 2, END | 1, CONTAINER | 1], b"a\0"),
        ),
        (
            "half a character",
            document(&[ARRAY | 1, END | 2], b"a\xc3"),
        ),
        (
            "a surrogate",
            document(&[ARRAY | 1, END | 3], b"\xed\xa0\x80"),
        ),
        ("a NUL", document(&[ARRAY | 1, END | 3], b"a\0b")),
        (
            "a NUL among others",
            document(&[ARRAY | 1, END | 3], b"\xc3\xa9\0"),
        ),
        (
            "a NUL in a key",
            document(&[OBJECT | 1, END | 1, NULL], b"\0"),
        ),
        ("a key that is none", words(&[OBJECT | 1, END | NULL, NULL])),
        (
            "a key twice",
            document(&[OBJECT | 2, END | 1, 1, NULL, NULL], b"aa"),
        ),
        (
            "the empty key twice",
            words(&[OBJECT | 2, END, 0, NULL, NULL]),
        ),
        (
            "keys that descend",
            document(&[OBJECT | 2, END | 1, 1, NULL, NULL], b"ba"),
        ),
        (
            "the longer key first",
            document(&[OBJECT | 2, END | 2, 1, NULL, NULL], b"aab"),
        ),
    ] {
        assert_eq!(check(&bytes), Err(Damaged), "{what}");
    }
}

/// An end every 32 elements, in an array of strings of which the last are empty.
#[test]
fn offsets_do_not_go_back() {
    let array = |end: u32| {
        let mut front = vec![ARRAY | 34, END | 1, 1];
        front.extend([0; 30]);
        front.extend([END | end, 0]);
        document(&front, b"ab")
    };
    assert_eq!(check(&array(2)), Ok(()));
    for end in [0, 1, 3] {
        assert_eq!(check(&array(end)), Err(Damaged), "{end}");
    }
}

#[test]
fn no_document_is_longer_than_a_length_field_holds() {
    let array = |first: u32| {
        let front = words(&[ARRAY | 2, END | first, 1]);
        let data = vec![b' '; first as usize + 1];
        [front, data].concat()
    };
    let most = 0x0FFF_FFFF - 12 - 1;
    assert_eq!(check(&array(most)), Ok(()));
    assert_eq!(check(&array(most + 1)), Err(Damaged));
}

/// A number of these words of two bytes.
fn number(header: u32, number: &[u16]) -> Vec<u8> {
    let data: Vec<u8> = number.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = u32::try_from(4 + data.len()).unwrap();
    document(&[SCALAR, END | NUMERIC | length, header], &data)
}

fn varlena(words: usize) -> u32 {
    let length = u32::try_from(4 + 2 * words).unwrap();
    if cfg!(target_endian = "little") {
        length << 2
    } else {
        length
    }
}

#[test]
fn numbers_are_as_numeric_in_builds_them() {
    for (what, words) in [
        ("one", &[0x8000, 1][..]),
        ("minus one", &[0xA000, 1]),
        ("zero", &[0x8000]),
        ("zero of four decimals", &[0x8200]),
        ("zero of 64 decimals", &[0x0040, 0]),
        ("weight 64", &[0x0000, 64, 1]),
        ("minus weight 64", &[0x4000, 64, 1]),
        ("weight -64 of 256 decimals", &[0x0100, 0xFFC0, 1]),
        ("0.1", &[0x80FF, 1000]),
        ("0.0001", &[0x827F, 1]),
        ("1.5", &[0x8080, 1, 5000]),
    ] {
        assert_eq!(
            check(&number(varlena(words.len()), words)),
            Ok(()),
            "{what}"
        );
    }
    for (what, words) in [
        ("no header", &[][..]),
        ("NaN", &[0xC000]),
        ("infinity", &[0xD000]),
        ("minus infinity", &[0xF000]),
        ("NaN with a digit", &[0xC000, 1]),
        ("the long form without weight", &[0x0000]),
        ("the long form where the short one does", &[0x0000, 0, 1]),
        ("the long form of minus one", &[0x4000, 0, 1]),
        ("minus zero", &[0xA000]),
        ("zero with a weight", &[0x8001]),
        ("a zero at the front", &[0x8001, 0, 1]),
        ("a zero at the end", &[0x8001, 1, 0]),
        ("only a zero", &[0x8000, 0]),
        ("a digit of 10,000", &[0x8000, 10_000]),
        ("a digit of 10,000 within", &[0x8002, 1, 10_000, 1]),
        ("a negative digit", &[0x8000, 0xFFFF]),
        ("a digit behind the scale", &[0x8000, 1, 5000]),
        ("a decimal behind the scale", &[0x8080, 1, 5500]),
        ("two decimals behind the scale", &[0x8100, 1, 5050]),
        ("three decimals behind the scale", &[0x8080, 1, 1]),
    ] {
        let bytes = number(varlena(words.len()), words);
        assert_eq!(check(&bytes), Err(Damaged), "{what}");
    }
    for (what, header) in [
        ("a length too large", varlena(3)),
        ("a length too small", varlena(1)),
        ("a length of nothing", 0),
        ("the short header", 0x0000_0011),
        ("an external one", 0x0000_1201),
        ("a compressed one", varlena(2) | 2),
    ] {
        assert_eq!(check(&number(header, &[0x8000, 1])), Err(Damaged), "{what}");
    }
    // A byte more, which the length counts.
    let mut odd = number(varlena(2) + 4, &[0x8000, 1]);
    odd.push(0);
    odd[4] += 1;
    assert_eq!(check(&odd), Err(Damaged));
}
