//! The changes that lead from one recorded step to the next, as an agent runtime would make them: a message
//! appended, a variable written by a tool, the fields of a section updated.

use serde_json::{Map, Value, json};

/// One change of a document, in the terms of the extension's functions.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `state_set`: the whole document.
    Set(Value),
    /// `state_update`: top-level members replaced.
    Update(Map<String, Value>),
    /// `state_update_section`: members of one section replaced.
    UpdateSection(String, Map<String, Value>),
    /// `state_append`: one element added to the array under a top-level key.
    Append(String, Value),
    /// `state_merge`: a merge patch; used for members that went away.
    Merge(Value),
}

/// The section whose members have writers of their own: one tool, one variable, one change.
const VARIABLES: &str = "variables";

impl Change {
    /// The changes that turn `before` into `after`. A runtime that finds nothing changed saves the document
    /// all the same, since it does not know what is stored: that is the duplicate to be skipped.
    pub fn between(before: Option<&Value>, after: &Value) -> Vec<Change> {
        let (Some(Value::Object(old)), Value::Object(new)) = (before, after) else {
            return vec![Change::Set(after.clone())];
        };
        let mut changes = Vec::new();
        for (key, value) in new {
            match (old.get(key), value) {
                (Some(same), _) if same == value => {}
                (Some(Value::Array(known)), Value::Array(all)) if all.starts_with(known) => {
                    changes.extend(
                        all[known.len()..]
                            .iter()
                            .map(|added| Change::Append(key.clone(), added.clone())),
                    );
                }
                (Some(Value::Object(known)), Value::Object(all)) => {
                    changes.extend(section(key, known, all))
                }
                _ => changes.push(Change::Update(Map::from_iter([(
                    key.clone(),
                    value.clone(),
                )]))),
            }
        }
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            changes.push(Change::Merge(json!({ key: null })));
        }
        if changes.is_empty() {
            changes.push(Change::Set(after.clone()));
        }
        changes
    }

    /// Makes the change in a document. A change that does not fit the document leaves it as it is; those of
    /// [`Change::between`] fit.
    pub fn apply(&self, document: &mut Value) {
        match self {
            Change::Set(whole) => *document = whole.clone(),
            Change::Update(members) => merge_members(document, members),
            Change::UpdateSection(name, members) => {
                if let Some(section) = document.get_mut(name) {
                    merge_members(section, members);
                }
            }
            Change::Append(key, value) => {
                if let Some(Value::Array(array)) = document.get_mut(key) {
                    array.push(value.clone());
                }
            }
            Change::Merge(patch) => merge_patch(document, patch),
        }
    }
}

/// The changes of one section: its variables one by one, the fields of any other section at once.
fn section(name: &str, old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<Change> {
    let changed = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| (key.clone(), value.clone()));
    let mut changes: Vec<Change> = if name == VARIABLES {
        changed
            .map(|member| Change::UpdateSection(name.into(), Map::from_iter([member])))
            .collect()
    } else {
        let members: Map<String, Value> = changed.collect();
        if members.is_empty() {
            Vec::new()
        } else {
            vec![Change::UpdateSection(name.into(), members)]
        }
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    changes.extend(gone.map(|key| Change::Merge(json!({ name: { key: null } }))));
    changes
}

fn merge_members(target: &mut Value, members: &Map<String, Value>) {
    if let Value::Object(object) = target {
        object.extend(
            members
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
    }
}

/// RFC 7396, section 2.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(object) = target {
        for (key, value) in members {
            if value.is_null() {
                object.remove(key);
            } else {
                merge_patch(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn replayed(before: &Value, after: &Value) -> (Vec<Change>, Value) {
        let changes = Change::between(Some(before), after);
        let mut document = before.clone();
        changes
            .iter()
            .for_each(|change| change.apply(&mut document));
        (changes, document)
    }

    #[test]
    fn each_kind_of_difference_becomes_its_own_change() {
        let before = json!({"messages": [1], "variables": {"a": 1, "b": 2, "c": 3},
                            "intermediate": {"turn": 0, "tool": "x"},
                            "exports": [1, 2], "note": "old", "gone": true});
        let after = json!({"messages": [1, 2, 3], "variables": {"a": 9, "b": 8},
                           "intermediate": {"turn": 1, "tool": "y"},
                           "exports": [2], "note": "new"});
        let (changes, document) = replayed(&before, &after);
        assert_eq!(document, after);
        let map = |value: Value| value.as_object().unwrap().clone();
        let expected = vec![
            Change::Update(map(json!({"exports": [2]}))),
            Change::UpdateSection("intermediate".into(), map(json!({"turn": 1, "tool": "y"}))),
            Change::Append("messages".into(), json!(2)),
            Change::Append("messages".into(), json!(3)),
            Change::Update(map(json!({"note": "new"}))),
            Change::UpdateSection("variables".into(), map(json!({"a": 9}))),
            Change::UpdateSection("variables".into(), map(json!({"b": 8}))),
            Change::Merge(json!({"variables": {"c": null}})),
            Change::Merge(json!({"gone": null})),
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_step_that_changed_nothing_saves_the_document_again() {
        let document = json!({"messages": [1]});
        assert_eq!(
            Change::between(Some(&document), &document),
            vec![Change::Set(document.clone())]
        );
    }

    #[test]
    fn a_first_step_and_a_document_of_another_kind_are_set_whole() {
        assert_eq!(
            Change::between(None, &json!({"a": 1})),
            vec![Change::Set(json!({"a": 1}))]
        );
        assert_eq!(
            Change::between(Some(&json!([1])), &json!([2])),
            vec![Change::Set(json!([2]))]
        );
    }

    #[test]
    fn the_changes_of_the_recorded_run_lead_to_each_of_its_steps() {
        let recording =
            crate::trace::read(concat!(env!("CARGO_MANIFEST_DIR"), "/run.jsonl")).unwrap();
        let mut document = Value::Null;
        for step in &recording.steps {
            step.changes
                .iter()
                .for_each(|change| change.apply(&mut document));
            assert_eq!(document, step.state);
        }
        assert!(recording.steps.len() >= 20);
        assert!(recording.steps.iter().any(|step| step.repeated));
    }
}
