//! The shapes that travel: `serde` reads and writes them, whatever stands for JSON values and for text.

use crate::status::Status;
use serde::{Deserialize, Serialize};

/// A task to be added to a job. `S` is text, `V` a JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTask<S, V> {
    /// Its name within the job.
    pub task_id: S,
    /// The agent that is to do it; without one any may.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<S>,
    /// What the agent is given.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub input: Option<V>,
}

/// A change of one task. `S` is text, `V` a JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskUpdate<S, V> {
    /// The task.
    pub task_id: S,
    /// The status that it is to have.
    pub status: Status,
    /// What came of it.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub result: Option<V>,
    /// Why it failed.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub error: Option<V>,
    /// The token under which it was claimed: the change fails if another has the task.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub token: Option<i64>,
}

/// A task as `state_job_get` shows it. `S` is text, `V` a JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task<S, V> {
    /// Its name within the job.
    pub task_id: S,
    /// The agent that is to do it.
    pub agent_name: Option<S>,
    /// How far it is.
    pub status: Status,
    /// How often it was started.
    pub attempts: i32,
    /// Who works on it.
    pub owner: Option<S>,
    /// Until when nobody else can claim it.
    pub lease_until: Option<S>,
    /// When it was started last.
    pub started_at: Option<S>,
    /// When it ended.
    pub completed_at: Option<S>,
    /// What the agent is given.
    pub input: Option<V>,
    /// What came of it.
    pub result: Option<V>,
    /// Why it failed.
    pub error: Option<V>,
}

/// What a field is that is not there; `Option`'s own default would ask the value for one.
fn none<T>() -> Option<T> {
    None
}
