//! The feeder: what is committed in PostgreSQL is in Redis soon after, whoever dies in between.
//!
//! # Contract
//!
//! **All that must outlive a process is in Redis** (see `state_cache_l2` for names): the generation, and in it the
//! cursor. The invariant: *what the cursor covers is in the generation as it was then, or newer, or missing.* Memory
//! holds only what was heard since; it may be lost at any moment.
//!
//! **Attach**, at the start and after every error, in this order:
//! 1. LISTEN, and prove that notifications arrive.
//! 2. Read the meta hash. Another database's prefix, or another format, ends the process.
//! 3. If there is no generation, or if it cannot be gone on with, *begin* one. Else *catch up* from its cursor.
//!
//! **Catch up**: ask for position, then for the changes since the cursor; read each changed state and write it; check
//! that Redis is the process it was; move the cursor by a script that does so only if the cursor is still the one
//! that was begun with. If it is not, another feeder has moved it, which is as good; were it set back, Redis would be
//! another process.
//!
//! **Begin**: take a cursor, then write generation, epoch and cursor at once, by a script that does so only if the
//! generation is still the one that was read. A new generation is empty, hence right. *Filling* it is no part of
//! being right: pages of keys are read and written between changes, from the start again after an error.
//!
//! **Follow**: a message names states, which are read (as they are now, not as they were told) and written. Messages
//! move no cursor: where the worker tells changes, a cursor may cover a commit whose message is still to come.
//!
//! # Why nothing goes back
//!
//! A write compares versions in Redis, and versions of a state only grow. So feeders may write in any order, and what
//! is written late is refused. What breaks that rule, and what is done:
//!
//! - *Versions go back in PostgreSQL*: a crash or a promotion loses what was acknowledged. The epoch is another one
//!   then, and a new generation begins. Rows set back by hand: a refused write is looked into. The state is read
//!   again, after the refusal: if what Redis has is newer still, it comes from a past that is gone, and exactly it is
//!   replaced ([`state_cache_l2::script::REPLACE`]).
//! - *A row is deleted by hand*: no version says so. The key is deleted in Redis. Another feeder that is writing an
//!   older version right now hears of the deletion too, and deletes after that write. A state made anew has a higher
//!   version (`state_floor`).
//! - *A tombstone is gone before a late write arrives*: it lives for at least a minute. What was asked for longer ago
//!   than half of its life is not written, where the process was stopped in between; and no command of a connection
//!   that is still used lives longer than `patience`, which is no more than the other half. A Redis that evicts
//!   tombstones within that time breaks this, until the next change or the TTL; so does a process that is stopped for
//!   as long just between looking at its clock and writing.
//! - *Redis loses what it had taken*: a restart or failover makes another run id. A single server then has a past
//!   state of itself, cursor and values alike, so catching up from its cursor is enough. The nodes of a cluster may
//!   each have lost something else, so a new generation begins.
//!
//! # Waiting
//!
//! PostgreSQL waits for nothing here: notifications are taken in by a task that never waits ([`crate::inbox`]), and
//! no transaction is open while Redis is written to. Every answer is waited for with a limit. Memory is bounded: the
//! inbox, two batches, and the names of at most `max_pending` changes.

use crate::config::Config;
use crate::error::Error;
use crate::inbox::{Doubt, Inbox, Pending};
use crate::link::{Changes, Classes, Link, State};
use crate::message::Name;
use crate::metrics::Metrics;
use crate::sink::{Meta, Moved, Sink, Write, Written};
use futures_util::{StreamExt, TryStreamExt, stream};
use state_cache_l2::{FORMAT, Header, Kind, Mode, Value, field};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::sleep;

