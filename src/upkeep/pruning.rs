//! Deleting the snapshots beyond those that a class keeps. Writes delete most of what falls out; here goes what
//! they left: what grew too old, what was put there by hand, and what was left when fewer were to be kept.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::snapshots::{Needed, Retention, prune_state, would_prune};
use crate::store::{self, LimitedClass};

/// Key of a state of the class at hand.
pub type Key = Box<[u8]>;

/// How far a pass has come.
#[derive(Clone)]
pub struct Pruning {
    /// The class that it is at, and those to be done after it.
    class: LimitedClass,
    others: Vec<LimitedClass>,
    /// The last state looked at.
    after: Box<[u8]>,
    /// When the pass began.
    now: i64,
}

impl Pruning {
    /// Before the first class; `None` if all of them keep everything.
    pub fn begin(catalog: &Catalog, now: i64) -> Result<Option<Self>> {
        let mut others = store::limited_classes(catalog)?;
        Ok(others.pop().map(|class| Self {
            class,
            others,
            after: Box::default(),
            now,
        }))
    }

    /// The next states that may have too many, and where the pass goes on.
    pub fn page(&self, catalog: &Catalog, limit: i64) -> Result<(Vec<Key>, Option<Self>)> {
        let retention = self.retention();
        let keys = store::prunable_states(
            catalog,
            &self.class.name,
            &self.after,
            retention.keep,
            retention.before,
            limit,
        )?;
        let mut next = self.clone();
        if let (Some(last), true) = (keys.last(), keys.len() as i64 == limit) {
            next.after.clone_from(last);
            return Ok((keys, Some(next)));
        }
        next.after = Box::default();
        let others = next.others.pop();
        let next = others.map(|class| Self { class, ..next });
        Ok((keys, next))
    }

    /// Prunes a state, unless somebody has it locked: what others build upon stays as long as they do, since
    /// storing them anew would cost more than it frees.
    pub fn prune(&self, catalog: &Catalog, key: &[u8]) -> Result<()> {
        let class = catalog.class_or_default(&self.class.name)?;
        // The class may have been redefined since the pass came to it, and also while the lock was taken.
        let retention = || Retention::of_class_now(catalog, &self.class.name, self.now);
        // A lock is a write: most states have nothing to prune.
        if would_prune(catalog, &class, key, &retention())?
            && store::lock_if_free(catalog, &class.name, key)?
        {
            prune_state(catalog, &class, key, &retention(), Needed::Stays)?;
        }
        Ok(())
    }

    fn retention(&self) -> Retention {
        Retention::of_class(self.class.keep, self.class.keep_for, self.now)
    }
}
