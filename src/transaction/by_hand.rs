//! What others have changed in the tables: statements by hand, COPY, logical replication.

use crate::error::Result;
use crate::name::StateName;
use crate::{catalog, memory, sys};
use state_cache_memory::{OutOfMemory, room_in_map, room_in_set};
use state_cache_nested::{Layer, Nested, TOP};
use std::collections::{HashMap, HashSet};

/// More states than this, and the whole database leaves L1: walking its entries is then cheaper than
/// keeping the list.
const MAX_KEYS: usize = 1000;

/// A class's name, and the bucket of a key (`catalog::bucket`).
pub type Bucket = (Box<[u8]>, i16);

/// What one (sub)transaction has changed by hand. One that has changed nothing has no layer.
#[derive(Default)]
struct ChangedHere {
    /// Everything may have been changed.
    all: bool,
    /// The tables were emptied.
    truncated: bool,
    /// Something was changed that no head row shows.
    untraced: bool,
    /// The states that were changed here, and not in a (sub)transaction around this one.
    keys: HashSet<StateName>,
}

impl Layer for ChangedHere {
    fn make_room_for(&mut self, child: &Self) -> std::result::Result<(), OutOfMemory> {
        room_in_set(&mut self.keys, child.keys.len())
    }

    fn take_in(&mut self, child: Self) {
        self.all |= child.all;
        self.truncated |= child.truncated;
        self.untraced |= child.untraced;
        self.keys.extend(child.keys);
    }
}

