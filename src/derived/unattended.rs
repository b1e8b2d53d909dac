//! Sources that the worker runs, for nobody: to audit L1, and to fill it after a start.
//!
//! # Contract
//!
//! A source is a query of a user's, and the worker is a superuser. So that no user's code gets rights that he does
//! not have:
//!
//! - The source runs as `pg_read_all_data` in a security-restricted operation: a role that may read tables and change
//!   nothing, and that the code cannot leave.
//! - A source that calls a function which is neither the server's nor one of ours that read states is not run at all,
//!   on its own or within another one
//!   (`Definition::is_to_be_run`): so no code of a user's runs, not even with those rights. The
//!   views that a source reads count with what they call.
//! - What a source calls is looked at in the transaction that runs it, not remembered from an earlier one: from then
//!   on the relations and views are locked, and nobody can put another query under their names.
//! - What the source gives is compared, or kept in L1 for roles with privileges of their own to read it
//!   (`Definition::may_read`). It is shown to nobody.
//!
//! What is left: between the look and the run somebody with CREATE in a schema on the `search_path` of the class may
//! add a function or an operator that a query, if the server reads it anew at that moment, finds in place of another.
//! That one would run with the rights of `pg_read_all_data`, in a security-restricted operation.
//!
//! The result of a document of an exact class does not depend on the role that asks, so it serves all. A source that
//! fails is passed over: each runs in a subtransaction of its own.

use crate::error::Result;
use crate::identity::Impersonation;
use crate::subtransaction::survive_failure;
use std::cell::Cell;

thread_local! {
    static UNATTENDED: Cell<bool> = const { Cell::new(false) };
}

/// Sources are run for nobody as long as the value lives.
struct Unattended {
    _role: Impersonation,
}

impl Unattended {
    fn begin() -> Self {
        UNATTENDED.set(true);
        Self {
            _role: Impersonation::reader(),
        }
    }
}

impl Drop for Unattended {
    fn drop(&mut self) {
        UNATTENDED.set(false);
    }
}

/// Whether sources are run for nobody now.
pub fn is_unattended() -> bool {
    UNATTENDED.get()
}

/// Runs something that runs sources; the message of its error if it fails.
///
/// # Errors
/// What ends a whole statement is raised.
pub fn run<T>(f: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    survive_failure(|| {
        let _nobody = Unattended::begin();
        f()
    })
}
