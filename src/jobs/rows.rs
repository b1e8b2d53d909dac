//! As whom the rows of tasks are read and written, and what keeps rows from joining a job unseen.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::identity::Impersonation;
use pgrx::pg_sys;

/// The owner of the tasks, while the value lives; the caller itself where row-level security of the table applies to
/// it, which decides then what it may read and write.
pub fn of_tasks(catalog: &Catalog) -> Option<Impersonation> {
    match catalog.tasks_have_row_security() {
        true => None,
        false => Some(Impersonation::owner_of(catalog.task)),
    }
}

/// Jobs are created, and rows are put in by hand that name no job: not both at once. Creating jobs is in nobody
/// else's way who creates some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// A job.
    Job,
    /// Rows that may name a job which is being created.
    Rows,
}

impl Making {
    /// Waits until nobody does the other thing, and keeps everybody from it until the transaction ends.
    pub fn begin(self, catalog: &Catalog) -> Result<()> {
        let lock = match self {
            Self::Job => pg_sys::RowExclusiveLock,
            Self::Rows => pg_sys::ShareLock,
        };
        let table = catalog.relation(c"state_task_left")?;
        // SAFETY: waits as any lock on a table does; the server gives it back at the end of the transaction.
        unsafe { pg_sys::LockRelationOid(table, lock as i32) };
        Ok(())
    }
}
