//! The one error type: each variant knows its SQLSTATE, names the value at fault, and gives a hint
//! where one helps. The SQLSTATEs are part of the contract; callers match on them.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, function_name};
use state_cache_document::DocumentError;
use state_cache_memory::OutOfMemory;

/// Shorthand for everything that may end in an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error that a capability adds to those of [`Error`]: the capability knows its SQLSTATE, text and hint.
pub trait Report: std::fmt::Debug {
    /// The error as PostgreSQL reports it.
    fn report(self: Box<Self>) -> ErrorReport;

    /// Whether it says that what has this name is gone, or has ended.
    fn is_end_of(&self, _name: &str) -> bool {
        false
    }
}

/// A class and a key as error messages show them: `run/order-7`.
#[derive(Debug, Clone)]
pub struct Shown(String);

impl Shown {
    /// The name of the state `key` of `class`; bytes that are no UTF-8 are replaced.
    pub fn new(class: &[u8], key: &[u8]) -> Self {
        Self(format!("{}/{}", text(class), text(key)))
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// Bytes in server encoding as a message can show them: a message is UTF-8 here, so in a database of
/// another encoding what is not ASCII shows as escaped bytes.
///
/// Names have at most 255 bytes. What is longer is a user's argument, of any length, and is cut: a message must not
/// take more memory than there is for it.
pub fn text(bytes: &[u8]) -> String {
    match bytes.len() {
        ..=MOST_SHOWN => whole_text(bytes),
        _ => format!(
            "{}...",
            whole_text(crate::encoding::front(bytes, MOST_SHOWN))
        ),
    }
}

/// The most bytes of a text that a message shows.
const MOST_SHOWN: usize = 1000;

fn whole_text(bytes: &[u8]) -> String {
    if crate::sys::database_is_utf8() {
        String::from_utf8_lossy(bytes).into_owned()
    } else {
        bytes.escape_ascii().to_string()
    }
}

/// Text in UTF-8 as a message can show it; see [`text`].
pub fn utf8_text(text: String) -> String {
    match crate::sys::database_is_utf8() || text.is_ascii() {
        true => text,
        false => text.as_bytes().escape_ascii().to_string(),
    }
}

/// The first so many bytes as a message can show them, and no part of a character.
pub fn front_text(bytes: &[u8], most: usize) -> String {
    text(crate::encoding::front(bytes, most))
}

/// The five characters of an SQLSTATE, which are six bits each, the first one lowest.
pub fn sqlstate(code: PgSqlErrorCode) -> String {
    (0..5)
        .map(|n| char::from((code as u32 >> (6 * n) & 0x3f) as u8 + b'0'))
        .collect()
}

/// Warns that a state was left as it was found, while others are repaired.
pub fn warn_not_repaired(state: &Shown, failure: &str) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("state \"{}\" could not be repaired", state.0),
        function_name!(),
    )
    .set_detail(failure.to_owned())
    .report(PgLogLevel::WARNING);
}

/// Tells a reader that the version it is given could not be written to the tables so far.
pub fn warn_unwritten(state: &Shown, version: i64) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!(
            "version {version} of state \"{}\" could not be written to the tables so far",
            state.0
        ),
        function_name!(),
    )
    .set_detail("A crash of the server would lose it.")
    .set_hint(
        "The view state_cache_workers shows the error; whoever changes the state next gets it.",
    )
    .report(PgLogLevel::WARNING);
}

/// Warns that a function that ends a batch was called where there can be none.
pub fn warn_no_block(function: &'static str) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_NO_ACTIVE_SQL_TRANSACTION,
        format!("{function} has nothing to do outside a transaction block"),
        function_name!(),
    )
    .set_hint("A batch lasts until its transaction ends.")
    .report(PgLogLevel::WARNING);
}

/// Tells that there was nothing to drop.
pub fn notice_nothing_staged() {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        "no batch is open and nothing is staged by this role",
        function_name!(),
    )
    .report(PgLogLevel::NOTICE);
}

