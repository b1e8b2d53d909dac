//! `state_log`.

use super::append::reference;
use crate::cache::StateRef;
use crate::call::{self, sql_functions};
use crate::catalog;
use crate::error::{Error, Result};
use crate::store::{self, LogPlace, Which};

/// How many entries a call wants at most.
fn most(limit: Option<i32>) -> Result<i64> {
    match limit {
        None => Ok(i64::MAX),
        Some(limit @ 0..) => Ok(i64::from(limit)),
        Some(limit) => Err(Error::argument(format!(
            "limit must not be negative: {limit}"
        ))),
    }
}

sql_functions! {
    /// `state_log(key, ref, after, limit, class)`
    fn state_log(call) {
        let class = call.required_text(4, "class")?;
        let key = call.required_text(0, "key")?;
        let state = StateRef::new(&catalog::current(call.function())?, class, key)?;
        let which = match call.text(1) {
            None => Which::All,
            Some(given) => Which::Of(reference(Some(given))?),
        };
        let after = call.bigint(2).unwrap_or(i64::MIN);
        let most = most(call.integer(3))?;
        let mut rows = call.rows()?;
        let place = LogPlace { class: &state.class.name, key: state.key };
        store::read_log(&state.catalog, &place, which, after, most, |columns| rows.push(columns))?;
        Ok(call::void_datum())
    }
}
