//! Messages: what is reached, once.
//!
//! A level that is reached is a row of `state_budget_reached`; who inserts it tells. A charge by which a level may be
//! reached is made with all rows of the account locked (`state_cache_budget::quiet` says which charge may), so what
//! was spent before it and after it is exact.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::notify::quoted;
use crate::store::budgets::{self, Account};
use crate::sys;
use state_cache_budget::{Amount, Level, levels_crossed};
use std::ffi::CString;

/// The channel that hears of what is reached.
const CHANNEL: &std::ffi::CStr = c"budget_reached";

/// An account, and what can be reached in it.
pub struct Watched<'a> {
    /// The account.
    pub account: Account<'a>,
    /// What may be spent.
    pub limit: Amount,
    /// From which on spending is told.
    pub soft_limit: Option<Amount>,
}

/// After a charge that has found so much spent before.
pub fn after_charge(
    catalog: &Catalog,
    watched: &Watched<'_>,
    before: Amount,
    charged: Amount,
) -> Result<()> {
    let spent = before + charged;
    for level in levels_crossed(before, spent, watched.limit, watched.soft_limit) {
        tell(catalog, watched, level, spent)?;
    }
    Ok(())
}

/// After a redefinition: levels that are not reached any more can be reached again, and those that are now are told.
pub fn after_redefinition(catalog: &Catalog, watched: &Watched<'_>) -> Result<()> {
    let (spent, _) = budgets::spent(catalog, &watched.account)?;
    for level in Level::ALL {
        match level.is_reached(spent, watched.limit, watched.soft_limit) {
            true => tell(catalog, watched, level, spent)?,
            false => budgets::forget_reached(catalog, &watched.account, level.name())?,
        }
    }
    Ok(())
}

fn tell(catalog: &Catalog, watched: &Watched<'_>, level: Level, spent: Amount) -> Result<()> {
    let (account, limit) = (&watched.account, watched.limit);
    if !budgets::reach(catalog, account, level.name())? {
        return Ok(());
    }
    // A name that Unicode cannot write is told as null.
    let named = |name: &[u8]| match name {
        [] => b"null".to_vec(),
        name => quoted(name).unwrap_or_else(|| b"null".to_vec()),
    };
    let mut message = b"{\"budget\":".to_vec();
    message.extend(named(account.budget));
    message.extend(b",\"agent\":");
    message.extend(named(account.agent));
    let rest = format!(
        ",\"reached\":\"{}\",\"spent\":{spent},\"limit\":{limit},\"soft_limit\":{}}}",
        level.name(),
        watched
            .soft_limit
            .map_or_else(|| "null".to_owned(), |it| it.to_string()),
    );
    message.extend(rest.into_bytes());
    // Names are at most 255 bytes each: a message is far below the 8,000 bytes that NOTIFY takes.
    sys::async_notify(CHANNEL, &CString::new(message).unwrap_or_default());
    Ok(())
}
