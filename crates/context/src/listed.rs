//! What a list of runs shows of a document.

use crate::error::{Problem, ShapeError};
use crate::labels::Status;
use crate::record::Run;
use state_cache_document::{DocumentError, member};
use state_cache_memory::OutOfMemory;

/// Longest text that a list shows, in bytes, but for the parent, which is a key. What is longer counts as not given,
/// since an entry of an index has its limit; so does what is empty.
pub const LONGEST: usize = 255;

/// What a list shows of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// How far the run is.
    pub status: Status,
    /// The run that it is a child of.
    pub parent: Option<Vec<u8>>,
    /// Its swarm.
    pub swarm: Option<Vec<u8>>,
    /// What it runs.
    pub routine: Option<Vec<u8>>,
    /// The step that it is in.
    pub step: Option<Vec<u8>>,
}

/// What a list shows of the state `key` with this document; `None` if that is not the document of a run, which no
/// list shows. A field that is not text counts as not given.
///
/// # Errors
/// Memory is refused.
pub fn listed(document: &[u8], key: &[u8]) -> Result<Option<Listed>, OutOfMemory> {
    // Most states are no runs, and this says so at once.
    if !matches!(member(document, b"runId"), Ok(Some(_))) {
        return Ok(None);
    }
    let run = match Run::open(document, key) {
        Ok(run) => run,
        Err(error) => return refused(error).map_or(Ok(None), Err),
    };
    let text = |name| match run.text_field(name) {
        Ok(text) => Ok(text.filter(|text| (1..=LONGEST).contains(&text.len()))),
        Err(error) => refused(error).map_or(Ok(None), Err),
    };
    Ok(Some(Listed {
        status: run.status(),
        parent: match run.text_field("parentRunId") {
            Ok(parent) => parent.filter(|parent| !parent.is_empty()),
            Err(error) => refused(error).map_or(Ok(None), Err)?,
        },
        swarm: text("swarmId")?,
        routine: text("routineId")?,
        step: text("step")?,
    }))
}

/// The memory that an error is about, if it is about memory.
fn refused(error: ShapeError) -> Option<OutOfMemory> {
    match error.problem {
        Problem::Document(DocumentError::OutOfMemory(refused)) => Some(refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{LONGEST, listed};
    use crate::labels::Status;
    use crate::support::jsonb;
    use serde_json::json;

    #[test]
    fn a_run_is_listed_with_what_its_document_says() {
        let run = json!({
            "runId": "r", "status": "failed", "variables": {}, "parentRunId": "p", "swarmId": "s", "routineId": "ro",
            "step": "asking"
        });
        let found = listed(&jsonb(&run), b"r").unwrap().unwrap();
        assert_eq!(found.status, Status::Failed);
        assert_eq!(found.parent.as_deref(), Some(&b"p"[..]));
        assert_eq!(found.swarm.as_deref(), Some(&b"s"[..]));
        assert_eq!(found.routine.as_deref(), Some(&b"ro"[..]));
        assert_eq!(found.step.as_deref(), Some(&b"asking"[..]));
    }

    #[test]
    fn what_is_no_run_is_not_listed() {
        let shapes = [
            json!({"a": 1}),
            json!({"runId": "other", "variables": {}}),
            json!({"runId": "r"}),
            json!({"runId": "r", "variables": {}, "status": "dreaming"}),
            json!(["runId"]),
            json!("runId"),
        ];
        for shape in shapes {
            assert_eq!(listed(&jsonb(&shape), b"r").unwrap(), None, "{shape}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_or_none_is_left_out() {
        let (fits, long) = ("x".repeat(LONGEST), "x".repeat(LONGEST + 1));
        let run =
            json!({"runId": "r", "variables": {}, "swarmId": long, "routineId": fits, "step": 7});
        let found = listed(&jsonb(&run), b"r").unwrap().unwrap();
        assert_eq!(found.status, Status::Running);
        assert_eq!((found.parent, found.swarm), (None, None));
        assert_eq!(found.routine.map(|it| it.len()), Some(LONGEST));
        assert_eq!(found.step, None);
    }
}
