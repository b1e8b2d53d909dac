//! The ring and its records seen from outside, over ordinary memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digest;
mod locking;
mod records;
mod ring;
mod support;
mod threads;
