//! The task that audits L1 at a low rate (`state_cache.audit_rate`). What it has found stands in a table, which
//! outlives a crash; whose rights count says the header of `unattended`.
//!
//! What the workers of a server have found since its start `state_cache_workers` shows as well, and on a standby that
//! alone: nothing can be written there, and the table says what the primary has found.

use super::audit::{Compared, compare, sample};
use super::unattended;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::settings;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Audited};
use crate::sys;
use crate::worker::task::{Next, Round, Task};
use crate::worker::{self, transaction};
use std::rc::Rc;

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// The least time between two audits: going through L1 for a sample takes longer than comparing the sample.
const PAUSE: i64 = 5 * SECOND;
/// Entries of one audit at most.
const MOST: i64 = 10_000;
/// Entries that are compared in one transaction.
const STEP: usize = 20;

/// The task.
#[derive(Default)]
pub struct Auditor {
    /// When the last audit was.
    last: Option<i64>,
}

/// How long after an audit the next one is due, and of how many entries that is.
fn next(rate: u32) -> (i64, i64) {
    let rate = i64::from(rate).max(1);
    let wait = (60 * SECOND / rate).max(PAUSE);
    (wait, (rate * wait / (60 * SECOND)).clamp(1, MOST))
}

impl Task for Auditor {
    fn name(&self) -> &'static str {
        "auditing the cache"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        let rate = settings::audit_rate();
        if rate == 0 || round.leaving {
            self.last = None;
            return Ok(Next::Woken);
        }
        let (wait, most) = next(rate);
        // Also when the clock was set back.
        if let Some(last) = self
            .last
            .filter(|last| (*last..*last + wait).contains(&round.now))
        {
            return Ok(Next::At(last + wait));
        }
        self.last = Some(round.now);
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        let found = audit(&catalog, most as usize)?;
        if !sys::recovery_in_progress() && (found.compared > 0 || found.passed_over > 0) {
            transaction(|| {
                // What others have put onto that table runs with its owner's privileges, not with the worker's.
                let _owner = Impersonation::owner_of(catalog.audit_result);
                store::set_constraints_immediate();
                store::add_audited(&catalog, &found)
            })?;
        }
        if let Some((class, key)) = &found.last {
            pgrx::ereport!(
                pgrx::PgLogLevel::WARNING,
                pgrx::PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!(
                    "state_cache worker: {} of {} entries of the cache are not what they are copies of, \"{}/{}\" \
                        among them",
                    found.differing,
                    found.compared,
                    text(class),
                    text(key)
                ),
                "Empty the cache with state_cache_clear(), and look at the watches of the class if the class is a \
                    derived one."
            );
        }
        Ok(Next::At(round.now + wait))
    }

    fn works_in_recovery(&self) -> bool {
        true
    }

    fn holds_work(&self) -> bool {
        false
    }
}

/// Compares so many entries at random.
fn audit(catalog: &Rc<Catalog>, most: usize) -> Result<Audited> {
    let names = transaction(|| sample(catalog, None, most))?;
    let mut found = Audited::default();
    for names in names.chunks(STEP) {
        let (compared, differing) = (found.compared, found.differing);
        transaction(|| {
            for (class, key, is_derived) in names {
                match compare_one(catalog, class, key, *is_derived)? {
                    Ok(Compared::Same) => found.compared += 1,
                    Ok(Compared::Differs(_)) => {
                        found.compared += 1;
                        found.differing += 1;
                        found.last = Some((class.clone(), key.clone()));
                    }
                    Ok(Compared::PassedOver) => found.passed_over += 1,
                    Err(error) => {
                        found.passed_over += 1;
                        found.error = Some(format!("{}/{}: {error}", text(class), text(key)));
                    }
                }
            }
            Ok(())
        })?;
        worker::report_audit(found.compared - compared, found.differing - differing);
    }
    Ok(found)
}

/// Compares an entry; the message of the error if that fails.
///
/// # Errors
/// What ends this call of the task. In recovery every error does: a subtransaction would survive it, but within one a
/// conflict with recovery ends the process.
fn compare_one(
    catalog: &Rc<Catalog>,
    class: &[u8],
    key: &[u8],
    is_derived: bool,
) -> Result<std::result::Result<Compared, String>> {
    let compare = || {
        let _snapshot = PushedSnapshot::latest();
        compare(catalog, class, key, is_derived)
    };
    match sys::recovery_in_progress() {
        false => Ok(unattended::run(compare)),
        // L1 holds none there.
        true if is_derived => Ok(Ok(Compared::PassedOver)),
        true => compare().map(Ok),
    }
}
