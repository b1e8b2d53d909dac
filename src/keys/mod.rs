//! Many keys at once: lists of versions and of states, purges.
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

mod error;
mod list;
mod purge;
