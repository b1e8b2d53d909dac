//! The worker's task: writes dirty states when their time has come.
//!
//! Due is a state whose oldest unwritten change is `flush_interval` old, however often it has changed since:
//! so each is written once per interval, and what a crash can lose is bounded. States that are nearly due
//! are written along. A batch is one transaction; if it fails its states are tried one by one, and one that
//! fails alone is parked: shown in `state_cache_unwritten`, tried again later and later, and written through
//! by whoever changes it next, who then gets the error. Where one after the other fails it is hardly their
//! fault: then no more changes are deferred to this worker for a while.

use super::dirty::dirty_states;
use crate::catalog::{self, Catalog};
use crate::counters::{Counter, CounterSet};
use crate::error::{Error, Result, Shown};
use crate::identity::Impersonation;
use crate::name::StateName;
use crate::worker::task::{Next, Round, Task};
use crate::worker::{self, Failure};
use crate::{settings, shared, store, sys};
use state_cache_l1::EntryInfo;
use state_cache_memory::Grow;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// States of one transaction, and bytes of their documents.
const BATCH: (usize, u64) = (100, 4 << 20);
/// States due within this part of the interval are written along with those that are due.
const ALONG: i64 = 8;
/// First and longest pause before a parked state is tried again, in microseconds.
const RETRY: (i64, i64) = (1_000_000, 60_000_000);
/// How long a call goes on with states that cannot be written.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many states failing one after the other say that not the states are at fault.
const IN_A_ROW: usize = 3;

type DirtyState = (StateName, EntryInfo);

/// How soon it looks again whether an installation is gone of which L1 still holds changes, in microseconds.
const LOOK_AGAIN: i64 = 1_000_000;

/// Writes a state (class, key) of an installation back in the running transaction, if the state is dirty; whether it
/// was.
pub type WriteBack = fn(&Rc<Catalog>, &[u8], &[u8]) -> Result<bool>;

/// See the module.
pub struct Flusher {
    write_back: WriteBack,
    parked: HashMap<StateName, Parked>,
    holds_work: bool,
    /// When the next state is due, `None` while none is dirty.
    next: Option<i64>,
    /// Whether a state is dirty that is not parked: then others that become dirty are due later.
    knows_of_fresh: bool,
    /// Until when no changes are deferred to this worker.
    refusing: Option<Parked>,
    /// Fresh states that have failed since one was written.
    in_a_row: usize,
    /// Whether it has said what it leaves unwritten.
    has_warned: bool,
    /// When the dirty states were last looked at, and the interval then.
    looked: Option<(i64, i64)>,
}

/// Something that is tried again later, and then later still.
struct Parked {
    retry_at: i64,
    pause: i64,
}

impl Flusher {
    /// A task that has looked at nothing yet.
    pub fn new(write_back: WriteBack) -> Self {
        Self {
            write_back,
            parked: HashMap::new(),
            holds_work: false,
            next: None,
            knows_of_fresh: false,
            refusing: None,
            in_a_row: 0,
            has_warned: false,
            looked: None,
        }
    }
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
        if !round.leaving && !round.recheck && !self.must_look(round.now, database) {
            return Ok(self.next());
        }
        if (self.refusing.as_ref()).is_some_and(|refusing| refusing.retry_at <= round.now) {
            // Perhaps it was the states' fault after all: the next ones will tell.
            worker::accept(true);
        }
        // Until all has been looked at, a failure must not make this task believe that nothing is dirty, nor
        // the worker that it may leave.
        self.looked = None;
        self.holds_work = is_anything_dirty();
        database.set_flush_wanted(false);
        let catalog = worker::transaction(|| {
            super::drop_orphaned();
            // What is gone with the extension is nobody's work.
            self.holds_work = is_anything_dirty();
            catalog::installed()?.ok_or(Error::NotInstalled)
        })?;
        let all = dirty_states(&catalog, None)?;
        let is_put_aside = |wanted: &StateName| {
            let put_aside = |(name, info): &DirtyState| name == wanted && is_marked(info);
            all.iter().any(put_aside)
        };
        self.parked.retain(|name, _| is_put_aside(name));
        if round.leaving
            || all
                .iter()
                .any(|state| self.due(state, round.now) <= round.now)
        {
            let until = match round.leaving {
                true => i64::MAX,
                false => round.now + settings::flush_interval() / ALONG,
            };
            let (mut parked, mut fresh) = (Vec::new(), Vec::new());
            for state in all {
                if self.due(&state, round.now) > until {
                    continue;
                }
                match self.is_parked(&state) {
                    true => parked.try_push(state)?,
                    false => fresh.try_push(state)?,
                }
            }
            self.write(&catalog, &fresh, &parked)?;
        }
        self.look_ahead(&catalog, round, database)?;
        Ok(self.next())
    }

    fn holds_work(&self) -> bool {
        self.holds_work
    }
}

