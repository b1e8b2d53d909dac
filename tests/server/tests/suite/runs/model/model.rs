//! What the contract says of runs, on plain values: variables, inheritance, the three-way merge, exports and
//! conflicts. Nothing in it is taken from the implementation.

use super::step::{Answer, Step};
use super::values::patched;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Sensitivities, the least first; elsewhere they are indexes of this list.
pub const LEVELS: [&str; 5] = ["public", "internal", "confidential", "pii", "secret"];
/// What is not declared otherwise.
pub const INTERNAL: usize = 1;

/// A mistake that the model makes on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The right model.
    None,
    /// What the parent has is taken for what both began with.
    MergesTwoWay,
    /// A merge compares with what the child began with, whatever was merged since.
    ComparesWithTheBeginning,
    /// The sensitivity of the value that is chosen is taken.
    SensitivityOfTheChosen,
    /// A variable that waits for a decision can be set.
    BlocksNothing,
    /// A child inherits whatever its permissions are.
    InheritsAll,
    /// An export is merged as if the parent had not changed.
    ExportOverwrites,
}

/// When a value was set: unknown counts as the oldest, a fixed one was put there by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Time {
    Unknown,
    Fixed(u64),
    /// The server's clock at the step of this number.
    Server(u64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    pub value: Value,
    pub source: &'static str,
    pub time: Time,
    pub level: usize,
    pub mutable: bool,
}

pub(super) type Variables = BTreeMap<String, Variable>;

#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    pub key: String,
    pub destination: &'static str,
    pub level: usize,
    /// Whether member `a` of the value travels, and not the whole.
    pub takes_member: bool,
}

#[derive(Debug, Clone)]
pub struct Run {
    pub name: String,
    pub parent: Option<usize>,
    pub depth: usize,
    pub status: &'static str,
    permissions: BTreeSet<&'static str>,
    pub variables: Variables,
    /// The variables as they were when the run and its parent last were one.
    pub(super) base: Variables,
    /// What the parent had then of variables of which the run had others.
    pub(super) parent_base: BTreeMap<String, Option<Value>>,
    /// Numbers of the conflicts that each variable waits for.
    pub waiting: BTreeMap<String, Vec<usize>>,
    pub exports: Vec<Export>,
}

/// A row of `state_conflict`. Conflicts are numbered in the order in which they are opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    pub run: usize,
    pub child: usize,
    pub variable: String,
    pub base: Option<Value>,
    pub parent: Option<Value>,
    pub theirs: Value,
    pub level: usize,
    pub status: &'static str,
    pub superseded_by: Option<usize>,
    pub resolved: Option<Value>,
}

/// SQLSTATEs of the rules that a step breaks; the server names one of them.
pub type Broken = BTreeSet<&'static str>;

#[derive(Debug, Clone)]
pub struct Model {
    pub runs: Vec<Run>,
    pub conflicts: Vec<Conflict>,
    /// Run, variable, value, level.
    pub outbox: Vec<(usize, String, Value, usize)>,
    /// What was exported to the class `kept`, by its key.
    pub kept: BTreeMap<String, Value>,
    /// What is on the swarm's blackboard, and who put it there.
    pub board: BTreeMap<String, (Value, usize)>,
    /// The declared floors, which all runs of the hierarchy have.
    pub floors: BTreeMap<String, usize>,
    pub(super) flaw: Flaw,
}

/// A value of a variable.
pub(super) fn value_of(variable: Option<&Variable>) -> Option<&Value> {
    variable.map(|variable| &variable.value)
}

