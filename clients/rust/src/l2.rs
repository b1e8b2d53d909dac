//! The tier between the near cache and the server: Redis, which the feeder (`clients/l2`) keeps right and which the
//! application's servers share. What stands there, and the duties of a reader, is in the crate `state_cache_l2`.
//!
//! # Why it is right
//!
//! **An answer of Redis is never older than what this client has seen, written or heard of.** It goes past the
//! state's floor ([`crate::floors`]), under the lock of the near cache; below it, the server is asked. After a write
//! of this client only the server may answer, since only it knows the version.
//!
//! **It may be older than what others have written**, by what the feeder needs, and never by more than
//! [`L2Options::max_lag`]: a feeder says that it is alive only as long as what it heard is written soon enough, and
//! this reader looks every half second, and answers nothing from Redis when it has not looked for a second. So a
//! client that was paused for a minute looks first.
//!
//! **An answer of Redis is remembered in the near cache only if its change cannot be old news.** The near cache drops
//! a copy when a message comes. A change whose message was heard has raised the floor. A change whose message came
//! before the client listened, or was told as "all of the class", names no version; Redis has it after `max_lag` at
//! the latest, and until then answers of Redis are given and not remembered.
//!
//! **A fill cannot put back what has changed.** A miss takes a lease in Redis, then asks the server, then replaces
//! the lease, and nothing else, by the value. Whatever the feeder writes in between takes the lease away. So does
//! time. Where an older version is there instead, exactly that is replaced: a client that was paused for longer than
//! Redis remembers a deletion finds something else, or nothing, and writes nothing.
//!
//! **A fill ends when its state does**, or before. PostgreSQL says how long the state has to live yet, by its own
//! clock, and Redis is given that as a time from now, less what the answer took. The clock of this host is not looked
//! at, and what Redis's clock says does not matter, as long as it goes forward.
//!
//! # What another process can do between any two steps
//!
//! | between | somebody | and |
//! | --- | --- | --- |
//! | ticket and GET | commits, and the feeder writes | GET sees the new value, or a miss |
//! | GET and `arrived_from_l2` | commits, and the message comes | the floor has risen: the server is asked |
//! | lease and the answer | commits, and the feeder writes | the lease is gone: nothing is filled |
//! | lease and the answer | commits, and the feeder is slow | the fill is older: the feeder's write goes over it |
//! | a look at the meta hash and GET | begins a generation | the former one answers for half a second, past floors |
//!
//! Without Redis everything goes on, from the server: each command has a time limit, and what fails is counted.

use crate::cache::Inner;
use crate::floors::{ONLY_THE_SERVER, Verdict};
use crate::near::{Read, Ticket, Told};
use crate::state::State;
use crate::statements::Parameter;
use crate::stats::Tier;
use crate::tracking::{self, Tracking};
use crate::{Error, Result};
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, Script,
    TlsCertificates, Value as Reply,
};
use state_cache_l2::{Compression, Content, FORMAT, Mode, Owner, Prefix, Value, field, script};
use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How often the meta hash is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long what was seen there holds.
pub(crate) const HOLDS: Duration = Duration::from_secs(1);
/// How often the server is asked which classes are in L2, and how.
const ASK: Duration = Duration::from_secs(5);
/// Pauses in which it is looked whether somebody else has filled what is being filled.
const PAUSES: [u64; 5] = [2, 4, 8, 16, 32];

/// Where Redis is, and how it is used.
#[derive(Debug, Clone)]
pub struct L2Options {
    /// Addresses: one, `redis://…`, `rediss://…` or `redis+unix://…`; or some nodes of a cluster.
    pub addresses: Vec<String>,
    /// Whether they are nodes of a cluster.
    pub cluster: bool,
    /// What all keys begin with, as the feeder has it.
    pub prefix: String,
    /// How long a command may take.
    pub patience: Duration,
    /// How long a lease for a fill holds.
    pub lease: Duration,
    /// How far behind Redis is at most while the feeder says that it is alive: its `max_lag_ms` and `alive_ms`, and a
    /// second.
    pub max_lag: Duration,
    /// Whether Redis tells the near cache what has changed (`CLIENT TRACKING`, Redis 6), and not PostgreSQL: then the
    /// client has no connection that listens, remembers only what Redis has answered, and its copies are as old as
    /// Redis at most. `tracking.rs` says why that is right.
    pub tracking: bool,
    /// Certificates, PEM, that sign that of Redis (`rediss://`), instead of the public ones.
    pub certificates: Option<Vec<u8>>,
}

