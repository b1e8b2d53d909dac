//! A patch, applied by an implementation of RFC 6902 that knows nothing of this crate, gives the document
//! it was made for; and it is, byte for byte, the jsonb that the server would build of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use state_cache_document::DocumentError::{self, Damaged};
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
fn an_array_is_replaced_when_that_is_smaller() {
    let from: Vec<usize> = (0..200).collect();
    let replaced = |count: usize| {
        let to = from.iter().map(|n| if *n < count { n + 1_000 } else { *n });
        let to = json!({"k": large(), "a": to.collect::<Vec<_>>()});
        check(&tree(&json!({"k": large(), "a": from})), &tree(&to))
    };
    // 200 numbers of 12 bytes with their entries, and about 56 bytes for each operation.
    let counts: Vec<usize> = (1..=200).map(|count| replaced(count)["replace"]).collect();
    let turn = counts
        .iter()
        .position(|count| *count == 1 && counts[0] == 1)
        .unwrap();
    assert_eq!(turn, 0, "one number by itself");
    let last = counts.iter().rposition(|count| *count > 1).unwrap();
    assert!((35..55).contains(&last), "{last}");
    assert!(
        counts[..=last]
            .iter()
            .enumerate()
            .all(|(n, count)| *count == n + 1)
    );
}

/// An object of flags `k00`, `k01` and so on.
fn flags(count: usize, value: bool) -> Value {
    (0..count)
        .map(|n| (format!("k{n:02}"), json!(value)))
        .collect()
}

/// Checks a pair of documents in which nothing is added at the root: how often which operation is used.
fn count(from: &Value, to: &Value) -> [usize; 4] {
    let counts = check(&tree(from), &tree(to));
    ["root", "replace", "add", "remove"].map(|name| counts.get(name).copied().unwrap_or(0))
}

#[test]
fn an_object_is_replaced_when_its_operations_take_more_than_that_and_than_1_kb() {
    let document = |count, value| json!({"o": flags(count, value), "keep": "x".repeat(5_000)});
    for changed in 1..=40 {
        // 56 bytes each: eight words, "op", "replace", "path", "/o/k00", "value" and nothing.
        let kept = if changed * 56 <= 1_024 { changed } else { 1 };
        let counts = count(&document(changed, true), &document(changed, false));
        assert_eq!(counts, [0, kept, 0, 0], "{changed}");
    }
    // A replacement that takes more than 1 KB itself: 40 values of about 300 bytes.
    let large = |mark: &str, changed: usize| -> Value {
        let value = |n| if n < changed { mark } else { "x" }.repeat(300);
        let object: Value = (0..40)
            .map(|n| (format!("k{n:02}"), json!(value(n))))
            .collect();
        json!({"o": object, "keep": "x".repeat(20_000)})
    };
    assert_eq!(count(&large("x", 0), &large("y", 30)), [0, 30, 0, 0]);
    assert_eq!(count(&large("x", 0), &large("y", 40)), [0, 1, 0, 0]);
}

/// `count` objects of five fields under keys of their own, of which the first `changed` differ in all of
/// them between two values of `value`.
fn records(count: usize, changed: usize, value: usize) -> Vec<Value> {
    let record = |value: usize| json!({"a": value, "b": value, "c": value, "d": value, "e": value});
    let records = (0..count).map(|n| record(if n < changed { value } else { 7 }));
    records.collect()
}

#[test]
fn small_objects_do_not_count_against_what_holds_them() {
    // Five operations of about 70 bytes or one replacement of about 160, in an array of 1,100 bytes.
    let document = |value| json!({"a": records(10, 4, value), "keep": "x".repeat(5_000)});
    assert_eq!(count(&document(1), &document(2)), [0, 20, 0, 0]);
    // Replacements of each element would take more than one of the array.
    let document = |value| json!({"a": records(10, 10, value), "keep": "x".repeat(5_000)});
    assert_eq!(count(&document(1), &document(2)), [0, 1, 0, 0]);
}

#[test]
fn small_objects_within_a_small_object_count_with_all_their_operations() {
    let nested =
        |inner: Value| -> Value { (0..10).map(|n| (format!("e{n}"), inner.clone())).collect() };
    let document = |inner| json!({"o": nested(inner), "keep": "x".repeat(20_000)});
    // Ten times ten removals of about 45 bytes, or an object of 140.
    assert_eq!(
        count(&document(flags(10, true)), &document(json!({}))),
        [0, 1, 0, 0]
    );
    // Ten removals.
    assert_eq!(
        count(&document(flags(1, true)), &document(json!({}))),
        [0, 0, 0, 10]
    );
}

