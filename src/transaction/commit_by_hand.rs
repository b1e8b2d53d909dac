//! Changes by hand that are about to commit, where states have dirty entries.
//!
//! What they change may have the last word over a dirty version (see `behind`). Whether it has is decided
//! here, before the commit, under the locks that keep committers from building upon a version that is about
//! to be dropped.

use super::overrule::raise_floor;
use super::write_back::note;
use crate::behind::{Wrote, dirty_entry, dirty_states, lock, lock_class, lock_for_many};
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
                overrule_if_newer(catalog, &class, key)?;
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
    for ((class, key), _) in dirty_states(catalog, None)? {
        if let Some(class) = behind_class(catalog, &class)? {
            overrule_if_newer(catalog, &class, &key)?;
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

fn overrule_if_newer(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<()> {
    let Some((info, dirty)) = dirty_entry(catalog, class, key) else {
        return Ok(());
    };
    let head = catalog.head_row(&class.name, key);
    let is_overruled = match &head {
        Some(head) => head.version > info.version,
        None => dirty.base > 0,
    };
    if is_overruled {
        if head.is_none() {
            raise_floor(class, key, info.version)?;
        }
        note(catalog, (class, key), &info, sys::now(), Wrote::Overruled)?;
    }
    Ok(())
}
