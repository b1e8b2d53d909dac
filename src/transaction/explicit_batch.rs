//! What `state_batch_begin`, `_commit`, `_rollback` and `_status` do.

use super::batch::{Batch, with};
use super::effect::Outcome;
use super::explicit::{Explicit, Whose};
use super::flush;
use super::known::{Intent, OnConflict, State};
use crate::error::{Error, Result};
use crate::identity::is_sandboxed;
use crate::snapshot::PushedSnapshot;
use crate::{memory, sys};
use pgrx::pg_sys;
use state_cache_memory::{Grow, collect, room_in_map};
use std::collections::HashMap;
use std::rc::Rc;

/// Opens an explicit batch of the current role.
///
/// # Errors
/// `55000` if the role has one open, or in a security-restricted operation, which the batch would outlive.
pub fn begin_batch(on_conflict: OnConflict) -> Result<()> {
    if is_sandboxed() {
        return Err(Error::RestrictedBatch);
    }
    with(|batch| batch.begin(on_conflict))
}

/// Flushes what the current role has staged and closes its explicit batch, if one is open; what was made of each
/// state.
pub fn commit_batch() -> Result<Vec<Outcome>> {
    let outcomes = {
        let _snapshot = PushedSnapshot::transaction();
        flush::flush(Whose::Role(sys::current_user()))?
    };
    with(Batch::end)?;
    Ok(outcomes)
}

/// Drops what the current role has staged; see [`Batch::roll_back`].
pub fn roll_back_batch() -> Result<bool> {
    with(Batch::roll_back)
}

/// A state that the current role has staged, or that its explicit batch has read.
pub struct Status {
    /// The name of its class.
    pub class: Box<[u8]>,
    /// Its key.
    pub key: Rc<[u8]>,
    /// Whether the role has staged a change of it.
    pub is_staged: bool,
    /// Version (0: absent) that the staged changes build upon, or that the batch has read, as far as it is known.
    pub built_upon: Option<i64>,
    /// Bytes held for what the role has staged.
    pub staged_bytes: usize,
}

/// What the current role has staged, and what its explicit batch has read, in the order of class and key.
pub fn batch_status() -> Result<Vec<Status>> {
    let role = sys::current_user();
    let mut shown = with(|batch| {
        let states = batch.states.values();
        let shown = states.filter(|it| it.is_staged_by(role) || it.base_of(role).is_some());
        memory::checked(shown.map(|state| state.status(role)))
    })?;
    shown.sort_unstable_by(|a, b| (&a.class, &a.key).cmp(&(&b.class, &b.key)));
    Ok(shown)
}

impl Batch {
    /// Opens an explicit batch of the current role; `55000` if it has one open.
    pub fn begin(&mut self, on_conflict: OnConflict) -> Result<()> {
        if self.scope.explicit.own_rule().is_some() {
            return Err(Error::NestedBatch);
        }
        self.frames.save_scope(&self.scope)?;
        let owner = sys::current_user();
        let staged = (self.states.unsettled()).filter(|(_, it)| it.is_staged_by(owner));
        let mut before = HashMap::new();
        for (id, state) in staged {
            memory::check()?;
            room_in_map(&mut before, 1)?;
            before.insert(*id, state.clone());
        }
        self.scope.explicit.0.try_push(Explicit {
            owner,
            on_conflict,
            before: Rc::new(before),
        })?;
        Ok(())
    }

    /// Closes the explicit batch of the current role, if it has one open: what it has read no longer matters.
    pub fn end(&mut self) -> Result<()> {
        let owner = sys::current_user();
        if self.scope.explicit.rule_of(owner).is_none() {
            return Ok(());
        }
        let read = (self.states.iter()).filter(|(_, state)| state.base_of(owner).is_some());
        for id in collect(read.map(|(id, _)| *id))? {
            self.frames.save(id, self.states.get(&id), &self.scope)?;
            if let Some(state) = self.states.get_mut(&id) {
                state.forget_base(owner);
            }
        }
        self.frames.save_scope(&self.scope)?;
        self.scope.explicit.0.retain(|batch| batch.owner != owner);
        Ok(())
    }

    /// Drops what the explicit batch of the current role has staged; if it has none open all that the role has
    /// staged, but what was decided for good. Whether there was a batch or anything staged.
    pub fn roll_back(&mut self) -> Result<bool> {
        let owner = sys::current_user();
        let batch = self.scope.explicit.0.iter().find(|it| it.owner == owner);
        let mut any = batch.is_some();
        let before = Rc::clone(batch.map_or(&self.scope.kept, |batch| &batch.before));
        self.states.try_each_unsettled(|id, state| {
            if state.is_staged_by(owner) {
                any = true;
                self.frames.save(id, Some(state), &self.scope)?;
                match before.get(&id) {
                    Some(saved) => state.go_back_to(saved),
                    None => state.unstage(),
                }
            }
            Ok(())
        })?;
        self.end()?;
        Ok(any)
    }
}

impl State {
    fn status(&self, role: pg_sys::Oid) -> Status {
        let pending = self.pending.as_ref().filter(|it| it.stager.user == role);
        let staged_on = pending.and_then(|pending| match pending.intent {
            Intent::Apply { base, .. } => Some(base.number),
            _ => pending.expected,
        });
        let read = self.base_of(role).map(|base| base.ground.number);
        Status {
            class: self.class.name.clone(),
            key: Rc::clone(&self.key),
            is_staged: pending.is_some(),
            built_upon: read.or(staged_on),
            staged_bytes: pending.map_or(0, |_| self.staged_bytes()),
        }
    }
}