/// The pause before the first attempt to attach again; it doubles with each that fails.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Between two times that changes are asked for there is at least this, and as long as the last time has taken.
const REST: Duration = Duration::from_millis(50);
/// Between two batches of what is heard there is at least this, unless a whole batch waits: under load many changes
/// then share a statement, and changes of the same state a write.
const PACE: Duration = Duration::from_millis(10);
/// The same after a batch of [`LARGE`] changes or more: where there is much to write, the server is asked less often.
const LONG_PACE: Duration = Duration::from_millis(40);
/// See [`LONG_PACE`].
const LARGE: usize = 32;
/// How often a refused write is looked into before the key is deleted instead.
const LOOKS: usize = 3;
/// Batches of a catching up that are on their way at once.
const BATCHES_AT_ONCE: usize = 2;

/// What the process is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Run,
    /// Go on with another configuration.
    Reload,
    /// End.
    Stop,
}

/// Feeds with a configuration until ordered otherwise; mends what can be mended.
pub async fn run(
    config: &Config,
    metrics: &Metrics,
    orders: &mut watch::Receiver<Order>,
) -> Result<Order, Error> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let attempt = async {
            let mut feeder = Feeder::attach(config, metrics).await?;
            pause = SHORTEST_PAUSE;
            feeder.follow(orders).await
        };
        let error = match attempt.await {
            Ok(order) => return Ok(order),
            Err(error) => error,
        };
        metrics.lose(error.to_string());
        metrics.errors.with_label_values(&[error.side()]).inc();
        if error.is_fatal() {
            return Err(error);
        }
        tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "connecting anew");
        tokio::select! {
            () = sleep(pause) => {}
            order = next(orders) => if order != Order::Run { return Ok(order) },
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// The next order; `Stop` when nobody can give one any more.
async fn next(orders: &mut watch::Receiver<Order>) -> Order {
    match orders.changed().await {
        Ok(()) => *orders.borrow_and_update(),
        Err(_) => Order::Stop,
    }
}

/// How far the filling of a generation is.
struct Filling {
    /// The classes that are to be filled, the current one last.
    classes: Vec<String>,
    /// The last key that was filled of the current class.
    after: String,
    /// States so far.
    states: u64,
    /// When progress was last told.
    told: Instant,
}

/// A state that is to be written: the version that deleted it, if one is known, and the header that was refused to
/// make room for it.
type Left<'a> = (&'a Name, Option<i64>, Option<Vec<u8>>);

/// A feeder that is attached.
struct Feeder<'a> {
    config: &'a Config,
    metrics: &'a Metrics,
    inbox: Arc<Inbox>,
    link: Link,
    sink: Sink,
    classes: Classes,
    generation: u64,
    epoch: String,
    cursor: String,
    filling: Option<Filling>,
    /// Before this, changes are not asked for again.
    rested: Instant,
}

impl<'a> Feeder<'a> {
    /// Attaches: see the header.
    async fn attach(config: &'a Config, metrics: &'a Metrics) -> Result<Self, Error> {
        let inbox = Arc::new(Inbox::new(config.max_pending));
        // Redis first: while it is away, nobody listens, and PostgreSQL keeps no messages for this process.
        let sink = Sink::connect(config).await?;
        let mut link = Link::open(config, &inbox).await?;
        link.listen().await?;
        link.prove().await?;
        let classes = link.classes().await?;
        inbox.set_classes(classes.keys().cloned().collect());
        let meta = sink.meta().await?;
        check_owner(config, &meta, &link)?;
        let mut feeder = Self {
            config,
            metrics,
            inbox,
            link,
            sink,
            classes,
            generation: meta
                .get(field::GENERATION)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            epoch: meta.get(field::EPOCH).cloned().unwrap_or_default(),
            cursor: meta.get(field::CURSOR).cloned().unwrap_or_default(),
            filling: None,
            rested: Instant::now(),
        };
        match feeder.why_anew(&meta) {
            Some(why) => feeder.begin(why).await?,
            None => {
                if feeder.class_names() != *meta.get(field::CLASSES).unwrap_or(&String::new()) {
                    // With classes that are new since: see `renew_classes`.
                    let names = feeder.class_names();
                    feeder.note(field::CLASSES, &names).await?;
                }
                feeder.catch_up("attached").await?;
                if meta
                    .get(field::FILLED)
                    .is_none_or(|filled| filled != "done")
                {
                    feeder.start_filling();
                }
            }
        }
        feeder
            .metrics
            .generation
            .set(i64::try_from(feeder.generation).unwrap_or(0));
        tracing::info!(
            generation = feeder.generation,
            epoch = feeder.epoch,
            mode = <&str>::from(feeder.sink.mode),
            classes = feeder.classes.len(),
            "attached"
        );
        Ok(feeder)
    }

