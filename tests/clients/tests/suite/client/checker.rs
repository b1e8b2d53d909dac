//! A checker over real runs: two application servers, Redis and a feeder, 16 writers and as many readers, while
//! connections, the feeder, Redis and PostgreSQL are killed. No reader sees a version older than one that its
//! application server has seen or written; what it sees is what was written in this version; after quiet, every tier
//! equals the server, which has lost nothing that it had acknowledged.
//!
//! The feeder is the program itself, PostgreSQL a server of this test's own.

use super::redis::{Feeder, Redis};
use ::redis::Commands;
use serde_json::{Value as Json, json};
use state_cache_client::{Checkpoint, ClassLimits, Following, L2Options, StateCache, Tier};
use state_cache_l2::Value;
use state_cache_server_tests::{Dice, Server, Sql, eventually};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const KEYS: u64 = 40;
const WRITERS: u64 = 8;
const READERS: u64 = 8;
/// How long a feeder that is gone counts as alive, in milliseconds.
const ALIVE: u64 = 1000;
/// The other options of the feeder that say how far behind it may be.
const MAX_LAG: u64 = 1000;

/// What was written: of each state and version, the number in it and when its commit was known.
type Log = Mutex<HashMap<(String, i64), (u64, Instant)>>;

/// An application server.
#[derive(Clone)]
struct App {
    cache: StateCache,
    /// The version that it has seen or written of each state.
    seen: Arc<Mutex<HashMap<String, i64>>>,
}

