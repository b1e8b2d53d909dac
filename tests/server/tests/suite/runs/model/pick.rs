//! Picking steps at random.

use super::history::{History, STEPS};
use super::model::{INTERNAL, Time, Variable};
use super::step::Step;
use serde_json::{Value, json};
use state_cache_server_tests::Dice;
use std::collections::BTreeMap;

/// Runs of a history at most.
const RUNS: usize = 9;
pub const NAMES: [&str; 4] = ["plan", "list", "note", "key"];
const STRATEGIES: [&str; 7] = [
    "parent_wins",
    "child_wins",
    "keep_latest",
    "timestamp_latest",
    "merge_objects",
    "array_concat",
    "manual_review",
];
const DESTINATIONS: [&str; 5] = [
    "parent_context",
    "parent_context",
    "blackboard",
    "persistent_store",
    "external_system",
];

impl History {
    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.dice.roll(among.len() as u64) as usize]
    }

    /// Sometimes a thing, sometimes none.
    fn maybe<T: Copy>(&mut self, one_in: u64, among: &[T]) -> Option<T> {
        (self.dice.roll(one_in) == 0).then(|| self.pick(among))
    }

    fn name(&mut self) -> String {
        self.pick(&NAMES).to_owned()
    }

    /// Mostly this name.
    fn name_for(&mut self, name: &str) -> String {
        match self.dice.roll(4) {
            0 => self.name(),
            _ => name.to_owned(),
        }
    }

    /// The name of a variable that a run has, for the most part.
    fn name_in(&mut self, run: usize) -> String {
        let there: Vec<String> = self.now.runs[run].variables.keys().cloned().collect();
        match there.is_empty() || self.dice.roll(10) == 0 {
            true => self.name(),
            false => there[self.dice.roll(there.len() as u64) as usize].clone(),
        }
    }

    fn inputs(&mut self, most: u64) -> Vec<(String, Value)> {
        let mut inputs = BTreeMap::new();
        for _ in 0..self.dice.roll(most + 1) {
            let name = self.name();
            let value = value_for(&mut self.dice, &name);
            inputs.insert(name, value);
        }
        inputs.into_iter().collect()
    }

    /// A run, more often one that runs.
    fn some_run(&mut self) -> usize {
        let all: Vec<usize> = (0..self.now.runs.len()).collect();
        let running: Vec<usize> = all
            .iter()
            .copied()
            .filter(|run| self.now.runs[*run].status == "running")
            .collect();
        match running.is_empty() || self.dice.roll(12) == 0 {
            true => self.pick(&all),
            false => self.pick(&running),
        }
    }

    /// A run to be completed: mostly one with exports that no child keeps from ending, and the root late, or nothing
    /// more could happen.
    fn some_ending(&mut self, otherwise: usize) -> usize {
        let runs = &self.now.runs;
        let keeps = |parent: usize| {
            let mut children = runs.iter().filter(|run| run.parent == Some(parent));
            children.any(|child| child.status == "running")
        };
        let can_end = |run: &usize| {
            let is_ready = runs[*run].status == "running" && !keeps(*run);
            is_ready && !runs[*run].exports.is_empty()
        };
        let ready: Vec<usize> = (1..runs.len()).filter(can_end).collect();
        let last = runs.len() - 1;
        let is_late = self.step > STEPS * 4 / 5;
        match () {
            () if !ready.is_empty() && self.dice.roll(4) > 0 => self.pick(&ready),
            () if otherwise == 0 && !is_late => last,
            () => otherwise,
        }
    }

    fn some_level(&mut self) -> Option<usize> {
        self.maybe(6, &[0, 1, 2, 3, 4])
    }

    pub(super) fn pick_step(&mut self) -> Option<Step> {
        let run = self.some_run();
        let kind = self.dice.roll(100);
        Some(match kind {
            0..13 if self.now.runs.len() < RUNS => {
                let number = self.now.runs.len() as u64 - u64::from(self.dice.roll(20) == 0);
                Step::Child {
                    // Most are children of the root.
                    parent: if self.dice.roll(3) > 0 { 0 } else { run },
                    name: format!("{}{number}", self.prefix),
                    inputs: self.inputs(2),
                    permissions: self
                        .maybe(3, &[&[][..], &["read:pii"], &["read:pii", "read:secret"]])
                        .map(<[_]>::to_vec),
                    max: self.maybe(6, &[0, 1, 2, 3, 4]),
                }
            }
            0..36 => {
                let most = if self.dice.roll(3) == 0 { 4 } else { 1 };
                let mut values = self.inputs(most);
                if values.is_empty() {
                    let name = self.name();
                    let value = value_for(&mut self.dice, &name);
                    values.push((name, value));
                }
                let mut level = None;
                match self.dice.roll(30) {
                    0 => values[0].1 = Value::Null,
                    // The value that is there, perhaps with another sensitivity.
                    1..6 => {
                        let there = self.now.runs[run].variables.get(&values[0].0);
                        values[0].1 = there.map_or(Value::Null, |there| there.value.clone());
                        level = self.maybe(2, &[2, 3, 4]);
                    }
                    _ => {}
                }
                Step::Set {
                    run,
                    values,
                    source: self.pick(&["step", "step", "user", "system"]),
                    level: level.or(self.some_level()),
                    mutable: self.maybe(8, &[true, false]),
                }
            }
            36..42 => Step::Append {
                run,
                name: self.name_for("list"),
                value: value(&mut self.dice, 1),
            },
            42..50 => Step::Patch {
                run,
                name: self.name_for("plan"),
                patch: patch(&mut self.dice),
            },
            50..54 => {
                let time = self.dice.roll(4);
                Step::ByHand {
                    run,
                    name: self.name(),
                    variable: Variable {
                        value: value(&mut self.dice, 2),
                        source: "step",
                        time: if time == 3 {
                            Time::Unknown
                        } else {
                            Time::Fixed(time)
                        },
                        level: self.some_level().unwrap_or(INTERNAL),
                        mutable: self.dice.roll(8) > 0,
                    },
                }
            }
            54..76 => {
                let child = match self.now.runs.len() {
                    1 => 0,
                    many => (1 + self.dice.roll(many as u64 - 1)) as usize,
                };
                let mut per_variable = BTreeMap::new();
                for _ in 0..self.dice.roll(3) {
                    per_variable.insert(self.name(), self.pick(&STRATEGIES));
                }
                Step::Merge {
                    child,
                    strategy: self.pick(&STRATEGIES),
                    per_variable,
                }
            }
            76..86 => Step::Mark {
                run,
                key: self.name_in(run),
                destination: self.pick(&DESTINATIONS),
                takes_member: self.dice.roll(8) == 0,
                level: self.maybe(6, &[0, 1, 2, 3, 4]),
            },
            86..90 if self.step > STEPS / 3 => Step::Complete {
                // The root last, or nothing more could happen.
                run: self.some_ending(run),
                outcome: self.pick(&["completed", "completed", "completed", "failed", "cancelled"]),
                strategy: self.pick(&STRATEGIES),
            },
            _ => {
                let all: Vec<usize> = (0..self.now.conflicts.len()).collect();
                let open: Vec<usize> = all
                    .iter()
                    .copied()
                    .filter(|number| self.now.conflicts[*number].status == "open")
                    .collect();
                let among = if open.is_empty() || self.dice.roll(6) == 0 {
                    all
                } else {
                    open
                };
                if among.is_empty() {
                    return None;
                }
                Step::Resolve {
                    conflict: self.pick(&among),
                    value: value(&mut self.dice, 2),
                }
            }
        })
    }
}

