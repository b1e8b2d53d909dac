//! The batch: what this transaction has staged, flushed and seen, and the transaction callbacks.
//!
//! # Contract
//!
//! A change is staged in this backend's memory and written to L3 by a flush: at COMMIT
//! (`XACT_EVENT_PRE_COMMIT`) or by `state_batch_commit()`. Staged changes behave like rows of a table
//! that this transaction has changed:
//!
//! - **Commands.** Each carries the command id under which it was made; a snapshot sees it if its own
//!   command id is higher. So a cursor does not see what was staged after it was opened.
//! - **Subtransactions.** Before a subtransaction first changes what is known of a state, the old
//!   knowledge goes into its frame (`frames`). An abort puts it back; a commit hands it to the parent.
//!   Abort callbacks only move values back into places that exist; commit callbacks move frames into
//!   room reserved at `SUBXACT_EVENT_PRE_COMMIT_SUB`.
//! - **Privileges.** The flush runs as the role that staged the change. Before another role reads or
//!   changes the state it is flushed, so that the tables' privileges and policies have answered. A role that
//!   may not read the tables is refused before that.
//!
//! **Whose it is.** What is staged belongs to the role that was current when it was staged, as does an explicit
//! batch (`explicit`) with its rule and what it has read. A transaction with several roles (SECURITY DEFINER, SET
//! ROLE, code that a command runs as a table's owner) has one of each for each role, side by side; being a superuser,
//! or a member of the role, changes nothing.
//! - What a role stages or reads while another role's batch is open is no part of that batch and not under its rule.
//! - `state_batch_status`, `_commit` and `_rollback` show, flush and drop what the current role has staged, and
//!   nothing else. `_begin` is refused only where the current role's own batch is open.
//! - COMMIT flushes all that is staged, each role's by the rule of its batch, and so does a transaction that runs out
//!   of memory, but for what explicit batches hold.
//! - A state that one role's batch has staged is refused to another role until that batch is ended: flushing it would
//!   tear the batch apart.
//! - What the transaction itself has written is no conflict for any of its batches.
//! - In a security-restricted operation (REFRESH MATERIALIZED VIEW, CREATE INDEX, ANALYZE, ... of somebody else's
//!   objects) nothing is put off: a change is written there and then, and a batch cannot begin. The server forbids
//!   deferred triggers there for the same reason: what runs at COMMIT runs outside.
//!
//! **At COMMIT** (`commit`), in this order: flush until nothing is staged, firing deferred triggers
//! after each round, since what the flush writes may violate deferred constraints and the triggers may
//! stage again; reserve L1 memory and raise the marks (`cache::publish`); queue the notifications (`notify`).
//! All of that may fail, and then the transaction aborts. After it nothing can be staged any more.
//! `XACT_EVENT_COMMIT` and `XACT_EVENT_ABORT` publish or take back the marks and forget everything;
//! they allocate nothing and cannot fail.
//!
//! **Row locks** are taken by the flush, states in the order of class and key, so that two flushes
//! cannot wait for each other. It writes all states by one statement where it can (`flush_many`). Only a state with more staged operations than [`staged::MAX_OPERATIONS`]
//! is locked earlier.
//!
//! **Dropping** what is staged (`state_batch_rollback`) goes back to what was staged when the explicit batch began; without
//! one, to what was decided for good ([`keep`]). What is flushed is not dropped.
//!
//! **Write-behind** (`behind` says more). A flush of a state of a `behind` class may decide its version and
//! write nothing: the version is *left*. It stays here until COMMIT, where L1 takes it or the tables do
//! (`leave`). What a transaction has left it reads here, never in the tables.
//!
//! **Memory.** A transaction that holds more than [`MAX_HELD`] bytes of documents flushes early; a role with an
//! explicit batch, which must be able to drop what it staged, is refused more.
//!
//! The batch is one thread-local value. It is borrowed for moments only, never across SQL: a statement of
//! ours may fire a user's trigger that calls us again.

mod by_hand;
mod callbacks;
mod capability;
mod change;
mod commit;
mod explicit;
mod flush;
mod flush_many;
mod frames;
mod leave;
mod save;
mod settlements;
pub mod staged;
mod step;
mod view;
mod write;

use crate::cache::StateRef;
use crate::cache::read::{Form, Found, Ground};
use crate::callback::Kept;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::{behind, cache, memory, shared, store};
use explicit::Explicits;
use frames::Frames;
use staged::State;
use state_cache_memory::{collect, room_in_map};
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

