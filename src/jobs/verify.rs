//! Comparing what summaries say with the rows.

use super::by_hand::{count, recount};
use super::class::JOB;
use super::error::JobError;
use crate::cache::StateRef;
use crate::cache::forms::IfIntact;
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::store;
use crate::{memory, transaction};
use state_cache_document as document;
use state_cache_jobs::Job;
use state_cache_memory::{boxed, owned};
use std::ffi::CStr;
use std::rc::Rc;

/// What a job says, and what its rows say.
struct Found {
    /// The summary in its document, if there is a job that has one.
    kept: Option<Vec<u8>>,
    /// What the rows are.
    counted: Vec<u8>,
    /// Whether there is a job.
    is_there: bool,
    /// Whether both say the same.
    is_right: bool,
}

/// Looks at a job and its rows under the caller's snapshot.
fn look(state: &StateRef<'_>) -> Result<Found> {
    let counts = count(state)?;
    let malformed = |error| super::error::of_shape(state.key, error);
    let counted = counts.document().map_err(malformed)?;
    let found = transaction::read(state, &mut IfIntact)?.state();
    let Some((_, document)) = found else {
        return Ok(Found {
            kept: None,
            counted,
            is_there: false,
            // Rows without a job are left over.
            is_right: counts.is_zero(),
        });
    };
    let Some(document) = document else {
        return Ok(Found {
            kept: None,
            counted,
            is_there: true,
            is_right: false,
        });
    };
    let kept = match document::is_object(&document) {
        true => document::member(&document, b"summary").map_err(|error| malformed(error.into()))?,
        false => None,
    };
    let kept = kept.map(owned).transpose()?;
    let is_right = match Job::open(&document) {
        Ok(job) => job.counts == counts && job.says_so().map_err(malformed)?,
        Err(_) => false,
    };
    Ok(Found {
        kept,
        counted,
        is_there: true,
        is_right,
    })
}

/// The jobs that are to be looked at.
fn wanted(catalog: &Catalog, named: Option<&[u8]>) -> Result<Vec<Box<[u8]>>> {
    if let Some(name) = named {
        let mut one = state_cache_memory::with_capacity(1)?;
        one.push(boxed(name)?);
        return Ok(one);
    }
    let mut jobs = store::jobs(catalog)?;
    let _owner = Impersonation::owner_of(catalog.task);
    jobs.extend(store::jobs_of_tasks(catalog)?);
    jobs.sort_unstable();
    jobs.dedup();
    Ok(jobs)
}

sql_functions! {
    /// `state_job_verify(job_id, repair)`
    fn state_job_verify(call) {
        const FUNCTION: &CStr = c"state_job_verify()";
        let repair = call.boolean(1).ok_or_else(|| Error::null_argument("repair"))?;
        let catalog = catalog::current(call.function())?;
        catalog.check_may_read()?;
        if catalog.access().row_security || catalog.tasks_have_row_security() {
            return Err(JobError::Partial.into());
        }
        if repair {
            transaction::check_may_write(&catalog, FUNCTION)?;
        }
        let jobs = match call.text(0) {
            Some(name) => {
                // A name that no job can have is an error here, and none among rows.
                StateRef::new(&catalog, JOB, name)?;
                wanted(&catalog, Some(name))?
            }
            None => wanted(&catalog, None)?,
        };
        let mut rows = call.rows()?;
        for name in jobs {
            memory::check()?;
            let class = catalog.class_or_default(JOB)?;
            let state = StateRef::of(&Rc::clone(&catalog), class, &name);
            let found = look(&state)?;
            if found.is_right {
                continue;
            }
            if repair {
                match found.is_there {
                    true => recount(&state, FUNCTION)?,
                    false => {
                        let _owner = Impersonation::owner_of(catalog.task);
                        while store::delete_left_tasks(&catalog, &name)? {}
                    }
                }
            }
            rows.push([
                Some(call::varlena_datum(&name)),
                found.kept.as_deref().map(call::varlena_datum),
                Some(call::varlena_datum(&found.counted)),
                Some(call::boolean_datum(repair)),
            ]);
        }
        Ok(call::void_datum())
    }
}
