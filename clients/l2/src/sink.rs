//! Redis: a single server or a cluster, and what the feeder asks of it.
//!
//! A connection is never mended here: whoever meets an error attaches anew (see the header of `feeder`), so that no
//! write after an error builds upon one that Redis has lost. Within a cluster `redis` follows MOVED and ASK, and
//! tries again while a slot moves or a replica takes over.

use crate::config::{Config, Scripts};
use crate::error::Error;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, RedisResult, TlsCertificates,
    Value, cmd,
};
use state_cache_l2::{Mode, Prefix, field, script};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Commands that are on their way to a cluster at the same time.
const AT_ONCE: usize = 128;

/// A script, by its text and by the name that Redis has given it.
struct Script {
    text: &'static str,
    sha: redis::Script,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self {
            text,
            sha: redis::Script::new(text),
        }
    }

    fn call(&self, whole: bool, key: &str, arguments: &[&[u8]]) -> Cmd {
        let mut command = match whole {
            true => cmd("EVAL").arg(self.text).to_owned(),
            false => cmd("EVALSHA").arg(self.sha.get_hash()).to_owned(),
        };
        command.arg(1).arg(key);
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }
}

enum Connection {
    Single(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

/// What [`script::WRITE`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Written: nothing was there.
    New,
    /// Written over an older version or a lease.
    Over,
    /// Written over what was not ours.
    OverForeign,
    /// The same is there.
    Same,
    /// Something that is no older is there, with this header.
    Refused(Vec<u8>),
    /// Redis is full: the key was deleted instead, so that nothing old is read.
    Full,
}

/// What became of the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It has moved.
    Yes,
    /// It was not where it was expected.
    Elsewhere,
    /// Redis has no memory for it. It stays, and more is told again the next time.
    Full,
}

/// A write of one state.
pub struct Write {
    /// The key in Redis.
    pub key: String,
    /// The value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// Its TTL.
    pub ttl: Duration,
    /// The header that it replaces, whatever its version.
    pub instead_of: Option<Vec<u8>>,
}

/// What the meta hash holds.
pub type Meta = HashMap<String, String>;

/// A connection to Redis.
pub struct Sink {
    connection: Connection,
    patience: Duration,
    prefix: Prefix,
    alive: Duration,
    /// How states get into Redis.
    pub mode: Mode,
    write: Script,
    replace: Script,
    /// The processes that keep the data, by their run ids.
    pub nodes: String,
}