impl App {
    fn floor(&self, key: &str) -> i64 {
        self.seen.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    fn saw(&self, key: &str, version: i64) {
        let mut seen = self.seen.lock().unwrap();
        let floor = seen.entry(key.to_owned()).or_default();
        *floor = version.max(*floor);
    }
}

/// What the readers have found.
#[derive(Default)]
struct Found {
    /// How old it was, of each tier, where it was not the newest.
    ages: BTreeMap<Tier, Vec<Duration>>,
    failures: u64,
}

async fn write(app: App, seed: u64, log: Arc<Log>, numbers: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    let mut dice = Dice::new(seed);
    while !over.load(Ordering::SeqCst) {
        let (key, n) = (
            format!("k{}", dice.roll(KEYS)),
            numbers.fetch_add(1, Ordering::SeqCst),
        );
        let document = json!({"n": n, "pad": "x".repeat(dice.roll(3000) as usize)});
        let checkpoint = Checkpoint {
            checkpoint_type: "manual",
            ..Checkpoint::default()
        };
        if let Ok(saved) = app.cache.save("config", &key, &document, checkpoint).await {
            log.lock()
                .unwrap()
                .insert((key.clone(), saved.version), (n, Instant::now()));
            app.saw(&key, saved.version);
            // What was written is read back at once.
            if let Ok(read) = app.cache.get::<Json>("config", &key).await {
                let version = read.map_or(0, |it| it.version);
                assert!(
                    version >= saved.version,
                    "{key}: {version} after {} was written",
                    saved.version
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(40))).await;
    }
}

async fn read(
    app: App,
    seed: u64,
    log: Arc<Log>,
    answers: Arc<[AtomicU64; 3]>,
    over: Arc<AtomicBool>,
) -> Found {
    let (mut dice, mut found) = (Dice::new(seed), Found::default());
    while !over.load(Ordering::SeqCst) {
        let key = format!("k{}", dice.roll(KEYS));
        let (floor, start) = (app.floor(&key), Instant::now());
        match app.cache.read::<Json>("config", &key).await {
            Ok(answer) => {
                let version = answer.document.as_ref().map_or(0, |it| it.version);
                assert!(
                    version >= floor,
                    "{key}: {version} from {:?} after {floor} was seen",
                    answer.tier
                );
                app.saw(&key, version);
                answers[answer.tier as usize].fetch_add(1, Ordering::SeqCst);
                let log = log.lock().unwrap();
                if let (Some((n, _)), Some(document)) =
                    (log.get(&(key.clone(), version)), &answer.document)
                {
                    assert_eq!(
                        document["n"], *n,
                        "{key}, version {version}, from {:?}",
                        answer.tier
                    );
                }
                let ages = found.ages.entry(answer.tier).or_default();
                if let Some((_, next)) = log.get(&(key, version + 1)) {
                    let age = start.saturating_duration_since(*next);
                    if !age.is_zero() {
                        ages.push(age);
                    }
                }
            }
            Err(_) => found.failures += 1,
        }
        if dice.roll(20) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    found
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn nothing_goes_back(name: &str, time: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = Server::new(&["fsync = off", "max_connections = 200"]);
    let parameters = server.parameters();
    let mut session = server.connect();
    session.run("SELECT state_class_define('config', l2_ttl => '1 minute')");
    let mut redis = Redis::start(name);
    let (address, prefix) = (redis.address(), redis.prefix.clone());
    let (alive, max_lag) = (ALIVE.to_string(), MAX_LAG.to_string());
    let options = [
        ["--alive-ms", &alive],
        ["--max-lag-ms", &max_lag],
        ["--heartbeat-ms", "300"],
        ["--patience-ms", "2000"],
        ["--catch-up-ms", "2000"],
    ];
    let options = options.as_flattened();
    let mut feeder = Feeder::start(&parameters, &address, options);
    let client = |tracking| {
        let l2 = L2Options {
            tracking,
            prefix: prefix.as_str().to_owned(),
            max_lag: Duration::from_millis(ALIVE + MAX_LAG + 1000),
            ..L2Options::new(&address)
        };
        let limits = ClassLimits {
            // Fewer than there are, so that all tiers have something to do.
            entries: KEYS as usize / 2,
            ..ClassLimits::default()
        };
        let following = Following {
            heartbeat: Duration::from_millis(500),
            ..Following::default()
        };
        let builder = StateCache::builder()
            .connection(&parameters)
            .l2(l2)
            .class("config", limits)
            .following(following);
        App {
            cache: runtime.block_on(builder.connect()).unwrap(),
            seen: Arc::default(),
        }
    };
    // One hears of changes from PostgreSQL, the other from Redis.
    let apps = [client(false), client(true)];
    let (log, numbers, answers, over) = (
        Arc::<Log>::default(),
        Arc::<AtomicU64>::default(),
        Arc::<[AtomicU64; 3]>::default(),
        Arc::new(AtomicBool::new(false)),
    );
    let mut dice = Dice::new(7);
    let mut kills = [0; 4];
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    for (app, of) in apps.iter().zip(0..) {
        for number in 0..WRITERS {
            let seed = of * 1000 + number;
            let task = write(
                app.clone(),
                seed,
                log.clone(),
                numbers.clone(),
                over.clone(),
            );
            writers.push(runtime.spawn(task));
        }
        for number in 0..READERS {
            let task = read(
                app.clone(),
                of * 1000 + 500 + number,
                log.clone(),
                answers.clone(),
                over.clone(),
            );
            readers.push(runtime.spawn(task));
        }
    }
    let start = Instant::now();
    while start.elapsed() < time {
        std::thread::sleep(Duration::from_millis(300 + dice.roll(1500)));
        let what = dice.roll(4) as usize;
        kills[what] += 1;
        match what {
            0 => session.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                    AND pid <> pg_backend_pid() AND random() < 0.4",
            ),
            1 => {
                feeder.kill();
                std::thread::sleep(Duration::from_millis(dice.roll(3000)));
                feeder = Feeder::start(&parameters, &address, options);
            }
            2 => {
                redis.kill();
                std::thread::sleep(Duration::from_millis(dice.roll(1500)));
                redis.revive();
            }
            _ => {
                // Sessions that go on for a moment without a postmaster, or none.
                match dice.roll(2) {
                    0 => server.kill_postmaster(),
                    _ => server.kill_everything(),
                }
                std::thread::sleep(Duration::from_millis(dice.roll(1000)));
                server.start();
                session = server.connect();
            }
        }
    }
    eventually("all tiers and the writers to take part", || {
        log.lock().unwrap().len() > 100 && answers.iter().all(|it| it.load(Ordering::SeqCst) > 0)
    });
    over.store(true, Ordering::SeqCst);
    let mut found = Found::default();
    for reader in readers {
        let of_one = runtime.block_on(reader).unwrap();
        found.failures += of_one.failures;
        for (tier, ages) in of_one.ages {
            found.ages.entry(tier).or_default().extend(ages);
        }
    }
    for writer in writers {
        runtime.block_on(writer).unwrap();
    }
    let writes = log.lock().unwrap().len();
    println!(
        "{writes} writes; killed: connections {}, feeder {}, Redis {}, PostgreSQL {}",
        kills[0], kills[1], kills[2], kills[3]
    );
    println!("reads that failed: {}", found.failures);
    for (tier, ages) in &mut found.ages {
        ages.sort();
        println!(
            "{tier:?}: {} answers, {} of them not the newest: old by p50 {:?}, p99 {:?}, at most {:?}",
            answers[*tier as usize].load(Ordering::SeqCst),
            ages.len(),
            percentile(ages, 0.5),
            percentile(ages, 0.99),
            percentile(ages, 1.0),
        );
    }
    after_quiet_all_are_the_same(&runtime, &mut session, &apps, &redis);
    let mut acknowledged = BTreeMap::<String, i64>::new();
    for (key, version) in log.lock().unwrap().keys() {
        let newest = acknowledged.entry(key.clone()).or_default();
        *newest = (*newest).max(*version);
    }
    for (key, version) in acknowledged {
        let found = session.number(&format!(
            "SELECT version FROM state_head WHERE class = 'config' AND key = '{key}'"
        ));
        assert!(
            found >= version,
            "{key}: {found}, and {version} was acknowledged"
        );
    }
}

fn after_quiet_all_are_the_same(
    runtime: &Runtime,
    session: &mut postgres::Client,
    apps: &[App],
    redis: &Redis,
) {
    for n in 0..KEYS {
        let key = format!("k{n}");
        let rows = session.rows(&format!(
            "SELECT version::text, state::text FROM state_current WHERE class = 'config' AND key = '{key}'"
        ));
        let Some([version, document]) = rows.first().map(|row| [&row[0], &row[1]]) else {
            continue;
        };
        let document: Json = serde_json::from_str(document).unwrap();
        for app in apps {
            eventually("the near cache to be as the server", || {
                let Ok(Some(read)) = runtime.block_on(app.cache.get::<Json>("config", &key)) else {
                    return false;
                };
                read.version.to_string() == *version && *read == document
            });
        }
        eventually("Redis to be as the server", || {
            let name = redis.prefix.state(redis.fed_generation(), "config", &key);
            let bytes: Option<Vec<u8>> = redis.connect().get(name).unwrap();
            let value = bytes.map(|bytes| Value::read("config", &key, &bytes).unwrap());
            // What is missing is right, and a lease ends by itself.
            value.is_none_or(|value| value.version.to_string() == *version || value.version == 0)
        });
    }
}

#[test]
fn no_reader_sees_what_is_older_than_what_it_has_seen_or_written() {
    nothing_goes_back("checker", Duration::from_secs(20));
}

/// `make soak`. `STATE_CACHE_CHECKER_SECONDS` says how long, if not ten minutes.
#[test]
#[ignore = "takes ten minutes"]
fn no_reader_goes_back_in_ten_minutes() {
    let seconds = std::env::var("STATE_CACHE_CHECKER_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(600);
    nothing_goes_back("checker_soak", Duration::from_secs(seconds));
}
