//! A class changes its write mode, or goes: what is dirty is written first, in the same transaction.
//!
//! The trigger on `state_class` calls this before the row changes, so that it holds for
//! `state_class_define` and for a change by hand alike.

use super::write_back::write_all_back;
use crate::behind::{dirty_states, lock_class};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::memory;
use pgrx::pg_sys;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A class's name, and whether its write mode is `behind`.
type Mode = (Box<[u8]>, bool);

/// A row of `state_class` is about to become another, or to come or go.
pub fn before_class_changes(
    catalog: &Rc<Catalog>,
    before: Option<Mode>,
    after: Option<Mode>,
) -> Result<()> {
    if before == after {
        return Ok(());
    }
    if let Some((class, true)) = before {
        lock_class(catalog, &class);
        write_all_back(catalog, Some(&class))?;
    }
    if let Some((class, true)) = after {
        lock_class(catalog, &class);
        // Whoever is writing the class through right now does not take the locks. They hold a lock on the
        // table until they end, and those who come later look at the class again (`deferred::check_classes`).
        // SAFETY: raises PostgreSQL's own errors; the lock is released with the transaction.
        unsafe {
            pg_sys::LockRelationOid(catalog.head, pg_sys::ShareRowExclusiveLock as i32);
        }
    }
    Ok(())
}

/// All rows of `state_class` are about to go.
pub fn before_all_classes_go(catalog: &Rc<Catalog>) -> Result<()> {
    let mut classes: BTreeSet<_> = catalog.behind_classes()?.into_iter().collect();
    for ((class, _), _) in dirty_states(catalog, None)? {
        memory::check()?;
        classes.insert(class);
    }
    for class in classes {
        lock_class(catalog, &class);
    }
    write_all_back(catalog, None)?;
    Ok(())
}
