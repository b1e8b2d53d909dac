//! Random three-way histories against the model: several children of one parent that all change variables, merged in
//! any order, some of them more than once.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use state_cache_context::{Base, Label, Merged, Run, Sensitivity, Strategy, merge, put, visible};
use state_cache_histories::Random;

use crate::support::{jsonb, value};
use crate::{model, no_guard};

const NAMES: [&str; 5] = ["a", "b", "plan", "result", "é"];

/// A value, few of each kind, so that two of them are often the same.
fn random_value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth < 3 { 9 - depth } else { 4 }) {
        0 if depth > 0 => Value::Null,
        0 | 1 => json!(random.below(3)),
        2 => json!(random.below(2) == 0),
        3 => json!(random.pick(["", "x", "text"])),
        4 | 5 => (0..random.below(4))
            .map(|_| random_value(random, depth + 1))
            .collect(),
        _ => (0..random.below(4))
            .map(|_| {
                let key = random.pick(["k", "l", "mm"]);
                (key.to_owned(), random_value(random, depth + 1))
            })
            .collect(),
    }
}

/// Another value, which has much in common with the old one if that is a container.
fn changed(random: &mut Random, old: &Value, depth: usize) -> Value {
    let mut new = old.clone();
    match &mut new {
        Value::Object(members) if random.below(9) > 0 => {
            let key = random.pick(["k", "l", "mm"]);
            if random.below(3) == 0 {
                members.remove(key);
            } else {
                let inner = members.get(key).cloned().unwrap_or(json!(0));
                members.insert(key.to_owned(), changed(random, &inner, depth + 1));
            }
        }
        Value::Array(elements) if random.below(9) > 0 => {
            if random.below(3) == 0 && !elements.is_empty() {
                elements.remove(random.below(elements.len()));
            } else {
                elements.push(random_value(random, depth + 1));
            }
        }
        _ => new = random_value(random, depth),
    }
    new
}

fn random_level(random: &mut Random) -> &'static str {
    random.pick([
        "public",
        "internal",
        "internal",
        "internal",
        "confidential",
        "pii",
        "secret",
    ])
}

fn random_record(random: &mut Random, name: &str, value: Value) -> Value {
    let mut record = json!({"key": name, "value": value});
    if random.below(8) > 0 {
        let second = random.below(10);
        record["timestamp"] = json!(format!("1970-01-01T00:00:0{second}.000000Z"));
    }
    if random.below(3) == 0 {
        record["sensitivity"] = json!(random_level(random));
    }
    if random.below(2) == 0 {
        record["source"] = json!(random.pick(["parent", "step", "user", "system"]));
    }
    if random.below(12) == 0 {
        record["mutable"] = json!(random.below(3) == 0);
    }
    if random.below(12) == 0 {
        record["note"] = json!(random.below(5));
    }
    record
}

fn new_run(random: &mut Random, id: &str) -> Value {
    let mut run = json!({"runId": id, "variables": {}, "sensitivityMap": {}, "conflicts": {}});
    for name in NAMES {
        if random.below(3) > 0 {
            let value = random_value(random, 0);
            run["variables"][name] = random_record(random, name, value);
        }
        if random.below(10) == 0 {
            run["sensitivityMap"][name] = json!(random_level(random));
        }
    }
    run
}

/// Has a run change a variable: its value mostly, else its sensitivity or floor, or that it is there at all.
fn change(random: &mut Random, run: &mut Value, name: &str) {
    let old = run["variables"].get(name).cloned();
    match (random.below(14), old) {
        (0, Some(_)) => {
            run["variables"].as_object_mut().unwrap().remove(name);
        }
        (1 | 2, Some(_)) => {
            run["variables"][name]["sensitivity"] = json!(random_level(random));
        }
        (3, _) => run["sensitivityMap"][name] = json!(random_level(random)),
        (_, old) => {
            let value = match old {
                Some(old) => changed(random, &old["value"], 0),
                None => random_value(random, 0),
            };
            run["variables"][name] = random_record(random, name, value);
        }
    }
}

/// Has a run change half of its variables.
fn change_some(random: &mut Random, run: &mut Value) {
    for name in NAMES {
        if random.below(2) == 0 {
            change(random, run, name);
        }
    }
}

/// A child as it is created, and as it is by now.
struct Child {
    base: Value,
    now: Value,
}

