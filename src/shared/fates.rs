//! What became of derived documents that L1 held, to say why a reader does not find one. It is a guess: a table of
//! fixed size in which a later document takes the place of an earlier one. Nothing depends on it but counters.

use state_cache_l1::KeyId;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Documents that are remembered at most.
const DOCUMENTS: usize = 16 * 1024;
/// Says that a change has taken the document out.
const CHANGED: u32 = 1;
/// Says that there is something in the place.
const USED: u32 = 2;

/// The table; all bytes are zero at first.
#[repr(C)]
pub(super) struct Fates([AtomicU32; DOCUMENTS]);

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody knows of it.
    Unknown,
    /// It was put into L1, and no change has taken it out.
    Filled,
    /// A change has taken it out.
    Changed,
}

impl Fates {
    fn place(&self, id: KeyId) -> (&AtomicU32, u32) {
        let name = ((id.0 >> 96) as u32) & !(CHANGED | USED) | USED;
        (&self.0[id.0 as usize % DOCUMENTS], name)
    }

    /// It was put into L1.
    pub fn fill(&self, id: KeyId) {
        let (place, name) = self.place(id);
        place.store(name, Relaxed);
    }

    /// A change has taken it out. For commit callbacks.
    pub fn change(&self, id: KeyId) {
        let (place, name) = self.place(id);
        place.store(name | CHANGED, Relaxed);
    }

    /// What became of it.
    pub fn of(&self, id: KeyId) -> Fate {
        let (place, name) = self.place(id);
        let found = place.load(Relaxed);
        match found == name {
            true => Fate::Filled,
            false if found == name | CHANGED => Fate::Changed,
            false => Fate::Unknown,
        }
    }
}
