//! What holds for every change of a run, whichever function makes it.

use super::run::{RUN, is_run};
use super::{claim, hierarchy};
use crate::cache::StateRef;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::snapshot::PushedSnapshot;
use crate::store;
use crate::transaction::{Capability, ChangedByHand};

/// The rules of class `run`.
pub struct Runs;

impl Capability for Runs {
    fn check_may_delete(&self, state: &StateRef<'_>) -> Result<()> {
        match is_run(state) {
            true => hierarchy::check_may_delete(state),
            false => Ok(()),
        }
    }

    fn check_fence(&self, state: &StateRef<'_>, token: i64) -> Result<()> {
        match claim::is_of_run(state)? {
            true => claim::check_fence(state, token),
            false => Ok(()),
        }
    }

    fn after_changes_by_hand(&self, catalog: &Catalog, changed: &ChangedByHand) -> Result<()> {
        let _snapshot = PushedSnapshot::transaction();
        if changed.truncated || changed.classes.iter().any(|class| **class == *RUN) {
            let may_be_gone = changed.gone.iter().any(|class| **class == *RUN);
            return store::follow_all(catalog, changed.truncated || may_be_gone);
        }
        let mut runs = changed.names.iter();
        runs.try_for_each(|((class, key), is_gone)| match **class == *RUN {
            true => store::follow(catalog, key, *is_gone),
            false => Ok(()),
        })
    }

    /// A run that is created again under the same name does not inherit the place that the deleted one had.
    fn after_delete(&self, catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<()> {
        match *class == *RUN {
            true => hierarchy::delete_place(catalog, key),
            false => Ok(()),
        }
    }
}
