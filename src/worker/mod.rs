//! The background workers.

pub mod task;
