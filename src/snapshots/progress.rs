//! The view `state_progress`.

use crate::call::{self, sql_functions};
use crate::catalog;
use crate::shared;

sql_functions! {
    /// `state_progress()`: a row per running command of this database.
    fn state_progress(call) {
        let catalog = catalog::current(call.function())?;
        // Who may not read the tables learns no names from here.
        let may_see_names = catalog.access().l1;
        let mut rows = call.rows()?;
        for running in shared::running() {
            rows.push([
                Some(call::integer_datum(running.pid as i32)),
                Some(call::varlena_datum(<&str>::from(running.command).as_bytes())),
                running.class.bytes().map(call::varlena_datum),
                running.key.bytes().filter(|_| may_see_names).map(call::varlena_datum),
                Some(call::count_datum(running.done)),
                Some(call::count_datum(running.total)),
                Some(call::bigint_datum(running.started_at)),
            ]);
        }
        Ok(call::void_datum())
    }
}
