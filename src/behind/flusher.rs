//! The worker's task: writes dirty states when their time has come.
//!
//! Due is a state whose oldest unwritten change is `flush_interval` old, however often it has changed since:
//! so each is written once per interval, and what a crash can lose is bounded. States that are nearly due
//! are written along. A batch is one transaction; if it fails its states are tried one by one, and one that
//! fails alone is parked: shown in `state_cache_unwritten`, tried again later and later, and written through
//! by whoever changes it next, who then gets the error. Where one after the other fails it is hardly their
//! fault: then no more changes are left to this worker for a while.

use super::functions::{dirty, flush_state};
use crate::batch::StateName;
use crate::cache::stats::{Counter, CounterSet};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, Shown};
use crate::worker::task::{Next, Round, Task};
use crate::worker::{self, Failure};
use crate::{settings, shared};
use state_cache_l1::EntryInfo;
use std::collections::HashMap;
use std::rc::Rc;

/// States of one transaction, and bytes of their documents.
const BATCH: (usize, u64) = (100, 4 << 20);
/// States due within this part of the interval are written along with those that are due.
const ALONG: i64 = 8;
/// First and longest pause before a parked state is tried again, in microseconds.
const RETRY: (i64, i64) = (1_000_000, 60_000_000);
/// So many states failing one after the other say that not the states are at fault.
const IN_A_ROW: usize = 3;

type DirtyState = (StateName, EntryInfo);

/// See the module.
#[derive(Default)]
pub struct Flusher {
    parked: HashMap<StateName, Parked>,
    holds_work: bool,
    /// When the next state is due, `None` while none is dirty.
    next: Option<i64>,
    /// Until when no changes are left to this worker, and for how long that was said.
    refusing: Option<Parked>,
    /// When the dirty states were last looked at, and the interval then.
    looked: Option<(i64, i64)>,
}

/// Something that is tried again later, and then later still.
struct Parked {
    retry_at: i64,
    pause: i64,
}

impl Parked {
    fn after(before: Option<&Self>, now: i64) -> Self {
        let (first, longest) = RETRY;
        let pause = before.map_or(first, |before| (2 * before.pause).min(longest));
        Self {
            retry_at: now + pause,
            pause,
        }
    }
}

impl Task for Flusher {
    fn name(&self) -> &'static str {
        "write-behind"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        let Some(database) = shared::database() else {
            return Ok(Next::Woken);
        };
        if !round.leaving && !self.must_look(round.now, database) {
            return Ok(self.next());
        }
        if self
            .refusing
            .as_ref()
            .is_some_and(|refusing| refusing.retry_at <= round.now)
        {
            // Perhaps it was the states' fault after all: the next ones will tell.
            worker::accept(true);
        }
        database.set_flush_wanted(false);
        let catalog = worker::transaction(|| {
            super::forget_dropped();
            catalog::installed()?.ok_or(Error::NotInstalled)
        })?;
        let all = dirty(&catalog, None);
        self.parked
            .retain(|name, _| all.iter().any(|(dirty, _)| dirty == name));
        if all
            .iter()
            .any(|state| self.due(state, round.now) <= round.now)
            || round.leaving
        {
            let until = match round.leaving {
                true => i64::MAX,
                false => round.now + settings::flush_interval() / ALONG,
            };
            let batch: Vec<_> = all
                .into_iter()
                .filter(|state| self.due(state, round.now) <= until)
                .collect();
            self.write(&catalog, &batch, round.now)?;
        }
        let left = dirty(&catalog, None);
        self.holds_work = left
            .iter()
            .any(|(name, _)| !(round.leaving && self.parked.contains_key(name)));
        let due = left.iter().map(|state| self.due(state, round.now));
        self.next = due.chain(self.accepts_again_at(round.now)).min();
        self.looked = Some((round.now, settings::flush_interval()));
        if self.next.is_some() {
            // Who dirties another state meanwhile need not wake this worker: that one is due later.
            database.set_flush_wanted(true);
        }
        Ok(self.next())
    }

    fn holds_work(&self) -> bool {
        self.holds_work
    }
}

