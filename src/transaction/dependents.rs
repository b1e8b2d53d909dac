//! What this transaction has changed of what derived documents depend on (`derived`).

use crate::error::Result;
use crate::name::StateName;
use crate::{memory, sys};
use state_cache_memory::{OutOfMemory, room_in_set};
use state_cache_nested::{Layer, Nested};
use std::collections::HashSet;

/// More documents than this, and each of their classes is meant as a whole from then on.
const MAX_KEYS: usize = 1000;

/// What one (sub)transaction has changed. One that has changed nothing has no layer.
#[derive(Default)]
struct ChangedHere {
    /// Classes of which any document may be another one now.
    classes: HashSet<Box<[u8]>>,
    /// Documents of other classes.
    keys: HashSet<StateName>,
}

impl Layer for ChangedHere {
    fn make_room_for(&mut self, child: &Self) -> std::result::Result<(), OutOfMemory> {
        room_in_set(&mut self.classes, child.classes.len())?;
        room_in_set(&mut self.keys, child.keys.len())
    }

    fn take_in(&mut self, child: Self) {
        self.classes.extend(child.classes);
        self.keys.extend(child.keys);
    }
}

/// What was changed in this transaction; what a subtransaction rolls back was not.
#[derive(Default)]
pub struct Dependents {
    changed: Nested<ChangedHere>,
    /// Classes of which too many documents were changed, whatever is rolled back from then on.
    too_many: HashSet<Box<[u8]>>,
    /// A watched row was changed or is being changed, also if that is rolled back.
    touched: bool,
}

impl Dependents {
    /// Whether there is something to publish.
    pub fn any(&self) -> bool {
        !self.changed.is_empty() || !self.too_many.is_empty()
    }

    /// A statement that may change a watched row begins.
    pub fn note_touched(&mut self) {
        self.touched = true;
    }

    /// Whether a watched row was changed, or is being changed.
    pub fn has_touched(&self) -> bool {
        self.touched
    }

    /// Whether all documents of a class are noted.
    pub fn has_class(&self, class: &[u8]) -> bool {
        let mut layers = self.changed.layers();
        self.too_many.contains(class) || layers.any(|(_, here)| here.classes.contains(class))
    }

    fn here(&mut self) -> Result<&mut ChangedHere> {
        Ok(self.changed.at(sys::nest_level(), ChangedHere::default)?)
    }

    /// Notes all documents of a class.
    pub fn note_class(&mut self, class: &[u8]) -> Result<()> {
        if !self.has_class(class) {
            let here = self.here()?;
            room_in_set(&mut here.classes, 1)?;
            here.classes.insert(class.into());
        }
        Ok(())
    }

    /// Notes a document of a class.
    pub fn note_key(&mut self, class: &[u8], key: &[u8]) -> Result<()> {
        if self.has_class(class) {
            return Ok(());
        }
        let name: StateName = (class.into(), key.into());
        if self
            .changed
            .layers()
            .any(|(_, here)| here.keys.contains(&name))
        {
            return Ok(());
        }
        let here = self.here()?;
        room_in_set(&mut here.keys, 1)?;
        here.keys.insert(name);
        let noted: usize = self.changed.layers().map(|(_, here)| here.keys.len()).sum();
        if noted > MAX_KEYS {
            for here in self.changed.layers_mut() {
                for (class, _) in std::mem::take(&mut here.keys) {
                    room_in_set(&mut self.too_many, 1)?;
                    self.too_many.insert(class);
                }
            }
        }
        Ok(())
    }

    /// The classes that are meant as a whole, in order.
    pub fn classes(&self) -> Result<Vec<Box<[u8]>>> {
        let layers = self.changed.layers();
        let named = layers.flat_map(|(_, here)| &here.classes);
        let mut classes = memory::checked(named.chain(&self.too_many).cloned())?;
        classes.sort_unstable();
        classes.dedup();
        Ok(classes)
    }

    /// The documents of other classes, in order.
    pub fn keys(&self) -> Result<Vec<StateName>> {
        let keys = self.changed.layers().flat_map(|(_, here)| &here.keys);
        let keys = keys.filter(|(class, _)| !self.has_class(class));
        let mut keys = memory::checked(keys.cloned())?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// Before the running subtransaction commits: makes the room that [`Dependents::commit`] needs.
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
        self.touched = false;
        if !self.too_many.is_empty() {
            self.too_many = HashSet::new();
        }
    }
}
