//! Histories that are stored and read back, and stored forms that are damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod forged;
mod fuzz;
mod history;
#[path = "../../../document/tests/document/encoder.rs"]
mod jsonb;
#[path = "../../../document/tests/document/random.rs"]
#[allow(dead_code, reason = "the tests of documents use more of it")]
mod random;
mod round_trip;
mod store;