impl Model {
    /// A hierarchy of one root with these variables and permissions.
    pub fn new(
        root: &str,
        inputs: &[(String, Value)],
        permissions: &[&'static str],
        floors: BTreeMap<String, usize>,
        flaw: Flaw,
    ) -> Self {
        let mut model = Self {
            runs: Vec::new(),
            conflicts: Vec::new(),
            outbox: Vec::new(),
            kept: BTreeMap::new(),
            board: BTreeMap::new(),
            floors,
            flaw,
        };
        let variables = model.with_inputs(Variables::new(), inputs, "user", 0);
        model.runs.push(Run {
            name: root.to_owned(),
            parent: None,
            depth: 0,
            status: "running",
            permissions: permissions.iter().copied().collect(),
            base: variables.clone(),
            parent_base: BTreeMap::new(),
            variables,
            waiting: BTreeMap::new(),
            exports: Vec::new(),
        });
        model
    }

    pub(super) fn floor(&self, name: &str) -> usize {
        self.floors.get(name).copied().unwrap_or(0)
    }

    /// How sensitive a variable is, its floor included.
    pub fn effective(&self, name: &str, variable: Option<&Variable>) -> usize {
        self.floor(name)
            .max(variable.map_or(0, |variable| variable.level))
    }

    fn with_inputs(
        &self,
        mut variables: Variables,
        inputs: &[(String, Value)],
        source: &'static str,
        now: u64,
    ) -> Variables {
        for (name, value) in inputs {
            let least = self.floors.get(name).copied().unwrap_or(INTERNAL);
            let inherited = variables.get(name).map_or(0, |variable| variable.level);
            let variable = Variable {
                value: value.clone(),
                source,
                time: Time::Server(now),
                level: least.max(inherited),
                mutable: true,
            };
            variables.insert(name.clone(), variable);
        }
        variables
    }

    /// What the step does at the server's time `now`, or the rules that it breaks.
    pub fn after(&self, step: &Step, now: u64) -> Result<(Self, Answer), Broken> {
        let mut next = self.clone();
        let mut broken = Broken::new();
        let answer = next.apply(step, now, &mut broken);
        match broken.is_empty() {
            true => Ok((next, answer)),
            false => Err(broken),
        }
    }

    pub(super) fn must_run(&self, run: usize, broken: &mut Broken) {
        if self.runs[run].status != "running" {
            broken.insert("55000");
        }
    }

    fn apply(&mut self, step: &Step, now: u64, broken: &mut Broken) -> Answer {
        match step {
            Step::Child {
                parent,
                name,
                inputs,
                permissions,
                max,
            } => {
                self.add_child(
                    (*parent, name),
                    inputs,
                    permissions.as_deref(),
                    *max,
                    now,
                    broken,
                );
            }
            Step::Set {
                run,
                values,
                source,
                level,
                mutable,
            } => {
                for (name, value) in values {
                    let change = |_: Option<&Value>| Ok(value.clone());
                    self.set(*run, name, change, (source, *level, *mutable), now, broken);
                }
            }
            Step::Append { run, name, value } => {
                let change = |before: Option<&Value>| {
                    let mut elements = match before {
                        Some(before) => before.as_array().ok_or("22039")?.clone(),
                        None => Vec::new(),
                    };
                    elements.push(value.clone());
                    Ok(elements.into())
                };
                self.set(*run, name, change, ("step", None, None), now, broken);
            }
            Step::Patch { run, name, patch } => {
                let change = |before: Option<&Value>| Ok(patched(before, patch));
                self.set(*run, name, change, ("step", None, None), now, broken);
            }
            Step::ByHand {
                run,
                name,
                variable,
            } => {
                self.runs[*run]
                    .variables
                    .insert(name.clone(), variable.clone());
            }
            Step::Merge {
                child,
                strategy,
                per_variable,
            } => {
                return self.merge(*child, strategy, per_variable, broken);
            }
            Step::Mark {
                run,
                key,
                destination,
                takes_member,
                level,
            } => {
                self.mark(*run, key, destination, (*takes_member, *level), broken);
            }
            Step::Complete {
                run,
                outcome,
                strategy,
            } => {
                return self.complete(*run, outcome, strategy, broken);
            }
            Step::Resolve { conflict, value } => self.resolve(*conflict, value, now, broken),
        }
        Answer::Nothing
    }

    fn add_child(
        &mut self,
        (parent, name): (usize, &str),
        inputs: &[(String, Value)],
        asked: Option<&[&'static str]>,
        max: Option<usize>,
        now: u64,
        broken: &mut Broken,
    ) {
        self.must_run(parent, broken);
        if self.runs.iter().any(|run| run.name == name) {
            broken.insert("42710");
        }
        let above = &self.runs[parent];
        let permissions: BTreeSet<_> = match asked {
            Some(asked) => asked.iter().copied().collect(),
            None => above.permissions.clone(),
        };
        if !permissions.is_subset(&above.permissions) {
            broken.insert("42501");
        }
        let mut inherited = Variables::new();
        for (name, variable) in &above.variables {
            let level = self.effective(name, Some(variable));
            let needed = ["read:pii", "read:secret"];
            let is_permitted = level < 3
                || permissions.contains(needed[level - 3])
                || self.flaw == Flaw::InheritsAll;
            if is_permitted && max.is_none_or(|max| level <= max) {
                let variable = Variable {
                    source: "parent",
                    level,
                    ..variable.clone()
                };
                inherited.insert(name.clone(), variable);
            }
        }
        let mut parent_base = BTreeMap::new();
        for (name, _) in inputs {
            if inherited
                .get(name)
                .is_some_and(|replaced| !replaced.mutable)
            {
                broken.insert("55000");
            }
            let replaced = value_of(above.variables.get(name));
            parent_base.insert(name.clone(), replaced.cloned());
        }
        let variables = self.with_inputs(inherited, inputs, "parent", now);
        self.runs.push(Run {
            name: name.to_owned(),
            parent: Some(parent),
            depth: above.depth + 1,
            status: "running",
            permissions,
            base: variables.clone(),
            parent_base,
            variables,
            waiting: BTreeMap::new(),
            exports: Vec::new(),
        });
    }

    fn set(
        &mut self,
        run: usize,
        name: &str,
        change: impl Fn(Option<&Value>) -> Result<Value, &'static str>,
        (source, level, mutable): (&'static str, Option<usize>, Option<bool>),
        now: u64,
        broken: &mut Broken,
    ) {
        self.must_run(run, broken);
        if self.runs[run].waiting.contains_key(name) && self.flaw != Flaw::BlocksNothing {
            broken.insert("55006");
        }
        let before = self.runs[run].variables.get(name);
        if before.is_some_and(|before| !before.mutable) {
            broken.insert("55000");
        }
        let value = match change(value_of(before)) {
            Ok(value) => value,
            Err(code) => {
                broken.insert(code);
                return;
            }
        };
        if value.is_null() {
            broken.insert("22023");
        }
        let own = before.map(|before| before.level);
        let least = level.or(self.floors.get(name).copied());
        let variable = Variable {
            value,
            source,
            time: Time::Server(now),
            level: own.max(least).unwrap_or(INTERNAL).max(self.floor(name)),
            mutable: mutable.unwrap_or(true),
        };
        let same = before.is_some_and(|before| {
            *before
                == Variable {
                    time: before.time,
                    ..variable.clone()
                }
        });
        if !same {
            self.runs[run].variables.insert(name.to_owned(), variable);
        }
    }

    fn resolve(&mut self, number: usize, value: &Value, now: u64, broken: &mut Broken) {
        let conflict = self.conflicts[number].clone();
        let (run, name) = (conflict.run, &conflict.variable);
        let before = self.runs[run].variables.get(name);
        if conflict.status != "open" || value_of(before) != conflict.parent.as_ref() {
            broken.insert("55000");
            return;
        }
        self.must_run(run, broken);
        let variable = Variable {
            value: value.clone(),
            source: "user",
            time: Time::Server(now),
            level: conflict.level.max(before.map_or(0, |before| before.level)),
            mutable: before.is_none_or(|before| before.mutable),
        };
        self.runs[run].variables.insert(name.clone(), variable);
        self.conflicts[number].status = "resolved";
        self.conflicts[number].resolved = Some(value.clone());
        let decided = self.runs[run].variables[name].level;
        // The others are opened anew against the value that was decided.
        let others = self.runs[run].waiting.remove(name).unwrap_or_default();
        let mut anew = Vec::new();
        for other in others.into_iter().filter(|other| *other != number) {
            let next = self.conflicts.len();
            let old = &mut self.conflicts[other];
            let opened = Conflict {
                parent: Some(value.clone()),
                level: old.level.max(decided),
                ..old.clone()
            };
            old.status = "superseded";
            old.superseded_by = Some(next);
            self.conflicts.push(opened);
            anew.push(next);
        }
        if !anew.is_empty() {
            self.runs[run].waiting.insert(name.clone(), anew);
        }
    }
}
