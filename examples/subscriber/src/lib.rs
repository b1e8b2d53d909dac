//! A cache of states inside an application that keeps itself right: the reference for whoever writes a
//! subscriber. [`Subscriber::get`] answers from memory, or reads the state and remembers it; messages of
//! the extension drop what has changed.
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
//! which may be done twice and in any order. Versions are not compared here: the tables may be changed by
//! hand, and a version set back is a change like any other.
//!
//! **A read races with messages.** A message may arrive while the state is being read, and the answer may
//! be older than it. So [`memory::Memory`] counts what it hears, and remembers an answer only if nothing was
//! heard about the state since the question, and if there was no catching up either.
//!
//! **In doubt it does not answer.** Messages are numbered without gaps. A number that is not the next one, a
//! message without number, a message that makes no sense, and the end of the connection all raise a doubt.
//! Until it has caught up, every `get` reads; what is in memory stays, for most of it will prove to be right.
//!
//! **Another epoch, another server.** After a restart, a promotion or an overflow nothing held is used again:
//! the server may have lost what it had acknowledged (`behind` mode, `synchronous_commit = off`, a standby
//! that lagged), and numbers its transactions anew from there, so no cursor can tell.
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
//! # What it does not do
//!
//! Between a commit and its message, memory answers as before the commit: milliseconds, and when a connection
//! dies in silence at most [`Options::heartbeat`] and three times [`Options::patience`]. A state with a ttl is
//! answered until the worker has removed it. Reads are not part of the application's transactions. There is no TLS
//! here: replace `NoTls` as tokio-postgres describes. The extension's schema must be on the `search_path`.

mod error;
mod link;
mod memory;
mod message;

pub use error::Error;
pub use message::Event;

use link::Link;
use memory::{Known, Memory};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Connection, NoTls, Socket};

/// A state as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its version, to be given as `expected_version` to a write.
    pub version: i64,
    /// The document, JSON.
    pub document: String,
}

/// How a subscriber behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often it makes sure that notifications still arrive.
    pub heartbeat: Duration,
    /// How long such a notification, or to connect, may take. Longer, and the connection counts as lost.
    pub patience: Duration,
    /// How often it asks for all changes although nothing seems to be missing. It keeps the cursor young:
    /// the older it is, the more there is to report after a lost connection.
    pub catch_up: Duration,
    /// How many states it holds. One more, and it begins anew with none.
    pub max_entries: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            catch_up: Duration::from_secs(600),
            max_entries: 100_000,
        }
    }
}

/// A cache that follows the database. Dropped, it ends its connections.
pub struct Subscriber {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

impl Subscriber {
    /// Connects, and returns once messages are known to arrive: [`Error::NotDelivered`] if they do not.
    /// Later failures are mended in the background, and told as [`Event::Lost`].
    pub async fn connect(config: Config, options: Options) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            memory: Mutex::new(Memory::new(options.max_entries)),
            config,
            options,
            reader: tokio::sync::Mutex::default(),
            events: broadcast::Sender::new(1024),
        });
        let link = Link::open(&shared).await?;
        let keeper = tokio::spawn(link::keep(link, shared.clone()));
        Ok(Self { shared, keeper })
    }

    /// The state, `None` if there is none. From memory, else read; an error is one of reading.
    pub async fn get(&self, class: &str, key: &str) -> Result<Known, Error> {
        let ticket = match self.shared.memory().look_up(class, key) {
            Ok(known) => return Ok(known),
            Err(ticket) => ticket,
        };
        let read = self.shared.read(class, key).await?;
        let state = read.state.map(Arc::new);
        if read.is_told {
            self.shared.memory().remember(ticket, class, key, &state);
        }
        Ok(state)
    }

    /// What memory would answer now, `None` if it would have to read.
    pub fn peek(&self, class: &str, key: &str) -> Option<Known> {
        self.shared.memory().look_up(class, key).ok()
    }

    /// Drops a state that this application has just changed itself, for whoever wants to read it before the
    /// message arrives. To be called after the commit.
    pub fn forget(&self, class: &str, key: &str) {
        self.shared.memory().drop_state(class, key);
    }

    /// What it hears from now on. A receiver that falls behind is told how many events it missed.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The answer to a read.
struct Read {
    state: Option<State>,
    /// The class has messages, so the state may be remembered.
    is_told: bool,
}

/// What reads and the keeper of the connection share.
struct Shared {
    config: Config,
    options: Options,
    memory: Mutex<Memory>,
    /// The second connection: reads, and the notifications that prove delivery.
    reader: tokio::sync::Mutex<Option<Arc<Client>>>,
    events: broadcast::Sender<Event>,
}

impl Shared {
    /// Never held across an await.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody may be listening, which is no error.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// The second connection, made anew if it was lost.
    async fn reader(&self) -> Result<Arc<Client>, Error> {
        let mut reader = self.reader.lock().await;
        if let Some(client) = reader.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let (client, connection) = self.dial().await?;
        tokio::spawn(connection);
        Ok(reader.insert(Arc::new(client)).clone())
    }

    async fn dial(&self) -> Result<(Client, Connection<Socket, NoTlsStream>), Error> {
        timeout(self.options.patience, self.config.connect(NoTls))
            .await
            .map_err(|_| Error::NoAnswer)?
            .map_err(Error::from)
    }

    async fn read(&self, class: &str, key: &str) -> Result<Read, Error> {
        let query = "SELECT is_told, version, state::text FROM (SELECT NOT EXISTS (
                SELECT FROM state_class WHERE class = $2 AND notify = 'off') AS is_told) c
            LEFT JOIN state_get_if_newer($1, 0, $2) ON true";
        let row = self
            .reader()
            .await?
            .query_typed_one(query, &[(&key, Type::TEXT), (&class, Type::TEXT)])
            .await?;
        let version: Option<i64> = row.try_get(1)?;
        let state = version.map(|version| -> Result<State, Error> {
            Ok(State {
                version,
                document: row.try_get(2)?,
            })
        });
        Ok(Read {
            state: state.transpose()?,
            is_told: row.try_get(0)?,
        })
    }
}
