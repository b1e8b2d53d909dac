//! Damaged documents. Two judges: a document is accepted exactly if the crate of test documents, which shares
//! nothing with this one, reads it and writes it again byte for byte; and every accepted document can be walked.

use state_cache_document::{
    DocumentError, append, diff, get_path, get_section, merge_patch, update,
};
use state_cache_histories::{Json, Random, decode, encode, history};

use crate::{check, no_guard};

/// Whether what the other judge read is what a text could hold: it knows neither a key that stands twice nor
/// the character that PostgreSQL has not.
fn is_possible(document: &Json) -> bool {
    let is_text = |text: &str| !text.contains('\0');
    match document {
        Json::String(text) => is_text(text),
        Json::Array(elements) => elements.iter().all(is_possible),
        Json::Object(pairs) => {
            pairs.windows(2).all(|two| two[0].0 != two[1].0)
                && pairs
                    .iter()
                    .all(|(key, value)| is_text(key) && is_possible(value))
        }
        _ => true,
    }
}

fn is_canonical(bytes: &[u8]) -> bool {
    decode(bytes).is_some_and(|document| {
        is_possible(&document) && encode(&document).as_deref() == Some(bytes)
    })
}

/// Goes everywhere in the document, in every way that the crate has.
fn walk(document: &[u8]) {
    let sound = |error: DocumentError| assert_ne!(error, DocumentError::Damaged);
    visit(document, &decode(document).unwrap(), &mut Vec::new());
    let empty = encode(&Json::Object(Vec::new())).unwrap();
    for (one, two) in [(document, &empty[..]), (&empty, document)] {
        diff(one, two, no_guard).map(drop).unwrap_or_else(sound);
        update(Some(one), two).map(drop).unwrap_or_else(sound);
        merge_patch(Some(one), two, no_guard)
            .map(drop)
            .unwrap_or_else(sound);
        append(Some(one), &[], two).map(drop).unwrap_or_else(sound);
        get_section(one, b"a").map(drop).unwrap_or_else(sound);
    }
    let merged = merge_patch(Some(document), document, no_guard).unwrap();
    assert_eq!(diff(&merged, document, no_guard).map(drop), Ok(()));
    let patch = diff(document, document, no_guard).unwrap();
    assert_eq!(patch, encode(&Json::Array(Vec::new())).unwrap());
}

/// Finds every element of `value` in the document by its path.
fn visit(document: &[u8], value: &Json, path: &mut Vec<Vec<u8>>) {
    {
        let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        assert_eq!(get_path(document, &path), Ok(encode(value)), "{path:?}");
    }
    let mut inside = |name: &[u8], value: &Json| {
        path.push(name.to_vec());
        visit(document, value, path);
        path.pop();
    };
    match value {
        Json::Array(elements) => {
            for (index, element) in elements.iter().enumerate().take(70) {
                inside(index.to_string().as_bytes(), element);
            }
        }
        Json::Object(pairs) => {
            for (key, value) in pairs.iter().take(70) {
                inside(key.as_bytes(), value);
            }
        }
        _ => {}
    }
}

/// What has been damaged, and how the judges found it.
#[derive(Default)]
struct Verdicts {
    accepted: usize,
    refused: usize,
}

impl Verdicts {
    fn judge(&mut self, bytes: &[u8]) {
        let accepted = check(bytes).is_ok();
        assert_eq!(accepted, is_canonical(bytes), "{bytes:02x?}");
        if accepted {
            walk(bytes);
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
    }
}

#[test]
fn every_bit_of_small_documents_counts() {
    let mut random = Random::new(2);
    let mut verdicts = Verdicts::default();
    for _ in 0..40 {
        let sound = encode(&random.value(3)).unwrap();
        for at in 0..8 * sound.len().min(400) {
            let mut bytes = sound.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            verdicts.judge(&bytes);
        }
        for length in 0..sound.len().min(400) {
            verdicts.judge(&sound[..length]);
        }
        verdicts.judge(&[&sound[..], &[0]].concat());
    }
    // Characters, digits and scales may change; what holds a document together may not.
    assert!(verdicts.accepted > 200, "{}", verdicts.accepted);
    assert!(verdicts.refused > 10_000, "{}", verdicts.refused);
}

/// One wound at a random place.
fn wound(random: &mut Random, bytes: &mut Vec<u8>) {
    // Headers and entries lie at the front: most wounds go there.
    let reach = if random.below(4) > 0 {
        bytes.len().min(200)
    } else {
        bytes.len()
    };
    let at = random.below(reach);
    if bytes.is_empty() {
        return;
    }
    match random.below(7) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
        3 => bytes.truncate(at),
        4 => {
            // A field or a kind of another element, or a word one off.
            let (to, from) = (at / 4 * 4, random.below(reach) / 4 * 4);
            if to.max(from) + 4 <= bytes.len() {
                bytes.copy_within(from..from + 4, to);
                bytes[to] = bytes[to].wrapping_add([0, 1, 255, 4][random.below(4)]);
            }
        }
        5 => {
            let length = random.below(12).min(bytes.len() - at);
            bytes.drain(at..at + length);
        }
        _ => {
            let length = random.below(12).min(bytes.len() - at);
            let copy = bytes[at..at + length].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}

#[test]
fn wounds_are_found_or_harmless() {
    let mut random = Random::new(3);
    let mut verdicts = Verdicts::default();
    for seed in 0..110 {
        for document in history(seed, 6) {
            let sound = encode(&document).unwrap();
            for _ in 0..30 {
                let mut bytes = sound.clone();
                for _ in 0..=random.below(3) {
                    wound(&mut random, &mut bytes);
                }
                verdicts.judge(&bytes);
            }
        }
    }
    assert!(verdicts.accepted > 100, "{}", verdicts.accepted);
    assert!(verdicts.refused > 10_000, "{}", verdicts.refused);
}

#[test]
fn words_that_look_like_headers_are_judged() {
    let mut random = Random::new(4);
    let mut verdicts = Verdicts::default();
    for _ in 0..200_000 {
        let mut bytes = Vec::new();
        for _ in 0..random.below(12) {
            let field = random.draw() & [0x3, 0x3, 0xF, 0x3F, 0x0FFF_FFFF][random.below(5)];
            let flags = (random.draw() >> 32) & 0xF000_0000;
            bytes.extend(u32::try_from(flags | field).unwrap().to_ne_bytes());
        }
        verdicts.judge(&bytes);
    }
    assert!(verdicts.accepted > 100, "{}", verdicts.accepted);
}
