//! Running what may fail, in a process that goes on afterwards.

use crate::error::{Error, Result, sqlstate};
use crate::{memory, sys};
use pgrx::pg_sys::{self, panic::CaughtError};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::cell::Cell;
use std::panic::AssertUnwindSafe;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// The extension's tables are gone.
    pub not_installed: bool,
}

impl Failure {
    /// Whether a statement named a table that is not there.
    pub fn is_undefined_table(&self) -> bool {
        self.code == sqlstate(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.code, self.message)
    }
}

/// Runs something outside a transaction that runs its own. Whatever it fails with (an error of ours or of
/// the server, a panic) ends in a [`Failure`], and what it left open is closed, as the server does after the
/// error of a statement.
pub fn guarded<T>(f: impl FnOnce() -> Result<T>) -> std::result::Result<T, Failure> {
    let not_installed = Cell::new(false);
    // SAFETY: a plain global of this process; outside a transaction the context outlives what is run.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| match memory::guarded(f) {
        Ok(value) => Ok(value),
        Err(error) => {
            not_installed.set(matches!(error, Error::NotInstalled | Error::Reinstalled));
            error.raise()
        }
    }))
    .catch_others(|error| {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic {
            ereport: report, ..
        }) = error;
        Err(Failure {
            code: sqlstate(report.sql_error_code()),
            message: report.message().to_owned(),
            not_installed: false,
        })
    })
    .execute();
    outcome.map_err(|failure| {
        clean_up(context);
        Failure {
            not_installed: not_installed.get(),
            ..failure
        }
    })
}

fn clean_up(context: pg_sys::MemoryContext) {
    sys::disable_all_timeouts();
    // SAFETY: what the server's own processes do after an error, outside of it.
    unsafe {
        pg_sys::QueryCancelPending = 0;
        pg_sys::LWLockReleaseAll();
        pg_sys::ConditionVariableCancelSleep();
        pg_sys::AbortCurrentTransaction();
        pg_sys::MemoryContextSwitchTo(context);
    }
}
