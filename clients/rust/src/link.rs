//! The connection that listens: made, proven, watched, and made again.

use crate::Error;
use crate::cache::Inner;
use crate::dial::Messages;
use crate::message::{Event, Position};
use crate::near::Applied;
use std::convert::Infallible;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage};

/// The pause before the first attempt to connect again; it doubles with each that fails.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the connection has to say to its keeper.
enum Signal {
    /// The notification with this number has arrived.
    Proof(String),
    /// The near cache has come to doubt.
    Doubt,
    /// The connection has ended.
    Lost(Error),
}

/// A connection that listens, and hands what it hears to the near cache.
pub(crate) struct Link {
    inner: Arc<Inner>,
    client: Client,
    signals: UnboundedReceiver<Signal>,
    pump: JoinHandle<()>,
    /// The channel of its proofs, and how many there were.
    channel: String,
    proofs: u64,
}

/// Keeps the near cache right for ever, through one link after the other.
pub(crate) async fn keep(mut link: Link, inner: Arc<Inner>) {
    loop {
        let Err(error) = link.serve().await;
        inner.near().disconnect();
        inner.tell(Event::Lost(error.to_string()));
        let mut pause = SHORTEST_PAUSE;
        link = loop {
            // Half of it by chance, so that not all subscribers of a server come back at the same moment.
            sleep(pause.mul_f64(0.5 + random() as f64 / u64::MAX as f64 / 2.0)).await;
            match Link::open(&inner).await {
                Ok(link) => break link,
                Err(error) => inner.tell(Event::Lost(error.to_string())),
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        };
    }
}

impl Link {
    /// Connects, proves that notifications arrive, and catches up.
    pub async fn open(inner: &Arc<Inner>) -> Result<Self, Error> {
        let (client, messages) = inner.dial().await?;
        // Those of the pool may still lead to a server that is no longer the one to ask.
        inner.retire_connections();
        let channel = format!("state_cache_subscriber_{:016x}", random());
        let (sender, signals) = unbounded_channel();
        let mut link = Self {
            pump: tokio::spawn(pump(messages, inner.clone(), channel.clone(), sender)),
            inner: inner.clone(),
            client,
            signals,
            channel,
            proofs: 0,
        };
        link.client
            .batch_execute(&format!("LISTEN {}", link.channel))
            .await?;
        link.prove().await?;
        link.catch_up().await?;
        Ok(link)
    }

    /// Catches up where there is doubt, and makes sure now and then that there need be none, until the
    /// connection fails.
    async fn serve(&mut self) -> Result<Infallible, Error> {
        let options = self.inner.following.clone();
        let mut next_proof = Instant::now() + options.heartbeat;
        let mut next_catch_up = Instant::now() + options.catch_up;
        loop {
            if Instant::now() >= next_catch_up {
                // It may take long, and no heartbeat watches over what memory would answer meanwhile.
                self.inner.near().doubt();
            }
            if !self.inner.near().is_sure() {
                self.catch_up().await?;
                next_catch_up = Instant::now() + options.catch_up;
                if !self.inner.near().is_sure() {
                    sleep(SHORTEST_PAUSE).await;
                    continue;
                }
            }
            match timeout_at(next_proof.into(), self.signals.recv()).await {
                Ok(Some(Signal::Lost(error))) => return Err(error),
                Ok(None) => return Err(Error::Closed),
                Ok(Some(Signal::Doubt | Signal::Proof(_))) => {}
                Err(_) => {
                    self.heartbeat().await?;
                    next_proof = Instant::now() + options.heartbeat;
                }
            }
        }
    }

    /// Listens, and asks for what has changed since memory last was sure.
    async fn catch_up(&self) -> Result<(), Error> {
        self.listen().await?;
        let beginning = self.inner.near().begin_to_settle(Instant::now());
        let (position, fresh) = self.cursor().await?;
        let since = self.inner.near().cursor(&position.epoch);
        let (mut events, cursor) = match since {
            Some(since) => self.changes(&since, fresh).await?,
            None => (vec![Event::StartedAnew], fresh),
        };
        self.inner
            .near()
            .settle(beginning, position, cursor, &events);
        events.push(Event::CaughtUp);
        events.into_iter().for_each(|event| self.inner.tell(event));
        Ok(())
    }

    /// Listens on the channels of all classes. Again before each catching up: there may be new ones.
    async fn listen(&self) -> Result<(), Error> {
        let channels = "SELECT 'cache_invalidate' UNION SELECT 'state_updated'
            UNION SELECT channel FROM @state_class";
        let mut listen = String::new();
        let channels = self.inner.statements.text(channels);
        for message in self.client.simple_query(&channels).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let channel = row.try_get(0)?.unwrap_or_default().replace('"', "\"\"");
                listen.push_str(&format!("LISTEN \"{channel}\";"));
            }
        }
        Ok(self.client.batch_execute(&listen).await?)
    }

    /// Where the server is.
    async fn cursor(&self) -> Result<(Position, String), Error> {
        let query = "SELECT epoch, seq, cursor FROM @state_cursor()";
        let query = self.inner.statements.text(query);
        let row = self.client.query_typed_one(&query, &[]).await?;
        let (epoch, seq) = (row.try_get(0)?, row.try_get(1)?);
        Ok((Position { epoch, seq }, row.try_get(2)?))
    }

    /// What has changed since a cursor, and the next one. If the server does not remember that far back,
    /// all has changed, and `fresh` is the next one.
    async fn changes(&self, since: &str, fresh: String) -> Result<(Vec<Event>, String), Error> {
        let query = "SELECT class, key, version, op, cursor FROM @state_changes($1)";
        let query = self.inner.statements.text(query);
        let rows = match self
            .client
            .query_typed(&query, &[(&since, Type::TEXT)])
            .await
        {
            Ok(rows) => rows,
            Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                return Ok((vec![Event::StartedAnew], fresh));
            }
            Err(error) => return Err(error.into()),
        };
        let (mut events, mut next) = (Vec::with_capacity(rows.len()), None);
        for row in rows {
            let op: &str = row.try_get(3)?;
            if op == "end" {
                next = Some(row.try_get(4)?);
                continue;
            }
            let (class, key, version) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            events.push(match op {
                // Documents of a class, which are computed.
                "invalidate" => Event::Invalidated {
                    class: Some(class),
                    pattern: key,
                },
                _ => Event::change(op == "delete", class, key, version),
            });
        }
        // The last row is the proof that the answer is whole.
        Ok((events, next.ok_or(Error::Closed)?))
    }

    /// Makes sure that notifications arrive, and that no message went where nobody listens.
    async fn heartbeat(&mut self) -> Result<(), Error> {
        let patience = self.inner.following.patience;
        let asked = Instant::now();
        let (position, _) = timeout(patience, self.cursor())
            .await
            .unwrap_or(Err(Error::NoAnswer))?;
        self.prove().await?;
        self.inner.near().expect(&position, asked);
        Ok(())
    }

    /// Sends a notification from the other connection, while this one is idle: through a proxy that pools
    /// transactions it would otherwise come back with the answer to the statement that sent it.
    async fn prove(&mut self) -> Result<(), Error> {
        self.proofs += 1;
        let number = self.proofs.to_string();
        let notify = format!("NOTIFY {}, '{number}'", self.channel);
        let patience = self.inner.following.patience;
        let sent = async {
            let connection = self.inner.connection().await?;
            Ok(connection.batch_execute(&notify).await?)
        };
        timeout(patience, sent)
            .await
            .unwrap_or(Err(Error::NoAnswer))?;
        let arrival = async {
            loop {
                match self.signals.recv().await {
                    Some(Signal::Proof(arrived)) if arrived == number => return Ok(()),
                    Some(Signal::Lost(error)) => return Err(error),
                    None => return Err(Error::Closed),
                    // Whoever waits for signals looks for doubts before.
                    Some(Signal::Doubt | Signal::Proof(_)) => {}
                }
            }
        };
        timeout(patience, arrival)
            .await
            .unwrap_or(Err(Error::NotDelivered))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Drives the connection. Memory hears of everything right here, whatever the keeper is waiting for.
async fn pump(
    mut messages: Messages,
    inner: Arc<Inner>,
    proofs: String,
    signals: UnboundedSender<Signal>,
) {
    let error = loop {
        let signal = match poll_fn(&mut messages).await {
            Some(Ok(AsyncMessage::Notification(proof))) if proof.channel() == proofs => {
                Signal::Proof(proof.payload().to_owned())
            }
            Some(Ok(AsyncMessage::Notification(message))) => {
                let (events, sure, applied) = {
                    let mut near = inner.near();
                    let events = near.hear(message.payload(), Instant::now());
                    (events, near.is_sure(), near.take_applied())
                };
                if let Some(applied) = applied {
                    tokio::spawn(measure(inner.clone(), applied));
                }
                events.into_iter().for_each(|event| inner.tell(event));
                if sure {
                    continue;
                }
                Signal::Doubt
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => break error.into(),
            None => break Error::Closed,
        };
        // The keeper may be gone, and this task is ended with it.
        let _ = signals.send(signal);
    };
    inner.near().disconnect();
    let _ = signals.send(Signal::Lost(error));
}

/// Records how long a change took to be applied. What fails here costs one sample.
async fn measure(inner: Arc<Inner>, applied: Applied) {
    if let Err(error) = inner.measure(applied).await {
        tracing::debug!(%error, "a change could not be timed");
    }
}

/// A number that nobody else comes up with; no secret.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
