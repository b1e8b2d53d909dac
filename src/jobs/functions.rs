//! Creating jobs, adding to them, giving them up, and looking at them.

use super::by_hand::count;
use super::edit::stage;
use super::error::{JobError, of_shape};
use super::job::{self, counts, open};
use super::rows::{self, Making};
use super::update::changing;
use crate::cache::StateRef;
use crate::cache::forms::Section;
use crate::call::{self, sql_functions};
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, TaskPage, TaskRow};
use crate::{memory, sys, transaction};
use state_cache_document as document;
use state_cache_jobs::{Change, Counts, Status, Tasks, max_attempts, new_tasks};
use state_cache_memory::{collect, copy};
use std::ffi::CStr;

/// Tasks on a page at most.
const MAX_PAGE: i32 = 10_000;

/// `23505` if a call names a task twice.
fn check_distinct(state: &StateRef<'_>, tasks: &Tasks) -> Result<()> {
    let mut names = collect(tasks.iter().map(|task| task.task_id.as_slice()))?;
    names.sort_unstable();
    let mut twice = collect(
        names
            .windows(2)
            .filter(|two| two[0] == two[1])
            .map(|two| two[0]),
    )?;
    twice.dedup();
    if twice.is_empty() {
        return Ok(());
    }
    Err(JobError::NamedTwice {
        job: text(state.key),
        tasks: memory::checked(twice.iter().map(|name| text(name)))?,
    }
    .into())
}

/// Writes the rows of new tasks; how many there are of each status.
fn insert(state: &StateRef<'_>, tasks: &Tasks) -> Result<Counts> {
    let mut counts = Counts::default();
    if tasks.is_empty() {
        return Ok(counts);
    }
    let new = collect(tasks.iter().map(|task| TaskRow {
        task_id: &task.task_id,
        agent_name: task.agent_name.as_deref(),
        input: task.input.as_deref(),
    }))?;
    let _owner = rows::of_tasks(&state.catalog);
    let written = store::insert_tasks(&state.catalog, state.key, &new)?;
    for (_, status) in &written {
        counts.add(job::status(state, status)?, 1);
    }
    if written.len() < tasks.len() {
        let mut names = collect(written.iter().map(|(name, _)| &**name))?;
        names.sort_unstable();
        let refused = tasks
            .iter()
            .filter(|task| names.binary_search(&task.task_id.as_slice()).is_err());
        return Err(JobError::DuplicateTasks {
            job: text(state.key),
            tasks: memory::checked(refused.map(|task| text(&task.task_id)))?,
        }
        .into());
    }
    Ok(counts)
}

/// The attributes of a new job.
fn attributes(given: &[u8]) -> Result<Vec<u8>> {
    if !document::is_object(given) {
        return Err(Error::argument("attributes must be an object"));
    }
    if max_attempts(given).is_none() {
        return Err(Error::argument(
            "\"max_attempts\" of attributes must be a whole number above 0",
        ));
    }
    Ok(copy(given)?)
}

