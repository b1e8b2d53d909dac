//! Of which version each state must be at least: what this client has seen, written or heard of.
//!
//! # Why it is right
//!
//! Every answer of the client goes past its floor, so no answer is older than one before it. A floor is known exactly
//! for the states that were used last. What is pushed out sinks into a sketch: a fixed table in which states share a
//! cell, and each cell has the highest floor that sank into it. So a floor may be believed higher than it is, never
//! lower; then the server is asked, and the exact floor is known again.
//!
//! The server is the authority. An answer of the server below a floor is one of two things, which `moment` tells
//! apart: the read began before the floor was learned, so it may simply be old, and is repeated; or it began after,
//! so the server has gone back (rows changed by hand, a backup put back, a promotion that lost commits), and the
//! floor goes back with it. No answer of L2 ever lowers a floor.

use lru::LruCache;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;

/// Cells of the sketch: half a megabyte.
const CELLS: usize = 1 << 16;
/// Only the server knows the version that must be answered: no other tier is asked.
pub(crate) const ONLY_THE_SERVER: i64 = i64::MAX;

/// A floor.
#[derive(Debug, Clone, Copy)]
struct Floor {
    version: i64,
    /// When it was learned, on the clock of [`Floors`].
    at: u64,
}

/// The floors of all states.
pub(crate) struct Floors {
    exact: LruCache<u128, Floor>,
    sunk: Vec<i64>,
    /// The highest moment at which a floor was learned that has sunk since.
    sunk_at: u64,
    clock: u64,
    hashers: [RandomState; 2],
}

/// What becomes of an answer of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be given.
    Good,
    /// It may be older than what is known: read again.
    Old,
}

impl Floors {
    /// No floors; exact ones for so many states.
    pub fn new(exact: usize) -> Self {
        Self {
            exact: LruCache::new(NonZeroUsize::new(exact).unwrap_or(NonZeroUsize::MIN)),
            sunk: vec![0; CELLS],
            sunk_at: 0,
            clock: 0,
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Names a state in 128 bits, so that two states with one name need not be thought of.
    fn name(&self, class: &str, key: &str) -> u128 {
        let [low, high] = &self.hashers;
        u128::from(low.hash_one((class, key))) | u128::from(high.hash_one((class, key))) << 64
    }

    /// The moment, to be noted before a read is sent.
    pub fn moment(&self) -> u64 {
        self.clock
    }

    /// The version that an answer about a state must have at least, 0 for any.
    pub fn get(&self, class: &str, key: &str) -> i64 {
        let name = self.name(class, key);
        self.floor(name).version
    }

    fn floor(&self, name: u128) -> Floor {
        match self.exact.peek(&name) {
            Some(floor) => *floor,
            None => Floor {
                version: self.sunk[name as usize % CELLS],
                at: self.sunk_at,
            },
        }
    }

    fn put(&mut self, name: u128, version: i64) {
        self.clock += 1;
        let floor = Floor {
            version,
            at: self.clock,
        };
        if let Some((old, pushed_out)) =
            self.exact.push(name, floor).filter(|(old, _)| *old != name)
        {
            let cell = &mut self.sunk[old as usize % CELLS];
            *cell = (*cell).max(pushed_out.version);
            self.sunk_at = self.sunk_at.max(pushed_out.at);
        }
    }

    /// A state has been in this version.
    pub fn raise(&mut self, class: &str, key: &str, version: i64) {
        let name = self.name(class, key);
        if self.floor(name).version < version {
            self.put(name, version);
        } else {
            self.exact.promote(&name);
        }
    }

    /// A state has come to a version that is not known: only the server may answer.
    pub fn lose(&mut self, class: &str, key: &str) {
        let name = self.name(class, key);
        self.put(name, ONLY_THE_SERVER);
    }

    /// The server has answered a read that was sent at `moment` with this version, 0 for no state.
    pub fn judge(&mut self, class: &str, key: &str, version: i64, moment: u64) -> Verdict {
        let name = self.name(class, key);
        let floor = self.floor(name);
        if version < floor.version {
            if floor.at > moment {
                return Verdict::Old;
            }
            self.put(name, version);
        } else if version > floor.version {
            self.put(name, version);
        }
        Verdict::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_asked_for_before_the_floor_was_learned_is_old() {
        let mut floors = Floors::new(10);
        let before = floors.moment();
        floors.raise("run", "x", 5);
        floors.raise("run", "x", 4);
        assert_eq!(floors.judge("run", "x", 4, before), Verdict::Old);
        assert_eq!(floors.get("run", "x"), 5);
        assert_eq!(floors.judge("run", "x", 6, before), Verdict::Good);
        assert_eq!(floors.get("run", "x"), 6);
    }

    #[test]
    fn a_server_that_has_gone_back_takes_the_floor_with_it() {
        let mut floors = Floors::new(10);
        floors.raise("run", "x", 5);
        let after = floors.moment();
        assert_eq!(floors.judge("run", "x", 2, after), Verdict::Good);
        assert_eq!(floors.get("run", "x"), 2);
    }

    #[test]
    fn after_a_write_only_the_server_knows() {
        let mut floors = Floors::new(10);
        let before = floors.moment();
        floors.lose("run", "x");
        assert_eq!(floors.get("run", "x"), ONLY_THE_SERVER);
        assert_eq!(floors.judge("run", "x", 7, before), Verdict::Old);
        let after = floors.moment();
        assert_eq!(floors.judge("run", "x", 7, after), Verdict::Good);
        assert_eq!(floors.get("run", "x"), 7);
    }

    #[test]
    fn what_is_pushed_out_is_believed_higher_never_lower() {
        let mut floors = Floors::new(2);
        for n in 1..=100 {
            floors.raise("run", &format!("k{n}"), n);
        }
        for n in 1..=100 {
            assert!(floors.get("run", &format!("k{n}")) >= n);
        }
        // The server puts right what is believed too high, where the read began after all that sank.
        let now = floors.moment();
        assert_eq!(floors.judge("run", "k1", 1, now), Verdict::Good);
        assert_eq!(floors.get("run", "k1"), 1);
    }

    #[test]
    fn a_read_that_began_before_a_floor_sank_is_old() {
        let mut floors = Floors::new(1);
        let before = floors.moment();
        floors.raise("run", "x", 5);
        floors.raise("run", "y", 1);
        assert_eq!(floors.judge("run", "x", 4, before), Verdict::Old);
    }
}
