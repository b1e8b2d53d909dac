//! Making ready, before the commit record, what a transaction has to tell.

use super::held;
use super::messages::{self, Message};
use super::news::News;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::settings::{self, Notify};
use crate::shared::{self, Database};
use state_cache_memory::collect;
use state_cache_ring::{Change, Record};

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
    if setting == Notify::Off {
        return Ok(Prepared::default());
    }
    leave_out_silent_classes(catalog, &mut news)?;
    if news.is_empty() {
        return Ok(Prepared::default());
    }
    let by_worker = match (shared::database(), shared::ring()) {
        (Some(database), Some(ring)) => {
            let room = ring.capacity() / LARGEST_SHARE;
            let wants_worker = match setting {
                Notify::Auto => worker_can_tell_all(catalog, &news, room),
                Notify::Worker => true,
                Notify::Commit | Notify::Off => false,
            };
            let worker_tells = wants_worker && hand_over(database);
            let by_worker = collect(news.extract_if(.., |news| {
                news.behind || worker_tells && !news.touched.has_items()
            }))?;
            if !by_worker.is_empty() {
                held::hold(database);
            }
            let records = collect(by_worker.iter().map(|news| record(catalog, news)))?;
            state_cache_ring::encode(catalog.database, &records, room)?
        }
        _ => Vec::new(),
    };
    Ok(Prepared {
        messages: messages::messages(catalog, &news)?,
        records: by_worker,
    })
}

/// Leaves out the changes in classes whose setting `notify` is off. What was asked for by `state_invalidate` stays,
/// and so does what is told about the whole database.
fn leave_out_silent_classes(catalog: &Catalog, news: &mut Vec<News>) -> Result<()> {
    let mut outcome = Ok(());
    news.retain(|news| {
        if outcome.is_err() || news.class.is_empty() || news.change == Change::Matching {
            return true;
        }
        match catalog.class(&news.class) {
            Ok(class) => class.notifies,
            Err(Error::UnknownClass { .. }) => true,
            Err(error) => {
                outcome = Err(error);
                true
            }
        }
    });
    outcome
}

/// Whether the worker could tell the transaction as exactly as the commit. Items only a commit can tell, and that
/// takes NOTIFY's lock anyway; of what is too large for the ring the worker would tell the classes only.
fn worker_can_tell_all(catalog: &Catalog, news: &[News], room: usize) -> bool {
    let bytes: usize = news.iter().map(|news| record(catalog, news).len()).sum();
    bytes <= room && !news.iter().any(|news| news.touched.has_items())
}

/// Whether there is a worker that tells. If so it stays until the transaction has ended; if not, one is asked for.
fn hand_over(database: &'static Database) -> bool {
    let may = held::take(database);
    if !may && !database.has_worker() {
        database.wake_worker();
    }
    may
}

/// The news as the ring holds it.
fn record<'a>(catalog: &Catalog, news: &'a News) -> Record<'a> {
    Record {
        database: catalog.database,
        class: &news.class,
        key: &news.key,
        change: news.change,
    }
}
