//! A client of `state_cache` for tokio: typed reads through a near cache that keeps itself right, writes,
//! transactions that are run again when they meet others, and a batcher.
//!
//! Each file says in its header what it promises and why it holds: the near cache in `near.rs`, what no answer may be
//! older than in `floors.rs`, Redis as a tier in `l2.rs`, Redis as
//! the one that tells what has changed in `tracking.rs`, the batcher in `batcher.rs`.

mod batcher;
mod builder;
mod cache;
mod change;
mod coalesce;
mod dial;
mod error;
mod floors;
mod l2;
mod link;
mod message;
mod near;
mod retry;
mod state;
mod statements;
mod stats;
mod tracking;
mod transaction;

pub use batcher::{BatchError, Batcher, BatcherOptions, Receipt, Refused};
pub use builder::{Builder, ClassLimits, Following, Retries, StatementCache, WhileDown};
pub use cache::StateCache;
pub use change::{Checkpoint, Saved, SetOptions};
pub use error::{Error, Refusal};
pub use l2::L2Options;
pub use message::Event;
pub use near::Known;
pub use state::{Answer, Document, State};
pub use stats::{Stats, Tier, TierStats};
pub use transaction::{Isolation, Run, Transaction, TransactionOptions};

/// What a call of the client gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
