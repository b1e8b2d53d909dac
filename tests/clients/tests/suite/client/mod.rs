//! The client in Rust (`clients/rust`) against a server. What its near cache promises is tested in
//! `tests/server/tests/suite/subscriber/`, where servers are killed and promoted.

mod batcher;
mod checker;
mod exported;
mod paused;
mod reads;
mod redis;
mod stage;
mod tiers;
mod tracking;
mod transactions;

use state_cache_client::{Builder, StateCache};
use state_cache_clients_tests::Database;
use tokio::runtime::Runtime;

/// A database, and the runtime of a client of it.
struct Home {
    database: Database,
    runtime: Runtime,
}

impl Home {
    fn new(name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self {
            database: Database::create(name),
            runtime,
        }
    }

    fn client(&self) -> StateCache {
        self.connect(StateCache::builder())
    }

    fn connect(&self, builder: Builder) -> StateCache {
        let connect = builder.connection(&self.database.parameters()).connect();
        self.runtime.block_on(connect).unwrap()
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// Lets a session that waits by itself work inside what a runtime runs.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
