//! Entries of L1 that fail their check: stray writes into shared memory, or a defect.
//!
//! A clean entry is a copy, so it goes and nothing is lost. A dirty one is the only copy of a version that was
//! acknowledged. It stays in L1 as long as its header can be read, because the next version must be above
//! its own; readers get what L3 holds, with a warning, and the worker gives that a version above the lost one
//! (`behind`). Each finder acts upon the entry that it has found, by serial: a sound one may have taken its
//! place.

use super::StateRef;
use crate::counters::Counter;
use crate::error::{Result, warn_lost};
use crate::shared::{self, Key, SharedL1};
use state_cache_l1::{EntryInfo, Lookup, Want};

/// What L1 holds of a state that L3 does not.
pub enum DirtyValue {
    /// Nothing.
    None,
    /// This entry and its document.
    Entry(EntryInfo, Vec<u8>),
    /// This entry, whose document is lost.
    Damaged(EntryInfo),
}

/// The dirty entry of a state, checked against its hash. Memory is allocated with no lock held.
pub fn read_dirty(l1: &SharedL1, key: &Key<'_>) -> Result<DirtyValue> {
    loop {
        let before = match l1.read(key, Want::Info, &mut []) {
            Lookup::Hit(info) if info.dirty.is_some() => info,
            _ => return Ok(DirtyValue::None),
        };
        let mut document = state_cache_memory::filled(0_u8, before.value_len as usize)?;
        match l1.read(key, Want::Value, &mut document) {
            Lookup::Hit(info) if info.serial == before.serial => {
                let is_whole = info.hash == 0 || state_cache_document::hash(&document) == info.hash;
                return Ok(match is_whole {
                    true => DirtyValue::Entry(info, document),
                    false => DirtyValue::Damaged(info),
                });
            }
            Lookup::Damaged if is_still(l1, key, &before) => {
                return Ok(DirtyValue::Damaged(before));
            }
            // Another entry has taken its place meanwhile.
            _ => {}
        }
    }
}

fn is_still(l1: &SharedL1, key: &Key<'_>, entry: &EntryInfo) -> bool {
    matches!(l1.read(key, Want::Info, &mut []), Lookup::Hit(info) if info.serial == entry.serial)
}

/// A read has come upon a damaged entry: removes it if nothing is lost with it, and else says what is.
pub fn found(state: &StateRef<'_>, l1: &SharedL1, key: &Key<'_>) -> Result<()> {
    state.class.counters.count(Counter::Damaged);
    match l1.read(key, Want::Info, &mut []) {
        Lookup::Hit(info) if info.dirty.is_none() => drop(l1.remove_clean_entry(key, info.serial)),
        Lookup::Hit(_) => {
            if let DirtyValue::Damaged(info) = read_dirty(l1, key)? {
                warn_lost(&state.shown(), info.version);
                if let Some(database) = shared::database() {
                    database.want_flush();
                }
            }
        }
        _ => {
            if let Some(info) = l1.remove_unsound(key).filter(|info| info.dirty.is_some()) {
                warn_lost(&state.shown(), info.version);
            }
        }
    }
    Ok(())
}

/// Says of dirty entries that went with what led to them that nobody can tell whose they were.
pub fn tell_of_nameless(unreadable: u64) {
    let lost = unreadable + shared::l1().map_or(0, SharedL1::take_lost);
    if lost > 0 {
        pgrx::warning!(
            "state_cache: up to {lost} unwritten versions of states of behind classes are lost: they were damaged in \
             shared memory together with their names"
        );
    }
}
