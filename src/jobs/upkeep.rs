//! What the worker does for jobs: it deletes what is left of jobs that are gone, and ends tasks that nobody may try
//! again. In small steps, a transaction each.

use super::claim::fail;
use super::class::JOB;
use super::edit::stage;
use super::error::of_shape;
use super::job::{self, open};
use crate::cache::StateRef;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::store;
use crate::sys;
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;
use state_cache_jobs::{Change, Counts};
use std::collections::HashSet;
use std::rc::Rc;

/// Between two looks; between two looks at leases that are over, and that anybody may take; and between two steps, in
/// microseconds.
const LOOK: i64 = 5_000_000;
const LAPSED: i64 = 60_000_000;
const PAUSE: i64 = 10_000;
/// Tasks that one transaction ends.
const BATCH: i64 = 100;
/// Leases that are over, among which it looks for jobs.
const LEASES: i64 = 1000;

/// The task.
#[derive(Default)]
pub struct Leftovers {
    /// When it looked last, and found nothing to do.
    looked: Option<i64>,
    /// The job that a step is at.
    trying: Option<Box<[u8]>>,
    /// Jobs whose step has failed since then.
    failed: HashSet<Box<[u8]>>,
}

impl Task for Leftovers {
    fn name(&self) -> &'static str {
        "deleting tasks of jobs that are gone"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        if round.leaving {
            return Ok(Next::Woken);
        }
        if let Some(looked) = self.looked
            && (looked..looked.saturating_add(LOOK)).contains(&round.now)
        {
            return Ok(Next::At(looked + LOOK));
        }
        self.failed.extend(self.trying.take());
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        let worked = transaction(|| self.delete_left(&catalog))?;
        self.trying = None;
        let worked = transaction(|| self.end_exhausted(&catalog))? || worked;
        self.trying = None;
        if worked {
            return Ok(Next::At(round.now + PAUSE));
        }
        self.looked = Some(round.now);
        self.failed.clear();
        let (has_left, lease) = transaction(|| {
            let _owner = Impersonation::owner_of(catalog.task);
            let has_left = !store::jobs_left(&catalog)?.is_empty();
            Ok((has_left, store::next_lease(&catalog)?))
        })?;
        Ok(match (has_left, lease) {
            (true, _) => Next::At(round.now + LOOK),
            (false, Some(lease)) if lease <= round.now => Next::At(round.now + LAPSED),
            (false, Some(lease)) => Next::At(lease.max(round.now + LOOK)),
            (false, None) => Next::Woken,
        })
    }

    fn holds_work(&self) -> bool {
        false
    }
}

impl Leftovers {
    /// Deletes some tasks of a job that is gone; whether there may be more to do.
    fn delete_left(&mut self, catalog: &Catalog) -> Result<bool> {
        let _owner = Impersonation::owner_of(catalog.task);
        store::set_constraints_immediate();
        let left = store::jobs_left(catalog)?;
        let Some(job) = left.into_iter().find(|job| !self.failed.contains(job)) else {
            return Ok(false);
        };
        self.trying = Some(job.clone());
        if !store::delete_left_tasks(catalog, &job)? && !store::forget_left(catalog, &job)? {
            // Somebody has tasks of it locked: the next look finds them.
            self.failed.insert(job);
        }
        crate::fault::stop_at!(LeftTasksDeleted);
        Ok(true)
    }

    /// Ends tasks of a job whose lease is over and that were started too often; whether there may be more to do.
    fn end_exhausted(&mut self, catalog: &Rc<Catalog>) -> Result<bool> {
        const FUNCTION: &std::ffi::CStr = c"upkeep of jobs";
        let _owner = Impersonation::owner_of(catalog.head);
        store::set_constraints_immediate();
        for name in store::jobs_with_lapsed(catalog, LEASES)? {
            if self.failed.contains(&name) {
                continue;
            }
            let state = match StateRef::new(catalog, JOB, &name) {
                Ok(state) if job::is_there(&state)? => state,
                // Rows may name anything.
                Ok(_) | Err(Error::Argument { .. } | Error::UnknownClass { .. }) => continue,
                Err(error) => return Err(error),
            };
            self.trying = Some(name.clone());
            let document = job::read_latest(&state)?;
            let max_attempts = open(&state, &document)?
                .max_attempts()
                .map_err(|error| of_shape(&name, error))?;
            let mut counts = Counts::default();
            {
                let _owner = Impersonation::owner_of(catalog.task);
                let exhausted = store::lock_exhausted(catalog, &name, max_attempts, BATCH)?;
                fail(&state, &exhausted, sys::now(), &mut counts)?;
            }
            if !counts.is_zero() {
                stage(&state, Change::Count(counts), FUNCTION)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(feature = "fault_injection")]
crate::call::sql_functions! {
    /// `state_job_test_delete_left()`: one step of the worker, in the transaction of the caller; whether there may
    /// be more to do.
    fn state_job_test_delete_left(call) {
        let _ = call;
        let catalog = catalog::installed()?.ok_or(Error::NotInstalled)?;
        Ok(crate::call::boolean_datum(Leftovers::default().delete_left(&catalog)?))
    }
}