impl L2Options {
    /// One Redis, all else as the feeder has it by default.
    pub fn new(address: &str) -> Self {
        Self {
            addresses: vec![address.to_owned()],
            cluster: false,
            prefix: "state_cache:".to_owned(),
            patience: Duration::from_millis(250),
            lease: Duration::from_secs(3),
            max_lag: Duration::from_secs(16),
            tracking: false,
            certificates: None,
        }
    }
}

/// A connection to one Redis, or to a cluster.
#[derive(Clone)]
enum Way {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Way {
    async fn open(options: &L2Options) -> redis::RedisResult<Self> {
        if options.cluster {
            let mut builder = ClusterClient::builder(options.addresses.clone())
                .connection_timeout(options.patience)
                .response_timeout(options.patience);
            if let Some(certificates) = certificates(options) {
                builder = builder.certs(certificates);
            }
            let client = builder.build()?;
            return client.get_async_connection().await.map(Self::Cluster);
        }
        single(options, None, None).await.map(Self::One)
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &Cmd) -> redis::RedisResult<T> {
        match self {
            Self::One(it) => command.query_async(it).await,
            Self::Cluster(it) => command.query_async(it).await,
        }
    }

    /// Whether a command ends by itself once the patience is over. In a cluster it may be sent more than once.
    fn is_timely(&self) -> bool {
        matches!(self, Self::One(_))
    }

    async fn ask_all<T: redis::FromRedisValue>(
        &mut self,
        commands: &Pipeline,
    ) -> redis::RedisResult<T> {
        match self {
            Self::One(it) => commands.query_async(it).await,
            Self::Cluster(it) => commands.query_async(it).await,
        }
    }

    async fn run(&mut self, call: &redis::ScriptInvocation<'_>) -> redis::RedisResult<Reply> {
        match self {
            Self::One(it) => call.invoke_async(it).await,
            Self::Cluster(it) => call.invoke_async(it).await,
        }
    }
}

fn certificates(options: &L2Options) -> Option<TlsCertificates> {
    let root_cert = Some(options.certificates.clone()?);
    Some(TlsCertificates {
        client_tls: None,
        root_cert,
    })
}

/// A connection to the server that the options name first, or to another one that is reached in the same way. With
/// somebody who hears, it speaks RESP3.
pub(crate) async fn single(
    options: &L2Options,
    place: Option<(String, u16)>,
    hears: Option<Arc<dyn AsyncPushSender>>,
) -> redis::RedisResult<MultiplexedConnection> {
    let address = options.addresses.first().map_or("", String::as_str);
    let mut info = address.into_connection_info()?;
    if let Some((host, port)) = place {
        let at = match info.addr().clone() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure,
                tls_params,
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        info = info.set_addr(at);
    }
    let mut how = AsyncConnectionConfig::new().set_response_timeout(Some(options.patience));
    if let Some(hears) = hears {
        let settings = info.redis_settings().clone();
        info = info.set_redis_settings(settings.set_protocol(redis::ProtocolVersion::RESP3));
        how = how.set_push_sender(hears);
    }
    let client = match certificates(options) {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    };
    client
        .get_multiplexed_async_connection_with_config(&how)
        .await
}

/// What the meta hash said.
struct Seen {
    at: Instant,
    generation: u64,
    /// The classes that are in the generation, and in L2 by what the server says.
    classes: BTreeSet<String>,
    fills: bool,
}

/// Where Redis holds the states of a class now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    generation: u64,
    /// Whether readers may fill.
    fills: bool,
}

