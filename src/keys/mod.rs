//! Many keys at once: lists of versions and of states, purges, copies, times to live.
//!
//! # Contract
//!
//! What reads (`list`) reads the tables under the caller's snapshot, as `state_history` does, with the caller's
//! privileges and policies. The document of a version that L1 holds comes from L1: versions are never used again.
//!
//! Purging (`purge`) goes from state to state in the order in which a flush locks states: by the bytes of the keys.
//! What is done to one state says `snapshots::purge`. Where the whole state goes, its log goes after it, under the
//! lock of the log: whoever appends to a log and then writes the state in one transaction may end with 40P01. On an
//! error the transaction takes everything back. A state or an entry that is committed after the purge has passed its
//! key is a new one.
//!
//! Copying (`copy`) locks all states that are copied, and all whose names the copies get, in the same order, before
//! the first row is written; then the rows are written as they are, as the caller. Whoever has no head row yet is not
//! locked: of two who make the same key the primary key of `state_head` decides, and the later copy fails as a
//! whole. For L1, listeners and catch-up a copy is what a row is that somebody writes by hand. The numbers of a copy
//! begin above all that the state of its name had. Entries of a log are copied under the lock of the new log.

mod copy;
mod error;
mod list;
mod names;
mod purge;
mod touch;
