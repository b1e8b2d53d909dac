//! Configuration: a file, over which the environment goes, over which arguments go.

use crate::error::Error;
use clap::Parser;
use serde::Deserialize;
use state_cache_l2::Prefix;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Keeps Redis right for state_cache: follows what was committed, and writes the states of the classes that have an
/// l2_ttl. May be killed at any moment, and run twice.
#[derive(Debug, Clone, Default, Parser, Deserialize)]
#[command(name = "state-cache-l2", version)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The configuration file (TOML), with the names of these options, and underscores in them.
    #[arg(long, env = "STATE_CACHE_L2_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The database: a connection string or URL.
    #[arg(long, env = "STATE_CACHE_L2_POSTGRES", hide_env_values = true)]
    pub postgres: Option<String>,
    /// A file with the certificates that sign PostgreSQL's, in PEM; for sslmode=require.
    #[arg(long, env = "STATE_CACHE_L2_POSTGRES_CA")]
    pub postgres_ca: Option<PathBuf>,
    /// The schema of the extension.
    #[arg(long, env = "STATE_CACHE_L2_SCHEMA")]
    pub schema: Option<String>,
    /// Redis: a URL, or several of a cluster, with commas. rediss:// for TLS.
    #[arg(
        long,
        env = "STATE_CACHE_L2_REDIS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    #[serde(default)]
    pub redis: Option<Vec<String>>,
    /// A file with the certificates that sign Redis's, in PEM.
    #[arg(long, env = "STATE_CACHE_L2_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,
    /// Whether Redis is a cluster.
    #[arg(long, env = "STATE_CACHE_L2_CLUSTER")]
    pub cluster: Option<bool>,
    /// The version of the protocol of Redis: 3, or 2 for servers before 6.
    #[arg(long, env = "STATE_CACHE_L2_RESP")]
    pub resp: Option<u8>,
    /// What the names of all keys begin with.
    #[arg(long, env = "STATE_CACHE_L2_PREFIX")]
    pub prefix: Option<String>,
    /// Where /metrics and /healthz are, as address and port.
    #[arg(long, env = "STATE_CACHE_L2_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// How often the feeder makes sure that messages arrive, and tells readers that it does, in milliseconds.
    #[arg(long, env = "STATE_CACHE_L2_HEARTBEAT_MS")]
    pub heartbeat_ms: Option<u64>,
    /// For how long readers believe that, in milliseconds.
    #[arg(long, env = "STATE_CACHE_L2_ALIVE_MS")]
    pub alive_ms: Option<u64>,
    /// Changes that wait for longer than this, in milliseconds, and readers leave Redis alone.
    #[arg(long, env = "STATE_CACHE_L2_MAX_LAG_MS")]
    pub max_lag_ms: Option<u64>,
    /// How long an answer of either server may take, in milliseconds.
    #[arg(long, env = "STATE_CACHE_L2_PATIENCE_MS")]
    pub patience_ms: Option<u64>,
    /// How often the cursor moves although nothing seems to be missing, in milliseconds.
    #[arg(long, env = "STATE_CACHE_L2_CATCH_UP_MS")]
    pub catch_up_ms: Option<u64>,
    /// How long a deleted state is remembered in Redis, in milliseconds.
    #[arg(long, env = "STATE_CACHE_L2_TOMBSTONE_MS")]
    pub tombstone_ms: Option<u64>,
    /// How many states are read and written at a time.
    #[arg(long, env = "STATE_CACHE_L2_BATCH")]
    pub batch: Option<usize>,
    /// How many changed states the feeder remembers. More, and it asks for the changes, or begins a new generation.
    #[arg(long, env = "STATE_CACHE_L2_MAX_PENDING")]
    pub max_pending: Option<usize>,
    /// Whether a new generation is filled with all states, or only with what changes and what is read.
    #[arg(long, env = "STATE_CACHE_L2_FILL")]
    pub fill: Option<bool>,
    /// Whether Redis has scripts: auto, script or delete.
    #[arg(long, env = "STATE_CACHE_L2_MODE")]
    pub mode: Option<String>,
    /// What is logged: error, warn, info, debug.
    #[arg(long, env = "STATE_CACHE_L2_LOG")]
    pub log: Option<String>,
    /// How it is logged: json or text.
    #[arg(long, env = "STATE_CACHE_L2_LOG_FORMAT")]
    pub log_format: Option<String>,
}

/// Takes each field from the first of the two that has it.
macro_rules! or {
    ($over:ident, $under:ident: $($field:ident),*) => {
        Options { config: $over.config, $($field: $over.$field.or($under.$field)),* }
    };
}

impl Options {
    /// What arguments and environment say, over what the file says.
    pub fn with_file(self) -> Result<Self, Error> {
        let under = match &self.config {
            None => Self::default(),
            Some(path) => toml::from_str(&read(path)?)
                .map_err(|error| Error::Configuration(format!("{}: {error}", path.display())))?,
        };
        Ok(
            or!(self, under: postgres, postgres_ca, schema, redis, redis_ca, cluster, resp, prefix, listen,
            heartbeat_ms, alive_ms, max_lag_ms, patience_ms, catch_up_ms, tombstone_ms, batch, max_pending, fill,
            mode, log, log_format),
        )
    }
}

