//! What outlives the process that wrote it: the cursor that a subscriber keeps ([`Cursor`]), and the list of
//! states that L1 held at a clean shutdown ([`resident`]).
//!
//! The crate knows no PostgreSQL. What is read here was written by somebody else, perhaps long ago: it is
//! checked in full before any of it is used.

mod cursor;
pub mod resident;
mod xid;

pub use cursor::{Cursor, Home, Unread};
pub use xid::{widen, widen_at_most};
