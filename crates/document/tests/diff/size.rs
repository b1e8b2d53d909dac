//! Where a container is replaced as a whole: when that is smaller, and for an object not below 1 KB.

use serde_json::{Value, json};

use crate::{check, large, tree};

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

/// Checks a pair of documents; how often the root is replaced, and how often anything below is replaced,
/// added and removed.
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

/// `count` objects of five fields of about 95 bytes, of which the first `changed` hold `value`.
fn records(count: usize, changed: usize, value: usize) -> Vec<Value> {
    let record = |value: usize| json!({"a": value, "b": value, "c": value, "d": value, "e": value});
    let records = (0..count).map(|n| record(if n < changed { value } else { 7 }));
    records.collect()
}

#[test]
fn small_objects_do_not_count_against_what_holds_them() {
    // Five operations of 64 bytes or one replacement of about 150, in an array of about 1,000 bytes.
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
    // Ten times ten removals of about 45 bytes, or an object of about 150.
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
    // 320 bytes for each object, or about 150 replaced; about 10,400 for the document.
    assert_eq!(counts(30), [0, 150, 0, 0]);
    assert_eq!(counts(60), [0, 60, 0, 0]);
    assert_eq!(counts(100), [1, 0, 0, 0]);
    // What is left within 1 KB takes the replacement of the second object, not its operations.
    let pair = |value| json!({"a": flags(15, value), "b": flags(8, value)});
    assert_eq!(count(&pair(true), &pair(false)), [0, 16, 0, 0]);
}
