//! How the rooms above take part in a transaction without being named here.
//!
//! A capability implements the methods that concern it and is named once, in `lib.rs`. All of them are called where
//! errors may still abort the transaction; no callback after the commit record calls any.

use super::by_hand::{Bucket, ChangedByHand, Untraced};
use super::operation::Operation;
use crate::cache::StateRef;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::{Checkpoint, Kept};
use std::sync::OnceLock;

/// What a capability wants of the version that a flush writes.
#[derive(Default)]
pub struct Wanted {
    /// What is to be said of the version, where its writer says nothing.
    pub checkpoint: Option<Checkpoint>,
    /// When the state is to expire, `i64::MAX` for never; `None` leaves that to the change.
    pub expires_at: Option<i64>,
}

/// What a capability adds to a transaction.
pub trait Capability: Sync {
    /// Called before the whole document of a state is replaced by a caller's.
    ///
    /// # Errors
    /// Refuses the change.
    fn check_may_replace(&self, _state: &StateRef<'_>) -> Result<()> {
        Ok(())
    }

    /// Called before an operation of a caller's is staged; what is to be staged in its place.
    ///
    /// # Errors
    /// Refuses the change.
    fn prepare(&self, _state: &StateRef<'_>, operation: Operation) -> Result<Operation> {
        Ok(operation)
    }

    /// Called by the flush of a document, before the document is written; what is wanted of the version, if anything.
    /// May not read.
    ///
    /// # Errors
    /// Abort the transaction.
    fn wanted(&self, _state: &StateRef<'_>, _document: &[u8]) -> Result<Option<Wanted>> {
        Ok(None)
    }

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

    /// Called once by a commit of a transaction that has changed states by hand, before the marks are raised. May
    /// write rows of the capability's own; nothing can be staged any more.
    ///
    /// # Errors
    /// Abort the transaction.
    fn after_changes_by_hand(&self, _catalog: &Catalog, _changed: &ChangedByHand) -> Result<()> {
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

/// Asks all capabilities whether the document of a state may be replaced.
///
/// # Errors
/// As [`Capability::check_may_replace`].
pub fn check_may_replace(state: &StateRef<'_>) -> Result<()> {
    all()
        .iter()
        .try_for_each(|capability| capability.check_may_replace(state))
}

/// What is to be staged in place of an operation of a caller's.
///
/// # Errors
/// As [`Capability::prepare`].
pub fn prepare(state: &StateRef<'_>, operation: Operation) -> Result<Operation> {
    all().iter().try_fold(operation, |operation, capability| {
        capability.prepare(state, operation)
    })
}

/// What is wanted of a version that is to be written, by the first capability that wants something.
///
/// # Errors
/// As [`Capability::wanted`].
pub fn wanted(state: &StateRef<'_>, document: &[u8]) -> Result<Wanted> {
    for capability in all() {
        if let Some(wanted) = capability.wanted(state, document)? {
            return Ok(wanted);
        }
    }
    Ok(Wanted::default())
}
