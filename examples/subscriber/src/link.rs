//! The connection that listens: made, proven, watched, and made again.

use crate::message::{Event, Position};
use crate::{Error, Shared};
use std::convert::Infallible;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Connection, SimpleQueryMessage, Socket};

/// The pause before the first attempt to connect again; it doubles with each that fails.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the connection has to say to its keeper.
enum Signal {
    /// The notification with this number has arrived.
    Proof(String),
    /// Memory has come to doubt.
    Doubt,
    /// The connection has ended.
    Lost(Error),
}

/// A connection that listens, and hands what it hears to memory.
pub struct Link {
    shared: Arc<Shared>,
    client: Client,
    signals: UnboundedReceiver<Signal>,
    pump: JoinHandle<()>,
    /// The channel of its proofs, and how many there were.
    channel: String,
    proofs: u64,
}

/// Keeps memory right for ever, through one link after the other.
pub async fn keep(mut link: Link, shared: Arc<Shared>) {
    loop {
        let Err(error) = link.serve().await;
        shared.memory().disconnect();
        shared.tell(Event::Lost(error.to_string()));
        let mut pause = SHORTEST_PAUSE;
        link = loop {
            // Half of it by chance, so that not all subscribers of a server come back at the same moment.
            sleep(pause.mul_f64(0.5 + random() as f64 / u64::MAX as f64 / 2.0)).await;
            match Link::open(&shared).await {
                Ok(link) => break link,
                Err(error) => shared.tell(Event::Lost(error.to_string())),
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        };
    }
}

impl Link {
    /// Connects, proves that notifications arrive, and catches up.
    pub async fn open(shared: &Arc<Shared>) -> Result<Self, Error> {
        let (client, connection) = shared.dial().await?;
        // The reader may still lead to a server that is no longer the one to ask.
        shared.reader.lock().await.take();
        let channel = format!("state_cache_subscriber_{:016x}", random());
        let (sender, signals) = unbounded_channel();
        let mut link = Self {
            pump: tokio::spawn(pump(connection, shared.clone(), channel.clone(), sender)),
            shared: shared.clone(),
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
        let options = self.shared.options.clone();
        let mut next_proof = Instant::now() + options.heartbeat;
        let mut next_catch_up = Instant::now() + options.catch_up;
        loop {
            if Instant::now() >= next_catch_up {
                // It may take long, and no heartbeat watches over what memory would answer meanwhile.
                self.shared.memory().doubt();
            }
            if !self.shared.memory().is_sure() {
                self.catch_up().await?;
                next_catch_up = Instant::now() + options.catch_up;
                if !self.shared.memory().is_sure() {
                    sleep(SHORTEST_PAUSE).await;
                    continue;
                }
            }
            match timeout_at(next_proof, self.signals.recv()).await {
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
        let beginning = self.shared.memory().begin_to_settle();
        let (position, fresh) = self.cursor().await?;
        let since = self.shared.memory().cursor(&position.epoch);
        let (mut events, cursor) = match since {
            Some(since) => self.changes(&since, fresh).await?,
            None => (vec![Event::StartedAnew], fresh),
        };
        self.shared
            .memory()
            .settle(beginning, position, cursor, &events);
        events.push(Event::CaughtUp);
        events.into_iter().for_each(|event| self.shared.tell(event));
        Ok(())
    }

    /// Listens on the channels of all classes. Again before each catching up: there may be new ones.
    async fn listen(&self) -> Result<(), Error> {
        let channels = "SELECT 'cache_invalidate' UNION SELECT 'state_updated' UNION SELECT channel FROM state_class";
        let mut listen = String::new();
        for message in self.client.simple_query(channels).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let channel = row.try_get(0)?.unwrap_or_default().replace('"', "\"\"");
                listen.push_str(&format!("LISTEN \"{channel}\";"));
            }
        }
        Ok(self.client.batch_execute(&listen).await?)
    }

    /// Where the server is.
    async fn cursor(&self) -> Result<(Position, String), Error> {
        let query = "SELECT epoch, seq, cursor FROM state_cursor()";
        let row = self.client.query_typed_one(query, &[]).await?;
        let (epoch, seq) = (row.try_get(0)?, row.try_get(1)?);
        Ok((Position { epoch, seq }, row.try_get(2)?))
    }

    /// What has changed since a cursor, and the next one. If the server does not remember that far back,
    /// all has changed, and `fresh` is the next one.
    async fn changes(&self, since: &str, fresh: String) -> Result<(Vec<Event>, String), Error> {
        let query = "SELECT class, key, version, op, cursor FROM state_changes($1)";
        let rows = match self
            .client
            .query_typed(query, &[(&since, Type::TEXT)])
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
        let patience = self.shared.options.patience;
        let (position, _) = timeout(patience, self.cursor())
            .await
            .unwrap_or(Err(Error::NoAnswer))?;
        self.prove().await?;
        self.shared.memory().expect(&position);
        Ok(())
    }

    /// Sends a notification from the other connection, while this one is idle: through a proxy that pools
    /// transactions it would otherwise come back with the answer to the statement that sent it.
    async fn prove(&mut self) -> Result<(), Error> {
        self.proofs += 1;
        let number = self.proofs.to_string();
        let notify = format!("NOTIFY {}, '{number}'", self.channel);
        let patience = self.shared.options.patience;
        let sent = async {
            let reader = self.shared.reader().await?;
            Ok(reader.batch_execute(&notify).await?)
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
    mut connection: Connection<Socket, NoTlsStream>,
    shared: Arc<Shared>,
    proofs: String,
    signals: UnboundedSender<Signal>,
) {
    let error = loop {
        let signal = match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(proof))) if proof.channel() == proofs => {
                Signal::Proof(proof.payload().to_owned())
            }
            Some(Ok(AsyncMessage::Notification(message))) => {
                let (events, sure) = {
                    let mut memory = shared.memory();
                    (memory.hear(message.payload()), memory.is_sure())
                };
                events.into_iter().for_each(|event| shared.tell(event));
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
    shared.memory().disconnect();
    let _ = signals.send(Signal::Lost(error));
}

/// A number that nobody else comes up with; no secret.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
