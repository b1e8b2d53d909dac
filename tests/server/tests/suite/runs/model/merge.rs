//! The three-way merge of a child into its parent, as the contract says it.

use super::model::{Broken, Conflict, Flaw, Model, Time, Variable, Variables, value_of};
use super::step::{Answer, Outcome};
use super::values::{concatenated, merged_objects};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a row stands for a variable whose value is none that the child made.
pub(super) const RISEN: &str = "only its sensitivity rose";

impl Model {
    pub(super) fn merge(
        &mut self,
        child: usize,
        strategy: &'static str,
        per_variable: &BTreeMap<String, &'static str>,
        broken: &mut Broken,
    ) -> Answer {
        let Some(parent) = self.runs[child].parent else {
            broken.insert("22023");
            return Answer::Nothing;
        };
        let variables = self.runs[child].variables.clone();
        let strategy_of = |name: &str| per_variable.get(name).copied().unwrap_or(strategy);
        let outcomes = self.merge_into((parent, child), &variables, &strategy_of, &|_| true);
        self.must_run(parent, broken);
        if self.flaw != Flaw::ComparesWithTheBeginning {
            // Of a value that the child has not changed nothing was decided.
            let decided = outcomes.iter().filter(|(_, it)| it.reason != RISEN);
            for (name, outcome) in decided {
                let ours = outcome.value.clone();
                let others = &mut self.runs[child].parent_base;
                if ours.as_ref() == value_of(variables.get(name)) {
                    others.remove(name);
                } else {
                    others.insert(name.clone(), ours);
                }
            }
            self.runs[child].base = variables;
        }
        Answer::Merged(outcomes)
    }

    /// Merges these variables of a child, those that are wanted, into its parent.
    pub(super) fn merge_into(
        &mut self,
        (parent, child): (usize, usize),
        variables: &Variables,
        strategy_of: &dyn Fn(&str) -> &'static str,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> BTreeMap<String, Outcome> {
        let mut outcomes = BTreeMap::new();
        let mut wanted: Vec<_> = variables
            .iter()
            .filter(|(name, _)| is_wanted(name))
            .collect();
        // As an object of jsonb has its members: conflicts are numbered in this order.
        wanted.sort_by_key(|(name, _)| (name.len(), *name));
        for (name, theirs) in wanted {
            let ours = self.runs[parent].variables.get(name).cloned();
            let base = match self.flaw {
                Flaw::MergesTwoWay => ours.clone(),
                _ => self.runs[child].base.get(name).cloned(),
            };
            let sides = [base.as_ref(), ours.as_ref(), Some(theirs)];
            let highest = sides
                .map(|side| self.effective(name, side))
                .into_iter()
                .max()
                .unwrap();
            // What the parent had when the child had its base.
            let began = match self.runs[child].parent_base.get(name) {
                Some(other) if self.flaw != Flaw::MergesTwoWay => other.clone(),
                _ => value_of(base.as_ref()).cloned(),
            };
            let is_blocked = self.runs[parent].waiting.contains_key(name);
            let Some((becomes, mut outcome)) =
                chosen(sides, began.as_ref(), is_blocked, || strategy_of(name))
            else {
                // The value is the one that the child began with. Its sensitivity may have risen.
                let rose = self.effective(name, Some(theirs)) > self.effective(name, base.as_ref());
                if let Some(ours) =
                    ours.filter(|ours| rose && self.effective(name, Some(ours)) < highest)
                {
                    let outcome = Outcome::without_conflict(&ours.value, RISEN);
                    let risen = Variable {
                        level: highest,
                        ..ours
                    };
                    self.runs[parent].variables.insert(name.clone(), risen);
                    outcomes.insert(name.clone(), outcome);
                }
                continue;
            };
            if outcome.opened {
                let number = self.conflicts.len();
                self.runs[parent]
                    .waiting
                    .entry(name.clone())
                    .or_default()
                    .push(number);
                self.conflicts.push(Conflict {
                    run: parent,
                    child,
                    variable: name.clone(),
                    base: base.map(|base| base.value),
                    parent: ours.map(|ours| ours.value),
                    theirs: theirs.value.clone(),
                    level: highest,
                    status: "open",
                    superseded_by: None,
                    resolved: None,
                });
            }
            outcome.value = becomes.as_ref().map(|becomes| becomes.value.clone());
            if let Some(mut becomes) = becomes {
                // A value that stays keeps its record, unless that says less than it must.
                let stays = self.runs[parent].variables.get(name) == Some(&becomes);
                let suffices = stays && self.effective(name, Some(&becomes)) == highest;
                if !suffices && self.flaw != Flaw::SensitivityOfTheChosen {
                    becomes.level = highest;
                }
                self.runs[parent].variables.insert(name.clone(), becomes);
            }
            outcomes.insert(name.clone(), outcome);
        }
        outcomes
    }
}

