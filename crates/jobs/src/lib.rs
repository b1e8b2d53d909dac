//! Jobs with tasks: what a task may become, and how tasks are counted.
//!
//! A job is a small document with a `summary`: how many tasks it has in which status. The tasks themselves lie
//! elsewhere, in rows. This crate knows the shapes of both ([`NewTask`], [`TaskUpdate`], [`Task`], [`Summary`], which
//! `serde` reads and writes for clients), which change of a task is allowed ([`step`]), what a change does to the
//! counts ([`Counts`]), and the document of a job ([`Job`]).
//!
//! Inside the server documents are binary jsonb, as [`state_cache_document`] has them: a *document* is a payload
//! without its length, names are bytes in the server's encoding.

#![forbid(unsafe_code)]

mod counts;
mod error;
mod job;
mod read;
mod shapes;
mod status;
mod step;

#[cfg(test)]
mod support;

pub use counts::{Counts, Summary};
pub use error::JobShape;
pub use job::{Change, Job};
pub use read::{MAX_NAME, Malformed, Tasks, Updates, max_attempts, new_tasks, updates};
pub use shapes::{NewTask, Task, TaskUpdate};
pub use status::Status;
pub use step::{Refused, Step, step};

/// How often a task may be started, in a job that does not say.
pub const DEFAULT_MAX_ATTEMPTS: i32 = 3;
