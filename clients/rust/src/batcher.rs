//! Collects changes from many tasks and writes them together: the changes of each state as few as possible, all
//! of a batch in one transaction.
//!
//! # What holds
//!
//! **Order.** The changes of one state are written in the order in which they were given. Between states there is no
//! order: those of one batch become visible together.
//!
//! **Nothing is lost in silence.** Each change ends in one of three ways: written; refused, with the error that
//! concerns it; or, at [`Batcher::close`], not known to be written when the time was over. Whoever kept the
//! [`Receipt`] hears it there, [`Batcher::flush`] and [`Batcher::close`] tell what nobody has kept a receipt of.
//! Dropped without `close`, the batcher still writes what it has, as long as the runtime lives.
//!
//! **One bad change does not take others with it.** A batch that the server refuses is cut in halves, each a
//! transaction of its own, until the state, and then the change, is found that is at fault. So a batch is one
//! transaction unless something in it is refused.
//!
//! **Nothing is written twice.** Conflicts and deadlocks are rolled back, so the batch is run again. While the server
//! is away the batcher waits. Where the connection ends during COMMIT, the batcher asks the server what became of the
//! transaction, by the id that it has noted before. "Aborted" is always true. "Committed" is believed only in the
//! epoch in which the id was given: after a crash a lost transaction's id may be another one's. Where nobody can
//! say, the changes are refused with [`Error::CommitUnknown`].
//!
//! **Bounded.** What waits has at most [`BatcherOptions::capacity`] bytes; who has more to give waits until there is
//! room again.

use crate::cache::StateCache;
use crate::change::{Change, json};
use crate::coalesce::combine;
use crate::transaction::Guard;
use crate::{Error, Result};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

/// What a change takes beside its documents, in bytes; estimated.
const OVERHEAD: usize = 256;
/// The pause before the server is asked again when it is away; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Refusals that nobody has asked for are kept up to this number, and counted beyond.
const KEPT: usize = 1000;

/// When a batch is written.
#[derive(Debug, Clone, Copy)]
pub struct BatcherOptions {
    /// So long after its first change.
    pub interval: Duration,
    /// When it has so many changes.
    pub changes: usize,
    /// When it has so many bytes.
    pub bytes: usize,
    /// Bytes that may wait, in the batch that is being written and in the next one. Beyond it, callers wait.
    pub capacity: usize,
}

impl Default for BatcherOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            changes: 1000,
            bytes: 4 << 20,
            capacity: 32 << 20,
        }
    }
}

/// A change that was not written.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The class of the state.
    pub class: String,
    /// The key of the state.
    pub key: String,
    /// Why.
    pub error: Error,
}

/// Changes that were not written.
#[derive(Debug, Clone)]
pub struct BatchError {
    /// The changes.
    pub refused: Vec<Refused>,
    /// How many more there were, beyond those that are kept.
    pub more: usize,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes were not written",
            self.refused.len() + self.more
        )?;
        for refused in self.refused.iter().take(3) {
            write!(f, "; {}/{}: {}", refused.class, refused.key, refused.error)?;
        }
        Ok(())
    }
}

impl std::error::Error for BatchError {}

/// Says what became of a change.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<()>>);

impl Receipt {
    /// Waits until the change is written, or refused.
    pub async fn written(self) -> Result<()> {
        self.0.await.unwrap_or(Err(Error::Closed))
    }
}

/// What waits for the fate of one change.
struct Waiter {
    reply: oneshot::Sender<Result<()>>,
    /// Room in what may wait; given back with the waiter.
    _room: OwnedSemaphorePermit,
}

enum Command {
    Put(String, String, Change, Waiter),
    Flush(oneshot::Sender<Result<(), BatchError>>),
    Close(Instant, oneshot::Sender<Result<(), BatchError>>),
}

/// Collects changes and writes them together. Clones are the same batcher.
#[derive(Clone)]
pub struct Batcher {
    commands: UnboundedSender<Command>,
    room: Arc<Semaphore>,
    capacity: usize,
}