    /// Why the generation in Redis cannot be gone on with, if it cannot.
    fn why_anew(&self, meta: &Meta) -> Option<&'static str> {
        let names: Vec<String> = meta
            .get(field::CLASSES)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let mode = meta.get(field::MODE).map(String::as_str);
        if self.generation == 0 || self.cursor.is_empty() {
            Some("empty")
        } else if names.iter().any(|name| !self.classes.contains_key(name)) {
            // Its values would grow old, and be believed once the class is back.
            Some("class")
        } else if mode != Some(<&str>::from(self.sink.mode)) {
            Some("mode")
        } else if self.sink.is_cluster() && meta.get(field::NODES) != Some(&self.sink.nodes) {
            Some("nodes")
        } else {
            None
        }
    }

    /// Begins a generation: see the header.
    async fn begin(&mut self, why: &'static str) -> Result<(), Error> {
        self.inbox.begin();
        let (position, cursor) = self.link.position().await?;
        let old = match self.generation {
            0 => String::new(),
            old => old.to_string(),
        };
        let generation = generation_after(self.generation, SystemTime::now());
        let epoch = position
            .as_ref()
            .map(|position| position.epoch.clone())
            .unwrap_or_default();
        let fields = [
            (field::FORMAT, FORMAT.to_string()),
            (field::OWNER, self.link.owner.to_string()),
            (field::EPOCH, epoch.clone()),
            (field::GENERATION, generation.to_string()),
            (field::CURSOR, cursor.clone()),
            (field::MODE, <&str>::from(self.sink.mode).to_owned()),
            (field::CLASSES, self.class_names()),
            (field::NODES, self.sink.nodes.clone()),
            (field::FILLED, "0".to_owned()),
        ];
        if !self.sink.begin(&old, &fields).await? {
            return Err(Error::Overtaken);
        }
        (self.generation, self.epoch, self.cursor) = (generation, epoch, cursor);
        self.inbox.settle(position.as_ref());
        self.metrics.generations.with_label_values(&[why]).inc();
        self.metrics
            .generation
            .set(i64::try_from(generation).unwrap_or(0));
        tracing::info!(generation, why, "a new generation");
        self.start_filling();
        Ok(())
    }

    fn class_names(&self) -> String {
        serde_json::json!(self.classes.keys().collect::<Vec<_>>()).to_string()
    }

    fn start_filling(&mut self) {
        let fills = self.config.fill && self.sink.mode == Mode::Script;
        let classes = self
            .classes
            .keys()
            .rev()
            .filter(|_| fills)
            .cloned()
            .collect();
        self.filling = Some(Filling {
            classes,
            after: String::new(),
            states: 0,
            told: Instant::now(),
        });
        self.metrics.filled.set(0);
        self.metrics.fill_done.set(0);
    }

    /// Catches up: see the header.
    async fn catch_up(&mut self, why: &'static str) -> Result<(), Error> {
        let start = Instant::now();
        self.metrics.catch_ups.with_label_values(&[why]).inc();
        self.link.listen().await?;
        // Before the cursor moves over changes of a class that another feeder knows already.
        self.renew_classes().await?;
        self.inbox.begin();
        let (position, _) = self.link.position().await?;
        let epoch = position
            .as_ref()
            .map_or("", |position| position.epoch.as_str());
        if epoch != self.epoch {
            return self.begin("epoch").await;
        }
        let (changes, cursor) = match self
            .link
            .changes(&self.cursor, &self.classes, self.config.max_pending)
            .await?
        {
            Changes::Known(changes, cursor) => (changes, cursor),
            Changes::Unknown(reason) => {
                tracing::warn!(reason, "the changes since the cursor are not known");
                return self.begin("cursor").await;
            }
        };
        let count = changes.len();
        let mut changes = changes;
        changes.sort_unstable_by(|a, b| a.0.class.cmp(&b.0.class));
        let batches = changes
            .chunk_by(|a, b| a.0.class == b.0.class)
            .flat_map(|of_class| of_class.chunks(self.config.batch));
        // PostgreSQL reads the next batch while Redis takes the last one.
        stream::iter(batches)
            .map(|batch| self.feed(batch))
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.sink.check_nodes().await?;
        let moved = self
            .sink
            .move_cursor(self.generation, &self.cursor, &cursor);
        match moved.await? {
            Moved::Yes => self.cursor = cursor,
            Moved::Elsewhere => self.follow_cursor().await?,
            Moved::Full => tracing::warn!("Redis is full: the cursor stays"),
        }
        self.inbox.settle(position.as_ref());
        let took = start.elapsed();
        self.rested = Instant::now() + took.max(REST);
        if count > 0 || why == "attached" {
            tracing::info!(
                why,
                states = count,
                took_ms = took.as_millis() as u64,
                "caught up"
            );
        }
        Ok(())
    }

    /// Follows what is heard, until an error or an order.
    async fn follow(&mut self, orders: &mut watch::Receiver<Order>) -> Result<Order, Error> {
        self.beat().await?;
        let mut next_beat = Instant::now() + self.config.heartbeat;
        let mut next_catch_up = Instant::now() + self.config.catch_up;
        let mut paced = Instant::now();
        loop {
            if let Some(why) = self.inbox.ended() {
                tracing::warn!(why, "the connection that listens");
                return Err(Error::Closed);
            }
            if orders.has_changed().unwrap_or(true) {
                let order = next(orders).await;
                if order != Order::Run {
                    self.metrics
                        .lose("ordered to end or to begin anew".to_owned());
                    // Another feeder that runs renews the key at its next beat.
                    self.sink.end_alive().await?;
                    return Ok(order);
                }
            }
            let now = Instant::now();
            if now >= next_beat {
                self.beat().await?;
                next_beat = Instant::now() + self.config.heartbeat;
            }
            self.show_backlog();
            let doubt = self.inbox.doubt().map(|(doubt, _)| match doubt {
                Doubt::Missed => "missed",
                Doubt::Invalidated => "invalidated",
                Doubt::Overflow => "overflow",
            });
            let why = doubt.or((now >= next_catch_up).then_some("due"));
            if let Some(why) = why.filter(|_| now >= self.rested) {
                self.catch_up(why).await?;
                next_catch_up = Instant::now() + self.config.catch_up;
                continue;
            }
            let (pending, _) = self.inbox.backlog();
            let is_resting = pending < self.config.batch && now < paced;
            if pending > 0 && !is_resting {
                let batch = self.inbox.take(self.config.batch);
                self.feed_heard(&batch).await?;
                let changes = batch.iter().map(|(_, pending)| pending.times).sum();
                paced = Instant::now() + pace(changes);
                continue;
            }
            if self.filling.is_some() {
                self.fill().await?;
                continue;
            }
            if pending > 0 {
                sleep(paced.saturating_duration_since(Instant::now())).await;
                continue;
            }
            let until = next_beat.min(if why.is_some() {
                self.rested
            } else {
                next_catch_up
            });
            tokio::select! {
                () = self.inbox.wait() => {}
                order = orders.changed() => if order.is_ok() { orders.mark_changed() },
                () = sleep(until.saturating_duration_since(Instant::now())) => {}
            }
        }
    }

    fn show_backlog(&self) {
        let (pending, waited) = self.inbox.backlog();
        self.metrics
            .pending
            .set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.metrics
            .lag
            .set(i64::try_from(waited.as_millis()).unwrap_or(i64::MAX));
    }

    /// Makes sure of both sides, and tells readers.
    async fn beat(&mut self) -> Result<(), Error> {
        let (position, _) = self.link.position().await?;
        self.link.prove().await?;
        self.inbox.expect(position.as_ref());
        self.sink.check_nodes().await?;
        self.follow_cursor().await?;
        self.renew_classes().await?;
        self.metrics.follows(self.link.proven);
        let (_, waited) = self.inbox.backlog();
        let alive =
            waited <= self.config.max_lag && self.sink.renew_alive(self.link.proven).await?;
        self.metrics.alive.set(i64::from(alive));
        Ok(())
    }

    /// Takes over the cursor in Redis, which another feeder may have moved: it covers only what was written. In a
    /// Redis that is still the same process nobody else has moved it.
    async fn follow_cursor(&mut self) -> Result<(), Error> {
        let (generation, cursor) = self.sink.place().await?;
        let is_ours = generation == Some(self.generation.to_string());
        match cursor.filter(|_| is_ours) {
            Some(cursor) if cursor == self.cursor => Ok(()),
            Some(cursor) if !self.sink.nodes.is_empty() => {
                self.cursor = cursor;
                Ok(())
            }
            _ => Err(Error::Overtaken),
        }
    }

    /// Looks which classes are in L2 now. No value of a class that is new here can be in the generation: so it is
    /// heard of from now on, and then readers are told. Values of a class that has left would grow old, and be
    /// believed once the class is back.
    async fn renew_classes(&mut self) -> Result<(), Error> {
        let classes = self.link.classes().await?;
        if classes == self.classes {
            return Ok(());
        }
        let is_gone = self.classes.keys().any(|name| !classes.contains_key(name));
        let is_new = classes.keys().any(|name| !self.classes.contains_key(name));
        tracing::info!(classes = classes.len(), "the classes in L2 have changed");
        self.classes = classes;
        self.inbox
            .set_classes(self.classes.keys().cloned().collect());
        if is_gone {
            return self.begin("class").await;
        }
        if is_new {
            self.note(field::CLASSES, &self.class_names()).await?;
            self.start_filling();
        }
        Ok(())
    }

    /// Writes what was heard.
    async fn feed_heard(&mut self, batch: &[(Name, Pending)]) -> Result<(), Error> {
        let changes: Vec<_> = batch
            .iter()
            .map(|(name, pending)| (name.clone(), pending.deleted))
            .collect();
        self.feed(&changes).await?;
        for (_, pending) in batch {
            self.metrics
                .delay
                .observe(pending.since.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Notes something about the generation in the meta hash. Another feeder may have begun the next one meanwhile,
    /// of which it would be wrong: then nothing is noted, and the next heartbeat finds out.
    async fn note(&self, name: &str, value: &str) -> Result<(), Error> {
        self.sink.note(self.generation, name, value).await
    }

    /// The next page of the filling.
    async fn fill(&mut self) -> Result<(), Error> {
        let Some(filling) = &mut self.filling else {
            return Ok(());
        };
        let Some(class) = filling.classes.last().cloned() else {
            let states = filling.states;
            self.filling = None;
            self.metrics.fill_done.set(1);
            tracing::info!(
                generation = self.generation,
                states,
                "the generation is filled"
            );
            return self.note(field::FILLED, "done").await;
        };
        let keys = self
            .link
            .keys(&class, &filling.after, self.config.batch)
            .await?;
        match keys.last() {
            Some(last) => filling.after.clone_from(last),
            None => {
                filling.classes.pop();
                filling.after.clear();
            }
        }
        filling.states += keys.len() as u64;
        let states = filling.states;
        let is_time = filling.told.elapsed() >= Duration::from_secs(5);
        if is_time {
            filling.told = Instant::now();
        }
        self.metrics
            .filled
            .set(i64::try_from(states).unwrap_or(i64::MAX));
        let changes: Vec<_> = keys
            .into_iter()
            .map(|key| {
                (
                    Name {
                        class: class.clone(),
                        key,
                    },
                    None,
                )
            })
            .collect();
        self.feed(&changes).await?;
        if is_time {
            tracing::info!(generation = self.generation, class, states, "filling");
            self.note(field::FILLED, &states.to_string()).await?;
        }
        Ok(())
    }

    /// Reads states of one class as they are now, and writes them. A version that deleted a state is told where one
    /// was.
    async fn feed(&self, changes: &[(Name, Option<i64>)]) -> Result<(), Error> {
        let Some(class) = changes.first().map(|(name, _)| name.class.clone()) else {
            return Ok(());
        };
        let mut left: Vec<Left<'_>> = changes
            .iter()
            .map(|(name, deleted)| (name, *deleted, None))
            .collect();
        for look in 0..=LOOKS {
            let keys: Vec<&str> = left.iter().map(|(name, ..)| name.key.as_str()).collect();
            let asked = Instant::now();
            let mut writes = Vec::with_capacity(left.len());
            if self.sink.mode == Mode::Delete || look == LOOKS {
                writes.extend(left.iter().map(|(name, ..)| self.deletion(name)));
            } else {
                let states = self.link.states(&class, &keys).await?;
                for ((name, deleted, refused), state) in left.iter_mut().zip(states) {
                    writes.push(self.write(name, *deleted, refused.take(), state));
                }
            }
            if is_late(asked.elapsed(), self.config.tombstone) {
                return Err(Error::Late(asked.elapsed()));
            }
            let written = self.sink.write(&writes).await?;
            let mut again = Vec::new();
            for (((name, deleted, _), write), written) in left.into_iter().zip(writes).zip(written)
            {
                self.count(&write, &written);
                match written {
                    Written::Refused(header) => again.push((name, deleted, Some(header))),
                    // What was refused before is no longer there.
                    Written::Same if write.instead_of.is_some() => {
                        again.push((name, deleted, None))
                    }
                    _ => {}
                }
            }
            if again.is_empty() {
                break;
            }
            left = again;
        }
        Ok(())
    }

    fn deletion(&self, name: &Name) -> Write {
        let key = self
            .config
            .prefix
            .state(self.generation, &name.class, &name.key);
        Write {
            key,
            value: None,
            ttl: Duration::ZERO,
            instead_of: None,
        }
    }

    /// How a state is written that was read after Redis has refused it with a header, if it has.
    fn write(
        &self,
        name: &Name,
        deleted: Option<i64>,
        refused: Option<Vec<u8>>,
        state: State,
    ) -> Write {
        let mut write = self.deletion(name);
        let Some(class) = self.classes.get(&name.class) else {
            return write;
        };
        let version = |version: i64| u64::try_from(version).unwrap_or(0);
        match state {
            // A row that was deleted by hand, and nothing says by which version.
            State::Absent(None) if deleted.is_none() => return write,
            State::Unreadable => {
                tracing::warn!(
                    class = name.class,
                    key = name.key,
                    "a state cannot be read, and is not in L2"
                );
                return write;
            }
            State::Absent(head) => {
                let latest = version(head.max(deleted).unwrap_or(0));
                write.value = Some(Value::tombstone(&name.class, &name.key, latest));
                write.ttl = self.config.tombstone;
            }
            State::Present(of, document, left) => {
                match Value::document(
                    &name.class,
                    &name.key,
                    version(of),
                    &document,
                    class.compression,
                ) {
                    Ok(value) => {
                        self.metrics
                            .bytes
                            .with_label_values(&["document"])
                            .inc_by(document.len() as u64);
                        self.metrics
                            .bytes
                            .with_label_values(&["stored"])
                            .inc_by(value.len() as u64);
                        write.value = Some(value);
                    }
                    Err(error) => {
                        tracing::warn!(class = name.class, key = name.key, %error, "not in L2");
                        return write;
                    }
                }
                write.ttl = left.map_or(class.ttl, |left| left.min(class.ttl));
            }
        }
        // Read after the refusal: what is there and is newer, or another content of the version, is of a past that
        // PostgreSQL has lost.
        write.instead_of = refused.filter(|header| match (&write.value, Header::read(header)) {
            (Some(value), Ok(there)) => {
                Header::read(value).is_ok_and(|own| is_before(&own, &there))
            }
            _ => true,
        });
        write
    }

    fn count(&self, write: &Write, written: &Written) {
        let outcome = match (written, &write.value) {
            (Written::Full, _) => "full",
            (Written::Refused(_), _) => "refused",
            (Written::Same, Some(_)) if write.instead_of.is_some() => "refused",
            (Written::Same, Some(_)) => "same",
            (_, None) => "deleted",
            (Written::OverForeign, _) => "over_foreign",
            _ if write.instead_of.is_some() => "replaced",
            (Written::New, _) => "new",
            (Written::Over, _) => "over",
        };
        self.metrics.states.with_label_values(&[outcome]).inc();
        if *written == Written::Full {
            tracing::warn!(key = write.key, "Redis is full: the state was taken out");
        }
    }
}

/// The number of a new generation: greater than the one that is there, whatever the clock of this host says. Where
/// Redis has lost that number, the clock in milliseconds is greater than all that came before, unless somebody has
/// set it back by more than the age of the last one. No other time that counts is read from the clock of a host: the
/// end of a state is asked of PostgreSQL as the time that is left, and Redis is given that.
fn generation_after(old: u64, clock: SystemTime) -> u64 {
    let now = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(0);
    now.max(old.saturating_add(1))
}

/// Whether what was asked for so long ago may no longer be written: see the header.
fn is_late(ago: Duration, tombstone: Duration) -> bool {
    ago > tombstone / 2
}

/// The pause after a batch of so many changes, however few states they are of.
fn pace(changes: usize) -> Duration {
    let share = changes.min(LARGE) as u32;
    PACE + (LONG_PACE - PACE) * share / LARGE as u32
}

/// Whether Redis would refuse to write the first over the second.
fn is_before(own: &Header, there: &Header) -> bool {
    let expired = own.kind == Kind::Tombstone && there.kind == Kind::Document;
    own.version < there.version
        || own.version == there.version && own.checksum != there.checksum && !expired
}

/// The prefix must be free, or ours.
fn check_owner(config: &Config, meta: &Meta, link: &Link) -> Result<(), Error> {
    if let Some(format) = meta
        .get(field::FORMAT)
        .filter(|format| **format != FORMAT.to_string())
    {
        return Err(Error::Format(format.clone()));
    }
    match meta
        .get(field::OWNER)
        .filter(|owner| **owner != link.owner.to_string())
    {
        None => Ok(()),
        Some(owner) => Err(Error::Foreign {
            prefix: config.prefix.as_str().to_owned(),
            owner: owner.clone(),
            own: link.owner.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{generation_after, is_late};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_generation_is_greater_than_the_last_whatever_the_clock_says() {
        let clock = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(generation_after(0, clock(2000)), 2_000_000);
        assert_eq!(generation_after(1_999_999, clock(2000)), 2_000_000);
        // The clock of the host that began the last one was ahead, or this one was set back.
        assert_eq!(generation_after(2_000_000, clock(2000)), 2_000_001);
        assert_eq!(generation_after(9_000_000, clock(2000)), 9_000_001);
        assert_eq!(generation_after(7, UNIX_EPOCH - Duration::from_secs(1)), 8);
    }

    #[test]
    fn what_was_read_before_a_long_pause_is_not_written() {
        let seconds = Duration::from_secs;
        assert!(!is_late(seconds(30), seconds(60)));
        assert!(is_late(seconds(31), seconds(60)));
    }
}
