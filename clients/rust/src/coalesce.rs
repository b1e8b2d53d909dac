//! Two changes of one state as one, where that is the same for every document that the state may have.
//!
//! Numbers stay as they are written: documents are taken apart into raw members, never into floating point.

use crate::change::Change;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

type Members = BTreeMap<String, Box<RawValue>>;

/// The members of an object, `None` for anything else.
fn members(json: &str) -> Option<Members> {
    serde_json::from_str(json).ok()
}

fn text(members: &Members) -> Option<String> {
    serde_json::to_string(members).ok()
}

/// `first` and then `second` as one change; `None` if no one change does the same.
pub(crate) fn combine(first: &Change, second: &Change) -> Option<Change> {
    match (first, second) {
        // What comes after decides alone.
        (_, Change::Set(_, None, None) | Change::Delete(None)) => Some(second.clone()),
        (Change::Set(document, expected, ttl), Change::Update(updates)) => {
            let document = overlaid(document, updates)?;
            Some(Change::Set(document, *expected, *ttl))
        }
        (Change::Update(one), Change::Update(other)) => Some(Change::Update(overlaid(one, other)?)),
        (Change::UpdateSection(section, one), Change::UpdateSection(same, other))
            if section == same =>
        {
            Some(Change::UpdateSection(
                section.clone(),
                overlaid(one, other)?,
            ))
        }
        (Change::Merge(one), Change::Merge(other)) => Some(Change::Merge(composed(one, other)?)),
        _ => None,
    }
}

/// An object with the members of another one over its own.
fn overlaid(json: &str, updates: &str) -> Option<String> {
    let mut whole = members(json)?;
    whole.extend(members(updates)?);
    text(&whole)
}

/// Two merge patches (RFC 7396) as one. There is none where the first replaces or removes a member and the second
/// goes into it: one patch would go into what was there before.
fn composed(one: &str, other: &str) -> Option<String> {
    let (mut whole, other) = (members(one)?, members(other)?);
    for (name, value) in other {
        let goes_into = members(value.get()).is_some();
        let value = match whole.get(&name) {
            Some(before) if goes_into => {
                RawValue::from_string(composed(before.get(), value.get())?).ok()?
            }
            _ => value,
        };
        whole.insert(name, value);
    }
    text(&whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::{Value, json};

    fn merge_patch(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let members = target.as_object_mut().unwrap();
        for (name, value) in patch {
            if value.is_null() {
                members.remove(name);
            } else {
                merge_patch(members.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn update(target: &mut Value, updates: &Value) {
        let members = target.as_object_mut().unwrap();
        for (name, value) in updates.as_object().unwrap() {
            members.insert(name.clone(), value.clone());
        }
    }

    /// Applies a change to an object.
    fn applied(target: &Value, change: &Change) -> Value {
        let (mut target, parsed) = (target.clone(), |json: &str| {
            serde_json::from_str::<Value>(json).unwrap()
        });
        match change {
            Change::Set(document, ..) => target = parsed(document),
            Change::Update(updates) => update(&mut target, &parsed(updates)),
            Change::Merge(patch) => merge_patch(&mut target, &parsed(patch)),
            _ => unreachable!(),
        }
        target
    }

    /// Objects of few names, so that they meet; numbered, so that a failure can be repeated.
    fn object(mut seed: u64, depth: u32) -> Value {
        let mut roll = |sides: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % sides
        };
        let mut members = serde_json::Map::new();
        for name in ["a", "b", "c"] {
            let value = match roll(6) {
                0 | 1 => continue,
                2 => Value::Null,
                3 if depth > 0 => object(roll(u64::MAX >> 33), depth - 1),
                4 => json!([roll(3)]),
                _ => json!(roll(9)),
            };
            members.insert(name.to_owned(), value);
        }
        Value::Object(members)
    }

    #[test]
    fn one_change_does_what_two_do() {
        let change = |seed: u64| {
            let json = object(seed / 3, 2).to_string();
            match seed % 3 {
                0 => Change::Set(json, None, None),
                1 => Change::Update(json),
                _ => Change::Merge(json),
            }
        };
        let mut combined = 0;
        for seed in 0..30_000 {
            let (first, second) = (change(seed), change(seed / 7 + 11));
            let target = object(seed + 5, 2);
            if let Some(both) = combine(&first, &second) {
                combined += 1;
                let one_by_one = applied(&applied(&target, &first), &second);
                assert_eq!(
                    applied(&target, &both),
                    one_by_one,
                    "{target}: {first:?}, {second:?}"
                );
            }
        }
        assert!(combined > 10_000, "only {combined} were combined");
    }

    #[test]
    fn a_patch_into_what_was_replaced_stays_apart() {
        let merge = |json: &str| Change::Merge(json.to_owned());
        assert_eq!(
            combine(&merge(r#"{"a": 1}"#), &merge(r#"{"a": {"b": 2}}"#)),
            None
        );
        assert_eq!(
            combine(&merge(r#"{"a": null}"#), &merge(r#"{"a": {"b": 2}}"#)),
            None
        );
    }

    #[test]
    fn numbers_stay_as_they_are_written() {
        let long = "123456789012345678901234567890.10";
        let one = Change::Update(format!(r#"{{"a":{long}}}"#));
        let both = combine(&one, &Change::Update(r#"{"b":1}"#.to_owned()));
        assert_eq!(
            both,
            Some(Change::Update(format!(r#"{{"a":{long},"b":1}}"#)))
        );
    }
}
