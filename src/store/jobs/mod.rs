//! The rows of tasks.

mod by_hand;
mod change;
mod claim;
mod left;
mod read;

use crate::call::varlena_datum;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::spi::{Row, Rows, Statement};
use crate::varlena::{TEXT, array_datum};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::collect;

pub use by_hand::{CountedChange, Transition, counted_changes};
pub use change::{
    TaskChange, TaskRow, cancel_tasks, insert_tasks, lock_tasks, task_values, update_tasks,
};
pub use claim::{
    TaskClaim, Whose, hand_out_tasks, jobs_with_lapsed, jobs_with_waiting, lock_exhausted,
    lock_lapsed, lock_waiting, next_lease, renew_leases,
};
pub use left::{
    delete_left_tasks, delete_tasks, forget_left, jobs, jobs_left, jobs_of_tasks, leave_tasks,
};
pub use read::{TaskPage, count_tasks, has_tasks, task_documents, task_page};

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    insert: OnceCell<Statement>,
    lock: OnceCell<Statement>,
    update: OnceCell<Statement>,
    values: OnceCell<Statement>,
    cancel: OnceCell<Statement>,
    count: OnceCell<Statement>,
    has_tasks: OnceCell<Statement>,
    delete: OnceCell<Statement>,
    leave: OnceCell<Statement>,
    documents: OnceCell<Statement>,
    page: [OnceCell<Statement>; 2],
    lapsed_jobs: OnceCell<Statement>,
    waiting_jobs: [OnceCell<Statement>; 2],
    lock_lapsed: OnceCell<Statement>,
    lock_waiting: [OnceCell<Statement>; 2],
    hand_out: OnceCell<Statement>,
    renew: OnceCell<Statement>,
    changes: [OnceCell<Statement>; 3],
    jobs: OnceCell<Statement>,
    jobs_of_tasks: OnceCell<Statement>,
    jobs_left: OnceCell<Statement>,
    delete_left: OnceCell<Statement>,
    forget_left: OnceCell<Statement>,
    lock_exhausted: OnceCell<Statement>,
    next_lease: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// A task that was written: its name, and the status that it has now.
pub type Written = (Box<[u8]>, Box<[u8]>);

/// What of a task a decision is about.
pub struct LockedTask {
    /// Its name.
    pub task_id: Box<[u8]>,
    /// Its status.
    pub status: Box<[u8]>,
    /// How often it was started.
    pub attempts: i32,
    /// The agent that has claimed it last.
    pub owner: Option<Box<[u8]>>,
    /// The token under which that was.
    pub token: Option<i64>,
    /// Until when nobody else can claim it.
    pub lease_until: Option<i64>,
}

/// Of columns 1 to 6.
fn locked(rows: &Rows) -> Result<Vec<LockedTask>> {
    let task = |row: Row<'_>| LockedTask {
        task_id: row.text(1),
        status: row.text(2),
        attempts: row.bigint(3) as i32,
        owner: row.column(4).map(|_| row.text(4)),
        token: row.column(5).map(|_| row.bigint(5)),
        lease_until: row.column(6).map(|_| row.bigint(6)),
    };
    Ok(collect(rows.iter().map(task))?)
}

/// Names as an array.
fn names_datum<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<pg_sys::Datum> {
    Ok(array_datum(
        TEXT,
        names.map(|name| Some(varlena_datum(name))),
    )?)
}

/// Tasks of a status, as text, and how many.
pub type StatusCount = (Box<[u8]>, i64);

fn status_counts(rows: &Rows) -> Result<Vec<StatusCount>> {
    Ok(collect(
        rows.iter().map(|row| (row.text(1), row.bigint(2))),
    )?)
}
