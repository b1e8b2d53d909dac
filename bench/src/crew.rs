//! Clients at work at once, and what they got done.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::rounds::Cost;
use crate::wire::Connection;

/// Clients at once, where a row names no other number.
pub const CLIENTS: usize = 8;
/// Keys that each client uses, and no other: what is measured is not the wait for another's row lock.
pub const KEYS: usize = 125;

/// One client: its session, its keys, and how many operations it has done in all.
pub struct Client<C = Connection> {
    /// Session of its own.
    pub connection: C,
    keys: Vec<String>,
    done: u64,
}

impl<C> Client<C> {
    /// The key to use next. Neighbours in time are not neighbours in the index.
    fn key(&self) -> usize {
        // KEYS is no multiple of 7, so the steps reach every key.
        (self.done as usize).wrapping_mul(7) % KEYS
    }

    /// A number that this client has not had before.
    pub fn number(&self) -> u64 {
        self.done
    }

    /// Name of the key to use next.
    pub fn key_name(&self) -> &str {
        &self.keys[self.key()]
    }
}

impl Client {
    /// Executes a prepared statement, the key being its first parameter and `rest` the others, and returns
    /// how many bytes of rows came back.
    pub fn execute_for_key(&mut self, statement: &str, rest: &[&str]) -> Result<usize, Failure> {
        let key = self.key();
        let mut parameters = Vec::with_capacity(1 + rest.len());
        parameters.push(self.keys[key].as_str());
        parameters.extend(rest);
        self.connection.execute(statement, &parameters)
    }
}

/// When the crew stops.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so long.
    Elapsed(Duration),
    /// When every client has done so many operations.
    Done(u64),
}

/// Clients with a thread each, for as long as they work.
pub struct Crew<C = Connection> {
    clients: Vec<Client<C>>,
}

impl Crew {
    /// Connects so many clients and prepares the statements, given as name and text, in every session.
    pub fn connect(clients: usize, statements: &[(&str, &str)]) -> Result<Self, Failure> {
        Crew::of(clients, || {
            let mut connection = Connection::open()?;
            for (name, sql) in statements {
                connection.prepare(name, sql)?;
            }
            Ok(connection)
        })
    }

    /// Runs a statement in every session.
    pub fn query(&mut self, sql: &str) -> Result<(), Failure> {
        for client in &mut self.clients {
            client.connection.query(sql)?;
        }
        Ok(())
    }
}

impl<C: Send> Crew<C> {
    /// So many clients, each with what `connect` returns.
    pub fn of(
        clients: usize,
        mut connect: impl FnMut() -> Result<C, Failure>,
    ) -> Result<Self, Failure> {
        let clients = (0..clients)
            .map(|number| {
                Ok(Client {
                    connection: connect()?,
                    keys: (0..KEYS).map(|key| key_name(number, key)).collect(),
                    done: 0,
                })
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Crew { clients })
    }

    /// Lets all clients repeat an operation, and returns how many they did in what time.
    pub fn work<F>(&mut self, until: Until, operation: F) -> Result<Cost, Failure>
    where
        F: Fn(&mut Client<C>) -> Result<(), Failure> + Sync,
    {
        let start = Barrier::new(self.clients.len() + 1);
        let stop = AtomicBool::new(false);
        let limit = match until {
            Until::Elapsed(_) => u64::MAX,
            Until::Done(count) => count,
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .clients
                .iter_mut()
                .map(|client| {
                    let (start, stop, operation) = (&start, &stop, &operation);
                    scope.spawn(move || -> Result<u64, String> {
                        start.wait();
                        let mut count = 0;
                        while count < limit && !stop.load(Ordering::Relaxed) {
                            operation(client).map_err(|error| error.to_string())?;
                            client.done += 1;
                            count += 1;
                        }
                        Ok(count)
                    })
                })
                .collect();
            start.wait();
            let started = Instant::now();
            if let Until::Elapsed(window) = until {
                std::thread::sleep(window);
                stop.store(true, Ordering::Relaxed);
            }
            let mut operations = 0;
            for thread in threads {
                operations += thread.join().map_err(|_| "a client's thread panicked")??;
            }
            Ok(Cost {
                done: operations as f64,
                seconds: started.elapsed().as_secs_f64(),
                wal: 0.0,
            })
        })
    }
}

/// Name of a client's key.
fn key_name(client: usize, key: usize) -> String {
    format!("run-{}-{}", client + 1, key + 1)
}

/// A query of the keys of so many clients, in a column named `key`.
pub fn all_keys(clients: usize) -> String {
    format!(
        "SELECT 'run-' || client || '-' || key AS key \
         FROM generate_series(1, {clients}) client, generate_series(1, {KEYS}) key"
    )
}