pub use by_hand::{Bucket, ChangeByHand, Untraced, note_change_by_hand};
pub use capability::Capability;
pub use change::{
    apply, begin as check_may_change, check_may_write, delete, expire, expires_after, set, touch,
};
pub use explicit::{OnConflict, batch_status, begin_batch, commit_batch, roll_back_batch};
pub use leave::write_all as write_left;
pub use save::{
    Saved, keep, keep_for_commit, keep_staged, save, settle_before_recovery, write_staged,
};
pub use settlements::settle;
pub use staged::{Edit, Operation};
pub use view::{read, read_newest};

/// Called when the library is loaded: registers the callbacks, and what the rooms above add to a transaction.
pub fn init(capabilities: &'static [&'static dyn Capability]) {
    capability::register(capabilities);
    callbacks::register();
}

/// Notes a version that only L1 held of a state whose head row this transaction deletes by hand.
pub fn raise_floor(class: &crate::catalog::Class, key: &[u8], version: i64) -> Result<()> {
    with(|batch| batch.by_hand.raise_floor(&class.name, key, version))
}

/// A state has been changed in the tables past this transaction's batch: what becomes of it is what becomes of a change
/// by hand.
pub fn note_by_hand(
    catalog: &Rc<Catalog>,
    class: &crate::catalog::Class,
    key: &[u8],
) -> Result<()> {
    with(|batch| {
        batch
            .scope
            .catalog
            .get_or_insert_with(|| Rc::clone(catalog));
        batch.by_hand.note_state((class.name.clone(), key.into()))
    })
}

/// The highest version of a state's bucket whose head row this transaction has deleted by hand, 0 for none.
pub fn own_floor(class: &[u8], key: &[u8]) -> i64 {
    with(|batch| batch.by_hand.floor(class, key))
}

/// Locks a state for the rest of the transaction, before a decision that must still hold at COMMIT: what is read
/// of it from here on ([`read_locked`]) stays until then. An absent state is not locked.
///
/// # Errors
/// As those of a change of the state; at REPEATABLE READ `40001` if it has moved since the snapshot.
pub fn lock(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    change::begin(state, function)?;
    behind::lock(&state.catalog, Rc::clone(&state.class), state.key)?;
    store::lock(&state.catalog, &state.class.name, state.key)?;
    // Outside an explicit batch, operations that are staged are shown on top of what is there. In a batch that says no
    // of what has moved that is said now, and one that would not look does.
    let on_conflict = with(|batch| batch.scope.explicit.own_rule());
    match on_conflict {
        None => Ok(()),
        Some(OnConflict::Error) => save::write_staged_as(state, OnConflict::Error),
        Some(OnConflict::Reapply | OnConflict::Overwrite) => {
            save::write_staged_as(state, OnConflict::Reapply)
        }
    }
}

/// Reads a state that is locked, with the changes of this transaction.
pub fn read_locked<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    // The caller's snapshot may be older than the lock.
    let _snapshot = PushedSnapshot::transaction();
    read_newest(state, form)
}

/// Stages an operation on a state that is locked, upon what [`read_locked`] finds: the caller's snapshot may be older, and
/// a batch that overwrites would write what the operation makes of that.
pub fn apply_locked(state: &StateRef<'_>, operation: Operation, function: &CStr) -> Result<()> {
    let _snapshot = PushedSnapshot::transaction();
    apply(state, operation, function)
}

/// Reads a state as it is now, with the changes of this transaction, whatever the isolation level.
pub fn read_latest<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    let _snapshot = PushedSnapshot::latest();
    read_newest(state, form)
}

/// This transaction holds a lock on a claim: prepared, it would keep everybody from the run, whatever the lease.
pub fn note_claim() {
    with(|batch| batch.holds_claim = true);
}

/// From here on this transaction writes the run under the claim with this token, which a flush checks; or under none.
pub fn fence(state: &StateRef<'_>, token: Option<i64>) -> Result<()> {
    with(|batch| {
        batch.changing(state)?.fence = token;
        Ok(())
    })
}

/// The token of the claim under which this transaction writes the run, if one was named.
pub fn fence_of(state: &StateRef<'_>) -> Result<Option<i64>> {
    with(|batch| {
        let id = Batch::id(&state.catalog, &state.class.name, state.key);
        let known = batch.known(id, &state.class.name, state.key)?;
        Ok(known.and_then(|known| known.fence))
    })
}

/// Whether a change of a state is staged.
pub fn is_staged(state: &StateRef<'_>) -> Result<bool> {
    with(|batch| batch.is_dirty(state))
}

