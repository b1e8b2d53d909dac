//! The flush: staged changes become rows.
//!
//! States are planned and written one after the other, in the order of class and key. A write names the version that
//! it replaces. The first attempt takes no lock of its own and succeeds unless somebody else has just changed the
//! state; the next ones lock the row first and look again, so that they cannot lose twice. What somebody else did in
//! between is a conflict where the caller relied on a version, and otherwise the ground that operations are applied
//! to again.

use super::alone::flush_state;
use super::batch::with;
use super::beneath::read_beneath;
use super::capability;
use super::effect::{Action, Done, Outcome};
use super::explicit::{Explicits, Whose};
use super::known::{OlderViews, OnConflict, State};
use super::plan::conflict;
use super::record::Rule;
use crate::behind;
use crate::cache::StateRef;
use crate::cache::forms::Head;
use crate::catalog::{self, Catalog};
use crate::counters::{Counter, CounterSet, Timer};
use crate::error::{Error, Result};
use crate::identity::{Impersonation, SearchPath};
use crate::memory;
use crate::snapshot::PushedSnapshot;
use crate::store::Writer;
use pgrx::pg_sys;
use state_cache_memory::{Grow, with_capacity};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Writes what is staged, each role's by the rule of its explicit batch. In one that fails on conflicts, states that
/// were only read are checked too.
pub fn flush(whose: Whose) -> Result<Vec<Outcome>> {
    let Some(catalog) = installation()? else {
        return Ok(Vec::new());
    };
    let (staged, explicit) = with(|batch| (batch.staged(whose), batch.scope.explicit.clone()));
    let staged = staged?;
    let timer = Timer::start();
    // What earlier commands of this transaction wrote must be visible to the reads below.
    // SAFETY: we are inside a transaction, not in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    if explicit.any() {
        check_reads(&catalog, whose, &explicit)?;
    }
    let outcomes = flush_in_order(&catalog, staged)?;
    // Where a write had to wait for DROP EXTENSION, it went to tables that were created after.
    if !catalog.is_installed() {
        return Err(Error::Reinstalled);
    }
    after_flush(&catalog, &outcomes, &timer)?;
    Ok(outcomes)
}

