//! The documentation: links lead somewhere, and everything that has a name is explained.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod links;
mod logs;
mod names;
mod pages;
mod programs;
mod release;
