//! Finding the snapshots beyond those that a class keeps. Each write deletes the one that falls out; here are
//! those that it did not: put there by hand, or left when fewer were to be kept.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::store;
use std::collections::VecDeque;

/// A snapshot of the class at hand: its key and version.
pub type Version = (Box<[u8]>, i64);

/// How far a pass has come.
#[derive(Clone)]
pub struct Pruning {
    /// The class that it is at, and how many snapshots of a state that keeps.
    class: (Box<[u8]>, i64),
    /// Classes to be done after it.
    others: Vec<(Box<[u8]>, i64)>,
    /// The last snapshot looked at.
    after: (Box<[u8]>, i64),
    /// The newest versions of its state so far, no more than are kept.
    kept: VecDeque<i64>,
}

impl Pruning {
    /// Before the first class; `None` if none keeps a limited number.
    pub fn begin(catalog: &Catalog) -> Result<Option<Self>> {
        let mut others = store::keeping_classes(catalog)?;
        Ok(others.pop().map(|class| Self {
            class,
            others,
            after: Default::default(),
            kept: VecDeque::new(),
        }))
    }

    /// The class that it is at.
    pub fn class(&self) -> &[u8] {
        &self.class.0
    }

    /// Looks at the next snapshots: those to be deleted, and where the pass goes on.
    pub fn page(&self, catalog: &Catalog, limit: i64) -> Result<(Vec<Version>, Option<Self>)> {
        let (class, keep) = &self.class;
        let page = store::snapshots(catalog, class, &self.after, limit)?;
        let is_last = (page.len() as i64) < limit;
        let mut next = self.clone();
        let excess = next.excess(page, *keep);
        if !is_last {
            return Ok((excess, Some(next)));
        }
        let others = &mut next.others;
        let next = others.pop().map(|class| Self {
            class,
            others: std::mem::take(others),
            after: Default::default(),
            kept: VecDeque::new(),
        });
        Ok((excess, next))
    }

    /// The oldest of each state, where there are more than are kept; the page is in order.
    fn excess(&mut self, page: Vec<(Box<[u8]>, i64)>, keep: i64) -> Vec<(Box<[u8]>, i64)> {
        let mut excess = Vec::new();
        for (key, version) in page {
            if key != self.after.0 {
                self.kept.clear();
            }
            self.kept.push_back(version);
            if self.kept.len() as i64 > keep
                && let Some(oldest) = self.kept.pop_front()
            {
                excess.push((key.clone(), oldest));
            }
            self.after = (key, version);
        }
        excess
    }
}
