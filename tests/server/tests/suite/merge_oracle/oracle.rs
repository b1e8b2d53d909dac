//! What a three-way merge must give, from what parent and child had when they last were one and what they have now.
//! Nothing in it is taken from the implementation: plain values, compared and put together.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A variable as a document has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub value: Value,
    pub source: String,
    /// Text that sorts as the times do.
    pub timestamp: Option<String>,
    pub mutable: bool,
}

/// What parent and child had of a variable when they last were one: when the child was created, or when what it had
/// made of the variable was merged or exported.
#[derive(Debug, Clone, Default)]
pub struct Base {
    pub parent: Option<Value>,
    pub child: Option<Value>,
}

/// What a merge says of a variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What the parent has then.
    pub becomes: Option<Record>,
    pub strategy: Option<&'static str>,
    pub reason: &'static str,
    pub opens: bool,
}

/// What two sides have made of what they had.
enum Verdict {
    /// The child has not changed it.
    Untouched,
    /// Both have the same.
    Same,
    /// The parent has what the child has started from.
    Taken,
    /// The parent has what it had then, which was something else than the child's.
    CarriedOver,
    /// Both have changed it.
    Clash,
}

fn verdict(
    [parent_base, child_base]: [Option<&Value>; 2],
    parent: Option<&Value>,
    child: Option<&Value>,
) -> Verdict {
    match () {
        () if child == child_base => Verdict::Untouched,
        () if child == parent => Verdict::Same,
        () if parent == child_base => Verdict::Taken,
        () if parent == parent_base => Verdict::CarriedOver,
        () => Verdict::Clash,
    }
}

fn member<'a>(object: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    object?.as_object()?.get(name)
}

/// Two objects, member by member.
fn objects(
    bases: [Option<&Value>; 2],
    parent: &Map<String, Value>,
    child: &Map<String, Value>,
    child_is_later: bool,
) -> Value {
    let mut together = Map::new();
    let names: BTreeSet<&String> = parent.keys().chain(child.keys()).collect();
    for name in names {
        let bases = bases.map(|base| member(base, name));
        let (ours, theirs) = (parent.get(name), child.get(name));
        let chosen = match verdict(bases, ours, theirs) {
            Verdict::Untouched | Verdict::Same => ours.cloned(),
            Verdict::Taken => theirs.cloned(),
            Verdict::CarriedOver => carried_over(bases, ours, theirs),
            Verdict::Clash => match (ours, theirs) {
                (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
                    Some(objects(bases, ours, theirs, child_is_later))
                }
                (Some(ours), Some(theirs)) => {
                    Some(if child_is_later { theirs } else { ours }.clone())
                }
                // What one removed and the other changed stays.
                (one, other) => one.or(other).cloned(),
            },
        };
        if let Some(value) = chosen {
            together.insert(name.clone(), value);
        }
    }
    together.into()
}

/// The parent's array, and what the child has added to the one that it began with.
fn arrays(base: Option<&Value>, parent: &[Value], child: &[Value]) -> Value {
    let mut old: Vec<&Value> = base
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let mut all = parent.to_vec();
    for element in child {
        match old.iter().position(|other| *other == element) {
            Some(place) => {
                old.remove(place);
            }
            None => all.push(element.clone()),
        }
    }
    all.into()
}

/// What the child has made of its own is done to what the parent has.
fn carried_over(
    bases: [Option<&Value>; 2],
    parent: Option<&Value>,
    child: Option<&Value>,
) -> Option<Value> {
    match (parent, child) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            Some(objects(bases, ours, theirs, true))
        }
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            Some(arrays(bases[1], ours, theirs))
        }
        (_, theirs) => theirs.cloned(),
    }
}

/// What becomes of a variable; `None` if the child has not changed it.
pub fn merged(
    base: &Base,
    parent: Option<&Record>,
    child: &Record,
    is_blocked: bool,
    strategy: &'static str,
) -> Option<Outcome> {
    let bases = [base.parent.as_ref(), base.child.as_ref()];
    let ours = parent.map(|parent| &parent.value);
    let theirs = Some(&child.value);
    let child_is_later =
        child.timestamp.as_ref() >= parent.and_then(|parent| parent.timestamp.as_ref());
    let says = |becomes: Option<Record>, strategy, reason| {
        Some(Outcome {
            becomes,
            strategy,
            reason,
            opens: strategy == Some("manual_review"),
        })
    };
    // Of a value in which both have a part the rest of the record is the later side's.
    let with_part_of_both = |value: Value| {
        let parent = parent.filter(|parent| parent.value != value)?;
        let later = if child_is_later { child } else { parent };
        Some(Record {
            value,
            mutable: parent.mutable && child.mutable,
            ..later.clone()
        })
    };
    let verdict = verdict(bases, ours, theirs);
    if matches!(verdict, Verdict::Untouched) {
        return None;
    }
    if is_blocked {
        let reason = "it is blocked by an open conflict";
        return says(parent.cloned(), Some("manual_review"), reason);
    }
    if matches!(verdict, Verdict::Same) {
        return says(parent.cloned(), None, "both made the same change");
    }
    if parent.is_some_and(|parent| !parent.mutable) {
        return says(parent.cloned(), None, "it is immutable in the parent");
    }
    let reason = "only the child changed it";
    match (verdict, ours) {
        (Verdict::CarriedOver, Some(mine)) if alike(mine, &child.value) => {
            let value = carried_over(bases, ours, theirs)?;
            return says(
                with_part_of_both(value).or_else(|| parent.cloned()),
                None,
                reason,
            );
        }
        (Verdict::Clash, _) => {}
        _ => return says(Some(child.clone()), None, reason),
    }
    let named = Some(strategy);
    match (strategy, ours, &child.value) {
        ("parent_wins", ..) => says(parent.cloned(), named, "both changed it, the parent wins"),
        ("child_wins", ..) => says(
            Some(child.clone()),
            named,
            "both changed it, the child wins",
        ),
        ("manual_review", ..) => says(parent.cloned(), named, "both changed it, a person decides"),
        ("merge_objects", Some(Value::Object(ours)), Value::Object(theirs)) => {
            let value = objects(bases, ours, theirs, child_is_later);
            let becomes = with_part_of_both(value).or_else(|| parent.cloned());
            says(becomes, named, "both changed it, the objects were merged")
        }
        ("array_concat", Some(Value::Array(ours)), Value::Array(theirs)) => {
            let value = arrays(bases[1], ours, theirs);
            let becomes = with_part_of_both(value).or_else(|| parent.cloned());
            says(
                becomes,
                named,
                "both changed it, the arrays were concatenated",
            )
        }
        _ if child_is_later => says(
            Some(child.clone()),
            named,
            "both changed it, the parent's value is not later",
        ),
        _ => says(
            parent.cloned(),
            named,
            "both changed it, the parent's value is later",
        ),
    }
}

/// Whether both are objects, or both arrays.
fn alike(one: &Value, other: &Value) -> bool {
    (one.is_object() && other.is_object()) || (one.is_array() && other.is_array())
}
