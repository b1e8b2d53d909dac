//! Reading for a caller what may be damaged.

use super::capability;
use crate::cache::StateRef;
use crate::cache::found::{Form, Found, Reader, Version};
use crate::cache::read;
use crate::error::{Error, Result, warn_recovered};
use crate::settings::{self, OnCorruption};
use crate::store;

/// Reads what the cache or the tables have. Where a caller would get a damaged version, and
/// `state_cache.on_corruption` says so, the answer is the newest intact version, with a warning.
pub fn read<F: Form>(
    state: &StateRef<'_>,
    reader: Reader,
    own_rows: bool,
    form: &mut F,
) -> Result<Found<F::Output>> {
    match read::read(state, reader, own_rows, form) {
        Err(Error::Damaged { version, fault, .. })
            if reader == Reader::Caller && settings::on_corruption() == OnCorruption::Recover =>
        {
            newest_intact(state, version, fault, form)
        }
        answer => answer,
    }
}

/// The newest intact version in place of a damaged one.
fn newest_intact<F: Form>(
    state: &StateRef<'_>,
    damaged: i64,
    fault: &'static str,
    form: &mut F,
) -> Result<Found<F::Output>> {
    let Some((number, kept)) = capability::newest_intact(state, damaged)? else {
        return Err(Error::Damaged {
            state: state.shown(),
            version: damaged,
            fault,
        });
    };
    warn_recovered(&state.shown(), damaged, fault, number);
    let head = store::target(&state.catalog, &state.class.name, state.key)?;
    let version = Version {
        number,
        expires_at: head.map_or(i64::MAX, |head| head.expires_at),
        hash: kept.hash,
        storage: kept.storage,
    };
    Ok(Found::State(version, form.make(&kept.document)?))
}
