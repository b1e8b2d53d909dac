//! Snapshots: checkpoints, the history of a state, and going back in it.
//!
//! # Contract
//!
//! A snapshot row holds one version, whole or packed (`store::storage`). In a class that keeps one version the head
//! row holds the current one, whole (`store::write`). What is here keeps two rules.
//!
//! **Nothing is ever unreadable.** A delta needs the rows down to its keyframe. They go together, in one
//! transaction, or the delta is stored as a keyframe first. Whoever deletes or rewrites snapshots of a state holds
//! its head row's lock, as everyone does who makes a version, and looks only then; the current version is never
//! deleted. So a writer that builds upon the current version finds it again, and a reader sees all of that or
//! nothing, since it reads a chain under one snapshot.
//!
//! **Branches** may build upon an older version, their parent, in a class that keeps all versions. The parent may be
//! deleted between the moment when the writer reads it and the moment when the writer has the lock; so the writer
//! looks for it with the lock held, and stores the branch as a keyframe where it is gone (`store::put_right`). No
//! keyframe lies between a delta and its base: a writer takes no parent below a keyframe, and whoever stores a
//! version as a keyframe does so with the branches that go past it (`prune::store_as_keyframe`). So a keyframe begins
//! all that lies above it, as those believe who prune by position, or drop partitions.
//!
//! **Going back goes forward.** To restore or recover makes a new version, by the door through which every change
//! goes (`transaction`): L1, subscribers and the next duplicate agree with it at once, and history stays.
//!
//! A recovery point is stored as a keyframe, so that it depends on no other row, and is not pruned unless that is
//! asked for.

pub mod by_hand;
mod damage;
mod history;
mod labels;
mod lives;
mod progress;
mod prune;
mod purge;
mod recover;
mod save;
mod verify;

pub use damage::Recovery;
pub use history::required_document;
pub use prune::{Needed, Retention, prune, prune_state, would_prune};
pub use purge::{
    Purged, check_sees_all, lock_written, purge_state, purge_versions, snapshot_of_now,
};
