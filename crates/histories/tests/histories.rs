//! The histories are what they say, and the binary form is the server's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use state_cache_histories::{Json, Kind, MAX_DEPTH, Random, decode, encode, history, kind};

/// Each line of `server.tsv` is a JSON text, pairs in jsonb's order, and the payload that PostgreSQL 15
/// makes of it, in hexadecimal (`CREATE CAST (jsonb AS bytea) WITHOUT FUNCTION`; little-endian).
#[cfg(target_endian = "little")]
#[test]
fn the_binary_form_is_the_one_that_the_server_writes() {
    let (mut numbers, mut others) = (0, 0);
    for line in include_str!("server.tsv").lines() {
        let (text, hex) = line.split_once('\t').unwrap();
        let server: Vec<u8> = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let mut read = decode(&server).unwrap();
        if matches!(read, Json::Number(_)) {
            read = Json::Number(text.to_owned());
            numbers += 1;
        } else {
            assert_eq!(read.to_string(), text);
            others += 1;
        }
        assert_eq!(encode(&read), Some(server), "{text}");
    }
    assert_eq!((numbers, others), (24, 11));
}

#[test]
fn the_order_of_pairs_does_not_matter() {
    let mut random = Random::new(1);
    for _ in 0..200 {
        let mut document = random.object(0);
        let payload = encode(&document);
        if let Json::Object(pairs) = &mut document {
            random.shuffle(pairs);
        }
        assert_eq!(encode(&document), payload);
    }
}

#[test]
fn every_version_reads_back() {
    for seed in 0..110 {
        for document in history(seed, 12) {
            let payload = encode(&document).unwrap();
            assert_eq!(encode(&decode(&payload).unwrap()), Some(payload));
        }
    }
}

#[test]
fn damaged_bytes_are_read_as_something_or_nothing() {
    let mut random = Random::new(2);
    let mut refused = 0;
    for _ in 0..4_000 {
        let mut payload = encode(&random.value(0)).unwrap();
        let at = random.below(payload.len().min(100));
        payload[at] ^= 1 << random.below(8);
        refused += usize::from(decode(&payload).is_none());
    }
    assert!(refused > 1_000, "{refused}");
}

/// The document with every number 1, since common parsers refuse those out of their range.
fn without_numbers(document: &Json) -> Json {
    match document {
        Json::Number(_) => Json::Number("1".to_owned()),
        Json::Array(elements) => Json::Array(elements.iter().map(without_numbers).collect()),
        Json::Object(pairs) => {
            let pairs = pairs.iter();
            Json::Object(
                pairs
                    .map(|(key, value)| (key.clone(), without_numbers(value)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

fn tree(value: &serde_json::Value) -> Json {
    match value {
        serde_json::Value::Null => Json::Null,
        serde_json::Value::Bool(value) => Json::Bool(*value),
        serde_json::Value::Number(number) => Json::Number(number.to_string()),
        serde_json::Value::String(text) => Json::String(text.clone()),
        serde_json::Value::Array(elements) => Json::Array(elements.iter().map(tree).collect()),
        serde_json::Value::Object(pairs) => Json::Object(
            pairs
                .iter()
                .map(|(key, value)| (key.clone(), tree(value)))
                .collect(),
        ),
    }
}

#[test]
fn the_text_is_what_a_json_parser_takes() {
    for seed in 0..110 {
        for document in history(seed, 12) {
            let document = without_numbers(&document);
            let parsed: serde_json::Value = serde_json::from_str(&document.to_string()).unwrap();
            assert_eq!(encode(&tree(&parsed)), encode(&document));
        }
    }
}

#[test]
fn a_history_follows_from_its_seed() {
    for seed in 0..22 {
        let long = history(seed, 12);
        assert_eq!(long.len(), 12);
        assert_eq!(history(seed, 5), long[..5]);
        assert_ne!(history(seed + 11, 12), long);
    }
}

/// Of all histories of a kind: how many versions differ from the one before, and the documents.
fn survey(of: Kind) -> (usize, Vec<Json>) {
    let mut changed = 0;
    let mut documents = Vec::new();
    for seed in (0..110).filter(|seed| kind(*seed) == of) {
        let versions = history(seed, 20);
        let pairs = versions.windows(2);
        changed += pairs
            .filter(|pair| encode(&pair[0]) != encode(&pair[1]))
            .count();
        documents.extend(versions);
    }
    (changed, documents)
}

#[test]
fn every_kind_changes_and_none_nests_too_deep() {
    let mut deepest = 0;
    let mut seen = HashSet::new();
    for of in Kind::ALL {
        let (changed, documents) = survey(of);
        assert_eq!(documents.len(), 200, "{of:?}");
        assert!(changed > 60, "{of:?}: {changed}");
        deepest = deepest.max(documents.iter().map(Json::depth).max().unwrap());
        seen.extend(documents.iter().map(Json::to_string));
    }
    assert!((30..=MAX_DEPTH).contains(&deepest), "{deepest}");
    let some = |wanted: &[&str]| {
        seen.iter()
            .any(|text| wanted.iter().all(|part| text.contains(part)))
    };
    for part in [
        "{}", "[]", "1e400", ":1.00", "\"\":", "a/b", "m~n", "\\u000a", "𝄞", "\\\\",
    ] {
        assert!(some(&[part]), "{part}");
    }
    assert!(["{}", "[]", "null"].iter().all(|root| seen.contains(*root)));
}

#[test]
fn messages_grow_by_one() {
    let (_, documents) = survey(Kind::Messages);
    for (place, document) in documents.iter().enumerate() {
        let Some(Json::Array(messages)) = document.get("messages") else {
            panic!("{document}");
        };
        assert_eq!(messages.len(), place % 20);
    }
}
