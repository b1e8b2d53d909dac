//! PostgreSQL: one connection that listens, one that asks.
//!
//! # Contract of the proof
//!
//! LISTEN can fail in silence: a proxy that pools transactions accepts it on a connection that then belongs to
//! others, and a proxy may lose notifications at any later moment. So a notification is sent over the other
//! connection, at the start and with every heartbeat, and must arrive within `patience`. All messages before it have
//! arrived then. If it does not arrive, nothing that was heard is believed any more: the feeder attaches anew, and
//! until a proof has arrived it writes nothing and tells no reader that all was heard. Nothing is lost meanwhile,
//! since the cursor stays where it is.
//!
//! Until the first proof has arrived both connections may lead to sessions that a proxy hands to others. So nothing
//! is set on them before (a session of others with `synchronous_commit = off` would lose commits in a crash), and the
//! channel of the proofs is left again where no proof arrives, as far as the proxy leads to the same session.

use crate::config::Config;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::message::{Name, Position};
use futures_util::{StreamExt, TryStreamExt, pin_mut, stream};
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use state_cache_l2::{Codec, Compression, Owner, time_left};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A class in L2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// How long Redis holds its states.
    pub ttl: Duration,
    /// How its documents are packed.
    pub compression: Compression,
}

/// The classes in L2, by name.
pub type Classes = BTreeMap<String, Class>;

/// A state as PostgreSQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Version, document, and for how long it lives if it ends.
    Present(i64, String, Option<Duration>),
    /// Deleted or expired, by the version if there is a row that says so.
    Absent(Option<i64>),
    /// PostgreSQL cannot give it as text.
    Unreadable,
}

/// What `state_changes` says.
pub enum Changes {
    /// These states, and the next cursor.
    Known(Vec<(Name, Option<i64>)>, String),
    /// Nobody can say, or there are more than were asked for.
    Unknown(String),
}

/// Both connections. Dropped, it ends them.
pub struct Link {
    listener: Client,
    asker: Client,
    tasks: [JoinHandle<()>; 2],
    inbox: Arc<Inbox>,
    channel: String,
    proofs: u64,
    patience: Duration,
    /// When the last proof that has arrived was asked for.
    pub proven: Instant,
    /// Before the name of each function and table.
    schema: String,
    /// Reads states; prepared once the schema is known.
    read: Option<Statement>,
    /// The database.
    pub owner: Owner,
}

impl Link {
    /// Connects, and proves that notifications arrive. Nothing is listened to yet but proofs.
    pub async fn open(config: &Config, inbox: &Arc<Inbox>) -> Result<Self, Error> {
        // A number that nobody else comes up with; no secret.
        let channel = format!(
            "state_cache_l2_{:016x}",
            RandomState::new().build_hasher().finish()
        );
        let (listener, first) = dial(config, Some((inbox.clone(), channel.clone()))).await?;
        let (asker, second) = dial(config, None).await.inspect_err(|_| first.abort())?;
        let mut link = Self {
            listener,
            asker,
            tasks: [first, second],
            inbox: inbox.clone(),
            channel,
            proofs: 0,
            patience: config.patience,
            proven: Instant::now(),
            schema: String::new(),
            read: None,
            owner: Owner {
                system: 0,
                database: 0,
                schema: String::new(),
            },
        };
        link.settle_in(config).await?;
        Ok(link)
    }