/// Consecutive parts that each fit into one transaction.
fn parts(states: &[DirtyState]) -> impl Iterator<Item = &[DirtyState]> {
    let mut rest = states;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(BATCH.0).take_while(|(_, info)| {
            bytes += u64::from(info.value_len);
            bytes <= BATCH.1
        });
        let (part, others) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

impl Flusher {
    /// When a state is to be written. A clock that was set back does not put that off.
    fn due(&self, (name, info): &DirtyState, now: i64) -> i64 {
        match (self.parked.get(name), info.dirty) {
            (Some(parked), _) => parked.retry_at.min(now + RETRY.1),
            (None, Some(dirty)) => dirty.since.min(now) + settings::flush_interval(),
            (None, None) => i64::MAX,
        }
    }

    /// When changes will be left to this worker again, if they are not now.
    fn accepts_again_at(&self, now: i64) -> Option<i64> {
        let refusing = self.refusing.as_ref()?;
        (refusing.retry_at > now).then_some(refusing.retry_at)
    }

    /// Whether the dirty states must be looked at; the worker is woken for other reasons as well.
    fn must_look(&self, now: i64, database: &shared::Database) -> bool {
        let Some((looked, interval)) = self.looked else {
            return true;
        };
        let is_due = match self.next {
            Some(next) => next <= now,
            None => database.wants_flush(),
        };
        is_due || now < looked || interval != settings::flush_interval()
    }

    fn next(&self) -> Next {
        self.next.map_or(Next::Woken, Next::At)
    }

    fn write(&mut self, catalog: &Rc<Catalog>, states: &[DirtyState], now: i64) -> Result<()> {
        for part in parts(states) {
            match write_together(catalog, part) {
                Ok(()) => {
                    for (name, _) in part {
                        self.parked.remove(name);
                    }
                    self.refusing = None;
                    worker::accept(true);
                    worker::flushed();
                }
                Err(failure) if failure.not_installed => return Err(Error::NotInstalled),
                Err(_) => self.write_apart(catalog, part, now)?,
            }
        }
        Ok(())
    }

    /// Writes each state in a transaction of its own.
    fn write_apart(
        &mut self,
        catalog: &Rc<Catalog>,
        states: &[DirtyState],
        now: i64,
    ) -> Result<()> {
        let mut in_a_row = 0;
        for state in states {
            match write_together(catalog, std::slice::from_ref(state)) {
                Ok(()) => {
                    in_a_row = 0;
                    self.parked.remove(&state.0);
                    worker::flushed();
                }
                Err(failure) => {
                    in_a_row += 1;
                    self.park(catalog, state, now, &failure);
                    if in_a_row == IN_A_ROW {
                        self.refusing = Some(Parked::after(self.refusing.as_ref(), now));
                        worker::accept(false);
                        return Err(Error::NotWritten {
                            message: failure.to_string(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn park(&mut self, catalog: &Catalog, (name, info): &DirtyState, now: i64, failure: &Failure) {
        worker::report(self, failure);
        if !self.parked.contains_key(name) {
            let shown = Shown::new(&name.0, &name.1);
            pgrx::warning!("state_cache worker: state \"{shown}\" is put aside: {failure}");
        }
        let parked = Parked::after(self.parked.get(name), now);
        self.parked.insert(name.clone(), parked);
        let key = shared::key(catalog.database, catalog.incarnation, &name.0, &name.1);
        if let Some(l1) = shared::l1() {
            l1.set_parked(&key, info.serial, true);
        }
    }
}

fn write_together(
    catalog: &Rc<Catalog>,
    states: &[DirtyState],
) -> std::result::Result<(), Failure> {
    worker::activity(&format!("writing {} states behind", states.len()));
    worker::guarded(|| {
        worker::transaction(|| {
            let catalog = catalog::renewed(catalog)?;
            for ((class, key), _) in states {
                if flush_state(&catalog, class, key)? {
                    CounterSet::of_class(class).count(Counter::BehindFlushed);
                }
            }
            Ok(())
        })
    })
}