/// What was changed by hand in this transaction; what a subtransaction rolls back was not.
#[derive(Default)]
pub struct ByHand {
    changed: Nested<ChangedHere>,
    /// More than [`MAX_KEYS`] were: everything may have been, whatever is rolled back from then on.
    too_many: bool,
    /// The versions of head rows that are gone, by class and bucket. What is rolled back stays: a floor that
    /// is too high does no harm.
    floors: HashMap<Bucket, i64>,
    /// The classes of states that were changed. What is rolled back stays.
    classes: HashSet<Box<[u8]>>,
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

/// What was changed by hand.
pub struct ChangedByHand {
    /// These states, in order, each with whether its head row may have been deleted.
    pub names: Vec<(StateName, bool)>,
    /// Any states of these classes.
    pub classes: Vec<Box<[u8]>>,
    /// Of the same, those of which head rows are gone, or were until something was rolled back.
    pub gone: Vec<Box<[u8]>>,
    /// All states: the tables were emptied.
    pub truncated: bool,
}

impl ByHand {
    /// Whether anything was changed, or may have been.
    pub fn any(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether everything may have been changed.
    pub fn all(&self) -> bool {
        self.too_many || self.is(|changed| changed.all)
    }

    /// Whether the tables were emptied.
    pub fn truncated(&self) -> bool {
        self.is(|changed| changed.truncated)
    }

    fn is(&self, what: impl Fn(&ChangedHere) -> bool) -> bool {
        self.changed.layers().any(|(_, changed)| what(changed))
    }

    fn here(&mut self) -> Result<&mut ChangedHere> {
        Ok(self.changed.at(sys::nest_level(), ChangedHere::default)?)
    }

    /// A statement by hand is running.
    pub fn note(&mut self, truncates: bool) -> Result<()> {
        let here = self.here()?;
        here.all |= truncates;
        here.truncated |= truncates;
        Ok(())
    }

    /// A state is changed by hand.
    pub fn note_state(&mut self, name: StateName) -> Result<()> {
        self.note(false)?;
        self.add(name)
    }

    /// Whether this state was changed.
    pub fn has(&self, class: &[u8], key: &[u8]) -> bool {
        self.any() && self.has_name(&(class.into(), key.into()))
    }

    fn has_name(&self, name: &StateName) -> bool {
        self.is(|changed| changed.keys.contains(name))
    }

    /// The states that were changed, in order.
    pub fn keys(&self) -> Result<Vec<StateName>> {
        let keys = self.changed.layers().flat_map(|(_, changed)| &changed.keys);
        let mut keys = memory::checked(keys.cloned())?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// What was changed, for who looks at it again.
    pub fn changed(&self) -> Result<ChangedByHand> {
        let all = self.all();
        Ok(ChangedByHand {
            names: match all {
                true => Vec::new(),
                false => {
                    let names = self.keys()?.into_iter().map(|name| {
                        let is_gone = self.floor(&name.0, &name.1) > 0;
                        (name, is_gone)
                    });
                    memory::checked(names)?
                }
            },
            classes: match all {
                true => memory::checked(self.classes.iter().cloned())?,
                false => Vec::new(),
            },
            gone: match all {
                true => memory::checked(self.floors.keys().map(|(class, _)| class.clone()))?,
                false => Vec::new(),
            },
            truncated: self.truncated(),
        })
    }

    /// What was changed that no head row shows.
    pub fn untraced(&self) -> Result<Untraced> {
        Ok(match (self.is(|changed| changed.untraced), self.all()) {
            (false, _) => Untraced::Nothing,
            (true, false) => Untraced::Among(self.keys()?),
            (true, true) => Untraced::Everything,
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

    /// The floor of a state's bucket, 0 for none.
    pub fn floor(&self, class: &[u8], key: &[u8]) -> i64 {
        if self.floors.is_empty() {
            return 0;
        }
        let bucket = (class.into(), catalog::bucket(key));
        self.floors.get(&bucket).copied().unwrap_or(0)
    }

    /// A row is changed in a way that no head row will show; `gone` is the head row that it was, if any.
    pub fn note_untraced(&mut self, gone: Option<(&StateName, i64)>) -> Result<()> {
        self.here()?.untraced = true;
        match gone {
            Some(((class, key), version)) => self.raise_floor(class, key, version),
            None => Ok(()),
        }
    }

    /// Notes the name of a state that is changed by hand.
    pub fn add(&mut self, name: StateName) -> Result<()> {
        if !self.classes.contains(&name.0) {
            room_in_set(&mut self.classes, 1)?;
            self.classes.insert(name.0.clone());
        }
        if self.is_all_for_good() || self.has_name(&name) {
            return Ok(());
        }
        let here = self.here()?;
        room_in_set(&mut here.keys, 1)?;
        here.keys.insert(name);
        let keys = self.changed.layers().map(|(_, changed)| changed.keys.len());
        if keys.sum::<usize>() > MAX_KEYS {
            self.too_many = true;
            for changed in self.changed.layers_mut() {
                changed.keys = HashSet::new();
            }
        }
        Ok(())
    }

    /// Whether everything may have been changed, whatever is rolled back.
    fn is_all_for_good(&self) -> bool {
        let mut layers = self.changed.layers();
        self.too_many || layers.any(|(level, changed)| level == TOP && changed.all)
    }

    /// Before the running subtransaction commits: makes the room that [`ByHand::commit`] needs.
    ///
    /// # Errors
    /// `53200`.
    pub fn prepare_commit(&mut self) -> Result<()> {
        Ok(self.changed.prepare_commit(sys::nest_level())?)
    }

    /// The running subtransaction commits: its changes are its parent's. Allocates nothing.
    pub fn commit(&mut self) {
        self.changed.commit(sys::nest_level());
    }

    /// The running subtransaction aborts: its changes are gone. Allocates nothing.
    pub fn abort(&mut self) {
        self.changed.abort(sys::nest_level(), drop);
    }

    /// Forgets everything. Frees memory and allocates none.
    pub fn clear(&mut self) {
        self.changed.clear();
        self.too_many = false;
        if !self.classes.is_empty() {
            self.classes = HashSet::new();
        }
        if !self.floors.is_empty() {
            self.floors = HashMap::new();
        }
    }
}
