//! Making ready, before the commit record, what a transaction has to tell.

use super::messages::{self, Message};
use super::news::News;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::settings::{self, Notify};
use crate::shared::{self, Database};
use state_cache_memory::collect;
use state_cache_ring::Record;

/// What a transaction has to tell, made ready before its commit record.
#[derive(Default)]
pub struct Prepared {
    /// Sent with the commit.
    pub(super) messages: Vec<Message>,
    /// Left to the worker, as the ring holds them.
    pub(super) records: Vec<u8>,
}

/// One transaction may fill this part of the ring; of one that changes more only the classes are told.
const LARGEST_SHARE: usize = 4;

/// Makes ready what is to be told.
pub fn prepare(catalog: &Catalog, mut news: Vec<News>) -> Result<Prepared> {
    let setting = settings::notify();
    if setting == Notify::Off || news.is_empty() {
        return Ok(Prepared::default());
    }
    let by_worker = match (shared::database(), shared::ring()) {
        (Some(database), Some(ring)) => {
            let worker_tells = setting == Notify::Worker && has_worker(database);
            let by_worker = collect(news.extract_if(.., |news| {
                news.behind || worker_tells && !news.touched.has_items()
            }))?;
            let records = collect(by_worker.iter().map(|news| Record {
                database: catalog.database,
                class: &news.class,
                key: &news.key,
                change: news.change,
            }))?;
            state_cache_ring::encode(catalog.database, &records, ring.capacity() / LARGEST_SHARE)?
        }
        _ => Vec::new(),
    };
    Ok(Prepared {
        messages: messages::messages(catalog, &news)?,
        records: by_worker,
    })
}

/// Whether there is a worker; it is asked for if not.
fn has_worker(database: &Database) -> bool {
    let has = database.has_worker();
    if !has {
        database.wake_worker();
    }
    has
}
