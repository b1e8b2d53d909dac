//! The client: reads through the near cache, and what all its parts share.

use crate::builder::{Builder, Following, Retries};
use crate::dial::{Dial, Messages};
use crate::floors::Verdict;
use crate::l2::{self, L2};
use crate::link::{self, Link};
use crate::message::Event;
use crate::near::{Known, Look, Near, Read};
use crate::state::{Answer, Document, Found, State, document};
use crate::statements::{Parameter, Statements};
use crate::stats::{Counters, Stats, Tier};
use crate::{Error, Result};
use deadpool_postgres::{Object, Pool};
use futures_util::FutureExt;
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

/// One near hit in so many is timed: the clock costs as much as the hit.
const TIMED: u64 = 64;
/// How often a read is sent before the error of the way to the server is given to the caller.
const READS: u32 = 2;

/// A client of `state_cache` with a near cache. Clones are cheap, and share everything; with the last one the
/// connections end.
///
/// ```no_run
/// # async fn example() -> state_cache_client::Result<()> {
/// use serde::{Deserialize, Serialize};
/// use state_cache_client::StateCache;
///
/// #[derive(Serialize, Deserialize)]
/// struct Limits {
///     rows: u32,
/// }
///
/// let cache = StateCache::builder().connection("host=db dbname=app").connect().await?;
/// cache.set("config", "limits", &Limits { rows: 100 }).await?;
/// if let Some(limits) = cache.get::<Limits>("config", "limits").await? {
///     println!("{} rows in version {}", limits.rows, limits.version);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StateCache {
    pub(crate) inner: Arc<Inner>,
    _keeper: Arc<Keeper>,
}

