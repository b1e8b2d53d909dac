//! Reading what lies beneath the staged changes of a state: what this transaction has flushed, else what is
//! committed.

use super::batch::with;
use super::known::{Content, Flushed};
use super::recovery;
use crate::cache::StateRef;
use crate::cache::forms::Head;
use crate::cache::found::{Form, Found, Ground, Reader, Version};
use crate::cache::tables::from_table;
use crate::error::Result;

/// Reads what lies beneath the staged changes of a state: what this transaction has flushed, else what is
/// committed.
pub fn read_beneath<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    let (deferred, own_rows) =
        with(|batch| -> Result<_> { Ok((batch.deferred(state)?, batch.has_own_rows(state)?)) })?;
    let Some(Flushed {
        version,
        expires_at,
        content:
            Content::Document {
                document,
                hash,
                storage,
            },
        ..
    }) = deferred
    else {
        return read_committed(state, Reader::Change, own_rows, form);
    };
    let version = Version {
        number: version,
        expires_at,
        hash,
        storage,
    };
    Ok(version.unless_expired(form.make(&document)?))
}

/// Reads what the cache or the tables have. Once this transaction has emptied the tables only they count: what
/// L1 holds beyond them goes with the commit.
pub fn read_committed<F: Form>(
    state: &StateRef<'_>,
    reader: Reader,
    own_rows: bool,
    form: &mut F,
) -> Result<Found<F::Output>> {
    if with(|batch| batch.by_hand.truncated()) {
        return from_table(state, form);
    }
    recovery::read(state, reader, own_rows, form)
}

/// What is committed now, for a change that has not read it.
pub fn committed_ground(state: &StateRef<'_>) -> Result<Ground> {
    Ok(read_beneath(state, &mut Head)?.ground())
}
