//! The near cache: what is held, and whether it may be answered. No connection, no waiting.
//!
//! # Why it is right
//!
//! **LISTEN first, then ask.** What commits after LISTEN is delivered. `state_cursor()` is asked later and
//! gives (epoch, seq, cursor): the cursor covers every message up to seq, and what it does not cover is in
//! a message with a higher number. So each change is covered or heard. Asked the other way round, what
//! commits between the answer and LISTEN is in neither.
//!
//! **Duplicates are harmless.** `state_changes(cursor)` looks later than `state_cursor()`, so it covers all
//! messages up to seq too, and changes that are heard as well. All that either does is to drop a copy,
//! which may be done twice and in any order. Whether a copy is dropped does not depend on versions: the tables
//! may be changed by hand, and a version set back is a change like any other.
//!
//! **A read races with messages.** A message may arrive while the state is being read, and the answer may
//! be older than it. So [`Near`] counts what it hears, and remembers an answer only if nothing was heard about the
//! state since the question, and if there was no catching up either.
//!
//! **In doubt it does not answer as if it were sure.** Messages are numbered without gaps. A number that is not the
//! next one, a message without number, a message that makes no sense, and the end of the connection all raise a
//! doubt. Until it has caught up, reads go to the server, unless the caller has said how old an unproven answer may
//! be ([`WhileDown`]); such an answer says so. What is held stays, for most of it will prove to be right.
//!
//! **Another epoch, another server.** After a restart, a promotion or an overflow nothing held is used again:
//! the server may have lost what it had acknowledged (`behind` mode, `synchronous_commit = off`, a standby
//! that lagged), and numbers its transactions anew from there, so no cursor can tell.
//!
//! **A proof ends by itself.** Messages may wait in the connection, unread: the process was stopped, or its runtime
//! was kept busy. A read that comes first then finds the copy from before. So a copy is answered only if the last
//! proof began less than a heartbeat and three times the patience ago ([`crate::Following`]), by the clock that only
//! goes forward, and goes on while the process is stopped. After that, and until the next proof, the near cache does
//! as [`WhileDown`] says. No clock of the server or of another host is looked at.
//!
//! **A class without messages is not remembered** (`notify` = `off` in `state_class`). Each read asks. If the
//! class was switched off after that, the message of that moment is heard since the question, so the answer is
//! not remembered.
//!
//! **The cursor moves only when changes were asked for**, never because messages were heard: where the
//! worker sends them, a commit can be visible to a new cursor before its message was sent.
//!
//! **LISTEN can fail in silence.** A proxy that pools transactions accepts it on a connection that then
//! belongs to others. So a notification is sent from a second connection, at the start, after each reconnect
//! and as a heartbeat, and must arrive. That also shows that both connections lead to the same database, and
//! it arrives after all messages before it: should the number of the last one then be behind what
//! `state_cursor()` said before, one went to a channel that was not listened to (a new class).
//!
//! **One read per key at a time.** Who finds no copy joins the read that is under way. Such a read may have begun
//! before the caller's own write, or before a message that was heard since; so both take the read out of the list of
//! those that can be joined, and the next caller begins one of its own. A caller that is cancelled cancels nothing:
//! the others go on with the read.
//!
//! **No answer is older than one before it.** Between two reads of one client, a slow read may come in last. Each
//! answer goes past the state's floor ([`crate::floors`]), under the same lock under which it is remembered. A copy
//! below a floor is dropped when the floor is raised, so a hit needs no look at the floors.
//!
//! # What another process can do between any two steps
//!
//! | between | somebody commits a change, and |
//! | --- | --- |
//! | LISTEN and `state_cursor()` | the cursor covers it; it may be heard too |
//! | `state_cursor()` and `state_changes()` | it is in the changes, and heard with a higher number |
//! | `state_changes()` and the settling | it is heard; a read that began before `settle` is not kept |
//! | the ticket and the read | the read sees it; the message moves `heard`, so the answer is given and not kept |
//! | the read and `arrived` | the answer is from before it. Heard already: not kept. Else kept, until it is heard |
//! | `arrived` and a hit | nothing was heard yet: the hit answers as before the commit, until the message comes |
//!
//! # What it does not do
//!
//! Between a commit and its message, a copy answers as before the commit: milliseconds, and when a connection dies in
//! silence, or the process is stopped, at most the heartbeat and three times the patience. A machine that sleeps
//! stops the clock that only goes forward: it may wake up with a proof that seems young. A state with a ttl is
//! answered until the worker has removed it. Hits are not part of the application's transactions.

