//! An application server: agents that play runs, readers that look at the runs of all, and a line of output for each
//! thing that happened. Its owner tells it on standard input when to be quiet; with the owner's end it ends.
//!
//! | line | what happened |
//! | --- | --- |
//! | `ready` | it has connected, and Redis may be asked |
//! | `w KEY VERSION TIME` | a version was committed; the time at which this was known |
//! | `r TIER KEY VERSION TIME` | a read that began at this time was answered |
//! | `f` | a read or a write has failed |
//! | `back KEY VERSION SEEN` | a read was answered by an older version than this server had seen before |
//! | `quiet` | its agents and readers have ended |
//! | `q KEY SERVER REDIS NEAR` | once all are quiet: the version that each tier has |
//! | `end` | it will say nothing more |
//!
//! Times are microseconds since 1970: both servers are on one machine, whose clock they share.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use state_cache_client::{Checkpoint, ClassLimits, Following, L2Options, StateCache, Tier};
use state_cache_demo::trace::{self, Recording};
use tokio::time::sleep;

use crate::{AGENTS, BOUND, CLASS, Failure, PREFIX, key, keys, parameters};

/// Tasks that read.
const READERS: u64 = 3;
/// States in the near cache: fewer than there are, so that Redis has something to do.
const ENTRIES: usize = 3;
/// Pause of an agent between two steps of its run.
const STEP: Duration = Duration::from_millis(25);
/// Pause of a reader between two reads.
const PAUSE: Duration = Duration::from_millis(3);
/// How long something is waited for that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Microseconds since 1970.
pub fn now() -> u64 {
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Says a line at once. Whoever does not read any more has ended, and so does this server soon.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What all tasks share.
struct Shared {
    cache: StateCache,
    /// The latest version that this server has read or written, by key.
    seen: Mutex<HashMap<String, i64>>,
    over: AtomicBool,
}

impl Shared {
    fn seen(&self, key: &str) -> i64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(key).copied().unwrap_or(0)
    }

    fn saw(&self, key: &str, version: i64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = seen.entry(key.to_owned()).or_default();
        *latest = version.max(*latest);
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }
}

/// Plays the recording over and over, as an agent that saves its run after each step.
async fn act(shared: Arc<Shared>, recording: Arc<Recording>, key: String) {
    for step in recording.steps.iter().cycle() {
        if !shared.goes_on() {
            return;
        }
        let saved = shared
            .cache
            .save(CLASS, &key, &step.state, Checkpoint::default())
            .await;
        match saved {
            Ok(saved) => {
                if saved.action == "saved" {
                    say(&format!("w {key} {} {}", saved.version, now()));
                }
                shared.saw(&key, saved.version);
            }
            Err(_) => say("f"),
        }
        sleep(STEP).await;
    }
}

/// Reads runs of all agents, by chance.
async fn read(shared: Arc<Shared>, mut seed: u64) {
    let keys = keys();
    while shared.goes_on() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = &keys[(seed >> 33) as usize % keys.len()];
        let (seen, start) = (shared.seen(key), now());
        match shared.cache.read::<Value>(CLASS, key).await {
            Ok(answer) => {
                let version = answer.document.map_or(0, |document| document.version);
                say(&format!("r {} {key} {version} {start}", answer.tier.name()));
                if version < seen {
                    say(&format!("back {key} {version} {seen}"));
                }
                shared.saw(key, version);
            }
            Err(_) => say("f"),
        }
        sleep(PAUSE).await;
    }
}

/// The version that a tier has of a state, once this tier answers.
async fn version_in(cache: &StateCache, key: &str, tier: Tier) -> Result<i64, Failure> {
    let started = Instant::now();
    loop {
        let answer = cache.read::<Value>(CLASS, key).await?;
        if answer.tier == tier {
            return Ok(answer.document.map_or(0, |document| document.version));
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{key} is still not answered by {}", tier.name()).into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Says what each tier has.
async fn tell_tiers(cache: &StateCache) -> Result<(), Failure> {
    for key in keys() {
        cache.enable_near(false);
        cache.enable_l2(false);
        let server = version_in(cache, &key, Tier::Server).await?;
        cache.enable_l2(true);
        let redis = version_in(cache, &key, Tier::L2).await?;
        cache.enable_near(true);
        let near = version_in(cache, &key, Tier::Near).await?;
        say(&format!("q {key} {server} {redis} {near}"));
    }
    Ok(())
}

async fn connect(redis: &str) -> Result<StateCache, Failure> {
    let l2 = L2Options {
        prefix: PREFIX.to_owned(),
        max_lag: BOUND,
        ..L2Options::new(redis)
    };
    let limits = ClassLimits {
        entries: ENTRIES,
        ..ClassLimits::default()
    };
    let following = Following {
        heartbeat: Duration::from_millis(500),
        ..Following::default()
    };
    let cache = StateCache::builder()
        .connection(&parameters()?)
        .class(CLASS, limits)
        .following(following)
        .l2(l2)
        .connect()
        .await?;
    let started = Instant::now();
    while !cache.is_l2_usable(CLASS) {
        if started.elapsed() > PATIENCE {
            return Err("Redis is still not usable".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(cache)
}

/// Waits for the owner's word on standard input. Without an owner there is nobody to serve.
fn wait_for_word() {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(read) if read > 0 => {}
        _ => std::process::exit(1),
    }
}

/// Serves until told to be quiet.
pub fn serve(name: &str, redis: &str, file: &str) -> Result<(), Failure> {
    let recording = trace::read(file).map_err(|error| error.to_string())?;
    let recording = Arc::new(recording);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let shared = Arc::new(Shared {
        cache: runtime.block_on(connect(redis))?,
        seen: Mutex::default(),
        over: AtomicBool::new(false),
    });
    say("ready");
    let agents =
        (0..AGENTS).map(|n| runtime.spawn(act(shared.clone(), recording.clone(), key(name, n))));
    let mut tasks: Vec<_> = agents.collect();
    let salt = u64::from(name.bytes().next().unwrap_or_default());
    tasks.extend((0..READERS).map(|n| runtime.spawn(read(shared.clone(), salt * 100 + n))));
    wait_for_word();
    shared.over.store(true, Ordering::SeqCst);
    for task in tasks {
        runtime.block_on(task)?;
    }
    say("quiet");
    // Until the other server is quiet as well.
    wait_for_word();
    runtime.block_on(tell_tiers(&shared.cache))?;
    say("end");
    // The end of its output would be taken for a failure.
    wait_for_word();
    Ok(())
}
