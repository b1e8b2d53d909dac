//! Work in a subtransaction of its own, so that the caller goes on where it fails: what PostgreSQL itself may refuse,
//! repairing one state of many.

use crate::error::{Result, sqlstate, utf8_text};
use crate::sys;
use pgrx::pg_sys::{self, panic::CaughtError};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::panic::AssertUnwindSafe;

/// What PostgreSQL says of data that it cannot read: the message of its error.
pub type Damage = String;

/// Runs something in a subtransaction of its own. If PostgreSQL finds damaged data there, what it has done is
/// rolled back and the message is the answer; any other error (a cancelled query, no memory) goes on to the caller.
/// A parallel query has no subtransactions: there every error goes on.
pub fn survive_damage<T>(f: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Damage>> {
    survive(f, damage)
}

/// What PostgreSQL does not do with the data it is given.
pub struct Refused;

/// The same for errors that PostgreSQL raises for the data it is given: a data exception, a syntax error, something
/// that is not there or not supported. Nothing is known of them but that: their messages show the data.
pub fn survive_refusal<T>(
    f: impl FnOnce() -> Result<T>,
) -> Result<std::result::Result<T, Refused>> {
    survive(f, refusal)
}

fn survive<T, E>(
    f: impl FnOnce() -> Result<T>,
    sort: impl FnOnce(&CaughtError) -> Option<E>,
) -> Result<std::result::Result<T, E>> {
    if sys::is_in_parallel_mode() {
        return f().map(Ok);
    }
    match attempt(f) {
        Ok(Ok(value)) => Ok(Ok(value)),
        Ok(Err(error)) => Err(error),
        Err(error) => match sort(&error) {
            Some(expected) => Ok(Err(expected)),
            None => error.rethrow(),
        },
    }
}

/// Runs something in a subtransaction of its own. If it fails, what it has done is rolled back and the message of the
/// error is the answer, except where the whole statement is to end: it is cancelled, the server needs the session
/// gone, or something has run out.
pub fn survive_failure<T>(f: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    // An error of ours is raised inside, so that it is reported as any other.
    let outcome = attempt(|| match f() {
        Ok(value) => Ok(value),
        Err(error) => error.raise(),
    });
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => error.raise(),
        Err(error) => match failure(&error) {
            Some(message) => Err(message),
            None => error.rethrow(),
        },
    }
}

/// Runs something in a subtransaction, which commits if it gives something and is rolled back if it gives nothing:
/// the row locks that it has taken are gone then. Errors go on to the caller.
pub fn kept_if_some<T>(f: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
    let subtransaction = Subtransaction::begin();
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(f())))
        .catch_others(|error| Err(Box::new(error)))
        .execute();
    match &outcome {
        Ok(Ok(Some(_))) => subtransaction.commit(),
        Ok(Ok(None) | Err(_)) | Err(_) => subtransaction.roll_back(),
    }
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => error.rethrow(),
    }
}

/// Runs something in a subtransaction, which commits if it succeeds and is rolled back if not.
fn attempt<T>(f: impl FnOnce() -> Result<T>) -> std::result::Result<Result<T>, Box<CaughtError>> {
    let subtransaction = Subtransaction::begin();
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(f())))
        .catch_others(|error| Err(Box::new(error)))
        .execute();
    // Before anything else: who catches the error further out rolls back the innermost one.
    match &outcome {
        Ok(Ok(_)) => subtransaction.commit(),
        Ok(Err(_)) | Err(_) => subtransaction.roll_back(),
    }
    outcome
}

/// The message of an error that concerns the work at hand only.
fn failure(error: &CaughtError) -> Option<String> {
    /// Classes of SQLSTATEs: insufficient resources, operator intervention, system error.
    const ENDING: [&str; 3] = ["53", "57", "58"];
    let (CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) = error else {
        return None;
    };
    let code = sqlstate(report.sql_error_code());
    let is_ending = ENDING.iter().any(|class| code.starts_with(class));
    (!is_ending).then(|| utf8_text(format!("{code}: {}", report.message())))
}

/// The message of an error that speaks of damaged data.
fn damage(error: &CaughtError) -> Option<Damage> {
    /// How messages begin that PostgreSQL has no SQLSTATE of its own for. They are never translated.
    const INTERNAL: [&str; 6] = [
        "missing chunk number",
        "unexpected chunk",
        "found toasted toast chunk",
        "invalid compression method id",
        // A length, or the table of a value stored out of line, that is none.
        "invalid memory alloc request size",
        "could not open relation with OID",
    ];
    let CaughtError::PostgresError(report) = error else {
        return None;
    };
    let message = report.message();
    let is_damage = match report.sql_error_code() {
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED | PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED => true,
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR => {
            INTERNAL.iter().any(|start| message.starts_with(start))
        }
        _ => false,
    };
    is_damage.then(|| message.to_owned())
}

/// Whether an error is of a class of SQLSTATEs that speak of the data.
fn refusal(error: &CaughtError) -> Option<Refused> {
    /// Two characters of six bits each, the first in the lowest, counted from "0": as the server packs them.
    const fn class(name: [u8; 2]) -> i32 {
        (name[0] - b'0') as i32 | ((name[1] - b'0') as i32) << 6
    }
    const CLASSES: [i32; 3] = [class(*b"22"), class(*b"42"), class(*b"0A")];
    let CaughtError::PostgresError(report) = error else {
        return None;
    };
    let code = report.sql_error_code() as i32;
    CLASSES.contains(&(code & 0xFFF)).then_some(Refused)
}

/// A subtransaction that ends by the call of one of its methods, in the memory context and with the resources of
/// whoever began it.
struct Subtransaction {
    context: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
}

impl Subtransaction {
    fn begin() -> Self {
        // SAFETY: as PL/pgSQL does for a block with an exception handler; we are inside a transaction.
        unsafe {
            let begun = Self {
                context: pg_sys::CurrentMemoryContext,
                owner: pg_sys::CurrentResourceOwner,
            };
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(begun.context);
            begun
        }
    }

    fn commit(self) {
        // SAFETY: the innermost one is ours: what runs in it ends what it begins.
        unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        self.go_back();
    }

    fn roll_back(self) {
        // SAFETY: as above; also those are rolled back that the error has left open.
        unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() };
        self.go_back();
    }

    fn go_back(self) {
        // SAFETY: both outlive the subtransaction.
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.context);
            pg_sys::CurrentResourceOwner = self.owner;
        }
    }
}