/// The installation of the transaction's changes as it is now; `None` if there is nothing to flush. Staged changes go
/// with tables that this transaction has dropped itself.
fn installation() -> Result<Option<Rc<Catalog>>> {
    let Some(catalog) = with(|batch| batch.scope.catalog.clone()) else {
        return Ok(None);
    };
    match catalog::renewed(&catalog) {
        Ok(catalog) => {
            with(|batch| batch.scope.catalog = Some(Rc::clone(&catalog)));
            Ok(Some(catalog))
        }
        Err(Error::NotInstalled) if catalog.may_be_dropped_by_us() => {
            with(|batch| {
                batch.scope.kept = Rc::default();
                batch.states.try_each(|_, state| {
                    state.unstage();
                    Ok(())
                })
            })?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Flushes states in the order in which they are locked.
fn flush_in_order(catalog: &Rc<Catalog>, staged: Vec<u128>) -> Result<Vec<Outcome>> {
    let mut outcomes = with_capacity(staged.len())?;
    let mut many = classes_of_many(&staged)?;
    let mut writer = Writer::new(catalog);
    for id in staged {
        memory::check()?;
        let Some(taken) = with(|batch| batch.take(id, Rule::OfStager))? else {
            continue;
        };
        if !taken.known.belongs_to(catalog) {
            // Staged before this transaction dropped the extension and created it again.
            with(|batch| batch.states.get_mut(&id).map(State::unstage));
            continue;
        }
        // At the first state of the class, and not before: locks are taken in the order of class and key.
        let class = &taken.known.class.name;
        if let Some(states) = many.remove(class) {
            behind::lock_for_many(catalog, class, states)?;
        }
        outcomes.try_push(flush_state(catalog, taken, &mut writer)?)?;
    }
    Ok(outcomes)
}

/// The classes of which very many states are to be written, and how many. Whether one is a `behind` class may
/// change until the flush comes to it.
fn classes_of_many(staged: &[u128]) -> Result<BTreeMap<Box<[u8]>, usize>> {
    let mut counts = BTreeMap::<Box<[u8]>, usize>::new();
    with(|batch| {
        for state in staged.iter().filter_map(|id| batch.states.get(id)) {
            match counts.get_mut(&state.class.name) {
                Some(count) => *count += 1,
                None => {
                    memory::check()?;
                    counts.insert(state.class.name.clone(), 1);
                }
            }
        }
        Ok::<_, Error>(())
    })?;
    counts.retain(|_, states| behind::is_many(*states));
    Ok(counts)
}

/// Writes what is staged of one state, outside an explicit batch.
pub fn flush_one(state: &StateRef<'_>) -> Result<()> {
    flush_now(state, None).map(|_| ())
}

/// Writes what is staged of one state by this rule; what was done, if there was something.
pub fn flush_now(state: &StateRef<'_>, on_conflict: Option<OnConflict>) -> Result<Option<Done>> {
    let timer = Timer::start();
    // SAFETY: we are inside a transaction; PostgreSQL raises its own error in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    let id = state.id();
    let Some(taken) = with(|batch| batch.take(id, Rule::Given(on_conflict)))? else {
        return Ok(None);
    };
    let outcome = flush_state(&state.catalog, taken, &mut Writer::new(&state.catalog))?;
    let done = Done {
        action: outcome.action,
        version: outcome.version,
    };
    after_flush(&state.catalog, &[outcome], &timer)?;
    Ok(Some(done))
}

/// Writes what is staged of a state, whether or not a batch is open.
pub fn write_staged(state: &StateRef<'_>) -> Result<()> {
    let on_conflict = with(|batch| batch.scope.explicit.own_rule());
    flush_now(state, on_conflict).map(|_| ())
}

/// The same as if the batch had been opened with this rule.
pub fn write_staged_as(state: &StateRef<'_>, on_conflict: OnConflict) -> Result<()> {
    flush_now(state, Some(on_conflict)).map(|_| ())
}

/// What follows the writes of a flush.
fn after_flush(catalog: &Catalog, outcomes: &[Outcome], timer: &Timer) -> Result<()> {
    let wrote = outcomes.iter().any(|it| it.action != Action::Unchanged);
    if wrote && catalog.rows_may_be_rewritten() {
        // Only the tables know what was written.
        with(|batch| batch.spill(OlderViews::Keep))?;
    }
    tell_of_deletes(catalog, outcomes)?;
    count(outcomes, timer);
    Ok(())
}

/// Tells the capabilities which states the flush has deleted.
fn tell_of_deletes(catalog: &Catalog, outcomes: &[Outcome]) -> Result<()> {
    let deleted = outcomes
        .iter()
        .filter(|outcome| outcome.action == Action::Deleted);
    for Outcome { class, key, .. } in deleted {
        for capability in capability::all() {
            capability.after_delete(catalog, &class.name, key)?;
        }
    }
    Ok(())
}

/// `40001` if a state has moved that a batch which fails on conflicts has only read; asked as the role that read it.
fn check_reads(catalog: &Rc<Catalog>, whose: Whose, explicit: &Explicits) -> Result<()> {
    let is_meant =
        |role| whose.includes(role, explicit) && explicit.rule_of(role) == Some(OnConflict::Error);
    let mut read_only = Vec::new();
    if !explicit.0.iter().any(|batch| is_meant(batch.owner)) {
        return Ok(());
    }
    with(|batch| -> Result<()> {
        for state in batch.states.values() {
            for base in &state.bases {
                let role = base.reader.user;
                if is_meant(role) && !state.is_staged_by(role) {
                    memory::check()?;
                    read_only.try_push((state.clone(), base.clone()))?;
                }
            }
        }
        Ok(())
    })?;
    // Under the transaction's own snapshot nothing moves at REPEATABLE READ.
    let _snapshot = PushedSnapshot::latest();
    for (known, base) in read_only {
        let _reader = Impersonation::begin(&base.reader, SearchPath::Unchanged);
        let class = Rc::clone(&known.class);
        let state = StateRef::of(catalog, class, &known.key);
        let found = read_beneath(&state, &mut Head)?.ground();
        if found != base.ground {
            return Err(conflict(&state, base.ground.number, found.number));
        }
    }
    Ok(())
}

fn count(outcomes: &[Outcome], timer: &Timer) {
    let mut flushed: Vec<Rc<CounterSet>> = Vec::new();
    for outcome in outcomes {
        let counters = &outcome.class.counters;
        let counter = match outcome.action {
            Action::Written => Counter::StatesWritten,
            Action::Deleted => Counter::StatesDeleted,
            Action::Unchanged if outcome.was_document => Counter::DuplicatesSkipped,
            Action::Unchanged => continue,
        };
        counters.count(counter);
        let wrote = outcome.action != Action::Unchanged;
        if wrote && !flushed.iter().any(|known| Rc::ptr_eq(known, counters)) {
            flushed.push(Rc::clone(counters));
        }
    }
    for counters in flushed {
        counters.count(Counter::Flushes);
        timer.stop(&counters, Counter::FlushTime);
    }
}