impl StateCache {
    /// A batcher, which writes in the background.
    ///
    /// ```no_run
    /// # async fn example(cache: state_cache_client::StateCache) -> Result<(), Box<dyn std::error::Error>> {
    /// use state_cache_client::BatcherOptions;
    /// use std::time::Duration;
    ///
    /// let batcher = cache.batcher(BatcherOptions::default());
    /// batcher.update("run", "r1", &serde_json::json!({"step": 2})).await?;
    /// let receipt = batcher.append("run", "r1", &["log"], "two").await?;
    /// receipt.written().await?;
    /// batcher.close(Duration::from_secs(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batcher(&self, options: BatcherOptions) -> Batcher {
        let (commands, receiver) = unbounded_channel();
        let capacity = options
            .capacity
            .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        tokio::spawn(Writer::new(self.clone(), options).work(receiver));
        Batcher {
            commands,
            room: Arc::new(Semaphore::new(capacity)),
            capacity,
        }
    }
}

impl Batcher {
    async fn put(&self, class: &str, key: &str, change: Change) -> Result<Receipt> {
        let bytes = (change.bytes() + class.len() + key.len() + OVERHEAD).min(self.capacity);
        // Fits: the capacity does.
        let room = self.room.clone().acquire_many_owned(bytes as u32).await;
        let (reply, receipt) = oneshot::channel();
        let waiter = Waiter {
            reply,
            _room: room.map_err(|_| Error::Closed)?,
        };
        let put = Command::Put(class.to_owned(), key.to_owned(), change, waiter);
        self.commands.send(put).map_err(|_| Error::Closed)?;
        Ok(Receipt(receipt))
    }

    /// Replaces the whole document.
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        document: &T,
    ) -> Result<Receipt> {
        self.put(class, key, Change::Set(json(document)?, None, None))
            .await
    }

    /// Merges an object into the top level of the document, replacing values whole.
    pub async fn update<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        updates: &T,
    ) -> Result<Receipt> {
        self.put(class, key, Change::Update(json(updates)?)).await
    }

    /// Merges an object into one section of the document.
    pub async fn update_section<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        section: &str,
        updates: &T,
    ) -> Result<Receipt> {
        let change = Change::UpdateSection(section.to_owned(), json(updates)?);
        self.put(class, key, change).await
    }

    /// Merges a patch into the document (RFC 7396).
    pub async fn merge<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        patch: &T,
    ) -> Result<Receipt> {
        self.put(class, key, Change::Merge(json(patch)?)).await
    }

    /// Appends to the array at a path.
    pub async fn append<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        path: &[&str],
        value: &T,
    ) -> Result<Receipt> {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        self.put(class, key, Change::Append(path, json(value)?))
            .await
    }

    /// Deletes a state.
    pub async fn delete(&self, class: &str, key: &str) -> Result<Receipt> {
        self.put(class, key, Change::Delete(None)).await
    }

    /// Writes what has been given so far, and returns when that is done.
    pub async fn flush(&self) -> Result<(), BatchError> {
        let (reply, done) = oneshot::channel();
        // A writer that is gone has nothing left.
        let _ = self.commands.send(Command::Flush(reply));
        done.await.unwrap_or(Ok(()))
    }

    /// Writes what has been given so far and ends. What cannot be written in this time is in the error.
    pub async fn close(self, patience: Duration) -> Result<(), BatchError> {
        let (reply, done) = oneshot::channel();
        let _ = self
            .commands
            .send(Command::Close(Instant::now() + patience, reply));
        done.await.unwrap_or(Ok(()))
    }
}

/// A change, and all those that wait for it: more than one where changes were combined.
struct Item {
    change: Change,
    waiters: Vec<Waiter>,
}

/// The changes of one state, in order.
struct Changes {
    class: String,
    key: String,
    items: Vec<Item>,
}

