//! What a read finds, and in which form.

use crate::error::{Error, Result};
use crate::shared::{Key, SharedL1};
use crate::store::Storage;
use crate::sys;
use state_cache_l1::EntryInfo;

/// The version that a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub number: i64,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// Hash of its document, 0 where that is not known.
    pub hash: u128,
    /// How L3 stores it, as far as that is known.
    pub storage: Storage,
}

/// What a change builds upon. Two reads that found the same ground found the same document, also where
/// somebody has changed it by hand and left its version as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ground {
    /// The version, 0 if absent.
    pub number: i64,
    /// Hash of the document.
    pub hash: u128,
}

impl Ground {
    /// No state.
    pub const ABSENT: Self = Self { number: 0, hash: 0 };
}

impl Version {
    /// The state, or its absence once it has ended.
    pub fn unless_expired<T>(self, value: T) -> Found<T> {
        if self.is_expired() {
            Found::Absent(self.number)
        } else {
            Found::State(self, value)
        }
    }

    /// The ground that a change of this version builds upon.
    pub fn ground(&self) -> Ground {
        Ground {
            number: self.number,
            hash: self.hash,
        }
    }

    /// Whether the state has ended, by the clock of the running statement.
    pub fn is_expired(&self) -> bool {
        self.expires_at != i64::MAX && self.expires_at <= sys::statement_timestamp()
    }
}

/// The form in which a caller wants the document.
pub trait Form {
    /// What it gets.
    type Output;

    /// Takes it from an entry of L1, if there is one.
    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<Self::Output>>;

    /// Makes it from the whole document.
    fn make(&mut self, document: &[u8]) -> Result<Self::Output>;

    /// Makes it of a state whose document is damaged: for most forms, the error.
    fn make_of_damaged(&mut self, damage: Error) -> Result<Self::Output> {
        Err(damage)
    }
}

/// What L1 had.
pub enum Taken<T> {
    /// Nothing.
    Miss,
    /// An entry that failed its check.
    Damaged,
    /// An entry of which nothing can be made here, for want of memory.
    Failed(Error),
    /// An entry; its writers are not checked yet.
    Entry(EntryInfo, T),
}

/// What a read found.
#[derive(Debug)]
pub enum Found<T> {
    /// No state: never written, deleted, expired or hidden. The number is that of the last version
    /// there was, 0 if none.
    Absent(i64),
    /// The state.
    State(Version, T),
}

impl<T> Found<T> {
    /// The ground that a change of it builds upon.
    pub fn ground(&self) -> Ground {
        match self {
            Self::Absent(_) => Ground::ABSENT,
            Self::State(version, _) => version.ground(),
        }
    }

    /// The same with another form.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Absent(last) => Found::Absent(last),
            Self::State(version, value) => Found::State(version, f(value)),
        }
    }

    /// The state's version and form, if there is one.
    pub fn state(self) -> Option<(Version, T)> {
        match self {
            Self::Absent(_) => None,
            Self::State(version, value) => Some((version, value)),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A caller; hits and misses are counted.
    Caller,
    /// The extension itself, to find out what a change builds upon.
    Change,
}
