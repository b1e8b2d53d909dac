//! What holds for every change of a job, whichever function makes it.

use super::class::{JOB, is_job};
use super::edit;
use crate::cache::StateRef;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::identity::Impersonation;
use crate::store::{self, Checkpoint};
use crate::transaction::{Capability, Operation, Wanted};
use crate::{shared, sys};
use state_cache_jobs::Job;

/// When the worker is wanted for what a job has left, in microseconds from now.
const SOON: i64 = 1_000_000;

/// The rules of class `job`.
pub struct Jobs;

impl Capability for Jobs {
    fn check_may_replace(&self, state: &StateRef<'_>) -> Result<()> {
        match is_job(state) {
            true => Err(edit::not_replaced(state)),
            false => Ok(()),
        }
    }

    fn prepare(&self, state: &StateRef<'_>, operation: Operation) -> Result<Operation> {
        match is_job(state) {
            true => edit::of_attributes(state, operation),
            false => Ok(operation),
        }
    }

    /// The end of a job is kept as a recovery point, and lasts as long as the class keeps what has ended. A job that
    /// goes on lasts as the class says of all its states.
    fn wanted(&self, state: &StateRef<'_>, document: &[u8]) -> Result<Option<Wanted>> {
        if !is_job(state) {
            return Ok(None);
        }
        // A document that is not a job's is none that ends.
        let has_ended = Job::open(document).and_then(|job| job.has_ended());
        if !has_ended.unwrap_or(false) {
            let is_lasting = state.class.ttl.is_none();
            return Ok(Some(Wanted {
                checkpoint: None,
                expires_at: is_lasting.then_some(i64::MAX),
            }));
        }
        let kept = state.class.keep_for;
        let until = |kept| sys::statement_timestamp().saturating_add(kept);
        Ok(Some(Wanted {
            checkpoint: Some(Checkpoint {
                checkpoint_type: b"full".as_slice().into(),
                recovery_point: true,
                ..Checkpoint::default()
            }),
            expires_at: kept.map(until),
        }))
    }

    /// A job that is created again under the same name does not inherit the tasks of the one that is gone.
    fn after_delete(&self, catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<()> {
        if *class != *JOB {
            return Ok(());
        }
        let _owner = Impersonation::owner_of(catalog.task);
        if store::leave_tasks(catalog, key)?
            && let Some(database) = shared::database()
        {
            // Soon after the commit.
            database.need_worker_by(sys::now().saturating_add(SOON));
        }
        Ok(())
    }
}
