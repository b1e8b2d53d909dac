//! As whom the rows of tasks are read and written.

use crate::catalog::Catalog;
use crate::identity::Impersonation;

/// The owner of the tasks, while the value lives; the caller itself where row-level security of the table applies to
/// it, which decides then what it may read and write.
pub fn of_tasks(catalog: &Catalog) -> Option<Impersonation> {
    match catalog.tasks_have_row_security() {
        true => None,
        false => Some(Impersonation::owner_of(catalog.task)),
    }
}
