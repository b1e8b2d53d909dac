//! What can go wrong with derived classes, and what each error says.

use crate::error::{Error, Report, Shown};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};

/// What can go wrong; see [`DerivedError`'s `report`](Report::report) for the SQLSTATEs.
#[derive(Debug)]
pub enum DerivedError {
    /// The query cannot compute the documents of a class.
    Source {
        class: String,
        fault: String,
        hint: Option<&'static str>,
    },
    /// The expression of a watch cannot name keys.
    Keys {
        relation: String,
        fault: String,
        hint: Option<&'static str>,
    },
    /// A relation that nobody can watch.
    Unwatchable {
        relation: String,
        kind: &'static str,
    },
    /// A class of states is asked for what derived classes have, or the other way round.
    NotDerived { class: String },
    /// A class with states is to become a derived one.
    HasStates { class: String },
    /// Without an age L1 would serve the documents of a class for ever.
    NeedsAge { class: String, reason: String },
    /// The query gives more than one row.
    ManyRows { document: Shown },
    /// The query reads the document that it computes.
    Recursion { document: Shown },
    /// Documents have no versions.
    NoVersions { class: String },
    /// All documents of a class are asked for, and nobody knows their keys.
    KeysUnknown { class: String },
    /// A source that calls functions of users is to be run for nobody.
    Unattended { class: String },
    /// The class is no derived one any more.
    Redefined { class: String },
}

impl Report for DerivedError {
    fn report(self: Box<Self>) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        let hinted = |report: ErrorReport, hint: Option<&'static str>| match hint {
            Some(hint) => report.set_hint(hint),
            None => report,
        };
        match *self {
            Self::Source { class, fault, hint } => hinted(
                new(
                    Code::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("the source of class \"{class}\" {fault}"),
                ),
                hint,
            ),
            Self::Keys { relation, fault, hint } => hinted(
                new(
                    Code::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("the keys of a watch on {relation} {fault}"),
                ),
                hint,
            ),
            Self::Unwatchable { relation, kind } => new(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{relation} cannot be watched: it is {kind}"),
            )
            .set_hint("A class that reads it needs a cache_ttl."),
            Self::NotDerived { class } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("class \"{class}\" is not a derived class"),
            )
            .set_hint("Give it a source with state_class_define()."),
            Self::HasStates { class } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("class \"{class}\" has states"),
            )
            .set_hint("Delete its states first, or define the source for a class of another name."),
            Self::NeedsAge { class, reason } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("class \"{class}\" needs a cache_ttl: {reason}"),
            )
            .set_hint(
                "Define the class with a cache_ttl, watch what its source reads with state_watch(), and take the \
                 cache_ttl away then.",
            ),
            Self::ManyRows { document } => new(
                Code::ERRCODE_CARDINALITY_VIOLATION,
                format!("the source gives more than one row for \"{}\"", document),
            ),
            Self::Recursion { document } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the source of \"{}\" reads the document that it computes", document),
            ),
            Self::NoVersions { class } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("documents of class \"{class}\" are computed, and have no versions"),
            )
            .set_hint("Read the document, or listen on the channel of the class."),
            Self::KeysUnknown { class } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("nobody knows the keys of class \"{class}\", whose documents are computed"),
            )
            .set_hint("Name them: state_warm(class, keys => ...)."),
            Self::Unattended { class } => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("the worker does not run the source of class \"{class}\", which calls functions of users"),
            ),
            Self::Redefined { class } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("class \"{class}\" was redefined meanwhile"),
            )
            .set_hint("Retry the transaction."),
        }
    }
}

impl From<DerivedError> for Error {
    fn from(error: DerivedError) -> Self {
        Self::Capability(Box::new(error))
    }
}
