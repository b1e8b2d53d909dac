//! The programs in `examples/` that the pages in `docs/clients/` show: each comes out as its page says. And the tests
//! of the clients in `clients/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod javascript;
mod package;
mod programs;
mod runners;
