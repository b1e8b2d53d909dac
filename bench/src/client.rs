//! The client in Rust: what a hit of its near cache and an answer of Redis through it cost.

use std::time::Instant;

use state_cache_client::{L2Options, StateCache, Tier};
use tokio::runtime::Runtime;

use crate::document::Document;
use crate::l2::{Feeder, PREFIX, with_redis};
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::{Connection, setting};
use crate::{CLASS, Failure, SMALL, size};

/// The key of a task: reads of the same state at the same moment would be one.
fn key(task: usize) -> String {
    format!("client-{task}")
}

/// Tasks that ask Redis at the same time, over one connection.
const TASKS: usize = 8;
/// Reads between two looks at the clock.
const BETWEEN: usize = 64;

fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

fn parameters() -> Result<String, Failure> {
    let [host, port, user, database] = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"].map(setting);
    let (host, port, user, database) = (host?, port?, user?, database?);
    Ok(format!(
        "host={host} port={port} user={user} dbname={database}"
    ))
}

/// Stores the document that all read, under the key of each task.
fn store(connection: &mut Connection) -> Result<(), Failure> {
    let document = Document::with_size(connection, SMALL)?;
    let literal = crate::wire::literal(document.text());
    for task in 0..TASKS {
        let key = key(task);
        connection.query(&format!("SELECT state_set('{key}', {literal})"))?;
    }
    Ok(())
}

/// Hits of the near cache, as a value of a type, against `state_get_text` over the socket, one after the other.
pub fn near(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    store(connection)?;
    let runtime = runtime()?;
    let cache = runtime.block_on(StateCache::builder().connection(&parameters()?).connect())?;
    let mut session = Connection::open()?;
    session.prepare("text", "SELECT state_get_text($1)")?;
    let key = key(0);
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        let (started, mut done) = (Instant::now(), 0);
        while started.elapsed() < plan.turn {
            match side {
                Side::Cached => runtime.block_on(async {
                    for _ in 0..BETWEEN {
                        let read = cache.get::<serde_json::Value>(CLASS, &key).await?;
                        std::hint::black_box(&read);
                    }
                    Ok::<(), Failure>(())
                })?,
                _ => {
                    for _ in 0..BETWEEN {
                        session.execute("text", &[&key])?;
                    }
                }
            }
            done += BETWEEN;
        }
        Ok(cost(done, started))
    })?;
    let row = Comparison {
        measured: format!("near-cache hit of the Rust client, typed, {}", size(SMALL)),
        against: "`state_get_text` over a Unix socket, prepared".to_owned(),
        target: Target::AtLeast(100.0),
        sides: [0, 1],
    };
    Ok(vec![row.by_rate(&rounds)])
}

fn cost(done: usize, started: Instant) -> Cost {
    Cost {
        done: done as f64,
        seconds: started.elapsed().as_secs_f64(),
        ..Cost::default()
    }
}

/// Answers of Redis through the client, against GET of as many bytes with the same crate.
pub fn l2(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    with_redis(connection, |connection, redis| {
        store(connection)?;
        let text: String =
            connection.value(&format!("SELECT state_get_text('{}', '{CLASS}')", key(0)))?;
        let _feeder = Feeder::start(redis)?;
        let runtime = runtime()?;
        let options = L2Options {
            prefix: PREFIX.to_owned(),
            ..L2Options::new(&redis.url())
        };
        let builder = StateCache::builder().connection(&parameters()?).l2(options);
        let cache = runtime.block_on(builder.connect())?;
        cache.enable_near(false);
        crate::l2::wait("an answer of Redis", || {
            for task in 0..TASKS {
                let key = key(task);
                let read = runtime.block_on(cache.read::<serde_json::Value>(CLASS, &key))?;
                if read.tier != Tier::L2 {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        let before = cache.stats();
        let plain = format!("{PREFIX}plain");
        redis.connect()?.set(&plain, &text)?;
        let get = runtime.block_on(async {
            let client = ::redis::Client::open(redis.url())?;
            client.get_multiplexed_async_connection().await
        })?;
        let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
            let started = Instant::now();
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let key = key(task);
                    let (cache, mut get, plain) = (cache.clone(), get.clone(), plain.clone());
                    let (turn, expected) = (plan.turn, text.len());
                    runtime.spawn(async move {
                        let mut done = 0;
                        while started.elapsed() < turn {
                            let bytes = match side {
                                Side::Cached => cache
                                    .get_text(CLASS, &key)
                                    .await
                                    .map_err(|error| error.to_string())?
                                    .map_or(0, |state| state.document.len()),
                                _ => ::redis::cmd("GET")
                                    .arg(&plain)
                                    .query_async::<Vec<u8>>(&mut get)
                                    .await
                                    .map_err(|error| error.to_string())?
                                    .len(),
                            };
                            if bytes != expected {
                                return Err(format!("a read gave {bytes} bytes"));
                            }
                            done += 1;
                        }
                        Ok(done)
                    })
                })
                .collect();
            let mut done = 0;
            for task in tasks {
                done += runtime.block_on(task)??;
            }
            Ok(cost(done, started))
        })?;
        let after = cache.stats();
        let asked = after.server.hits - before.server.hits;
        if asked > (after.l2.hits - before.l2.hits) / 100 {
            return Err(format!("the server was asked {asked} times").into());
        }
        let row = Comparison {
            measured: format!(
                "Redis through the Rust client, {}, {TASKS} tasks",
                size(SMALL)
            ),
            against: "GET with the same crate, the same text, one connection each".to_owned(),
            target: Target::AtLeast(0.8),
            sides: [0, 1],
        };
        Ok(vec![row.by_rate(&rounds)])
    })
}
