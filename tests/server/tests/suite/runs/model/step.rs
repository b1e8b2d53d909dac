//! The steps of a history: what they are, and how they are said in SQL.

use super::model::{INTERNAL, LEVELS, Model, Time, Variable};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a merge says of one variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub value: Option<Value>,
    pub strategy: Option<&'static str>,
    pub reason: &'static str,
    pub opened: bool,
}

/// A step of a history.
#[derive(Debug, Clone)]
pub enum Step {
    Child {
        parent: usize,
        name: String,
        inputs: Vec<(String, Value)>,
        permissions: Option<Vec<&'static str>>,
        max: Option<usize>,
    },
    Set {
        run: usize,
        values: Vec<(String, Value)>,
        source: &'static str,
        level: Option<usize>,
        mutable: Option<bool>,
    },
    Append {
        run: usize,
        name: String,
        value: Value,
    },
    Patch {
        run: usize,
        name: String,
        patch: Value,
    },
    /// A record put into the document by `state_update_section()`, past all rules.
    ByHand {
        run: usize,
        name: String,
        variable: Variable,
    },
    Merge {
        child: usize,
        strategy: &'static str,
        per_variable: BTreeMap<String, &'static str>,
    },
    Mark {
        run: usize,
        key: String,
        destination: &'static str,
        takes_member: bool,
        level: Option<usize>,
    },
    Complete {
        run: usize,
        outcome: &'static str,
        strategy: &'static str,
    },
    Resolve {
        conflict: usize,
        value: Value,
    },
}

/// What a step answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Nothing,
    Merged(BTreeMap<String, Outcome>),
    /// By variable and where it went.
    Exported(Vec<(String, String, Option<Outcome>)>),
}

pub fn quoted(value: &Value) -> String {
    format!("'{value}'")
}

pub fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or("NULL".into(), |value| value.to_string())
}

fn level(level: Option<usize>) -> String {
    optional(level.map(|level| format!("'{}'", LEVELS[level])))
}

pub fn object<T: Into<Value> + Clone>(members: &[(String, T)]) -> Value {
    let members = members
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()));
    Value::Object(members.collect())
}

impl Step {
    /// The statement that makes the step, in a history whose runs' names begin with `prefix`.
    pub fn sql(&self, model: &Model, prefix: &str) -> String {
        let name_of = |run: &usize| model.runs[*run].name.clone();
        match self {
            Step::Child {
                parent,
                name,
                inputs,
                permissions,
                max,
            } => format!(
                "SELECT state_context_child('{}', '{name}', {}, permissions => {}, max_sensitivity => {})",
                name_of(parent),
                if inputs.is_empty() {
                    "NULL".into()
                } else {
                    quoted(&object(inputs))
                },
                optional(
                    permissions
                        .as_ref()
                        .map(|held| format!("'{{{}}}'", held.join(",")))
                ),
                level(*max),
            ),
            Step::Set {
                run,
                values,
                source,
                level: asked,
                mutable,
            } => {
                let (function, what) = match &values[..] {
                    [(name, value)] => {
                        ("state_context_set", format!("'{name}', {}", quoted(value)))
                    }
                    many => ("state_context_set_many", quoted(&object(many))),
                };
                format!(
                    "SELECT {function}('{}', {what}, '{source}', {}, {})",
                    name_of(run),
                    level(*asked),
                    optional(*mutable)
                )
            }
            Step::Append { run, name, value } => {
                format!(
                    "SELECT state_context_append('{}', '{name}', {})",
                    name_of(run),
                    quoted(value)
                )
            }
            Step::Patch { run, name, patch } => {
                format!(
                    "SELECT state_context_patch('{}', '{name}', {})",
                    name_of(run),
                    quoted(patch)
                )
            }
            Step::ByHand {
                run,
                name,
                variable,
            } => {
                let mut record = json!({"key": name, "value": variable.value});
                // What is the default may be left out.
                if variable.level != INTERNAL {
                    record["sensitivity"] = LEVELS[variable.level].into();
                }
                if !variable.mutable {
                    record["mutable"] = false.into();
                }
                if let Time::Fixed(second) = variable.time {
                    record["timestamp"] = fixed(second).into();
                }
                format!(
                    "SELECT state_update_section('{}', 'variables', {})",
                    name_of(run),
                    quoted(&json!({ name: record }))
                )
            }
            Step::Merge {
                child,
                strategy,
                per_variable,
            } => {
                let per_variable: Vec<_> = per_variable.clone().into_iter().collect();
                format!(
                    "SELECT variable, value, strategy, reason, conflict IS NOT NULL FROM state_context_merge('{}', \
                        '{strategy}', {})",
                    name_of(child),
                    quoted(&object(&per_variable))
                )
            }
            Step::Mark {
                run,
                key,
                destination,
                takes_member,
                level: asked,
            } => format!(
                "SELECT state_context_mark_export('{}', '{key}', '{destination}', {}, {}, sensitivity => {})",
                name_of(run),
                if *takes_member { "'$.a'" } else { "NULL" },
                match *destination {
                    "persistent_store" => "'kept'",
                    "external_system" => "'mail'",
                    _ => "NULL",
                },
                level(*asked)
            ),
            Step::Complete {
                run,
                outcome,
                strategy,
            } => format!(
                "SELECT key, destination, strategy, reason FROM state_context_complete('{}', '{outcome}', \
                    '{strategy}')",
                name_of(run)
            ),
            Step::Resolve { conflict, value } => format!(
                "SELECT state_conflict_resolve(id, {}, 'decided')
                    FROM (SELECT id FROM state_conflict WHERE run_id LIKE '{prefix}%' ORDER BY id OFFSET {conflict} \
                    LIMIT 1) c",
                quoted(value)
            ),
        }
    }
}

/// A time that was put into a document by hand.
pub fn fixed(second: u64) -> String {
    format!("2001-02-03T04:05:0{second}.000000Z")
}
