//! A checker over real runs: two application servers, Redis and a feeder, 16 writers and as many readers, while
//! connections, the feeder and Redis are killed. No reader sees a version older than one that its application server
//! has seen or written; what it sees is what was written in this version; after quiet, every tier equals the server.
//!
//! The feeder here does what `state_cache_l2` asks of one in the shortest way: each start is a new generation.

use super::Home;
use super::redis::Redis;
use ::redis::{Commands, Script};
use postgres::fallible_iterator::FallibleIterator;
use serde_json::{Value as Json, json};
use state_cache_client::{Checkpoint, ClassLimits, Following, L2Options, StateCache, Tier};
use state_cache_l2::{Compression, FORMAT, Prefix, Value, field, script};
use state_cache_server_tests::{Dice, RaiseOnDrop, Sql, eventually};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEYS: u64 = 40;
const WRITERS: u64 = 8;
const READERS: u64 = 8;
/// How long a feeder that is gone counts as alive, in milliseconds.
const ALIVE: u64 = 1000;
const TTL: u64 = 60_000;

type Failure = Box<dyn std::error::Error>;

/// Feeds Redis until it is told to leave, or something fails. It leaves nothing in order.
fn feed(
    parameters: &str,
    address: &str,
    prefix: &Prefix,
    generation: u64,
    over: &AtomicBool,
) -> Result<(), Failure> {
    let mut listener = postgres::Client::connect(parameters, postgres::NoTls)?;
    let mut client = postgres::Client::connect(parameters, postgres::NoTls)?;
    let mut redis = ::redis::Client::open(address)?.get_connection()?;
    listener.batch_execute("LISTEN config_changed; LISTEN cache_invalidate")?;
    let owner: String = client
        .query_one(
            "SELECT (pg_control_system()).system_identifier || '/' || oid || '/public' FROM pg_database
             WHERE datname = current_database()",
            &[],
        )?
        .try_get(0)?;
    // A generation begins empty, and is current at once.
    let fields = [
        (field::FORMAT, FORMAT.to_string()),
        (field::OWNER, owner),
        (field::GENERATION, generation.to_string()),
        (field::CLASSES, r#"["config"]"#.to_owned()),
        (field::MODE, "script".to_owned()),
    ];
    redis.hset_multiple::<_, _, _, ()>(prefix.meta(), &fields)?;
    let write = Script::new(script::WRITE);
    while !over.load(Ordering::SeqCst) {
        redis.pset_ex::<_, _, ()>(prefix.alive(), "1", ALIVE)?;
        let heard = listener
            .notifications()
            .timeout_iter(Duration::from_millis(50))
            .next()?;
        let Some(heard) = heard else { continue };
        let message: Json = serde_json::from_str(heard.payload())?;
        let Some(changes) = message["changes"].as_array() else {
            return Err("what has changed, nobody says: a new generation".into());
        };
        for change in changes {
            let key = change["key"].as_str().unwrap();
            let row = client.query_opt(
                "SELECT version, state::text FROM state_get_if_newer($1, 0, 'config')",
                &[&key],
            )?;
            let Some(row) = row else { continue };
            let (version, document): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            let value = Value::document(
                "config",
                key,
                version as u64,
                &document,
                Compression::default(),
            )
            .unwrap();
            let mut call = write.key(prefix.state(generation, "config", key));
            call.arg(value).arg(TTL);
            call.invoke::<::redis::Value>(&mut redis)?;
        }
    }
    Ok(())
}

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
    /// How often a tier has answered, and how old what was not the newest was.
    by_tier: BTreeMap<Tier, (u64, Vec<Duration>)>,
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

async fn read(app: App, seed: u64, log: Arc<Log>, over: Arc<AtomicBool>) -> Found {
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
                let (answers, ages) = found.by_tier.entry(answer.tier).or_default();
                *answers += 1;
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
    let home = Home::new(name);
    let parameters = home.database.parameters();
    let mut session = home.database.session();
    session.run("SELECT state_class_define('config', l2_ttl => '1 minute')");
    let redis = Mutex::new(Redis::start(name));
    let (address, prefix) = {
        let redis = redis.lock().unwrap();
        (redis.address(), redis.prefix.clone())
    };
    let client = || {
        let l2 = L2Options {
            prefix: prefix.as_str().to_owned(),
            max_lag: Duration::from_millis(ALIVE + 2000),
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
            .l2(l2)
            .class("config", limits)
            .following(following);
        App {
            cache: home.connect(builder),
            seen: Arc::default(),
        }
    };
    let apps = [client(), client()];
    let (log, numbers, over) = (
        Arc::<Log>::default(),
        Arc::<AtomicU64>::default(),
        Arc::new(AtomicBool::new(false)),
    );
    let (feeding, stop_feeding, generation) = (
        AtomicBool::new(true),
        AtomicBool::new(false),
        AtomicU64::new(1),
    );
    let mut dice = Dice::new(7);
    let mut kills = [0; 3];
    std::thread::scope(|threads| {
        let _feeder_ends = RaiseOnDrop(&stop_feeding);
        let (address, prefix, parameters) = (&address, &prefix, &parameters);
        let (feeding, stop_feeding, generation) = (&feeding, &stop_feeding, &generation);
        threads.spawn(move || {
            while !stop_feeding.load(Ordering::SeqCst) {
                if feeding.swap(true, Ordering::SeqCst) {
                    let generation = generation.fetch_add(1, Ordering::SeqCst);
                    let leave = AtomicBool::new(false);
                    std::thread::scope(|inner| {
                        let _leaves = RaiseOnDrop(&leave);
                        let leave = &leave;
                        let feeder = inner.spawn(move || {
                            // Whatever fails, the next one begins anew.
                            let _ = feed(parameters, address, prefix, generation, leave);
                        });
                        while feeding.load(Ordering::SeqCst)
                            && !stop_feeding.load(Ordering::SeqCst)
                            && !feeder.is_finished()
                        {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
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
                writers.push(home.runtime.spawn(task));
            }
            for number in 0..READERS {
                let task = read(
                    app.clone(),
                    of * 1000 + 500 + number,
                    log.clone(),
                    over.clone(),
                );
                readers.push(home.runtime.spawn(task));
            }
        }
        let start = Instant::now();
        while start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(300 + dice.roll(1500)));
            let what = dice.roll(3) as usize;
            kills[what] += 1;
            match what {
                0 => session.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                        AND pid <> pg_backend_pid() AND random() < 0.4",
                ),
                1 => feeding.store(false, Ordering::SeqCst),
                _ => {
                    let mut redis = redis.lock().unwrap();
                    redis.kill();
                    std::thread::sleep(Duration::from_millis(dice.roll(1500)));
                    redis.revive();
                }
            }
        }
        over.store(true, Ordering::SeqCst);
        let mut found = Found::default();
        for reader in readers {
            let of_one = home.run(reader).unwrap();
            found.failures += of_one.failures;
            for (tier, (answers, ages)) in of_one.by_tier {
                let all = found.by_tier.entry(tier).or_default();
                all.0 += answers;
                all.1.extend(ages);
            }
        }
        for writer in writers {
            home.run(writer).unwrap();
        }
        let writes = log.lock().unwrap().len();
        println!(
            "{writes} writes; killed: connections {}, feeder {}, Redis {}",
            kills[0], kills[1], kills[2]
        );
        println!("reads that failed: {}", found.failures);
        for (tier, (answers, ages)) in &found.by_tier {
            let mut ages = ages.clone();
            ages.sort();
            println!(
                "{tier:?}: {answers} answers, {} of them not the newest: old by p50 {:?}, p99 {:?}, at most {:?}",
                ages.len(),
                percentile(&ages, 0.5),
                percentile(&ages, 0.99),
                percentile(&ages, 1.0),
            );
        }
        for tier in Tier::ALL {
            assert!(
                found
                    .by_tier
                    .get(&tier)
                    .is_some_and(|(answers, _)| *answers > 0),
                "{tier:?} has not taken part"
            );
        }
        assert!(writes > 100);
        after_quiet_all_are_the_same(
            &home,
            &mut session,
            &apps,
            &redis.lock().unwrap(),
            generation,
        );
    });
}

fn after_quiet_all_are_the_same(
    home: &Home,
    session: &mut postgres::Client,
    apps: &[App],
    redis: &Redis,
    generation: &AtomicU64,
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
                let Ok(Some(read)) = home.run(app.cache.get::<Json>("config", &key)) else {
                    return false;
                };
                read.version.to_string() == *version && *read == document
            });
        }
        eventually("Redis to be as the server", || {
            let name = redis
                .prefix
                .state(generation.load(Ordering::SeqCst) - 1, "config", &key);
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

/// `make soak`.
#[test]
#[ignore = "takes ten minutes"]
fn no_reader_goes_back_in_ten_minutes() {
    nothing_goes_back("checker_soak", Duration::from_secs(600));
}
