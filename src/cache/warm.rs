//! Filling L1 ahead of its readers.

use super::StateRef;
use super::fill::{Origin, Route, offer, route};
use super::forms::Head;
use super::found::{Form, Taken};
use super::tables::newest;
use crate::error::Result;
use crate::shared::SharedL1;
use crate::store::{Content, Stored};

/// What became of a state that was to be in L1 before anybody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmed {
    /// It was filled.
    Filled,
    /// It is there already, or not to be had.
    Passed,
    /// There is no room for it: others would have to go.
    Full,
    /// L1 is not for this caller, now.
    Off,
}

/// Fills a state of which this transaction has changed nothing, as a read that missed would, into free room
/// only. Counts no read.
pub fn warm(state: &StateRef<'_>) -> Result<Warmed> {
    let (l1, origin) = match route(state, false) {
        Route::L1(l1) => (l1, Origin::Primary),
        Route::Recovery(l1) => (l1, Origin::Recovery),
        Route::Validated(..) | Route::L3(_) => return Ok(Warmed::Off),
    };
    let key = state.l1_key();
    let Some(token) = l1.fill_token(&key) else {
        return Ok(Warmed::Passed);
    };
    if matches!(Head.take(l1, &key), Taken::Entry(..)) {
        return Ok(Warmed::Passed);
    }
    let newest = newest(state)?;
    if !has_room(state, l1, newest.stored.as_ref()) {
        return Ok(Warmed::Full);
    }
    Ok(
        match offer(state, l1, &key, token, newest.stored.as_ref(), origin) {
            true => Warmed::Filled,
            false => Warmed::Passed,
        },
    )
}

/// Whether an entry fits without another one leaving.
fn has_room(state: &StateRef<'_>, l1: &SharedL1, stored: Option<&Stored>) -> bool {
    let document = match stored.map(|stored| &stored.content) {
        Some(Content::Intact(document)) => document.bytes.len() as u64,
        _ => 0,
    };
    // Chunks of names and header, and of the table that finds a chunk in a long chain: a 64th at most.
    let wanted = document + document / 32 + 4 * state_cache_l1::CHUNK as u64;
    let (entries, _) = l1.gauges(state.class.counters.class_id());
    let may = state.class.max_entries.map_or(u64::MAX, u64::from);
    l1.memory().free >= wanted && entries < may
}
