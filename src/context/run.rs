//! Finding a run and its document.

use super::error::{ContextError, Loss};
use super::number::Number;
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::cache::found::{Found, Version};
use crate::call::Call;
use crate::catalog;
use crate::error::{Error, Result, Shown, text};
use crate::sys;
use crate::transaction;
use pgrx::pg_sys;
use state_cache_context::{Run, ShapeError, Status};
use state_cache_document::DocumentError;
use state_cache_memory::collect;

/// The class of runs.
pub const RUN: &[u8] = b"run";

/// Microseconds from 1970, from where timestamps of documents count, to 2000, from where the server's do.
const EPOCHS_APART: i64 =
    (pg_sys::POSTGRES_EPOCH_JDATE - pg_sys::UNIX_EPOCH_JDATE) as i64 * 86_400_000_000;

/// Whether a state is of the class of runs.
pub fn is_run(state: &StateRef<'_>) -> bool {
    *state.class.name == *RUN
}

/// The run that an argument names, whether or not it is there.
pub fn named<'a>(call: &Call<'a>, n: usize) -> Result<StateRef<'a>> {
    let key = call.required_text(n, "run_id")?;
    StateRef::new(&catalog::current(call.function())?, RUN, key)
}

/// `42704`
pub fn unknown(run: &[u8]) -> Error {
    ContextError::Unknown { run: text(run) }.into()
}

/// The error for a run that is not there: to who writes it under a token, that the claim is lost.
pub fn gone(run: &[u8], token: Option<i64>) -> Error {
    match token {
        None => unknown(run),
        Some(token) => lost(run, token, Loss::Gone),
    }
}

/// `40001`: the claim with this token is lost.
pub fn lost(run: &[u8], token: i64, loss: Loss) -> Error {
    ContextError::Lost {
        run: text(run),
        token,
        loss,
    }
    .into()
}

/// `22000`, with the field at fault.
pub fn shape(run: &[u8], error: ShapeError) -> Error {
    ContextError::Shape {
        run: text(run),
        error,
    }
    .into()
}

/// The error for a document of a run that cannot be read or built.
pub fn malformed(run: &[u8]) -> impl Fn(DocumentError) -> Error {
    |error| Error::Document {
        state: Shown::new(RUN, run),
        place: String::new(),
        error,
    }
}

/// The document that was found of a run; `42704` if none was.
pub fn found(state: &StateRef<'_>, found: Found<Vec<u8>>) -> Result<(Version, Vec<u8>)> {
    found.state().ok_or_else(|| unknown(state.key))
}

/// A document as that of a run.
pub fn open<'a>(state: &StateRef<'_>, document: &'a [u8]) -> Result<Run<'a>> {
    Run::open(document, state.key).map_err(|error| shape(state.key, error))
}

/// Raises `55000` unless the run has not ended.
pub fn check_running(run: &[u8], context: &Run<'_>) -> Result<()> {
    match context.status() {
        Status::Running => Ok(()),
        status => Err(ContextError::Ended {
            run: text(run),
            status,
        }
        .into()),
    }
}

/// The same to who writes it under a token: `40001`.
pub fn check_running_under(run: &[u8], context: &Run<'_>, token: Option<i64>) -> Result<()> {
    match (context.status(), token) {
        (Status::Running, _) | (_, None) => check_running(run, context),
        (status, Some(token)) => Err(lost(run, token, Loss::Ended(status))),
    }
}

/// Reads a run under the caller's snapshot; `42704` if it sees none.
pub fn read(state: &StateRef<'_>) -> Result<(Version, Vec<u8>)> {
    found(state, transaction::read(state, &mut Document)?)
}

/// Raises unless there is such a run as the caller may see it.
pub fn require(state: &StateRef<'_>) -> Result<Vec<u8>> {
    let (_, document) = found(state, transaction::read_latest(state, &mut Document)?)?;
    open(state, &document)?;
    Ok(document)
}

/// The same, and unless it has not ended.
pub fn require_running(state: &StateRef<'_>) -> Result<Vec<u8>> {
    let document = require(state)?;
    check_running(state.key, &open(state, &document)?)?;
    Ok(document)
}

/// A field of a run that holds text.
pub fn text_of(run: &[u8], context: &Run<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    context.text_field(name).map_err(|error| shape(run, error))
}

/// A field of a run that holds an object or an array.
pub fn section_of<'a>(run: &[u8], context: &Run<'a>, name: &str) -> Result<Option<&'a [u8]>> {
    context.section(name).map_err(|error| shape(run, error))
}

/// The conflicts that a variable of a run waits for.
pub fn conflicts_of(run: &[u8], context: &Run<'_>, name: &[u8]) -> Result<Vec<i64>> {
    let ids = context
        .conflicts_of(name)
        .map_err(|error| shape(run, error))?;
    // A number that is no id is one that no conflict has.
    let ids = ids.iter().map(|id| Number::id_of_document(id).unwrap_or(0));
    Ok(collect(ids)?)
}

/// The clock, in microseconds since 1970.
pub fn now() -> i64 {
    sys::now() + EPOCHS_APART
}

/// A time of the server as documents count it.
pub fn unix_time(server_microseconds: i64) -> i64 {
    server_microseconds.saturating_add(EPOCHS_APART)
}

/// A time of a document as the server counts it.
pub fn server_time(unix_microseconds: i64) -> i64 {
    unix_microseconds.saturating_sub(EPOCHS_APART)
}