/// A text file, named where it cannot be read.
pub fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::Configuration(format!("{}: {error}", path.display())))
}

/// Whether Redis is spoken to by scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scripts {
    /// If it has them.
    Auto,
    /// An error if it has none.
    Always,
    /// Delete-only mode.
    Never,
}

/// The configuration, checked, with defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database.
    pub postgres: tokio_postgres::Config,
    /// Certificates that sign that of PostgreSQL.
    pub postgres_ca: Option<PathBuf>,
    /// The schema of the extension, quoted.
    pub schema: Option<String>,
    /// URLs of Redis.
    pub redis: Vec<String>,
    /// Certificates that sign that of Redis.
    pub redis_ca: Option<PathBuf>,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// RESP3, or RESP2.
    pub resp3: bool,
    /// What keys begin with.
    pub prefix: Prefix,
    /// Where /metrics and /healthz are.
    pub listen: Option<SocketAddr>,
    /// How often the link is proven.
    pub heartbeat: Duration,
    /// The TTL of the key that says so.
    pub alive: Duration,
    /// How old a change may be that is not written.
    pub max_lag: Duration,
    /// How long an answer may take.
    pub patience: Duration,
    /// How often the cursor moves.
    pub catch_up: Duration,
    /// The TTL of tombstones.
    pub tombstone: Duration,
    /// States per statement.
    pub batch: usize,
    /// Changed states that are remembered.
    pub max_pending: usize,
    /// Whether generations are filled.
    pub fill: bool,
    /// Whether scripts are used.
    pub scripts: Scripts,
}

impl Config {
    /// Checks the options.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let wrong = |what: String| Error::Configuration(what);
        let postgres = options
            .postgres
            .as_deref()
            .ok_or_else(|| wrong("postgres is not set".into()))?;
        let mut postgres: tokio_postgres::Config = postgres
            .parse()
            .map_err(|error| wrong(format!("postgres: {error}")))?;
        postgres.application_name("state-cache-l2");
        let redis = options.redis.clone().unwrap_or_default();
        if redis.is_empty() {
            return Err(wrong("redis is not set".into()));
        }
        let cluster = options.cluster.unwrap_or(redis.len() > 1);
        if redis.len() > 1 && !cluster {
            return Err(wrong("several URLs of Redis are those of a cluster".into()));
        }
        let prefix = options.prefix.as_deref().unwrap_or("state_cache:");
        let milliseconds = |name: &str, given: Option<u64>, default: u64, least: u64| match given
            .unwrap_or(default)
        {
            given if given < least => {
                Err(wrong(format!("{name} must be at least {least}: {given}")))
            }
            given => Ok(Duration::from_millis(given)),
        };
        let number =
            |name: &str, given: Option<usize>, default: usize| match given.unwrap_or(default) {
                0 => Err(wrong(format!("{name} must be at least 1"))),
                given => Ok(given),
            };
        let patience = milliseconds("patience_ms", options.patience_ms, 5000, 100)?;
        // Longer than any write may be on its way: see the header of `feeder`.
        let tombstone = milliseconds("tombstone_ms", options.tombstone_ms, 300_000, 60_000)?;
        if patience > tombstone / 2 {
            return Err(wrong(
                "patience_ms must be at most half of tombstone_ms".into(),
            ));
        }
        let heartbeat = milliseconds("heartbeat_ms", options.heartbeat_ms, 2000, 50)?;
        let alive = milliseconds("alive_ms", options.alive_ms, 10_000, 100)?;
        if alive < heartbeat * 2 {
            return Err(wrong("alive_ms must be at least twice heartbeat_ms".into()));
        }
        Ok(Self {
            postgres,
            postgres_ca: options.postgres_ca.clone(),
            schema: options
                .schema
                .as_ref()
                .map(|schema| format!("\"{}\"", schema.replace('"', "\"\""))),
            redis,
            redis_ca: options.redis_ca.clone(),
            cluster,
            resp3: match options.resp {
                None | Some(3) => true,
                Some(2) => false,
                Some(other) => return Err(wrong(format!("resp is 2 or 3: {other}"))),
            },
            prefix: Prefix::new(prefix).map_err(|error| wrong(error.to_string()))?,
            listen: options.listen,
            heartbeat,
            alive,
            max_lag: milliseconds("max_lag_ms", options.max_lag_ms, 5000, 1)?,
            patience,
            catch_up: milliseconds("catch_up_ms", options.catch_up_ms, 60_000, 100)?,
            tombstone,
            batch: number("batch", options.batch, 500)?,
            max_pending: number("max_pending", options.max_pending, 200_000)?,
            fill: options.fill.unwrap_or(true),
            scripts: match options.mode.as_deref() {
                None | Some("auto") => Scripts::Auto,
                Some("script") => Scripts::Always,
                Some("delete") => Scripts::Never,
                Some(other) => {
                    return Err(wrong(format!("mode is auto, script or delete: {other}")));
                }
            },
        })
    }
}