/// Bytes of documents that a transaction holds in memory. With more, it flushes early and from then on
/// relies on the tables for what it has flushed.
const MAX_HELD: usize = 64 << 20;

/// What the changes of the transaction belong to; a subtransaction that aborts puts it back.
#[derive(Clone, Default)]
struct Scope {
    /// The installation.
    catalog: Option<Rc<Catalog>>,
    /// The explicit batches that are open.
    explicit: Explicits,
    /// States of which something staged outside an explicit batch was decided for good: dropping what is staged goes
    /// back to these.
    kept: Rc<HashMap<u128, State>>,
}

impl Scope {
    /// What is staged of a state is about to be written: dropping what is staged does not bring back what was staged
    /// before.
    fn forget_staged_before(&mut self, id: u128) -> Result<()> {
        if self.kept.contains_key(&id) {
            to_change(&mut self.kept)?.remove(&id);
        }
        self.explicit.forget_staged_before(id)
    }
}

/// States to be changed, with room for one more: a copy where what a subtransaction would go back to has them, too.
fn to_change(states: &mut Rc<HashMap<u128, State>>) -> Result<&mut HashMap<u128, State>> {
    if Rc::get_mut(states).is_none() {
        let mut copied = HashMap::new();
        room_in_map(&mut copied, states.len() + 1)?;
        for (id, state) in &**states {
            memory::check()?;
            copied.insert(*id, state.clone());
        }
        *states = Rc::new(copied);
    }
    let states = Rc::make_mut(states);
    room_in_map(states, 1)?;
    Ok(states)
}

/// Where the transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Changes can be staged.
    #[default]
    Open,
    /// The last flush is done.
    Committing,
}

/// What this transaction has done to states.
#[derive(Default)]
pub struct Batch {
    scope: Scope,
    /// By the hash of class and key. Once a state is here it stays until the transaction ends.
    states: HashMap<u128, State>,
    frames: Frames,
    by_hand: by_hand::ByHand,
    /// Dirty entries of L1 that this transaction has written.
    settlements: settlements::Settlements,
    /// Bytes staged since `held` was last counted, and what was counted then.
    grown: usize,
    held: usize,
    /// Bytes of the documents that this transaction leaves to the worker, as things stand: what is replaced, written
    /// or rolled back counts no more.
    left: usize,
    /// Of the states of `behind` classes that this transaction has read under one snapshot, what it found first.
    read_behind: HashMap<u128, Ground>,
    publication: crate::cache::publish::Publication,
    phase: Phase,
    /// Whether the transaction holds a lock on a claim, which must end with this backend.
    holds_claim: bool,
}

thread_local! {
    static BATCH: Kept<Batch> = Kept::default();
}

/// The batch of this transaction, for a moment.
fn with<T>(f: impl FnOnce(&mut Batch) -> T) -> T {
    BATCH.with(|kept| kept.with(f))
}

impl Batch {
    /// The hash under which a state is known here.
    fn id(catalog: &Catalog, class: &[u8], key: &[u8]) -> u128 {
        shared::key(catalog.database, catalog.incarnation, class, key)
            .id
            .0
    }

    /// What is known of a state, if anything.
    fn known(&self, id: u128, class: &[u8], key: &[u8]) -> Result<Option<&State>> {
        match self.states.get(&id) {
            Some(state) if *state.class.name == *class && *state.key == *key => Ok(Some(state)),
            None => Ok(None),
            Some(_) => Err(collision()),
        }
    }

    /// What is known of a state, to be changed under this command: saved first for the subtransaction
    /// that is running.
    fn changing(&mut self, state: &StateRef<'_>) -> Result<&mut State> {
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        self.known(id, &state.class.name, state.key)?;
        room_in_map(&mut self.states, 1)?;
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let same = |known: &Rc<Catalog>| Rc::ptr_eq(known, &state.catalog);
        if !self.scope.catalog.as_ref().is_some_and(same) {
            self.scope.catalog = Some(Rc::clone(&state.catalog));
        }
        Ok(self
            .states
            .entry(id)
            .or_insert_with(|| State::new(Rc::clone(&state.class), state.key)))
    }

    /// Whether a change of a state is staged.
    fn is_dirty(&self, state: &StateRef<'_>) -> Result<bool> {
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        Ok(self
            .known(id, &state.class.name, state.key)?
            .is_some_and(State::is_dirty))
    }

    /// Whether the tables hold rows of this transaction for a state, so that only they can answer.
    fn has_own_rows(&self, state: &StateRef<'_>) -> Result<bool> {
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        let flushed = self
            .known(id, &state.class.name, state.key)?
            .is_some_and(State::is_in_tables);
        Ok(flushed || self.by_hand.any())
    }

