//! The feeder of Redis: how soon a commit is there, what that costs the commits, and how fast it catches up.
//!
//! The program is the one beside this one, as `make bench` builds it; it feeds a Redis on a socket of its own.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::crew::{CLIENTS, Crew, Until};
use crate::document::Document;
use crate::messages::percentile;
use crate::redis::{Client, Persistence, Redis};
use crate::report::{Row, Target, Unit};
use crate::rounds::{Comparison, Plan, Side};
use crate::wire::{Connection, setting};
use crate::{CLASS, Failure, store_for_all, tidy};

/// Size of the states here, in bytes of binary jsonb.
const TINY: usize = 1024;
/// What the names of all keys begin with.
pub const PREFIX: &str = "bench:";
/// How many states change while the feeder is away.
const CHANGES: usize = 100_000;
/// Commands of Redis that are sent together, as many as the feeder sends.
const BATCH: usize = 500;
/// How long commits are waited for in a round.
const WINDOW: Duration = Duration::from_secs(2);
/// Commits per second of all writers together, beside which the delay is measured. Each commit has its moment; what
/// comes late is made up for.
const RATE: u32 = 2_000;
/// Pause between two looks at whether something has happened: who looks all the time takes a core from those who are
/// measured.
const LOOK: Duration = Duration::from_micros(200);
/// When something is given up that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running feeder, gone when this is.
pub struct Feeder(Child);

