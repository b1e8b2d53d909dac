//! Many keys at once: lists of versions and of states.
//!
//! # Contract
//!
//! What reads (`list`) reads the tables under the caller's snapshot, as `state_history` does, with the caller's
//! privileges and policies. The document of a version that L1 holds comes from L1: versions are never used again.

mod error;
mod list;