/// A small value, so that two are often alike.
fn value(dice: &mut Dice, depth: u64) -> Value {
    let kind = dice.roll(if depth == 0 { 3 } else { 8 });
    value_of_kind(dice, kind, depth)
}

/// A value as a variable of this name mostly has it: the plan is an object, the list an array.
pub fn value_for(dice: &mut Dice, name: &str) -> Value {
    let kind = match name {
        "plan" => 7,
        "list" => 3,
        _ => dice.roll(8),
    };
    let kind = if dice.roll(8) == 0 { 0 } else { kind };
    value_of_kind(dice, kind, 2)
}

fn value_of_kind(dice: &mut Dice, kind: u64, depth: u64) -> Value {
    match kind {
        0 => json!(dice.roll(3)),
        1 => json!(["x", "y"][dice.roll(2) as usize]),
        2 => json!(dice.roll(2) == 0),
        3 | 4 => (0..dice.roll(4)).map(|_| value(dice, depth - 1)).collect(),
        _ => {
            let mut members = serde_json::Map::new();
            for _ in 0..dice.roll(4) {
                let key = ["a", "b", "cc"][dice.roll(3) as usize];
                let member = if dice.roll(12) == 0 {
                    Value::Null
                } else {
                    value(dice, depth - 1)
                };
                members.insert(key.to_owned(), member);
            }
            members.into()
        }
    }
}

fn patch(dice: &mut Dice) -> Value {
    if dice.roll(10) == 0 {
        return [Value::Null, json!(1), json!([1])][dice.roll(3) as usize].clone();
    }
    let mut members = serde_json::Map::new();
    for key in ["a", "b", "cc"] {
        match dice.roll(4) {
            0 => members.insert(key.to_owned(), Value::Null),
            1 => members.insert(key.to_owned(), value(dice, 1)),
            2 => members.insert(key.to_owned(), json!({ "a": value(dice, 0), "b": null })),
            _ => None,
        };
    }
    members.into()
}
