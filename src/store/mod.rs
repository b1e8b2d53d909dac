//! The SQL statements on L3, and nothing else.
//!
//! They run with the privileges of whoever is current. Every operator and function is named with its
//! schema, since a statement is parsed under the caller's `search_path`, and parsed again when that
//! has changed.

mod changes;
mod class;
mod own_write;
mod read;
mod spi;
mod upkeep;
mod write;

pub use changes::{Head, count, head, heads, newest_keys, raise_floor, raise_horizon, trace};
pub use class::{Setting, define as define_class, prune_class};
pub use own_write::{is_by_hand, is_caller_by_hand};
pub use read::{Content, Stored, Target, lock, read, target};
pub use spi::Proceed;
pub use upkeep::{
    Expiring, Tombstone, drop_tombstone, drop_traces, earliest_expiry, keeping_classes,
    lock_expired, prune, set_constraints_immediate, snapshots, tombstones,
};
pub use write::{
    NewVersion, Replaced, delete, expire, first_version, insert, insert_tombstone, replace, touch,
    update,
};

use spi::Statement;
use std::cell::OnceCell;

/// The prepared statements of one installation; each is prepared when first used.
#[derive(Default)]
pub struct Statements {
    read: OnceCell<Statement>,
    lock: OnceCell<Statement>,
    insert: OnceCell<Statement>,
    replace: OnceCell<Statement>,
    update: [OnceCell<Statement>; write::PRUNINGS],
    delete: [OnceCell<Statement>; write::PRUNINGS],
    touch: OnceCell<Statement>,
    target: OnceCell<Statement>,
    first_version: OnceCell<Statement>,
    prune_state: OnceCell<Statement>,
    insert_tombstone: OnceCell<Statement>,
    expire: OnceCell<Statement>,
    update_class: OnceCell<Statement>,
    insert_class: OnceCell<Statement>,
    prune_class: OnceCell<Statement>,
    changes: changes::Statements,
    upkeep: upkeep::Statements,
}
