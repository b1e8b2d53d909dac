//! Reading a recording: one JSON object a line with `run`, `step` and `state`, the lines of a run in order.
//! What else a line holds is left alone.

use std::collections::HashMap;
use std::error::Error;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::change::Change;

/// A line of a recording.
#[derive(Deserialize)]
struct Line {
    run: String,
    state: Value,
}

/// One step of a recorded run.
pub struct Step {
    /// Name of the run, the key of its state.
    pub run: String,
    /// The changes since the run's step before.
    pub changes: Vec<Change>,
    /// The whole document after the step.
    pub state: Value,
    /// Whether the document is the same as after the step before.
    pub repeated: bool,
}

/// A recording, its runs' steps in the order of the file.
pub struct Recording {
    /// All steps.
    pub steps: Vec<Step>,
}

impl Recording {
    /// How many changes all steps make.
    pub fn changes(&self) -> usize {
        self.steps.iter().map(|step| step.changes.len()).sum()
    }

    /// The last document of each run.
    pub fn last_states(&self) -> HashMap<&str, &Value> {
        self.steps
            .iter()
            .map(|step| (step.run.as_str(), &step.state))
            .collect()
    }
}

/// Reads a recording, through gzip if its name ends so.
pub fn read(path: &str) -> Result<Recording, Box<dyn Error>> {
    parse(path, &text(path)?)
}

/// Reads the text of a recording, which errors call by this name.
pub fn parse(path: &str, text: &str) -> Result<Recording, Box<dyn Error>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut latest: HashMap<String, usize> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: String| format!("{path}, line {}: {what}", number + 1);
        let Line { run, state } =
            serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        if state.is_null() {
            return Err(wrong("nothing under \"state\"".into()).into());
        }
        let before = latest.get(&run).map(|&index| &steps[index].state);
        let changes = Change::between(before, &state);
        let repeated = before == Some(&state);
        latest.insert(run.clone(), steps.len());
        steps.push(Step {
            run,
            changes,
            state,
            repeated,
        });
    }
    if steps.is_empty() {
        return Err(format!("{path} holds no step").into());
    }
    Ok(Recording { steps })
}

fn text(path: &str) -> Result<String, Box<dyn Error>> {
    if !path.ends_with(".gz") {
        return std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}").into());
    }
    let output = Command::new("gzip").args(["-dc", "--", path]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
