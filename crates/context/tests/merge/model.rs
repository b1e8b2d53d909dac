//! The merge as its rules are written down, on JSON values, with no thought of its cost.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use state_cache_context::Strategy;

/// What the model says of one variable.
#[derive(Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub value: Option<Value>,
    pub strategy: Option<Strategy>,
    pub reason: &'static str,
    /// Base, parent and child of what a person has to decide.
    pub conflict: Option<[Option<Value>; 3]>,
}

const LEVELS: [&str; 5] = ["public", "internal", "confidential", "pii", "secret"];

fn rank(level: &Value) -> usize {
    LEVELS.iter().position(|known| level == known).unwrap()
}

/// The place of a variable's sensitivity in the order of all, its declared floor included.
pub fn level(run: &Value, name: &str) -> usize {
    let own = match run["variables"].get(name) {
        None => 0,
        Some(record) => record.get("sensitivity").map_or(1, rank),
    };
    let floor = run["sensitivityMap"].get(name).map_or(0, rank);
    own.max(floor)
}

fn value<'v>(run: &'v Value, name: &str) -> Option<&'v Value> {
    run["variables"].get(name).map(|record| &record["value"])
}

/// What the parent had of a variable when it and the child last were one: what the child had, or what `parentBase` of
/// that says.
fn parent_base<'v>(base: &'v Value, name: &str) -> Option<&'v Value> {
    match base["parentBase"].get(name) {
        Some(Value::Null) => None,
        None => value(base, name),
        other => other,
    }
}

/// The record with every default written out.
fn filled(name: &str, record: &Value) -> Value {
    let mut whole =
        json!({"key": name, "source": "step", "sensitivity": "internal", "mutable": true});
    whole
        .as_object_mut()
        .unwrap()
        .extend(record.as_object().unwrap().clone());
    whole
}

/// The rows of a merge, names in jsonb's order, and the parent that it leads to.
pub fn merge(
    base: &Value,
    parent: &Value,
    child: &Value,
    strategy_of: &dyn Fn(&str) -> Strategy,
) -> (Vec<Row>, Value) {
    let mut after = parent.clone();
    let mut rows = Vec::new();
    let mut names: Vec<_> = child["variables"].as_object().unwrap().keys().collect();
    names.sort_by_key(|name| (name.len(), name.as_bytes()));
    for name in names {
        let (b, p, c) = (value(base, name), value(parent, name), value(child, name));
        let highest = [base, parent, child].map(|run| level(run, name));
        let rises = level(child, name) > level(base, name);
        let highest = highest.into_iter().max().unwrap();
        if b == c {
            let has_to_rise = rises && p.is_some() && level(parent, name) < highest;
            if !has_to_rise {
                continue;
            }
        }
        let (result, from, strategy, reason, asks) =
            decide([base, parent, child], name, strategy_of);
        rows.push(Row {
            name: name.clone(),
            value: result.clone(),
            strategy,
            reason,
            conflict: asks.then(|| [b.cloned(), p.cloned(), c.cloned()]),
        });
        let Some(result) = result else { continue };
        if p == Some(&result) {
            if level(parent, name) < highest {
                let mut record = filled(name, &parent["variables"][name]);
                record["sensitivity"] = json!(LEVELS[highest]);
                after["variables"][name] = record;
            }
            continue;
        }
        // The value has changed, so the child has a part in it.
        let mut record = filled(name, &from["variables"][name]);
        record["value"] = result;
        record["sensitivity"] = json!(LEVELS[highest]);
        if child["variables"][name].get("mutable") == Some(&json!(false)) {
            record["mutable"] = json!(false);
        }
        after["variables"][name] = record;
    }
    (rows, after)
}

