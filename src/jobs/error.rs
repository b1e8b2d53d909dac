//! What can go wrong with jobs, and what each error says.

use crate::error::{Error, Report, Shown, out_of_memory, text, utf8_text};
use crate::sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};
use state_cache_document::DocumentError;
use state_cache_jobs::{JobShape, Malformed, Status};

/// Tasks that a message names at most.
const NAMED: usize = 10;

/// What can go wrong; see [`JobError`'s `report`](Report::report) for the SQLSTATEs.
#[derive(Debug)]
pub enum JobError {
    /// There is no such job.
    Unknown { job: String },
    /// There is one already.
    Duplicate { job: String },
    /// Somebody works on tasks of the former job of that name.
    Former { job: String },
    /// Tasks that a job is to get and has.
    DuplicateTasks { job: String, tasks: Vec<String> },
    /// Tasks that a call names twice.
    NamedTwice { job: String, tasks: Vec<String> },
    /// Tasks that the job has not.
    UnknownTasks { job: String, tasks: Vec<String> },
    /// A task that cannot have the status it is to have.
    Transition {
        job: String,
        task: String,
        from: Status,
        to: Status,
    },
    /// A task that has ended with another result or error.
    OtherEnd {
        job: String,
        task: String,
        status: Status,
    },
    /// The token is not that under which the task is held.
    Lost {
        job: String,
        task: String,
        token: i64,
        reason: String,
    },
    /// The job was cancelled, and takes no more tasks.
    Cancelled { job: String },
    /// Tasks were added while the job was cancelled.
    Joined { job: String, open: i64 },
    /// The document is not that of a job.
    Shape { job: String, error: JobShape },
    /// A caller wants to change what the functions of jobs alone do.
    NotAttributes { job: String },
    /// A caller wants to replace the document of a job.
    Replaced { job: String },
    /// What a call gives is not as it must be.
    Malformed {
        argument: &'static str,
        error: Malformed,
    },
    /// Tasks are to be counted by who may not see all of them.
    Partial,
    /// Not all tasks were written.
    Unwritten { job: String, tasks: Vec<String> },
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        Self::Capability(Box::new(error))
    }
}

impl JobError {
    /// `42704`
    pub fn unknown(job: &[u8]) -> Error {
        Self::Unknown { job: text(job) }.into()
    }

    /// `40001` for a task that is to be worked on and has ended, or waits.
    pub fn ended(
        state: &crate::cache::StateRef<'_>,
        task: &[u8],
        token: i64,
        status: Status,
    ) -> Error {
        Self::Lost {
            job: text(state.key),
            task: text(task),
            token,
            reason: format!("It is {}", status.name()),
        }
        .into()
    }

    /// `22023` for what a call gives.
    pub fn malformed(argument: &'static str) -> impl Fn(Malformed) -> Error {
        move |error| match error {
            Malformed::Document(DocumentError::OutOfMemory(refused)) => refused.into(),
            error => Self::Malformed { argument, error }.into(),
        }
    }
}

