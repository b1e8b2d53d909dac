//! `state-cache` against real servers: what each command prints, and its exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod browser;
mod connecting;
mod doctor;
mod looking;
mod moving;
mod page;
mod serving;
mod support;
mod terminal;
mod tls;
mod working;