/// How a class is held.
#[derive(Clone, Copy)]
struct Held {
    ttl: Duration,
    compression: Compression,
}

/// The tier.
pub(crate) struct L2 {
    pub options: L2Options,
    prefix: Prefix,
    enabled: AtomicBool,
    way: Mutex<Option<Way>>,
    seen: Mutex<Option<Seen>>,
    held: Mutex<HashMap<String, Held>>,
    replace: Script,
}

/// What Redis has of a state.
enum Stored {
    /// Something that may be answered, and its bytes on the wire.
    Found(Read, Vec<u8>),
    /// Nothing.
    Nothing,
    /// Somebody is about to fill.
    Leased,
    /// What is no value of ours.
    Foreign(Vec<u8>),
}

/// The answer; `None` for an error, which is logged.
fn told<T>(answer: redis::RedisResult<T>) -> Option<T> {
    answer
        .inspect_err(|error| tracing::debug!(%error, "Redis"))
        .ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl L2 {
    pub fn new(options: L2Options) -> Result<Self> {
        let prefix = Prefix::new(options.prefix.clone());
        Ok(Self {
            prefix: prefix.map_err(|error| Error::Configuration(error.to_string()))?,
            options,
            enabled: AtomicBool::new(true),
            way: Mutex::new(None),
            seen: Mutex::new(None),
            held: Mutex::new(HashMap::new()),
            replace: Script::new(script::REPLACE),
        })
    }

    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Where Redis holds the states of a class; `None` where it must not be asked about them now.
    pub fn place(&self, class: &str) -> Option<Place> {
        if !self.enabled.load(Ordering::Relaxed) {
            return None;
        }
        let seen = lock(&self.seen);
        let seen = seen.as_ref().filter(|seen| seen.at.elapsed() < HOLDS)?;
        seen.classes.contains(class).then_some(Place {
            generation: seen.generation,
            fills: seen.fills,
        })
    }

    fn way(&self) -> Option<Way> {
        lock(&self.way).clone()
    }

    async fn timely<T>(&self, work: impl Future<Output = redis::RedisResult<T>>) -> Option<T> {
        timeout(self.options.patience, work)
            .await
            .ok()
            .and_then(told)
    }

    /// As [`L2::timely`], and says why there is no answer.
    pub async fn answer<T>(
        &self,
        work: impl Future<Output = redis::RedisResult<T>>,
    ) -> std::result::Result<T, String> {
        match timeout(self.options.patience, work).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer of Redis in {:?}", self.options.patience)),
        }
    }

    /// The class and key of the state that a key of Redis is for, if it is for one.
    pub fn named(&self, name: &[u8]) -> Option<(String, String)> {
        let (_, class, key) = self.prefix.parse(std::str::from_utf8(name).ok()?)?;
        Some((class, key))
    }

    /// What Redis has of a state; `None` if it does not answer.
    async fn get(&self, name: &str, class: &str, key: &str) -> Option<Stored> {
        let mut way = self.way()?;
        let mut get = Cmd::new();
        get.arg("GET").arg(name);
        let answer: Reply = match way.is_timely() {
            // A second timer would take longer than the checksum.
            true => told(way.ask(&get).await)?,
            false => self.timely(way.ask(&get)).await?,
        };
        let bytes = match answer {
            Reply::Nil => return Some(Stored::Nothing),
            Reply::BulkString(bytes) => bytes,
            _ => return Some(Stored::Foreign(Vec::new())),
        };
        Some(match Value::read(class, key, &bytes) {
            Err(_) => Stored::Foreign(bytes),
            Ok(value) => {
                let Ok(version) = i64::try_from(value.version) else {
                    return Some(Stored::Foreign(bytes));
                };
                let known = match value.content {
                    Content::Lease => return Some(Stored::Leased),
                    Content::Tombstone => None,
                    Content::Document(document) => Some(Arc::new(State::new(version, document))),
                };
                let read = Read {
                    known,
                    version,
                    is_told: true,
                    left: None,
                };
                Stored::Found(read, bytes)
            }
        })
    }

    /// Takes the right to fill a state. The bytes of the lease, `None` if somebody else was faster.
    async fn lease(&self, name: &str, class: &str, key: &str) -> Option<Vec<u8>> {
        let mut token = [0; 16];
        let (high, low) = token.split_at_mut(8);
        high.copy_from_slice(&crate::link::random().to_be_bytes());
        low.copy_from_slice(&crate::link::random().to_be_bytes());
        let lease = Value::lease(class, key, token);
        let mut set = Cmd::new();
        set.arg("SET")
            .arg(name)
            .arg(&lease)
            .arg("NX")
            .arg("PX")
            .arg(self.options.lease.as_millis() as u64);
        let mut way = self.way()?;
        let answer: Reply = self.timely(way.ask(&set)).await?;
        matches!(answer, Reply::Okay).then_some(lease)
    }

    /// Puts something in place of exactly these bytes; nothing deletes.
    async fn replace(&self, name: &str, old: &[u8], new: &[u8], ttl: Duration) {
        let Some(mut way) = self.way() else { return };
        let mut call = self.replace.key(name);
        call.arg(&old[..old.len().min(state_cache_l2::HEADER)])
            .arg(old.len())
            .arg(new)
            .arg(milliseconds(ttl));
        self.timely(way.run(&call)).await;
    }

    /// What is written of a state that was asked for so long ago, and for how long it stays.
    fn value(
        &self,
        class: &str,
        key: &str,
        read: &Read,
        ago: Duration,
    ) -> Option<(Vec<u8>, Duration)> {
        let held = *lock(&self.held).get(class)?;
        let ttl = read
            .left
            .map_or(held.ttl, |left| left.saturating_sub(ago).min(held.ttl));
        let version = u64::try_from(read.version)
            .ok()
            .filter(|version| *version > 0)?;
        let value = match &read.known {
            Some(state) => {
                Value::document(class, key, version, &state.document, held.compression).ok()?
            }
            None => Value::tombstone(class, key, version),
        };
        Some((value, ttl))
    }

    /// Looks at the meta hash. An error ends the connection.
    async fn look(&self, owner: &Owner) -> Option<Option<Seen>> {
        let mut way = self.way()?;
        let at = Instant::now();
        let mut commands = redis::pipe();
        let fields = [
            field::FORMAT,
            field::OWNER,
            field::GENERATION,
            field::CLASSES,
            field::MODE,
        ];
        commands.cmd("HMGET").arg(self.prefix.meta()).arg(&fields);
        commands.cmd("EXISTS").arg(self.prefix.alive());
        type Answer = (Vec<Option<String>>, u64);
        let (meta, alive): Answer = self.timely(way.ask_all(&commands)).await?;
        let mut meta = meta.into_iter().map(Option::unwrap_or_default);
        let mut next = || meta.next().unwrap_or_default();
        let (format, whose, generation, classes, mode) = (next(), next(), next(), next(), next());
        let is_ours = alive > 0 && format == FORMAT.to_string() && whose == owner.to_string();
        let (Ok(generation), Ok(mut classes), true) = (
            generation.parse(),
            serde_json::from_str::<BTreeSet<String>>(&classes),
            is_ours,
        ) else {
            return Some(None);
        };
        let held = lock(&self.held);
        classes.retain(|class| held.contains_key(class));
        drop(held);
        Some(Some(Seen {
            at,
            generation,
            classes,
            fills: Mode::from_str(&mode) == Ok(Mode::Script),
        }))
    }
}

