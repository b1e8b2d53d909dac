//! `state_touch_prefix`.

use super::names::with_prefix;
use crate::cache::StateRef;
use crate::call::{self, Scratch, sql_functions};
use crate::{behind, catalog, transaction};
use std::ffi::CStr;

const FUNCTION: &CStr = c"state_touch_prefix()";

sql_functions! {
    /// `state_touch_prefix(prefix, ttl, class)`
    fn state_touch_prefix(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(2, "class")?)?;
        transaction::check_may_write(&catalog, FUNCTION)?;
        let mut keys = with_prefix((&catalog, &class), call.required_text(0, "prefix")?, false)?;
        keys.sort_unstable();
        keys.dedup();
        behind::lock_for_many(&catalog, &class.name, keys.len())?;
        let (ttl, scratch) = (call.interval(1), Scratch::new());
        let mut touched = 0;
        for key in &keys {
            pgrx::check_for_interrupts!();
            touched += u64::from(scratch.with(|| {
                // A former touch may have waited for somebody who has redefined the class.
                let state = StateRef::new(&catalog::renewed(&catalog)?, &class.name, key)?;
                transaction::touch(&state, ttl, FUNCTION)
            })?);
        }
        Ok(call::count_datum(touched))
    }
}
