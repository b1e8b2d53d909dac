//! Tasks that somebody changes by hand: the summaries follow.
//!
//! Triggers for each statement, with what the statement has done as tables, call this; the statements of the
//! extension itself do not. What follows is staged as the owner of `state_head`, as the server checks a foreign key
//! as the owner of a table: who may change tasks by hand need not be able to change states.
//!
//! - **UPDATE and DELETE** are counted as the functions count: so many more, so many fewer.
//! - **INSERT** adds what it has inserted, unless it restores a dump: a summary that is restored before its tasks
//!   counts them already. The snapshot of the statement tells the two apart by one look into the index: it shows no
//!   task of a job whose summary counts some. The head row of such a job is locked, and what is there then decides:
//!   if there are more tasks than the statement has inserted, another session has restored, or counted, the first of
//!   them, and these come on top; else these are all that there are, and the summary must say so. Whoever restores a
//!   dump finds the summary right, and writes nothing. The lock keeps others from counting until the restored tasks
//!   are committed. (Who adds tasks with the functions between the two, to a job of which only the summary is
//!   restored, must verify it.)
//! - **TRUNCATE** leaves no tasks, in any job.
//! - **Rows that name no job** are nobody's, and go when one of that name is created. So nobody creates a job while a
//!   transaction has put such rows in ([`Making`]).
//!
//! The triggers are ordinary ones: they do not fire for logical replication, nor for who has set
//! `session_replication_role` to `replica`. Such changes are those of another server, whose summaries come with them.

use super::class::JOB;
use super::edit::stage;
use super::job::{self, open};
use super::rows::Making;
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head};
use crate::call::sql_functions;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, CountedChange, Transition};
use crate::{memory, sys, transaction};
use pgrx::pg_sys;
use state_cache_jobs::{Change, Counts};
use std::ffi::CStr;
use std::rc::Rc;

const FUNCTION: &CStr = c"a change of state_task";