#[test]
fn small_objects_make_no_patch_larger_than_the_document() {
    let keyed = |changed, value| -> Value {
        let records = records(100, changed, value).into_iter().enumerate();
        records
            .map(|(n, record)| (format!("k{n:02}"), record))
            .collect()
    };
    let counts = |changed| count(&keyed(changed, 1), &keyed(changed, 2));
    // About 350 bytes for each object, or 160 replaced; about 12,000 for the document.
    assert_eq!(counts(30), [0, 150, 0, 0]);
    assert_eq!(counts(60), [0, 60, 0, 0]);
    assert_eq!(counts(100), [1, 0, 0, 0]);
    // What is left within 1 KB takes the replacement of the second object, not its operations.
    let pair = |value| json!({"a": flags(15, value), "b": flags(8, value)});
    assert_eq!(count(&pair(true), &pair(false)), [0, 16, 0, 0]);
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

/// The patch between what may be damaged: within bounds, or refused.
fn exercise(from: &[u8], to: &[u8]) -> Result<(), DocumentError> {
    let patch = diff(from, to, no_guard)?;
    assert!(
        patch.len() <= largest(to),
        "{} bytes for {}",
        patch.len(),
        to.len()
    );
    Ok(())
}

fn flipped(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for _ in 0..=random.below(4) {
        // Headers and entries lie at the front: most flips go there.
        let reach = if random.below(4) > 0 {
            bytes.len().min(200)
        } else {
            bytes.len()
        };
        bytes[random.below(reach)] ^= 1 << random.below(8);
    }
    bytes
}

#[test]
fn flipped_bits_neither_panic_nor_grow() {
    let mut random = Random::new(4);
    let mut refused = 0;
    for seed in 0..330 {
        for two in history(seed, 8).windows(2) {
            let (from, to) = (encode(&two[0]).unwrap(), encode(&two[1]).unwrap());
            let damaged = flipped(&mut random, &from);
            for (from, to) in [
                (&damaged, &to),
                (&to, &damaged),
                (&from, &damaged),
                (&flipped(&mut random, &damaged), &damaged),
            ] {
                match exercise(from, to) {
                    Ok(()) => {}
                    Err(Damaged) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }
    assert!(refused > 2_000, "{refused}");
}

#[test]
fn every_flipped_byte_of_a_pair_is_met() {
    let versions = history(10, 2);
    let from = encode(&tree(
        &json!({"a": [1, {"b": "c", "d": []}], "e": 2.5, "f": "text"}),
    ))
    .unwrap();
    let to = encode(&versions[1]).unwrap();
    for at in 0..from.len() {
        for bit in 0..8 {
            let mut damaged = from.clone();
            damaged[at] ^= 1 << bit;
            for (from, to) in [
                (&damaged, &to),
                (&to, &damaged),
                (&from, &damaged),
                (&damaged, &from),
            ] {
                assert!(matches!(exercise(from, to), Ok(()) | Err(Damaged)));
            }
        }
    }
}

#[test]
fn bytes_behind_the_last_element_are_damage() {
    let sound = encode(&tree(&json!([[true]]))).unwrap();
    let mut longer = sound.clone();
    longer.extend([0; 4]);
    // The entry of the inner array: a container that ends 12 bytes into the data instead of 8.
    longer[4..8].copy_from_slice(&0xD000_000C_u32.to_ne_bytes());
    assert_eq!(exercise(&longer, &sound), Err(Damaged));
    assert_eq!(exercise(&sound, &longer), Err(Damaged));
}

#[test]
fn cut_bytes_and_noise_neither_panic_nor_grow() {
    let mut random = Random::new(5);
    let sound = encode(&tree(&json!({"a": {"b": [1, 2]}, "c": [[]]}))).unwrap();
    for cut in 0..sound.len() {
        assert_eq!(exercise(&sound[..cut], &sound), Err(Damaged), "{cut}");
        assert_eq!(exercise(&sound, &sound[..cut]), Err(Damaged), "{cut}");
    }
    let noise = |random: &mut Random| -> Vec<u8> {
        let words = 1 + random.below(30);
        let words = (0..words).flat_map(|_| {
            // Small fields look like headers and entries more often than noise does.
            let field = random.draw() & random.pick([0x3, 0xF, 0x3F, 0x0FFF_FFFF]);
            let flags = random.draw() & 0xF000_0000;
            u32::try_from(flags | field).unwrap().to_ne_bytes()
        });
        words.collect()
    };
    for _ in 0..30_000 {
        let (from, to) = (noise(&mut random), noise(&mut random));
        for (from, to) in [(&from, &to), (&sound, &to), (&from, &sound)] {
            assert!(matches!(exercise(from, to), Ok(()) | Err(Damaged)));
        }
    }
}