/// The value chosen, the run whose record goes with it, strategy, reason, and whether a person is asked.
fn decide<'v>(
    [base, parent, child]: [&'v Value; 3],
    name: &str,
    strategy_of: &dyn Fn(&str) -> Strategy,
) -> (
    Option<Value>,
    &'v Value,
    Option<Strategy>,
    &'static str,
    bool,
) {
    let (b, p, c) = (value(base, name), value(parent, name), value(child, name));
    let blocked = parent["conflicts"]
        .get(name)
        .is_some_and(|ids| !ids.as_array().unwrap().is_empty());
    let frozen = parent["variables"]
        .get(name)
        .is_some_and(|record| record.get("mutable") == Some(&json!(false)));
    if b == c {
        return (p.cloned(), parent, None, "only its sensitivity rose", false);
    }
    if blocked {
        let review = Some(Strategy::ManualReview);
        return (
            p.cloned(),
            parent,
            review,
            "it is blocked by an open conflict",
            true,
        );
    }
    if p == c {
        return (p.cloned(), parent, None, "both made the same change", false);
    }
    if frozen {
        return (
            p.cloned(),
            parent,
            None,
            "it is immutable in the parent",
            false,
        );
    }
    if p == b {
        return (c.cloned(), child, None, "only the child changed it", false);
    }
    let pb = parent_base(base, name);
    if p == pb {
        let combines = matches!(
            (p, c),
            (Some(Value::Object(_)), Some(Value::Object(_)))
                | (Some(Value::Array(_)), Some(Value::Array(_)))
        );
        let from = if combines {
            later_of([parent, child], name)
        } else {
            child
        };
        let result = deep([pb, b], p, c, true);
        return (result, from, None, "only the child changed it", false);
    }
    let strategy = strategy_of(name);
    let later = later_of([parent, child], name);
    let child_later = std::ptr::eq(later, child);
    let (result, from, why) = match strategy {
        Strategy::ParentWins => (p.cloned(), parent, "both changed it, the parent wins"),
        Strategy::ChildWins => (c.cloned(), child, "both changed it, the child wins"),
        Strategy::ManualReview => (p.cloned(), parent, "both changed it, a person decides"),
        Strategy::MergeObjects
            if p.is_some_and(Value::is_object) && c.is_some_and(Value::is_object) =>
        {
            (
                deep([pb, b], p, c, child_later),
                later,
                "both changed it, the objects were merged",
            )
        }
        Strategy::ArrayConcat
            if p.is_some_and(Value::is_array) && c.is_some_and(Value::is_array) =>
        {
            let [ours, theirs] = [p, c].map(|it| it.unwrap().as_array().unwrap());
            (
                Some(appended(b, ours, theirs)),
                later,
                "both changed it, the arrays were concatenated",
            )
        }
        _ if child_later => (
            c.cloned(),
            child,
            "both changed it, the parent's value is not later",
        ),
        _ => (
            p.cloned(),
            parent,
            "both changed it, the parent's value is later",
        ),
    };
    let asks = strategy == Strategy::ManualReview;
    (result, from, Some(strategy), why, asks)
}

/// The parent's array with what the child's has beyond the base.
fn appended(base: Option<&Value>, ours: &[Value], theirs: &[Value]) -> Value {
    let mut all = ours.to_vec();
    let mut old = base.and_then(Value::as_array).cloned().unwrap_or_default();
    for element in theirs {
        match old.iter().position(|known| known == element) {
            Some(place) => drop(old.swap_remove(place)),
            None => all.push(element.clone()),
        }
    }
    Value::Array(all)
}

fn time(run: &Value, name: &str) -> Option<String> {
    let record = run["variables"].get(name)?;
    Some(record.get("timestamp")?.as_str().unwrap().to_owned())
}

/// The one whose variable is the later, the child if they are of the same time.
fn later_of<'v>([parent, child]: [&'v Value; 2], name: &str) -> &'v Value {
    if time(child, name) >= time(parent, name) {
        child
    } else {
        parent
    }
}

/// One value of the three-way merge in depth; `None` is one that is not there.
fn deep(
    [parent_base, base]: [Option<&Value>; 2],
    parent: Option<&Value>,
    child: Option<&Value>,
    child_later: bool,
) -> Option<Value> {
    if child == base {
        return parent.cloned();
    }
    if parent == base {
        return child.cloned();
    }
    let only_child = parent == parent_base;
    match (parent, child) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let none = Map::new();
            let old =
                [parent_base, base].map(|base| base.and_then(Value::as_object).unwrap_or(&none));
            let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            let merged = keys.into_iter().filter_map(|key| {
                let value = {
                    let old = old.map(|old| old.get(key));
                    deep(old, ours.get(key), theirs.get(key), child_later)?
                };
                Some((key.clone(), value))
            });
            Some(Value::Object(merged.collect()))
        }
        // What the child changed of a value that the parent never had is done to the one that it has.
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) if only_child => {
            Some(appended(base, ours, theirs))
        }
        (_, child) if only_child => child.cloned(),
        (Some(ours), Some(theirs)) => Some(if child_later { theirs } else { ours }.clone()),
        (ours, theirs) => ours.or(theirs).cloned(),
    }
}
