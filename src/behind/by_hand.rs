//! Changes by hand that are about to commit, where states have dirty entries.
//!
//! What they change may have the last word over a dirty version (see `behind`). Whether it has is decided
//! here, before the commit, under the locks that keep committers from building upon a version that is about
//! to be dropped.

use super::caller::caller;
use super::dirty_entry;
use super::flush::dirty;
use super::lock::{lock, lock_class, lock_for_many};
use super::write::{Wrote, settle};
use crate::catalog::{Catalog, Class};
use crate::error::{Error, Result};
use crate::name::StateName;
use crate::shared;
use crate::sys;
use std::rc::Rc;

/// These states were changed by hand; they come in the order of class and key.
pub fn before_keys_commit(catalog: &Rc<Catalog>, names: &[StateName]) -> Result<()> {
    if shared::l1().is_none() {
        return Ok(());
    }
    // In the order of class and key: each class's states stand together.
    for states in names.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((name, _)) = states.first() else {
            continue;
        };
        lock_for_many(catalog, name, states.len())?;
        for (_, key) in states {
            if let Some(class) = behind_class(catalog, name)? {
                let class = lock(catalog, class, key)?;
                drop_if_superseded(catalog, &class, key)?;
            }
        }
    }
    Ok(())
}

/// Any state may have been changed by hand, or all rows are gone (`truncated`).
pub fn before_all_commit(catalog: &Rc<Catalog>, truncated: bool) -> Result<()> {
    if shared::l1().is_none() {
        return Ok(());
    }
    for class in catalog.behind_classes()? {
        lock_class(catalog, &class);
    }
    if truncated {
        // They go all at once.
        return Ok(());
    }
    for ((class, key), _) in dirty(catalog, None)? {
        if let Some(class) = behind_class(catalog, &class)? {
            drop_if_superseded(catalog, &class, &key)?;
        }
    }
    Ok(())
}

fn behind_class(catalog: &Catalog, name: &[u8]) -> Result<Option<Rc<Class>>> {
    match catalog.class(name) {
        Ok(class) => Ok(class.behind.then_some(class)),
        Err(Error::UnknownClass { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn drop_if_superseded(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<()> {
    let Some((info, dirty)) = dirty_entry(catalog, class, key) else {
        return Ok(());
    };
    let head = catalog.head_row(&class.name, key);
    let superseded = match &head {
        Some(head) => head.version > info.version,
        None => dirty.base > 0,
    };
    if superseded {
        if head.is_none() {
            caller()?.raise_floor(class, key, info.version)?;
        }
        settle(catalog, class, key, &info, sys::now(), Wrote::Superseded)?;
    }
    Ok(())
}