/// A time that Redis takes: it knows none below a millisecond.
fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Looks at Redis for ever.
pub(crate) async fn watch(inner: Arc<Inner>, l2: Arc<L2>) {
    let mut owner: Option<Owner> = None;
    let mut asked: Option<Instant> = None;
    let mut tracking: Option<Tracking> = None;
    loop {
        if asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            match settings(&inner).await {
                Ok((whose, held)) => {
                    owner = Some(whose);
                    *lock(&l2.held) = held;
                    asked = Some(Instant::now());
                }
                Err(error) => tracing::debug!(%error, "which classes are in L2"),
            }
        }
        if l2.way().is_none() {
            let opened = l2.timely(Way::open(&l2.options)).await;
            *lock(&l2.way) = opened;
        }
        if let Some(owner) = &owner {
            let beginning = inner.near().begin_to_settle(Instant::now());
            let seen = l2.look(owner).await;
            if seen.is_none() {
                *lock(&l2.way) = None;
            }
            let seen = seen.flatten();
            let generation = seen.as_ref().filter(|seen| seen.fills);
            let generation = generation.map(|seen| seen.generation);
            *lock(&l2.seen) = seen;
            if l2.options.tracking {
                tracking::follow(&inner, &l2, &mut tracking, generation, beginning).await;
            }
        }
        sleep(LOOK).await;
    }
}

