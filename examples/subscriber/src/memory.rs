//! What is held, and whether it may be answered. No connection, no waiting.

use crate::State;
use crate::message::{Event, Message, Position};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// What is known of a state: the state, or that there is none.
pub type Known = Option<Arc<State>>;

/// States share this many counters of what was heard about them. When two share one, an answer is now and
/// then not remembered that could be.
const STRIPES: usize = 1024;

/// The copies.
pub struct Memory {
    /// By class and key.
    entries: HashMap<String, HashMap<String, Known>>,
    max_entries: usize,
    /// Per stripe, how often a state of it was dropped.
    heard: Vec<u64>,
    /// How often many states were dropped, or changes caught up with.
    generation: u64,
    /// Whether every change up to `position` was heard or caught up with.
    sure: bool,
    /// How often there was a reason for doubt.
    doubts: u64,
    /// Of the last message.
    position: Option<Position>,
    /// From where to catch up, and the epoch that it belongs to.
    cursor: Option<(Option<String>, String)>,
}

/// When a read began.
#[derive(Debug)]
pub struct Ticket {
    heard: u64,
    generation: u64,
}

/// When catching up began.
#[derive(Debug)]
pub struct Beginning {
    doubts: u64,
    position: Option<Position>,
}

impl Memory {
    /// Empty, and in doubt.
    pub fn new(max_entries: usize) -> Self {
        Self {
            entries: HashMap::new(),
            max_entries,
            heard: vec![0; STRIPES],
            generation: 0,
            sure: false,
            doubts: 0,
            position: None,
            cursor: None,
        }
    }

    /// What is known, or the ticket to give to [`Memory::remember`] with what a read that begins now found.
    pub fn look_up(&self, class: &str, key: &str) -> Result<Known, Ticket> {
        match self.entries.get(class).and_then(|keys| keys.get(key)) {
            Some(known) if self.sure => Ok(known.clone()),
            _ => Err(Ticket {
                heard: self.heard[stripe(class, key)],
                generation: self.generation,
            }),
        }
    }

    /// Keeps what was read, unless it may be out of date by now.
    pub fn remember(&mut self, ticket: Ticket, class: &str, key: &str, read: &Known) {
        let current =
            self.heard[stripe(class, key)] == ticket.heard && self.generation == ticket.generation;
        if !self.sure || !current {
            return;
        }
        if self.entries.values().map(HashMap::len).sum::<usize>() >= self.max_entries {
            self.drop_all();
        }
        let keys = self.entries.entry(class.to_owned()).or_default();
        let held = keys.entry(key.to_owned()).or_default();
        // Of two reads at the same time the later one may have been answered first.
        let version = |known: &Known| known.as_ref().map_or(0, |state| state.version);
        if version(held) <= version(read) {
            held.clone_from(read);
        }
    }

    /// Drops a state, and what is being read of it.
    pub fn drop_state(&mut self, class: &str, key: &str) {
        self.heard[stripe(class, key)] += 1;
        if let Some(keys) = self.entries.get_mut(class) {
            keys.remove(key);
        }
    }

    fn drop_all(&mut self) {
        self.generation += 1;
        self.entries.clear();
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Set { class, key, .. } | Event::Deleted { class, key, .. } => {
                self.drop_state(class, key);
            }
            // Whatever the pattern: read once too often, it is right all the same.
            Event::Invalidated {
                class: Some(class), ..
            } => {
                self.generation += 1;
                self.entries.remove(class);
            }
            Event::Invalidated { class: None, .. } | Event::StartedAnew => self.drop_all(),
            Event::CaughtUp | Event::Lost(_) => {}
        }
    }

    /// A message arrived. What it tells; whether something before it is missing, [`Memory::is_sure`] says.
    pub fn hear(&mut self, payload: &str) -> Vec<Event> {
        let Some(message) = Message::parse(payload) else {
            self.doubt();
            return Vec::new();
        };
        message.events.iter().for_each(|event| self.apply(event));
        match ahead(&message.position, &self.position) {
            Some(..=0) => return message.events,
            Some(1) => {}
            _ => self.doubt(),
        }
        self.position = Some(message.position);
        message.events
    }

    /// Every message up to here should have been heard.
    pub fn expect(&mut self, position: &Position) {
        let numbered = position.seq.is_some();
        if numbered && ahead(position, &self.position).is_none_or(|missing| missing > 0) {
            self.doubt();
        }
    }

    /// Something may have been missed.
    pub fn doubt(&mut self) {
        self.sure = false;
        self.doubts += 1;
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        self.doubt();
        // Where there is no epoch, nobody can say whether the next connection finds the same server.
        self.cursor.take_if(|(epoch, _)| epoch.is_none());
    }

    /// Whether there is no doubt.
    pub fn is_sure(&self) -> bool {
        self.sure
    }

    /// Catching up begins now: from here on it matters what comes in between.
    pub fn begin_to_settle(&self) -> Beginning {
        Beginning {
            doubts: self.doubts,
            position: self.position.clone(),
        }
    }

    /// From where to catch up with a server that is in this epoch; `None` if nothing can be kept.
    pub fn cursor(&self, epoch: &Option<String>) -> Option<String> {
        let (of, cursor) = self.cursor.as_ref()?;
        (of == epoch).then(|| cursor.clone())
    }

    /// All changes up to `now`, which the server said after the beginning, are in `events`. Settles the
    /// doubts that there were at the beginning, not those that came up since.
    pub fn settle(
        &mut self,
        beginning: Beginning,
        now: Position,
        cursor: String,
        events: &[Event],
    ) {
        events.iter().for_each(|event| self.apply(event));
        // A read that began before this may be older than it.
        self.generation += 1;
        self.cursor = Some((now.epoch.clone(), cursor));
        // Messages heard since may be ahead of `now`. Those heard before cannot be, or were not genuine.
        let genuine = ahead(&now, &beginning.position).is_none_or(|ahead| ahead >= 0);
        if !genuine || ahead(&now, &self.position).is_none_or(|ahead| ahead > 0) {
            self.position = Some(now);
        }
        self.sure = self.doubts == beginning.doubts;
    }
}

/// By how many messages one position is ahead of another; `None` if that cannot be said.
fn ahead(position: &Position, of: &Option<Position>) -> Option<i64> {
    let of = of.as_ref().filter(|of| of.epoch == position.epoch)?;
    position.seq?.checked_sub(of.seq?)
}

fn stripe(class: &str, key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    (class, key).hash(&mut hasher);
    hasher.finish() as usize % STRIPES
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