/// Says, in the server's log and to the caller, that a version is lost that was acknowledged and that the tables have
/// never held.
pub fn warn_lost(state: &Shown, version: i64) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!(
            "version {version} of state \"{}\" is lost: it was damaged in shared memory before it was written",
            state.0
        ),
        function_name!(),
    )
    .set_detail("What the tables hold is the newest version that is left.")
    .set_hint("Look for defects of the memory or of other extensions, and write the state anew.")
    .report(PgLogLevel::WARNING);
}

/// Warns that a read was answered with an earlier version than the current one, which is damaged.
pub fn warn_recovered(state: &Shown, damaged: i64, fault: &str, answered: i64) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!(
            "state \"{}\" is damaged in version {damaged}, answered with version {answered}",
            state.0
        ),
        function_name!(),
    )
    .set_detail(fault.to_owned())
    .set_hint("state_recover() with kind resume makes it current.")
    .report(PgLogLevel::WARNING);
}

/// Warns that nothing was pruned of a state, since a version that needs what would go is damaged.
pub fn warn_not_pruned(state: &Shown, version: i64, fault: &str) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!(
            "state \"{}\" is not pruned: its version {version} is damaged",
            state.0
        ),
        function_name!(),
    )
    .set_detail(fault.to_owned())
    .set_hint("state_verify() with repair puts damaged versions aside.")
    .report(PgLogLevel::WARNING);
}

