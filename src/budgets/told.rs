//! Messages: what is reached, once.
//!
//! A level that is reached is a row of `state_budget_reached`; who inserts it tells. With one row of counters the row
//! says exactly when a level is crossed. With several, each charge looks at all of them as they are committed: of two
//! that reach a level together neither may see the other, and then the next charge tells.

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
    /// Among how many rows its counters are distributed.
    pub shards: i32,
}

/// After a charge, with what the account has spent then.
pub fn after_charge(
    catalog: &Catalog,
    watched: &Watched<'_>,
    charged: Amount,
    spent: Amount,
) -> Result<()> {
    // With several rows, what was spent before is not what this transaction has found.
    let before = match watched.shards {
        1 => spent - charged,
        _ => Amount::ZERO,
    };
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
