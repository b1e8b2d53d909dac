//! The near cache of the client (`clients/rust`): what it answers is right, whatever it has missed.

mod follow;
mod load;
mod lost;
mod proxy;

use state_cache_client::{Error, Event, Following, StateCache, StatementCache};
use state_cache_server_tests::{PATIENCE, Sql, eventually};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// The name by which its sessions are found.
const NAME: &str = "subscriber under test";

/// What was told before a subscriber began does not arrive later and drop what the subscriber has just remembered.
const WITH_THE_COMMIT: &[&str] = &["state_cache.notify = commit"];
/// The sessions of subscribers that listen, not those that read.
const LISTENING: &str = "FROM pg_stat_activity WHERE application_name = 'subscriber under test'
    AND query NOT LIKE 'NOTIFY %' AND query NOT LIKE '%state_get_if_newer%' AND query NOT LIKE '%updated_at%'";

/// An application with a subscriber in it.
struct App {
    subscriber: StateCache,
    events: Receiver<Event>,
    runtime: Runtime,
}

/// A heartbeat that no test has to wait for, and none that comes by chance.
fn quiet() -> Following {
    Following {
        heartbeat: PATIENCE * 10,
        patience: PATIENCE,
        ..Following::default()
    }
}

/// Notices at once what only a heartbeat can find.
fn attentive() -> Following {
    Following {
        heartbeat: Duration::from_millis(50),
        patience: Duration::from_secs(2),
        ..Following::default()
    }
}

impl App {
    fn new(parameters: &str, options: Following) -> Self {
        Self::try_new(parameters, options).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_new(parameters: &str, options: Following) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let parameters = format!("{parameters} application_name='{NAME}'");
        let builder = StateCache::builder()
            .connection(&parameters)
            .following(options)
            // Some of these go through a proxy that pools transactions.
            .statement_cache(StatementCache::None);
        let subscriber = runtime.block_on(builder.connect())?;
        Ok(Self {
            events: subscriber.events(),
            subscriber,
            runtime,
        })
    }

    fn try_get(&self, class: &str, key: &str) -> Result<Option<String>, Error> {
        let known = self
            .runtime
            .block_on(self.subscriber.get_text(class, key))?;
        Ok(known.map(|state| state.document.clone()))
    }

    /// The document of a run.
    fn get(&self, key: &str) -> Option<String> {
        self.try_get("run", key).unwrap()
    }

    /// Whether it would answer from memory.
    fn holds(&self, key: &str) -> bool {
        self.subscriber.peek("run", key).is_some()
    }

    /// Reads states until they are in memory: a message may have arrived in between.
    fn fill(&self, keys: &[&str]) {
        for key in keys {
            eventually("a state to be held", || {
                self.get(key);
                self.holds(key)
            });
        }
    }

    /// Waits for an event, and gives those before it.
    fn await_event(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let (events, mut before) = (&mut self.events, Vec::new());
        self.runtime.block_on(async {
            let search = async {
                loop {
                    match events.recv().await {
                        Ok(event) if wanted(&event) => return,
                        Ok(event) => before.push(event),
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => panic!("the subscriber is gone"),
                    }
                }
            };
            let found = tokio::time::timeout(PATIENCE, search).await;
            assert!(found.is_ok(), "no such event");
        });
        before
    }

    fn await_loss(&mut self) {
        self.await_event(|event| matches!(event, Event::Lost(_)));
    }

    fn await_catching_up(&mut self) -> Vec<Event> {
        self.await_event(|event| *event == Event::CaughtUp)
    }
}

/// A document that can be told from others.
fn document(n: u32) -> Option<String> {
    Some(format!("{{\"n\": {n}}}"))
}

fn set(client: &mut postgres::Client, key: &str, n: u32) {
    client.run(&format!("SELECT state_set('{key}', '{{\"n\": {n}}}')"));
}
