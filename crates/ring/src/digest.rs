//! What is left of many changes when they are told together.
//!
//! They are told after all of them have become visible. So a subscriber that is told to drop a class, or
//! everything, finds the newest state whichever of the changes came last, and need hear of no other one.

use crate::record::{Change, Record};
use state_cache_memory::{OutOfMemory, collect};
use std::collections::{BTreeMap, BTreeSet};

/// A class's name, and a key or a pattern.
pub type Name = (Box<[u8]>, Box<[u8]>);

/// The changes of one database, each state's once.
#[derive(Default)]
pub struct Digest {
    everything: bool,
    /// Classes of which everything may have changed.
    classes: BTreeSet<Box<[u8]>>,
    patterns: BTreeSet<Name>,
    /// Told one after the other; a state is in more than one only where subscribers have to hear twice of it.
    rounds: Vec<BTreeMap<Name, Change>>,
}

impl Digest {
    /// Adds a change, which was made after the ones before it.
    pub fn add(&mut self, record: &Record<'_>) {
        let Record {
            class, key, change, ..
        } = *record;
        if self.everything {
            return;
        }
        match change {
            Change::Everything if class.is_empty() => {
                *self = Self::default();
                self.everything = true;
            }
            Change::Everything => {
                self.classes.insert(class.into());
            }
            Change::Matching => {
                self.patterns.insert((class.into(), key.into()));
            }
            Change::Set(_) | Change::Delete(_) => {
                if !self.classes.contains(class) {
                    self.add_state((class.into(), key.into()), change);
                }
            }
        }
    }

    fn add_state(&mut self, name: Name, change: Change) {
        if self.rounds.is_empty() {
            self.rounds.push(BTreeMap::new());
        }
        let Some(round) = self.rounds.last_mut() else {
            return;
        };
        let known = round.get(&name).copied();
        if follows_by_hand(known, change) {
            self.rounds.push(BTreeMap::from([(name, change)]));
        } else if !known.is_some_and(|known| is_newer(known, change)) {
            round.insert(name, change);
        }
    }

    /// What is to be told, in rounds that are told one after the other.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn rounds(self) -> Result<Vec<Vec<(Name, Change)>>, OutOfMemory> {
        if self.everything {
            return Ok(vec![vec![(Name::default(), Change::Everything)]]);
        }
        let whole = self
            .classes
            .iter()
            .map(|class| ((class.clone(), Box::default()), Change::Everything));
        let patterns = self
            .patterns
            .into_iter()
            .map(|pattern| (pattern, Change::Matching));
        let mut rounds = vec![collect(whole.chain(patterns))?];
        for round in self.rounds {
            let told = round
                .into_iter()
                .filter(|((class, _), _)| !self.classes.contains(class));
            rounds.push(collect(told)?);
        }
        rounds.retain(|round| !round.is_empty());
        Ok(rounds)
    }
}

/// Whether a state that was deleted by hand is there again: it may have begun with a version that subscribers
/// take for an old one unless they hear of the delete.
fn follows_by_hand(known: Option<Change>, change: Change) -> bool {
    known == Some(Change::Delete(0)) && change != Change::Delete(0)
}

/// Whether what is known is newer than what comes: the order in which commits get here is not that of their
/// versions where nothing else orders them.
fn is_newer(known: Change, change: Change) -> bool {
    let version = |change| match change {
        Change::Set(version) | Change::Delete(version) => version,
        Change::Matching | Change::Everything => 0,
    };
    version(change) != 0 && version(known) > version(change)
}