impl Child {
    fn of(random: &mut Random, parent: &Value, id: usize) -> Self {
        let mut base = parent.clone();
        base["runId"] = json!(format!("child {id}"));
        base["conflicts"] = json!({});
        base["parentBase"] = json!({});
        for name in NAMES {
            match random.below(12) {
                0 | 1 => {
                    base["variables"].as_object_mut().unwrap().remove(name);
                }
                // An input in place of what the parent has.
                2 => {
                    let value = random_value(random, 0);
                    base["variables"][name] = random_record(random, name, value);
                    base["parentBase"][name] = held(parent, name).unwrap_or(Value::Null);
                }
                _ => {}
            }
        }
        Child {
            now: base.clone(),
            base,
        }
    }
}

fn id(run: &Value) -> &[u8] {
    run["runId"].as_str().unwrap().as_bytes()
}

/// The value that a run has of a variable.
fn held(run: &Value, name: &str) -> Option<Value> {
    let record = run["variables"].get(name)?;
    Some(record["value"].clone())
}

/// Merges as the code does; the rows are looked at while their documents are there.
fn merged<T>(
    [base, parent, child]: [&Value; 3],
    strategy_of: &dyn Fn(&[u8]) -> Strategy,
    look: impl FnOnce(&[Merged<'_>]) -> T,
) -> (T, Value) {
    let documents = [base, parent, child].map(jsonb);
    let [b, p, c] = documents.each_ref();
    let b = Run::open(b, id(base)).unwrap();
    let p = Run::open(p, id(parent)).unwrap();
    let c = Run::open(c, id(child)).unwrap();
    p.check_all().unwrap();
    let others = jsonb(&base["parentBase"]);
    let bases = Base {
        child: b,
        parent: base.get("parentBase").map(|_| &*others),
    };
    let rows = merge(&bases, &p, &c, strategy_of, None, no_guard).unwrap();
    let seen = look(&rows);
    let changes: Vec<_> = rows
        .into_iter()
        .filter_map(|row| row.becomes.map(|variable| (row.name, variable)))
        .collect();
    let after = put(p.document(), &changes).unwrap();
    let read = value(&after);
    assert_eq!(after, jsonb(&read), "not what the server builds");
    (seen, read)
}

fn row(merged: &Merged<'_>) -> model::Row {
    let part = |part: &Option<std::borrow::Cow<'_, [u8]>>| part.as_deref().map(value);
    model::Row {
        name: String::from_utf8(merged.name.to_vec()).unwrap(),
        value: part(&merged.value),
        strategy: merged.strategy,
        reason: merged.reason.text(),
        conflict: merged.conflict.as_ref().map(|conflict| {
            [
                part(&conflict.base),
                part(&conflict.parent),
                Some(value(&conflict.child)),
            ]
        }),
    }
}

/// What holds of every merge, whatever the rules are.
fn assert_facts([base, before, child]: [&Value; 3], rows: &[model::Row], after: &Value) {
    for name in NAMES {
        let record = |run: &Value| run["variables"].get(name).cloned();
        let held = |run: &Value| held(run, name);
        let has_row = rows.iter().find(|row| row.name == name);
        if record(child) == record(base) || record(child).is_none() {
            assert!(
                has_row.is_none_or(|row| row.conflict.is_none() && row.strategy.is_none()),
                "{name} was not changed by the child"
            );
            assert_eq!(
                held(after),
                held(before),
                "{name} was not changed by the child"
            );
        }
        let expected = has_row.map_or_else(|| held(before), |row| row.value.clone());
        assert_eq!(held(after), expected, "{name} is not what its row says");
        if record(before).is_some() {
            assert!(record(after).is_some(), "{name} is lost");
            assert!(
                model::level(after, name) >= model::level(before, name),
                "the sensitivity of {name} went down"
            );
        }
        if has_row.is_some() && record(after).is_some() {
            assert!(
                model::level(after, name) >= model::level(child, name),
                "{name} is less sensitive than in the child"
            );
        }
    }
}

#[test]
fn random_histories_are_merged_as_the_model_merges_them() {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..3_800 {
        let random = &mut Random::new(seed);
        let mut parent = new_run(random, "parent");
        let mut children = Vec::new();
        let mut next_conflict = 1;
        for step in 0..16 {
            match random.below(4) {
                0 if children.len() < 4 => children.push(Child::of(random, &parent, step)),
                1 => {
                    if random.below(6) == 0 {
                        // All is decided.
                        parent["conflicts"] = json!({});
                    }
                    change_some(random, &mut parent);
                }
                _ if children.is_empty() => {}
                2 => {
                    let place = random.below(children.len());
                    change_some(random, &mut children[place].now);
                }
                _ => {
                    let place = random.below(children.len());
                    let strategies =
                        NAMES.map(|_| Strategy::ALL[random.below(Strategy::ALL.len())]);
                    let strategy_of = |name: &str| {
                        strategies[NAMES.iter().position(|known| *known == name).unwrap()]
                    };
                    let child = &mut children[place];
                    let runs = [&child.base, &parent, &child.now];
                    let (rows, mut after) = merged(
                        runs,
                        &|name| strategy_of(str::from_utf8(name).unwrap()),
                        |rows| rows.iter().map(row).collect::<Vec<_>>(),
                    );
                    let (expected_rows, expected) =
                        model::merge(runs[0], runs[1], runs[2], &strategy_of);
                    assert_eq!(rows, expected_rows, "seed {seed}, step {step}");
                    assert_eq!(after, expected, "seed {seed}, step {step}");
                    assert_facts(runs, &rows, &after);
                    for row in &rows {
                        *reasons.entry(row.reason).or_default() += 1;
                        if row.conflict.is_some() {
                            after["conflicts"][&row.name] = json!([next_conflict]);
                            next_conflict += 1;
                        }
                    }
                    parent = after;
                    // It lives on, from here on.
                    child.base = child.now.clone();
                    // Where nobody decided on the value, the parent's may be one that the child has not seen.
                    let decided = rows.iter();
                    for row in decided.filter(|row| row.reason != "only its sensitivity rose") {
                        let others = child.base["parentBase"].as_object_mut().unwrap();
                        if row.value == held(&child.now, &row.name) {
                            others.remove(&row.name);
                        } else {
                            let value = row.value.clone().unwrap_or(Value::Null);
                            others.insert(row.name.clone(), value);
                        }
                    }
                    child.now["parentBase"] = child.base["parentBase"].clone();
                }
            }
        }
    }
    assert_eq!(reasons.len(), 12, "{reasons:?}");
    for (reason, count) in &reasons {
        assert!(*count >= 60, "{reason}: only {count}");
    }
}

#[test]
fn children_that_change_different_variables_are_merged_in_any_order() {
    let mut changes = 0;
    for seed in 0..2_000 {
        let random = &mut Random::new(seed);
        let mut parent = new_run(random, "parent");
        let mut children: Vec<_> = (0..3)
            .map(|place| Child::of(random, &parent, place))
            .collect();
        for (place, name) in NAMES.iter().enumerate() {
            let child = &mut children[place % 3];
            for _ in 0..random.below(3) {
                change(random, &mut child.now, name);
            }
            if random.below(3) == 0 {
                change(random, &mut parent, name);
            }
        }
        let strategy = Strategy::ALL[random.below(Strategy::ALL.len())];
        let mut results = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut now = parent.clone();
            for place in order {
                let child = &children[place];
                let (rows, after) =
                    merged([&child.base, &now, &child.now], &|_| strategy, |rows| {
                        rows.len()
                    });
                changes += rows;
                now = after;
            }
            results.push(now);
        }
        assert!(
            results.iter().all(|result| *result == results[0]),
            "seed {seed}"
        );
    }
    assert!(changes > 10_000, "only {changes}");
}

#[test]
fn what_is_visible_is_what_the_model_shows() {
    let mut hidden = 0;
    for seed in 0..2_000 {
        let random = &mut Random::new(seed);
        let run = new_run(random, "run");
        for (rank, max) in Sensitivity::ALL.iter().enumerate() {
            let mut expected = run.clone();
            for name in NAMES {
                if model::level(&run, name) > rank {
                    for section in ["variables", "sensitivityMap"] {
                        let members = expected[section].as_object_mut().unwrap();
                        hidden += usize::from(members.remove(name).is_some());
                    }
                }
            }
            let shown = visible(&jsonb(&run), b"run", *max).unwrap();
            assert_eq!(shown, jsonb(&expected), "seed {seed}, {max:?}");
        }
    }
    assert!(hidden > 5_000, "only {hidden}");
}
