//! Noting what users have put onto the tables and pg_dump leaves out, and saying what a restore has lost of it: after
//! one everybody with a grant sees what a policy hid before. The same look finds indexes of the extension's own that
//! somebody has dropped.

use super::pace::SECOND;
use crate::catalog;
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::store;
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;

/// The least time between two looks, in microseconds.
const LOOK: i64 = 60 * SECOND;

/// The task. It looks when the worker is woken, and wakes it for nothing.
#[derive(Default)]
pub struct Protections {
    looked: Option<i64>,
    /// How many were missing at the last look.
    missing: i64,
}

impl Task for Protections {
    fn name(&self) -> &'static str {
        "noting policies and the like"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        let is_soon = |then: i64| (then..then.saturating_add(LOOK)).contains(&round.now);
        if round.leaving || self.looked.is_some_and(is_soon) && !round.recheck {
            return Ok(Next::Woken);
        }
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        let missing = transaction(|| {
            // What others have put onto that table runs with its owner's privileges, not with the worker's.
            let _owner = Impersonation::owner_of(catalog.protection);
            store::set_constraints_immediate();
            store::save_protections(&catalog)
        })?;
        self.looked = Some(round.now);
        if missing > 0 && missing != self.missing {
            pgrx::ereport!(
                pgrx::PgLogLevel::WARNING,
                pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "state_cache worker: {missing} of the policies, indexes, triggers and the like that the tables \
                        of state_cache had are missing"
                ),
                "A restore leaves them out, and indexes can be dropped. Until they are back, whoever has a grant \
                    may see more than before, and work may be slow: run the statements of state_protections() where \
                    present is false."
            );
        }
        self.missing = missing;
        Ok(Next::Woken)
    }

    fn holds_work(&self) -> bool {
        false
    }
}
