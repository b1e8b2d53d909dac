//! The merge of runs: its rules one by one, random histories against a model, and damaged documents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod histories;
mod model;
mod rules;
#[path = "../../src/support.rs"]
mod support;

fn no_guard() {}