    /// What this transaction has flushed of a state and left to the worker, if that is so.
    fn left(&self, state: &StateRef<'_>) -> Result<Option<staged::Flushed>> {
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        let known = self.known(id, &state.class.name, state.key)?;
        Ok(known.and_then(|known| known.flushed.clone().filter(staged::Flushed::is_left)))
    }

    /// What this transaction's flushes have made of a state, if they have made something.
    fn flushed_of(&self, state: &StateRef<'_>) -> Result<Option<&staged::Flushed>> {
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        let known = self.known(id, &state.class.name, state.key)?;
        Ok(known.and_then(|known| known.flushed.as_ref()))
    }

    /// The ids of the states with staged changes that are to be flushed, in the order in which they are locked.
    fn dirty(&self, whose: explicit::Whose) -> Result<Vec<u128>> {
        let is_meant = |state: &State| {
            let pending = state.pending.as_ref();
            pending.is_some_and(|it| whose.includes(it.stager.user, &self.scope.explicit))
        };
        in_order(self.states.iter().filter(|(_, state)| is_meant(state)))
    }

    /// Whether more than [`MAX_HELD`] bytes of documents are held, `grown` more than when last asked.
    /// Counting looks at every state, so it is done rarely.
    fn holds_too_much(&mut self, grown: usize) -> Result<bool> {
        self.grown += grown;
        if self.held + self.grown <= MAX_HELD || self.grown < MAX_HELD / 4 {
            return Ok(false);
        }
        self.grown = 0;
        // What only cursors need goes first.
        for (id, state) in &mut self.states {
            if state.has_older_views() {
                self.frames.save(*id, Some(state), &self.scope)?;
                state.give_up_older_views();
            }
        }
        self.held = self.states.values().map(State::held_bytes).sum();
        Ok(self.held > MAX_HELD)
    }

    /// Relies on the tables for all that is flushed, see [`State::spill`].
    fn spill(&mut self, give_up_older: bool) -> Result<()> {
        // SAFETY: reads this backend's transaction state.
        let command = unsafe { pgrx::pg_sys::GetCurrentCommandId(false) };
        for (id, state) in &mut self.states {
            if state.is_in_tables() {
                self.frames.save(*id, Some(state), &self.scope)?;
                state.spill(command, give_up_older);
            }
        }
        self.held = 0;
        Ok(())
    }

    /// The role that has staged a change of this state, if it is another one than `user`.
    fn other_stager(
        &self,
        state: &StateRef<'_>,
        user: pgrx::pg_sys::Oid,
    ) -> Result<Option<pgrx::pg_sys::Oid>> {
        if self.states.is_empty() {
            return Ok(None);
        }
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        let known = self.known(id, &state.class.name, state.key)?;
        let pending = known.and_then(|known| known.pending.as_ref());
        let stager = pending.map(|pending| pending.stager.user);
        Ok(stager.filter(|stager| *stager != user))
    }

    /// Version (0: absent) that the staged changes of a state build upon, if that is known.
    fn beneath(&self, state: &StateRef<'_>) -> Result<Option<i64>> {
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        let known = self.known(id, &state.class.name, state.key)?;
        Ok(
            known.and_then(|known| match known.pending.as_ref()?.intent {
                staged::Intent::Apply { base, .. } => Some(base.number),
                _ => known.beneath,
            }),
        )
    }

    /// Forgets the transaction. Frees memory and allocates none.
    fn reset(&mut self) {
        if !self.states.is_empty() {
            self.states = HashMap::new();
        }
        self.scope = Scope::default();
        self.frames.clear();
        self.by_hand.clear();
        self.settlements.clear();
        self.left = 0;
        if !self.read_behind.is_empty() {
            self.read_behind = HashMap::new();
        }
        behind::forget_locks();
        cache::forget_read();
        (self.grown, self.held) = (0, 0);
        self.phase = Phase::Open;
        self.holds_claim = false;
    }
}

/// The ids of these states in the order in which states are locked.
fn in_order<'a>(states: impl Iterator<Item = (&'a u128, &'a State)>) -> Result<Vec<u128>> {
    let mut states = collect(states)?;
    states.sort_unstable_by(|(_, a), (_, b)| (&a.class.name, &a.key).cmp(&(&b.class.name, &b.key)));
    Ok(collect(states.into_iter().map(|(id, _)| *id))?)
}

fn collision() -> Error {
    Error::Internal {
        message: "two states of this transaction have the same hash".to_owned(),
    }
}
