//! Explicit batches, one for each role that has opened one: its rule for conflicts, and what `state_batch_rollback`
//! goes back to.

use super::known::{OnConflict, State, States, to_change};
use crate::error::Result;
use crate::sys;
use pgrx::pg_sys;

/// An explicit batch.
#[derive(Clone)]
pub struct Explicit {
    /// The role that has opened it.
    pub owner: pg_sys::Oid,
    /// What a conflict leads to.
    pub on_conflict: OnConflict,
    /// What the role had staged before; `state_batch_rollback` goes back to that.
    pub before: States,
}

/// The explicit batches of a transaction.
#[derive(Clone, Default)]
pub struct Explicits(pub Vec<Explicit>);

impl Explicits {
    /// Whether any is open.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// The rule of a role's batch, if it has opened one.
    pub fn rule_of(&self, role: pg_sys::Oid) -> Option<OnConflict> {
        let owned = self.0.iter().find(|batch| batch.owner == role);
        owned.map(|batch| batch.on_conflict)
    }

    /// The rule of the current role's batch, if the role has opened one.
    pub fn own_rule(&self) -> Option<OnConflict> {
        match self.any() {
            true => self.rule_of(sys::current_user()),
            false => None,
        }
    }

    /// What the current role has staged of a state is what dropping its batch goes back to.
    pub fn keep(&mut self, id: u128, state: &State) -> Result<()> {
        let owner = sys::current_user();
        for batch in self.0.iter_mut().filter(|batch| batch.owner == owner) {
            to_change(&mut batch.before)?.insert(id, state.clone());
        }
        Ok(())
    }

    /// The staged change of a state is about to be written: dropping a batch does not bring back an earlier one.
    pub fn forget_staged_before(&mut self, id: u128) -> Result<()> {
        for batch in &mut self.0 {
            if batch.before.contains_key(&id) {
                to_change(&mut batch.before)?.remove(&id);
            }
        }
        Ok(())
    }
}

/// Whose staged changes a flush is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's: the transaction commits.
    All,
    /// Those of a role.
    Role(pg_sys::Oid),
    /// Those of the roles that have no explicit batch, which must stay in one piece.
    NoBatch,
}

impl Whose {
    /// Whether they include those of a role.
    pub fn includes(self, role: pg_sys::Oid, explicit: &Explicits) -> bool {
        match self {
            Self::All => true,
            Self::Role(of) => of == role,
            Self::NoBatch => explicit.rule_of(role).is_none(),
        }
    }
}
