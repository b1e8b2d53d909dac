//! The background workers: a launcher, and a worker for each database that has the extension and work to do.
//!
//! # Contract
//!
//! **Launcher** (`launcher`). One process for the server, started with it when the library is preloaded. It
//! starts a worker in each database once after the server's start, so that each can look what there is to
//! do; later where a session calls for one, where the departed worker said one would be needed by now, and
//! where one died. Never more than `state_cache.max_workers` at a time: when all are in use and another
//! database wants one, the worker that has been idle longest is asked to leave.
//!
//! **Worker** (`process`). One for a database at any time; taking the place is one step under the lock of
//! the slots (`shared`). It calls its tasks ([`task::Task`]) when they are due or when it is woken; between
//! the calls it is in no transaction, and holds no lock, no snapshot and nothing else that could be in
//! anybody's way. It waits half a second for a lock in a task at most, so that
//! it gives way before a deadlock is looked for. A task that fails is called again after a
//! pause; the others go on.
//!
//! **Leaving.** On SIGTERM, when the launcher or a statement asks for it, when the extension is gone, or
//! when nothing was to be done for `state_cache.worker_idle_timeout`. The worker first stops accepting, then
//! lets its tasks finish what only they can do, as long as there is progress. What is left after that stays
//! wanted: the next worker takes it up.
//!
//! **Statements** (`statements`). DROP DATABASE, ALTER DATABASE … RENAME and SET TABLESPACE, and CREATE
//! DATABASE with the database as template need it without sessions: the worker is asked to leave before
//! them, and none is started until the transaction has ended.
//!
//! Calling a worker: `shared::Database::wake_worker`, whether there is one or not.

mod guard;
mod launcher;
#[cfg(feature = "fault_injection")]
mod probe;
mod process;
mod schedule;
mod statements;
pub mod task;

use crate::error::Result;
use crate::shared;
use crate::snapshot::PushedSnapshot;
use crate::sys;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CString;
use std::sync::atomic::Ordering::SeqCst;
use task::Task;

pub use guard::{Failure, guarded};

thread_local! {
    /// The slot of the database whose worker this process is.
    static SLOT: Cell<Option<&'static shared::Database>> = const { Cell::new(None) };
    /// This worker is about to leave.
    static LEAVING: Cell<bool> = const { Cell::new(false) };
}

/// Registers the launcher and watches for statements that need a database without sessions, if the library
/// is being preloaded.
pub fn init() {
    // SAFETY: a plain global of this process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        launcher::register();
        statements::init();
    }
}

/// What every worker does.
fn tasks() -> Vec<Box<dyn Task>> {
    let mut tasks: Vec<Box<dyn Task>> = vec![
        Box::<crate::changes::Starts>::default(),
        Box::<crate::notify::Teller>::default(),
        Box::<crate::behind::Flusher>::default(),
    ];
    tasks.extend(crate::upkeep::tasks());
    #[cfg(feature = "fault_injection")]
    tasks.push(Box::<probe::Probe>::default());
    tasks
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
