//! What the changes of a transaction belong to.

use super::explicit::Explicits;
use super::known::{States, to_change};
use crate::catalog::Catalog;
use crate::error::Result;
use std::rc::Rc;

/// What the changes of the transaction belong to; a subtransaction that aborts puts it back.
#[derive(Clone, Default)]
pub struct Scope {
    /// The installation.
    pub catalog: Option<Rc<Catalog>>,
    /// The explicit batches that are open.
    pub explicit: Explicits,
    /// States of which something staged outside an explicit batch was decided for good: dropping what is staged goes
    /// back to these.
    pub kept: States,
}

impl Scope {
    /// The staged change of a state is about to be written: dropping what is staged does not bring back an earlier
    /// one.
    pub fn forget_staged_before(&mut self, id: u128) -> Result<()> {
        if self.kept.contains_key(&id) {
            to_change(&mut self.kept)?.remove(&id);
        }
        self.explicit.forget_staged_before(id)
    }
}
