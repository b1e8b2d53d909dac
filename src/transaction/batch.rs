//! The batch: all that a transaction knows beside its snapshot, as one value of the backend.

use super::by_hand::ByHand;
use super::dependents::Dependents;
use super::explicit::Whose;
use super::frames::Frames;
use super::known::{Flushed, Intent, OlderViews, State};
use super::scope::Scope;
use super::states::KnownStates;
use crate::cache::StateRef;
use crate::cache::found::Ground;
use crate::cache::publish::{Publication, WrittenBack};
use crate::callback::Kept;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::{shared, sys};
use pgrx::pg_sys;
use state_cache_memory::{Grow, collect, room_in_map};
use state_cache_nested::Nested;
use std::collections::HashMap;
use std::rc::Rc;

/// Bytes of documents that a transaction holds in memory. With more, it flushes early and from then on
/// relies on the tables for what it has flushed.
pub const MAX_HELD: usize = 64 << 20;

/// Where the transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Changes can be staged.
    #[default]
    Open,
    /// The last flush is done.
    Committing,
}

/// What this transaction has done to states.
#[derive(Default)]
pub struct Batch {
    pub scope: Scope,
    /// By the hash of class and key. Once a state is here it stays until the transaction ends.
    pub states: KnownStates,
    pub frames: Frames,
    pub by_hand: ByHand,
    /// What was changed of what derived documents depend on.
    pub dependents: Dependents,
    /// What becomes of dirty entries of L1 that this transaction has written back, once it has committed.
    pub written_back: Nested<Vec<WrittenBack>>,
    /// Bytes staged since `held` was last counted, and the bytes counted then.
    pub grown: usize,
    pub held: usize,
    /// Bytes of the documents of deferred versions. A version that was replaced, written or rolled back counts no
    /// more.
    pub deferred_bytes: usize,
    /// Of the states of `behind` classes that this transaction has read under its one snapshot: what the first read
    /// found.
    pub read_behind: HashMap<u128, Ground>,
    pub publication: Publication,
    pub phase: Phase,
    /// Whether the transaction holds a lock on a claim, which must end with this backend.
    pub holds_claim: bool,
}

thread_local! {
    pub static BATCH: Kept<Batch> = Kept::default();
}

/// The batch of this transaction, for a moment.
pub fn with<T>(f: impl FnOnce(&mut Batch) -> T) -> T {
    BATCH.with(|kept| kept.with(f))
}

impl Batch {
    /// The hash under which a state is known here.
    pub fn id(catalog: &Catalog, class: &[u8], key: &[u8]) -> u128 {
        shared::key(catalog.database, catalog.incarnation, class, key)
            .id
            .0
    }

    /// What is known of a state, if anything.
    pub fn known(&self, id: u128, class: &[u8], key: &[u8]) -> Result<Option<&State>> {
        match self.states.get(&id) {
            Some(state) if *state.class.name == *class && *state.key == *key => Ok(Some(state)),
            None => Ok(None),
            Some(_) => Err(collision()),
        }
    }

    /// What is known of a state, if anything.
    pub fn known_of(&self, state: &StateRef<'_>) -> Result<Option<&State>> {
        if self.states.is_empty() {
            return Ok(None);
        }
        self.known(state.id(), &state.class.name, state.key)
    }

    /// What is known of a state, to be changed under this command. The running subtransaction first saves what it
    /// would go back to.
    pub fn changing(&mut self, state: &StateRef<'_>) -> Result<&mut State> {
        let id = state.id();
        self.known(id, &state.class.name, state.key)?;
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let incarnation = state.catalog.incarnation;
        let same = |known: &Rc<Catalog>| Rc::ptr_eq(known, &state.catalog);
        if !self.scope.catalog.as_ref().is_some_and(same) {
            self.scope.catalog = Some(Rc::clone(&state.catalog));
        }
        let new = || State::new(Rc::clone(&state.class), incarnation, state.key);
        self.states.get_or_insert_with(id, new)
    }

    /// Whether a change of a state is staged.
    pub fn is_staged(&self, state: &StateRef<'_>) -> Result<bool> {
        Ok(self.known_of(state)?.is_some_and(State::is_staged))
    }

    /// Whether the tables hold rows of this transaction for a state, so that only they can answer.
    pub fn has_own_rows(&self, state: &StateRef<'_>) -> Result<bool> {
        let flushed = self.known_of(state)?.is_some_and(State::is_in_tables);
        Ok(flushed || self.by_hand.any())
    }

    /// The version of a state that a flush of this transaction has deferred, if there is one.
    pub fn deferred(&self, state: &StateRef<'_>) -> Result<Option<Flushed>> {
        let known = self.known_of(state)?;
        Ok(known.and_then(|known| known.flushed.clone().filter(Flushed::is_deferred)))
    }

    /// What this transaction's flushes have made of a state, if they have made something.
    pub fn flushed_of(&self, state: &StateRef<'_>) -> Result<Option<&Flushed>> {
        let known = self.known_of(state)?;
        Ok(known.and_then(|known| known.flushed.as_ref()))
    }

    /// The ids of the states with staged changes that are to be flushed, in the order in which they are locked.
    pub fn staged(&self, whose: Whose) -> Result<Vec<u128>> {
        let is_meant = |state: &State| {
            let pending = state.pending.as_ref();
            pending.is_some_and(|it| whose.includes(it.stager.user, &self.scope.explicit))
        };
        in_order((self.states.unsettled()).filter(|(_, state)| is_meant(state)))
    }

