//! The protocol between L1 and L3: who may read from L1, who may fill it, and how a commit publishes.
//!
//! # Contract
//!
//! L3 is the authority; an entry of L1 is a copy of the newest committed version of a state, together
//! with the transactions that wrote it. A read under a snapshot S answers what L3 says under S.
//!
//! **Commit** (`publish`). Before the commit record: reserve L1 memory for each changed state, copy the
//! new version into it, then raise `writers` of the state's stripe. After the commit became visible:
//! link the new entry (or remove the old one where there was no room) unless a newer one was published
//! meanwhile (see `publish` for the order of events), advance `generation`, lower `writers`. After an abort:
//! give the memory back, lower `writers`. The two last steps run in transaction callbacks: they allocate
//! nothing, wait for nothing but a partition's LWLock, and cannot fail.
//!
//! **Read** (`read`), under S, of a state that this transaction has not changed:
//! 1. If L1 is off, or the role may not see what it holds: read L3 under S and fill nothing. If the
//!    transaction is SERIALIZABLE, the server in recovery, or the stripe has writers: an entry answers where the head
//!    row agrees (`validated`), else read L3 under S; only in recovery may that fill.
//! 2. If there is an entry and its writers are visible to S, it is the answer: S was taken before the
//!    stripe was found quiet, so every commit that S sees has been published. If they are not visible,
//!    the head row decides, as in 1.
//! 3. If there is none: remember the stripe's generation, read L3 under a snapshot taken now, and fill
//!    only if the stripe is still quiet and its generation the same, which is checked under the
//!    partition's lock. The answer is that version if S sees its writers, else L3 is read again under S.
//!
//! What is not one key (TRUNCATE) uses the domain of the database in the same way as a stripe; bumping
//! its generation makes every entry of the database unreadable at once.
//!
//! Locks: at most one partition lock at a time, taken inside `state_cache_l1`; never across SQL, an
//! allocation by PostgreSQL or anything that raises an error.

mod behind;
pub mod computed;
pub mod damage;
mod fill;
pub mod forms;
pub mod found;
pub mod noting;
pub mod publish;
pub mod read;
pub mod tables;
pub mod validated;
pub mod visibility;
pub mod warm;

pub use behind::forget_read;
pub use visibility::own_full_xid;

use crate::catalog::{Catalog, Class};
use crate::error::{Error, Result, Shown, front_text};
use crate::shared::{Key, KeyId};
use std::rc::Rc;

/// The longest key, in bytes; L1 keeps keys in full, and an index row must hold class and key.
pub const MAX_KEY: usize = state_cache_l1::MAX_KEY;

/// A state named by a caller: its class is known and its key well-formed.
pub struct StateRef<'a> {
    /// The installation.
    pub catalog: Rc<Catalog>,
    /// The class.
    pub class: Rc<Class>,
    /// The key, in server encoding.
    pub key: &'a [u8],
    /// Hash of the name, made once: a change asks for it a dozen times.
    id: KeyId,
}

impl<'a> StateRef<'a> {
    /// Checks class (`42704`) and key (`22023`).
    pub fn new(catalog: &Rc<Catalog>, class: &[u8], key: &'a [u8]) -> Result<Self> {
        check_key(key)?;
        Ok(Self::of(catalog, catalog.class(class)?, key))
    }

    /// A state of this class; the key is well-formed.
    pub fn of(catalog: &Rc<Catalog>, class: Rc<Class>, key: &'a [u8]) -> Self {
        let id = catalog.l1_key(&class, key).id;
        Self {
            catalog: Rc::clone(catalog),
            class,
            key,
            id,
        }
    }

    /// Another state of the same class; the key is well-formed.
    pub fn sibling<'b>(&self, key: &'b [u8]) -> StateRef<'b> {
        StateRef::of(&self.catalog, Rc::clone(&self.class), key)
    }

    /// The same state, with its class as it is defined by now.
    pub fn of_class(&self, class: Rc<Class>) -> Self {
        debug_assert_eq!(class.name, self.class.name);
        Self {
            catalog: Rc::clone(&self.catalog),
            class,
            ..*self
        }
    }

    /// The hash of the state's name, within this installation.
    pub fn id(&self) -> u128 {
        self.id.0
    }

    /// The state as L1 knows it.
    pub fn l1_key(&self) -> Key<'_> {
        Key {
            id: self.id,
            db: self.catalog.database,
            incarnation: self.catalog.incarnation,
            class: &self.class.name,
            key: self.key,
        }
    }

    /// The state as messages show it.
    pub fn shown(&self) -> Shown {
        Shown::new(&self.class.name, self.key)
    }
}

/// `22023` unless it may be the key of a state.
pub fn check_key(key: &[u8]) -> Result<()> {
    check_key_within(key, MAX_KEY)
}

/// The same of a key that has at most so many bytes.
pub fn check_key_within(key: &[u8], most: usize) -> Result<()> {
    match key.len() {
        0 => Err(Error::argument("a key must not be empty")),
        len if len <= most => Ok(()),
        len => Err(Error::argument(format!(
            "key \"{}...\" is too long: {len} bytes, the limit is {most}",
            front_text(key, 32)
        ))),
    }
}