impl Outcome {
    fn without_conflict(value: &Value, reason: &'static str) -> Self {
        Self {
            value: Some(value.clone()),
            strategy: None,
            reason,
            opened: false,
        }
    }
}

/// What the parent's variable becomes, but for its sensitivity, and why; `None` if the child has not changed the
/// value.
fn chosen(
    [base, ours, theirs]: [Option<&Variable>; 3],
    began: Option<&Value>,
    is_blocked: bool,
    strategy: impl Fn() -> &'static str,
) -> Option<(Option<Variable>, Outcome)> {
    let theirs = theirs?;
    if value_of(base) == Some(&theirs.value) {
        return None;
    }
    let said = |becomes: Option<&Variable>, strategy, reason| {
        let opened = strategy == Some("manual_review");
        Some((
            becomes.cloned(),
            Outcome {
                value: None,
                strategy,
                reason,
                opened,
            },
        ))
    };
    if is_blocked {
        return said(
            ours,
            Some("manual_review"),
            "it is blocked by an open conflict",
        );
    }
    if value_of(ours) == Some(&theirs.value) {
        return said(ours, None, "both made the same change");
    }
    if ours.is_some_and(|ours| !ours.mutable) {
        return said(ours, None, "it is immutable in the parent");
    }
    let is_later = theirs.time >= ours.map_or(Time::Unknown, |ours| ours.time);
    let combined = |ours: &Variable, value: Value, strategy, reason| {
        if value == ours.value {
            return said(Some(ours), strategy, reason);
        }
        let side = if is_later { theirs } else { ours };
        let mutable = ours.mutable && theirs.mutable;
        let combined = Variable {
            value,
            mutable,
            ..side.clone()
        };
        said(Some(&combined), strategy, reason)
    };
    let reason = "only the child changed it";
    if value_of(ours) == value_of(base) {
        return said(Some(theirs), None, reason);
    }
    if value_of(ours) == began {
        // What it changed of a value that the parent never had is done to the one that the parent has.
        return match ours {
            Some(ours) if ours.value.is_object() && theirs.value.is_object() => {
                let bases = [began, value_of(base)];
                let value = merged_objects(bases, &ours.value, &theirs.value, true);
                combined(ours, value, None, reason)
            }
            Some(ours) if ours.value.is_array() && theirs.value.is_array() => {
                let value = concatenated(value_of(base), &ours.value, &theirs.value);
                combined(ours, value, None, reason)
            }
            _ => said(Some(theirs), None, reason),
        };
    }
    let strategy = strategy();
    let name = Some(strategy);
    let together = match (strategy, ours) {
        ("parent_wins", _) => return said(ours, name, "both changed it, the parent wins"),
        ("child_wins", _) => return said(Some(theirs), name, "both changed it, the child wins"),
        ("manual_review", _) => return said(ours, name, "both changed it, a person decides"),
        ("merge_objects", Some(ours)) if ours.value.is_object() && theirs.value.is_object() => {
            let value = merged_objects(
                [began, value_of(base)],
                &ours.value,
                &theirs.value,
                is_later,
            );
            Some((ours, value, "both changed it, the objects were merged"))
        }
        ("array_concat", Some(ours)) if ours.value.is_array() && theirs.value.is_array() => {
            let value = concatenated(value_of(base), &ours.value, &theirs.value);
            Some((ours, value, "both changed it, the arrays were concatenated"))
        }
        _ => None,
    };
    match together {
        Some((ours, value, reason)) => combined(ours, value, name, reason),
        None if is_later => said(
            Some(theirs),
            name,
            "both changed it, the parent's value is not later",
        ),
        None => said(ours, name, "both changed it, the parent's value is later"),
    }
}
