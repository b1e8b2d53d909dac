//! What can go wrong with runs, and what each error says.

use crate::error::{Report, out_of_memory, utf8_text};
use crate::sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};
use state_cache_context::{Counter, Destination, Label, Problem, Sensitivity, ShapeError, Status};
use state_cache_document::DocumentError;

/// Children, variables or the like that a message names at most.
const NAMED: usize = 10;

/// Who owns a run.
#[derive(Debug)]
pub struct Holder {
    /// The owner.
    pub owner: String,
    /// The token of the claim.
    pub token: i64,
    /// Until when, in microseconds since 2000.
    pub expires_at: i64,
}

/// How a claim was lost.
#[derive(Debug)]
pub enum Loss {
    /// Another has claimed the run.
    Taken(Holder),
    /// It was released.
    Released,
    /// The run has ended.
    Ended(Status),
    /// There is no such run any more.
    Gone,
}

/// What can go wrong; see [`ContextError`'s `report`](Report::report) for the SQLSTATEs.
#[derive(Debug)]
pub enum ContextError {
    /// There is no such run.
    Unknown { run: String },
    /// There is one already.
    Duplicate { run: String },
    /// The document is not that of a run.
    Shape { run: String, error: ShapeError },
    /// The run has ended.
    Ended { run: String, status: Status },
    /// Children have not: these, and so many that the role does not see.
    ChildrenRunning {
        run: String,
        children: Vec<String>,
        hidden: usize,
    },
    /// A child that is to be deleted has not ended.
    ChildRuns { run: String },
    /// The run's document says that it has a parent, but it was not created there.
    NoPlace { run: String },
    /// The run's document names another parent than it was created under.
    OtherParent { run: String, parent: Option<String> },
    /// A root is to be merged, or something the like.
    NoParent { run: String },
    /// A run that would be too far from its root.
    TooDeep { run: String, limit: i32 },
    /// A run that has as many children as it may.
    TooManyChildren { run: String, limit: i64 },
    /// A permission that the parent has not.
    Permission { parent: String, permission: String },
    /// A variable that must not change.
    Immutable { run: String, variable: String },
    /// A variable that waits for a decision.
    Blocked {
        run: String,
        variable: String,
        conflict: i64,
    },
    /// A run that is to be completed has variables that wait for a decision.
    Undecided { run: String, variables: Vec<String> },
    /// More than is left.
    Limit {
        run: String,
        counter: Counter,
        /// What was asked for, what the limit is, and what is left of it, as numbers.
        asked: String,
        limit: String,
        left: String,
    },
    /// A child's limit that is above its parent's.
    AboveParent {
        run: String,
        limit: &'static str,
        asked: String,
        most: String,
    },
    /// The token is not, or not any more, that of the claim on a run that runs.
    Lost { run: String, token: i64, loss: Loss },
    /// A page is to begin behind a run that is not there.
    NoPage { run: String },
    /// Somebody else owns the run.
    Claimed { run: String, holder: Option<Holder> },
    /// An export that is more sensitive than its destination takes.
    Sensitive {
        run: String,
        key: String,
        sensitivity: Sensitivity,
        destination: Destination,
        limit: Sensitivity,
    },
    /// An export that cannot be made.
    Export {
        run: String,
        key: String,
        problem: String,
    },
    /// There is no such conflict.
    UnknownConflict { id: i64 },
    /// A conflict that is not open any more, or whose variable has changed since.
    StaleConflict { id: i64, reason: String },
    /// A version of a former run of the same id, to which a run is to go back.
    FormerRun { run: String, version: i64 },
    /// What the child started from is not kept any more.
    BaseLost { run: String, version: i64 },
    /// There is an item of that key already.
    DuplicateItem { swarm: String, item: String },
    /// There is none.
    UnknownItem { swarm: String, item: String },
    /// The document is not that of a swarm.
    SwarmShape { swarm: String, error: ShapeError },
}

impl From<ContextError> for crate::error::Error {
    fn from(error: ContextError) -> Self {
        Self::Capability(Box::new(error))
    }
}

