//! The cache seen from outside, over ordinary memory and spinning locks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod classes;
mod damage;
mod dirty;
mod dirty_model;
mod dirty_threads;
mod dirty_worker;
mod eviction;
mod hit_rate;
mod late;
mod marks;
mod model;
mod support;
mod threads;
mod trace;
mod values;
