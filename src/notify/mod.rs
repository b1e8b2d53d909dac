//! Telling subscribers: what a transaction changed, coalesced into few messages of its commit.

mod message;

use crate::cache::stats::{Counter, CounterSet};
use crate::catalog::{Catalog, c_string};
use crate::error::{Error, Result};
use crate::settings::{self, Notify};
use crate::{shared, sys};
use message::{Operation, Stamp};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

/// Channel of invalidations that belong to no class's own channel.
const INVALIDATE_CHANNEL: &CStr = c"cache_invalidate";
/// Channel of classes that `state_class` does not know (rows put into the tables by hand).
const DEFAULT_CHANNEL: &CStr = c"state_updated";
/// More messages than this about one class in one commit, and subscribers are told to drop the class
/// instead.
const MAX_MESSAGES: usize = 8;

/// Something that subscribers are to hear.
#[derive(Debug, Clone)]
pub struct News {
    /// The class's name; empty for all of the database.
    pub class: Box<[u8]>,
    /// The key.
    pub key: Box<[u8]>,
    /// What happened.
    pub change: Change,
}

/// What happened to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has this version now.
    Set(i64),
    /// It was deleted by this version.
    Delete(i64),
    /// Anything may have happened, to anything.
    Everything,
}

impl News {
    /// Everything may have changed.
    pub fn everything() -> Self {
        Self {
            class: Box::default(),
            key: Box::default(),
            change: Change::Everything,
        }
    }
}

/// Queues the messages of this transaction's commit.
pub fn queue(catalog: &Catalog, news: &[News]) -> Result<()> {
    if settings::notify() == Notify::Off || news.is_empty() {
        return Ok(());
    }
    if news.iter().any(|news| news.change == Change::Everything) {
        let mut channels = catalog.channels();
        channels.push(INVALIDATE_CHANNEL.to_owned());
        channels.sort();
        channels.dedup();
        for channel in channels {
            send(&channel, &message::invalidate(None, b"*", stamp(catalog)));
        }
        return Ok(());
    }
    let mut classes: BTreeMap<&[u8], Vec<&News>> = BTreeMap::new();
    for news in news {
        classes.entry(&news.class).or_default().push(news);
    }
    for (class, news) in classes {
        queue_class(catalog, class, &news)?;
    }
    Ok(())
}

fn queue_class(catalog: &Catalog, class: &[u8], news: &[&News]) -> Result<()> {
    let (channel, counters) = match catalog.class(class) {
        Ok(class) => (class.channel.clone(), class.counters.clone()),
        Err(Error::UnknownClass { .. }) => {
            (DEFAULT_CHANNEL.to_owned(), CounterSet::of_class(class))
        }
        Err(error) => return Err(error),
    };
    let mut packs = Vec::new();
    for operation in [Operation::Update, Operation::Delete] {
        let changes = news
            .iter()
            .filter_map(|news| match (news.change, operation) {
                (Change::Set(version), Operation::Update)
                | (Change::Delete(version), Operation::Delete) => Some((&*news.key, version)),
                _ => None,
            });
        packs.extend(
            message::pack(class, changes)
                .into_iter()
                .map(|pack| (operation, pack)),
        );
    }
    if packs.len() > MAX_MESSAGES {
        send(
            &channel,
            &message::invalidate(Some(class), b"*", stamp(catalog)),
        );
        counters.count(Counter::Notifications);
        return Ok(());
    }
    for (operation, pack) in packs {
        send(
            &channel,
            &message::changes(class, operation, &pack, stamp(catalog)),
        );
        counters.count(Counter::Notifications);
    }
    Ok(())
}

/// Queues the message that entries matching a pattern are to be dropped; `None` means all classes.
pub fn queue_invalidation(catalog: &Catalog, class: Option<&[u8]>, pattern: &[u8]) {
    if settings::notify() != Notify::Off {
        send(
            INVALIDATE_CHANNEL,
            &message::invalidate(class, pattern, stamp(catalog)),
        );
    }
}

fn stamp(_catalog: &Catalog) -> Option<Stamp> {
    let database = shared::database()?;
    let (epoch, seq) = database.last_message();
    database.set_last_message(epoch, seq + 1);
    Some(Stamp {
        epoch,
        seq: seq + 1,
    })
}

fn send(channel: &CStr, message: &[u8]) {
    let message: CString = c_string(message);
    sys::async_notify(channel, &message);
}
