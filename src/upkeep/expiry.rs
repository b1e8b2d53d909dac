//! Removing expired states.

use super::pace::{PAUSE, SECOND};
use crate::cache::StateRef;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::name::StateName;
use crate::shared::{self, NEVER};
use crate::store::{self, Expiring};
use crate::transaction;
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;
use std::collections::HashSet;
use std::rc::Rc;

/// States removed by one transaction.
const BATCH: i64 = 100;
/// After a pass that had to leave expired states where they are, in microseconds.
const RETRY: i64 = 10 * SECOND;
/// How often it looks for what has come to expire, however often the worker is woken.
const LOOK: i64 = SECOND;

/// The task. It passes through the expired states in the order in which they expire.
pub struct Expiry {
    /// How far it has come in this pass.
    after: Expiring,
    /// States that one transaction removes.
    limit: i64,
    /// What the transaction that runs has locked; still there if it failed.
    batch: Vec<Expiring>,
    /// The state that it was at.
    trying: Option<Expiring>,
    /// States that could not be removed in this pass.
    failed: HashSet<StateName>,
    /// Whether a pass has begun and not ended.
    in_pass: bool,
    /// When the last pass ended, and when the next state expires as far as it is known.
    looked: i64,
    due: i64,
}

impl Default for Expiry {
    fn default() -> Self {
        Self {
            after: Expiring::first(),
            limit: BATCH,
            batch: Vec::new(),
            trying: None,
            failed: HashSet::new(),
            in_pass: true,
            looked: i64::MIN,
            due: i64::MIN,
        }
    }
}

impl Task for Expiry {
    fn name(&self) -> &'static str {
        "removing expired states"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        if round.leaving {
            return Ok(self.next());
        }
        if !self.in_pass && !self.is_due(round.now) {
            // Woken: something may expire sooner than was known.
            return Ok(Next::At(self.due.min(self.looked.saturating_add(LOOK))));
        }
        if !self.in_pass
            && let Some(database) = shared::database()
        {
            // Whoever gives a state an earlier end than is known wakes this worker; said before it looks.
            database.set_due(NEVER);
        }
        self.in_pass = true;
        self.learn_from_failure();
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        transaction(|| self.step(&catalog, round.now))?;
        if self.advance() {
            return Ok(Next::At(round.now + PAUSE));
        }
        let earliest = transaction(|| store::earliest_expiry(&catalog))?;
        self.end_pass(round.now, earliest);
        Ok(self.next())
    }

    fn holds_work(&self) -> bool {
        false
    }
}

impl Expiry {
    /// Whether it is time for a pass; also when the clock was set back.
    fn is_due(&self, now: i64) -> bool {
        now >= self.due || now < self.looked || now - self.looked >= LOOK
    }

    fn next(&self) -> Next {
        match self.due {
            i64::MAX => Next::Woken,
            due => Next::At(due),
        }
    }

    /// If the last transaction failed: at which state, as far as that can be told.
    fn learn_from_failure(&mut self) {
        let culprit = match (self.trying.take(), self.batch.as_slice()) {
            (Some(state), _) => Some(state),
            // At its commit.
            (None, [state]) => Some(state.clone()),
            (None, []) => None,
            (None, _) => {
                self.limit = 1;
                None
            }
        };
        if let Some(state) = culprit {
            self.failed.insert((state.class, state.key));
        }
        self.batch.clear();
    }

    /// Removes the next states; in a transaction.
    pub fn step(&mut self, catalog: &Rc<Catalog>, now: i64) -> Result<()> {
        let _owner = Impersonation::owner_of(catalog.head);
        store::set_constraints_immediate();
        self.batch = store::lock_expired(catalog, &self.after, now, self.limit)?;
        for place in self.batch.clone() {
            let name = (place.class.clone(), place.key.clone());
            if self.failed.contains(&name) {
                continue;
            }
            self.trying = Some(place);
            match StateRef::new(catalog, &name.0, &name.1) {
                Ok(state) => transaction::expire(&state, now, c"expiry")?,
                // Rows of a class that is not defined read as absent; whoever put them there removes them.
                Err(Error::UnknownClass { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.trying = None;
        Ok(())
    }

    /// The transaction has committed; whether the pass goes on.
    pub fn advance(&mut self) -> bool {
        let full = self.batch.len() as i64 == self.limit;
        if let Some(last) = self.batch.pop() {
            self.after = last;
        }
        self.batch.clear();
        full
    }

    fn end_pass(&mut self, now: i64, earliest: Option<i64>) {
        self.due = match earliest {
            None => i64::MAX,
            // Left where it is: locked, or failed.
            Some(time) if time <= now => now + RETRY,
            Some(time) => time,
        };
        if let Some(database) = shared::database() {
            database.knows_of(self.due);
        }
        self.looked = now;
        self.in_pass = false;
        self.after = Expiring::first();
        self.limit = BATCH;
        self.failed.clear();
    }
}