/// Names in a message, not too many of them.
fn list(names: &[String]) -> String {
    let shown: Vec<_> = names
        .iter()
        .take(NAMED)
        .map(|name| format!("\"{name}\""))
        .collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl Holder {
    /// Who owns what.
    pub fn detail(&self, what: &str) -> String {
        format!(
            "{what} is owned by \"{}\" with token {} until {}.",
            self.owner,
            self.token,
            sys::timestamp_text(self.expires_at)
        )
    }
}

impl Report for ContextError {
    fn is_end_of(&self, name: &str) -> bool {
        matches!(self, Self::Unknown { run } | Self::Ended { run, .. } if run == name)
    }

    fn report(self: Box<Self>) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        match *self {
            Self::Shape { error, .. } | Self::SwarmShape { error, .. }
                if let Problem::Document(DocumentError::OutOfMemory(refused)) = error.problem =>
            {
                out_of_memory(refused)
            }
            Self::Unknown { run } => {
                new(Code::ERRCODE_UNDEFINED_OBJECT, format!("run \"{run}\" does not exist"))
            }
            Self::Duplicate { run } => {
                new(Code::ERRCODE_DUPLICATE_OBJECT, format!("run \"{run}\" exists already"))
            }
            Self::Shape { run, error } => new(
                Code::ERRCODE_DATA_EXCEPTION,
                format!("state \"run/{run}\" is not the document of a run: {}", utf8_text(error.to_string())),
            )
            .set_hint("Nothing was changed. state_set() or state_recover() can put the document right."),
            Self::Ended { run, status } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("run \"{run}\" has ended: it is {}", status.name()),
            ),
            Self::ChildrenRunning { run, children, hidden } => new(
                Code::ERRCODE_OBJECT_IN_USE,
                format!("run \"{run}\" has children that have not ended"),
            )
            .set_detail(match (children.is_empty(), hidden) {
                (false, 0) => format!("Running: {}.", list(&children)),
                (false, _) => format!("Running: {}, and {hidden} hidden from this role.", list(&children)),
                (true, _) => format!("{hidden} are running that are hidden from this role."),
            })
            .set_hint("Complete them first, with outcome cancelled if they are not wanted."),
            Self::ChildRuns { run } => new(
                Code::ERRCODE_OBJECT_IN_USE,
                format!("run \"{run}\" is a child that has not ended"),
            )
            .set_hint("Complete it first, with outcome cancelled if it is not wanted: its parent gets back what it \
                was allotted."),
            Self::NoPlace { run } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("run \"{run}\" has a parent in its document, but was not created as its child"),
            )
            .set_hint("state_context_child() creates children. One that was deleted and restored has lost its \
                place."),
            Self::OtherParent { run, parent } => new(
                Code::ERRCODE_DATA_EXCEPTION,
                format!("state \"run/{run}\" is not the document of a run: field \"parentRunId\" is not the parent \
                    that it was created under"),
            )
            .set_detail(match parent {
                Some(parent) => format!("It was created as a child of \"{parent}\"."),
                None => "It was created as a root.".to_owned(),
            }),
            Self::NoParent { run } => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("run \"{run}\" is a root: it has no parent to be merged into"),
            ),
            Self::TooDeep { run, limit } => new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("run \"{run}\" would be more than {limit} steps away from its root"),
            )
            .set_hint("state_cache.max_context_depth sets the limit."),
            Self::TooManyChildren { run, limit } => new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("run \"{run}\" has {limit} children already"),
            )
            .set_hint("state_cache.max_context_children sets the limit; children that have ended count until they \
                are deleted."),
            Self::Permission { parent, permission } => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission \"{permission}\" is not one of run \"{parent}\""),
            )
            .set_hint("A child has no more permissions than its parent."),
            Self::Immutable { run, variable } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("variable \"{variable}\" of run \"{run}\" is not mutable"),
            ),
            Self::Blocked { run, variable, conflict } => new(
                Code::ERRCODE_OBJECT_IN_USE,
                format!("variable \"{variable}\" of run \"{run}\" waits for conflict {conflict} to be resolved"),
            )
            .set_hint("state_conflict shows both values, state_conflict_resolve() decides. If it is decided \
                already, the document was set back by hand: take it out of \"conflicts\" with state_update()."),
            Self::Undecided { run, variables } => new(
                Code::ERRCODE_OBJECT_IN_USE,
                format!("run \"{run}\" has conflicts that are not resolved"),
            )
            .set_detail(format!("Variables: {}.", list(&variables)))
            .set_hint("state_conflict shows the values, state_conflict_resolve() decides."),
            Self::Limit { run, counter, asked, limit, left } => new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("run \"{run}\" has not so many {} left", counter.name()),
            )
            .set_detail(format!("{asked} asked for, {left} left of {limit}."))
            .set_hint("What running children were allotted counts until they end."),
            Self::AboveParent { run, limit, asked, most } => new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("resource limit \"{limit}\" of run \"{run}\" would be above that of its parent"),
            )
            .set_detail(format!("{asked} asked for, the parent has {most}.")),
            Self::Lost { run, token, loss } => {
                let detail = match &loss {
                    Loss::Taken(holder) => holder.detail(&format!("Run \"{run}\"")),
                    Loss::Released => format!("Nobody owns run \"{run}\" now."),
                    Loss::Ended(status) => format!("Run \"{run}\" has ended: it is {}.", status.name()),
                    Loss::Gone => format!("Run \"{run}\" does not exist any more."),
                };
                new(
                    Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                    format!("token {token} does not own run \"{run}\" any more"),
                )
                .set_detail(detail)
                .set_hint(match loss {
                    Loss::Taken(_) | Loss::Released => {
                        "Do not repeat the write: stop, or claim the run again and read what has become of it."
                    }
                    Loss::Ended(_) | Loss::Gone => "Do not repeat the write: stop.",
                })
            }
            Self::NoPage { run } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("run \"{run}\", behind which the page is to begin, does not exist"),
            )
            .set_hint("Begin again without it. In a transaction at REPEATABLE READ the pages are of one moment."),
            Self::Claimed { run, holder } => {
                let report = new(
                    Code::ERRCODE_LOCK_NOT_AVAILABLE,
                    format!("run \"{run}\" is claimed by another owner"),
                );
                match holder {
                    Some(holder) => report.set_detail(holder.detail(&format!("Run \"{run}\""))),
                    None => report,
                }
                .set_hint("It can be claimed when the lease is over or released.")
            }
            Self::Sensitive { run, key, sensitivity, destination, limit } => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!(
                    "export \"{key}\" of run \"{run}\" is {}: {} takes nothing above {}",
                    sensitivity.name(),
                    destination.name(),
                    limit.name()
                ),
            )
            .set_hint("The settings state_cache.*_sensitivity set the limits of the destinations; \
                state_context_unmark_export() takes an export back."),
            Self::Export { run, key, problem } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("export \"{key}\" of run \"{run}\" {problem}"),
            )
            .set_hint("state_context_unmark_export() takes it back."),
            Self::UnknownConflict { id } => {
                new(Code::ERRCODE_UNDEFINED_OBJECT, format!("conflict {id} does not exist"))
            }
            Self::StaleConflict { id, reason } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("conflict {id} cannot be resolved any more"),
            )
            .set_detail(reason),
            Self::FormerRun { run, version } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("version {version} is that of a former run \"{run}\""),
            )
            .set_hint("A run goes back to its own versions. state_at() shows the former run's."),
            Self::BaseLost { run, version } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("version {version} of state \"run/{run}\", which a merge compares with, is not kept any \
                    more"),
            )
            .set_hint("Set the parent's variables with state_context_set()."),
            Self::DuplicateItem { swarm, item } => new(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("the blackboard of swarm \"{swarm}\" has an item \"{item}\" already"),
            )
            .set_hint("state_blackboard_update() changes it."),
            Self::UnknownItem { swarm, item } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("the blackboard of swarm \"{swarm}\" has no item \"{item}\""),
            )
            .set_hint("state_blackboard_add() adds it."),
            Self::SwarmShape { swarm, error } => new(
                Code::ERRCODE_DATA_EXCEPTION,
                format!("state \"swarm/{swarm}\" is not the document of a swarm: {}", utf8_text(error.to_string())),
            )
            .set_hint("Nothing was changed. state_set() or state_recover() can put the document right."),
        }
    }
}