fn is_anything_dirty() -> bool {
    shared::l1().is_some_and(|l1| l1.backlog(sys::my_database()).0 > 0)
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

/// Whether the entry itself is marked as put aside.
fn is_marked(info: &EntryInfo) -> bool {
    info.dirty.is_some_and(|dirty| dirty.parked)
}

impl Flusher {
    /// When a state is to be written. A clock that was set back does not put that off.
    fn due(&self, (name, info): &DirtyState, now: i64) -> i64 {
        match (
            self.parked.get(name).filter(|_| is_marked(info)),
            info.dirty,
        ) {
            (Some(parked), _) => parked.retry_at.min(now + RETRY.1),
            (None, Some(dirty)) => dirty.since.min(now) + settings::flush_interval(),
            (None, None) => i64::MAX,
        }
    }

    /// Whether the state has been put aside, and not changed since.
    fn is_parked(&self, (name, info): &DirtyState) -> bool {
        is_marked(info) && self.parked.contains_key(name)
    }

    /// Whether the dirty states must be looked at; the worker is woken for other reasons as well.
    fn must_look(&self, now: i64, database: &shared::Database) -> bool {
        let Some((looked, interval)) = self.looked else {
            return true;
        };
        self.next.is_some_and(|next| next <= now)
            || !self.knows_of_fresh && database.wants_flush()
            || now < looked
            || interval != settings::flush_interval()
    }

    /// Finds out what is dirty now, and when the next of it is due.
    fn look_ahead(
        &mut self,
        catalog: &Catalog,
        round: Round,
        database: &shared::Database,
    ) -> Result<()> {
        let left = dirty_states(catalog, None)?;
        if round.leaving && !self.has_warned && left.iter().any(|state| self.is_parked(state)) {
            self.has_warned = true;
            pgrx::warning!(
                "state_cache worker: {} states of behind classes could not be written; they are lost if the \
                 server is being shut down",
                left.len()
            );
        }
        let knows_of_fresh = left.iter().any(|state| !self.is_parked(state));
        self.holds_work = match round.leaving {
            // Nobody waits for those that cannot be written.
            true => knows_of_fresh,
            false => !left.is_empty(),
        };
        let due = left.iter().map(|state| self.due(state, round.now));
        // Of another installation, whose end this session has not heard of yet.
        let foreign = left.is_empty() && is_anything_dirty();
        self.next = due
            .chain(self.accepts_again_at(round.now))
            .chain(foreign.then(|| round.now + LOOK_AGAIN))
            .min();
        self.knows_of_fresh = knows_of_fresh;
        self.looked = Some((round.now, settings::flush_interval()));
        if knows_of_fresh {
            // Who dirties another state meanwhile need not wake this worker: that one is due later.
            database.set_flush_wanted(true);
        }
        Ok(())
    }

    fn next(&self) -> Next {
        self.next.map_or(Next::Woken, Next::At)
    }

    /// When changes will be deferred to this worker again, if they are not now.
    fn accepts_again_at(&self, now: i64) -> Option<i64> {
        let refusing = self.refusing.as_ref()?;
        (refusing.retry_at > now).then_some(refusing.retry_at)
    }

    /// Writes states, those that have failed before last and one by one.
    fn write(
        &mut self,
        catalog: &Rc<Catalog>,
        fresh: &[DirtyState],
        parked: &[DirtyState],
    ) -> Result<()> {
        let mut patience = Patience::new();
        for part in parts(fresh) {
            match self.write_together(catalog, part, Lock::Wait) {
                Ok(()) => self.succeeded(),
                Err(failure) if failure.not_installed => return Err(Error::NotInstalled),
                Err(_) => self.write_apart(catalog, part, &mut patience)?,
            }
        }
        self.write_apart(catalog, parked, &mut patience)
    }

    /// Writes states back in one transaction.
    fn write_together(
        &self,
        catalog: &Rc<Catalog>,
        states: &[DirtyState],
        lock: Lock,
    ) -> std::result::Result<(), Failure> {
        worker::activity(&format!("writing {} states behind", states.len()));
        worker::guarded(|| {
            worker::transaction(|| {
                if lock == Lock::HardlyWait {
                    sys::set_local(c"lock_timeout", c"50ms");
                }
                let catalog = catalog::renewed(catalog)?;
                // Deferred triggers would otherwise run at the commit, as this worker. In a security-restricted
                // operation, which the writers inherit, nobody can put anything off to the commit after all.
                store::set_constraints_immediate();
                let _owner = Impersonation::owner_of(catalog.head);
                for ((class, key), _) in states {
                    if (self.write_back)(&catalog, class, key)? {
                        CounterSet::of_class(class).count(Counter::BehindFlushed);
                    }
                }
                Ok(())
            })
        })
    }

    /// Writes each state in a transaction of its own, as long as there is patience with those that fail.
    fn write_apart(
        &mut self,
        catalog: &Rc<Catalog>,
        states: &[DirtyState],
        patience: &mut Patience,
    ) -> Result<()> {
        for state in states {
            if patience.is_at_end() {
                break;
            }
            match self.write_together(catalog, std::slice::from_ref(state), Lock::HardlyWait) {
                Ok(()) => {
                    self.parked.remove(&state.0);
                    self.succeeded();
                }
                Err(failure) if failure.not_installed => return Err(Error::NotInstalled),
                Err(failure) => self.park(catalog, state, &failure),
            }
        }
        Ok(())
    }

    /// L3 can be written.
    fn succeeded(&mut self) {
        self.in_a_row = 0;
        self.refusing = None;
        worker::accept(true);
        worker::flushed();
    }

    fn park(&mut self, catalog: &Catalog, (name, info): &DirtyState, failure: &Failure) {
        let now = sys::now();
        worker::report(self, failure);
        if !self.parked.contains_key(name) {
            let shown = Shown::new(&name.0, &name.1);
            pgrx::warning!("state_cache worker: state \"{shown}\" is put aside: {failure}");
            self.in_a_row += 1;
        }
        if self.in_a_row == IN_A_ROW {
            self.in_a_row = 0;
            self.refusing = Some(Parked::after(self.refusing.as_ref(), now));
            worker::accept(false);
        }
        let parked = Parked::after(self.parked.get(name), now);
        self.parked.insert(name.clone(), parked);
        let key = shared::key(catalog.database, catalog.incarnation, &name.0, &name.1);
        if let Some(l1) = shared::l1() {
            l1.set_parked(&key, info.serial, true);
        }
    }
}

/// How much time one call may lose with states that cannot be written.
struct Patience(Instant);

impl Patience {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn is_at_end(&self) -> bool {
        self.0.elapsed() > PATIENCE
    }
}

/// How long a write waits for a lock that somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// As long as the worker waits for any.
    Wait,
    /// Much shorter: others wait behind it.
    HardlyWait,
}
