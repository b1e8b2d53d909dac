//! Noting what a change of a watched row concerns (`derived`).

use super::batch::{Phase, with};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::notify;
use std::rc::Rc;

/// Which documents of a class a change of a watched row concerns.
pub enum Concerned<'a> {
    /// This one.
    Key(&'a [u8]),
    /// Any of them.
    Class,
}

/// A statement that may change a watched row begins: from here on the transaction reads derived documents by their
/// queries.
pub fn note_touched() {
    with(|batch| batch.dependents.note_touched());
}

/// Whether this transaction has changed, or is changing, a watched row.
pub fn has_touched() -> bool {
    with(|batch| batch.dependents.has_touched())
}

/// Whether all documents of a class are noted as changed already.
pub fn is_class_noted(class: &[u8]) -> bool {
    with(|batch| batch.dependents.has_class(class))
}

/// Notes that a watched row was changed. Once the last flush is done the change joins what the commit publishes.
///
/// # Errors
/// `53200`.
pub fn note_dependents(
    catalog: &Rc<Catalog>,
    class: &[u8],
    concerned: &Concerned<'_>,
) -> Result<()> {
    let committing = with(|batch| -> Result<bool> {
        batch
            .scope
            .catalog
            .get_or_insert_with(|| Rc::clone(catalog));
        batch.dependents.note_touched();
        let committing = batch.phase == Phase::Committing;
        match concerned {
            Concerned::Key(key) => {
                if committing {
                    batch.publication.add_derived(catalog, class, key)?;
                }
                batch.dependents.note_key(class, key)?;
            }
            Concerned::Class => {
                if committing {
                    batch.publication.add_derived_class(catalog, class)?;
                }
                batch.dependents.note_class(class)?;
            }
        }
        Ok(committing)
    })?;
    match committing {
        true => notify::tell_late(catalog),
        false => Ok(()),
    }
}

/// The worker has something to do at that time, if the transaction commits.
pub fn needs_worker_by(time: i64) {
    with(|batch| batch.publication.needs_worker_by(time));
}
