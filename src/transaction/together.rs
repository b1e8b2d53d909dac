//! The flush of several states by one statement.
//!
//! # Contract
//!
//! States are planned one after the other in the order of class and key, and what is to be written of them is
//! collected in a [`Group`]. A group is written by one statement (`store::write_many`), which locks its rows in the
//! same order. A state that is not in the version that its plan says is then written by itself, as a single one
//! would be at its second attempt; its row is locked already.
//!
//! What one statement may not do in place of several goes by itself, and the group before it first, so that the
//! order of locks stays:
//! - where users' code runs on the tables: it would see that the states are written together;
//! - for a role under row-level security, to whom a row that was not written may only be hidden;
//! - states of `behind` classes, which have locks and versions of their own, and states with deferred versions.
//!
//! A group holds states staged by one role: the statement runs as that role. Their `search_path` may differ, it
//! matters to users' code only.

use super::alone::{check_rules, finish, flush_state, write_alone};
use super::batch::with;
use super::current::Look;
use super::effect::{Effect, Outcome};
use super::known::Flushed;
use super::plan::{Way, bury, plan};
use super::record::Taken;
use super::row_change::Plan;
use crate::behind;
use crate::cache::StateRef;
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result};
use crate::identity::{Impersonation, SearchPath};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Item, Wrote};
use crate::sys;
use state_cache_memory::{Grow, collect, filled};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of documents that a group holds: the statement takes copies of them.
const MAX_GROUP: usize = 16 << 20;

/// What a state counts for beside its documents.
const OVERHEAD: usize = 512;

/// Classes of which a flush has very many states, and how many.
pub type Many = BTreeMap<Box<[u8]>, usize>;

/// States that are written together.
pub struct Group {
    catalog: Rc<Catalog>,
    many: Many,
    entries: Vec<Entry>,
    bytes: usize,
}

/// A state and what is to be done about it.
struct Entry {
    class: Rc<Class>,
    taken: Taken,
    plan: Plan,
}

impl Entry {
    /// As the store takes it, if something is to be written.
    fn item(&self) -> Option<Item<'_>> {
        let Plan::Write(change) = &self.plan else {
            return None;
        };
        Some(Item {
            class: &self.class,
            key: &self.taken.known.key,
            change: change.change()?,
        })
    }
}

impl Group {
    /// An empty one. `many` are the classes of which very many states come.
    pub fn new(catalog: &Rc<Catalog>, many: Many) -> Self {
        Self {
            catalog: Rc::clone(catalog),
            many,
            entries: Vec::new(),
            bytes: 0,
        }
    }

    /// Flushes a state: it joins the group, or is written by itself. What was made of it, and of those before it if
    /// they had to be written now, is added to `outcomes`.
    pub fn flush(&mut self, taken: Taken, outcomes: &mut Vec<Outcome>) -> Result<()> {
        let is_other = |first: &Entry| first.taken.pending.stager.user != taken.pending.stager.user;
        if self.bytes > MAX_GROUP || self.entries.first().is_some_and(is_other) {
            self.write(outcomes)?;
        }
        let Some((class, plan)) = self.plan(&taken)? else {
            self.write(outcomes)?;
            // Not before: locks are taken in the order of class and key.
            let class = &taken.known.class.name;
            if let Some(states) = self.many.get(class) {
                behind::lock_for_many(&self.catalog, class, *states)?;
            }
            outcomes.try_push(flush_state(&self.catalog, taken)?)?;
            return Ok(());
        };
        self.bytes += OVERHEAD + plan.bytes();
        self.entries.try_push(Entry { class, taken, plan })?;
        Ok(())
    }

