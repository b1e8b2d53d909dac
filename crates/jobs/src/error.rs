//! What can be wrong with the document of a job, and with a change of it.

use core::fmt;
use state_cache_document::DocumentError;
use state_cache_memory::OutOfMemory;

/// Why a change of a job's document cannot be made, or a document is not that of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobShape {
    /// There is no such job.
    Missing,
    /// There is one already.
    Exists,
    /// The job was cancelled: it takes no more tasks.
    Cancelled,
    /// Tasks that the change did not see have come to the job, which is to be cancelled whole.
    Joined {
        /// How many of them have not ended.
        open: i64,
    },
    /// A count would be below zero: the document does not say how many tasks there are.
    Miscounted,
    /// A field is not what it must be.
    Field {
        /// The field.
        field: &'static str,
        /// What it must be.
        must_be: &'static str,
    },
    /// The document cannot be read or built.
    Document(DocumentError),
}

impl From<DocumentError> for JobShape {
    fn from(error: DocumentError) -> Self {
        Self::Document(error)
    }
}

impl From<OutOfMemory> for JobShape {
    fn from(refused: OutOfMemory) -> Self {
        Self::Document(DocumentError::OutOfMemory(refused))
    }
}

impl fmt::Display for JobShape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => out.write_str("there is no such job"),
            Self::Exists => out.write_str("there is such a job"),
            Self::Cancelled => out.write_str("the job was cancelled"),
            Self::Joined { open } => write!(out, "{open} tasks were added meanwhile"),
            Self::Miscounted => out.write_str("summary does not say how many tasks there are"),
            Self::Field { field, must_be } => write!(out, "{field} must be {must_be}"),
            Self::Document(error) => write!(out, "{error:?}"),
        }
    }
}