use crate::builder::{ClassLimits, WhileDown};
use crate::floors::{Floors, Verdict};
use crate::message::{Event, Message, Position};
use crate::{Error, State, Tier};
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of a state: the state, or that there is none.
pub type Known = Option<Arc<State>>;

/// A read that several callers wait for.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<(Read, Tier), Error>>>;

/// States share this many counters of what was heard about them. When two share one, an answer is now and
/// then not remembered that could be.
const STRIPES: usize = 1024;

/// What an entry takes beside its document and key, in bytes; estimated.
const OVERHEAD: usize = 200;

/// What a read has found.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    /// The state, or that there is none.
    pub known: Known,
    /// The version: of the state, or of its deletion as far as that is known, else 0.
    pub version: i64,
    /// The class has messages, so the state may be remembered.
    pub is_told: bool,
    /// How long the state has to live yet, if it ends before its class says, and this was asked for.
    pub left: Option<Duration>,
}

/// A copy.
struct Copy {
    known: Known,
    version: i64,
    filled: Instant,
    bytes: usize,
}

/// The copies of one class.
struct Copies {
    entries: LruCache<Box<str>, Copy>,
    bytes: usize,
    limits: ClassLimits,
}

impl Copies {
    fn new(limits: ClassLimits) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            limits,
        }
    }

    fn put(&mut self, key: &str, copy: Copy) -> usize {
        // One that takes a quarter of the room would turn out too many others.
        if copy.bytes > self.limits.bytes / 4 || self.limits.entries == 0 {
            self.remove(key);
            return 0;
        }
        self.bytes += copy.bytes;
        if let Some(old) = self.entries.put(key.into(), copy) {
            self.bytes -= old.bytes;
        }
        let mut turned_out = 0;
        while self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes {
            let Some((_, oldest)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes -= oldest.bytes;
            turned_out += 1;
        }
        turned_out
    }

    fn remove(&mut self, key: &str) -> bool {
        let removed = self.entries.pop(key);
        self.bytes -= removed.as_ref().map_or(0, |copy| copy.bytes);
        removed.is_some()
    }
}

/// The answer of the near cache.
pub(crate) enum Look {
    /// A copy, and how long it has been unproven: not at all when `None`.
    Hit(Known, i64, Option<Duration>),
    /// Nothing that may be answered.
    Miss,
}

/// When a read began.
#[derive(Debug)]
pub(crate) struct Ticket {
    heard: u64,
    generation: u64,
    moment: u64,
}

/// When catching up began.
#[derive(Debug)]
pub(crate) struct Beginning {
    doubts: u64,
    position: Option<Position>,
    at: Instant,
}

/// A copy was dropped by a message about this version.
#[derive(Debug)]
pub(crate) struct Applied {
    pub class: String,
    pub key: String,
    pub version: i64,
    pub at: Instant,
}

/// Who tells of the next change of a state that Redis has answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    /// The server, and perhaps it has: where changes were told without their versions, Redis may be behind them for
    /// so long.
    ByTheServer {
        /// How far behind Redis may be.
        max_lag: Duration,
    },
    /// Redis, of the keys of a generation.
    ByRedis {
        /// The generation that has answered.
        generation: u64,
    },
}

/// How often, at most, it is looked at how long a change has taken to be applied.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// The copies, and what must be known to answer from them.
pub(crate) struct Near {
    classes: HashMap<String, Copies>,
    limits: HashMap<String, ClassLimits>,
    other_limits: ClassLimits,
    while_down: WhileDown,
    /// Switched off, it holds nothing and answers nothing.
    enabled: bool,
    /// Per stripe, how often a state of it was dropped.
    heard: Vec<u64>,
    /// How often many states were dropped, or changes caught up with.
    generation: u64,
    /// When all of a class, or all, was last dropped: changes that were told without their versions.
    dropped: HashMap<String, Instant>,
    dropped_all: Option<Instant>,
    floors: Floors,
    /// Reads that can be joined, each with its number.
    flights: HashMap<(String, String), (u64, Flight)>,
    flown: u64,
    /// Whether every change up to `position` was heard or caught up with.
    sure: bool,
    /// When that was last proven.
    proven: Instant,
    /// How long a proof holds.
    holds: Duration,
    /// Where Redis tells what has changed: the generation that copies are of.
    redis: Option<u64>,
    /// How often there was a reason for doubt.
    doubts: u64,
    /// Of the last message.
    position: Option<Position>,
    /// From where to catch up, and the epoch that it belongs to.
    cursor: Option<(Option<String>, String)>,
    /// A change whose age is to be looked at.
    applied: Option<Applied>,
    sampled: Option<Instant>,
    /// Copies that were turned out for want of room, since somebody asked.
    turned_out: u64,
}

