//! A patch, applied by an implementation of RFC 6902 that knows nothing of this crate, gives the document
//! it was made for; and it is, byte for byte, the jsonb that the server would build of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod size;

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use state_cache_document::diff;
use state_cache_histories::{Json, Random, decode, encode, history, kind};

fn no_guard() {}

/// For the applier: numbers become strings of their spelling, since it knows no numbers beyond a double
/// and takes 1.0 for 1.00. The first character tells them from strings.
fn applicable(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(spelling) => Value::String(format!("#{spelling}")),
        Json::String(text) => Value::String(format!("'{text}")),
        Json::Array(elements) => elements.iter().map(applicable).collect(),
        Json::Object(pairs) => {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| (key.clone(), applicable(value)))
                .collect()
        }
    }
}

fn text(value: &Json) -> &str {
    match value {
        Json::String(text) => text,
        other => panic!("no string: {other}"),
    }
}

/// The operations of a patch in jsonb.
fn operations(patch: &[u8]) -> Vec<Json> {
    match decode(patch) {
        Some(Json::Array(operations)) => operations,
        other => panic!("no patch: {other:?}"),
    }
}

/// What the patch makes of a document.
fn applied(from: &[u8], operations: &[Json]) -> Value {
    let operations: Value = operations
        .iter()
        .map(|operation| {
            let mut fields = json!({
                "op": text(operation.get("op").unwrap()),
                "path": text(operation.get("path").unwrap()),
            });
            if let Some(value) = operation.get("value") {
                fields["value"] = applicable(value);
            }
            fields
        })
        .collect();
    let patch: json_patch::Patch = serde_json::from_value(operations).unwrap();
    let mut document = applicable(&decode(from).unwrap());
    json_patch::patch(&mut document, &patch).unwrap();
    document
}

/// Bytes that a patch may have, as the documentation of `diff` says: one replacement of the whole or 1 KB,
/// and at most three bytes of padding before each operation and each value.
fn largest(to: &[u8]) -> usize {
    (to.len() + 60).max(1_024) * 8 / 7
}

