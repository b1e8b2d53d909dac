//! Paths and sections.

use serde_json::{Value, json};
use state_cache_document::DocumentError::{NotAnObject, SectionMissing, SectionNotObject};
use state_cache_document::{Source, get_path, get_section, hash, is_object};

use crate::chunked::Chunked;
use crate::encoder::encode;
use crate::random::Random;

fn path_of<S: Source + ?Sized>(source: &S, path: &[String]) -> Option<Vec<u8>> {
    let path: Vec<&[u8]> = path.iter().map(String::as_bytes).collect();
    get_path(source, &path).unwrap()
}

#[test]
fn a_path_leads_where_walking_the_value_leads() {
    let mut random = Random(1);
    let (mut found, mut missing) = (0, 0);
    for round in 0..3_000 {
        let document = random.value(0);
        let bytes = encode(&document);
        let chunked = Chunked::new(&bytes, *random.pick(&[3, 64, 256]));
        for _ in 0..8 {
            let (path, there) = random.path(&document);
            let expected = there.as_ref().map(encode);
            assert_eq!(
                path_of(bytes.as_slice(), &path),
                expected,
                "round {round}, path {path:?}"
            );
            assert_eq!(
                path_of(&chunked, &path),
                expected,
                "round {round}, path {path:?}"
            );
            *(if there.is_some() {
                &mut found
            } else {
                &mut missing
            }) += 1;
        }
    }
    assert!(
        found > 5_000 && missing > 1_000,
        "{found} found, {missing} missing"
    );
}

#[test]
fn every_pair_of_an_object_of_any_size_is_found() {
    for count in (0..=200).chain([255, 256, 257, 1_000]) {
        let document: Value = (0..count)
            .map(|n| (format!("k{n}"), json!(n)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let bytes = encode(&document);
        for n in 0..count {
            let path = [format!("k{n}")];
            assert_eq!(
                path_of(bytes.as_slice(), &path),
                Some(encode(&json!(n))),
                "{n} of {count}"
            );
        }
        assert_eq!(path_of(bytes.as_slice(), &["k".to_owned()]), None);
        assert_eq!(path_of(bytes.as_slice(), &[format!("k{count}")]), None);
    }
}

#[test]
fn every_element_of_an_array_of_any_size_is_found() {
    for count in (0..=200).chain([1_000]) {
        let document: Value = (0..count).map(|n| json!("x".repeat(n % 7))).collect();
        let bytes = encode(&document);
        for n in 0..count {
            let expected = Some(encode(&document[n]));
            assert_eq!(
                path_of(bytes.as_slice(), &[n.to_string()]),
                expected,
                "{n} of {count}"
            );
            let negative = format!("-{}", count - n);
            assert_eq!(
                path_of(bytes.as_slice(), &[negative]),
                expected,
                "{n} of {count}"
            );
        }
        assert_eq!(path_of(bytes.as_slice(), &[count.to_string()]), None);
        assert_eq!(
            path_of(bytes.as_slice(), &[format!("-{}", count + 1)]),
            None
        );
    }
}

#[test]
fn a_path_into_a_scalar_leads_nowhere_and_no_path_is_the_document() {
    for document in [
        json!(7),
        json!("text"),
        json!(null),
        json!(true),
        json!([]),
        json!({}),
    ] {
        let bytes = encode(&document);
        assert_eq!(
            path_of(bytes.as_slice(), &["0".to_owned()]),
            None,
            "{document}"
        );
        assert_eq!(
            path_of(bytes.as_slice(), &[]),
            Some(bytes.clone()),
            "{document}"
        );
    }
}

/// About 58 KB: what an agent's run with a long history looks like.
fn large_document() -> Value {
    let steps: Value = (0..400)
        .map(|n| json!({"tool": format!("tool-{n}"), "arguments": "a".repeat(80), "cost": n}))
        .collect();
    let variables: Value = (0..120)
        .map(|n| (format!("variable-{n}"), json!(n)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({"steps": steps, "variables": variables, "phase": "triage", "id": 42})
}

#[test]
fn a_small_field_of_a_large_document_costs_a_few_small_reads() {
    let document = large_document();
    let bytes = encode(&document);
    assert!(bytes.len() > 50_000, "{}", bytes.len());
    for (path, most_calls) in [
        (vec!["phase"], 4),
        (vec!["variables", "variable-77"], 20),
        (vec!["steps", "-1", "cost"], 12),
    ] {
        let source = Chunked::new(&bytes, 256);
        let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
        assert!(path_of(&source, &path).is_some());
        let (calls, read) = (source.calls.get(), source.bytes.get());
        assert!(calls <= most_calls, "{path:?}: {calls} calls");
        assert!(read <= 132 * most_calls, "{path:?}: {read} bytes");
    }
}

#[test]
fn a_missing_section_and_one_of_another_type_are_two_errors() {
    let bytes = encode(&json!({"a": {"b": [1]}, "list": [], "text": "x", "empty": {}}));
    let section = |name: &str| get_section(bytes.as_slice(), name.as_bytes());
    assert_eq!(section("a"), Ok(encode(&json!({"b": [1]}))));
    assert_eq!(section("empty"), Ok(encode(&json!({}))));
    assert_eq!(section("b"), Err(SectionMissing));
    assert_eq!(section("list"), Err(SectionNotObject));
    assert_eq!(section("text"), Err(SectionNotObject));
    for root in [json!([{"a": {}}]), json!("a"), json!(null)] {
        assert_eq!(
            get_section(encode(&root).as_slice(), b"a"),
            Err(NotAnObject),
            "{root}"
        );
    }
}

#[test]
fn only_an_object_is_an_object() {
    assert!(is_object(&encode(&json!({}))));
    assert!(is_object(&encode(&json!({"a": 1}))));
    for root in [json!([]), json!([{}]), json!(1), json!("{}"), json!(null)] {
        assert!(!is_object(&encode(&root)), "{root}");
    }
    assert!(!is_object(b""));
}

#[test]
fn the_hash_is_xxh3_128() {
    // The published value for no input with seed 0.
    assert_eq!(hash(b""), 0x99AA_06D3_0147_98D8_6001_C324_468D_497F);
    assert_ne!(
        hash(&encode(&json!({"a": 1}))),
        hash(&encode(&json!({"a": 2})))
    );
}