impl Near {
    /// Empty, and in doubt. A proof that all was heard holds so long.
    pub fn new(
        limits: HashMap<String, ClassLimits>,
        other_limits: ClassLimits,
        while_down: WhileDown,
        holds: Duration,
        exact_floors: usize,
    ) -> Self {
        Self {
            classes: HashMap::new(),
            limits,
            other_limits,
            while_down,
            enabled: true,
            heard: vec![0; STRIPES],
            generation: 0,
            dropped: HashMap::new(),
            dropped_all: None,
            floors: Floors::new(exact_floors),
            flights: HashMap::new(),
            flown: 0,
            sure: false,
            proven: Instant::now(),
            holds,
            redis: None,
            doubts: 0,
            position: None,
            cursor: None,
            applied: None,
            sampled: None,
            turned_out: 0,
        }
    }

    /// From now on Redis tells what has changed, and a proof of that holds so long ([`crate::tracking`]).
    pub fn follow_redis(&mut self, holds: Duration) {
        self.holds = holds;
        self.redis = Some(0);
    }

    /// Whether what is held is known to be right: every change was heard, and the last proof of that still holds.
    pub fn is_proven(&self, now: Instant) -> bool {
        self.sure && now.saturating_duration_since(self.proven) < self.holds
    }

    /// Every change up to the moment was told by Redis. Settles the doubts that there were at the beginning, not
    /// those that came up since.
    pub fn prove(&mut self, beginning: &Beginning) {
        if self.doubts == beginning.doubts {
            self.sure = true;
            self.proven = beginning.at;
        }
    }

    /// Nothing that was held may be answered any more.
    pub fn drop_everything(&mut self, now: Instant) {
        self.apply(&Event::StartedAnew, now);
    }

    /// Copies are of this generation of Redis from now on; what is held is of another one, or nobody knows what has
    /// become of it.
    pub fn start_anew(&mut self, generation: u64, now: Instant) {
        self.drop_everything(now);
        if let Some(of) = &mut self.redis {
            *of = generation;
        }
    }

    /// What may be answered now.
    pub fn look_up(&mut self, class: &str, key: &str, now: Instant) -> Look {
        let unproven = match (self.is_proven(now), self.while_down) {
            (true, _) => None,
            (false, WhileDown::Bypass) => return Look::Miss,
            (false, WhileDown::ServeUpTo(age)) => {
                let unproven = now.saturating_duration_since(self.proven);
                if unproven > age {
                    return Look::Miss;
                }
                Some(unproven)
            }
        };
        let Some(copies) = self.classes.get_mut(class) else {
            return Look::Miss;
        };
        // Age counts from the read that filled the copy: used or not, it ends.
        let ttl = copies.limits.ttl;
        match copies.entries.get(key) {
            Some(copy) if now.saturating_duration_since(copy.filled) < ttl => {
                Look::Hit(copy.known.clone(), copy.version, unproven)
            }
            Some(_) => {
                copies.remove(key);
                Look::Miss
            }
            None => Look::Miss,
        }
    }

    /// The ticket to give to [`Near::arrived`] with what a read that begins now has found.
    pub fn ticket(&self, class: &str, key: &str) -> Ticket {
        Ticket {
            heard: self.heard[stripe(class, key)],
            generation: self.generation,
            moment: self.floors.moment(),
        }
    }

    /// The server has answered a read. If the answer is good it is kept, unless it may be out of date by now.
    pub fn arrived(
        &mut self,
        ticket: &Ticket,
        class: &str,
        key: &str,
        read: &Read,
        now: Instant,
    ) -> Verdict {
        let verdict = self.floors.judge(class, key, read.version, ticket.moment);
        // Where Redis tells, it tells of what it holds only.
        let is_kept = verdict == Verdict::Good
            && self.redis.is_none()
            && self.keep(ticket, class, key, read, now);
        if verdict == Verdict::Good
            && !is_kept
            && let Some(copies) = self.classes.get_mut(class)
            && copies
                .entries
                .peek(key)
                .is_some_and(|copy| copy.version != read.version)
        {
            // In doubt nothing is kept, and what is held may still be answered: not once something newer was.
            copies.remove(key);
        }
        verdict
    }