sql_functions! {
    /// `state_job_create(job_id, tasks, attributes)`
    fn state_job_create(call) {
        const FUNCTION: &CStr = c"state_job_create()";
        let tasks = new_tasks(call.required_jsonb(1, "tasks")?).map_err(JobError::malformed("tasks"))?;
        let attributes = attributes(call.required_jsonb(2, "attributes")?)?;
        let state = changing(call, FUNCTION)?;
        check_distinct(&state, &tasks)?;
        Making::Job.begin(&state.catalog)?;
        if job::is_there(&state)? {
            return Err(JobError::Duplicate { job: text(state.key) }.into());
        }
        // A deletion by this transaction takes the former job's tasks along; what an expired job has left goes here.
        transaction::write_staged(&state)?;
        {
            // Whatever the caller sees of them.
            let _owner = Impersonation::owner_of(state.catalog.task);
            if store::delete_tasks(&state.catalog, state.key)? {
                return Err(JobError::Former { job: text(state.key) }.into());
            }
        }
        let counts = insert(&state, &tasks)?;
        // What this snapshot does not show may have been put in by hand since.
        if sys::isolation_uses_transaction_snapshot() {
            let _snapshot = PushedSnapshot::latest();
            if count(&state)?.total() != counts.total() {
                return Err(JobError::Former { job: text(state.key) }.into());
            }
        }
        stage(&state, Change::Create { attributes, tasks: counts }, FUNCTION)?;
        Ok(call::bigint_datum(counts.total()))
    }

    /// `state_job_add_tasks(job_id, tasks)`
    fn state_job_add_tasks(call) {
        const FUNCTION: &CStr = c"state_job_add_tasks()";
        let tasks = new_tasks(call.required_jsonb(1, "tasks")?).map_err(JobError::malformed("tasks"))?;
        let state = changing(call, FUNCTION)?;
        check_distinct(&state, &tasks)?;
        let document = job::read_latest(&state)?;
        let job = open(&state, &document)?;
        if job.is_cancelled().map_err(|error| of_shape(state.key, error))? {
            return Err(JobError::Cancelled { job: text(state.key) }.into());
        }
        let counts = insert(&state, &tasks)?;
        if !counts.is_zero() {
            stage(&state, Change::Add(counts), FUNCTION)?;
        }
        Ok(call::bigint_datum(counts.total()))
    }

    /// `state_job_cancel(job_id)`
    fn state_job_cancel(call) {
        const FUNCTION: &CStr = c"state_job_cancel()";
        let state = changing(call, FUNCTION)?;
        open(&state, &job::read_latest(&state)?)?;
        let cancelled = {
            let _owner = rows::of_tasks(&state.catalog);
            store::cancel_tasks(&state.catalog, state.key, sys::now())?
        };
        let before = counts(&state, &cancelled)?;
        let mut change = Counts::default();
        for &status in Status::ALL {
            change.add(status, -before.of(status));
        }
        change.add(Status::Cancelled, before.total());
        stage(&state, Change::Cancel(change), FUNCTION)?;
        Ok(call::bigint_datum(before.total()))
    }

    /// `state_job_summary(job_id)`
    fn state_job_summary(call) {
        let state = job::named(call, 0)?;
        let found = transaction::read(&state, &mut Section { name: b"summary", state: &state })?.state();
        found.map(|(_, summary)| summary).ok_or_else(|| JobError::unknown(state.key))
    }

    /// `state_job_get(job_id)`
    fn state_job_get(call) {
        let state = job::named(call, 0)?;
        let document = job::read(&state)?;
        open(&state, &document)?;
        let tasks = {
            let _owner = rows::of_tasks(&state.catalog);
            store::task_documents(&state.catalog, state.key)?
        };
        let malformed = |error| Error::Document { state: state.shown(), place: String::new(), error };
        let whole = document::string(state.key)
            .and_then(|job| document::object(&[("job_id", job), ("tasks", tasks)]))
            .and_then(|added| document::update(Some(&document), &added))
            .map_err(malformed)?;
        Ok(call::varlena_datum(&whole))
    }

    /// `state_job_tasks(job_id, status, agent, after, limit)`
    fn state_job_tasks(call) {
        let status = call.text(1);
        if let Some(name) = status
            && Status::parse(name).is_none()
        {
            return Err(Error::UnknownLabel { what: "status", name: text(name), known: Status::known() });
        }
        let limit = call.integer(4).ok_or_else(|| Error::null_argument("limit"))?;
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::argument(format!("limit must be between 1 and {MAX_PAGE}: {limit}")));
        }
        let page = TaskPage { status, agent: call.text(2), after: call.text(3), limit: i64::from(limit) };
        let state = job::named(call, 0)?;
        open(&state, &job::read(&state)?)?;
        let mut rows = call.rows()?;
        let _owner = rows::of_tasks(&state.catalog);
        store::task_page(&state.catalog, state.key, &page, |columns| rows.push(columns))?;
        Ok(call::void_datum())
    }
}
