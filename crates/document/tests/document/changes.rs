//! Update, merge and append against models over JSON values.

use core::cell::Cell;

use serde_json::{Map, Value, json};
use state_cache_document::DocumentError::{
    NotAnObject, PathMissing, PathNotArray, SectionMissing, SectionNotObject, UpdatesNotObject,
};
use state_cache_document::{
    append, append_all, append_or_create, merge_patch, pop, update, update_section,
};

use crate::encoder::encode;
use crate::random::Random;

fn no_guard() {}

fn extended(base: &Value, updates: &Value) -> Value {
    let mut pairs = base.as_object().unwrap().clone();
    pairs.extend(updates.as_object().unwrap().clone());
    Value::Object(pairs)
}

/// RFC 7396, section 2, word for word.
fn patched(target: Option<&Value>, patch: &Value) -> Value {
    let Value::Object(changes) = patch else {
        return patch.clone();
    };
    let mut result = match target {
        Some(Value::Object(pairs)) => pairs.clone(),
        _ => Map::new(),
    };
    for (name, value) in changes {
        if value.is_null() {
            result.remove(name);
        } else {
            let merged = patched(result.get(name), value);
            result.insert(name.clone(), merged);
        }
    }
    Value::Object(result)
}

/// Where a path of plain keys and subscripts leads, to be changed.
fn resolve<'v>(mut at: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    for element in path {
        at = match at {
            Value::Object(pairs) => pairs.get_mut(element)?,
            Value::Array(elements) => {
                let place: i64 = element.trim_start().parse().ok()?;
                let count = i64::try_from(elements.len()).unwrap();
                let place = if place < 0 { place + count } else { place };
                elements.get_mut(usize::try_from(place).ok()?)?
            }
            _ => return None,
        };
    }
    Some(at)
}

#[test]
fn update_is_a_shallow_merge() {
    let mut random = Random(2);
    for round in 0..4_000 {
        let base = random.object(0);
        let updates = random.updates(&base, 0);
        let result = update(Some(&encode(&base)), &encode(&updates));
        assert_eq!(
            result,
            Ok(encode(&extended(&base, &updates))),
            "round {round}"
        );
        assert_eq!(
            update(None, &encode(&updates)),
            Ok(encode(&updates)),
            "round {round}"
        );
    }
}

#[test]
fn update_of_every_size_keeps_the_stride() {
    for count in (0..=100).chain([127, 128, 129, 500]) {
        let base: Value = (0..count)
            .map(|n| (format!("k{n}"), json!(n)))
            .collect::<Map<_, _>>()
            .into();
        for updates in [
            json!({}),
            json!({"k0": "z"}),
            json!({"": 1}),
            json!({"zz-last": [1]}),
        ] {
            let result = update(Some(&encode(&base)), &encode(&updates));
            assert_eq!(
                result,
                Ok(encode(&extended(&base, &updates))),
                "{count} and {updates}"
            );
        }
    }
}

#[test]
fn update_needs_objects() {
    let object = encode(&json!({"a": 1}));
    for other in [json!([1]), json!([]), json!("a"), json!(null), json!(5)] {
        let other = encode(&other);
        assert_eq!(update(Some(&other), &object), Err(NotAnObject));
        assert_eq!(update(Some(&object), &other), Err(UpdatesNotObject));
        assert_eq!(update(None, &other), Err(UpdatesNotObject));
        assert_eq!(
            update_section(Some(&other), b"a", &object),
            Err(NotAnObject)
        );
        assert_eq!(
            update_section(Some(&object), b"a", &other),
            Err(UpdatesNotObject)
        );
    }
}

#[test]
fn update_section_merges_one_level_down_and_nowhere_else() {
    let mut random = Random(3);
    let mut changed = 0;
    for round in 0..6_000 {
        let base = random.object(0);
        let sections = base.as_object().unwrap();
        let Some((name, section)) = sections.iter().nth(random.below(sections.len().max(1))) else {
            continue;
        };
        let updates = random.updates(section, 1);
        let result = update_section(Some(&encode(&base)), name.as_bytes(), &encode(&updates));
        if section.is_object() {
            let merged = extended(section, &updates);
            let expected = extended(&base, &json!({ name: merged }));
            assert_eq!(result, Ok(encode(&expected)), "round {round}");
            changed += 1;
        } else {
            assert_eq!(result, Err(SectionNotObject), "round {round}");
        }
    }
    assert!(changed > 1_000, "{changed}");
}