impl Sink {
    /// Connects, and finds out whether there are scripts.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let patience = config.patience;
        let connection = timely(patience, dial(config)).await?;
        let mut sink = Self {
            connection,
            patience,
            prefix: config.prefix.clone(),
            alive: config.alive,
            mode: Mode::Script,
            write: Script::new(script::WRITE),
            replace: Script::new(script::REPLACE),
            nodes: String::new(),
        };
        sink.mode = match config.scripts {
            Scripts::Never => Mode::Delete,
            wanted => match sink.has_scripts().await {
                Ok(true) => Mode::Script,
                Ok(false) if wanted == Scripts::Auto => Mode::Delete,
                Ok(false) => {
                    return Err(Error::Configuration(
                        "mode is script, and Redis has none".into(),
                    ));
                }
                Err(error) => return Err(error),
            },
        };
        sink.nodes = sink.read_nodes().await?;
        Ok(sink)
    }

    /// Whether EVAL is known and allowed.
    async fn has_scripts(&self) -> Result<bool, Error> {
        let mut probe = cmd("EVAL");
        probe
            .arg("return struct.unpack('>I4', ARGV[1])")
            .arg(1)
            .arg(self.prefix.meta())
            .arg(&b"\0\0\0\x07"[..]);
        match self.ask::<i64>(probe).await {
            Ok(7) => Ok(true),
            Ok(_) => Ok(false),
            Err(Error::Redis(error)) if is_refusal(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The run ids of the servers that keep the data; empty where Redis does not tell.
    async fn read_nodes(&self) -> Result<String, Error> {
        let answer = match self
            .ask::<Value>(cmd("INFO").arg("server").to_owned())
            .await
        {
            Ok(answer) => answer,
            Err(Error::Redis(error)) if is_refusal(&error) => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        let mut texts = Vec::new();
        collect(&answer, &mut texts);
        let ids = texts
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.strip_prefix("run_id:"));
        let ids: BTreeSet<_> = ids.map(|id| id.trim().to_owned()).collect();
        Ok(ids.into_iter().collect::<Vec<_>>().join(","))
    }

    /// An error if Redis is another process than it was.
    pub async fn check_nodes(&self) -> Result<(), Error> {
        match self.read_nodes().await? == self.nodes {
            true => Ok(()),
            false => Err(Error::RedisRestarted),
        }
    }

    /// Whether it is a cluster, whose nodes may lose different writes.
    pub fn is_cluster(&self) -> bool {
        matches!(self.connection, Connection::Cluster(_))
    }

    /// What the meta hash holds; empty where there is none.
    pub async fn meta(&self) -> Result<Meta, Error> {
        self.ask(cmd("HGETALL").arg(self.prefix.meta()).to_owned())
            .await
    }

    /// Generation and cursor.
    pub async fn place(&self) -> Result<(Option<String>, Option<String>), Error> {
        let command = cmd("HMGET")
            .arg(self.prefix.meta())
            .arg(field::GENERATION)
            .arg(field::CURSOR)
            .to_owned();
        self.ask(command).await
    }

    /// Begins a generation, if `old` is the current one (empty: none is). Whether it has.
    pub async fn begin(&self, old: &str, fields: &[(&str, String)]) -> Result<bool, Error> {
        let pairs: Vec<&[u8]> = fields
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()])
            .collect();
        if self.mode == Mode::Delete {
            let mut command = cmd("HSET");
            command.arg(self.prefix.meta());
            for part in pairs {
                command.arg(part);
            }
            return self.ask::<i64>(command).await.map(|_| true);
        }
        let mut arguments = vec![old.as_bytes()];
        arguments.extend(pairs);
        let script = Script::new(script::BEGIN);
        Ok(self
            .ask::<i64>(script.call(true, &self.prefix.meta(), &arguments))
            .await?
            == 1)
    }

    /// Moves the cursor of the generation, if `old` is there.
    pub async fn move_cursor(&self, generation: u64, old: &str, new: &str) -> Result<Moved, Error> {
        let command = match self.mode {
            Mode::Delete => cmd("HSET")
                .arg(self.prefix.meta())
                .arg(field::CURSOR)
                .arg(new)
                .to_owned(),
            Mode::Script => {
                let generation = generation.to_string();
                let arguments = [generation.as_bytes(), old.as_bytes(), new.as_bytes()];
                Script::new(script::MOVE_CURSOR).call(true, &self.prefix.meta(), &arguments)
            }
        };
        match self.ask::<i64>(command).await {
            Ok(0) if self.mode == Mode::Script => Ok(Moved::Elsewhere),
            Ok(_) => Ok(Moved::Yes),
            Err(Error::Redis(error)) if is_full(&error) => Ok(Moved::Full),
            Err(error) => Err(error),
        }
    }

    /// Writes a field of the meta hash, unless another generation is there.
    pub async fn note(&self, generation: u64, name: &str, value: &str) -> Result<(), Error> {
        let command = match self.mode {
            Mode::Delete => cmd("HSET")
                .arg(self.prefix.meta())
                .arg(name)
                .arg(value)
                .to_owned(),
            Mode::Script => {
                let generation = generation.to_string();
                let arguments = [generation.as_bytes(), name.as_bytes(), value.as_bytes()];
                Script::new(script::NOTE).call(true, &self.prefix.meta(), &arguments)
            }
        };
        match self.ask::<i64>(command).await {
            // Not worth an error.
            Err(Error::Redis(error)) if is_full(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Tells readers that a feeder has heard all, as of a moment: they believe that for `alive` from then on. Whether
    /// it is still time. A process that was stopped in between tells nobody that it hears.
    pub async fn renew_alive(&self, proven: Instant) -> Result<bool, Error> {
        let left = self.alive.saturating_sub(proven.elapsed());
        let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if milliseconds == 0 {
            return Ok(false);
        }
        // A full Redis still does this.
        let command = cmd("PEXPIRE")
            .arg(self.prefix.alive())
            .arg(milliseconds)
            .to_owned();
        if self.ask::<i64>(command).await? == 1 {
            return Ok(true);
        }
        let command = cmd("SET")
            .arg(self.prefix.alive())
            .arg(1)
            .arg("PX")
            .arg(milliseconds)
            .to_owned();
        match self.ask::<Value>(command).await {
            Err(Error::Redis(error)) if is_full(&error) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Tells readers that nobody hears.
    pub async fn end_alive(&self) -> Result<(), Error> {
        self.ask::<i64>(cmd("DEL").arg(self.prefix.alive()).to_owned())
            .await
            .map(drop)
    }

    /// Writes states; what became of each, in their order.
    pub async fn write(&self, writes: &[Write]) -> Result<Vec<Written>, Error> {
        let command = |write: &Write, whole: bool| {
            let ttl = u64::try_from(write.ttl.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
                .to_string();
            let value = write.value.as_deref().unwrap_or_default();
            match &write.instead_of {
                _ if self.mode == Mode::Delete
                    || write.value.is_none() && write.instead_of.is_none() =>
                {
                    cmd("DEL").arg(&write.key).to_owned()
                }
                None => self.write.call(whole, &write.key, &[value, ttl.as_bytes()]),
                Some(header) => {
                    let follows = state_cache_l2::Header::read(header)
                        .map_or(0, |header| header.follows as usize);
                    let length = (header.len() + follows).to_string();
                    self.replace.call(
                        whole,
                        &write.key,
                        &[header, length.as_bytes(), value, ttl.as_bytes()],
                    )
                }
            }
        };
        let mut answers = self
            .ask_all(writes.iter().map(|write| command(write, false)).collect())
            .await?;
        // Whose script is not known there, or no longer.
        let again = indices(&answers, |error| error.code() == Some("NOSCRIPT"));
        let commands = again.iter().map(|n| command(&writes[*n], true)).collect();
        for (n, answer) in again.into_iter().zip(self.ask_all(commands).await?) {
            answers[n] = answer;
        }
        // What is not there is never old, and takes no memory.
        let full = indices(&answers, is_full);
        let commands = full
            .iter()
            .map(|n| cmd("DEL").arg(&writes[*n].key).to_owned())
            .collect();
        for answer in self.ask_all(commands).await? {
            answer?;
        }
        let mut written = Vec::with_capacity(writes.len());
        for (n, answer) in answers.into_iter().enumerate() {
            written.push(match answer {
                Err(_) if full.contains(&n) => Written::Full,
                Err(error) => return Err(error.into()),
                Ok(answer) => read_answer(answer)?,
            });
        }
        Ok(written)
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: Cmd) -> Result<T, Error> {
        let answer = async {
            match &self.connection {
                Connection::Single(connection) => {
                    command.query_async(&mut connection.clone()).await
                }
                Connection::Cluster(connection) => {
                    command.query_async(&mut *connection.clone()).await
                }
            }
        };
        timely(self.patience, answer).await
    }

    /// The answers to many commands. An error of the connection is one of the whole.
    async fn ask_all(&self, commands: Vec<Cmd>) -> Result<Vec<RedisResult<Value>>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        match &self.connection {
            Connection::Single(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.ignore_errors();
                timely(self.patience, pipeline.query_async(&mut connection.clone())).await
            }
            Connection::Cluster(connection) => {
                let one = |command: Cmd| {
                    let mut connection = connection.as_ref().clone();
                    async move { command.query_async(&mut connection).await }
                };
                let all = futures_util::stream::iter(commands)
                    .map(one)
                    .buffered(AT_ONCE)
                    .collect::<Vec<_>>();
                timely(self.patience, async { Ok(all.await) }).await
            }
        }
    }
}

async fn timely<T>(
    patience: Duration,
    answer: impl Future<Output = RedisResult<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::NoAnswer("redis", patience)),
    }
}

async fn dial(config: &Config) -> RedisResult<Connection> {
    let protocol = match config.resp3 {
        true => redis::ProtocolVersion::RESP3,
        false => redis::ProtocolVersion::RESP2,
    };
    let certificates = match &config.redis_ca {
        None => None,
        Some(path) => Some(TlsCertificates {
            client_tls: None,
            root_cert: Some(std::fs::read(path)?),
        }),
    };
    if config.cluster {
        let mut builder = ClusterClient::builder(config.redis.iter().map(String::as_str))
            .use_protocol(protocol)
            .connection_timeout(config.patience)
            .response_timeout(config.patience)
            .retries(4);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        let connection = builder.build()?.get_async_connection().await?;
        return Ok(Connection::Cluster(Box::new(connection)));
    }
    // The configuration has one.
    let url = config.redis.first().map_or("", String::as_str);
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(protocol);
    let info = info.set_redis_settings(settings);
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    };
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.patience))
        .set_response_timeout(Some(config.patience));
    Ok(Connection::Single(
        client
            .get_multiplexed_async_connection_with_config(&options)
            .await?,
    ))
}