/// What is not written yet.
#[derive(Default)]
struct Pending {
    states: Vec<Changes>,
    places: HashMap<(String, String), usize>,
    changes: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl Pending {
    fn add(&mut self, class: String, key: String, change: Change, waiter: Waiter) {
        self.since.get_or_insert_with(Instant::now);
        self.changes += 1;
        self.bytes += change.bytes() + OVERHEAD;
        let place = *self
            .places
            .entry((class.clone(), key.clone()))
            .or_insert_with(|| {
                self.states.push(Changes {
                    class,
                    key,
                    items: Vec::new(),
                });
                self.states.len() - 1
            });
        let items = &mut self.states[place].items;
        if let Some(last) = items.last_mut()
            && let Some(both) = combine(&last.change, &change)
        {
            last.change = both;
            last.waiters.push(waiter);
            return;
        }
        items.push(Item {
            change,
            waiters: vec![waiter],
        });
    }
}

/// The task that writes.
struct Writer {
    cache: StateCache,
    options: BatcherOptions,
    pending: Pending,
    /// What was refused and nobody has heard of.
    refused: Vec<Refused>,
    more: usize,
    /// When it must be over, once somebody has closed it.
    until: Option<Instant>,
}

impl Writer {
    fn new(cache: StateCache, options: BatcherOptions) -> Self {
        Self {
            cache,
            options,
            pending: Pending::default(),
            refused: Vec::new(),
            more: 0,
            until: None,
        }
    }

    async fn work(mut self, mut commands: UnboundedReceiver<Command>) {
        loop {
            let due = self
                .pending
                .since
                .map(|since| since + self.options.interval);
            let command = match due {
                Some(due) => {
                    tokio::select! {
                        command = commands.recv() => command,
                        () = sleep_until(due) => {
                            self.write_all().await;
                            continue;
                        }
                    }
                }
                None => commands.recv().await,
            };
            match command {
                Some(Command::Put(class, key, change, waiter)) => {
                    self.pending.add(class, key, change, waiter);
                    if self.pending.changes >= self.options.changes
                        || self.pending.bytes >= self.options.bytes
                    {
                        self.write_all().await;
                    }
                }
                Some(Command::Flush(reply)) => {
                    self.write_all().await;
                    let _ = reply.send(self.report());
                }
                Some(Command::Close(until, reply)) => {
                    self.until = Some(until);
                    self.drain(&mut commands);
                    self.write_all().await;
                    let _ = reply.send(self.report());
                    return;
                }
                None => {
                    self.write_all().await;
                    return;
                }
            }
        }
    }

    /// Takes what was given by clones of the batcher before it was closed.
    fn drain(&mut self, commands: &mut UnboundedReceiver<Command>) {
        commands.close();
        while let Ok(command) = commands.try_recv() {
            if let Command::Put(class, key, change, waiter) = command {
                self.pending.add(class, key, change, waiter);
            }
        }
    }

    fn report(&mut self) -> Result<(), BatchError> {
        if self.refused.is_empty() {
            return Ok(());
        }
        Err(BatchError {
            refused: std::mem::take(&mut self.refused),
            more: std::mem::take(&mut self.more),
        })
    }

