//! Documents that the server builds.

use std::cell::Cell;

use state_cache_document::{append, diff, merge_patch, update};
use state_cache_histories::{Json, Random, encode, history};

use crate::{check, no_guard, words};

/// The last column of each line is the payload that PostgreSQL 15 wrote, in hexadecimal.
#[cfg(target_endian = "little")]
#[test]
fn what_the_server_wrote_is_accepted() {
    let mut documents = 0;
    for table in [
        include_str!("../document/server.tsv"),
        include_str!("../../../histories/tests/server.tsv"),
    ] {
        for line in table.lines() {
            let hex = line.rsplit('\t').next().unwrap();
            let pairs = hex.as_bytes().chunks(2);
            let bytes = pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16));
            let document: Vec<u8> = bytes.map(Result::unwrap).collect();
            // A path may lead to nothing.
            if !document.is_empty() {
                assert_eq!(check(&document), Ok(()), "{line}");
                documents += 1;
            }
        }
    }
    assert!(documents > 70, "{documents}");
}

#[test]
fn every_version_of_every_history_is_accepted() {
    for seed in 0..110 {
        for document in history(seed, 12) {
            assert_eq!(check(&encode(&document).unwrap()), Ok(()), "{document}");
        }
    }
}

#[test]
fn random_documents_and_what_becomes_of_them_are_accepted() {
    let mut random = Random::new(1);
    for _ in 0..2_000 {
        let [one, two] = [(); 2].map(|()| encode(&random.object(0)).unwrap());
        let element = encode(&random.value(0)).unwrap();
        let merged = merge_patch(Some(&one), &two, no_guard).unwrap();
        let patch = diff(&one, &two, no_guard).unwrap();
        let appended = append(Some(&patch), &[], &element).unwrap();
        let updated = update(Some(&one), &two).unwrap();
        for document in [element, merged, patch, appended, updated, one, two] {
            assert_eq!(check(&document), Ok(()), "{document:?}");
        }
    }
}

#[test]
fn numbers_at_the_bounds_of_their_forms_are_accepted() {
    let spelling = |digits: &str, exponent: i32| format!("{digits}e{exponent}");
    for digits in ["1", "-1", "9999", "10001", "12345678901234567890", "0"] {
        for exponent in -700..700 {
            let number = spelling(digits, exponent);
            let document = encode(&Json::Number(number.clone())).unwrap();
            assert_eq!(check(&document), Ok(()), "{number}");
        }
    }
    for exponent in [131_071, -16_383] {
        let number = spelling("1", exponent);
        let document = encode(&Json::Number(number.clone())).unwrap();
        assert_eq!(check(&document), Ok(()), "{number}");
    }
    let long = format!("0.{}", "1234567".repeat(2_000));
    let document = encode(&Json::Array(vec![Json::Number(long)])).unwrap();
    assert_eq!(check(&document), Ok(()));
}

#[test]
fn large_containers_are_accepted() {
    let number = |n: usize| Json::Number(n.to_string());
    let array = Json::Array((0..100_000).map(number).collect());
    let pairs = (0..100_000).map(|n| (format!("key {n}"), number(n)));
    let object = Json::Object(pairs.collect());
    for document in [array, object] {
        assert_eq!(check(&encode(&document).unwrap()), Ok(()));
    }
}

/// So many arrays, each the only element of the one before.
fn nested(depth: u32) -> Vec<u8> {
    let mut document = Vec::new();
    for inner in (1..depth).rev() {
        document.extend([0x4000_0001, 0xD000_0000 | (8 * inner - 4)]);
    }
    document.push(0x4000_0000);
    words(&document)
}

#[test]
fn the_guard_is_asked_once_at_each_depth() {
    thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });
    let document = nested(200);
    let two = {
        let Json::Array(_) = state_cache_histories::decode(&document).unwrap() else {
            panic!("no array");
        };
        let inner = state_cache_histories::decode(&document).unwrap();
        encode(&Json::Array(vec![inner.clone(), inner])).unwrap()
    };
    let guard = || CALLS.set(CALLS.get() + 1);
    for (document, depth) in [(document, 200), (two, 201)] {
        CALLS.set(0);
        let is_text = |_: &[u8]| panic!("there is no text");
        assert_eq!(
            state_cache_document::check(&document, is_text, guard),
            Ok(())
        );
        assert_eq!(CALLS.get(), depth);
    }
}

#[test]
fn text_is_what_the_encoding_says() {
    // Latin 1: each byte is a character.
    let latin = [&words(&[0x5000_0001, 0x8000_0002])[..], &[0xE9, b'a']].concat();
    assert!(check(&latin).is_err());
    let is_latin = |_: &[u8]| true;
    assert_eq!(
        state_cache_document::check(&latin, is_latin, no_guard),
        Ok(())
    );
    let ascii = [&words(&[0x5000_0001, 0x8000_0002])[..], b"ea"].concat();
    let is_nothing = |_: &[u8]| false;
    assert_eq!(
        state_cache_document::check(&ascii, is_nothing, no_guard),
        Ok(())
    );
}
