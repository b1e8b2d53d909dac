//! What others have changed in the tables: statements by hand, COPY, logical replication.

use crate::catalog;
use crate::error::Result;
use crate::memory;
use crate::name::StateName;
use pgrx::pg_sys;
use state_cache_memory::room_in_map;
use std::collections::HashMap;

/// More states than this, and the whole database leaves L1: walking its entries is then cheaper than
/// keeping the list.
const MAX_KEYS: usize = 1000;

/// Nesting level of the top transaction.
const TOP: i32 = 1;

/// A class's name, and the bucket of a key (`catalog::bucket`).
pub type Bucket = (Box<[u8]>, i16);

/// What was changed by hand in this transaction. Each with the nesting level of the outermost
/// subtransaction that did it, since what that rolls back was not done.
#[derive(Default)]
pub struct ByHand {
    /// Something was, or may have been.
    any: Option<i32>,
    /// Everything may have been.
    all: Option<i32>,
    /// The tables were emptied.
    truncated: Option<i32>,
    keys: HashMap<StateName, i32>,
    /// Something was that no head row shows.
    untraced: Option<i32>,
    /// The versions of head rows that are gone, by class and bucket. What is rolled back stays: a floor that
    /// is too high does no harm.
    floors: HashMap<Bucket, i64>,
}

/// What `state_changes` could not tell from the head rows.
pub enum Untraced {
    /// Nothing.
    Nothing,
    /// Some of these states.
    Among(Vec<StateName>),
    /// More than is remembered.
    Everything,
}

impl ByHand {
    /// Whether anything was, or may have been.
    pub fn any(&self) -> bool {
        self.any.is_some()
    }

    /// Whether everything may have been.
    pub fn all(&self) -> bool {
        self.all.is_some()
    }

    /// Whether the tables were emptied.
    pub fn truncated(&self) -> bool {
        self.truncated.is_some()
    }

    /// A statement by hand is running.
    pub fn note(&mut self, truncates: bool) {
        let level = nest_level();
        let lower = |known: Option<i32>| Some(known.map_or(level, |known| known.min(level)));
        self.any = lower(self.any);
        if truncates {
            (self.all, self.truncated) = (lower(self.all), lower(self.truncated));
        }
    }

    /// A state is changed.
    pub fn note_state(&mut self, name: StateName) -> Result<()> {
        self.note(false);
        self.add(name)
    }

    /// Whether this state was.
    pub fn has(&self, class: &[u8], key: &[u8]) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(&(class.into(), key.into()))
    }

    /// The states that were, in order.
    pub fn keys(&self) -> Result<Vec<StateName>> {
        let mut keys = memory::checked(self.keys.keys().cloned())?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// What was that no head row shows.
    pub fn untraced(&self) -> Result<Untraced> {
        Ok(match (self.untraced, self.all) {
            (None, _) => Untraced::Nothing,
            (_, None) => Untraced::Among(self.keys()?),
            (_, Some(_)) => Untraced::Everything,
        })
    }

    /// The highest versions of head rows that are gone, by class and bucket, in order.
    pub fn floors(&self) -> Result<Vec<(Bucket, i64)>> {
        let floors = self.floors.iter();
        let floors = floors.map(|(bucket, version)| (bucket.clone(), *version));
        let mut floors = memory::checked(floors)?;
        floors.sort_unstable();
        Ok(floors)
    }

    /// Notes a version that a state had whose head row is gone: none is used again.
    pub fn raise_floor(&mut self, class: &[u8], key: &[u8], version: i64) -> Result<()> {
        room_in_map(&mut self.floors, 1)?;
        let floor = self
            .floors
            .entry((class.into(), catalog::bucket(key)))
            .or_insert(version);
        *floor = version.max(*floor);
        Ok(())
    }

    /// That of a state's bucket, 0 for none.
    pub fn floor(&self, class: &[u8], key: &[u8]) -> i64 {
        if self.floors.is_empty() {
            return 0;
        }
        let bucket = (class.into(), catalog::bucket(key));
        self.floors.get(&bucket).copied().unwrap_or(0)
    }

    /// A row is changed in a way that no head row will show; `gone` is the head row that it was, if any.
    pub fn note_untraced(&mut self, gone: Option<(&StateName, i64)>) -> Result<()> {
        let level = nest_level();
        self.untraced = Some(self.untraced.map_or(level, |known| known.min(level)));
        if let Some(((class, key), version)) = gone {
            self.raise_floor(class, key, version)?;
        }
        Ok(())
    }

    /// Forgets everything. Frees memory and allocates none.
    pub fn clear(&mut self) {
        (self.any, self.all) = (None, None);
        (self.truncated, self.untraced) = (None, None);
        if !self.floors.is_empty() {
            self.floors = HashMap::new();
        }
        if !self.keys.is_empty() {
            self.keys = HashMap::new();
        }
    }

    pub fn add(&mut self, name: StateName) -> Result<()> {
        let level = nest_level();
        if self.all == Some(TOP) {
            return Ok(());
        }
        room_in_map(&mut self.keys, 1)?;
        self.keys
            .entry(name)
            .and_modify(|known| *known = level.min(*known))
            .or_insert(level);
        if self.keys.len() > MAX_KEYS {
            // Whatever is rolled back from here on: the list is gone.
            self.all = Some(TOP);
            self.keys.clear();
        }
        Ok(())
    }

    /// The running subtransaction commits: its changes are its parent's.
    pub fn subtransaction_committed(&mut self) {
        let parent = nest_level().saturating_sub(1).max(TOP);
        for known in self
            .keys
            .values_mut()
            .chain(&mut self.any)
            .chain(&mut self.all)
            .chain(&mut self.truncated)
            .chain(&mut self.untraced)
        {
            *known = parent.min(*known);
        }
    }

    /// The running subtransaction aborts: its changes are gone.
    pub fn subtransaction_aborted(&mut self) {
        let level = nest_level();
        self.any.take_if(|known| *known >= level);
        self.all.take_if(|known| *known >= level);
        self.truncated.take_if(|known| *known >= level);
        self.untraced.take_if(|known| *known >= level);
        self.keys.retain(|_, known| *known < level);
    }
}

fn nest_level() -> i32 {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}
