//! How a client is made, and what may be said about it.

use crate::cache::Inner;
use crate::dial::{Dial, dial};
use crate::l2::{L2, L2Options};
use crate::statements::Statements;
use crate::{Error, StateCache};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, NoTls, Socket};

/// What the near cache may hold of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassLimits {
    /// States at most. The least recently used one goes first.
    pub entries: usize,
    /// Bytes at most, those of typed values estimated. A state that would take a quarter of them is not held.
    pub bytes: usize,
    /// How long a copy may be answered, counted from the read that filled it.
    pub ttl: Duration,
}

impl ClassLimits {
    const fn new(entries: usize, minutes: u64) -> Self {
        Self {
            entries,
            bytes: 64 << 20,
            ttl: Duration::from_secs(60 * minutes),
        }
    }
}

impl Default for ClassLimits {
    /// What a class has that nobody said anything about.
    fn default() -> Self {
        Self::new(1000, 10)
    }
}

/// What the near cache does while it cannot prove that it hears of every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhileDown {
    /// It answers nothing: every read goes to the server.
    #[default]
    Bypass,
    /// It answers what it holds as long as the last proof is not older than this. Such an answer says so
    /// ([`crate::Answer::unproven`]), and is counted.
    ServeUpTo(Duration),
}

/// Whether the server keeps the client's statements parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatementCache {
    /// Each connection prepares a statement when it uses it first.
    #[default]
    PerConnection,
    /// Nothing is prepared: fit for a proxy that pools transactions, whatever its release and configuration.
    None,
}

/// How the near cache follows the server. Proof that all was heard holds for the heartbeat and three times the
/// patience; a near cache whose last proof is older, because the process was stopped or nothing arrives, does as
/// [`WhileDown`] says.
#[derive(Debug, Clone)]
pub struct Following {
    /// How often it makes sure that notifications still arrive.
    pub heartbeat: Duration,
    /// How long such a notification, or to connect, may take. Longer, and the connection counts as lost.
    pub patience: Duration,
    /// How often it asks for all changes although nothing seems to be missing. It keeps the cursor young:
    /// the older it is, the more there is to report after a lost connection.
    pub catch_up: Duration,
}

impl Following {
    /// How long a proof holds: until the next one must have come, or must have failed.
    fn holds(&self) -> Duration {
        self.heartbeat
            .saturating_add(self.patience.saturating_mul(3))
    }
}

impl Default for Following {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            catch_up: Duration::from_secs(600),
        }
    }
}

/// How often, and after which pauses, a transaction that met others is run again.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Runs at most, the first one included.
    pub attempts: u32,
    /// The pause before the second run. It doubles with each, and half of each is left to chance.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 10,
            first_pause: Duration::from_millis(2),
            longest_pause: Duration::from_millis(500),
        }
    }
}

/// Makes a [`StateCache`].
pub struct Builder {
    target: Target,
    pool: Option<Pool>,
    connections: usize,
    schema: Option<String>,
    limits: HashMap<String, ClassLimits>,
    other_limits: ClassLimits,
    while_down: WhileDown,
    following: Following,
    retries: Retries,
    statement_cache: StatementCache,
    versions_known: usize,
    l2: Option<L2Options>,
}

/// Where the server is, once somebody said so.
enum Target {
    Nowhere,
    Wrong(String),
    At {
        config: Box<Config>,
        dial: Dial,
        pool: PoolMaker,
    },
}

type PoolMaker = Box<dyn FnOnce(usize, Duration) -> Result<Pool, Error> + Send>;

impl Default for Builder {
    fn default() -> Self {
        Self {
            target: Target::Nowhere,
            pool: None,
            connections: 8,
            schema: None,
            // What the platform that the classes come from allows its servers.
            limits: HashMap::from([
                ("swarm".to_owned(), ClassLimits::new(1000, 5)),
                ("run".to_owned(), ClassLimits::new(500, 10)),
                ("config".to_owned(), ClassLimits::new(2000, 15)),
            ]),
            other_limits: ClassLimits::default(),
            while_down: WhileDown::default(),
            following: Following::default(),
            retries: Retries::default(),
            statement_cache: StatementCache::default(),
            versions_known: 100_000,
            l2: None,
        }
    }
}