    /// Whether anything is staged.
    pub fn is_any_staged(&self) -> bool {
        self.states.unsettled().any(|(_, state)| state.is_staged())
    }

    /// Whether more than [`MAX_HELD`] bytes of documents are held, `grown` more than when last asked.
    /// Counting looks at every state of which a document may be held, so it is done rarely.
    pub fn holds_too_much(&mut self, grown: usize) -> Result<bool> {
        self.grown += grown;
        if self.held + self.grown <= MAX_HELD || self.grown < MAX_HELD / 4 {
            return Ok(false);
        }
        self.grown = 0;
        // What only cursors need goes first.
        self.held = 0;
        self.states.settle(|id, state| {
            if state.has_older_views() {
                self.frames.save(id, Some(state), &self.scope)?;
                state.give_up_older_views();
            }
            self.held += state.held_bytes();
            Ok(())
        })?;
        Ok(self.held > MAX_HELD)
    }

    /// Relies on the tables for all that is flushed, see [`State::spill`].
    pub fn spill(&mut self, older: OlderViews) -> Result<()> {
        // SAFETY: reads this backend's transaction state.
        let command = unsafe { pg_sys::GetCurrentCommandId(false) };
        self.states.settle(|id, state| {
            if state.is_in_tables() {
                self.frames.save(id, Some(state), &self.scope)?;
                state.spill(command, older);
            }
            Ok(())
        })?;
        self.held = 0;
        Ok(())
    }

    /// The role that has staged a change of this state, if it is another one than `user`.
    pub fn other_stager(
        &self,
        state: &StateRef<'_>,
        user: pg_sys::Oid,
    ) -> Result<Option<pg_sys::Oid>> {
        let known = self.known_of(state)?;
        let pending = known.and_then(|known| known.pending.as_ref());
        let stager = pending.map(|pending| pending.stager.user);
        Ok(stager.filter(|stager| *stager != user))
    }

    /// Version (0: absent) that the staged changes of a state build upon, if that is known.
    pub fn beneath(&self, state: &StateRef<'_>) -> Result<Option<i64>> {
        let known = self.known_of(state)?;
        Ok(
            known.and_then(|known| match known.pending.as_ref()?.intent {
                Intent::Apply { base, .. } => Some(base.number),
                _ => known.beneath,
            }),
        )
    }

    /// The running subtransaction is about to commit: makes room for what it hands to its parent.
    pub fn subtransaction_commits(&mut self) -> Result<()> {
        self.frames.prepare_commit()?;
        self.by_hand.prepare_commit()?;
        self.dependents.prepare_commit()?;
        Ok(self.written_back.prepare_commit(sys::nest_level())?)
    }

    /// The running subtransaction has committed: what it did its parent has done. Allocates nothing.
    pub fn subtransaction_committed(&mut self) {
        self.frames.commit();
        self.by_hand.commit();
        self.dependents.commit();
        self.written_back.commit(sys::nest_level());
    }

    /// The running subtransaction has aborted: nothing of it was done. Allocates nothing.
    pub fn subtransaction_aborted(&mut self) {
        self.frames
            .abort(&mut self.states, &mut self.scope, &mut self.deferred_bytes);
        self.by_hand.abort();
        self.dependents.abort();
        self.written_back.abort(sys::nest_level(), drop);
    }

    /// Forgets the transaction. Frees memory and allocates none.
    pub fn reset(&mut self) {
        if !self.states.is_empty() {
            self.states = KnownStates::default();
        }
        self.scope = Scope::default();
        self.frames.clear();
        self.by_hand.clear();
        self.dependents.clear();
        self.written_back.clear();
        self.deferred_bytes = 0;
        if !self.read_behind.is_empty() {
            self.read_behind = HashMap::new();
        }
        (self.grown, self.held) = (0, 0);
        self.phase = Phase::Open;
        self.holds_claim = false;
    }

    pub fn note_read_behind(&mut self, state: &StateRef<'_>, ground: Ground) -> Result<()> {
        let id = state.id();
        room_in_map(&mut self.read_behind, 1)?;
        self.read_behind.entry(id).or_insert(ground);
        Ok(())
    }

    /// What the first read of a state of a `behind` class found, where that was noted.
    pub fn read_behind(&self, state: &StateRef<'_>) -> Option<Ground> {
        if self.read_behind.is_empty() {
            return None;
        }
        let id = state.id();
        self.read_behind.get(&id).copied()
    }
}

/// The ids of these states in the order in which states are locked.
pub fn in_order<'a>(states: impl Iterator<Item = (&'a u128, &'a State)>) -> Result<Vec<u128>> {
    let mut states = collect(states)?;
    states.sort_unstable_by(|(_, a), (_, b)| (&a.class.name, &a.key).cmp(&(&b.class.name, &b.key)));
    Ok(collect(states.into_iter().map(|(id, _)| *id))?)
}

fn collision() -> Error {
    Error::Internal {
        message: "two states of this transaction have the same hash".to_owned(),
    }
}

/// Notes what becomes of a dirty entry if this transaction commits, which has written the entry's version back.
pub fn note_written_back(entry: WrittenBack) -> Result<()> {
    with(|batch| {
        let here = batch.written_back.at(sys::nest_level(), Vec::new)?;
        Ok(here.try_push(entry)?)
    })
}