#[test]
fn update_section_never_creates_a_section() {
    let updates = encode(&json!({"x": 1}));
    assert_eq!(update_section(None, b"a", &updates), Err(SectionMissing));
    let base = encode(&json!({"aa": {}, "b": {}}));
    assert_eq!(
        update_section(Some(&base), b"a", &updates),
        Err(SectionMissing)
    );
    assert_eq!(
        update_section(Some(&base), b"", &updates),
        Err(SectionMissing)
    );
}

#[test]
fn merge_patch_is_the_table_of_rfc_7396_appendix_a() {
    for (original, patch, result) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": "b"}),
            json!({"b": "c"}),
            json!({"a": "b", "b": "c"}),
        ),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (
            json!({"a": "b", "b": "c"}),
            json!({"a": null}),
            json!({"b": "c"}),
        ),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (
            json!({"a": [{"b": "c"}]}),
            json!({"a": [1]}),
            json!({"a": [1]}),
        ),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a": "b"}), json!(["c"]), json!(["c"])),
        (json!({"a": "foo"}), json!(null), json!(null)),
        (json!({"a": "foo"}), json!("bar"), json!("bar")),
        (
            json!({"e": null}),
            json!({"a": 1}),
            json!({"e": null, "a": 1}),
        ),
        (
            json!([1, 2]),
            json!({"a": "b", "c": null}),
            json!({"a": "b"}),
        ),
        (
            json!({}),
            json!({"a": {"bb": {"ccc": null}}}),
            json!({"a": {"bb": {}}}),
        ),
    ] {
        assert_eq!(patched(Some(&original), &patch), result, "the model");
        let merged = merge_patch(Some(&encode(&original)), &encode(&patch), no_guard);
        assert_eq!(merged, Ok(encode(&result)), "{original} with {patch}");
    }
}

#[test]
fn merge_patch_equals_the_model() {
    let mut random = Random(4);
    for round in 0..4_000 {
        let base = if round % 10 == 0 {
            random.value(0)
        } else {
            random.object(0)
        };
        let patch = if round % 7 == 0 {
            random.value(0)
        } else {
            random.updates(&base, 0)
        };
        let merged = merge_patch(Some(&encode(&base)), &encode(&patch), no_guard);
        assert_eq!(
            merged,
            Ok(encode(&patched(Some(&base), &patch))),
            "round {round}"
        );
        let merged = merge_patch(None, &encode(&patch), no_guard);
        assert_eq!(merged, Ok(encode(&patched(None, &patch))), "round {round}");
    }
}

#[test]
fn merge_patch_keeps_nulls_in_arrays() {
    let patch = encode(&json!({"a": [null, {"b": null}]}));
    assert_eq!(merge_patch(None, &patch, no_guard), Ok(patch));
}

thread_local!(static LEVELS: Cell<usize> = const { Cell::new(0) });

fn count_levels() {
    LEVELS.set(LEVELS.get() + 1);
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({"leaf": 1}), |inner, _| json!({ "in": inner }))
}

#[test]
fn merge_patch_calls_the_guard_at_each_level() {
    let bytes = encode(&nested(50));
    LEVELS.set(0);
    assert_eq!(
        merge_patch(Some(&bytes), &bytes, count_levels),
        Ok(bytes.clone())
    );
    assert_eq!(LEVELS.get(), 51);
}