    /// Redis has answered. The answer is good if it is not older than what is known. It is kept if its next change
    /// will be told: see [`Told`].
    pub fn arrived_from_l2(
        &mut self,
        ticket: &Ticket,
        class: &str,
        key: &str,
        read: &Read,
        now: Instant,
        told: Told,
    ) -> Verdict {
        if read.version < self.floors.get(class, key) {
            return Verdict::Old;
        }
        self.floors.raise(class, key, read.version);
        let is_told = match told {
            Told::ByTheServer { max_lag } => {
                let last = self.dropped.get(class).copied().max(self.dropped_all);
                last.is_some_and(|last| now.saturating_duration_since(last) >= max_lag)
            }
            Told::ByRedis { generation } => self.redis == Some(generation),
        };
        if !is_told || !self.keep(ticket, class, key, read, now) {
            self.saw(class, key, read.version);
        }
        Verdict::Good
    }

    /// The version that an answer about a state must have at least.
    pub fn floor(&self, class: &str, key: &str) -> i64 {
        self.floors.get(class, key)
    }

    /// The server has answered a part of a state.
    pub fn passed(&mut self, ticket: &Ticket, class: &str, key: &str, version: i64) -> Verdict {
        let verdict = self.floors.judge(class, key, version, ticket.moment);
        if verdict == Verdict::Good {
            self.saw(class, key, version);
        }
        verdict
    }

    /// Whether it was kept.
    fn keep(&mut self, ticket: &Ticket, class: &str, key: &str, read: &Read, now: Instant) -> bool {
        let current =
            self.heard[stripe(class, key)] == ticket.heard && self.generation == ticket.generation;
        if !self.is_proven(now) || !current || !read.is_told || !self.enabled {
            return false;
        }
        if !self.classes.contains_key(class) {
            let limits = *self.limits.get(class).unwrap_or(&self.other_limits);
            self.classes.insert(class.to_owned(), Copies::new(limits));
        }
        let Some(copies) = self.classes.get_mut(class) else {
            return false;
        };
        let document = read.known.as_ref().map_or(0, |state| state.document.len());
        let copy = Copy {
            known: read.known.clone(),
            version: read.version,
            filled: now,
            // The typed value beside the text takes about as much again.
            bytes: 2 * document + key.len() + OVERHEAD,
        };
        self.turned_out += copies.put(key, copy) as u64;
        true
    }

    /// A state was seen in this version elsewhere: no answer may be older from now on.
    pub fn saw(&mut self, class: &str, key: &str, version: i64) {
        self.floors.raise(class, key, version);
        if let Some(copies) = self.classes.get_mut(class)
            && copies
                .entries
                .peek(key)
                .is_some_and(|copy| copy.version < version)
        {
            copies.remove(key);
            self.flights.remove(&(class.to_owned(), key.to_owned()));
        }
    }

    /// This client has changed a state, and its transaction is committed. Only the server knows the version.
    pub fn wrote(&mut self, class: &str, key: &str) {
        self.drop_state(class, key);
        self.floors.lose(class, key);
    }

    /// Drops a state, and what is being read of it. Whether there was a copy.
    pub fn drop_state(&mut self, class: &str, key: &str) -> bool {
        self.heard[stripe(class, key)] += 1;
        if !self.flights.is_empty() {
            self.flights.remove(&(class.to_owned(), key.to_owned()));
        }
        self.classes
            .get_mut(class)
            .is_some_and(|copies| copies.remove(key))
    }

    fn drop_class(&mut self, class: &str) {
        self.generation += 1;
        self.flights.retain(|(of, _), _| of != class);
        self.classes.remove(class);
    }

    fn drop_all(&mut self) {
        self.generation += 1;
        self.flights.clear();
        self.classes.clear();
    }