    /// What is to be done about a state; `None` if it must be written by itself.
    fn plan(&self, taken: &Taken) -> Result<Option<(Rc<Class>, Plan)>> {
        let known = &taken.known;
        let class = self.catalog.class(&known.class.name)?;
        let is_deferred = known.flushed.as_ref().is_some_and(Flushed::is_deferred);
        if class.behind || is_deferred || self.catalog.runs_user_code() {
            return Ok(None);
        }
        crate::fault::stop_at!(ClassKnown);
        catalog::require_same(&self.catalog)?;
        let state = self.state(&class, &known.key);
        let _stager = Impersonation::begin(&taken.pending.stager, SearchPath::Unchanged);
        if self.catalog.access().row_security {
            return Ok(None);
        }
        check_rules(&state, taken)?;
        let _snapshot = PushedSnapshot::transaction();
        let plan = plan(&state, taken, Way::WriteThrough, Look::Quick)?;
        Ok(plan.may_join().then_some((class, plan)))
    }

    fn state<'a>(&self, class: &Rc<Class>, key: &'a [u8]) -> StateRef<'a> {
        StateRef::of(&self.catalog, Rc::clone(class), key)
    }

    /// Writes those that have joined; what was made of them is added to `outcomes`.
    pub fn write(&mut self, outcomes: &mut Vec<Outcome>) -> Result<()> {
        let entries = std::mem::take(&mut self.entries);
        self.bytes = 0;
        let Some(first) = entries.first() else {
            return Ok(());
        };
        let command = sys::begin_command();
        let mut wrote = {
            let _stager = Impersonation::begin(&first.taken.pending.stager, SearchPath::Unchanged);
            self.write_together(&entries)?.into_iter()
        };
        for Entry { class, taken, plan } in entries {
            let effect = match plan {
                Plan::Done(effect) => effect,
                Plan::Write(change) => match wrote.next() {
                    Some(Wrote::Version(made)) => {
                        let state = self.state(&class, &taken.known.key);
                        let _stager =
                            Impersonation::begin(&taken.pending.stager, SearchPath::Unchanged);
                        let made = change.put_right(&state, made, command)?;
                        change.effect(made)
                    }
                    wrote => self.write_again(&class, &taken, wrote)?,
                },
            };
            outcomes.try_push(finish(taken, effect, false)?)?;
        }
        Ok(())
    }

    /// Writes a state by itself of which the common statement has written nothing, or made a row of one that was
    /// gone.
    fn write_again(
        &self,
        class: &Rc<Class>,
        taken: &Taken,
        wrote: Option<Wrote>,
    ) -> Result<Effect> {
        let state = self.state(class, &taken.known.key);
        let runs_user_code = self.catalog.runs_user_code();
        catalog::require_same(&self.catalog)?;
        let _stager = Impersonation::begin(
            &taken.pending.stager,
            SearchPath::where_user_code(runs_user_code),
        );
        if let Some(Wrote::Gone(version)) = wrote {
            self.bury(&state, taken, version)?;
        }
        write_alone(&state, taken, Way::WriteThrough, 1)
    }

    /// Writes what the plans of these say; what was done about each that is to be written.
    fn write_together(&self, entries: &[Entry]) -> Result<Vec<Wrote>> {
        let items = collect(entries.iter().filter_map(Entry::item))?;
        // Somebody may have put it there since the first of them was planned.
        if self.catalog.runs_user_code() {
            return Ok(filled(Wrote::Nothing, items.len())?);
        }
        let _snapshot = PushedSnapshot::transaction();
        match items.as_slice() {
            [] => Ok(Vec::new()),
            [item] => {
                let made = store::write_one(&self.catalog, item)?;
                Ok(vec![made.map_or(Wrote::Nothing, Wrote::Version)])
            }
            items => store::write_many(&self.catalog, items),
        }
    }

    /// Makes a tombstone of the head row that the statement has made in place of one that was gone: from here on it
    /// is a state that is not there.
    fn bury(&self, state: &StateRef<'_>, taken: &Taken, version: i64) -> Result<()> {
        if !self.catalog.is_installed() {
            return Err(Error::Reinstalled);
        }
        // The server has not noticed that the transaction's snapshot still sees the row.
        if sys::isolation_uses_transaction_snapshot() {
            return Err(Error::Raced {
                state: state.shown(),
            });
        }
        let version = bury(state, version)?;
        let buried = Effect::Deleted { version };
        with(|batch| batch.record(taken, buried, false))
    }
}