    async fn settle_in(&mut self, config: &Config) -> Result<(), Error> {
        let query = "SELECT pg_catalog.pg_is_in_recovery(), (pg_catalog.pg_control_system()).system_identifier,
                (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
                (SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
                    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'state_cache')";
        let row = self.timely(self.asker.query_typed(query, &[])).await?;
        let row = row.first().ok_or(Error::Closed)?;
        if row.try_get(0)? {
            return Err(Error::Standby);
        }
        let system: i64 = row.try_get(1)?;
        let schema: Option<String> = row.try_get(3)?;
        let schema = schema
            .ok_or_else(|| Error::Configuration("the database lacks the extension".into()))?;
        self.owner = Owner {
            system: system.cast_unsigned(),
            database: row.try_get(2)?,
            schema: schema.clone(),
        };
        self.schema = format!("{}.", config.schema.clone().unwrap_or(schema));
        let listen = format!("LISTEN {}", self.channel);
        self.timely(self.listener.batch_execute(&listen)).await?;
        if let Err(error) = self.prove().await {
            let leave = format!("UNLISTEN {}", self.channel);
            // The error is what is told; the connection may be gone.
            let _ = self.timely(self.listener.batch_execute(&leave)).await;
            return Err(error);
        }
        // Statements of the feeder must not end by a limit for others. What it commits are notifications, which no
        // crash leaves behind anyway: they wait for no disk.
        let prepare = "SET statement_timeout = 0; SET idle_session_timeout = 0; SET row_security = off; \
            SET synchronous_commit = off";
        self.timely(self.asker.batch_execute(prepare)).await?;
        // OFFSET keeps the function from being asked once for each key.
        let query = format!(
            "SELECT g.version, g.state::pg_catalog.text, h.version,
                (1000 * pg_catalog.date_part('epoch', h.expires_at - pg_catalog.clock_timestamp()))::pg_catalog.float8
            FROM pg_catalog.unnest($1) WITH ORDINALITY k (key, n)
            LEFT JOIN (SELECT * FROM {0}state_get_many($1, $2) OFFSET 0) g ON g.key = k.key
            LEFT JOIN {0}state_head h ON h.class = $2 AND h.key = k.key
            ORDER BY k.n",
            self.schema
        );
        let types = [Type::TEXT_ARRAY, Type::TEXT];
        let read = self.timely(self.asker.prepare_typed(&query, &types));
        self.read = Some(read.await?);
        let prepare = "SET idle_session_timeout = 0";
        self.timely(self.listener.batch_execute(prepare)).await
    }

    async fn timely<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        match timeout(self.patience, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::NoAnswer("postgres", self.patience)),
        }
    }

    /// Listens on the channels of all classes. Again before each catching up: there may be new ones.
    pub async fn listen(&self) -> Result<(), Error> {
        let query = format!(
            "SELECT pg_catalog.quote_ident(c) FROM (SELECT 'cache_invalidate' UNION SELECT 'state_updated'
                UNION SELECT channel FROM {}state_class) channels (c)",
            self.schema
        );
        let mut listen = String::new();
        for row in self.timely(self.asker.query_typed(&query, &[])).await? {
            listen.push_str(&format!("LISTEN {};", row.try_get::<_, String>(0)?));
        }
        self.timely(self.listener.batch_execute(&listen)).await
    }

    /// Makes sure that notifications arrive.
    pub async fn prove(&mut self) -> Result<(), Error> {
        self.proofs += 1;
        let asked = Instant::now();
        let notify = format!("NOTIFY {}, '{}'", self.channel, self.proofs);
        self.timely(self.asker.batch_execute(&notify)).await?;
        let arrival = async {
            while self.inbox.proof() < self.proofs {
                if self.inbox.ended().is_some() {
                    return Err(Error::Closed);
                }
                // The feeder takes what is in the inbox whether somebody waits for it or not.
                let _ = timeout(Duration::from_millis(20), self.inbox.wait()).await;
            }
            Ok(())
        };
        timeout(self.patience, arrival)
            .await
            .unwrap_or(Err(Error::NotDelivered))?;
        self.proven = asked;
        Ok(())
    }

    /// The classes in L2.
    pub async fn classes(&self) -> Result<Classes, Error> {
        let query = format!(
            "SELECT class, pg_catalog.date_part('epoch', ttl), codec, above FROM {}state_l2_classes
                WHERE refused IS NULL",
            self.schema
        );
        let mut classes = Classes::new();
        for row in self.timely(self.asker.query_typed(&query, &[])).await? {
            let (ttl, codec, above): (f64, &str, i32) =
                (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            let class = Class {
                ttl: Duration::from_secs_f64(ttl.clamp(1.0, 1e10)),
                compression: Compression {
                    // A codec of a later release: plain is always right.
                    codec: codec.parse().unwrap_or(Codec::Plain),
                    above: usize::try_from(above).unwrap_or(0),
                },
            };
            classes.insert(row.try_get(0)?, class);
        }
        Ok(classes)
    }

    /// Where the server is: the position of its last message, and a cursor that covers all up to there.
    pub async fn position(&self) -> Result<(Option<Position>, String), Error> {
        let query = format!(
            "SELECT epoch, seq, cursor FROM {}state_cursor()",
            self.schema
        );
        let rows = self.timely(self.asker.query_typed(&query, &[])).await?;
        let row = rows.first().ok_or(Error::Closed)?;
        let position = match (row.try_get(0)?, row.try_get(1)?) {
            (Some(epoch), Some(seq)) => Some(Position { epoch, seq }),
            _ => None,
        };
        Ok((position, row.try_get(2)?))
    }

    /// What has changed since a cursor in these classes, unless it is more than `most` states. Reading all heads may
    /// take longer than any other statement: the connection that listens is proven meanwhile by nobody, and the
    /// answer is waited for as long as rows come.
    pub async fn changes(
        &self,
        since: &str,
        classes: &Classes,
        most: usize,
    ) -> Result<Changes, Error> {
        let query = format!(
            "SELECT class, key, version, op, cursor FROM {}state_changes($1) WHERE op = 'end' OR class = ANY ($2)",
            self.schema
        );
        let names: Vec<&str> = classes.keys().map(String::as_str).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&since, Type::TEXT), (&names, Type::TEXT_ARRAY)];
        let patience = self.patience * 60;
        let answer = async {
            let rows = self.asker.query_typed_raw(&query, parameters).await?;
            pin_mut!(rows);
            let mut changes = Vec::new();
            while let Some(row) = rows.try_next().await? {
                if row.try_get::<_, &str>(3)? == "end" {
                    return Ok(Changes::Known(changes, row.try_get(4)?));
                }
                if changes.len() == most {
                    return Ok(Changes::Unknown(format!("more than {most} states changed")));
                }
                let deleted = row.try_get::<_, &str>(3)? == "delete";
                let version: Option<i64> = row.try_get(2)?;
                changes.push((
                    Name {
                        class: row.try_get(0)?,
                        key: row.try_get(1)?,
                    },
                    version.filter(|_| deleted),
                ));
            }
            // The last row is the proof that the answer is whole.
            Err(Error::Closed)
        };
        match timeout(patience, answer).await {
            Err(_) => Err(Error::NoAnswer("postgres", patience)),
            Ok(Err(Error::Postgres(error)))
                if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) =>
            {
                let said = error.as_db_error();
                let detail = said
                    .and_then(|said| said.detail())
                    .unwrap_or("the cursor is refused");
                Ok(Changes::Unknown(detail.to_owned()))
            }
            Ok(answer) => answer,
        }
    }

    /// The states as they are now, in the order of the keys.
    pub async fn states(&self, class: &str, keys: &[&str]) -> Result<Vec<State>, Error> {
        match self.read_states(class, keys).await {
            // A document that jsonb cannot give as text; an error of the state, not of the connection.
            Err(Error::Postgres(error)) if error.code().is_some_and(is_of_state) => {
                if keys.len() == 1 {
                    return Ok(vec![State::Unreadable]);
                }
                let mut states = Vec::with_capacity(keys.len());
                for key in keys {
                    match self.read_states(class, &[*key]).await {
                        Err(Error::Postgres(error)) if error.code().is_some_and(is_of_state) => {
                            states.push(State::Unreadable);
                        }
                        other => states.extend(other?),
                    }
                }
                Ok(states)
            }
            other => other,
        }
    }

    async fn read_states(&self, class: &str, keys: &[&str]) -> Result<Vec<State>, Error> {
        let read = self.read.as_ref().ok_or(Error::Closed)?;
        let rows = self
            .timely(self.asker.query(read, &[&keys, &class]))
            .await?;
        let state = |row: tokio_postgres::Row| -> Result<State, Error> {
            let Some(version) = row.try_get(0)? else {
                return Ok(State::Absent(row.try_get(2)?));
            };
            let left = time_left(version, row.try_get(2)?, row.try_get(3)?);
            Ok(State::Present(version, row.try_get(1)?, left))
        };
        rows.into_iter().map(state).collect()
    }

    /// The next keys of a class after this one, in order.
    pub async fn keys(&self, class: &str, after: &str, most: usize) -> Result<Vec<String>, Error> {
        let query = format!(
            "SELECT key FROM {}state_head WHERE class = $1 AND key > $2 AND NOT deleted ORDER BY key LIMIT $3",
            self.schema
        );
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&class, Type::TEXT),
            (&after, Type::TEXT),
            (&most, Type::INT8),
        ];
        let rows = self
            .timely(self.asker.query_typed(&query, &parameters))
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Whether an error is about what is stored, and comes again with the next try.
fn is_of_state(code: &SqlState) -> bool {
    let code = code.code();
    // Data exceptions, corrupted data, a state that takes more memory than there is.
    code.starts_with("22")
        || code.starts_with("XX")
        || code.starts_with("53200")
        || code.starts_with("54")
}

