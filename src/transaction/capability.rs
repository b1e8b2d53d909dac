//! How the rooms above take part in a transaction without being named here.
//!
//! A capability implements the methods that concern it and is named once, in `lib.rs`. All of them are called where
//! errors may still abort the transaction; no callback after the commit record calls any.

use super::by_hand::{Bucket, Untraced};
use crate::cache::StateRef;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::Kept;
use std::sync::OnceLock;

/// What a capability adds to a transaction.
pub trait Capability: Sync {
    /// Called when the delete of a state is staged, and again by the flush that deletes the state, as the role that
    /// has staged the delete. May read, and lock rows.
    ///
    /// # Errors
    /// Refuses the delete.
    fn check_may_delete(&self, _state: &StateRef<'_>) -> Result<()> {
        Ok(())
    }

    /// Called by the flush of a state that the transaction writes under the claim with this token (`fence`), before
    /// the state is written. May read, and lock rows.
    ///
    /// # Errors
    /// Refuses the write: the claim is no longer the current one.
    fn check_fence(&self, _state: &StateRef<'_>, _token: i64) -> Result<()> {
        Ok(())
    }

    /// Called by a flush, once for each state that the flush has deleted. May write rows of the capability's own.
    ///
    /// # Errors
    /// Abort the transaction.
    fn after_delete(&self, _catalog: &Catalog, _class: &[u8], _key: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Called once by a commit: after the last flush, before the marks are raised. May write rows of the capability's
    /// own; nothing can be staged any more. `untraced` is what was changed by hand in a way that no head row shows;
    /// `floors` are the highest versions of head rows that are gone, in the order in which all lock them.
    ///
    /// # Errors
    /// Abort the transaction.
    fn before_marks(
        &self,
        _catalog: &Catalog,
        _untraced: &Untraced,
        _floors: &[(Bucket, i64)],
    ) -> Result<()> {
        Ok(())
    }

    /// Called by a read whose version is damaged: the newest intact version below `damaged` that the active snapshot
    /// sees, with its number. May read.
    ///
    /// # Errors
    /// Those of reading.
    fn newest_intact(&self, _state: &StateRef<'_>, _damaged: i64) -> Result<Option<(i64, Kept)>> {
        Ok(None)
    }
}

static ALL: OnceLock<&'static [&'static dyn Capability]> = OnceLock::new();

/// Makes these the capabilities of this process. Called once, when the library is loaded.
pub fn register(capabilities: &'static [&'static dyn Capability]) {
    ALL.get_or_init(|| capabilities);
}

/// The capabilities.
pub fn all() -> &'static [&'static dyn Capability] {
    ALL.get().copied().unwrap_or_default()
}

/// Asks all capabilities whether a state may be deleted.
///
/// # Errors
/// As [`Capability::check_may_delete`].
pub fn check_may_delete(state: &StateRef<'_>) -> Result<()> {
    all()
        .iter()
        .try_for_each(|capability| capability.check_may_delete(state))
}

/// The newest intact version below a damaged one, of the first capability that knows one.
///
/// # Errors
/// As [`Capability::newest_intact`].
pub fn newest_intact(state: &StateRef<'_>, damaged: i64) -> Result<Option<(i64, Kept)>> {
    for capability in all() {
        if let Some(found) = capability.newest_intact(state, damaged)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
