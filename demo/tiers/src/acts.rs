//! The play: what is killed when, and what is shown of each act.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use state_cache_client::Tier;

use crate::server::now;
use crate::stage::{Server, Stage};
use crate::tally::Tally;
use crate::{BOUND, CLASS, Failure, SERVERS, keys, parameters};

/// How long something is waited for that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is said of an act may be on its way for so long after the act.
const TRAILING: Duration = Duration::from_millis(200);

/// The audience.
struct Audience {
    lines: Receiver<(usize, String)>,
    tally: Tally,
}

impl Audience {
    /// Takes in what is said within a time.
    fn listen(&mut self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((_, line)) => self.tally.take(&line, now())?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err("the servers are gone".into()),
            }
        }
    }

    /// Waits until each server has said this.
    fn await_all(&mut self, word: &str) -> Result<(), Failure> {
        let (mut said, started) = ([false; SERVERS.len()], Instant::now());
        while said.contains(&false) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok((place, line)) if line == word => said[place] = true,
                Ok((_, line)) => self.tally.take(&line, now())?,
                Err(_) => return Err(format!("nobody says {word}").into()),
            }
            if started.elapsed() > PATIENCE * 4 {
                return Err(format!("not all servers say {word}").into());
            }
        }
        Ok(())
    }

    /// An act: lasts so long, and until these tiers have answered. Shows it.
    fn act(&mut self, title: &str, least: Duration, awaited: &[Tier]) -> Result<(), Failure> {
        println!("{title}");
        let (from, started) = (now(), Instant::now());
        self.listen(least)?;
        while awaited
            .iter()
            .any(|tier| self.tally.answers_since(from)[*tier as usize] == 0)
        {
            if started.elapsed() > PATIENCE + least {
                return Err(format!("not all of {awaited:?} have answered").into());
            }
            self.listen(Duration::from_millis(50))?;
        }
        let to = now();
        self.listen(TRAILING)?;
        self.tally
            .lines(from, to)
            .iter()
            .for_each(|line| println!("{line}"));
        println!();
        Ok(())
    }
}

/// Plays all acts.
pub fn play(file: &str, least: Duration) -> Result<(), Failure> {
    let mut session = postgres::Client::connect(&parameters()?, postgres::NoTls)?;
    session.batch_execute(&format!(
        "SELECT state_class_define('{CLASS}', l2_ttl => '10 minutes')"
    ))?;
    let stage = Stage::new()?;
    let told = tell(&stage, file, least);
    if told.is_err() {
        eprintln!("the feeder has said:\n{}", stage.feeder_said());
    }
    told
}

fn tell(stage: &Stage, file: &str, least: Duration) -> Result<(), Failure> {
    let mut redis = stage.redis()?;
    let mut feeder = stage.feeder()?;
    let (sender, lines) = channel();
    let mut servers = Vec::new();
    for (place, name) in SERVERS.iter().enumerate() {
        let url = stage.redis_url();
        servers.push(Server::start(
            place,
            name,
            &url,
            Path::new(file),
            sender.clone(),
        )?);
    }
    drop(sender);
    let mut audience = Audience {
        lines,
        tally: Tally::default(),
    };
    audience.await_all("ready")?;
    println!(
        "Two application servers play {file}: {} runs, which both read all the time.\n\
         Of Redis, {:.1} s old is the oldest that may be. An answer is old if the next version was committed before\n\
         it was asked for, and as old as the time between.\n",
        keys().len(),
        BOUND.as_secs_f64()
    );
    audience.act("All is there.", least, &Tier::ALL)?;
    redis.kill();
    let without = [Tier::Near, Tier::Server];
    audience.act("Redis is killed.", least, &without)?;
    redis = stage.redis()?;
    audience.act(
        "Redis is back, empty; the feeder begins a generation.",
        least,
        &Tier::ALL,
    )?;
    feeder.kill();
    // Redis is asked until the feeder has not said for a while that it is alive.
    let spoken = least.max(BOUND);
    audience.act("The feeder is killed.", spoken, &without)?;
    feeder = stage.feeder()?;
    audience.act("The feeder is back; it catches up.", least, &Tier::ALL)?;
    for answer in ["quiet", "end"] {
        servers.iter_mut().try_for_each(Server::tell)?;
        audience.await_all(answer)?;
    }
    compare(&audience.tally)?;
    servers.into_iter().for_each(Server::end);
    drop((redis, feeder));
    Ok(())
}

/// Compares what the tiers have with the table.
fn compare(tally: &Tally) -> Result<(), Failure> {
    let mut session = postgres::Client::connect(&parameters()?, postgres::NoTls)?;
    for (key, versions) in &tally.quiet {
        let query = "SELECT version FROM state_current WHERE class = $1 AND key = $2";
        let version: i64 = session.query_one(query, &[&CLASS, key])?.try_get(0)?;
        if *versions != [version; 3] {
            return Err(format!(
                "{key} has version {version}; PostgreSQL, Redis and the near cache answer {versions:?}"
            )
            .into());
        }
    }
    if tally.quiet.len() != keys().len() * SERVERS.len() {
        return Err(format!("only {} answers after quiet", tally.quiet.len()).into());
    }
    if let Some(back) = tally.back.first() {
        return Err(format!("a read went back: {back}").into());
    }
    println!(
        "No read went back. After quiet, {} runs have the same version in both near caches, in Redis and in\n\
         PostgreSQL. \
         The oldest answer was {:.1} ms old.",
        keys().len(),
        tally.oldest().as_secs_f64() * 1000.0
    );
    Ok(())
}
