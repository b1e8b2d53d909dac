//! The SQL functions about changes that L3 does not hold yet.

use super::write::{Found, write_over_lost};
use super::{become_writer, settle, unwritten, write};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::name::StateName;
use crate::transaction;
use crate::{memory, shared, sys};
use pgrx::pg_sys;
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

sql_functions! {
    /// `state_flush(class)`
    fn state_flush(call) {
        let catalog = catalog::current(call.function())?;
        // SAFETY: both raise PostgreSQL's own errors; the names are NUL-terminated.
        unsafe {
            pg_sys::PreventCommandIfReadOnly(c"state_flush()".as_ptr());
            pg_sys::PreventCommandIfParallelMode(c"state_flush()".as_ptr());
        }
        catalog.check_may_change()?;
        let class = call.text(0);
        if let Some(class) = class {
            catalog.class(class)?;
        }
        let left = transaction::write_left(&catalog, class)?;
        Ok(call::count_datum(left + flush(&catalog, class)?))
    }

    /// `state_cache_unwritten()`
    fn state_cache_unwritten(call) {
        let catalog = catalog::current(call.function())?;
        let access = catalog.access();
        if access.row_security {
            return Err(Error::RowSecurity);
        }
        if !access.l1 {
            return Err(Error::Privilege { table: "state_head and state_snapshot", wanted: "SELECT" });
        }
        let mut rows = call.rows()?;
        for ((class, key), info) in dirty(&catalog, None)? {
            let Some(dirty) = info.dirty else { continue };
            rows.push([
                Some(call::varlena_datum(&class)),
                Some(call::varlena_datum(&key)),
                Some(call::bigint_datum(info.version)),
                Some(call::count_datum(info.value_len.into())),
                Some(call::bigint_datum(dirty.since)),
                Some(call::boolean_datum(dirty.parked)),
            ]);
        }
        Ok(call::void_datum())
    }
}
