//! Connects as libpq does: arguments over the service file over the environment over defaults.
//!
//! `parameters` finds what to connect with, `tls` does what `sslmode` says, `database` is the connection itself.

mod database;
mod parameters;
mod tls;

pub use database::{Database, Row};
pub use parameters::{Options, Parameters};
