//! Telling subscribers what a transaction changed, in few messages.
//!
//! # Contract
//!
//! The messages of a database are numbered 1, 2, 3 … (`seq`) in the order in which they are delivered,
//! without gaps, over all channels; a new run of numbers has another `epoch`. All messages up to a `seq` that
//! was read belong to commits that a snapshot taken afterwards sees, and what that snapshot does not see is
//! told with a higher one.
//!
//! **With the commit** (`state_cache.notify = commit`). NOTIFY takes a lock of its own late in a commit, which
//! it holds until the transaction has ended: that makes the order of delivery that of the commits. We take the
//! same lock a little earlier, at the end of our work before the commit record ([`Prepared::send`]), give the
//! messages the next numbers, and store the last of them when the commit has become visible ([`commit`]):
//! before the lock is released, since transactions run their callbacks before they release their locks.
//! A transaction that fails on the way stores nothing, so there is no gap.
//!
//! Whatever runs between our callback and the commit record holds up all commits that notify. That is little:
//! the server calls the callback registered last first, and ours was registered when the server started, so
//! it comes after those of libraries that are loaded later, or that wait for a first use to register theirs.
//! In a session that has loaded the library itself there are no numbers and the lock is not taken early.
//! Where another library changes the tables after our callback all the same, everything is told to be dropped
//! ([`tell_late`]); it continues the transaction's numbers.
//!
//! **By the worker** (`state_cache.notify = worker`, and for changes that are left to the worker in any case:
//! NOTIFY needs a transaction id and a commit record, which they do without). Before the commit record the
//! changes are encoded; when it is visible and L1 shows it, they are appended to the ring in shared memory,
//! under one lightweight lock. The worker ([`Teller`]) merges them and sends the messages in a transaction of
//! its own, numbered like any other. It hears of changes in the order in which they were published, and tells
//! of no change that is not visible. If it falls behind by more than the ring holds, it begins a new epoch
//! and tells subscribers to drop everything.
//! Where there is no worker the messages go with the commit, and a worker is asked for. One that leaves while
//! a transaction commits is called back by that transaction.
//!
//! The two ways may be mixed, in one transaction too. A change may then be told before one that is older, of
//! the same state; it has the higher version.
//!
//! **Items of a blackboard.** A change that the blackboard functions made names them: `"items":["plan-a"]` beside
//! key and version. A list says that the transaction changed nothing else of the state, but that items whose time
//! was over may be gone. `null` says that items were changed, and more than is named may have been: there are too
//! many of them, the state was changed in other ways too, or it is new after its end. Without `items` the state was
//! changed in other ways. The ring has no room for items, so such a change is told with the commit whatever the
//! setting, and the batch does not leave it to the worker.
//!
//! **Without shared memory**, or a place for the database in it, nobody numbers messages: `seq` and `epoch` are null,
//! and all goes with the commit.

mod message;
mod messages;
mod outbox;
mod requests;
mod teller;
mod touched;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::settings::{self, Notify};
use crate::shared::{self, Database};
use messages::Message;
use state_cache_memory::collect;
use state_cache_ring::Record;

pub use outbox::{clear, commit, tell_late};
pub use requests::{
    has_requests, request_invalidation, requested, subtransaction_aborted, subtransaction_commits,
    subtransaction_committed,
};
pub use state_cache_ring::Change;
pub use teller::Teller;
pub use touched::Touched;

/// Something that subscribers are to hear.
#[derive(Debug, Clone)]
pub struct News {
    /// The class's name; empty for all of the database.
    pub class: Box<[u8]>,
    /// The key, or a pattern.
    pub key: Box<[u8]>,
    /// What happened.
    pub change: Change,
    /// The change is left to the worker, so it tells of it too.
    pub behind: bool,
    /// What of the state has changed, where that is told.
    pub touched: Touched,
}

impl News {
    /// Everything may have changed.
    pub fn everything() -> Self {
        Self {
            class: Box::default(),
            key: Box::default(),
            change: Change::Everything,
            behind: false,
            touched: Touched::default(),
        }
    }
}

/// What a transaction has to tell, made ready before its commit record.
#[derive(Default)]
pub struct Prepared {
    /// Sent with the commit.
    messages: Vec<Message>,
    /// Left to the worker, as the ring holds them.
    records: Vec<u8>,
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
