//! What can go wrong, by SQLSTATE.

use std::fmt;
use std::sync::Arc;

/// What the server says when it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The SQLSTATE.
    pub code: String,
    /// The message, which names the value at fault.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What may help.
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ". {detail}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, " {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a call failed. Clones are cheap: those who wait for the same read get the same error.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// 40001: the state moved, or another transaction was faster. Nothing of the transaction is kept.
    Conflict(Arc<Refusal>),
    /// 40P01: a deadlock. Nothing of the transaction is kept.
    Deadlock(Arc<Refusal>),
    /// 22023, 22000 and the like (class 22): an argument or a document that is none.
    BadArgument(Arc<Refusal>),
    /// 2203A: the section, or what the path names, is missing.
    Missing(Arc<Refusal>),
    /// 2203C, 22039: what is there is no object, or no array.
    OtherShape(Arc<Refusal>),
    /// 42704: no such class, run, job or version.
    Unknown(Arc<Refusal>),
    /// 42710, 23505: it is there already.
    Exists(Arc<Refusal>),
    /// 42501: a privilege is missing.
    Forbidden(Arc<Refusal>),
    /// 25006: the server, or the transaction, only reads.
    ReadOnly(Arc<Refusal>),
    /// 54000: a document or a batch that is too large.
    TooLarge(Arc<Refusal>),
    /// 53400: a limit leaves no room.
    NoRoom(Arc<Refusal>),
    /// 55000, 55006: not in the state in which this could be done.
    NotNow(Arc<Refusal>),
    /// 55P03: somebody else holds it.
    Held(Arc<Refusal>),
    /// 57014: it took too long, or was cancelled.
    Cancelled(Arc<Refusal>),
    /// XX001: what is stored is damaged.
    Damaged(Arc<Refusal>),
    /// Any other SQLSTATE.
    Refused(Arc<Refusal>),
    /// The way to the server: it could not be reached, or the connection ended.
    Connection(Arc<tokio_postgres::Error>),
    /// The connection ended while COMMIT was under way: nobody knows yet whether the transaction is kept.
    /// Never tried again by the client.
    CommitUnknown(Arc<tokio_postgres::Error>),
    /// LISTEN was accepted, but a notification did not arrive.
    NotDelivered,
    /// The server, or the pool of connections, did not answer in time.
    NoAnswer,
    /// The connection ended.
    Closed,
    /// A document that is not of the type asked for, or a value that is no JSON.
    Document(Arc<serde_json::Error>),
    /// A transaction that was used after its end.
    TransactionOver,
    /// The state has not come to the version that was asked for; it is in the second one.
    NotYet {
        /// The version asked for.
        wanted: i64,
        /// The version that there is, 0 for none.
        found: i64,
    },
    /// The builder was given what makes no sense.
    Configuration(String),
}

impl Error {
    /// The SQLSTATE, where the server has refused.
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.code.as_str())
    }

    /// What the server said, where the server has refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Conflict(it)
            | Self::Deadlock(it)
            | Self::BadArgument(it)
            | Self::Missing(it)
            | Self::OtherShape(it)
            | Self::Unknown(it)
            | Self::Exists(it)
            | Self::Forbidden(it)
            | Self::ReadOnly(it)
            | Self::TooLarge(it)
            | Self::NoRoom(it)
            | Self::NotNow(it)
            | Self::Held(it)
            | Self::Cancelled(it)
            | Self::Damaged(it)
            | Self::Refused(it) => Some(it),
            _ => None,
        }
    }

    /// Whether nothing was kept and the same transaction may succeed when it is run again from its first read.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::Deadlock(_))
    }

    /// Whether the way to the server is at fault, not what was asked.
    pub(crate) fn is_of_the_way(&self) -> bool {
        let going_down = |refusal: &Arc<Refusal>| {
            // Shutting down, starting up, no more connections: another attempt meets another server.
            refusal.code.starts_with("57P")
                || refusal.code.starts_with("08")
                || refusal.code == "53300"
        };
        match self {
            Self::Connection(_) | Self::Closed | Self::NoAnswer => true,
            Self::Refused(refusal) => going_down(refusal),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(refusal) = self.refusal() {
            return fmt::Display::fmt(refusal, f);
        }
        match self {
            Self::Connection(error) => way(f, error),
            Self::CommitUnknown(error) => {
                f.write_str("the connection ended during COMMIT, so the transaction may be kept or not: ")?;
                way(f, error)
            }
            Self::NotDelivered => f.write_str(
                "notifications do not reach this connection, although LISTEN was accepted. Is there a proxy \
                 that pools transactions (pgbouncer with pool_mode = transaction)? Listeners need a direct \
                 connection or a pool of sessions",
            ),
            Self::NoAnswer => f.write_str("the server does not answer"),
            Self::Document(error) => write!(f, "the document is not of the type asked for: {error}"),
            Self::TransactionOver => f.write_str("the transaction is over"),
            Self::NotYet { wanted, found } => write!(f, "version {wanted} is not there, version {found} is"),
            Self::Configuration(what) => f.write_str(what),
            _ => f.write_str("the connection was closed"),
        }
    }
}

/// An error of the driver with its cause, which the driver's own text leaves out.
fn way(f: &mut fmt::Formatter<'_>, error: &tokio_postgres::Error) -> fmt::Result {
    fmt::Display::fmt(error, f)?;
    match std::error::Error::source(error) {
        Some(cause) => write!(f, ": {cause}"),
        None => Ok(()),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) | Self::CommitUnknown(error) => Some(&**error),
            Self::Document(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind: fn(Arc<Refusal>) -> Self = match refusal.code.as_str() {
            "40001" => Self::Conflict,
            "40P01" => Self::Deadlock,
            "2203A" => Self::Missing,
            "2203C" | "22039" => Self::OtherShape,
            "42704" => Self::Unknown,
            "42710" | "23505" => Self::Exists,
            "42501" => Self::Forbidden,
            "25006" => Self::ReadOnly,
            "54000" => Self::TooLarge,
            "53400" => Self::NoRoom,
            "55000" | "55006" => Self::NotNow,
            "55P03" => Self::Held,
            "57014" => Self::Cancelled,
            "XX001" => Self::Damaged,
            code if code.starts_with("22") => Self::BadArgument,
            _ => Self::Refused,
        };
        kind(Arc::new(refusal))
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refused) => Refusal {
                code: refused.code().code().to_owned(),
                message: refused.message().to_owned(),
                detail: refused.detail().map(str::to_owned),
                hint: refused.hint().map(str::to_owned),
            }
            .into(),
            None => Self::Connection(Arc::new(error)),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            deadpool_postgres::PoolError::Closed => Self::Closed,
            _ => Self::NoAnswer,
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Document(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_is_a_kind_of_its_own() {
        let kind = |code: &str| {
            Error::from(Refusal {
                code: code.to_owned(),
                message: "m".to_owned(),
                detail: None,
                hint: None,
            })
        };
        assert!(matches!(kind("40001"), Error::Conflict(_)));
        assert!(matches!(kind("40P01"), Error::Deadlock(_)));
        assert!(matches!(kind("22P02"), Error::BadArgument(_)));
        assert!(matches!(kind("2203A"), Error::Missing(_)));
        assert!(matches!(kind("99999"), Error::Refused(_)));
        assert!(kind("40001").is_retryable() && kind("40P01").is_retryable());
        assert!(!kind("22023").is_retryable() && !kind("57P01").is_retryable());
        assert!(kind("57P01").is_of_the_way() && !kind("40001").is_of_the_way());
        assert_eq!(kind("42704").code(), Some("42704"));
    }
}
