//! Changing tasks of a job: all of a call, or none.

use super::class::JOB;
use super::edit::stage;
use super::error::{JobError, held_by};
use super::job::{self, open};
use super::rows;
use crate::cache::StateRef;
use crate::call::{self, Call, sql_functions};
use crate::error::{Result, text};
use crate::store::{self, LockedTask, TaskChange};
use crate::{memory, sys, transaction};
use state_cache_document as document;
use state_cache_jobs::{Change, Counts, Status, TaskUpdate, step, updates};
use state_cache_memory::{Grow, collect, format, room_in_map, with_capacity};
use std::collections::HashMap;
use std::ffi::CStr;

type Update = TaskUpdate<Vec<u8>, Vec<u8>>;

/// A task that a call changes: what the row says, and what it is to say.
struct Task<'a> {
    row: LockedTask,
    /// The status that the row has.
    before: Status,
    /// The status and the number of attempts after the updates so far.
    status: Status,
    attempts: i32,
    /// The last of what updates give.
    result: Option<&'a [u8]>,
    error: Option<std::borrow::Cow<'a, [u8]>>,
    /// Whether anything is to be written.
    is_changed: bool,
}

/// What one update came to.
struct Done<'a> {
    task: &'a [u8],
    before: Status,
    after: Status,
}

/// The tasks that a call names, in its order, each once.
fn names(updates: &[Update]) -> Result<Vec<&[u8]>> {
    let mut names = collect(updates.iter().map(|update| update.task_id.as_slice()))?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Locks the tasks; `42704` if some are not there, naming all of them.
fn lock<'a>(state: &StateRef<'_>, names: &[&'a [u8]]) -> Result<HashMap<&'a [u8], Task<'a>>> {
    let found = {
        let _owner = rows::of_tasks(&state.catalog);
        store::lock_tasks(&state.catalog, state.key, names.iter().copied())?
    };
    let mut tasks = HashMap::new();
    room_in_map(&mut tasks, found.len())?;
    for row in found {
        let Ok(place) = names.binary_search(&&*row.task_id) else {
            continue;
        };
        let status = job::status(state, &row.status)?;
        let attempts = row.attempts;
        tasks.insert(
            names[place],
            Task {
                row,
                before: status,
                status,
                attempts,
                result: None,
                error: None,
                is_changed: false,
            },
        );
    }
    if tasks.len() < names.len() {
        let unknown = names.iter().filter(|name| !tasks.contains_key(*name));
        let tasks = memory::checked(unknown.map(|name| text(name)))?;
        let job = text(state.key);
        return Err(JobError::UnknownTasks { job, tasks }.into());
    }
    Ok(tasks)
}

/// `40001` unless the task is held under the token that an update carries.
pub fn check_token(
    state: &StateRef<'_>,
    row: &LockedTask,
    status: Status,
    token: i64,
) -> Result<()> {
    if row.token == Some(token) {
        return Ok(());
    }
    let owner = row.owner.as_deref().unwrap_or_default();
    let reason = match (status, row.lease_until) {
        (Status::Running, Some(until)) => held_by(owner, until),
        (Status::Running, None) => "It was started without a claim".to_owned(),
        (Status::Pending, _) => "Nobody has it: it waits".to_owned(),
        (ended, _) => format(format_args!("It has ended: it is {}", ended.name()))?,
    };
    Err(JobError::Lost {
        job: text(state.key),
        task: text(&row.task_id),
        token,
        reason,
    }
    .into())
}

impl<'a> Task<'a> {
    /// Makes one update; what it came to.
    fn apply(
        &mut self,
        state: &StateRef<'_>,
        update: &'a Update,
        max_attempts: i32,
    ) -> Result<Done<'a>> {
        if let Some(token) = update.token {
            check_token(state, &self.row, self.status, token)?;
        }
        let before = self.status;
        let refused = |refused: state_cache_jobs::Refused| JobError::Transition {
            job: text(state.key),
            task: text(&update.task_id),
            from: refused.from,
            to: refused.to,
        };
        match step(before, self.attempts, update.status, max_attempts).map_err(refused)? {
            Some(made) => {
                (self.status, self.attempts, self.is_changed) = (made.to, made.attempts, true);
                self.give(update);
                if made.exhausted {
                    self.error = Some(exhausted(made.attempts, update.error.as_deref())?.into());
                }
            }
            None if self.says_the_same(state, update)? => {}
            None if before.has_ended() => {
                return Err(JobError::OtherEnd {
                    job: text(state.key),
                    task: text(&update.task_id),
                    status: before,
                }
                .into());
            }
            None => {
                self.is_changed = true;
                self.give(update);
            }
        }
        Ok(Done {
            task: &update.task_id,
            before,
            after: self.status,
        })
    }

    fn give(&mut self, update: &'a Update) {
        if let Some(result) = &update.result {
            self.result = Some(result);
        }
        if let Some(error) = &update.error {
            self.error = Some(error.as_slice().into());
        }
    }

    /// Whether what an update gives is there already, and its status too.
    fn says_the_same(&self, state: &StateRef<'_>, update: &Update) -> Result<bool> {
        if update.result.is_none() && update.error.is_none() {
            return Ok(true);
        }
        let stored = match self.result.is_some() && self.error.is_some() {
            // Updates of this call have given both.
            true => None,
            false => {
                let _owner = rows::of_tasks(&state.catalog);
                store::task_values(&state.catalog, state.key, &self.row.task_id)?
            }
        };
        let (result, error) = stored.unwrap_or_default();
        let result = self.result.or(result.as_deref());
        let error = self.error.as_deref().or(error.as_deref());
        let same = |wanted: &Option<Vec<u8>>, there: Option<&[u8]>| {
            wanted.as_deref().is_none_or(|wanted| there == Some(wanted))
        };
        Ok(same(&update.result, result) && same(&update.error, error))
    }
}

