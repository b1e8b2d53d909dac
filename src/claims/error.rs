//! What can go wrong with claims, and what each error says.

use crate::context::Holder;
use crate::error::{Error, Report, Shown};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};

/// How a claim was lost.
#[derive(Debug)]
pub(super) enum Loss {
    /// Another has claimed the state.
    Taken(Holder),
    /// It was released, or there never was one.
    Released,
}

/// What can go wrong; see [`ClaimsError`'s `report`](Report::report) for the SQLSTATEs.
#[derive(Debug)]
pub(super) enum ClaimsError {
    /// Somebody else owns the state.
    Claimed {
        state: Shown,
        holder: Option<Holder>,
    },
    /// A token is not that of the current claim.
    Lost {
        state: Shown,
        token: i64,
        loss: Loss,
    },
}

impl Report for ClaimsError {
    fn report(self: Box<Self>) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        match *self {
            Self::Claimed { state, holder } => {
                let report = new(
                    Code::ERRCODE_LOCK_NOT_AVAILABLE,
                    format!("state \"{state}\" is claimed by another owner"),
                );
                match holder {
                    Some(holder) => {
                        report.set_detail(holder.detail(&format!("State \"{state}\"")))
                    }
                    None => report,
                }
                .set_hint("It can be claimed when the lease is over or released.")
            }
            Self::Lost { state, token, loss } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("token {token} does not own state \"{state}\" any more"),
            )
            .set_detail(match loss {
                Loss::Taken(holder) => holder.detail(&format!("State \"{state}\"")),
                Loss::Released => format!("Nobody owns state \"{state}\" now."),
            })
            .set_hint(
                "Do not repeat the write: stop, or claim the state again and read what has become of it.",
            ),
        }
    }
}

impl From<ClaimsError> for Error {
    fn from(error: ClaimsError) -> Self {
        Self::Capability(Box::new(error))
    }
}
