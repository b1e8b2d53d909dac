//! For tests: the tasks' steps without a worker. Declared by the tests themselves.

use super::{Expiry, Retention};
use crate::call::{self, sql_functions};
use crate::catalog;
use pgrx::pg_sys;

fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

sql_functions! {
    /// Removes expired states, one step of the task; whether there may be more.
    fn state_cache_test_expire(call) {
        let catalog = catalog::current(call.function())?;
        let mut task = Expiry::default();
        task.step(&catalog, now())?;
        Ok(call::boolean_datum(task.advance()))
    }

    /// A whole pass of the other task, in this transaction; how many steps it took.
    fn state_cache_test_retain(call) {
        let catalog = catalog::current(call.function())?;
        let mut task = Retention::default();
        let mut steps = 1;
        task.begin_pass(now());
        loop {
            let next = task.step(&catalog, now())?;
            if !task.went_on(next, now()) {
                return Ok(call::count_datum(steps));
            }
            steps += 1;
        }
    }

    /// Writes down what L1 holds.
    fn state_cache_test_write_resident(_call) {
        super::resident::write_all().map_err(|error| crate::error::Error::Internal {
            message: error.to_string(),
        })?;
        Ok(call::void_datum())
    }
}
