//! Changes on their way from committers to the workers that tell subscribers: a ring of records in one block
//! of memory that all processes of a server share.
//!
//! The crate knows no PostgreSQL. It is given a block of zeroed memory and a lock ([`Locks`]); each process
//! may map the block at its own address, so nothing in it is a pointer.
//!
//! # The ring
//!
//! A position is the number of bytes ever appended before it; the byte at position `p` lies at `p` modulo the
//! capacity. [`Ring::append`] never fails and waits for nobody: it overwrites the oldest bytes. Readers are
//! not known to the ring. Each has a position of its own, always between two records, and reads from there to
//! the head; it has been lapped exactly when the head is more than the capacity ahead of it, and then learns
//! so ([`Lapped`]) instead of reading something else.
//!
//! # Who may change what
//!
//! | what | protected by |
//! | --- | --- |
//! | head | the lock, exclusive to change; atomic, so that it can be looked at without |
//! | bytes | the lock: exclusive to write, shared to read |
//!
//! Under the lock runs nothing but the copy and what the caller of `append` adds, and nothing allocates.
//!
//! # Damage
//!
//! What is read is checked: lengths that cannot be are reported as [`Lapped`], since the reader has to do the
//! same, begin anew at the head.

mod digest;
mod record;
mod ring;

pub use digest::{Digest, Name};
pub use record::{Change, Damaged, MAX_RECORD, Record, decode, encode};
pub use ring::{Lapped, Ring};
pub use state_cache_l1::Locks;
