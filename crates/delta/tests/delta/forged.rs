//! Stored forms with the right checksum and the right hash of what is no document. A decoder cannot know better; the
//! extension has to, and its regression test `forged.sql` holds what is made here.

use serde_json::json;
use state_cache_delta::{Base, Decoder, Encoder, Form, Layout};
use state_cache_document::{DocumentError, check, hash};

use crate::jsonb::encode;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Bytes that hold no document, and for a delta the document that it builds upon. `forged.sql` calls it by its name.
struct Forgery {
    name: &'static str,
    bytes: Vec<u8>,
    base: Option<Vec<u8>>,
}

fn forgeries() -> Vec<Forgery> {
    let keyframe = |name, bytes| Forgery {
        name,
        bytes,
        base: None,
    };
    let filler = vec![b' '; 2000];
    let mut half = filler.clone();
    half[1999] = 0xA4;
    let base = encode(&json!({"a": "first", "b": "x".repeat(2000)}));
    let mut swapped = base.clone();
    let key = swapped.windows(2).position(|keys| keys == b"ab").unwrap();
    swapped.swap(key, key + 1);
    let varlena = if cfg!(target_endian = "little") {
        8 << 20
    } else {
        2 << 20
    };
    vec![
        // More elements than there are bytes.
        keyframe(
            "count",
            words(&[[0x4BEB_C200].as_slice(), &[0x4000_0000; 499]].concat()),
        ),
        // A string that goes on behind the document.
        keyframe(
            "length",
            [words(&[0x4000_0001, 0x8000_FFFF]), filler.clone()].concat(),
        ),
        // The same of a number, whose own length says so.
        keyframe(
            "number",
            [
                words(&[0x4000_0002, 0x9000_0008, 2000, varlena, 0x0001_8000]),
                filler,
            ]
            .concat(),
        ),
        // Half a character, in UTF-8 and in EUC_JP.
        keyframe("text", [words(&[0x4000_0001, 0x8000_07D0]), half].concat()),
        // Keys that a search does not find.
        Forgery {
            name: "order",
            bytes: swapped,
            base: Some(base),
        },
    ]
}

fn forge(forgery: &Forgery) -> Vec<u8> {
    let mut encoder = Encoder::new(3).unwrap();
    let base = forgery.base.as_deref().map(|document| Base {
        version: 1,
        document,
        layout: Layout::keyframe(document.len()),
    });
    let encoded = encoder.encode(&forgery.bytes, 2, base, 16).unwrap();
    match encoded.form {
        Form::Packed(packed) => packed,
        Form::Whole => panic!("{} is not packed", forgery.name),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes between `'\x` and `'`, which come first in the text.
fn literal(text: &str) -> (Vec<u8>, &str) {
    let (digits, rest) = text.split_once("'\\x").unwrap().1.split_once('\'').unwrap();
    let pairs = digits.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
    (bytes.collect(), rest)
}

#[cfg(target_endian = "little")]
#[test]
fn the_regression_test_holds_what_decodes_to_no_document() {
    let test = include_str!("../../../../tests/pg_regress/sql/forged.sql");
    for forgery in forgeries() {
        let name = forgery.name;
        let stored_hash = hash(&forgery.bytes).to_be_bytes();
        let wanted = format!(
            "('{name}', '\\x{}', '\\x{}')",
            hex(&forge(&forgery)),
            hex(&stored_hash)
        );
        let row = test
            .split_once(&format!("\t('{name}', "))
            .map(|(_, row)| row);
        let row = row.unwrap_or_else(|| panic!("there is to be a row {wanted}"));
        // Another version of zstd may pack the same otherwise.
        let (packed, rest) = literal(row);
        let decoded = Decoder::new()
            .unwrap()
            .decode(&packed, forgery.base.as_deref());
        assert!(
            decoded.as_ref() == Ok(&forgery.bytes),
            "the row is to be {wanted}"
        );
        assert_eq!(literal(rest).0, stored_hash, "{name}");
        let is_text = |text: &[u8]| str::from_utf8(text).is_ok();
        assert_eq!(
            check(&forgery.bytes, is_text, || {}),
            Err(DocumentError::Damaged),
            "{name}"
        );
        if let Some(base) = &forgery.base {
            assert_eq!(check(base, is_text, || {}), Ok(()));
        }
    }
}
