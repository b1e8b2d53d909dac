//! What was heard and is not written yet.
//!
//! The task that reads the connection puts messages in, at once and without waiting, so that PostgreSQL never waits
//! for a listener that does not read. The feeder takes changed states out. The memory is bounded: with more than
//! `most` states the inbox forgets them all and doubts, and the feeder asks for the changes since its cursor.
//!
//! # Numbers
//!
//! Messages are numbered without gaps within an epoch. While it follows, the inbox doubts a message that is not the
//! next one, one without number, and one that makes no sense. Settling: [`Inbox::begin`] forgets the number, then the
//! feeder asks PostgreSQL for position and changes, then [`Inbox::settle`] compares. Meanwhile messages are put in as
//! ever; they follow one another without gap, and the first of them must be no later than the one behind the
//! position. A lower number was heard already, and what it says is written again, which is harmless.

use crate::message::{Message, Name, Position, Told};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A state that changed.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// When the change was heard of.
    pub since: Instant,
    /// The version that deleted the state, if that was told.
    pub deleted: Option<i64>,
    /// How often a change was heard of.
    pub times: usize,
}

/// Why the feeder must ask for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// A message is missing, has no number, or makes no sense.
    Missed,
    /// States of a class were told as a whole.
    Invalidated,
    /// There are more changed states than are remembered.
    Overflow,
}

#[derive(Default)]
struct State {
    pending: HashMap<Name, Pending>,
    doubt: Option<(Doubt, Instant)>,
    /// The first message since [`Inbox::begin`], and the last.
    first: Option<Position>,
    last: Option<Position>,
    /// The classes that are in L2; what is heard of others moves the number only.
    classes: HashSet<String>,
    proof: u64,
    ended: Option<String>,
}

/// What was heard and is not written yet.
pub struct Inbox {
    state: Mutex<State>,
    heard: Notify,
    most: usize,
}

impl Inbox {
    /// An empty one for at most so many states.
    pub fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            heard: Notify::new(),
            most,
        }
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a notification of the extension.
    pub fn hear(&self, payload: &str) {
        let mut state = self.state();
        match Message::parse(payload) {
            None => state.doubt(Doubt::Missed),
            Some(message) => {
                state.number(message.position);
                match message.told {
                    Told::Changes(changes) => {
                        for (name, deleted) in changes {
                            state.add(name, deleted, self.most);
                        }
                    }
                    Told::Invalidate(Some(class)) if !state.classes.contains(&class) => {}
                    Told::Invalidate(_) => state.doubt(Doubt::Invalidated),
                }
            }
        }
        drop(state);
        self.heard.notify_one();
    }

    /// Takes in the proof with this number.
    pub fn proven(&self, number: u64) {
        self.state().proof = number;
        self.heard.notify_one();
    }

    /// Says that the connection has ended.
    pub fn end(&self, why: String) {
        self.state().ended = Some(why);
        self.heard.notify_one();
    }

    /// Waits until something was put in since the last wait.
    pub async fn wait(&self) {
        self.heard.notified().await;
    }

    /// The number of the last proof that arrived.
    pub fn proof(&self) -> u64 {
        self.state().proof
    }

    /// Why the connection has ended, if it has.
    pub fn ended(&self) -> Option<String> {
        self.state().ended.clone()
    }

    /// Which classes are in L2.
    pub fn set_classes(&self, classes: HashSet<String>) {
        self.state().classes = classes;
    }

    /// Why the feeder must ask for changes, if it must, and since when.
    pub fn doubt(&self) -> Option<(Doubt, Instant)> {
        self.state().doubt
    }

    /// Begins to settle: see the header.
    pub fn begin(&self) {
        let mut state = self.state();
        (state.first, state.last, state.doubt) = (None, None, None);
    }

    /// Settles: PostgreSQL was at this position after [`Inbox::begin`].
    pub fn settle(&self, position: Option<&Position>) {
        let mut state = self.state();
        let Some(position) = position else {
            return;
        };
        match &state.first {
            None => state.last = Some(position.clone()),
            Some(first)
                if first.epoch == position.epoch && first.seq <= position.seq.saturating_add(1) =>
            {
                if state
                    .last
                    .as_ref()
                    .is_none_or(|last| last.seq < position.seq)
                {
                    state.last = Some(position.clone());
                }
            }
            Some(_) => state.doubt(Doubt::Missed),
        }
    }

    /// Doubts if PostgreSQL was at this position before a proof that has arrived, and the messages up to there have
    /// not: one went to a channel that nobody listens on.
    pub fn expect(&self, position: Option<&Position>) {
        let mut state = self.state();
        let behind = match (&state.last, position) {
            (Some(last), Some(position)) => last.epoch != position.epoch || last.seq < position.seq,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if behind {
            state.doubt(Doubt::Missed);
        }
    }

    /// Takes out at most so many states of one class: the class that the longest waiting state has.
    pub fn take(&self, most: usize) -> Vec<(Name, Pending)> {
        let mut state = self.state();
        let Some(class) = state
            .pending
            .iter()
            .min_by_key(|(_, pending)| pending.since)
            .map(|(name, _)| &name.class)
        else {
            return Vec::new();
        };
        let class = class.clone();
        let mut names: Vec<_> = state
            .pending
            .iter()
            .filter(|(name, _)| name.class == class)
            .collect();
        if names.len() > most {
            names.select_nth_unstable_by_key(most, |(_, pending)| pending.since);
            names.truncate(most);
        }
        let names: Vec<Name> = names.into_iter().map(|(name, _)| name.clone()).collect();
        names
            .into_iter()
            .filter_map(|name| state.pending.remove_entry(&name))
            .collect()
    }

    /// How many states wait, and for how long the first of them, or the doubt, does.
    pub fn backlog(&self) -> (usize, Duration) {
        let state = self.state();
        let first = state.pending.values().map(|pending| pending.since).min();
        let doubted = state.doubt.map(|(_, since)| since);
        let since = first.into_iter().chain(doubted).min();
        (
            state.pending.len(),
            since.map_or(Duration::ZERO, |since| since.elapsed()),
        )
    }
}

impl State {
    fn doubt(&mut self, doubt: Doubt) {
        self.doubt.get_or_insert((doubt, Instant::now()));
    }

    fn number(&mut self, position: Option<Position>) {
        let Some(position) = position else {
            return self.doubt(Doubt::Missed);
        };
        match &self.last {
            Some(last) if last.epoch == position.epoch && position.seq <= last.seq => return,
            Some(last)
                if last.epoch != position.epoch || position.seq != last.seq.saturating_add(1) =>
            {
                self.doubt(Doubt::Missed);
            }
            _ => {}
        }
        if self.first.is_none() {
            self.first = Some(position.clone());
        }
        self.last = Some(position);
    }

    fn add(&mut self, name: Name, deleted: Option<i64>, most: usize) {
        if !self.classes.contains(&name.class) {
            return;
        }
        if let Some(pending) = self.pending.get_mut(&name) {
            pending.deleted = pending.deleted.max(deleted);
            pending.times += 1;
            return;
        }
        if self.pending.len() >= most {
            self.pending.clear();
            self.doubt(Doubt::Overflow);
            return;
        }
        self.pending.insert(
            name,
            Pending {
                since: Instant::now(),
                deleted,
                times: 1,
            },
        );
    }
}
