//! The transaction in which write-behind works: what write-behind tells that transaction, and asks it.

use crate::cache::publish::Settlement;
use crate::catalog::{Catalog, Class};
use crate::error::{Error, Result};
use std::rc::Rc;
use std::sync::OnceLock;

/// What a transaction knows, and what it does at its end.
pub trait Caller: Sync {
    /// The highest version of the head rows that the transaction has deleted by hand in the state's bucket, 0 for none.
    fn floor(&self, class: &[u8], key: &[u8]) -> i64;

    /// Notes a version that only L1 held of a state whose head row the transaction deletes by hand.
    ///
    /// # Errors
    /// `53200`.
    fn raise_floor(&self, class: &Class, key: &[u8], version: i64) -> Result<()>;

    /// Notes that a state was changed in the tables past what is staged: a change by hand for all that follows.
    ///
    /// # Errors
    /// `53200`.
    fn note_by_hand(&self, catalog: &Rc<Catalog>, class: &Class, key: &[u8]) -> Result<()>;

    /// Notes that the transaction has written a dirty entry back: what becomes of the entry when it commits.
    ///
    /// # Errors
    /// `53200`.
    fn note_written_back(&self, entry: Settlement) -> Result<()>;
}

static CALLER: OnceLock<&'static dyn Caller> = OnceLock::new();

/// Says who asks, for this process. Called when the library is loaded.
pub fn init(caller: &'static dyn Caller) {
    let _ = CALLER.set(caller);
}

/// Who asks.
pub(super) fn caller() -> Result<&'static dyn Caller> {
    CALLER.get().copied().ok_or_else(|| Error::Internal {
        message: "no transaction is known to write-behind".to_owned(),
    })
}