/// Checks a pair of documents; the number of operations by name.
fn check(from: &Json, to: &Json) -> BTreeMap<String, usize> {
    let (from, to) = (encode(from).unwrap(), encode(to).unwrap());
    let patch = diff(&from, &to, no_guard).unwrap();
    let operations = operations(&patch);
    let rebuilt = Json::Array(operations.clone());
    assert_eq!(encode(&rebuilt).as_ref(), Some(&patch), "byte identity");
    assert!(
        applied(&from, &operations) == applicable(&decode(&to).unwrap()),
        "{rebuilt}"
    );
    assert_eq!(operations.is_empty(), from == to);
    assert!(
        patch.len() <= largest(&to),
        "{} bytes for {}",
        patch.len(),
        to.len()
    );
    let mut counts = BTreeMap::new();
    for operation in &operations {
        let name = match text(operation.get("path").unwrap()) {
            "" => "root",
            _ => text(operation.get("op").unwrap()),
        };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

fn tree(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => Json::Number(number.to_string()),
        Value::String(text) => Json::String(text.clone()),
        Value::Array(elements) => Json::Array(elements.iter().map(tree).collect()),
        Value::Object(pairs) => {
            Json::object(pairs.iter().map(|(key, value)| (key.clone(), tree(value))))
        }
    }
}

/// The patch between two documents as JSON text, once it has been checked.
fn patch_text(from: &Json, to: &Json) -> String {
    check(from, to);
    let patch = diff(&encode(from).unwrap(), &encode(to).unwrap(), no_guard);
    Json::Array(operations(&patch.unwrap())).to_string()
}

/// A value of about 300 bytes, so that nothing around it is worth replacing.
fn large() -> Value {
    json!("x".repeat(300))
}

#[test]
fn patches_say_what_changed() {
    for (from, to, patch) in [
        (json!({}), json!({}), json!([])),
        (json!({"a": 1}), json!({"a": 1}), json!([])),
        (
            json!({"a": 1}),
            json!({"a": 2}),
            json!([{"op": "replace", "path": "/a", "value": 2}]),
        ),
        (
            json!({"keep": large(), "old": 1}),
            json!({"keep": large(), "new": [true]}),
            json!([
                {"op": "add", "path": "/new", "value": [true]},
                {"op": "remove", "path": "/old"},
            ]),
        ),
        // Escapes: `~` first, so that `~1` does not come to be read as `/`.
        (
            json!({"keep": large(), "~1": 1, "/": 1, "~": 1, "": 1}),
            json!({"keep": large(), "~1": 2, "/": 3, "~": 4, "": 5}),
            json!([
                {"op": "replace", "path": "/", "value": 5},
                {"op": "replace", "path": "/~1", "value": 3},
                {"op": "replace", "path": "/~0", "value": 4},
                {"op": "replace", "path": "/~01", "value": 2},
            ]),
        ),
        // Into objects and arrays.
        (
            json!({"a": [large(), {"b": {"c": 1}}, large()]}),
            json!({"a": [large(), {"b": {"c": null}}, large()]}),
            json!([{"op": "replace", "path": "/a/1/b/c", "value": null}]),
        ),
        // Arrays grow at the end, in the middle, at the front.
        (
            json!([large(), 1]),
            json!([large(), 1, 2, 3]),
            json!([
                {"op": "add", "path": "/2", "value": 2},
                {"op": "add", "path": "/3", "value": 3},
            ]),
        ),
        (
            json!([1, large()]),
            json!([1, "new", large()]),
            json!([{"op": "add", "path": "/1", "value": "new"}]),
        ),
        (
            json!([large()]),
            json!([[], large()]),
            json!([{"op": "add", "path": "/0", "value": []}]),
        ),
        // They shrink from the back.
        (
            json!([large(), 1, 2, 3, "end"]),
            json!([large(), "end"]),
            json!([
                {"op": "remove", "path": "/3"},
                {"op": "remove", "path": "/2"},
                {"op": "remove", "path": "/1"},
            ]),
        ),
        // The element that is in both counts once.
        (
            json!([large(), 7]),
            json!([large(), 7, 7]),
            json!([{"op": "add", "path": "/2", "value": 7}]),
        ),
        (
            json!([large(), 7, 7]),
            json!([large(), 7]),
            json!([{"op": "remove", "path": "/2"}]),
        ),
        // Another kind at the root, a scalar at the root.
        (
            json!({}),
            json!([]),
            json!([{"op": "replace", "path": "", "value": []}]),
        ),
        (
            json!([]),
            json!({}),
            json!([{"op": "replace", "path": "", "value": {}}]),
        ),
        (
            json!(1),
            json!([1]),
            json!([{"op": "replace", "path": "", "value": [1]}]),
        ),
        (
            json!([1]),
            json!(1),
            json!([{"op": "replace", "path": "", "value": 1}]),
        ),
        (
            json!("a"),
            json!("b"),
            json!([{"op": "replace", "path": "", "value": "b"}]),
        ),
        (json!(null), json!(null), json!([])),
        // Few fields of a small object, and all of them; so also further down and among elements.
        (
            json!({"a": 1, "b": 2}),
            json!({"a": 3, "b": 4}),
            json!([
                {"op": "replace", "path": "/a", "value": 3},
                {"op": "replace", "path": "/b", "value": 4},
            ]),
        ),
        (
            json!({"a": 1, "b": {"c": true}}),
            json!({}),
            json!([{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/b"}]),
        ),
        (
            json!([1, {"a": {"b": 1, "c": 2}, "d": []}]),
            json!([1, {"a": {"b": 3, "c": 4}, "d": [0]}]),
            json!([
                {"op": "replace", "path": "/1/a/b", "value": 3},
                {"op": "replace", "path": "/1/a/c", "value": 4},
                {"op": "add", "path": "/1/d/0", "value": 0},
            ]),
        ),
        // A small array is no small object.
        (
            json!({"a": [1, 2, 3]}),
            json!({"a": [4, 5, 6]}),
            json!([{"op": "replace", "path": "/a", "value": [4, 5, 6]}]),
        ),
        (
            json!([1, 2, 3]),
            json!([]),
            json!([{"op": "replace", "path": "", "value": []}]),
        ),
        // Another kind further down, and arrays that get empty.
        (
            json!({"keep": large(), "a": {"0": 1}}),
            json!({"keep": large(), "a": [1]}),
            json!([{"op": "replace", "path": "/a", "value": [1]}]),
        ),
        (
            json!({"keep": large(), "a": [1, 2, 3]}),
            json!({"keep": large(), "a": []}),
            json!([{"op": "replace", "path": "/a", "value": []}]),
        ),
    ] {
        let (from, to) = (tree(&from), tree(&to));
        assert_eq!(
            patch_text(&from, &to),
            tree(&patch).to_string(),
            "{from} to {to}"
        );
    }
}

#[test]
fn numbers_differ_by_their_scale() {
    let number = |spelling: &str| Json::Array(vec![Json::Number(spelling.to_owned())]);
    assert_eq!(
        patch_text(&number("1.0"), &number("1.00")),
        r#"[{"op":"replace","path":"/0","value":1.00}]"#
    );
    assert_eq!(patch_text(&number("10e1"), &number("100")), "[]");
}

#[test]
fn a_patch_of_every_size_keeps_the_stride() {
    let from = |count: usize| -> Value { (0..count).map(|n| (format!("k{n}"), large())).collect() };
    for count in [0, 1, 31, 32, 33, 63, 64, 65, 100] {
        let mut from = from(count);
        from["keep"] = json!("x".repeat(10_000));
        let mut to = from.clone();
        for n in 0..count {
            to[format!("k{n}")] = json!("y".repeat(n % 5));
        }
        let counts = check(&tree(&from), &tree(&to));
        assert_eq!(counts.get("replace").copied().unwrap_or(0), count);
    }
}

/// Counts the operations of many pairs.
fn check_all(pairs: impl Iterator<Item = (Json, Json)>) -> BTreeMap<String, usize> {
    let mut total = BTreeMap::new();
    for (from, to) in pairs {
        for (name, count) in check(&from, &to) {
            *total.entry(name).or_default() += count;
        }
    }
    total
}

#[test]
fn patches_lead_from_version_to_version() {
    let pairs = (0..440).flat_map(|seed| {
        let versions = history(seed, 8);
        let far = (versions[0].clone(), versions[7].clone());
        let back = (versions[7].clone(), versions[3].clone());
        let steps: Vec<_> = versions
            .windows(2)
            .map(|two| (two[0].clone(), two[1].clone()))
            .collect();
        steps.into_iter().chain([far, back])
    });
    let total = check_all(pairs);
    for name in ["add", "remove", "replace", "root"] {
        assert!(
            total.get(name).is_some_and(|count| *count > 300),
            "{total:?}"
        );
    }
}

#[test]
fn patches_lead_from_any_document_to_any_other() {
    let mut random = Random::new(3);
    let pairs = (0..2_000).map(|round| match round % 3 {
        0 => (random.object(0), random.object(0)),
        1 => (random.array(0), random.array(0)),
        _ => (random.value(0), random.value(0)),
    });
    // Most have so little in common that the whole is replaced.
    assert!(check_all(pairs)["root"] > 1_000);
}

#[test]
fn a_step_of_a_run_is_a_few_operations() {
    for seed in (0..110).filter(|seed| kind(*seed) == kind(0)) {
        // Once the messages outweigh what an operation costs.
        for two in history(seed, 20).windows(2).skip(8) {
            let counts = check(&two[0], &two[1]);
            assert!(!counts.contains_key("root"), "{counts:?}");
            assert!(counts.values().sum::<usize>() <= 4, "{counts:?}");
        }
    }
}

thread_local!(static LEVELS: Cell<usize> = const { Cell::new(0) });

fn count_levels() {
    LEVELS.set(LEVELS.get() + 1);
}

#[test]
fn the_guard_is_called_at_each_level() {
    let nested = |leaf: usize| (0..50).fold(json!({"leaf": leaf}), |inner, _| json!([inner]));
    let bytes = |leaf| encode(&tree(&nested(leaf))).unwrap();
    LEVELS.set(0);
    diff(&bytes(1), &bytes(2), count_levels).unwrap();
    assert_eq!(LEVELS.get(), 51);
}
