//! A class changes its write mode, or goes: what is dirty is written first, in the same transaction.
//!
//! The trigger on `state_class` calls this, so that it holds for `state_class_define` and for a change by
//! hand alike.

use super::lock::lock_class;
use super::functions;
use crate::catalog::Catalog;
use crate::error::Result;
use pgrx::pg_sys;
use std::rc::Rc;

/// The write mode of a class changes, or a class is made or goes. `was` and `becomes` say whether its mode is
/// `behind`.
pub fn mode_changes(catalog: &Rc<Catalog>, class: &[u8], was: bool, becomes: bool) -> Result<()> {
    if was == becomes {
        return Ok(());
    }
    lock_class(catalog, class);
    if becomes {
        // Whoever is writing the class through right now does not take the locks. They hold a lock on the
        // table until they end, and those who come later look at the class again (`batch::commit`).
        // SAFETY: raises PostgreSQL's own errors; the lock is released with the transaction.
        unsafe {
            pg_sys::LockRelationOid(catalog.head, pg_sys::ShareRowExclusiveLock as i32);
        }
        return Ok(());
    }
    functions::flush(catalog, Some(class))?;
    Ok(())
}
