//! The feeder against real servers: each test has a PostgreSQL and a Redis of its own, and runs the program.
//!
//! `STATE_CACHE_BIN` names the directory of PostgreSQL's programs with the extension beside them (`make clients` sees
//! to it); `redis-server` is on PATH. What goes wrong here is a failed test, so everything panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attach;
mod clocks;
mod cluster;
mod faults;
mod follow;
mod proxy;
mod resync;
mod scripts;
mod stress;
mod support;
mod tls;
