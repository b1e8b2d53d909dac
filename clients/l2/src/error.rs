//! What can go wrong.

use core::fmt;
use std::time::Duration;

/// What can go wrong. What passes by itself is tried again; see [`Error::is_fatal`].
#[derive(Debug)]
pub enum Error {
    /// The configuration makes no sense.
    Configuration(String),
    /// PostgreSQL, or the way there.
    Postgres(tokio_postgres::Error),
    /// Redis, or the way there.
    Redis(redis::RedisError),
    /// One of the two did not answer.
    NoAnswer(&'static str, Duration),
    /// Notifications do not arrive: a proxy that pools transactions, or another database.
    NotDelivered,
    /// The connection that listens has ended.
    Closed,
    /// The server is a standby, which has no LISTEN.
    Standby,
    /// The prefix belongs to another database.
    Foreign {
        /// The prefix.
        prefix: String,
        /// Whose it is.
        owner: String,
        /// Who we are.
        own: String,
    },
    /// The prefix is of another format.
    Format(String),
    /// Redis is another process than before, and may have lost what it had taken.
    RedisRestarted,
    /// Another feeder has begun another generation, or Redis was set back.
    Overtaken,
    /// The process was stopped between reading and writing, for so long that what it has read may be old.
    Late(Duration),
    /// Redis answers what no script answers.
    Nonsense(String),
    /// A task has ended by a bug.
    Panicked,
    /// The port for /metrics cannot be opened.
    Listen(std::io::Error),
}

impl Error {
    /// Whether trying again is of no use.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Configuration(_) | Self::Foreign { .. } | Self::Format(_) | Self::Listen(_)
        )
    }

    /// Which part of the machinery it concerns, for metrics.
    pub fn side(&self) -> &'static str {
        match self {
            Self::Postgres(_) | Self::NotDelivered | Self::Closed | Self::Standby => "postgres",
            Self::Redis(_) | Self::RedisRestarted | Self::Nonsense(_) => "redis",
            Self::NoAnswer(side, _) => side,
            _ => "feeder",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(what) => write!(f, "configuration: {what}"),
            Self::Postgres(error) => match error.as_db_error() {
                Some(said) => write!(f, "PostgreSQL: {} {}", said.code().code(), said.message()),
                None => write!(f, "PostgreSQL: {error}"),
            },
            Self::Redis(error) => write!(f, "Redis: {error}"),
            Self::NoAnswer(side, after) => write!(f, "no answer from {side} after {after:?}"),
            Self::NotDelivered => f.write_str(
                "notifications do not arrive: both connections must lead to the primary, and through no proxy that \
                 pools transactions",
            ),
            Self::Closed => f.write_str("the connection that listens has ended"),
            Self::Standby => f.write_str("the server is a standby: name several hosts, with target_session_attrs"),
            Self::Foreign { prefix, owner, own } => write!(
                f,
                "the prefix \"{prefix}\" belongs to another database, {owner} (system identifier, database, schema); \
                 this one is {own}: choose another prefix, or delete the key \"{prefix}{{meta}}\""
            ),
            Self::Format(format) => write!(f, "the prefix is of format {format}, which this program does not know"),
            Self::RedisRestarted => f.write_str("Redis was restarted, or another node has taken over"),
            Self::Overtaken => f.write_str("another feeder has begun a generation, or Redis was set back"),
            Self::Late(after) => write!(f, "what was read {after:?} ago is not written: the process was stopped"),
            Self::Nonsense(answer) => write!(f, "Redis answers {answer}"),
            Self::Panicked => f.write_str("a task has ended by a bug"),
            Self::Listen(error) => write!(f, "the address for /metrics: {error}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        Self::Redis(error)
    }
}
