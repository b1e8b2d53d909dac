//! Documents against models: what an operation makes of the bytes must be, byte for byte, the encoding
//! of what a plain model makes of the JSON value.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod changes;
mod chunked;
mod damage;
mod encoder;
mod random;
mod reading;
mod server;
mod size;
