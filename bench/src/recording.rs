//! The recorded agent sessions in `data/`, which the rows about snapshots replay.

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Failure;

/// The recording, from this crate's directory.
const FILE: &str = "data/sessions.jsonl.gz";

/// What a session was after one of its steps.
pub struct Step {
    /// Its number within the session, from 1. No two steps in a row hold the same document, so it is also
    /// the version that saving it makes.
    pub number: usize,
    /// Why it was saved.
    pub checkpoint: String,
    /// The whole document as JSON text, as it was recorded.
    pub state: String,
}

/// One agent's session.
pub struct Session {
    /// Name of the run.
    pub run: String,
    /// Its steps in order; never empty.
    pub steps: Vec<Step>,
}

/// Sessions in the order in which they were recorded.
pub struct Recording {
    /// Never empty.
    pub sessions: Vec<Session>,
}

impl Recording {
    /// Reads the recording through gzip.
    pub fn read() -> Result<Self, Failure> {
        // cargo run says where this crate stands; else the working directory is taken for the workspace's.
        let directory =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| "bench".into(), PathBuf::from);
        let output = Command::new("gzip")
            .arg("-dc")
            .arg("--")
            .arg(directory.join(FILE))
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        Recording::parse(std::str::from_utf8(&output.stdout)?)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut sessions: Vec<Session> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line: Line = serde_json::from_str(line)
                .map_err(|error| format!("{FILE}, line {number}: {error}"))?;
            let (run, step) = (line.run, line.step());
            let known = match sessions.last() {
                Some(last) if last.run == run => last.steps.len(),
                _ => {
                    sessions.push(Session {
                        run: run.to_owned(),
                        steps: Vec::new(),
                    });
                    0
                }
            };
            if step.number != known + 1 {
                return Err(format!("{FILE}, line {number}: not step {}", known + 1).into());
            }
            if let Some(last) = sessions.last_mut() {
                last.steps.push(step);
            }
        }
        if sessions.is_empty() {
            return Err(format!("{FILE} holds no step").into());
        }
        Ok(Recording { sessions })
    }

    /// How many steps all sessions have.
    pub fn steps(&self) -> usize {
        self.sessions
            .iter()
            .map(|session| session.steps.len())
            .sum()
    }

    /// Bytes of the last document of every session, as JSON text.
    pub fn final_bytes(&self) -> usize {
        self.sessions
            .iter()
            .filter_map(|session| session.steps.last())
            .map(|step| step.state.len())
            .sum()
    }
}

/// A line of the recording. What else a line holds is left alone.
#[derive(Deserialize)]
struct Line<'a> {
    run: &'a str,
    step: usize,
    checkpoint: &'a str,
    /// The document as it stands there: what is saved must be what was recorded, byte for byte.
    #[serde(borrow)]
    state: &'a RawValue,
}

impl Line<'_> {
    fn step(&self) -> Step {
        Step {
            number: self.step,
            checkpoint: self.checkpoint.to_owned(),
            state: self.state.get().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LINES: &str = r#"{"run":"a","step":1,"turn":0,"checkpoint":"auto","state":{"n":1}}
{"run":"a","step":2,"turn":1,"checkpoint":"phase_transition","state":{"n":{"state":2}}}
{"run":"b","step":1,"turn":0,"checkpoint":"auto","state":{}}
"#;

    #[test]
    fn steps_are_told_apart_by_run() {
        let recording = Recording::parse(LINES).unwrap();
        let [a, b] = recording.sessions.as_slice() else {
            unreachable!("not two sessions");
        };
        assert_eq!((a.run.as_str(), a.steps.len()), ("a", 2));
        assert_eq!((b.run.as_str(), b.steps.len()), ("b", 1));
        assert_eq!(a.steps[1].state, r#"{"n":{"state":2}}"#);
        assert_eq!(a.steps[1].checkpoint, "phase_transition");
        assert_eq!(recording.steps(), 3);
        assert_eq!(
            recording.final_bytes(),
            r#"{"n":{"state":2}}"#.len() + "{}".len()
        );
    }

    #[test]
    fn what_is_out_of_order_or_no_step_is_an_error() {
        assert!(Recording::parse("").is_err());
        assert!(Recording::parse("{}").is_err());
        assert!(Recording::parse(&LINES.replace(r#""step":2"#, r#""step":3"#)).is_err());
    }

    #[test]
    fn no_step_of_the_recording_repeats_the_one_before() {
        let recording = Recording::read().unwrap();
        assert_eq!((recording.sessions.len(), recording.steps()), (20, 1142));
        for session in &recording.sessions {
            for pair in session.steps.windows(2) {
                assert_ne!(pair[0].state, pair[1].state, "{}", session.run);
            }
        }
    }
}