    /// Writes all that is pending, in as many parts as it takes.
    async fn write_all(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        // The last part is the next to be written.
        let mut parts = vec![pending.states];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.write_patiently(&part).await {
                Ok(()) => part.into_iter().for_each(written),
                Err(error) if matches!(error, Error::CommitUnknown(_)) || self.is_over() => {
                    part.into_iter()
                        .for_each(|changes| self.refuse(changes, &error));
                }
                Err(error) => {
                    if part.len() > 1 {
                        let second = part.split_off(part.len() / 2);
                        parts.push(second);
                        parts.push(part);
                    } else if let Some(changes) = part.pop() {
                        match changes.items.len() {
                            1 => self.refuse(changes, &error),
                            _ => parts.extend(one_by_one(changes).into_iter().rev()),
                        }
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn refuse(&mut self, changes: Changes, error: &Error) {
        let Changes { class, key, items } = changes;
        tracing::warn!(%class, %key, %error, "a change was not written");
        let waiters = items.into_iter().flat_map(|item| item.waiters);
        for waiter in waiters {
            // Who has kept the receipt hears it there.
            if waiter.reply.send(Err(error.clone())).is_ok() {
                continue;
            }
            if self.refused.len() < KEPT {
                self.refused.push(Refused {
                    class: class.clone(),
                    key: key.clone(),
                    error: error.clone(),
                });
            } else {
                self.more += 1;
            }
        }
    }

    /// Writes a part in one transaction: again after conflicts, and for as long as the server is away.
    async fn write_patiently(&self, part: &[Changes]) -> Result<()> {
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        loop {
            let until = self.until;
            let write = self.write(part);
            let written = match until {
                // COMMIT may be under way when the time is over: `NoAnswer` promises nothing either way.
                Some(until) => timeout_at(until, write)
                    .await
                    .unwrap_or(Err(Error::NoAnswer)),
                None => write.await,
            };
            let error = match written {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if self.is_over() {
                return Err(error);
            }
            if error.is_retryable() {
                attempt += 1;
                match self.cache.inner.retries.pause(attempt) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(error),
                }
            } else if error.is_of_the_way() {
                tracing::warn!(%error, "the batcher waits for the server");
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            } else {
                return Err(error);
            }
        }
    }

    /// Writes a part in one transaction.
    async fn write(&self, part: &[Changes]) -> Result<()> {
        let inner = &self.cache.inner;
        let epoch = inner.near().epoch();
        let connection = inner.connection().await?;
        let guard = Guard::new(connection);
        let (connection, statements) = (guard.connection()?, &inner.statements);
        connection.batch_execute("BEGIN").await?;
        // The first changes of all states, then the second ones: in one round there is one change of each state.
        let rounds = part
            .iter()
            .map(|changes| changes.items.len())
            .max()
            .unwrap_or(0);
        for round in 0..rounds {
            for kind in Kind::ALL {
                let mut columns = Columns::default();
                for changes in part {
                    if let Some(item) = changes.items.get(round) {
                        columns.take(kind, changes, &item.change)?;
                    }
                }
                if columns.keys.is_empty() {
                    continue;
                }
                let parameters = [
                    (
                        &columns.classes as &(dyn tokio_postgres::types::ToSql + Sync),
                        Type::TEXT_ARRAY,
                    ),
                    (&columns.keys, Type::TEXT_ARRAY),
                    (&columns.first, Type::TEXT_ARRAY),
                    (&columns.second, Type::TEXT_ARRAY),
                ];
                connection
                    .query_typed(&statements.text(kind.sql()), &parameters)
                    .await?;
            }
        }
        // Written now, so that there is an id to ask for.
        let end = "SELECT pg_catalog.count(*) FROM @state_batch_commit();
            SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text";
        let mut id = None;
        for message in connection.simple_query(&statements.text(end)).await? {
            if let SimpleQueryMessage::Row(row) = message {
                id = row.try_get(0)?.map(str::to_owned);
            }
        }
        let committed = connection
            .batch_execute("COMMIT")
            .await
            .map_err(Error::from);
        if committed.is_ok() {
            guard.release();
        }
        let committed = match committed {
            Err(Error::Connection(error)) => match self.fate(id, epoch).await {
                Fate::Committed => Ok(()),
                Fate::Aborted => Err(Error::Connection(error)),
                Fate::Unknown => Err(Error::CommitUnknown(error)),
            },
            other => other,
        };
        if matches!(committed, Ok(()) | Err(Error::CommitUnknown(_))) {
            let mut near = inner.near();
            part.iter()
                .for_each(|changes| near.wrote(&changes.class, &changes.key));
        }
        committed
    }

    /// What became of a transaction during whose COMMIT the connection ended.
    async fn fate(&self, id: Option<String>, epoch: Option<String>) -> Fate {
        // Without an id nothing was written to the tables: write-behind, of which nobody can tell.
        let Some(id) = id else { return Fate::Unknown };
        let mut pause = FIRST_PAUSE;
        loop {
            match self.status(&id).await {
                Ok((status, now)) => match status.as_deref() {
                    Some("aborted") => return Fate::Aborted,
                    Some("committed") if epoch.is_some() && epoch == now => return Fate::Committed,
                    // Its backend may not have noticed yet that nobody listens.
                    Some("in progress") => {}
                    _ => return Fate::Unknown,
                },
                // The id has not been given yet, by a server that lost the transaction with a crash.
                Err(Error::BadArgument(_)) => return Fate::Aborted,
                Err(error) if !error.is_of_the_way() => return Fate::Unknown,
                Err(_) => {}
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn status(&self, id: &str) -> Result<(Option<String>, Option<String>)> {
        let inner = &self.cache.inner;
        let connection = inner.connection().await?;
        let query = "SELECT pg_catalog.pg_xact_status($1::pg_catalog.xid8), (SELECT epoch FROM @state_cursor())";
        let row = inner
            .statements
            .row(&connection, query, &[(&id, Type::TEXT)])
            .await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }
}

/// What became of a transaction.
enum Fate {
    Committed,
    Aborted,
    Unknown,
}

fn written(changes: Changes) {
    for waiter in changes.items.into_iter().flat_map(|item| item.waiters) {
        // Nobody may have kept the receipt.
        let _ = waiter.reply.send(Ok(()));
    }
}

/// The changes of a state, each as a part of its own.
fn one_by_one(changes: Changes) -> Vec<Vec<Changes>> {
    let Changes { class, key, items } = changes;
    let part = |item| {
        vec![Changes {
            class: class.clone(),
            key: key.clone(),
            items: vec![item],
        }]
    };
    items.into_iter().map(part).collect()
}

/// Kinds of changes, each of which is one statement for many states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Set,
    Update,
    UpdateSection,
    Merge,
    Append,
    Delete,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Set,
        Self::Update,
        Self::UpdateSection,
        Self::Merge,
        Self::Append,
        Self::Delete,
    ];

    /// The statement, of the columns classes, keys, and two more.
    fn sql(self) -> &'static str {
        match self {
            Self::Set => {
                "SELECT pg_catalog.count(@state_set_text(k, a, class => c))
                FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                    pg_catalog.unnest($4)) AS u (c, k, a, b)"
            }
            Self::Update => {
                "SELECT pg_catalog.count(@state_update(k, a::pg_catalog.jsonb, c))
                FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                    pg_catalog.unnest($4)) AS u (c, k, a, b)"
            }
            Self::UpdateSection => {
                "SELECT pg_catalog.count(@state_update_section(k, b, a::pg_catalog.jsonb, c))
                FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                    pg_catalog.unnest($4)) AS u (c, k, a, b)"
            }
            Self::Merge => {
                "SELECT pg_catalog.count(@state_merge(k, a::pg_catalog.jsonb, c))
                FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                    pg_catalog.unnest($4)) AS u (c, k, a, b)"
            }
            Self::Append => {
                "SELECT pg_catalog.count(@state_append(k,
                    ARRAY(SELECT pg_catalog.jsonb_array_elements_text(b::pg_catalog.jsonb)), a::pg_catalog.jsonb, c))
                FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                    pg_catalog.unnest($4)) AS u (c, k, a, b)"
            }
            Self::Delete => {
                "SELECT pg_catalog.count(@state_delete(k, class => c))
                FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                    pg_catalog.unnest($4)) AS u (c, k, a, b)"
            }
        }
    }
}

/// Changes of one kind, as the columns of a statement.
#[derive(Default)]
struct Columns<'a> {
    classes: Vec<&'a str>,
    keys: Vec<&'a str>,
    first: Vec<&'a str>,
    second: Vec<String>,
}

impl<'a> Columns<'a> {
    /// Takes a change if it is of this kind.
    fn take(&mut self, kind: Kind, of: &'a Changes, change: &'a Change) -> Result<()> {
        let (it, first, second) = match change {
            Change::Set(document, ..) => (Kind::Set, document.as_str(), String::new()),
            Change::Update(updates) => (Kind::Update, updates.as_str(), String::new()),
            Change::UpdateSection(section, updates) => {
                (Kind::UpdateSection, updates.as_str(), section.clone())
            }
            Change::Merge(patch) => (Kind::Merge, patch.as_str(), String::new()),
            Change::Append(path, value) => (Kind::Append, value.as_str(), json(path)?),
            // A batcher is given no `Touch`.
            Change::Delete(_) | Change::Touch(_) => (Kind::Delete, "", String::new()),
        };
        if it == kind {
            self.classes.push(&of.class);
            self.keys.push(&of.key);
            self.first.push(first);
            self.second.push(second);
        }
        Ok(())
    }
}
