//! Finding a job and its document.

use super::class::JOB;
use super::error::{JobError, of_shape};
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head};
use crate::call::Call;
use crate::catalog;
use crate::error::{Error, Result, text};
use crate::sys;
use crate::transaction;
use pgrx::pg_sys;
use state_cache_context::rfc3339;
use state_cache_jobs::{Counts, Job, Status};

/// Microseconds from 1970, from where timestamps of documents count, to 2000, from where the server's do.
const EPOCHS_APART: i64 =
    (pg_sys::POSTGRES_EPOCH_JDATE - pg_sys::UNIX_EPOCH_JDATE) as i64 * 86_400_000_000;

/// The job that an argument names, whether or not it is there.
pub fn named<'a>(call: &Call<'a>, n: usize) -> Result<StateRef<'a>> {
    let key = call.required_text(n, "job_id")?;
    StateRef::new(&catalog::current(call.function())?, JOB, key)
}

/// Reads a job under the caller's snapshot, and as this transaction has changed it; `42704` if it sees none.
pub fn read(state: &StateRef<'_>) -> Result<Vec<u8>> {
    let found = transaction::read(state, &mut Document)?.state();
    found
        .map(|(_, document)| document)
        .ok_or_else(|| JobError::unknown(state.key))
}

/// The same as it is now.
pub fn read_latest(state: &StateRef<'_>) -> Result<Vec<u8>> {
    let found = transaction::read_latest(state, &mut Document)?.state();
    found
        .map(|(_, document)| document)
        .ok_or_else(|| JobError::unknown(state.key))
}

/// Whether there is a job, as the caller may see it.
pub fn is_there(state: &StateRef<'_>) -> Result<bool> {
    Ok(transaction::read_latest(state, &mut Head)?
        .state()
        .is_some())
}

/// A document as that of a job.
pub fn open<'a>(state: &StateRef<'_>, document: &'a [u8]) -> Result<Job<'a>> {
    Job::open(document).map_err(|error| of_shape(state.key, error))
}

/// The time of a statement, as documents say it.
pub fn now_text() -> String {
    rfc3339(sys::statement_timestamp().saturating_add(EPOCHS_APART))
}

/// The status that a row has.
pub fn status(state: &StateRef<'_>, name: &[u8]) -> Result<Status> {
    Status::parse(name).ok_or_else(|| Error::Internal {
        message: format!(
            "a task of job \"{}\" has status \"{}\"",
            text(state.key),
            text(name)
        ),
    })
}

/// Counts of statuses as rows say them.
pub fn counts(state: &StateRef<'_>, rows: &[(Box<[u8]>, i64)]) -> Result<Counts> {
    let mut counts = Counts::default();
    for (name, tasks) in rows {
        counts.add(status(state, name)?, *tasks);
    }
    Ok(counts)
}
