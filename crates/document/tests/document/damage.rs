//! Damaged bytes: refused where they matter, never a panic, never more output than input.

use serde_json::json;
use state_cache_document::DocumentError::Damaged;
use state_cache_document::{
    DocumentError, append, get_path, get_section, is_object, merge_patch, update, update_section,
};

use crate::chunked::Chunked;
use crate::encoder::encode;
use crate::random::Random;

/// Everything the crate can do with these bytes.
fn exercise(base: &[u8], other: &[u8], path: &[&[u8]]) {
    let bound = base.len() + other.len();
    let check = |result: Result<Vec<u8>, DocumentError>| {
        if let Ok(bytes) = result {
            // Each element may gain padding, and a document a header and an entry.
            assert!(
                bytes.len() <= 2 * bound + 16,
                "{} bytes from {bound}",
                bytes.len()
            );
        }
    };
    let source = Chunked::new(base, 64);
    check(get_path(&source, path).map(Option::unwrap_or_default));
    // At most 28 probes of three reads each on every level.
    assert!(
        source.calls.get() <= 90 * (path.len() + 1),
        "{} reads",
        source.calls.get()
    );
    assert_eq!(get_path(base, path), get_path(&source, path));
    let key = path.first().copied().unwrap_or_default();
    check(get_section(base, key));
    let updated = update(Some(base), other);
    assert!(updated.is_err() || is_object(base));
    check(updated);
    check(update(Some(other), base));
    check(update_section(Some(base), key, other));
    check(update_section(Some(other), key, base));
    check(merge_patch(Some(base), other, || {}));
    check(merge_patch(Some(other), base, || {}));
    check(append(Some(base), path, other));
    check(append(Some(other), path, base));
}

#[test]
fn flipped_bits_neither_panic_nor_grow() {
    let mut random = Random(6);
    for _ in 0..8_000 {
        let document = random.value(0);
        let other = random.updates(&document, 1);
        let (path, _) = random.path(&document);
        let path: Vec<&[u8]> = path.iter().map(String::as_bytes).collect();
        let mut bytes = encode(&document);
        for _ in 0..=random.below(6) {
            // Headers and entries lie at the front: most flips go there.
            let reach = if random.below(4) > 0 {
                bytes.len().min(200)
            } else {
                bytes.len()
            };
            let at = random.below(reach);
            bytes[at] ^= 1 << random.below(8);
        }
        exercise(&bytes, &encode(&other), &path);
    }
}

#[test]
fn cut_and_random_bytes_neither_panic_nor_grow() {
    let mut random = Random(7);
    let other = encode(&json!({"a": {"b": 1}}));
    for round in 0..30_000 {
        let bytes: Vec<u8> = if round % 2 == 0 {
            let mut whole = encode(&random.value(0));
            whole.truncate(random.below(whole.len() + 1));
            whole
        } else {
            // Words with small fields, which look like headers and entries more often than noise does.
            (0..random.below(60))
                .flat_map(|_| {
                    let word = random.next();
                    let field = word & *random.pick(&[0x3, 0xF, 0x3F, 0x0FFF_FFFF]);
                    let flags = (word >> 32) & 0xF000_0000;
                    u32::try_from(flags | field).unwrap().to_ne_bytes()
                })
                .collect()
        };
        exercise(&bytes, &other, &[b"a", b"0"]);
        exercise(&bytes, &bytes, &[]);
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn each_kind_of_damage_is_seen() {
    let sound = encode(&json!({"a": 1}));
    let numeric = if cfg!(target_endian = "little") {
        6 << 2
    } else {
        6
    };
    for (what, bytes) in [
        ("nothing", vec![]),
        ("half a header", vec![0, 0]),
        ("no shape", words(&[0])),
        ("two shapes", words(&[0x6000_0000])),
        ("a reserved flag", words(&[0xC000_0000])),
        (
            "a scalar of two",
            words(&[0x5000_0002, 0xC000_0000, 0x4000_0000]),
        ),
        (
            "more entries than bytes",
            words(&[0x2FFF_FFFF, 0x8000_0000]),
        ),
        ("a first entry without its end", words(&[0x2000_0001, 0, 0])),
        (
            "an end off the stride",
            words(&[0x2000_0001, 0x8000_0000, 0x8000_0000]),
        ),
        (
            "data past the end",
            words(&[0x2000_0001, 0x8000_0005, 0x4000_0000]),
        ),
        ("data left over", words(&[0x2000_0000, 0])),
        (
            "a key that is null",
            words(&[0x2000_0001, 0xC000_0000, 0x4000_0000]),
        ),
        (
            "a true with data",
            words(&[0x2000_0001, 0x8000_0000, 0x3000_0004, 0]),
        ),
        (
            "an unknown kind",
            words(&[0x2000_0001, 0x8000_0000, 0x6000_0000]),
        ),
        (
            "a numeric without data",
            words(&[0x2000_0001, 0x8000_0000, 0x1000_0000]),
        ),
        (
            "a numeric that is longer",
            words(&[0x2000_0001, 0x8000_0000, 0x1000_0008, numeric, 0]),
        ),
        (
            "a container without a header",
            words(&[0x2000_0001, 0x8000_0000, 0x5000_0000]),
        ),
        (
            "a key twice",
            words(&[0x2000_0002, 0x8000_0000, 0, 0x4000_0000, 0x4000_0000]),
        ),
    ] {
        assert_eq!(update(Some(&bytes), &sound), Err(Damaged), "{what}");
        assert_eq!(update(None, &bytes), Err(Damaged), "{what}");
        assert_eq!(
            merge_patch(None, &bytes, || {}).is_err(),
            what != "a scalar",
            "{what}"
        );
    }
}

#[test]
fn a_numeric_that_claims_more_than_it_has_is_not_handed_out() {
    let mut bytes = encode(&json!({"a": 1}));
    // The numeric is the last element: four bytes of length, two of header, one digit.
    let at = bytes.len() - 8;
    assert_eq!(
        get_path(bytes.as_slice(), &[b"a"]),
        Ok(Some(encode(&json!(1))))
    );
    bytes[at..at + 4].copy_from_slice(&(200_u32 << 2).to_ne_bytes());
    assert_eq!(get_path(bytes.as_slice(), &[b"a"]), Err(Damaged));
}

#[test]
fn a_scalar_wrapper_inside_a_document_is_damage() {
    let inner = words(&[0x5000_0001, 0xC000_0000]);
    let mut bytes = words(&[0x4000_0001, 0xD000_0008]);
    bytes.extend(inner);
    assert_eq!(get_path(bytes.as_slice(), &[b"0"]), Err(Damaged));
    assert_eq!(
        append(Some(&bytes), &[b"0"], &encode(&json!(1))),
        Err(Damaged)
    );
}
