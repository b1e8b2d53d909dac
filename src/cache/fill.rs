//! Which reads L1 may answer, and how what L3 holds comes into L1.

use super::StateRef;
use super::visibility::{UNPROVEN, is_own, widen};
use crate::counters::Counter;
use crate::settings;
use crate::shared::{self, Key, SharedL1};
use crate::store::{Content, Stored};
use crate::sys;
use state_cache_l1::{DirtyBefore, FillToken, NewEntry, Refused};

/// Who is asked.
pub(super) enum Route {
    /// L1 first.
    L1(&'static SharedL1),
    /// L1 where the head row agrees, else L3; this counts why.
    Validated(&'static SharedL1, Counter),
    /// The same while the server is in recovery, where reads fill L1.
    Recovery(&'static SharedL1),
    /// L3, and this counts why.
    L3(Counter),
}

/// Who may ask L1 at all.
pub(super) fn route(state: &StateRef<'_>, own_rows: bool) -> Route {
    if own_rows {
        return Route::L3(Counter::BypassOwn);
    }
    let Some(l1) = shared::l1() else {
        return Route::L3(Counter::BypassOff);
    };
    if !settings::enabled() {
        return Route::L3(Counter::BypassOff);
    }
    let access = state.catalog.access();
    if !access.l1 {
        return match access.validated {
            true => Route::Validated(l1, Counter::BypassPrivileges),
            false => Route::L3(Counter::BypassPrivileges),
        };
    }
    if sys::isolation_is_serializable() && !crate::fault::leaves_out!(PredicateLocks) {
        return Route::Validated(l1, Counter::BypassSerializable);
    }
    match sys::recovery_in_progress() {
        true => Route::Recovery(l1),
        false => Route::L1(l1),
    }
}

/// Under which circumstances an entry comes into L1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The server writes, and every change is published: the entry says who wrote it.
    Primary,
    /// The server is in recovery: the entry is unproven, see `validated`.
    Recovery,
}

/// Leaves what L3 holds in L1, if it is there, intact and nobody's but a committed transaction's; whether
/// that came to pass.
pub(super) fn offer(
    state: &StateRef<'_>,
    l1: &SharedL1,
    key: &Key<'_>,
    token: FillToken,
    stored: Option<&Stored>,
    origin: Origin,
) -> bool {
    let writer = |xid| match origin {
        Origin::Primary => widen(xid),
        Origin::Recovery => UNPROVEN,
    };
    if let Some(stored) = stored
        && let Content::Intact(document) = &stored.content
        && !is_own(stored.head_xid)
        && !is_own(document.xid)
    {
        let entry = NewEntry {
            key: *key,
            class: state.class.counters.class_id(),
            max_entries: state.class.max_entries,
            version: stored.version,
            head_xid: writer(stored.head_xid),
            doc_xid: writer(document.xid),
            hash: document.hash,
            expires_at: stored.expires_at,
            loaded_at: sys::statement_timestamp(),
            dirty: None,
            stored: document.storage.bits(),
            value: &document.bytes,
        };
        return stored.expires_at > entry.loaded_at && insert(state, l1, &entry, token);
    }
    false
}

/// Links an entry unless the state has changed since the token was taken; whether it was linked.
pub(super) fn insert(
    state: &StateRef<'_>,
    l1: &SharedL1,
    entry: &NewEntry<'_>,
    token: FillToken,
) -> bool {
    let counters = &state.class.counters;
    match l1.reserve(entry) {
        Ok(block) => {
            let linked = if crate::fault::leaves_out!(GenerationCheck) {
                l1.link(block, l1.note(&entry.key), DirtyBefore::TakenOver);
                true
            } else {
                l1.link_if_unchanged(block, token)
            };
            counters.count(if linked {
                Counter::Fills
            } else {
                Counter::FillsRefused
            });
            linked
        }
        Err(Refused::TooLarge) => {
            counters.count(Counter::TooLarge);
            false
        }
        Err(Refused::Full | Refused::Gone) => {
            counters.count(Counter::FillsRefused);
            false
        }
    }
}
