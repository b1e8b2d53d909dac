//! The block of shared memory: asked for at server start, laid out by `state_cache_l1`, guarded by one
//! tranche of LWLocks.
//!
//! Contract. One function, `block::bytes`, says how much memory is asked for and mapped. The block is written
//! once by the postmaster in `block::startup`, before any backend exists; from then on its content belongs to
//! `state_cache_l1`, whose header says which lock guards what. After a crash of any backend the
//! postmaster runs `startup` again on fresh memory: nothing in the block survives, or has to.
//! While a lock is held nothing allocates, waits for SQL or raises an error.

mod block;
mod databases;
mod dropped;
mod fates;
mod layout;
mod locks;
mod progress;
mod recent;
mod report;
pub mod start;
mod tags;

pub use block::{
    SharedL1, SharedRing, claim, class_tag, database, databases, derived_key, fate, incarnations,
    key, l1, note_changed, note_filled, note_recent, reads_key, recent, ring, server_start,
    set_activity, set_error, tags, texts, warn_if_no_place,
};
pub use databases::{Database, Databases, NEVER};
pub use fates::Fate;
pub use progress::{Command, Progress, running};
pub use recent::{Change, Recent};
pub use report::Stage;
pub use state_cache_l1::{Key, KeyId};
pub use tags::{Tag, Tags};

/// Asks for the memory and watches for what is dropped, if the library is being preloaded.
pub fn init() {
    block::init();
    dropped::init();
}
