//! The source: no room imports one above it, no circle is hidden, no line is too long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lines;
mod reading;
mod rooms;