#[test]
fn append_adds_one_element_at_the_end() {
    let mut random = Random(5);
    let mut by_depth = [0; 8];
    for round in 0..6_000 {
        let base = if round % 6 == 0 {
            random.array(0)
        } else {
            random.object(0)
        };
        let Some(path) = random.path_to_array(&base) else {
            continue;
        };
        let value = random.value(2);
        let elements: Vec<&[u8]> = path.iter().map(String::as_bytes).collect();
        let result = append(Some(&encode(&base)), &elements, &encode(&value));
        let mut expected = base;
        resolve(&mut expected, &path)
            .unwrap()
            .as_array_mut()
            .unwrap()
            .push(value);
        assert_eq!(
            result,
            Ok(encode(&expected)),
            "round {round}, path {path:?}"
        );
        by_depth[path.len()] += 1;
    }
    assert!(
        by_depth[..4].iter().all(|count| *count > 200),
        "appended at each depth: {by_depth:?}"
    );
}

#[test]
fn append_along_any_path_changes_an_array_or_says_why_not() {
    let mut random = Random(8);
    let (mut appended, mut missing, mut other) = (0, 0, 0);
    for round in 0..6_000 {
        let base = if round % 3 == 0 {
            random.array(0)
        } else {
            random.object(0)
        };
        let (path, there) = random.path(&base);
        let elements: Vec<&[u8]> = path.iter().map(String::as_bytes).collect();
        let result = append(Some(&encode(&base)), &elements, &encode(&json!("new")));
        match there {
            Some(Value::Array(_)) => {
                let mut expected = base;
                resolve(&mut expected, &path)
                    .unwrap()
                    .as_array_mut()
                    .unwrap()
                    .push(json!("new"));
                assert_eq!(
                    result,
                    Ok(encode(&expected)),
                    "round {round}, path {path:?}"
                );
                appended += 1;
            }
            Some(_) => {
                assert_eq!(result, Err(PathNotArray), "round {round}, path {path:?}");
                other += 1;
            }
            None => {
                assert_eq!(result, Err(PathMissing), "round {round}, path {path:?}");
                missing += 1;
            }
        }
    }
    let counts = [appended, missing, other];
    assert!(
        counts.iter().all(|count| *count > 300),
        "appended, missing, other: {counts:?}"
    );
}

#[test]
fn append_of_every_size_keeps_the_stride() {
    let mut grown = json!([]);
    let mut bytes = encode(&grown);
    for n in 0..300 {
        let value = if n % 3 == 0 {
            json!(n)
        } else {
            json!("x".repeat(n % 5))
        };
        bytes = append(Some(&bytes), &[], &encode(&value)).unwrap();
        grown.as_array_mut().unwrap().push(value);
        assert_eq!(bytes, encode(&grown), "{n}");
    }
}

#[test]
fn append_moves_what_lies_behind_by_any_distance() {
    // Values of every length behind the array, so that their padding changes in every way.
    for length in 0..9 {
        let base = json!({"a": [], "b": 5, "c": "x".repeat(length), "d": [1, {"e": 7}], "f": {}});
        for value in [
            json!(1),
            json!(""),
            json!("y"),
            json!("yy"),
            json!("yyy"),
            json!({"k": 2}),
        ] {
            let mut expected = base.clone();
            expected["a"].as_array_mut().unwrap().push(value.clone());
            let result = append(Some(&encode(&base)), &[b"a"], &encode(&value));
            assert_eq!(result, Ok(encode(&expected)), "{length} and {value}");
        }
    }
}

#[test]
fn append_needs_an_array_at_the_path() {
    let one = encode(&json!(1));
    let base = encode(&json!({"a": [[], 5, {"b": "text"}], "s": "text"}));
    let at = |path: &[&str]| {
        let path: Vec<&[u8]> = path.iter().map(|element| element.as_bytes()).collect();
        append(Some(&base), &path, &one).map(|_| ())
    };
    assert_eq!(at(&["a"]), Ok(()));
    assert_eq!(at(&["a", "0"]), Ok(()));
    assert_eq!(at(&["a", "-3"]), Ok(()));
    assert_eq!(at(&[]), Err(PathNotArray));
    assert_eq!(at(&["s"]), Err(PathNotArray));
    assert_eq!(at(&["a", "2"]), Err(PathNotArray));
    assert_eq!(at(&["a", "1"]), Err(PathNotArray));
    assert_eq!(at(&["x"]), Err(PathMissing));
    assert_eq!(at(&["a", "3"]), Err(PathMissing));
    assert_eq!(at(&["a", "x"]), Err(PathMissing));
    assert_eq!(at(&["s", "0"]), Err(PathMissing));
    assert_eq!(append(None, &[], &one), Err(PathMissing));
    assert_eq!(append(Some(&one), &[], &one), Err(PathNotArray));
    assert_eq!(append(Some(&one), &[b"0"], &one), Err(PathMissing));
}