/// Whether Redis does not know a command, or does not allow it.
fn is_refusal(error: &redis::RedisError) -> bool {
    error.code() == Some("NOPERM")
        || error
            .detail()
            .or(error.code())
            .is_some_and(|said| said.to_ascii_lowercase().contains("unknown command"))
        || error
            .to_string()
            .to_ascii_lowercase()
            .contains("unknown command")
}

/// Whether Redis has no memory for it.
fn is_full(error: &redis::RedisError) -> bool {
    error.code() == Some("OOM") || error.to_string().contains("OOM command not allowed")
}

fn indices(
    answers: &[RedisResult<Value>],
    wanted: impl Fn(&redis::RedisError) -> bool,
) -> Vec<usize> {
    let is_wanted = |answer: &RedisResult<Value>| answer.as_ref().is_err_and(&wanted);
    answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| is_wanted(answer))
        .map(|(n, _)| n)
        .collect()
}

fn read_answer(answer: Value) -> Result<Written, Error> {
    match answer {
        Value::Array(parts) => match (parts.first(), parts.get(1)) {
            (Some(Value::Int(1)), _) => Ok(Written::New),
            (Some(Value::Int(2)), _) => Ok(Written::Over),
            (Some(Value::Int(3)), _) => Ok(Written::OverForeign),
            (Some(Value::Int(0)), _) => Ok(Written::Same),
            (Some(Value::Int(-2..=-1)), Some(Value::BulkString(header))) => {
                Ok(Written::Refused(header.clone()))
            }
            _ => Err(Error::Nonsense(format!("{parts:?}"))),
        },
        // Of DEL, and of the script that replaces.
        Value::Int(0) => Ok(Written::Same),
        Value::Int(_) => Ok(Written::Over),
        other => Err(Error::Nonsense(format!("{other:?}"))),
    }
}

/// All texts in an answer: a cluster answers with a map of nodes.
fn collect(answer: &Value, texts: &mut Vec<String>) {
    match answer {
        Value::BulkString(bytes) => texts.push(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => texts.push(text.clone()),
        Value::Array(parts) | Value::Set(parts) => {
            parts.iter().for_each(|part| collect(part, texts))
        }
        Value::Map(pairs) => pairs.iter().for_each(|(_, value)| collect(value, texts)),
        _ => {}
    }
}
