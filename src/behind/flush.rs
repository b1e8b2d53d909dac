//! Writing back in the caller's transaction: what of an installation is dirty, a class of it, or one state.

use super::write::{Found, write_over_lost};
use super::{become_writer, settle, unwritten, write};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::name::StateName;
use crate::{memory, shared, sys};
use state_cache_l1::EntryInfo;
use state_cache_memory::Grow;
use std::rc::Rc;

/// The dirty entries of an installation, in the order in which flushes lock states.
pub fn dirty(catalog: &Catalog, class: Option<&[u8]>) -> Result<Vec<(StateName, EntryInfo)>> {
    let (mut found, mut outcome) = (Vec::new(), Ok(()));
    if let Some(l1) = shared::l1() {
        l1.for_each_dirty(catalog.database, catalog.incarnation, |of, key, info| {
            if outcome.is_ok() && class.is_none_or(|class| of == class) {
                outcome = memory::check().and_then(|()| {
                    found.try_push(((of.into(), key.into()), *info))?;
                    Ok(())
                });
            }
        })?;
    }
    outcome?;
    found.sort_unstable_by(|a: &(StateName, _), b| a.0.cmp(&b.0));
    Ok(found)
}

/// Writes what is dirty of a class, or of all, in this transaction; how many states.
pub fn flush(catalog: &Rc<Catalog>, class: Option<&[u8]>) -> Result<u64> {
    let mut flushed = 0;
    for ((class, key), _) in dirty(catalog, class)? {
        flushed += u64::from(flush_state(catalog, &class, &key)?);
    }
    Ok(flushed)
}

/// Writes a state if it is dirty, in this transaction; whether it was.
pub fn flush_state(catalog: &Rc<Catalog>, class: &[u8], key: &[u8]) -> Result<bool> {
    // The row of its class may have been deleted in a way that no trigger saw.
    let class = catalog.class_or_default(class)?;
    let read_at = sys::now();
    let (info, dirty, version) = match unwritten(catalog, &class, key)? {
        Found::Nothing => return Ok(false),
        Found::Version(info, dirty, version) => (info, dirty, version),
        Found::Damaged(info, dirty) => {
            write_over_lost(catalog, &class, key, &info, dirty.owner)?;
            return Ok(true);
        }
    };
    crate::fault::stop_at!(BeforeBehind);
    let wrote = {
        let _writer = become_writer(catalog, dirty.owner);
        write(catalog, &class, key, &version)?
    };
    settle(catalog, &class, key, &info, read_at, wrote)?;
    Ok(true)
}