#[test]
fn append_needs_no_stack_for_a_deep_path() {
    // A thread with a stack that a recursion of this depth would not fit.
    let work = || {
        let depth = 20_000;
        // Each level is `[ … ]`: header and one entry, 8 bytes.
        let document = |innermost: &[u8]| {
            let mut bytes = Vec::new();
            for level in 0..depth {
                let length = 8 * (depth - level - 1) + innermost.len();
                bytes.extend(0x4000_0001_u32.to_ne_bytes());
                bytes.extend((0xD000_0000 | u32::try_from(length).unwrap()).to_ne_bytes());
            }
            bytes.extend(innermost);
            bytes
        };
        let path = vec![&b"0"[..]; depth];
        let result = append(
            Some(&document(&encode(&json!([])))),
            &path,
            &encode(&json!(true)),
        );
        assert!(result == Ok(document(&encode(&json!([true])))));
    };
    let thread = std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(work)
        .unwrap();
    thread.join().unwrap();
}

#[test]
fn append_all_is_as_many_appends_and_pop_undoes_them() {
    let base = json!({"a": [1, {"b": []}], "s": "text"});
    let values = json!([null, [2], {"c": "x".repeat(100)}, "y"]);
    let elements = values.as_array().unwrap();
    for path in [&[b"a".as_slice()][..], &[b"a", b"1", b"b"]] {
        let mut one_by_one = encode(&base);
        for value in elements {
            one_by_one = append(Some(&one_by_one), path, &encode(value)).unwrap();
        }
        let at_once = append_all(Some(&encode(&base)), path, &encode(&values)).unwrap();
        assert_eq!(at_once, one_by_one);
        assert_eq!(
            append_or_create(Some(&encode(&base)), path, &encode(&values), || ()).unwrap(),
            at_once
        );
        let mut rest = at_once;
        for value in elements.iter().rev() {
            let popped = pop(Some(&rest), path).unwrap().unwrap();
            assert_eq!(popped.element, encode(value));
            rest = popped.document;
        }
        assert_eq!(rest, encode(&base));
    }
    assert_eq!(pop(Some(&encode(&base)), &[b"a", b"1", b"b"]), Ok(None));
    assert_eq!(pop(Some(&encode(&base)), &[b"s"]), Err(PathNotArray));
    assert_eq!(pop(None, &[]), Err(PathMissing));
}

#[test]
fn append_or_create_makes_what_is_missing_and_replaces_nothing() {
    let made = |base: Option<&serde_json::Value>, path: &[&str]| {
        let path: Vec<&[u8]> = path.iter().map(|element| element.as_bytes()).collect();
        let base = base.map(encode);
        append_or_create(base.as_deref(), &path, &encode(&json!([1, null])), || ())
    };
    assert_eq!(made(None, &[]).unwrap(), encode(&json!([1, null])));
    assert_eq!(
        made(None, &["a", "b"]).unwrap(),
        encode(&json!({"a": {"b": [1, null]}}))
    );
    let base = json!({"a": {"z": null}, "l": [{}], "n": null});
    assert_eq!(
        made(Some(&base), &["a", "b"]).unwrap(),
        encode(&json!({"a": {"z": null, "b": [1, null]}, "l": [{}], "n": null}))
    );
    assert_eq!(made(Some(&base), &["l", "0", "x"]), Err(PathMissing));
    assert_eq!(made(Some(&base), &["n"]), Err(PathNotArray));
    assert_eq!(made(Some(&base), &["n", "x"]), Err(PathMissing));
    assert_eq!(made(Some(&base), &["a"]), Err(PathNotArray));
}
