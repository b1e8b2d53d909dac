//! Changes of a job's document, as they are staged.

use super::error::{JobError, of_shape};
use super::job::now_text;
use crate::cache::StateRef;
use crate::error::{Error, Result, text};
use crate::snapshot::PushedSnapshot;
use crate::transaction::{self, Edit, Operation};
use state_cache_document as document;
use state_cache_jobs::{Change, Counts, Job, JobShape};
use std::cell::OnceCell;
use std::ffi::CStr;
use std::rc::Rc;

/// A change that a function of jobs makes.
struct JobEdit {
    job: Box<[u8]>,
    change: Change,
    /// When it was made, as documents say it.
    now: String,
    /// When the job was created that it was first made upon: another one of the same name is not meant.
    born: OnceCell<Vec<u8>>,
}

impl JobEdit {
    /// Raises `42704` unless this is the job that is meant.
    fn check_is_meant(&self, base: &[u8]) -> Result<()> {
        let born = Job::created_at(base).map_err(|error| of_shape(&self.job, error))?;
        match *self.born.get_or_init(|| born.clone()) == born {
            true => Ok(()),
            false => Err(JobError::unknown(&self.job)),
        }
    }
}

impl Edit for JobEdit {
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>> {
        if let Some(base) = base {
            self.check_is_meant(base)?;
        }
        let applied = self.change.apply(base, self.now.as_bytes());
        applied.map_err(|error| of_shape(&self.job, error))
    }

    fn bytes(&self) -> usize {
        match &self.change {
            Change::Create { attributes, .. } => attributes.len(),
            _ => size_of::<Counts>(),
        }
    }
}

/// Stages a change of a job, which only a rollback takes back.
pub fn stage(state: &StateRef<'_>, change: Change, function: &CStr) -> Result<()> {
    #[cfg(feature = "fault_injection")]
    let change = match (crate::fault::leaves_out!(JobIncrements), &change) {
        (true, Change::Add(more) | Change::Count(more)) => {
            let document = super::job::read_latest(state)?;
            let counts = super::job::open(state, &document)?.counts;
            Change::Recount(counts.plus(more).unwrap_or(counts))
        }
        _ => change,
    };
    let edit = JobEdit {
        job: state.key.into(),
        change,
        now: now_text(),
        born: OnceCell::new(),
    };
    // The caller's snapshot may be older than the locks on the rows.
    let _snapshot = PushedSnapshot::transaction();
    transaction::apply(state, Operation::Edit(Rc::new(edit)), function)?;
    transaction::keep_for_commit(state)
}

/// A change of the attributes that a caller makes with the general functions.
struct AttributesEdit {
    operation: Operation,
    /// The state, for messages.
    job: Box<[u8]>,
    catalog: Rc<crate::catalog::Catalog>,
    class: Rc<crate::catalog::Class>,
}

impl Edit for AttributesEdit {
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let state = StateRef::of(&self.catalog, Rc::clone(&self.class), &self.job);
        let before = base.ok_or_else(|| JobError::unknown(&self.job))?;
        let after = self.operation.apply(&state, base)?;
        let malformed = |error| of_shape(&self.job, error);
        let is_counted = |name: &[u8]| name != b"attributes";
        let counted = |whole| -> Result<Vec<u8>> {
            let members = document::members(whole).map_err(|error| malformed(error.into()))?;
            let counted = members.into_iter().filter(|(name, _)| is_counted(name));
            let counted = state_cache_memory::collect(counted)?;
            document::object(&counted).map_err(|error| malformed(error.into()))
        };
        if !document::is_object(&after) || counted(before)? != counted(&after)? {
            return Err(JobError::NotAttributes {
                job: text(&self.job),
            }
            .into());
        }
        let job = Job::open(&after).map_err(malformed)?;
        match job.max_attempts() {
            Err(error @ JobShape::Field { .. }) => Err(Error::argument(error.to_string())),
            Err(error) => Err(malformed(error)),
            Ok(_) => Ok(after),
        }
    }

    fn bytes(&self) -> usize {
        self.operation.bytes()
    }
}

/// The operation of a caller as one that changes nothing but the attributes of a job.
pub fn of_attributes(state: &StateRef<'_>, operation: Operation) -> Result<Operation> {
    let edit = AttributesEdit {
        operation,
        job: state.key.into(),
        catalog: Rc::clone(&state.catalog),
        class: Rc::clone(&state.class),
    };
    Ok(Operation::Edit(Rc::new(edit)))
}

/// The error for a job whose whole document somebody wants to replace.
pub fn not_replaced(state: &StateRef<'_>) -> Error {
    JobError::Replaced {
        job: text(state.key),
    }
    .into()
}
