//! The SQL functions about changes that L3 does not hold yet.

use crate::behind;
use crate::call::{self, sql_functions};
use crate::catalog;
use crate::transaction;
use pgrx::pg_sys;

sql_functions! {
    /// `state_flush(class)`
    fn state_flush(call) {
        let catalog = catalog::current(call.function())?;
        call::check_may_write(c"state_flush()")?;
        // SAFETY: raises PostgreSQL's own error; the name is NUL-terminated.
        unsafe {
            pg_sys::PreventCommandIfParallelMode(c"state_flush()".as_ptr());
        }
        catalog.check_may_change()?;
        let class = call.text(0);
        if let Some(class) = class {
            catalog.class(class)?;
        }
        let deferred = transaction::write_all_deferred(&catalog, class)?;
        Ok(call::count_datum(deferred + transaction::write_all_back(&catalog, class)?))
    }

    /// `state_cache_unwritten()`
    fn state_cache_unwritten(call) {
        let catalog = catalog::current(call.function())?;
        catalog.check_may_see_all()?;
        let mut rows = call.rows()?;
        for ((class, key), info) in behind::dirty_states(&catalog, None)? {
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