    /// Switches the near cache on or off. Off, it forgets what it holds.
    pub fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
        if !enabled {
            self.drop_all();
        }
    }

    /// The read of this state that is under way, or the one that `begin` makes. The number is for
    /// [`Near::landed`].
    pub fn fly(&mut self, class: &str, key: &str, begin: impl FnOnce(u64) -> Flight) -> Flight {
        let name = (class.to_owned(), key.to_owned());
        if let Some((_, flight)) = self.flights.get(&name) {
            return flight.clone();
        }
        self.flown += 1;
        let flight = begin(self.flown);
        self.flights.insert(name, (self.flown, flight.clone()));
        flight
    }

    /// A read has ended, and cannot be joined any more.
    pub fn landed(&mut self, class: &str, key: &str, number: u64) {
        let name = (class.to_owned(), key.to_owned());
        if self.flights.get(&name).is_some_and(|(it, _)| *it == number) {
            self.flights.remove(&name);
        }
    }

    fn apply(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Set {
                class,
                key,
                version,
            }
            | Event::Deleted {
                class,
                key,
                version,
            } => {
                let held = self.drop_state(class, key);
                match version {
                    Some(version @ 1..) => {
                        self.floors.raise(class, key, *version);
                        self.sample(held, class, key, *version, now);
                    }
                    _ => self.floors.lose(class, key),
                }
            }
            // Whatever the pattern: read once too often, it is right all the same.
            Event::Invalidated {
                class: Some(class), ..
            } => {
                self.dropped.insert(class.clone(), now);
                self.drop_class(class);
            }
            Event::Invalidated { class: None, .. } | Event::StartedAnew => {
                self.dropped_all = Some(now);
                self.drop_all();
            }
            Event::CaughtUp | Event::Lost(_) => {}
        }
    }

    fn sample(&mut self, held: bool, class: &str, key: &str, version: i64, at: Instant) {
        let due = self
            .sampled
            .is_none_or(|last| at.saturating_duration_since(last) >= SAMPLE_EVERY);
        if held && due {
            self.sampled = Some(at);
            self.applied = Some(Applied {
                class: class.to_owned(),
                key: key.to_owned(),
                version,
                at,
            });
        }
    }

    /// A change whose age is to be looked at, once.
    pub fn take_applied(&mut self) -> Option<Applied> {
        self.applied.take()
    }

    /// A message arrived. What it tells; whether something before it is missing, [`Near::is_sure`] says.
    pub fn hear(&mut self, payload: &str, now: Instant) -> Vec<Event> {
        let Some(message) = Message::parse(payload) else {
            self.doubt();
            return Vec::new();
        };
        message
            .events
            .iter()
            .for_each(|event| self.apply(event, now));
        match ahead(&message.position, &self.position) {
            Some(..=0) => return message.events,
            Some(1) => {}
            _ => self.doubt(),
        }
        self.position = Some(message.position);
        message.events
    }

    /// Every message up to here should have been heard, as of a moment at which a proof was sent that has arrived.
    pub fn expect(&mut self, position: &Position, at: Instant) {
        let numbered = position.seq.is_some();
        if numbered && ahead(position, &self.position).is_none_or(|missing| missing > 0) {
            self.doubt();
        } else if self.sure {
            self.proven = at;
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
    pub fn begin_to_settle(&self, now: Instant) -> Beginning {
        Beginning {
            doubts: self.doubts,
            position: self.position.clone(),
            at: now,
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
        events
            .iter()
            .for_each(|event| self.apply(event, beginning.at));
        // These changes are old: how long they took says nothing.
        self.applied = None;
        // A read that began before this may be older than it.
        self.generation += 1;
        self.flights.clear();
        self.cursor = Some((now.epoch.clone(), cursor));
        // Messages heard since may be ahead of `now`. Those heard before cannot be, or were not genuine.
        let genuine = ahead(&now, &beginning.position).is_none_or(|ahead| ahead >= 0);
        if !genuine || ahead(&now, &self.position).is_none_or(|ahead| ahead > 0) {
            self.position = Some(now);
        }
        self.sure = self.doubts == beginning.doubts;
        if self.sure {
            self.proven = beginning.at;
        }
    }

    /// The epoch of the server as far as it is known for sure.
    pub fn epoch(&self) -> Option<String> {
        let position = self.position.as_ref().filter(|_| self.sure)?;
        position.epoch.clone()
    }

    /// Entries and bytes held.
    pub fn size(&self) -> (usize, usize) {
        let add = |(entries, bytes), copies: &Copies| {
            (entries + copies.entries.len(), bytes + copies.bytes)
        };
        self.classes.values().fold((0, 0), add)
    }

    /// Copies turned out for want of room since the last call.
    pub fn take_turned_out(&mut self) -> u64 {
        std::mem::take(&mut self.turned_out)
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
#[path = "near_tests.rs"]
mod tests;