/// What can go wrong; see [`Error::raise`] for the SQLSTATEs.
#[derive(Debug)]
pub enum Error {
    /// The state is not in the version that the caller relied on (0: absent).
    Conflict {
        state: Shown,
        expected: i64,
        found: i64,
    },
    /// This transaction itself has moved the state on from the version that the caller relies on (0: absent).
    ChangedHere {
        state: Shown,
        expected: i64,
        found: i64,
    },
    /// `state_batch_begin` inside an explicit batch.
    NestedBatch,
    /// The same in code that a security-restricted operation runs, such as REFRESH MATERIALIZED VIEW.
    RestrictedBatch,
    /// A function that is of no use outside a transaction block.
    NoBlock { function: &'static str },
    /// A change after the transaction's changes were flushed for the last time.
    TooLateToChange { state: Shown },
    /// There is no such class.
    UnknownClass { class: String },
    /// The operation does not fit the document.
    Document {
        state: Shown,
        place: String,
        error: DocumentError,
    },
    /// An argument that makes no sense.
    Argument {
        message: String,
        hint: Option<&'static str>,
    },
    /// The document is over `state_cache.max_state_size`; both in bytes.
    TooLarge {
        state: Shown,
        size: usize,
        limit: usize,
    },
    /// An explicit batch holds more bytes of documents than it may.
    BatchTooLarge { state: Shown, limit: usize },
    /// In an explicit batch, a state staged by one role is read or changed by another.
    StagedByOther { state: Shown },
    /// The caller lacks a privilege on a table.
    Privilege {
        table: &'static str,
        wanted: &'static str,
    },
    /// There is a state of that name, but row-level security keeps the caller from changing it.
    Hidden { state: Shown },
    /// A trigger or rule on the tables keeps the change from being written.
    Swallowed { state: Shown },
    /// The same for `state_class`.
    ClassSwallowed,
    /// A class cannot be in L2.
    NotInL2 {
        class: String,
        fault: &'static str,
        hint: &'static str,
    },
    /// A row made by hand that the extension could not have written.
    Check { fault: &'static str },
    /// A role under row-level security asks for entries of L1.
    RowSecurity,
    /// A cursor from which the changes are not known any more, or never were here.
    StaleCursor { reason: &'static str },
    /// What is stored is not what was written.
    Damaged {
        state: Shown,
        version: i64,
        fault: &'static str,
    },
    /// A snapshot that another one builds upon is deleted or changed by hand.
    Needed { state: Shown, version: i64, by: i64 },
    /// A role under row-level security wants to prune or repair: it does not see all that counts.
    PartialView,
    /// Row-level security hides versions of a state of which the caller wants all.
    HiddenVersions { state: Shown },
    /// A version that somebody names is not kept, or never was.
    VersionNotKept { state: Shown, version: i64 },
    /// A kept version of the state has the label that a new one is to have, and its class wants labels to be unique.
    LabelTaken { state: Shown, label: String },
    /// A version is to be erased that the next merge of a run compares with.
    VersionMerged { state: Shown, version: i64 },
    /// There is no intact version to go back to; so many are kept.
    NothingToRecover { state: Shown, kept: usize },
    /// A name that is not one of those known.
    UnknownLabel {
        what: &'static str,
        name: String,
        known: String,
    },
    /// A name that is not one of those that a class knows, and the argument of `state_class_define()` that lists
    /// them.
    UnknownClassLabel {
        what: &'static str,
        name: String,
        known: String,
        class: String,
        argument: &'static str,
    },
    /// The extension's tables are not where its functions are.
    NotInstalled,
    /// The extension is installed in a version that this library does not work with.
    OtherVersion {
        installed: String,
        library: &'static str,
        oldest: &'static str,
        newer: bool,
    },
    /// A snapshot of this transaction asks for a staged value that is no longer kept.
    SnapshotTooOld { state: Shown },
    /// A change of a document that is computed.
    Computed { state: Shown },
    /// Access from a parallel worker, which cannot see what the leader has staged.
    ParallelWorker,
    /// A change on a standby.
    Standby { function: String },
    /// PREPARE TRANSACTION after changes.
    Prepare,
    /// The extension was dropped and created again while the transaction ran.
    Reinstalled,
    /// Another transaction has written the state, and its head row is gone again.
    Raced { state: Shown },
    /// A row has changed that the transaction's only snapshot still sees as it was.
    ConcurrentUpdate,
    /// The same of a row that is gone.
    ConcurrentDelete,
    /// Each time that the state was to be written, others had made it, and it was gone when they were done.
    LostTooOften { state: Shown, attempts: u32 },
    /// The statement that is to replace a locked head row does not find it.
    Stuck { state: Shown, version: i64 },
    /// A class became a `behind` class while the transaction was writing one of its states through.
    ClassRedefined { class: String },
    /// There is no memory.
    OutOfMemory(OutOfMemory),
    /// An error of a capability.
    Capability(Box<dyn Report>),
    /// The server interface answered in a way it should not.
    Internal { message: String },
}

impl Error {
    /// A bad argument without a hint.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::Argument {
            message: message.into(),
            hint: None,
        }
    }

    /// An argument that must not be NULL.
    pub fn null_argument(name: &str) -> Self {
        Self::argument(format!("{name} must not be null"))
    }

    fn report(self) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        match self {
            Self::Conflict { state, expected, found } => {
                let detail = match (found, expected) {
                    (0, expected) => format!("It is absent; version {expected} was expected."),
                    (found, 0) => format!("It is at version {found}; it was expected to be absent."),
                    (found, expected) if found == expected => {
                        format!("It is at version {found} still, but its document was changed by hand.")
                    }
                    (found, expected) => format!("It is at version {found}; version {expected} was expected."),
                };
                new(
                    Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                    format!("state \"{}\" is not at the expected version", state.0),
                )
                .set_detail(detail)
                .set_hint("Read the state again and retry the transaction.")
            }
            Self::ChangedHere { state, expected, found } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("state \"{}\" was changed by this transaction itself", state.0),
            )
            .set_detail(match (expected, found) {
                (0, found) => format!("It was absent before; for this transaction it is at version {found}."),
                (expected, 0) => format!("It was at version {expected} before; for this transaction it is absent."),
                (expected, found) => {
                    format!("It was at version {expected} before; for this transaction it is at version {found}.")
                }
            })
            .set_hint("The first change has checked the version: leave expected_version out, or expect what \
                state_version() says."),
            Self::RestrictedBatch => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "cannot begin a batch within security-restricted operation".to_owned(),
            ),
            Self::NoBlock { function } => new(
                Code::ERRCODE_NO_ACTIVE_SQL_TRANSACTION,
                format!("{function} can only be used in transaction blocks"),
            )
            .set_hint("It lasts until the transaction ends, which here is the end of the statement: begin with \
                BEGIN."),
            Self::NestedBatch => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "a batch is already open in this transaction".to_owned(),
            )
            .set_hint("End it with state_batch_commit() or state_batch_rollback() first."),
            Self::TooLateToChange { state } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot change state \"{}\" while the transaction commits", state.0),
            ),
            Self::UnknownClass { class } => {
                new(Code::ERRCODE_UNDEFINED_OBJECT, format!("class \"{class}\" does not exist"))
                    .set_hint("Create it with state_class_define().")
            }
            Self::Document { state, place, error } => document_report(&state.0, &place, &error),
            Self::Argument { message, hint } => {
                let report = new(Code::ERRCODE_INVALID_PARAMETER_VALUE, message);
                match hint {
                    Some(hint) => report.set_hint(hint),
                    None => report,
                }
            }
            Self::TooLarge { state, size, limit } => new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("state \"{}\" is too large: {size} bytes, the limit is {limit}", state.0),
            )
            .set_hint("Split the state, or raise state_cache.max_state_size."),
            Self::BatchTooLarge { state, limit } => new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the batch is too large for state \"{}\": it may hold {limit} bytes", state.0),
            )
            .set_hint("Call state_batch_commit() in between."),
            Self::StagedByOther { state } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("another role has staged a change of state \"{}\" in this batch", state.0),
            )
            .set_hint("Call state_batch_commit() before the role changes."),
            Self::Privilege { table, wanted } => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for table {table}"),
            )
            .set_detail(format!("{wanted} is needed.")),
            Self::Hidden { state } => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("row-level security forbids changing state \"{}\"", state.0),
            ),
            Self::Swallowed { state } => new(
                Code::ERRCODE_TRIGGERED_ACTION_EXCEPTION,
                format!("a trigger or rule on the tables keeps state \"{}\" from being written", state.0),
            )
            .set_hint("Raise an error in the trigger instead of returning NULL."),
            Self::ClassSwallowed => new(
                Code::ERRCODE_TRIGGERED_ACTION_EXCEPTION,
                "a trigger or rule on state_class keeps the class from being written".to_owned(),
            ),
            Self::NotInL2 { class, fault, hint } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("class \"{class}\" cannot be in L2: {fault}"),
            )
            .set_hint(hint),
            Self::Check { fault } => new(Code::ERRCODE_CHECK_VIOLATION, fault.to_owned()),
            Self::RowSecurity => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "L1 cannot be listed or searched under row-level security".to_owned(),
            )
            .set_hint("Read the view state_current instead."),
            Self::StaleCursor { reason } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the changes since this cursor are not known".to_owned(),
            )
            .set_detail(reason.to_owned())
            .set_hint("Drop what is held and call state_changes(NULL)."),
            Self::Damaged { state, version, fault } => new(
                Code::ERRCODE_DATA_CORRUPTED,
                format!("state \"{}\" is damaged in version {version}: {fault}", state.0),
            )
            .set_hint("state_recover() goes back to an intact version; without one restore it from a backup or \
                write it anew."),
            Self::Needed { state, version, by } => new(
                Code::ERRCODE_FOREIGN_KEY_VIOLATION,
                format!(
                    "version {version} of state \"{}\" is needed by version {by}, which is stored as the difference \
                        from it",
                    state.0
                ),
            )
            .set_hint("state_prune() deletes snapshots and stores anew what builds upon them."),
            Self::PartialView => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "snapshots cannot be pruned, recovered or made of differences by hand under row-level \
                    security".to_owned(),
            )
            .set_hint("Have a role do it that sees all rows, such as the owner of the tables."),
            Self::HiddenVersions { state } => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("row-level security keeps versions of state \"{}\" from the caller", state.0),
            )
            .set_hint("Have a role do it that sees all rows, such as the owner of the tables."),
            Self::VersionNotKept { state, version } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("version {version} of state \"{}\" is not kept", state.0),
            )
            .set_hint("state_history() lists the versions that are."),
            Self::LabelTaken { state, label } => new(
                Code::ERRCODE_UNIQUE_VIOLATION,
                format!("a version of state \"{}\" has the label \"{label}\" already", state.0),
            )
            .set_hint("The class is defined with unique_labels."),
            Self::VersionMerged { state, version } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the next merge of run \"{}\" compares with version {version}", state.0),
            )
            .set_hint("Complete the run, or erase the whole state."),
            Self::NothingToRecover { state, kept: 0 } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("no version of state \"{}\" is kept", state.0),
            ),
            Self::NothingToRecover { state, kept } => new(
                Code::ERRCODE_DATA_CORRUPTED,
                format!("none of the {kept} kept versions of state \"{}\" is intact", state.0),
            )
            .set_hint("Restore it from a backup or write it anew."),
            Self::UnknownLabel { what, name, known } => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{what} \"{name}\" is not known"),
            )
            .set_hint(format!("Known here: {known}.")),
            Self::UnknownClassLabel {
                what,
                name,
                known,
                class,
                argument,
            } => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{what} \"{name}\" is not known"),
            )
            .set_hint(format!(
                "Class \"{class}\" knows: {known}. state_class_define(class, {argument} => ...) replaces the list: \
                    name all of it."
            )),
            Self::Computed { state } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{}\" is computed by a query, and cannot be changed", state.0),
            )
            .set_hint("Change the tables that the source of the class reads."),
            Self::NotInstalled => new(
                Code::ERRCODE_UNDEFINED_TABLE,
                "the tables of extension state_cache are missing".to_owned(),
            )
            .set_hint("Run CREATE EXTENSION state_cache in this database; if the tables were renamed, name them \
                back."),
            Self::OtherVersion { installed, library, oldest, newer } => {
                let hint = match newer {
                    true => format!(
                        "Install the library of state_cache {installed} or a later one, and restart the server."
                    ),
                    false => "Run ALTER EXTENSION state_cache UPDATE in this database.".to_owned(),
                };
                new(
                    Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "extension state_cache is installed in version {installed}, and the library is of \
                            version {library}"
                    ),
                )
                .set_detail(format!(
                    "This library works with what versions {oldest} to {library} have installed."
                ))
                .set_hint(hint)
            }
            Self::SnapshotTooOld { state } => new(
                Code::ERRCODE_SNAPSHOT_TOO_OLD,
                format!("an earlier staged value of state \"{}\" is no longer kept", state.0),
            )
            .set_hint("Read the cursor to its end before changing the state so often, or call state_batch_commit() \
                in between."),
            Self::ParallelWorker => new(
                Code::ERRCODE_INVALID_TRANSACTION_STATE,
                "cannot access states from a parallel worker".to_owned(),
            )
            .set_hint("Label the function that calls this one PARALLEL RESTRICTED or UNSAFE."),
            Self::Prepare => new(
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                "cannot PREPARE a transaction that has changed or invalidated states".to_owned(),
            ),
            Self::Reinstalled => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "the tables of extension state_cache were replaced by another transaction".to_owned(),
            )
            .set_hint("Retry the transaction."),
            Self::Raced { state } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("state \"{}\" was written by another transaction", state.0),
            )
            .set_hint("Retry the transaction."),
            // In the server's words.
            Self::ConcurrentUpdate => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent update".to_owned(),
            ),
            Self::ConcurrentDelete => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent delete".to_owned(),
            ),
            Self::LostTooOften { state, attempts } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("other transactions were faster to write state \"{}\", {attempts} times in a row", state.0),
            )
            .set_detail("Each time they have made the state and then deleted its row.")
            .set_hint("Retry the transaction."),
            Self::Stuck { state, version } => new(
                Code::ERRCODE_INTERNAL_ERROR,
                format!("state \"{}\" cannot be written, though its row is locked", state.0),
            )
            .set_detail(format!("Nobody else has changed version {version} of it meanwhile.")),
            Self::ClassRedefined { class } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("class \"{class}\" was redefined by another transaction"),
            )
            .set_hint("Retry the transaction."),
            Self::Standby { function } => new(
                Code::ERRCODE_READ_ONLY_SQL_TRANSACTION,
                format!("cannot execute {function} during recovery"),
            )
            .set_hint("This server is a standby. States are changed on its primary, which libpq finds by \
                target_session_attrs=primary."),
            Self::OutOfMemory(refused) => out_of_memory(refused),
            Self::Capability(error) => error.report(),
            Self::Internal { message } => new(Code::ERRCODE_INTERNAL_ERROR, message),
        }
    }

    /// Ends the statement with this error.
    pub fn raise(self) -> ! {
        // Building the report takes memory, also where that is what is missing.
        crate::reserve::give_back();
        self.report().report(PgLogLevel::ERROR);
        unreachable!("a report at level ERROR does not return")
    }
}

