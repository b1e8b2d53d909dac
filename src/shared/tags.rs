//! Marks of what derived documents depend on beside their own keys: all of a class, and the definitions of the
//! server. What they are for says the header of `derived`.

use state_cache_l1::Mark;

/// Marks of classes. Classes whose names have the same hash share one: a change of the one costs the other its
/// entries.
const CLASSES: usize = 256;

/// The marks; all bytes are zero at first.
#[repr(C)]
pub struct Tags {
    definitions: Mark,
    classes: [Mark; CLASSES],
}

impl Tags {
    /// The mark of the definitions: tables, functions, privileges, roles, of all databases.
    pub fn definitions(&self) -> &Mark {
        &self.definitions
    }

    /// The mark of all documents of a class, by the hash of its name.
    pub fn class(&self, hash: u128) -> &Mark {
        &self.classes[hash as usize % CLASSES]
    }
}
