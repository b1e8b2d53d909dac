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
//! On a **standby** the launcher starts as soon as sessions can, and its workers do what writes nothing
//! ([`task::Task::works_in_recovery`]); they accept no changes and tell no messages. When the standby is promoted,
//! they leave and are followed by others, and the launcher looks into each database as after a start.
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
//! What the workers do, and what the launcher does at the start and the stop of the server, the rooms above say:
//! `lib.rs` names it once ([`Work`]).
//!
//! Calling a worker: `shared::Database::wake_worker`, whether there is one or not.

mod guard;
mod launcher;
mod place;
#[cfg(feature = "fault_injection")]
mod probe;
mod process;
mod schedule;
mod statements;
pub mod task;
mod work;

use pgrx::pg_sys;

pub use guard::{Failure, guarded};
pub use place::{accept, activity, flushed, report, report_audit, report_warming, transaction};
pub use work::{Errand, Work, new_task};

/// Takes in what the workers are to do. If the library is being preloaded, registers the launcher and watches for
/// statements that need a database without sessions.
pub fn init(work: &'static Work) {
    work::register(work);
    // SAFETY: a plain global of this process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        launcher::register();
        statements::init();
    }
}
