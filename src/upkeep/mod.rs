//! Upkeep: what the worker does for the tables and for L1 when nothing else is to be done.
//!
//! # Contract
//!
//! - **Expiry** (`expiry`) removes states whose time is over: as deletes, with a version, published to L1 and
//!   told to subscribers through the doors that a delete by function goes through.
//! - **Retention** (`retention`) drops tombstones and traces that are older than
//!   `state_cache.tombstone_retention`, and snapshots that their class does not keep.
//! - **Protections** (`protections`) notes what users have put onto the tables and pg_dump leaves out.
//! - **Warm** (`warm`) fills L1 after a start with what it held at the last clean shutdown (`resident`).
//!
//! **In small steps.** A task runs transactions of at most a hundred rows or so and lets time pass between
//! them, so that it holds no lock for long and leaves the server to others. A row that somebody has locked is
//! passed over and looked at again in the next pass. What fails is passed over too: a trigger that forbids one
//! state to go does not hold up the others.
//!
//! **Whose privileges.** Users may have put triggers on the tables. What upkeep writes, it writes as the owner
//! of the table, in a security-restricted operation; deferrable triggers fire before the role is given back.
//!
//! **What may be dropped.** A tombstone or a trace goes when every snapshot that is in use in this database,
//! and every one that is taken from then on, sees it. Therefore:
//! - a cursor that is taken after it went sees it as well, and is never refused for it (`changes`);
//! - whoever finds the tombstone gone also finds the floor that it left behind (`state_floor`), in which its
//!   version lives on: no transaction can have looked before there was one. Versions are never used again.

mod expiry;
mod pace;
mod protections;
mod pruning;
mod resident;
mod retention;
#[cfg(feature = "fault_injection")]
mod test_functions;
mod warm;

pub use expiry::Expiry;
pub use protections::Protections;
pub use resident::RESIDENT;
pub use retention::Retention;
pub use warm::Warm;