/// A job that rows name, if there is one: rows may name anything.
fn job_of<'a>(catalog: &Rc<Catalog>, name: &'a [u8]) -> Result<Option<StateRef<'a>>> {
    let state = match StateRef::new(catalog, JOB, name) {
        Ok(state) => state,
        Err(Error::Argument { .. } | Error::UnknownClass { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_there = job::is_there(&state)?;
    if sys::isolation_uses_transaction_snapshot() {
        // A transaction that goes by one snapshot counts what that shows, or nothing.
        let _snapshot = PushedSnapshot::transaction();
        if transaction::read(&state, &mut Head)?.state().is_some() != is_there {
            return Err(Error::ConcurrentUpdate);
        }
    }
    Ok(is_there.then_some(state))
}

/// A snapshot that sees what the statement has done.
fn after_the_statement() -> PushedSnapshot {
    // SAFETY: a trigger function runs inside a transaction, not in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    PushedSnapshot::transaction()
}

/// What a job's document counts, under the active snapshot and as this transaction has changed it; `None` where it
/// cannot be read, as while a dump is restored that has not come to it yet.
fn counted(state: &StateRef<'_>) -> Result<Option<Counts>> {
    let document = match transaction::read(state, &mut Document) {
        Ok(found) => found.state().map(|(_, document)| document),
        Err(Error::Damaged { .. }) => None,
        Err(error) => return Err(error),
    };
    let job = document.as_deref().map(|document| open(state, document));
    Ok(job.and_then(|job| Some(job.ok()?.counts)))
}

/// Whether a job's document says what its rows say; `None` where it cannot be read.
fn is_right(state: &StateRef<'_>) -> Result<Option<bool>> {
    // Both under one snapshot: what others commit in between would make a wrong document look right.
    let _snapshot = after_the_statement();
    match counted(state)? {
        Some(counts) => Ok(Some(counts == count(state)?)),
        None => Ok(None),
    }
}

/// Whether a job has so many tasks, or more, under the active snapshot.
fn has_tasks(state: &StateRef<'_>, at_least: i64) -> Result<bool> {
    let _owner = Impersonation::owner_of(state.catalog.task);
    store::has_tasks(&state.catalog, state.key, at_least)
}

/// A statement has inserted these tasks of a job.
fn insert(state: &StateRef<'_>, inserted: &[CountedChange]) -> Result<()> {
    // The active snapshot is the statement's, which shows what was there before it.
    let is_counted = match counted(state)? {
        Some(before) => before.is_zero() || has_tasks(state, 1)?,
        None => false,
    };
    if is_counted {
        return add(state, inserted);
    }
    // A document that cannot be read yet will count what the dump has.
    let is_readable = {
        let _snapshot = after_the_statement();
        counted(state)?.is_some()
    };
    if !is_readable {
        return Ok(());
    }
    match is_restored(state, inserted.iter().map(|it| it.tasks).sum())? {
        true if is_right(state)? == Some(true) => Ok(()),
        true => recount(state, FUNCTION),
        false => add(state, inserted),
    }
}

/// Whether the tasks that a statement has inserted are all tasks of their job, whose head row is locked by this.
fn is_restored(state: &StateRef<'_>, inserted: i64) -> Result<bool> {
    if !crate::fault::leaves_out!(JobLock) {
        transaction::lock(state, FUNCTION)?;
    }
    // SAFETY: a trigger function runs inside a transaction, not in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    // A transaction that goes by one snapshot must not take for missing what others have restored since.
    let _snapshot = PushedSnapshot::latest();
    Ok(!has_tasks(state, inserted.saturating_add(1))?)
}

/// Adds what has changed to what a job's document counts.
fn add(state: &StateRef<'_>, changes: &[CountedChange]) -> Result<()> {
    let mut counts = Counts::default();
    for change in changes {
        counts.add(job::status(state, &change.status)?, change.tasks);
    }
    match counts.is_zero() {
        true => Ok(()),
        false => stage(state, Change::Count(counts), FUNCTION),
    }
}

/// Counts the rows of a job under the active snapshot.
pub fn count(state: &StateRef<'_>) -> Result<Counts> {
    let _owner = Impersonation::owner_of(state.catalog.task);
    job::counts(state, &store::count_tasks(&state.catalog, state.key)?)
}

/// Counts the rows of a job, whose head row is locked first: from then on nobody else changes the counts, and what
/// others had counted before is committed.
pub fn recount(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    if !crate::fault::leaves_out!(JobLock) {
        transaction::lock(state, function)?;
    }
    let counts = {
        let _snapshot = after_the_statement();
        count(state)?
    };
    stage(state, Change::Recount(counts), function)
}

/// What rows were changed by: so many more of this status than before, for each job.
fn follow(catalog: &Rc<Catalog>, transition: &Transition, is_insert: bool) -> Result<()> {
    let changes = store::counted_changes(catalog, transition)?;
    let mut rest = changes.as_slice();
    let mut makes_rows = false;
    while let Some(first) = rest.first() {
        memory::check()?;
        let of_job = rest.iter().take_while(|change| change.job == first.job);
        let (of_job, others) = rest.split_at(of_job.count());
        rest = others;
        let mut state = job_of(catalog, &first.job)?;
        let has_come = of_job.iter().any(|change| change.tasks > 0);
        if state.is_none() && has_come && !makes_rows {
            Making::Rows.begin(catalog)?;
            makes_rows = true;
            state = job_of(catalog, &first.job)?;
        }
        let Some(state) = state else {
            continue;
        };
        match (is_insert, makes_rows) {
            (true, _) => insert(&state, of_job)?,
            (false, true) => {
                if is_right(&state)? == Some(false) {
                    recount(&state, FUNCTION)?;
                }
            }
            (false, false) => add(&state, of_job)?,
        }
    }
    Ok(())
}

sql_functions! {
    /// `state_task_watch()`: the trigger function on `state_task`.
    fn state_task_watch(call) {
        let done = pg_sys::Datum::from(0usize);
        let transition = Transition::of(call.context())
            .ok_or_else(|| Error::argument("this function can only be called by a trigger"))?;
        let catalog = catalog::current(call.function())?;
        if transition.relation() != catalog.task {
            return Err(Error::argument("this trigger belongs on state_task only"));
        }
        let _owner = Impersonation::owner_of(catalog.head);
        if !transition.truncates() {
            follow(&catalog, &transition, transition.inserts())?;
            return Ok(done);
        }
        for name in store::jobs(&catalog)? {
            memory::check()?;
            if let Some(state) = job_of(&catalog, &name)?
                && is_right(&state)? == Some(false)
            {
                recount(&state, FUNCTION)?;
            }
        }
        Ok(done)
    }
}
