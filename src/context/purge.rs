//! What lies beside runs goes with them when they are purged.
//!
//! # Contract
//!
//! Whoever calls this has purged the runs, holds their head rows, and calls nothing else of this room after it. So
//! no run of these gets a new conflict, an export or a child until the transaction ends. What may still happen
//! meanwhile: somebody decides about a conflict of another run, to which one of these has given a value, and opens
//! others of its variable anew, with that value. So the rows are erased in rounds, each of which waits for those
//! who have locked a row, until a snapshot taken after a round shows none. Nobody opens a conflict anew whose row a
//! round has changed, since that takes the lock of the row.
//!
//! A conflict that another run waits for keeps its row without the value: the document of that run names the row, and
//! `state_conflict_resolve()` can decide without the value.

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::{store, sys};
use pgrx::pg_sys;

/// More than those who decide about one conflict after the other need: a trigger of a user may keep rows.
const ROUNDS: usize = 100;

/// Erases conflicts, exports and what children were given, of runs that this transaction has purged.
///
/// # Errors
/// `40001` where rows are left: the transaction goes by a snapshot that does not show all of them.
pub fn purge_beside(catalog: &Catalog, runs: &[Box<[u8]>]) -> Result<()> {
    if runs.is_empty() {
        return Ok(());
    }
    let _owner = Impersonation::owner_of(catalog.context);
    for _ in 0..ROUNDS {
        pgrx::check_for_interrupts!();
        store::erase_beside_runs(catalog, runs)?;
        // SAFETY: we are inside a transaction that may write, so not in parallel mode.
        unsafe { pg_sys::CommandCounterIncrement() };
        let _snapshot = PushedSnapshot::latest();
        if !store::is_left_beside_runs(catalog, runs)? {
            return Ok(());
        }
        if sys::isolation_uses_transaction_snapshot() {
            break;
        }
    }
    Err(Error::ConcurrentUpdate)
}
