//! What all requests share: connections, figures, and who tells changes.
//!
//! The library waits in the thread that asks. So a question is put in a thread of its own, on a connection that
//! nobody else has meanwhile; there are [`CONNECTIONS`] at most, and a request waits for one. Connections are closed
//! in such threads too, since closing waits as well.

use super::live::Live;
use super::visible::Sensitivity;
use crate::commands::top::figures::{Figures, Sample};
use crate::connect::{Database, Parameters};
use crate::failure::Failure;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Connections for questions; one more listens.
const CONNECTIONS: usize = 4;

/// How old figures may be.
const INTERVAL: Duration = Duration::from_secs(2);

/// What all requests share.
pub struct Shared {
    parameters: Parameters,
    idle: Mutex<Vec<Database>>,
    free: Arc<Semaphore>,
    figures: Mutex<Option<(Instant, Figures)>>,
    /// What the viewer may see.
    pub sensitivity: Sensitivity,
    /// Who tells changes.
    pub live: Live,
}

/// What a mutex guards is whole at any time, also where a thread has ended in the middle.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is read and by whom could change nothing, whatever the query is.
fn only_reads(mut database: Database) -> Result<Database, Failure> {
    database
        .run("SET default_transaction_read_only = on; SET statement_timeout = '60s'")
        .map(|()| database)
}

impl Shared {
    /// Begins with one connection.
    pub fn new(database: Database, sensitivity: Sensitivity, live: Live) -> Result<Self, Failure> {
        let parameters = database.parameters().clone();
        Ok(Self {
            parameters,
            idle: Mutex::new(vec![only_reads(database)?]),
            free: Arc::new(Semaphore::new(CONNECTIONS)),
            figures: Mutex::new(None),
            sensitivity,
            live,
        })
    }

    /// Puts a question. It is put a second time where the first connection turns out to be gone.
    pub async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl Fn(&Self, &mut Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let gone = || Failure::File("the question was given up".to_owned());
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let permit = permit.map_err(|_| gone())?;
        let shared = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // The guard goes before the question: others look for connections too.
            let idle = lock(&shared.idle).pop();
            if let Some(database) = idle {
                match shared.put(database, &question) {
                    // All that are idle were made before this one was lost.
                    Err(Failure::Connection(_)) => drop(std::mem::take(&mut *lock(&shared.idle))),
                    outcome => return outcome,
                }
            }
            let database = only_reads(Database::connect(shared.parameters.clone())?)?;
            shared.put(database, &question)
        });
        asked.await.map_err(|_| gone())?
    }

    fn put<T>(
        &self,
        mut database: Database,
        question: &impl Fn(&Self, &mut Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let outcome = question(self, &mut database);
        if !matches!(outcome, Err(Failure::Connection(_))) {
            lock(&self.idle).push(database);
        }
        outcome
    }

    /// The figures, as a program gets them from `top`, and what came before.
    pub fn figures(&self, database: &mut Database) -> Result<serde_json::Value, Failure> {
        let mut figures = lock(&self.figures);
        match figures.as_mut() {
            Some((taken, _)) if taken.elapsed() < INTERVAL => {}
            Some((taken, figures)) => {
                figures.add(Sample::take(database)?);
                *taken = Instant::now();
            }
            None => *figures = Some((Instant::now(), Figures::new(Sample::take(database)?))),
        }
        let (_, figures) = figures
            .as_ref()
            .ok_or_else(|| Failure::File("there are no figures".to_owned()))?;
        let now: Box<serde_json::value::RawValue> = serde_json::from_str(&figures.json())
            .map_err(|error| Failure::File(error.to_string()))?;
        Ok(serde_json::json!({ "now": now, "history": figures.history }))
    }
}