/// The tasks that follow the server and Redis; they end with the last clone of the client.
struct Keeper(Vec<JoinHandle<()>>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What reads, writes and the keeper of the connection share.
pub(crate) struct Inner {
    near: Mutex<Near>,
    dial: Dial,
    pool: Pool,
    /// Connections of the pool from before this moment may lead to a server that is no longer the one to ask.
    valid_since: Mutex<Instant>,
    pub statements: Statements,
    pub following: Following,
    pub retries: Retries,
    events: broadcast::Sender<Event>,
    pub counters: Counters,
    l2: Option<Arc<L2>>,
}

impl Inner {
    pub fn new(
        near: Near,
        dial: Dial,
        pool: Pool,
        statements: Statements,
        following: Following,
        retries: Retries,
        l2: Option<L2>,
    ) -> Arc<Self> {
        Arc::new(Self {
            near: Mutex::new(near),
            dial,
            pool,
            valid_since: Mutex::new(Instant::now()),
            statements,
            following,
            retries,
            events: broadcast::Sender::new(1024),
            counters: Counters::new(),
            l2: l2.map(Arc::new),
        })
    }

    /// Never held across an await.
    pub fn near(&self) -> MutexGuard<'_, Near> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody may be listening, which is no error.
    pub fn tell(&self, event: Event) {
        if let Event::Lost(why) = &event {
            tracing::warn!(%why, "the link of the near cache is lost");
        }
        let _ = self.events.send(event);
    }

    pub async fn dial(&self) -> Result<(Client, Messages)> {
        timeout(self.following.patience, (self.dial)())
            .await
            .map_err(|_| Error::NoAnswer)?
    }

    /// From now on only connections are used that are made from now on.
    pub fn retire_connections(&self) {
        let now = Instant::now();
        *self
            .valid_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
        self.pool.retain(|_, metrics| metrics.created >= now);
    }

    /// A connection of the pool.
    pub async fn connection(&self) -> Result<Object> {
        loop {
            let object = timeout(2 * self.following.patience, self.pool.get())
                .await
                .map_err(|_| Error::NoAnswer)??;
            let since = *self
                .valid_since
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if Object::metrics(&object).created >= since {
                return Ok(object);
            }
            // Taken out of the pool, and closed.
            drop(Object::take(object));
        }
    }

    /// What the near cache answers.
    fn hit(&self, class: &str, key: &str) -> Option<Found> {
        let asked = Instant::now();
        let look = self.near().look_up(class, key, asked);
        let Look::Hit(known, _, unproven) = look else {
            self.counters.miss(Tier::Near);
            return None;
        };
        if unproven.is_some() {
            self.counters.unproven.add();
        }
        let bytes = known.as_ref().map_or(0, |state| state.document.len());
        if self
            .counters
            .hit(Tier::Near, bytes, 0)
            .is_multiple_of(TIMED)
        {
            self.counters.took(Tier::Near, asked.elapsed());
        }
        Some(Found {
            known,
            tier: Tier::Near,
            unproven,
        })
    }

    /// Reads a state, together with whoever else wants to.
    async fn fetch(self: &Arc<Self>, class: &str, key: &str) -> Result<(Read, Tier)> {
        let flight = {
            let mut near = self.near();
            let mut is_first = false;
            let flight = near.fly(class, key, |number| {
                is_first = true;
                let (inner, class, key) = (self.clone(), class.to_owned(), key.to_owned());
                async move {
                    let read = inner.read_next(&class, &key).await;
                    inner.near().landed(&class, &key, number);
                    read
                }
                .boxed()
                .shared()
            });
            if !is_first {
                self.counters.joined.add();
            }
            flight
        };
        flight.await
    }

    /// Reads a state from the tiers behind the near cache.
    async fn read_next(&self, class: &str, key: &str) -> Result<(Read, Tier)> {
        let l2 = self.l2.as_ref();
        match l2.and_then(|l2| Some((l2, l2.place(class)?))) {
            Some((l2, place)) => self.read_through_l2(l2, place, class, key).await,
            // The larger of the two futures by far: it takes memory only where it runs.
            None => Ok((Box::pin(self.read_anew(class, key)).await?, Tier::Server)),
        }
    }

    /// Reads a state until the answer is not older than what is known.
    #[tracing::instrument(level = "debug", skip(self))]
    pub async fn read_anew(&self, class: &str, key: &str) -> Result<Read> {
        loop {
            let ticket = self.near().ticket(class, key);
            let read = self.ask_server(class, key).await?;
            let (verdict, turned_out) = {
                let mut near = self.near();
                let verdict = near.arrived(&ticket, class, key, &read, Instant::now());
                (verdict, near.take_turned_out())
            };
            self.counters
                .turned_out
                .fetch_add(turned_out, Ordering::Relaxed);
            match verdict {
                Verdict::Good => return Ok(read),
                Verdict::Old => self.counters.old.add(),
            }
        }
    }

    /// Asks the server, again on another connection if the way to it fails.
    async fn ask_server(&self, class: &str, key: &str) -> Result<Read> {
        let mut attempt = 1;
        loop {
            let asked = Instant::now();
            let answer = self.ask_server_once(class, key).await;
            self.counters.took(Tier::Server, asked.elapsed());
            match answer {
                Ok(read) => {
                    let bytes = read.known.as_ref().map_or(0, |state| state.document.len());
                    self.counters.hit(Tier::Server, bytes, bytes);
                    return Ok(read);
                }
                Err(error) if error.is_of_the_way() && attempt < READS => attempt += 1,
                Err(error) => {
                    self.counters.error(Tier::Server);
                    return Err(error);
                }
            }
        }
    }

    async fn ask_server_once(&self, class: &str, key: &str) -> Result<Read> {
        // What goes into Redis must end there when it ends here: PostgreSQL says how long that is, by its own clock.
        if self.l2.is_some() {
            return self.ask_server_for_l2(class, key).await;
        }
        // The version of a deletion is in state_head only, and looked up where there is no state.
        let query = "SELECT is_told, s.version, s.state::pg_catalog.text, coalesce(s.version,
                (SELECT h.version FROM @state_head h WHERE h.class = $2 AND h.key = $1), 0)
            FROM (SELECT NOT EXISTS (
                SELECT FROM @state_class WHERE class = $2 AND notify = 'off') AS is_told) c
            LEFT JOIN @state_get_if_newer($1, 0, $2) s ON true";
        let connection = self.connection().await?;
        let parameters: [Parameter<'_>; 2] = [(&key, Type::TEXT), (&class, Type::TEXT)];
        let row = self.statements.row(&connection, query, &parameters).await?;
        Ok(Read {
            is_told: row.try_get(0)?,
            known: state(&row, 1)?,
            version: row.try_get(3)?,
            left: None,
        })
    }

    /// As [`Inner::ask_server_once`], with the time that the state has to live yet.
    async fn ask_server_for_l2(&self, class: &str, key: &str) -> Result<Read> {
        let query = "SELECT is_told, s.version, s.state::pg_catalog.text, coalesce(s.version, h.version, 0),
                h.version,
                (1000 * EXTRACT(epoch FROM h.expires_at - pg_catalog.clock_timestamp()))::pg_catalog.float8
            FROM (SELECT NOT EXISTS (
                SELECT FROM @state_class WHERE class = $2 AND notify = 'off') AS is_told) c
            LEFT JOIN @state_get_if_newer($1, 0, $2) s ON true
            LEFT JOIN @state_head h ON h.class = $2 AND h.key = $1";
        let connection = self.connection().await?;
        let parameters: [Parameter<'_>; 2] = [(&key, Type::TEXT), (&class, Type::TEXT)];
        let row = self.statements.row(&connection, query, &parameters).await?;
        let version: i64 = row.try_get(3)?;
        Ok(Read {
            is_told: row.try_get(0)?,
            known: state(&row, 1)?,
            version,
            left: state_cache_l2::time_left(version, row.try_get(4)?, row.try_get(5)?),
        })
    }

    /// Looks how long a change has taken from being written to being applied here, and records it. By the server's
    /// clock the state is so old now; by ours, so long has passed since it was applied. No two clocks are compared.
    pub async fn measure(&self, applied: crate::near::Applied) -> Result<()> {
        let query = "SELECT version, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - updated_at)::pg_catalog.float8
            FROM @state_head WHERE class = $1 AND key = $2";
        let connection = self.connection().await?;
        let parameters: [Parameter<'_>; 2] =
            [(&applied.class, Type::TEXT), (&applied.key, Type::TEXT)];
        let asked = Instant::now();
        let rows = self
            .statements
            .query(&connection, query, &parameters)
            .await?;
        // The server looked at its clock somewhere between question and answer.
        let looked = asked + asked.elapsed() / 2;
        if let Some(row) = rows.first() {
            let (version, age): (i64, f64) = (row.try_get(0)?, row.try_get(1)?);
            if version == applied.version {
                let since = looked.saturating_duration_since(applied.at).as_secs_f64();
                let took = std::time::Duration::try_from_secs_f64((age - since).max(0.0));
                self.counters.applied_after(took.unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// The state in a row: its version at a place, its document in the next one.
fn state(row: &Row, at: usize) -> Result<Known> {
    let version: Option<i64> = row.try_get(at)?;
    Ok(match version {
        Some(version) => Some(Arc::new(State::new(version, row.try_get(at + 1)?))),
        None => None,
    })
}

impl StateCache {
    /// A builder of clients.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn start(inner: Arc<Inner>) -> Result<Self> {
        let mut keepers = Vec::new();
        if inner.l2.as_ref().is_some_and(|l2| l2.options.tracking) {
            inner.near().follow_redis(l2::HOLDS);
        } else {
            let link = Link::open(&inner).await?;
            keepers.push(tokio::spawn(link::keep(link, inner.clone())));
        }
        if let Some(l2) = &inner.l2 {
            keepers.push(tokio::spawn(l2::watch(inner.clone(), l2.clone())));
        }
        Ok(Self {
            inner,
            _keeper: Arc::new(Keeper(keepers)),
        })
    }

    async fn find(&self, class: &str, key: &str) -> Result<Found> {
        if let Some(found) = self.inner.hit(class, key) {
            return Ok(found);
        }
        let (read, tier) = self.inner.fetch(class, key).await?;
        Ok(Found {
            known: read.known,
            tier,
            unproven: None,
        })
    }

    /// The document, `None` if there is no such state. From the near cache without a round trip, else read and
    /// remembered.
    pub async fn get<T>(&self, class: &str, key: &str) -> Result<Option<Document<T>>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        Ok(self.find(class, key).await?.typed()?.document)
    }

    /// As [`StateCache::get`], and says where the answer came from.
    pub async fn read<T>(&self, class: &str, key: &str) -> Result<Answer<T>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.find(class, key).await?.typed()
    }

    /// The state as text, with its version.
    pub async fn get_text(&self, class: &str, key: &str) -> Result<Known> {
        Ok(self.find(class, key).await?.known)
    }

    /// The document in this version or a later one: what a colleague has written and told the version of.
    /// [`Error::NotYet`] if the server has not got that far.
    pub async fn get_at_least<T>(
        &self,
        class: &str,
        key: &str,
        version: i64,
    ) -> Result<Option<Document<T>>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let typed = |known: Known| known.map(|state| document(&state)).transpose();
        let look = self.inner.near().look_up(class, key, Instant::now());
        if let Look::Hit(known, held, None) = look
            && held >= version
        {
            return typed(known);
        }
        // A read that is under way may have begun before the version was there, so none is joined.
        let read = self.inner.read_anew(class, key).await?;
        if read.version < version {
            return Err(Error::NotYet {
                wanted: version,
                found: read.version,
            });
        }
        typed(read.known)
    }

    /// Several documents of a class, in the order of the keys: what the near cache has not is read in one go.
    pub async fn get_many<T>(&self, class: &str, keys: &[&str]) -> Result<Vec<Option<Document<T>>>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let mut found: Vec<Option<Known>> = Vec::with_capacity(keys.len());
        let (mut missing, mut asked) = (Vec::new(), HashSet::new());
        for key in keys {
            let hit = self.inner.hit(class, key);
            if hit.is_none() && asked.insert(*key) {
                missing.push(*key);
            }
            found.push(hit.map(|it| it.known));
        }
        if !missing.is_empty() {
            let read = self.read_many(class, &missing).await?;
            let read: HashMap<&str, Option<Read>> = missing.into_iter().zip(read).collect();
            for (place, key) in found.iter_mut().zip(keys) {
                if place.is_none() {
                    *place = match read.get(key) {
                        Some(Some(read)) => Some(read.known.clone()),
                        // It was older than what is known, so it is read alone.
                        _ => Some(self.inner.fetch(class, key).await?.0.known),
                    };
                }
            }
        }
        let documents = found.into_iter().map(|known| match known.flatten() {
            Some(state) => Ok(Some(document(&state)?)),
            None => Ok(None),
        });
        documents.collect()
    }

    /// What the server has of these keys; `None` where that is older than what is known.
    async fn read_many(&self, class: &str, keys: &[&str]) -> Result<Vec<Option<Read>>> {
        let tickets: Vec<_> = {
            let near = self.inner.near();
            keys.iter().map(|key| near.ticket(class, key)).collect()
        };
        let query = "SELECT is_told, s.version, s.state::pg_catalog.text, coalesce(s.version,
                (SELECT h.version FROM @state_head h WHERE h.class = $2 AND h.key = k.key), 0)
            FROM (SELECT NOT EXISTS (
                SELECT FROM @state_class WHERE class = $2 AND notify = 'off') AS is_told) c
            CROSS JOIN pg_catalog.unnest($1) WITH ORDINALITY AS k (key, place)
            LEFT JOIN @state_get_many($1, $2) s ON s.key = k.key
            ORDER BY k.place";
        let connection = self.inner.connection().await?;
        let parameters: [Parameter<'_>; 2] = [(&keys, Type::TEXT_ARRAY), (&class, Type::TEXT)];
        let asked = Instant::now();
        let rows = self
            .inner
            .statements
            .query(&connection, query, &parameters)
            .await?;
        self.inner.counters.took(Tier::Server, asked.elapsed());
        drop(connection);
        let mut answers = Vec::with_capacity(keys.len());
        let mut near = self.inner.near();
        for ((row, key), ticket) in rows.iter().zip(keys).zip(&tickets) {
            let read = Read {
                is_told: row.try_get(0)?,
                known: state(row, 1)?,
                version: row.try_get(3)?,
                left: None,
            };
            let bytes = read.known.as_ref().map_or(0, |state| state.document.len());
            self.inner.counters.hit(Tier::Server, bytes, bytes);
            let verdict = near.arrived(ticket, class, key, &read, Instant::now());
            answers.push((verdict == Verdict::Good).then_some(read));
        }
        let turned_out = near.take_turned_out();
        self.inner
            .counters
            .turned_out
            .fetch_add(turned_out, Ordering::Relaxed);
        Ok(answers)
    }

    /// What is at a path of the document, `None` if nothing is. Out of the near cache if it holds the document;
    /// else the server sends this part only, and nothing is remembered.
    pub async fn get_path<T>(&self, class: &str, key: &str, path: &[&str]) -> Result<Option<T>>
    where
        T: DeserializeOwned,
    {
        if let Some(found) = self.inner.hit(class, key) {
            let Some(state) = found.known else {
                return Ok(None);
            };
            let whole: serde_json::Value = serde_json::from_str(&state.document)?;
            return match walk(&whole, path) {
                Some(part) => Ok(Some(T::deserialize(part)?)),
                None => Ok(None),
            };
        }
        let query =
            "SELECT @state_get_path($1, $2, $3)::pg_catalog.text, coalesce(@state_version($1, $3),
            (SELECT h.version FROM @state_head h WHERE h.class = $3 AND h.key = $1), 0)";
        loop {
            let ticket = self.inner.near().ticket(class, key);
            let connection = self.inner.connection().await?;
            let parameters: [Parameter<'_>; 3] = [
                (&key, Type::TEXT),
                (&path, Type::TEXT_ARRAY),
                (&class, Type::TEXT),
            ];
            let asked = Instant::now();
            let row = self
                .inner
                .statements
                .row(&connection, query, &parameters)
                .await?;
            self.inner.counters.took(Tier::Server, asked.elapsed());
            let part: Option<&str> = row.try_get(0)?;
            let bytes = part.map_or(0, str::len);
            self.inner.counters.hit(Tier::Server, bytes, bytes);
            if self
                .inner
                .near()
                .passed(&ticket, class, key, row.try_get(1)?)
                == Verdict::Good
            {
                return Ok(part.map(serde_json::from_str).transpose()?);
            }
        }
    }

    /// What the near cache would answer now, `None` if it would have to read.
    pub fn peek(&self, class: &str, key: &str) -> Option<Known> {
        match self.inner.near().look_up(class, key, Instant::now()) {
            Look::Hit(known, ..) => Some(known),
            Look::Miss => None,
        }
    }

    /// Drops a copy of a state that this application has changed by other ways than this client. To be called after
    /// the commit. What the client has changed itself it forgets by itself.
    pub fn forget(&self, class: &str, key: &str) {
        self.inner.near().wrote(class, key);
    }

    /// What is heard from now on. A receiver that falls behind is told how many events it missed.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Whether the near cache is known to hear of every change.
    pub fn is_sure(&self) -> bool {
        self.inner.near().is_proven(Instant::now())
    }

    /// Switches the near cache off, or on again. Off, it forgets what it holds, and every read goes on to the next
    /// tier.
    pub fn enable_near(&self, enabled: bool) {
        self.inner.near().enable(enabled);
    }

    /// Switches Redis off, or on again. Off, what the near cache has not is read from the server.
    pub fn enable_l2(&self, enabled: bool) {
        if let Some(l2) = &self.inner.l2 {
            l2.enable(enabled);
        }
    }

    /// Whether Redis may be asked about a class now: it is there, the feeder is alive, and the class is in it.
    pub fn is_l2_usable(&self, class: &str) -> bool {
        let l2 = self.inner.l2.as_ref();
        l2.is_some_and(|l2| l2.place(class).is_some())
    }

    /// What was counted since the client was made.
    pub fn stats(&self) -> Stats {
        let size = self.inner.near().size();
        let pool = self.inner.pool.status();
        let in_use = pool.size.saturating_sub(pool.available);
        self.inner
            .counters
            .read(size, (in_use as u64, pool.size as u64))
    }
}

/// What is at a path, as `state_get_path` sees paths: places in arrays are numbers, from the end when negative.
fn walk<'a>(value: &'a serde_json::Value, path: &[&str]) -> Option<&'a serde_json::Value> {
    path.iter().try_fold(value, |value, step| match value {
        serde_json::Value::Object(members) => members.get(*step),
        serde_json::Value::Array(items) => {
            let place: i64 = step.parse().ok()?;
            let from_start = if place < 0 {
                place + items.len() as i64
            } else {
                place
            };
            items.get(usize::try_from(from_start).ok()?)
        }
        _ => None,
    })
}
