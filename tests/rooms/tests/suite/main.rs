//! The source: no room imports one above it, and no circle is hidden.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reading;
mod rooms;
