//! The programs in `examples/` that the pages in `docs/clients/` show: each comes out as its page says. And the tests
//! of the Python package in `clients/python`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod package;
mod programs;
mod runners;
