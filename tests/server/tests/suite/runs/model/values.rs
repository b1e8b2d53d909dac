//! Merging values, as the contract says it.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// RFC 7396.
pub fn patched(target: Option<&Value>, patch: &Value) -> Value {
    let Some(patch) = patch.as_object() else {
        return patch.clone();
    };
    let mut result = target
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for (key, change) in patch {
        if change.is_null() {
            result.remove(key);
        } else {
            let merged = patched(result.get(key), change);
            result.insert(key.clone(), merged);
        }
    }
    result.into()
}

/// The three-way merge of objects, against what the parent and what the child have started from: each member is as
/// the side has it that changed it; where both did, objects are merged in turn, a value wins over a removal, and else
/// the side that is later wins.
pub fn merged_objects(
    bases: [Option<&Value>; 2],
    parent: &Value,
    child: &Value,
    child_is_later: bool,
) -> Value {
    let nothing = Map::new();
    let members = |value: Option<&Value>| {
        value
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let [began, base] = bases.map(|base| base.and_then(Value::as_object).unwrap_or(&nothing));
    let (parent, child) = (members(Some(parent)), members(Some(child)));
    let keys: BTreeSet<_> = parent.keys().chain(child.keys()).collect();
    let mut merged = Map::new();
    for key in keys {
        let (began, old) = (began.get(key), base.get(key));
        let (ours, theirs) = (parent.get(key), child.get(key));
        let only_child = ours == began;
        let result = match (ours, theirs) {
            (ours, theirs) if theirs == old || ours == theirs => ours.cloned(),
            (ours, theirs) if ours == old => theirs.cloned(),
            (Some(ours), Some(theirs)) if ours.is_object() && theirs.is_object() => {
                let bases = [began, old];
                Some(merged_objects(bases, ours, theirs, child_is_later))
            }
            (Some(ours), Some(theirs)) if only_child && ours.is_array() && theirs.is_array() => {
                Some(concatenated(old, ours, theirs))
            }
            (_, theirs) if only_child => theirs.cloned(),
            (Some(ours), Some(theirs)) => Some(if child_is_later { theirs } else { ours }.clone()),
            (ours, theirs) => ours.or(theirs).cloned(),
        };
        merged.extend(result.map(|result| (key.clone(), result)));
    }
    merged.into()
}

/// The parent's array, then what of the child's the base has not, each element as often as it is there.
pub fn concatenated(base: Option<&Value>, parent: &Value, child: &Value) -> Value {
    let mut known = base.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = parent.as_array().cloned().unwrap_or_default();
    for element in child.as_array().into_iter().flatten() {
        match known.iter().position(|other| other == element) {
            Some(place) => drop(known.remove(place)),
            None => all.push(element.clone()),
        }
    }
    all.into()
}
