//! Which messages tell a list of news.

use super::message::{self, ANY_CLASS, ANY_KEY, Operation, Stamp, Told};
use super::news::News;
use crate::catalog::{Catalog, c_string};
use crate::counters::{Counter, CounterSet};
use crate::error::{Error, Result};
use crate::{memory, sys};
use state_cache_memory::Grow;
use state_cache_ring::Change;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// Channel of invalidations that belong to no class's own channel.
const INVALIDATE_CHANNEL: &CStr = c"cache_invalidate";
/// Channel of classes that `state_class` does not know (rows put into the tables by hand).
const DEFAULT_CHANNEL: &CStr = c"state_updated";
/// More messages than this about one class at a time, and subscribers are told to drop the class instead.
const MAX_MESSAGES: usize = 8;

/// A message without a number.
pub struct Message {
    channel: CString,
    body: Vec<u8>,
    /// Counts it, if it is about changes in a class.
    counters: Option<Rc<CounterSet>>,
}

impl Message {
    /// Queues the message, to be sent when the transaction commits.
    pub fn send(self, stamp: Option<Stamp>) {
        let message = c_string(&message::finish(self.body, stamp));
        sys::async_notify(&self.channel, &message);
        if let Some(counters) = self.counters {
            counters.count(Counter::Notifications);
        }
    }
}

/// The messages that tell `news`.
pub fn messages(catalog: &Catalog, news: &[News]) -> Result<Vec<Message>> {
    let all = |news: &News| news.change == Change::Everything && news.class.is_empty();
    if news.iter().any(all) {
        return everything(catalog);
    }
    let mut classes: BTreeMap<&[u8], Vec<&News>> = BTreeMap::new();
    let mut patterns = Vec::new();
    for news in news {
        if news.change == Change::Matching {
            patterns.try_push(news)?;
        } else {
            classes.entry(&news.class).or_default().try_push(news)?;
        }
    }
    let mut messages = Vec::new();
    for (class, news) in classes {
        add_class(&mut messages, catalog, class, &news)?;
    }
    messages.extend(invalidations(&patterns));
    Ok(messages)
}

/// Subscribers of every channel are to drop everything.
pub fn everything(catalog: &Catalog) -> Result<Vec<Message>> {
    let mut channels = catalog.channels()?;
    channels.try_push(INVALIDATE_CHANNEL.to_owned())?;
    channels.sort_unstable();
    channels.dedup();
    let messages = channels.into_iter().map(|channel| Message {
        channel,
        body: message::invalidate(ANY_CLASS, ANY_KEY),
        counters: None,
    });
    memory::checked(messages)
}

fn add_class(
    messages: &mut Vec<Message>,
    catalog: &Catalog,
    class: &[u8],
    news: &[&News],
) -> Result<()> {
    let (channel, counters) = match catalog.class(class) {
        Ok(class) => (class.channel.clone(), class.counters.clone()),
        Err(Error::UnknownClass { .. }) => {
            (DEFAULT_CHANNEL.to_owned(), CounterSet::of_class(class))
        }
        Err(error) => return Err(error),
    };
    let name = message::quoted(class);
    let (mut bodies, mut patterns) = (Vec::new(), Vec::new());
    let name_or_any = name.as_deref().unwrap_or(ANY_CLASS);
    for operation in [Operation::Update, Operation::Delete] {
        let changes = news
            .iter()
            .filter_map(|news| match (news.change, operation) {
                (Change::Set(version), Operation::Update) => {
                    Some((&*news.key, version, news.touched.told()))
                }
                (Change::Delete(version), Operation::Delete) => {
                    Some((&*news.key, version, Told::Nothing))
                }
                _ => None,
            });
        let packed = message::pack(name_or_any, MAX_MESSAGES, changes);
        let packs = packed.packs.iter();
        bodies.extend(packs.map(|pack| message::changes(name_or_any, operation, pack)));
        patterns.extend(packed.patterns);
    }
    patterns.sort();
    patterns.dedup();
    let patterns = patterns.iter();
    bodies.extend(patterns.map(|pattern| message::invalidate(name_or_any, pattern)));
    let everything = |news: &&News| news.change == Change::Everything;
    if name.is_none() || bodies.len() > MAX_MESSAGES || news.iter().any(everything) {
        bodies = vec![message::invalidate(name_or_any, ANY_KEY)];
    }
    messages.extend(bodies.into_iter().map(|body| Message {
        channel: channel.clone(),
        body,
        counters: Some(Rc::clone(&counters)),
    }));
    Ok(())
}

/// The messages that entries matching patterns are to be dropped.
fn invalidations(patterns: &[&News]) -> Vec<Message> {
    let message = |class: &[u8], pattern: &[u8]| {
        let class = match class {
            [] => None,
            class => message::quoted(class),
        };
        Message {
            channel: INVALIDATE_CHANNEL.to_owned(),
            body: message::invalidate(class.as_deref().unwrap_or(ANY_CLASS), pattern),
            counters: None,
        }
    };
    match patterns {
        [first, rest @ ..] if rest.len() >= MAX_MESSAGES => {
            let one_class = rest.iter().all(|other| other.class == first.class);
            vec![message(if one_class { &first.class } else { &[] }, ANY_KEY)]
        }
        _ => patterns
            .iter()
            .map(|news| message(&news.class, &message::quoted_pattern(&news.key)))
            .collect(),
    }
}
