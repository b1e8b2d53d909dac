//! The worker's task: writes dirty states when their time has come.
//!
//! Due is a state whose oldest unwritten change is `flush_interval` old, however often it has changed since:
//! so each is written once per interval, and what a crash can lose is bounded. States that are nearly due
//! are written along. A batch is one transaction; if it fails its states are tried one by one, and one that
//! fails alone is parked: shown in `state_cache_unwritten`, tried again later and later, and written through
//! by whoever changes it next, who then gets the error.

use super::functions::{dirty, flush_state};
use crate::batch::StateName;
use crate::cache::stats::{Counter, CounterSet};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::worker::task::{Next, Round, Task};
use crate::{settings, shared, worker};
use state_cache_l1::EntryInfo;
use std::collections::HashMap;
use std::rc::Rc;

/// States of one transaction, and bytes of their documents.
const BATCH: (usize, u64) = (100, 4 << 20);
/// States due within this part of the interval are written along with those that are due.
const ALONG: i64 = 8;
/// First and longest pause before a parked state is tried again, in microseconds.
const RETRY: (i64, i64) = (1_000_000, 60_000_000);

/// See the module.
#[derive(Default)]
pub struct Flusher {
    parked: HashMap<StateName, Parked>,
    holds_work: bool,
}

struct Parked {
    retry_at: i64,
    pause: i64,
}

impl Task for Flusher {
    fn name(&self) -> &'static str {
        "write-behind"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        let Some(catalog) = worker::catalog()? else {
            return Ok(Next::Woken);
        };
        let all = dirty(&catalog, None);
        self.parked
            .retain(|name, _| all.iter().any(|(dirty, _)| dirty == name));
        let interval = settings::flush_interval();
        let until = match round.leaving {
            true => i64::MAX,
            false => round.now + interval / ALONG,
        };
        let is_due = |(name, info): &&(StateName, EntryInfo)| match self.parked.get(name) {
            Some(parked) => round.leaving || parked.retry_at <= round.now,
            // A clock that was set back must not keep a state dirty.
            None => due(info, interval) <= until || due(info, interval) > round.now + interval,
        };
        let any_due = all.iter().any(|(name, info)| match self.parked.get(name) {
            Some(parked) => round.leaving || parked.retry_at <= round.now,
            None => {
                round.leaving
                    || due(info, interval) <= round.now
                    || due(info, interval) > round.now + interval
            }
        });
        let batch: Vec<_> = match any_due {
            true => all.iter().filter(is_due).cloned().collect(),
            false => Vec::new(),
        };
        for part in parts(&batch) {
            self.write(&catalog, part, round.now)?;
        }
        let left = dirty(&catalog, None);
        self.holds_work = left
            .iter()
            .any(|(name, _)| !(round.leaving && self.parked.contains_key(name)));
        let next = left.iter().map(|(name, info)| match self.parked.get(name) {
            Some(parked) => parked.retry_at,
            None => due(info, interval),
        });
        Ok(next.min().map_or(Next::Woken, Next::At))
    }

    fn holds_work(&self) -> bool {
        self.holds_work
    }
}

/// When a state is to be written.
fn due(info: &EntryInfo, interval: i64) -> i64 {
    info.dirty
        .map_or(i64::MAX, |dirty| dirty.since.saturating_add(interval))
}

/// Consecutive parts that each fit into one transaction.
fn parts(states: &[(StateName, EntryInfo)]) -> impl Iterator<Item = &[(StateName, EntryInfo)]> {
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
    /// Writes states in one transaction, or each in its own where that fails.
    fn write(
        &mut self,
        catalog: &Rc<Catalog>,
        states: &[(StateName, EntryInfo)],
        now: i64,
    ) -> Result<()> {
        if let Err(error) = write_together(catalog, states) {
            if let Error::NotInstalled = error {
                return Err(error);
            }
            if let [state] = states {
                self.park(catalog, state, now, &error);
                return Ok(());
            }
            for state in states.chunks(1) {
                self.write(catalog, state, now)?;
            }
            return Ok(());
        }
        for (name, _) in states {
            self.parked.remove(name);
        }
        Ok(())
    }

    fn park(
        &mut self,
        catalog: &Catalog,
        (name, info): &(StateName, EntryInfo),
        now: i64,
        error: &Error,
    ) {
        worker::report(self.name(), error);
        let (first, longest) = RETRY;
        let pause = self
            .parked
            .get(name)
            .map_or(first, |parked| (2 * parked.pause).min(longest));
        let retry_at = now + pause;
        self.parked.insert(name.clone(), Parked { retry_at, pause });
        let key = shared::key(catalog.database, catalog.incarnation, &name.0, &name.1);
        if let Some(l1) = shared::l1() {
            l1.set_parked(&key, info.serial, true);
        }
    }
}

fn write_together(catalog: &Rc<Catalog>, states: &[(StateName, EntryInfo)]) -> Result<()> {
    worker::attempt(&format!("writing {} states", states.len()), || {
        let catalog = catalog::renewed(catalog)?;
        for ((class, key), _) in states {
            if flush_state(&catalog, class, key)? {
                CounterSet::of_class(class).count(Counter::BehindFlushed);
            }
        }
        Ok(())
    })
}