/// Whose database it is, and how its classes are held in L2.
async fn settings(inner: &Inner) -> Result<(Owner, HashMap<String, Held>)> {
    let connection = inner.connection().await?;
    let query = "SELECT (pg_catalog.pg_control_system()).system_identifier, d.oid,
            e.extnamespace::pg_catalog.regnamespace::pg_catalog.text,
            c.class, (EXTRACT(epoch FROM c.ttl) * 1000)::pg_catalog.int8, c.codec, c.above
        FROM pg_catalog.pg_database d JOIN pg_catalog.pg_extension e ON e.extname = 'state_cache'
        LEFT JOIN @state_l2_classes c ON c.refused IS NULL
        WHERE d.datname = pg_catalog.current_database()";
    let none: [Parameter<'_>; 0] = [];
    let rows = inner.statements.query(&connection, query, &none).await?;
    let (mut owner, mut held) = (None, HashMap::new());
    for row in rows {
        let system: i64 = row.try_get(0)?;
        owner = Some(Owner {
            // The server shows its 64 bits as a signed number.
            system: system as u64,
            database: row.try_get(1)?,
            schema: row.try_get(2)?,
        });
        let class: Option<String> = row.try_get(3)?;
        let Some(class) = class else { continue };
        let mut compression = Compression::default();
        let (ttl, codec, above): (i64, Option<&str>, Option<i32>) =
            (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
        if let Some(codec) = codec.and_then(|codec| codec.parse().ok()) {
            compression.codec = codec;
        }
        if let Some(above) = above.and_then(|above| usize::try_from(above).ok()) {
            compression.above = above;
        }
        let ttl = Duration::from_millis(u64::try_from(ttl).unwrap_or(0).max(1));
        held.insert(class, Held { ttl, compression });
    }
    Ok((owner.ok_or(Error::Closed)?, held))
}

impl Inner {
    /// Reads a state through Redis. `None`: the server is to be asked.
    async fn ask_l2(
        &self,
        l2: &L2,
        (place, name): (Place, &str),
        ticket: Ticket,
        class: &str,
        key: &str,
    ) -> Option<std::result::Result<Read, Stored>> {
        let asked = Instant::now();
        let stored = l2.get(name, class, key).await;
        self.counters.took(Tier::L2, asked.elapsed());
        match stored {
            None => {
                self.counters.error(Tier::L2);
                None
            }
            Some(Stored::Found(read, wire)) => {
                if !self.arrived_from_l2(l2, &ticket, place.generation, class, key, &read) {
                    self.counters.old.add();
                    self.counters.miss(Tier::L2);
                    return None;
                }
                let bytes = read.known.as_ref().map_or(0, |state| state.document.len());
                self.counters.hit(Tier::L2, bytes, wire.len());
                Some(Ok(read))
            }
            Some(other) => Some(Err(other)),
        }
    }

    fn arrived_from_l2(
        &self,
        l2: &L2,
        ticket: &Ticket,
        generation: u64,
        class: &str,
        key: &str,
        read: &Read,
    ) -> bool {
        let told = match l2.options.tracking {
            true => Told::ByRedis { generation },
            false => Told::ByTheServer {
                max_lag: l2.options.max_lag,
            },
        };
        let mut near = self.near();
        near.arrived_from_l2(ticket, class, key, read, Instant::now(), told) == Verdict::Good
    }

    /// Reads a state from Redis, or from the server, and then into Redis. Where the answer came from.
    ///
    /// What Redis answers at once is all that waits in the caller's future. The rest, which is much larger, is given
    /// memory only where it runs.
    pub(crate) async fn read_through_l2(
        &self,
        l2: &L2,
        place: Place,
        class: &str,
        key: &str,
    ) -> Result<(Read, Tier)> {
        let name = l2.prefix.state(place.generation, class, key);
        let ticket = {
            let near = self.near();
            (near.floor(class, key) != ONLY_THE_SERVER).then(|| near.ticket(class, key))
        };
        let Some(ticket) = ticket else {
            self.counters.miss(Tier::L2);
            return Ok((Box::pin(self.read_anew(class, key)).await?, Tier::Server));
        };
        match self.ask_l2(l2, (place, &name), ticket, class, key).await {
            Some(Ok(read)) => Ok((read, Tier::L2)),
            other => Box::pin(self.read_past_l2(l2, (place, &name), other, class, key)).await,
        }
    }

    /// The same after this first answer, which is none of a state.
    async fn read_past_l2(
        &self,
        l2: &L2,
        (place, name): (Place, &str),
        mut answer: Option<std::result::Result<Read, Stored>>,
        class: &str,
        key: &str,
    ) -> Result<(Read, Tier)> {
        let mut pauses = PAUSES.into_iter();
        let lease = loop {
            match answer {
                Some(Ok(read)) => return Ok((read, Tier::L2)),
                Some(Err(Stored::Foreign(bytes))) => {
                    self.counters.error(Tier::L2);
                    if place.fills {
                        l2.replace(name, &bytes, &[], Duration::ZERO).await;
                    }
                    break None;
                }
                Some(Err(Stored::Nothing)) if place.fills => {
                    match l2.lease(name, class, key).await {
                        Some(lease) => break Some(lease),
                        None => match pauses.next() {
                            Some(pause) => sleep(Duration::from_millis(pause)).await,
                            None => break None,
                        },
                    }
                }
                // Somebody else reads it from the server: once for all.
                Some(Err(Stored::Leased)) => match pauses.next() {
                    Some(pause) => sleep(Duration::from_millis(pause)).await,
                    None => break None,
                },
                _ => break None,
            }
            let ticket = self.near().ticket(class, key);
            answer = self.ask_l2(l2, (place, name), ticket, class, key).await;
        };
        self.counters.miss(Tier::L2);
        // After the lease: what changes from now on takes the lease away.
        let asked = Instant::now();
        let read = self.read_anew(class, key).await?;
        let value = l2.value(class, key, &read, asked.elapsed());
        if let Some(lease) = lease {
            let (value, ttl) = value.unwrap_or_default();
            l2.replace(name, &lease, &value, ttl).await;
        } else if place.fills
            && let Some((value, ttl)) = value
        {
            self.write_over_older(l2, name, (class, key), &read, &value, ttl)
                .await;
        }
        Ok((read, Tier::Server))
    }

    /// Writes what the server has answered over something older that is there now, and over exactly that. A miss is
    /// filled under a lease only: the answer may be old by now, and the tombstone that says so may be gone already.
    async fn write_over_older(
        &self,
        l2: &L2,
        name: &str,
        (class, key): (&str, &str),
        read: &Read,
        value: &[u8],
        ttl: Duration,
    ) {
        let Some(Stored::Found(there, bytes)) = l2.get(name, class, key).await else {
            return;
        };
        // A state that has ended is newer than its document.
        let has_ended = read.known.is_none() && there.known.is_some();
        if there.version < read.version || there.version == read.version && has_ended {
            l2.replace(name, &bytes, value, ttl).await;
        }
    }
}