impl From<OutOfMemory> for Error {
    fn from(refused: OutOfMemory) -> Self {
        Self::OutOfMemory(refused)
    }
}

/// As PostgreSQL says it.
pub fn out_of_memory(refused: OutOfMemory) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "out of memory",
        function_name!(),
    )
    .set_detail(format!("Failed on request of size {}.", refused.size))
}

/// SQLSTATEs of SQL/JSON where they fit, as `jsonb`'s own path functions use them.
fn document_report(state: &str, place: &str, error: &DocumentError) -> ErrorReport {
    use PgSqlErrorCode as Code;
    let new = |code, message: String| ErrorReport::new(code, message, function_name!());
    match error {
        DocumentError::NotAnObject => new(
            Code::ERRCODE_SQL_JSON_OBJECT_NOT_FOUND,
            format!("state \"{state}\" is not an object"),
        )
        .set_hint("Replace it with state_set()."),
        DocumentError::UpdatesNotObject => new(
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            "updates must be an object".to_owned(),
        ),
        DocumentError::SectionMissing => new(
            Code::ERRCODE_SQL_JSON_MEMBER_NOT_FOUND,
            format!("state \"{state}\" has no section \"{place}\""),
        )
        .set_hint("state_update() creates a section."),
        DocumentError::SectionNotObject => new(
            Code::ERRCODE_SQL_JSON_OBJECT_NOT_FOUND,
            format!("section \"{place}\" of state \"{state}\" is not an object"),
        ),
        DocumentError::PathMissing => new(
            Code::ERRCODE_SQL_JSON_MEMBER_NOT_FOUND,
            format!("state \"{state}\" has nothing at path {place}"),
        )
        .set_hint("Create the array first, with state_set() or state_update()."),
        DocumentError::PathNotArray => new(
            Code::ERRCODE_SQL_JSON_ARRAY_NOT_FOUND,
            format!("state \"{state}\" has no array at path {place}"),
        ),
        DocumentError::NotAnArray => new(
            Code::ERRCODE_SQL_JSON_ARRAY_NOT_FOUND,
            format!("state \"{state}\" is not an array"),
        ),
        DocumentError::TooLarge => new(
            Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("state \"{state}\" would exceed the size of a jsonb value"),
        ),
        DocumentError::Damaged => new(
            Code::ERRCODE_DATA_CORRUPTED,
            format!("state \"{state}\" is no well-formed document"),
        ),
        DocumentError::OutOfMemory(refused) => out_of_memory(*refused),
    }
}