/// Connects, and drives the connection from a task of its own.
async fn dial(
    config: &Config,
    hears: Option<(Arc<Inbox>, String)>,
) -> Result<(Client, JoinHandle<()>), Error> {
    let patience = config.patience;
    let connected = async {
        match config.postgres.get_ssl_mode() {
            SslMode::Require => {
                let (client, connection) = config.postgres.connect(tls(config)?).await?;
                Ok((client, tokio::spawn(drive(connection, hears))))
            }
            _ => {
                let (client, connection) = config.postgres.connect(NoTls).await?;
                Ok((client, tokio::spawn(drive(connection, hears))))
            }
        }
    };
    timeout(patience, connected)
        .await
        .unwrap_or(Err(Error::NoAnswer("postgres", patience)))
}

async fn drive<S, T>(mut connection: Connection<S, T>, hears: Option<(Arc<Inbox>, String)>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some((inbox, proofs)) = hears else {
        // Whoever asks gets the error.
        let _ = connection.await;
        return;
    };
    let messages = stream::poll_fn(move |context| connection.poll_message(context));
    pin_mut!(messages);
    let why = loop {
        match messages.next().await {
            Some(Ok(AsyncMessage::Notification(said))) if said.channel() == proofs => {
                inbox.proven(said.payload().parse().unwrap_or(0));
            }
            Some(Ok(AsyncMessage::Notification(said))) => inbox.hear(said.payload()),
            Some(Ok(_)) => {}
            Some(Err(error)) => break error.to_string(),
            None => break "closed".to_owned(),
        }
    };
    inbox.end(why);
}

/// TLS that checks the server's certificate and name.
fn tls(config: &Config) -> Result<MakeRustlsConnect, Error> {
    let mut roots = RootCertStore::empty();
    match &config.postgres_ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let wrong = |error: &dyn core::fmt::Display| {
                Error::Configuration(format!("{}: {error}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
