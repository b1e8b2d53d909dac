//! What can go wrong.

use std::fmt;

/// Why a subscriber could not connect, read or go on.
#[derive(Debug)]
pub enum Error {
    /// The server, or the way to it, says so.
    Database(tokio_postgres::Error),
    /// LISTEN was accepted, but a notification did not arrive.
    NotDelivered,
    /// The server did not answer in time.
    NoAnswer,
    /// The connection ended.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => match error.as_db_error() {
                Some(error) => write!(f, "{} ({})", error.message(), error.code().code()),
                None => {
                    error.fmt(f)?;
                    match std::error::Error::source(error) {
                        Some(cause) => write!(f, ": {cause}"),
                        None => Ok(()),
                    }
                }
            },
            Self::NotDelivered => f.write_str(
                "notifications do not reach this connection, although LISTEN was accepted. Is there a proxy \
                 that pools transactions (pgbouncer with pool_mode = transaction)? Listeners need a direct \
                 connection or a pool of sessions",
            ),
            Self::NoAnswer => f.write_str("the server does not answer"),
            Self::Closed => f.write_str("the connection was closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(error) => Some(error),
            Self::NotDelivered | Self::NoAnswer | Self::Closed => None,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}