/// Why a task has failed that may not be tried again, as its `error` says it; with what the last attempt says.
pub fn exhausted(attempts: i32, last: Option<&[u8]>) -> Result<Vec<u8>> {
    let malformed = |error| crate::error::Error::Document {
        state: crate::error::Shown::new(JOB, b""),
        place: String::new(),
        error,
    };
    let reason = format(format_args!(
        "started {attempts} times, which is as often as the job allows"
    ))?;
    let reason = document::string(reason.as_bytes()).map_err(malformed)?;
    let null = document::null();
    document::object(&[
        ("reason", reason.as_slice()),
        ("last_error", last.unwrap_or(&null)),
    ])
    .map_err(malformed)
}

/// Makes updates of tasks of a job.
fn update<'a>(
    state: &StateRef<'_>,
    updates: &'a [Update],
    function: &CStr,
) -> Result<Vec<Done<'a>>> {
    let max_attempts = {
        let document = job::read_latest(state)?;
        let job = open(state, &document)?;
        job.max_attempts()
            .map_err(|error| super::error::of_shape(state.key, error))?
    };
    let names = names(updates)?;
    let mut tasks = lock(state, &names)?;
    let mut done = with_capacity(updates.len())?;
    for update in updates {
        memory::check()?;
        if let Some(task) = tasks.get_mut(update.task_id.as_slice()) {
            done.try_push(task.apply(state, update, max_attempts)?)?;
        }
    }
    write(state, &names, &tasks, function)?;
    Ok(done)
}

/// Writes what has changed, and stages what that does to the counts.
fn write(
    state: &StateRef<'_>,
    names: &[&[u8]],
    tasks: &HashMap<&[u8], Task<'_>>,
    function: &CStr,
) -> Result<()> {
    let changed = names.iter().filter_map(|name| tasks.get(name));
    let changed = collect(changed.filter(|task| task.is_changed))?;
    if changed.is_empty() {
        return Ok(());
    }
    let changes = collect(changed.iter().map(|task| TaskChange {
        task_id: &task.row.task_id,
        status: task.status.name().as_bytes(),
        attempts: task.attempts,
        result: task.result,
        error: task.error.as_deref(),
    }))?;
    let written = {
        let _owner = rows::of_tasks(&state.catalog);
        store::update_tasks(&state.catalog, state.key, &changes, sys::now())?
    };
    let mut counts = Counts::default();
    for (name, status) in &written {
        // A trigger of a user's may have made another one of it.
        if let Some(task) = tasks.get(&**name) {
            counts.moves(task.before, job::status(state, status)?);
        }
    }
    if written.len() < changed.len() {
        let is_written =
            |task: &&&Task<'_>| written.iter().any(|(name, _)| *name == task.row.task_id);
        let tasks = changed.iter().filter(|task| !is_written(task));
        let tasks = memory::checked(tasks.map(|task| text(&task.row.task_id)))?;
        let job = text(state.key);
        return Err(JobError::Unwritten { job, tasks }.into());
    }
    match counts.is_zero() {
        true => Ok(()),
        false => stage(state, Change::Count(counts), function),
    }
}

fn name_datum(status: Status) -> Option<pgrx::pg_sys::Datum> {
    Some(call::varlena_datum(status.name().as_bytes()))
}

/// The job that a call changes, which the caller may change.
pub fn changing<'a>(call: &Call<'a>, function: &CStr) -> Result<StateRef<'a>> {
    let state = job::named(call, 0)?;
    transaction::check_may_change(&state, function)?;
    Ok(state)
}

sql_functions! {
    /// `state_job_update_tasks(job_id, updates)`
    fn state_job_update_tasks(call) {
        const FUNCTION: &CStr = c"state_job_update_tasks()";
        let given = call.required_jsonb(1, "updates")?;
        let updates = updates(given).map_err(JobError::malformed("updates"))?;
        let state = changing(call, FUNCTION)?;
        let mut rows = call.rows()?;
        for Done { task, before, after } in update(&state, &updates, FUNCTION)? {
            rows.push([Some(call::varlena_datum(task)), name_datum(before), name_datum(after)]);
        }
        Ok(call::void_datum())
    }
}
