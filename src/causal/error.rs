//! What can go wrong with causal reads, and what each error says.

use crate::error::{Error, Report, Shown};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};
use std::time::Duration;

/// What can go wrong; see [`CausalError`'s `report`](Report::report) for the SQLSTATEs.
#[derive(Debug)]
pub(super) enum CausalError {
    /// A standby does not show the version yet (0: there is no state), and the time is over.
    Late {
        state: Shown,
        wanted: i64,
        found: i64,
        time: Duration,
    },
    /// A primary does not have the version.
    NotHere {
        state: Shown,
        wanted: i64,
        found: i64,
    },
    /// The transaction's only snapshot does not show the version.
    OldSnapshot {
        state: Shown,
        wanted: i64,
        found: i64,
    },
    /// The transaction's only snapshot may not show what the cursor speaks of.
    SnapshotBeforeCursor,
    /// The cursor is of no history that this server goes on with.
    ForeignCursor { reason: &'static str },
    /// In a parallel query, which takes no snapshot of its own.
    Parallel { state: Shown, wanted: i64 },
    /// A standby has not replayed what the cursor speaks of, and the time is over.
    CursorLate {
        wanted: u64,
        replayed: u64,
        time: Duration,
    },
}

/// A place in the WAL as PostgreSQL writes it.
fn place(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)
}

fn at(found: i64) -> String {
    match found {
        0 => "It is absent here, and no version of it is known.".to_owned(),
        found => format!("It is at version {found} here."),
    }
}

impl Report for CausalError {
    fn report(self: Box<Self>) -> ErrorReport {
        use PgSqlErrorCode as Code;
        const LAG: &str =
            "The standby lags behind, or its replay is paused. The timeout may be longer.";
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        match *self {
            Self::Late {
                state,
                wanted,
                found,
                time,
            } => new(
                Code::ERRCODE_QUERY_CANCELED,
                format!(
                    "state \"{state}\" did not reach version {wanted} here within {} ms",
                    time.as_millis()
                ),
            )
            .set_detail(at(found))
            .set_hint(LAG),
            Self::NotHere {
                state,
                wanted,
                found,
            } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("state \"{state}\" has no version {wanted} here"),
            )
            .set_detail(at(found))
            .set_hint(
                "Whoever was to write the version has not committed, or the version was lost with another primary. \
                 Read the state again and retry the transaction.",
            ),
            Self::OldSnapshot {
                state,
                wanted,
                found,
            } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("the snapshot of this transaction does not show version {wanted} of state \"{state}\""),
            )
            .set_detail(match found {
                0 => "It shows no version.".to_owned(),
                found => format!("It shows version {found}."),
            })
            .set_hint("Retry the transaction, or wait at READ COMMITTED before it."),
            Self::SnapshotBeforeCursor => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "the snapshot of this transaction may be older than the cursor".to_owned(),
            )
            .set_hint("Retry the transaction, or wait at READ COMMITTED before it."),
            Self::ForeignCursor { reason } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "this server cannot tell what the cursor speaks of".to_owned(),
            )
            .set_detail(reason.to_owned())
            .set_hint("Take a new cursor with state_cursor(), or read on the primary."),
            Self::Parallel { state, wanted } => new(
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("a parallel query cannot wait for version {wanted} of state \"{state}\""),
            )
            .set_hint("Call state_wait() before the query."),
            Self::CursorLate {
                wanted,
                replayed,
                time,
            } => new(
                Code::ERRCODE_QUERY_CANCELED,
                format!(
                    "what the cursor speaks of was not replayed here within {} ms",
                    time.as_millis()
                ),
            )
            .set_detail(format!(
                "It reaches up to {}; replay is at {}.",
                place(wanted),
                place(replayed)
            ))
            .set_hint(LAG),
        }
    }
}

impl From<CausalError> for Error {
    fn from(error: CausalError) -> Self {
        Self::Capability(Box::new(error))
    }
}
