//! Answers from L3.

use super::StateRef;
use super::found::{Form, Found, Version};
use super::visibility::same_visibility;
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Content, Storage, Stored};
use crate::sys;

/// What L3 has under the active snapshot.
pub fn from_table<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    from_l3(
        state,
        store::read(&state.catalog, &state.class, state.key)?,
        form,
    )
}

/// What a filler reads: the newest committed version, whatever the caller's snapshot is.
pub(super) struct Newest {
    pub stored: Option<Stored>,
    pub is_what_the_caller_sees: bool,
}

pub(super) fn newest(state: &StateRef<'_>) -> Result<Newest> {
    let caller = sys::active_snapshot();
    let _fresh = (!crate::fault::leaves_out!(FreshSnapshot)).then(PushedSnapshot::latest);
    // SAFETY: both are on the stack of active snapshots.
    let is_what_the_caller_sees = unsafe { same_visibility(caller, sys::active_snapshot()) };
    let stored = store::read(&state.catalog, &state.class, state.key)?;
    Ok(Newest {
        stored,
        is_what_the_caller_sees,
    })
}

/// The answer that a row of L3 gives.
pub(super) fn from_l3<F: Form>(
    state: &StateRef<'_>,
    stored: Option<Stored>,
    form: &mut F,
) -> Result<Found<F::Output>> {
    let Some(stored) = stored else {
        return Ok(Found::Absent(0));
    };
    let version = Version {
        number: stored.version,
        expires_at: stored.expires_at,
        hash: match &stored.content {
            Content::Intact(document) => document.hash,
            Content::Absent | Content::Damaged(_) => 0,
        },
        storage: match &stored.content {
            Content::Intact(document) => document.storage,
            Content::Absent | Content::Damaged(_) => Storage::UNKNOWN,
        },
    };
    if version.is_expired() {
        return Ok(Found::Absent(version.number));
    }
    let value = match stored.content {
        Content::Absent => return Ok(Found::Absent(version.number)),
        Content::Intact(document) => form.make(&document.bytes)?,
        Content::Damaged(fault) => form.make_of_damaged(Error::Damaged {
            state: state.shown(),
            version: version.number,
            fault,
        })?,
    };
    Ok(Found::State(version, value))
}
