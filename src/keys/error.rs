//! What can go wrong with many keys, and what each error says.

use crate::cache::StateRef;
use crate::error::{Error, Report, Shown, text};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};

/// What can go wrong; see [`KeysError`'s `report`](Report::report) for the SQLSTATEs.
#[derive(Debug)]
pub(super) enum KeysError {
    /// Neither or both of a key and a prefix are given.
    KeyOrPrefix,
    /// `before` with a prefix: versions of several states have no order among them.
    BeforeOfMany,
    /// Neither or both of keys and a prefix are given.
    KeysOrPrefix,
    /// Versions to be erased are named, and how many are to stay.
    VersionsAndKeep,
    /// Versions to be erased are named, and not one key.
    VersionsOfMany,
    /// What is to be copied has a name that is taken.
    Exists { state: Shown },
    /// A run is to be copied.
    Run { state: Shown },
    /// No kept version of the state has the label.
    NoLabel { state: Shown, label: String },
}

impl KeysError {
    /// [`KeysError::Exists`].
    pub fn exists(state: &StateRef<'_>) -> Self {
        Self::Exists {
            state: state.shown(),
        }
    }

    /// [`KeysError::Run`].
    pub fn run(state: &StateRef<'_>) -> Self {
        Self::Run {
            state: state.shown(),
        }
    }

    /// [`KeysError::NoLabel`].
    pub fn no_label(state: &StateRef<'_>, label: &[u8]) -> Self {
        Self::NoLabel {
            state: state.shown(),
            label: text(label),
        }
    }
}

impl Report for KeysError {
    fn report(self: Box<Self>) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        match *self {
            Self::KeyOrPrefix => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "either a key or a prefix is needed, and not both".to_owned(),
            )
            .set_hint("prefix => '' means all states of the class."),
            Self::BeforeOfMany => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "before and before_label need a key".to_owned(),
            )
            .set_hint(
                "Versions of one state are compared with each other, those of several are not.",
            ),
            Self::KeysOrPrefix => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "either keys or a prefix is needed, and not both".to_owned(),
            )
            .set_hint("prefix => '' means all states of the class."),
            Self::VersionsAndKeep => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "versions and keep must not both be given".to_owned(),
            ),
            Self::VersionsOfMany => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "versions need one key".to_owned(),
            )
            .set_hint("A number means another version in each state."),
            Self::Exists { state } => new(
                Code::ERRCODE_UNIQUE_VIOLATION,
                format!("there is a state \"{state}\" already, or a log beside it"),
            )
            .set_hint("Nothing was copied. Choose another prefix, or erase what is there by state_purge()."),
            Self::Run { state } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("run \"{state}\" cannot be copied"),
            )
            .set_hint("state_context_create() makes a run, or a child of one."),
            Self::NoLabel { state, label } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("no kept version of state \"{state}\" has the label \"{label}\""),
            )
            .set_hint("state_list() with states => false lists labels."),
        }
    }
}

impl From<KeysError> for Error {
    fn from(error: KeysError) -> Self {
        Self::Capability(Box::new(error))
    }
}
