//! Which kept versions of a run are its own, and which are those of a former run of the same id.
//!
//! A run that was deleted, or has expired, and is created again is another one: it has its own limits and
//! permissions. A version without a parent begins a run; every other one goes on with that of its parent. So a former
//! run that was itself restored is the run that there is.

use crate::context::RUN;
use crate::error::Result;
use crate::memory;
use crate::store::{Encoding, KeptVersion};
use state_cache_memory::collect;
use std::collections::BTreeMap;

/// The version that each kept version's run began with.
struct Lives(BTreeMap<i64, i64>);

impl Lives {
    fn of(versions: &[KeptVersion]) -> Result<Self> {
        let mut lives = Self(BTreeMap::new());
        let mut oldest_first = collect(versions)?;
        oldest_first.sort_unstable_by_key(|version| version.number);
        for version in oldest_first {
            memory::check()?;
            let life = match version.parent {
                // A parent that was pruned: the newest before it that is kept.
                Some(parent) => lives.at(parent),
                // A row that cannot be read says nothing of its parent.
                None if version.encoding == Encoding::Unreadable => lives.at(version.number),
                None => None,
            };
            lives
                .0
                .insert(version.number, life.unwrap_or(version.number));
        }
        Ok(lives)
    }

    /// The run of the newest kept version up to this one.
    fn at(&self, version: i64) -> Option<i64> {
        self.0.range(..=version).next_back().map(|(_, life)| *life)
    }
}

/// Of these versions those of the state that the head row with this version stands for, in their order. In other
/// classes than that of runs all are.
pub fn of_current<'v>(
    class: &[u8],
    versions: &'v [KeptVersion],
    head: i64,
) -> Result<Vec<&'v KeptVersion>> {
    if *class != *RUN {
        return Ok(collect(versions)?);
    }
    let lives = Lives::of(versions)?;
    let current = lives.at(head);
    let is_own = |version: &&KeptVersion| lives.at(version.number) == current;
    Ok(collect(versions.iter().filter(is_own))?)
}
