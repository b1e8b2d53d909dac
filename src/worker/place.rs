//! This process as a worker: its place among the databases, and what a task says there and does there.

use super::guard::Failure;
use super::task::Task;
use crate::error::Result;
use crate::shared;
use crate::snapshot::PushedSnapshot;
use crate::sys;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CString;
use std::sync::atomic::Ordering::SeqCst;

thread_local! {
    /// The slot of the database whose worker this process is.
    pub(super) static SLOT: Cell<Option<&'static shared::Database>> = const { Cell::new(None) };
    /// This worker is about to leave.
    pub(super) static LEAVING: Cell<bool> = const { Cell::new(false) };
}

/// Runs something of a task in a transaction of its own, with a snapshot pushed. What it returns must not
/// point into memory of the transaction.
///
/// # Errors
/// Those of `f`; the transaction is aborted then.
pub fn transaction<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: called by a worker outside a transaction. An error of the server leaves through here and ends
    // in `guarded`, which aborts the transaction; the memory context is put back for the next statement.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let outcome = {
            let _snapshot = PushedSnapshot::transaction();
            f()
        };
        match &outcome {
            Ok(_) => pg_sys::CommitTransactionCommand(),
            Err(_) => pg_sys::AbortCurrentTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::pgstat_report_stat(false);
        outcome
    }
}

/// Says what this worker is doing, for `pg_stat_activity` and `state_cache_workers`; an empty text for
/// nothing.
pub fn activity(text: &str) {
    if let Some(slot) = SLOT.get() {
        shared::set_activity(slot, text);
    }
    let shown = CString::new(text).unwrap_or_default();
    // SAFETY: writes this process's own entry; the text is copied.
    unsafe {
        if text.is_empty() {
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        } else {
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, shown.as_ptr());
        }
    }
}

/// Shows how far the warm start has come: states filled, of how many.
pub fn report_warming(done: u64, total: u64) {
    if let Some(slot) = SLOT.get() {
        slot.report.warm_done.store(done, SeqCst);
        slot.report.warm_total.store(total, SeqCst);
    }
}

/// Counts entries of L1 that an audit has compared, and those that were not what they should be.
pub fn report_audit(compared: u64, differing: u64) {
    if let Some(slot) = SLOT.get() {
        slot.report.audited.fetch_add(compared, SeqCst);
        slot.report.differing.fetch_add(differing, SeqCst);
    }
}

/// Says whether commits may leave changes to this worker from here on; a worker that is about to leave takes
/// none.
pub fn accept(accepting: bool) {
    if let Some(slot) = SLOT.get() {
        slot.set_accepting(accepting && !LEAVING.get());
    }
}

/// Shows what went wrong in a part of a task that goes on with the rest.
pub fn report(task: &dyn Task, failure: &Failure) {
    if let Some(slot) = SLOT.get() {
        shared::set_error(slot, &format!("{}: {failure}", task.name()));
    }
}

/// Notes that changes were written behind just now.
pub fn flushed() {
    if let Some(slot) = SLOT.get() {
        slot.report.last_flush.store(sys::now(), SeqCst);
    }
}
