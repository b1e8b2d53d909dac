//! The programs in `examples/` that the pages in `docs/clients/` show: each comes out as its page says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod programs;
mod runners;