fn target<T>(config: Config, tls: T) -> Target
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (of_pool, for_pool) = (config.clone(), tls.clone());
    let pool: PoolMaker = Box::new(move |connections, patience| {
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_config(of_pool, for_pool, recycling);
        Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(patience))
            .wait_timeout(Some(patience))
            .build()
            .map_err(|error| Error::Configuration(error.to_string()))
    });
    Target::At {
        dial: dial(config.clone(), tls),
        config: Box::new(config),
        pool,
    }
}

impl Builder {
    /// Where the server is, without TLS. All connections must lead to the primary: with several hosts,
    /// `target_session_attrs=read-write`.
    pub fn connection(mut self, parameters: &str) -> Self {
        self.target = match Config::from_str(parameters) {
            Ok(config) => target(config, NoTls),
            Err(error) => Target::Wrong(format!("the connection string is none: {error}")),
        };
        self
    }

    /// Where the server is, over TLS as any of the connectors made for `tokio-postgres` has it.
    pub fn connection_with_tls<T>(mut self, config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.target = target(config, tls);
        self
    }

    /// A pool that the application has already, for everything but the connection that listens. It must lead to
    /// the same server.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Connections of the client's own pool at most (8). One more listens.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// The schema that the extension is in. Unless it is named here, `search_path` must find it.
    pub fn schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// What the near cache may hold of a class. `run`, `swarm` and `config` have 500 states for 10 minutes, 1000
    /// for 5 and 2000 for 15, others 1000 for 10; each 64 MB.
    pub fn class(mut self, class: &str, limits: ClassLimits) -> Self {
        self.limits.insert(class.to_owned(), limits);
        self
    }

    /// What the near cache may hold of each class that was not named.
    pub fn other_classes(mut self, limits: ClassLimits) -> Self {
        self.other_limits = limits;
        self
    }

    /// What the near cache does while it cannot prove that it hears of every change.
    pub fn while_down(mut self, while_down: WhileDown) -> Self {
        self.while_down = while_down;
        self
    }

    /// How the near cache follows the server.
    pub fn following(mut self, following: Following) -> Self {
        self.following = following;
        self
    }

    /// How often a transaction that met others is run again.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Whether the server keeps the client's statements parsed.
    pub fn statement_cache(mut self, cache: StatementCache) -> Self {
        self.statement_cache = cache;
        self
    }

    /// Of how many states the client remembers exactly which version it has seen (100,000). Of more, it asks the
    /// server more often.
    pub fn versions_known(mut self, states: usize) -> Self {
        self.versions_known = states;
        self
    }

    /// Redis, which the feeder `state-cache-l2` keeps right, between the near cache and the server.
    pub fn l2(mut self, options: L2Options) -> Self {
        self.l2 = Some(options);
        self
    }

    /// Connects, and returns once messages are known to arrive: [`Error::NotDelivered`] if they do not.
    /// Later failures are mended in the background, and told as [`crate::Event::Lost`].
    pub async fn connect(self) -> Result<StateCache, Error> {
        let (config, dial, make_pool) = match self.target {
            Target::At { config, dial, pool } => (config, dial, pool),
            Target::Wrong(why) => return Err(Error::Configuration(why)),
            Target::Nowhere => {
                let why = "where is the server? Builder::connection says it";
                return Err(Error::Configuration(why.to_owned()));
            }
        };
        tracing::debug!(hosts = ?config.get_hosts(), "connecting");
        if self.connections == 0 {
            return Err(Error::Configuration("a pool of no connections".to_owned()));
        }
        let pool = match self.pool {
            Some(pool) => pool,
            None => make_pool(self.connections, self.following.patience)?,
        };
        let near = crate::near::Near::new(
            self.limits,
            self.other_limits,
            self.while_down,
            self.following.holds(),
            self.versions_known,
        );
        StateCache::start(Inner::new(
            near,
            dial,
            pool,
            Statements::new(self.schema.as_deref(), self.statement_cache),
            self.following,
            self.retries,
            self.l2.map(L2::new).transpose()?,
        ))
        .await
    }
}
