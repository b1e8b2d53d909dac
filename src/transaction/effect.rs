//! What a flush has done: the effect on one state, and what callers are told of it.

use super::known::Bytes;
use crate::catalog::Class;
use crate::interval::Ttl;
use crate::store::Made;
use std::rc::Rc;
use strum::IntoStaticStr;

/// What a flush has done to one state.
pub enum Effect {
    Document {
        made: Made,
        document: Bytes,
        hash: u128,
        expires_at: i64,
        /// Version that it was made from; none after the end of a state.
        parent: Option<i64>,
    },
    Deleted {
        version: i64,
    },
    Touched {
        version: i64,
        expires_at: i64,
    },
    /// Not written: the version is deferred.
    Deferred {
        version: i64,
        document: Bytes,
        hash: u128,
        expires_at: i64,
        /// What becomes of the time to live that the state remembers.
        ttl: Ttl,
        /// Version of the tables' row beneath it, 0 for none.
        base: i64,
        /// The version that there was before it, 0 for none.
        before: i64,
        /// Whether it is a new version, and not only a new expiry.
        is_new: bool,
    },
    Nothing {
        version: i64,
    },
}

impl Effect {
    /// Whether there is a new version.
    pub fn is_new(&self) -> bool {
        match self {
            Self::Document { .. } | Self::Deleted { .. } => true,
            Self::Deferred { is_new, .. } => *is_new,
            Self::Touched { .. } | Self::Nothing { .. } => false,
        }
    }

    /// The version that there was before it, 0 for none.
    pub fn before(&self) -> i64 {
        match self {
            Self::Document { parent, .. } => parent.unwrap_or(0),
            Self::Deleted { version } => version - 1,
            Self::Touched { version, .. } | Self::Nothing { version } => *version,
            Self::Deferred { before, .. } => *before,
        }
    }

    /// Whether the version is the first of a state that had others before, and then was deleted or expired.
    pub fn starts_anew(&self) -> bool {
        matches!(self, Self::Document { made, parent: None, .. } if made.version > 1)
    }
}

/// What the flush made of a state.
pub struct Outcome {
    /// Its class.
    pub class: Rc<Class>,
    /// Its key.
    pub key: Rc<[u8]>,
    /// Whether a document was staged, and not only an end or a new expiry.
    pub was_document: bool,
    /// What was done.
    pub action: Action,
    /// Version that is current now; 0 if there is none.
    pub version: i64,
    /// Bytes of the document written.
    pub bytes: usize,
}

/// What the flush of one state came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// What was done.
    pub action: Action,
    /// Version that is current now; 0 if there is none.
    pub version: i64,
}

/// What was done, by the names that `state_batch_commit` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// A new version was written.
    Written,
    /// The state is stored like that already; at most its expiry changed.
    Unchanged,
    /// A tombstone was written.
    Deleted,
}
