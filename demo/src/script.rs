//! The recorded run shared out among agents: who makes which of its steps, and what each step changes.

use std::collections::BTreeMap;
use std::error::Error;

use serde_json::{Map, Value};

use crate::trace;

/// The recording, and its name.
const RECORDING: (&str, &str) = ("demo/run.jsonl", include_str!("../run.jsonl"));

/// The agents with the steps of the recording that are theirs: those in which one of their tools was used. Steps that
/// changed no variable are nobody's.
const AGENTS: [(&str, &[usize]); 3] = [
    ("metrics", &[3, 4, 7, 9, 20, 23]),
    ("deployments", &[8, 11, 12, 16, 19]),
    ("tickets", &[2, 6, 10, 24]),
];

/// One step of an agent.
#[derive(Debug)]
pub struct Step {
    /// Its number in the recording, from 1.
    pub number: usize,
    /// Merge patches (RFC 7396) of the values of variables, by name.
    pub patches: Vec<(String, Value)>,
}

/// What one agent does.
#[derive(Debug)]
pub struct Part {
    /// Name of the agent.
    pub agent: &'static str,
    /// Its steps, in the order of the recording.
    pub steps: Vec<Step>,
}

/// The recorded run, shared out.
#[derive(Debug)]
pub struct Script {
    /// Name of the run.
    pub run: String,
    /// Values of the variables after the first step, which the agents start from.
    pub first: Value,
    /// Values of the variables after the last step.
    pub last: Value,
    /// The report that the run handed in at its end.
    pub report: Value,
    /// What the agents do.
    pub parts: [Part; 3],
}

impl Script {
    /// Reads the recording.
    ///
    /// # Errors
    /// If it is not the one whose steps are shared out here.
    pub fn read() -> Result<Self, Box<dyn Error>> {
        let recording = trace::parse(RECORDING.0, RECORDING.1)?;
        let states: Vec<_> = recording.steps.iter().map(|step| &step.state).collect();
        let values: Vec<_> = states.iter().map(|state| values(state)).collect();
        let mut changes: BTreeMap<usize, Vec<(String, Value)>> = values
            .windows(2)
            .enumerate()
            .map(|(before, pair)| (before + 2, patches(&pair[0], &pair[1])))
            .filter(|(_, patches)| !patches.is_empty())
            .collect();
        let mut missing = Vec::new();
        let parts = AGENTS.map(|(agent, numbers)| Part {
            agent,
            steps: numbers
                .iter()
                .filter_map(|&number| {
                    let patches = changes.remove(&number);
                    if patches.is_none() {
                        missing.push(number);
                    }
                    Some(Step {
                        number,
                        patches: patches?,
                    })
                })
                .collect(),
        });
        missing.extend(changes.into_keys());
        if !missing.is_empty() {
            return Err(format!("{}: whose are steps {missing:?}?", RECORDING.0).into());
        }
        let (Some(state), Some(first), Some(last)) = (states.last(), values.first(), values.last())
        else {
            return Err(format!("{} holds no step", RECORDING.0).into());
        };
        Ok(Script {
            run: state["runId"].as_str().unwrap_or_default().to_owned(),
            first: Value::Object(first.clone()),
            last: Value::Object(last.clone()),
            report: state["exports"][0].clone(),
            parts,
        })
    }

    /// How many steps all agents make.
    pub fn steps(&self) -> usize {
        self.parts.iter().map(|part| part.steps.len()).sum()
    }
}

/// The values of a document's variables.
pub fn values(document: &Value) -> Map<String, Value> {
    let variables = document["variables"].as_object();
    let values = variables
        .into_iter()
        .flatten()
        .map(|(name, variable)| (name.clone(), variable["value"].clone()));
    values.collect()
}

/// The patches of the variables whose values differ.
fn patches(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<(String, Value)> {
    after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), patch(before.get(name), value)))
        .collect()
}

/// The merge patch that makes one value of another. It cannot make a member null, which the recording never does.
fn patch(before: Option<&Value>, after: &Value) -> Value {
    let (Some(Value::Object(old)), Value::Object(new)) = (before, after) else {
        return after.clone();
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let changed = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), patch(old.get(key), value)));
    let members = changed.chain(gone.map(|key| (key.clone(), Value::Null)));
    Value::Object(members.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::change::Change;

    /// The agents one after another, in this order.
    fn played(order: [usize; 3]) -> Value {
        let script = Script::read().unwrap();
        let mut values = script.first;
        for agent in order {
            for step in &script.parts[agent].steps {
                for (name, patch) in &step.patches {
                    Change::Merge(patch.clone()).apply(&mut values[name]);
                }
            }
        }
        values
    }

    #[test]
    fn the_agents_come_to_the_recorded_end_in_any_order() {
        let recorded = Script::read().unwrap().last;
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            assert_eq!(played(order), recorded);
        }
    }

    #[test]
    fn every_agent_has_changed_the_notebook() {
        for part in Script::read().unwrap().parts {
            let mut names = part.steps.iter().flat_map(|step| &step.patches);
            assert!(names.any(|(name, _)| name == "Notebook"), "{}", part.agent);
        }
    }
}
