//! What a run hands on when it ends, as the contract says it.

use super::merge::RISEN;
use super::model::{Broken, Export, Flaw, INTERNAL, Model, Run, Variable, value_of};
use super::step::Answer;
use serde_json::Value;
use std::collections::BTreeSet;

/// The most that a destination takes, as the settings are by default.
fn most(destination: &str) -> usize {
    match destination {
        "parent_context" => 4,
        "blackboard" => 2,
        "persistent_store" => 3,
        _ => 1,
    }
}

/// What of a value travels: all of it, or what the SQL/JSON path `$.a` finds first, to which an array is its
/// elements.
fn transformed(value: &Value, takes_member: bool) -> Option<Value> {
    let found = match value {
        _ if !takes_member => Some(value),
        Value::Array(elements) => elements.iter().find_map(|element| element.get("a")),
        other => other.get("a"),
    };
    found.filter(|found| !found.is_null()).cloned()
}

impl Model {
    pub(super) fn mark(
        &mut self,
        run: usize,
        key: &str,
        destination: &'static str,
        (takes_member, level): (bool, Option<usize>),
        broken: &mut Broken,
    ) {
        self.must_run(run, broken);
        let own = self.runs[run]
            .variables
            .get(key)
            .map(|variable| variable.level);
        let level = own.max(level).unwrap_or(INTERNAL).max(self.floor(key));
        if level > most(destination) {
            broken.insert("42501");
        }
        let exports = &mut self.runs[run].exports;
        exports.retain(|export| (&*export.key, export.destination) != (key, destination));
        exports.push(Export {
            key: key.to_owned(),
            destination,
            level,
            takes_member,
        });
    }

    pub(super) fn complete(
        &mut self,
        run: usize,
        outcome: &'static str,
        strategy: &'static str,
        broken: &mut Broken,
    ) -> Answer {
        self.must_run(run, broken);
        let is_child = |other: &Run| other.parent == Some(run) && other.status == "running";
        let is_undecided = outcome == "completed" && !self.runs[run].waiting.is_empty();
        if self.runs.iter().any(is_child) || is_undecided {
            broken.insert("55006");
        }
        for conflict in &mut self.conflicts {
            if conflict.run == run && conflict.status == "open" {
                conflict.status = "abandoned";
            }
        }
        self.runs[run].status = outcome;
        if outcome != "completed" {
            return Answer::Exported(Vec::new());
        }
        let ending = self.runs[run].clone();
        let mut changed = ending.variables.clone();
        let mut arrived = Vec::new();
        let mut to_parent = BTreeSet::new();
        for export in &ending.exports {
            let variable = ending.variables.get(&export.key);
            let level = export.level.max(self.effective(&export.key, variable));
            let destination = match ending.parent {
                None if export.destination == "parent_context" => "blackboard",
                _ => export.destination,
            };
            if level > most(destination) {
                broken.insert("42501");
            }
            let Some(variable) = variable else {
                broken.insert("55000");
                continue;
            };
            let Some(value) = transformed(&variable.value, export.takes_member) else {
                broken.insert("55000");
                continue;
            };
            match destination {
                "parent_context" => {
                    let exported = Variable {
                        value,
                        level,
                        ..variable.clone()
                    };
                    changed.insert(export.key.clone(), exported);
                    to_parent.insert(export.key.clone());
                }
                "persistent_store" => {
                    self.kept
                        .insert(format!("{}/{}", ending.name, export.key), value);
                }
                "external_system" => {
                    self.outbox.push((run, export.key.clone(), value, level));
                }
                _ => {
                    self.board.insert(export.key.clone(), (value, run));
                }
            }
            arrived.push((export.key.clone(), destination.to_owned(), None));
        }
        if let Some(parent) = ending.parent.filter(|_| !to_parent.is_empty()) {
            self.must_run(parent, broken);
            if self.flaw == Flaw::ExportOverwrites {
                self.runs[run].base = self.runs[parent].variables.clone();
            }
            let is_going = |name: &str| to_parent.contains(name);
            let outcomes = self.merge_into((parent, run), &changed, &|_| strategy, &is_going);
            for (key, destination, outcome) in &mut arrived {
                if destination == "parent_context" {
                    *outcome = outcomes.get(key).cloned();
                }
            }
            // Of what was exported this was the last merge.
            for name in to_parent {
                let decided = outcomes.get(&name).filter(|it| it.reason != RISEN);
                let run = &mut self.runs[run];
                let ours = match (decided, run.parent_base.get(&name)) {
                    (Some(decided), _) => decided.value.clone(),
                    (None, Some(known)) => known.clone(),
                    (None, None) => value_of(run.base.get(&name)).cloned(),
                };
                let Some(theirs) = ending.variables.get(&name).cloned() else {
                    continue;
                };
                if ours.as_ref() == Some(&theirs.value) {
                    run.parent_base.remove(&name);
                } else {
                    run.parent_base.insert(name.clone(), ours);
                }
                run.base.insert(name, theirs);
            }
        }
        Answer::Exported(arrived)
    }
}