/// The error for a change of a job's document that cannot be made.
pub fn of_shape(job: &[u8], error: JobShape) -> Error {
    let job = text(job);
    match error {
        JobShape::Missing => JobError::Unknown { job },
        JobShape::Exists => JobError::Duplicate { job },
        JobShape::Cancelled => JobError::Cancelled { job },
        JobShape::Joined { open } => JobError::Joined { job, open },
        JobShape::Document(error) => {
            return Error::Document {
                state: Shown::new(super::class::JOB, job.as_bytes()),
                place: String::new(),
                error,
            };
        }
        error => JobError::Shape { job, error },
    }
    .into()
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

/// The error with all names as its detail, where the message does not hold them.
fn with_all(report: ErrorReport, names: &[String]) -> ErrorReport {
    if names.len() <= NAMED {
        return report;
    }
    let shown: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    report.set_detail(shown.join(", "))
}

/// Until when somebody holds a task.
pub fn held_by(owner: &[u8], until: i64) -> String {
    format!(
        "\"{}\" has it, until {}",
        text(owner),
        sys::timestamp_text(until)
    )
}

impl Report for JobError {
    fn report(self: Box<Self>) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        match *self {
            Self::Unknown { job } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("job \"{job}\" does not exist"),
            )
            .set_hint("state_job_create() creates a job."),
            Self::Duplicate { job } => new(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("job \"{job}\" exists already"),
            )
            .set_hint("state_job_add_tasks() adds tasks to a job."),
            Self::Former { job } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("tasks of the former job \"{job}\" are locked by another transaction"),
            )
            .set_hint("Retry the transaction."),
            Self::DuplicateTasks { job, tasks } => with_all(
                new(
                    Code::ERRCODE_UNIQUE_VIOLATION,
                    format!("job \"{job}\" has such tasks already: {}", list(&tasks)),
                ),
                &tasks,
            )
            .set_hint("Nothing was added."),
            Self::NamedTwice { job, tasks } => with_all(
                new(
                    Code::ERRCODE_UNIQUE_VIOLATION,
                    format!("tasks for job \"{job}\" are named twice: {}", list(&tasks)),
                ),
                &tasks,
            )
            .set_hint("Nothing was added."),
            Self::UnknownTasks { job, tasks } => with_all(
                new(
                    Code::ERRCODE_UNDEFINED_OBJECT,
                    format!("job \"{job}\" has no such tasks: {}", list(&tasks)),
                ),
                &tasks,
            )
            .set_hint("Nothing was changed. state_job_add_tasks() adds tasks."),
            Self::Transition { job, task, from, to } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "task \"{task}\" of job \"{job}\" cannot become {}: it is {}",
                    to.name(),
                    from.name()
                ),
            )
            .set_hint("Nothing was changed. A task that has ended stays as it is."),
            Self::OtherEnd { job, task, status } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "task \"{task}\" of job \"{job}\" is {} already, with another result or error",
                    status.name()
                ),
            )
            .set_hint("Nothing was changed. A task that has ended stays as it is."),
            Self::Lost {
                job,
                task,
                token,
                reason,
            } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("task \"{task}\" of job \"{job}\" is not held under token {token} any more"),
            )
            .set_detail(format!("{}.", utf8_text(reason)))
            .set_hint("Stop working on it: nothing was changed. state_job_claim_tasks() hands out other tasks."),
            Self::Cancelled { job } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("job \"{job}\" was cancelled, and takes no more tasks"),
            ),
            Self::Joined { job, open } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("tasks were added to job \"{job}\" while it was cancelled"),
            )
            .set_detail(format!("{open} of them have not ended."))
            .set_hint("Retry the transaction."),
            Self::Shape { job, error } => new(
                Code::ERRCODE_DATA_EXCEPTION,
                format!(
                    "state \"job/{job}\" is not the document of a job: {}",
                    utf8_text(error.to_string())
                ),
            )
            .set_hint("Nothing was changed. state_job_verify() with repair counts the tasks anew."),
            Self::NotAttributes { job } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("of job \"{job}\" only \"attributes\" can be changed, which is an object"),
            )
            .set_hint("The rest follows from its tasks: see state_job_update_tasks()."),
            Self::Replaced { job } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the document of job \"{job}\" cannot be replaced: it counts the tasks that the job has now"),
            )
            .set_hint(
                "state_job_create() creates a job, state_update() changes its attributes, state_job_verify() with \
                 repair counts its tasks anew.",
            ),
            Self::Partial => new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "tasks cannot be counted under row-level security".to_owned(),
            )
            .set_hint("Have a role do it that sees all rows, such as the owner of the tables."),
            Self::Malformed { argument, error } => malformed(argument, error),
            Self::Unwritten { job, tasks } => new(
                Code::ERRCODE_TRIGGERED_ACTION_EXCEPTION,
                format!(
                    "a trigger, rule or policy on state_task keeps tasks of job \"{job}\" from being written: {}",
                    list(&tasks)
                ),
            ),
        }
    }
}

fn malformed(argument: &str, error: Malformed) -> ErrorReport {
    use PgSqlErrorCode as Code;
    let new = |message: String| {
        ErrorReport::new(
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            message,
            function_name!(),
        )
    };
    match error {
        Malformed::NotArray => new(format!("{argument} must be an array of objects")),
        Malformed::NotTask { place } => {
            new(format!("element {place} of {argument} must be an object"))
        }
        Malformed::Field {
            place,
            field,
            must_be,
        } => new(format!(
            "\"{field}\" of element {place} of {argument} must be {must_be}"
        )),
        Malformed::Unknown {
            place,
            field,
            known,
        } => new(format!(
            "element {place} of {argument} has a field \"{}\", which is not known",
            text(&field)
        ))
        .set_hint(format!("Known here: {known}.")),
        Malformed::Status { place, name } => new(format!(
            "status \"{}\" of element {place} of {argument} is not known",
            text(&name)
        ))
        .set_hint(format!("Known here: {}.", Status::known())),
        Malformed::Document(DocumentError::OutOfMemory(refused)) => out_of_memory(refused),
        Malformed::Document(_) => ErrorReport::new(
            Code::ERRCODE_DATA_CORRUPTED,
            format!("{argument} is no well-formed document"),
            function_name!(),
        ),
    }
}