impl Feeder {
    /// Starts it, and waits until it says that all was heard.
    pub fn start(redis: &Redis) -> Result<Self, Failure> {
        let names = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"].map(setting);
        let [host, port, user, database] = names;
        let postgres = format!(
            "host={} port={} user={} dbname={}",
            host?, port?, user?, database?
        );
        let program = std::env::current_exe()?.with_file_name("state-cache-l2");
        let mut client = redis.connect()?;
        // The feeder before was killed, and what it said last lives on for a while.
        let alive = format!("{PREFIX}{{meta}}:alive");
        client.delete(&alive)?;
        let child = Command::new(&program)
            .args([
                "--postgres",
                &postgres,
                "--redis",
                &redis.url(),
                "--prefix",
                PREFIX,
            ])
            .args(["--fill", "false", "--log", "error"])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!(
                    "{}: {error}: build state_cache_l2_feeder",
                    program.display()
                )
            })?;
        let feeder = Feeder(child);
        wait("the feeder", || Ok(client.get(&alive)?.is_some()))?;
        Ok(feeder)
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something has happened.
pub fn wait(
    what: &str,
    mut happened: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let started = Instant::now();
    while !happened()? {
        if started.elapsed() > PATIENCE {
            return Err(format!("still waiting: {what}").into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Runs with a Redis and the class in L2, and takes the class out again. No row without a Redis.
pub fn with_redis(
    connection: &mut Connection,
    measure: impl FnOnce(&mut Connection, &Redis) -> Result<Vec<Row>, Failure>,
) -> Result<Vec<Row>, Failure> {
    let Some(redis) = Redis::start(Persistence::None)? else {
        return Ok(Vec::new());
    };
    connection.query(&format!(
        "SELECT state_class_define('{CLASS}', l2_ttl => '1 hour')"
    ))?;
    let rows = measure(connection, &redis);
    connection.query(&format!(
        "SELECT state_class_define('{CLASS}', l2_ttl => '0')"
    ))?;
    rows
}

/// Commits with nobody else's change of the same states, and milliseconds until Redis has each.
fn delays(redis: &Redis, document: &Document, from: u64) -> Result<Vec<f64>, Failure> {
    let mut session = Connection::open()?;
    session.prepare("change", "SELECT state_set('l2-probe', $1)")?;
    let mut client = redis.connect()?;
    let meta = format!("{PREFIX}{{meta}}");
    let generation = client
        .field(&meta, "generation")?
        .ok_or("there is no generation")?;
    let name = format!("{PREFIX}{generation}:{{{CLASS}:l2-probe}}");
    let (mut millis, mut text, mut number) = (Vec::new(), String::new(), from);
    let started = Instant::now();
    while started.elapsed() < WINDOW {
        number += 1;
        document.revise(&mut text, number);
        session.execute("change", &[&text])?;
        let committed = Instant::now();
        let version: u64 = session.value("SELECT state_version('l2-probe')")?;
        wait("a change", || {
            let held = client.get(&name)?;
            let held = held
                .as_deref()
                .and_then(|value| value.get(8..16))
                .map(|bytes| bytes.try_into());
            Ok(held
                .is_some_and(|bytes| bytes.is_ok_and(|bytes| u64::from_be_bytes(bytes) >= version)))
        })?;
        millis.push(committed.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(millis)
}

/// Time from the end of a commit until Redis has what it wrote, without other load and beside writers that make
/// [`RATE`] commits per second, if the machine can.
pub fn delay(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    with_redis(connection, |connection, redis| {
        let document = Document::with_size(connection, TINY)?;
        store_for_all(connection, CLASS, CLIENTS, &document)?;
        let _feeder = Feeder::start(redis)?;
        let mut crew = Crew::connect(CLIENTS, &[("change", "SELECT state_set($1, $2)")])?;
        let mut rows = Vec::new();
        for loaded in [false, true] {
            let (mut figures, mut all, mut rate) = (Vec::new(), Vec::new(), 0.0);
            for round in 0..plan.rounds {
                tidy(connection)?;
                let from = (round as u64 + 1) * 1_000_000 + u64::from(loaded) * 500_000;
                let millis = std::thread::scope(|scope| {
                    let probing = scope.spawn(|| {
                        delays(redis, &document, from).map_err(|error| error.to_string())
                    });
                    if loaded {
                        let (next, started) = (AtomicU32::new(0), Instant::now());
                        let cost = crew.work(Until::Elapsed(WINDOW), |client| {
                            let due = next.fetch_add(1, Ordering::Relaxed)
                                * (Duration::from_secs(1) / RATE);
                            std::thread::sleep(due.saturating_sub(started.elapsed()));
                            let mut text = String::new();
                            document.revise(&mut text, client.number());
                            client.execute_for_key("change", &[&text])?;
                            Ok(())
                        })?;
                        rate = cost.rate();
                    }
                    let probed = probing.join().map_err(|_| "the prober panicked")?;
                    probed.map_err(Failure::from)
                })?;
                figures.push(percentile(&millis, 0.99));
                all.extend(millis);
            }
            let [p50, p99] = [0.5, 0.99].map(|part| percentile(&all, part));
            rows.push(Row {
                measured: match loaded {
                    false => "COMMIT until Redis has the state, idle, p99".to_owned(),
                    true => {
                        "COMMIT until Redis has the state, beside 2,000 commits/s, p99".to_owned()
                    }
                },
                against: String::new(),
                target: if loaded {
                    Target::AtMost(100.0)
                } else {
                    Target::None
                },
                unit: Unit::Millis,
                figures,
                sides: match loaded {
                    false => format!("p50, p99: {p50:.2}, {p99:.2} ms of {}", all.len()),
                    true => format!(
                        "p50, p99: {p50:.2}, {p99:.2} ms of {}; {rate:.0} commits/s made",
                        all.len()
                    ),
                },
            });
        }
        Ok(rows)
    })
}

/// Commits per second while the feeder runs, against the same without it.
pub fn commits(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    with_redis(connection, |connection, redis| {
        let document = Document::with_size(connection, TINY)?;
        store_for_all(connection, CLASS, CLIENTS, &document)?;
        let mut crew = Crew::connect(CLIENTS, &[("change", "SELECT state_set($1, $2)")])?;
        let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
            tidy(connection)?;
            let feeder = match side {
                Side::Cached => Some(Feeder::start(redis)?),
                _ => None,
            };
            let cost = crew.work(Until::Elapsed(plan.turn), |client| {
                let mut text = String::new();
                document.revise(&mut text, client.number());
                client.execute_for_key("change", &[&text])?;
                Ok(())
            });
            drop(feeder);
            cost
        })?;
        let row = Comparison {
            measured: format!("commits, the feeder of Redis running, {CLIENTS} clients"),
            against: "the feeder not running".to_owned(),
            target: Target::AtLeast(0.95),
            sides: [0, 1],
        };
        Ok(vec![row.by_rate(&rounds)])
    })
}

/// States that changed while the feeder was away, written per second once it is there, against pipelined SET of
/// the same bytes.
pub fn catch_up(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    with_redis(connection, |connection, redis| {
        let document = Document::with_size(connection, TINY)?;
        drop(Feeder::start(redis)?);
        let (mut figures, mut sides) = (Vec::new(), String::new());
        for round in 0..plan.rounds.min(3) {
            let mut text = String::new();
            document.revise(&mut text, round as u64 + 1);
            let literal = crate::wire::literal(&text);
            connection.query(&format!(
                "SELECT count(state_set('l2-' || n, {literal})) FROM generate_series(1, {CHANGES}) n"
            ))?;
            let mut client = redis.connect()?;
            let started = Instant::now();
            let feeder = Feeder::start(redis)?;
            let fed = started.elapsed().as_secs_f64();
            drop(feeder);
            let set = set_all(&mut client, &text)?;
            figures.push(set / fed);
            let [fed, set] = [fed, set].map(|seconds| CHANGES as f64 / seconds);
            sides = format!("{fed:.0}/s against {set:.0}/s");
        }
        connection.query(&format!(
            "SELECT count(state_delete('l2-' || n)) FROM generate_series(1, {CHANGES}) n"
        ))?;
        Ok(vec![Row {
            measured: format!("{CHANGES} changes caught up by the feeder, its start included"),
            against: "Redis SET of the same bytes, pipelined".to_owned(),
            target: Target::AtLeast(0.3),
            unit: Unit::Times,
            figures,
            sides,
        }])
    })
}

/// Seconds for as many SET, sent in batches.
fn set_all(client: &mut Client, text: &str) -> Result<f64, Failure> {
    let keys: Vec<String> = (0..CHANGES)
        .map(|n| format!("{PREFIX}plain:{{{CLASS}:l2-{n}}}"))
        .collect();
    let started = Instant::now();
    for batch in keys.chunks(BATCH) {
        client.set_many(batch, text)?;
    }
    Ok(started.elapsed().as_secs_f64())
}
