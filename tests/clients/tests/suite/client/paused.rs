//! An application server that stands still for longer than its proofs hold: its runtime is kept busy, or its process
//! is stopped. What changes meanwhile waits unread in its connections. It never answers by what it held before,
//! unless it was told that it may, and then it says how old the answer may be. Nor does it matter what its host's
//! clock says.
//!
//! The process is this program itself, which runs [`an_application_server`] and nothing else. It reads what it is
//! told to, so that a test can put the question into its input while it is stopped: it is the first thing it finds.

use super::Home;
use super::redis::PREFIX;
use super::stage::Stage;
use serde_json::Value as Json;
use state_cache_client::{Builder, Following, L2Options, StateCache, Tier, WhileDown};
use state_cache_clients_tests::Running;
use state_cache_server_tests::{Clock, Sql, eventually};
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Noticed soon: a proof holds for 1.7 seconds.
const SOON: Following = Following {
    heartbeat: Duration::from_millis(200),
    patience: Duration::from_millis(500),
    catch_up: Duration::from_secs(600),
};
/// Longer than a proof holds that is noticed soon, and longer than Redis is believed to be as it was.
const PAUSE: Duration = Duration::from_millis(2500);
/// Under these names the process is told where the database and Redis are, who tells it of changes, and that it may
/// take the time that a client takes by default.
const PARAMETERS: &str = "STATE_CACHE_TEST_PARAMETERS";
const REDIS: &str = "STATE_CACHE_TEST_REDIS";
const LINK: &str = "STATE_CACHE_TEST_LINK";
const SLOW: &str = "STATE_CACHE_TEST_SLOW";

/// The number in a document.
fn number(document: Option<&Json>) -> u64 {
    document.map_or(0, |it| it["n"].as_u64().unwrap())
}

/// A client in a runtime that runs only while somebody waits for it.
struct Still {
    runtime: tokio::runtime::Runtime,
    cache: StateCache,
}

impl Still {
    fn new(home: &Home, while_down: WhileDown) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut made = None;
        // What is noticed soon is noticed on a busy machine too: then it connects once more.
        eventually("the client to connect", || {
            let builder = StateCache::builder()
                .connection(&home.database.parameters())
                .following(SOON)
                .while_down(while_down);
            made = runtime.block_on(builder.connect()).ok();
            made.is_some()
        });
        let cache = made.unwrap();
        Self { runtime, cache }
    }

    /// The answer that the client gives first: number, tier, and how long it has been unproven. On a busy machine an
    /// answer of the server may take longer than the client waits for it.
    fn read(&self) -> (u64, Tier, Option<Duration>) {
        let mut found = None;
        eventually("an answer", || {
            let read = self.cache.read::<Json>("config", "x");
            found = self.runtime.block_on(read).ok();
            found.is_some()
        });
        let answer = found.unwrap();
        let n = number(answer.document.as_deref());
        (n, answer.tier, answer.unproven)
    }

    fn await_near(&self, n: u64) {
        eventually("the near cache to answer", || {
            // Lets the runtime run: a hit waits for nothing.
            self.runtime.block_on(async {
                tokio::time::sleep(Duration::from_millis(10)).await;
            });
            self.read() == (n, Tier::Near, None)
        });
    }
}

#[test]
fn a_runtime_that_was_kept_busy_answers_nothing_old() {
    let home = Home::new("paused_runtime");
    let mut session = home.database.session();
    let mut set = |n: u64| {
        session.run(&format!(
            "SELECT state_set('x', '{{\"n\": {n}}}', class => 'config')"
        ));
    };
    set(1);
    let clients = [
        WhileDown::Bypass,
        WhileDown::ServeUpTo(Duration::from_secs(1)),
        WhileDown::ServeUpTo(Duration::from_secs(3600)),
    ]
    .map(|while_down| Still::new(&home, while_down));
    // One after the other: while one of them runs, the others stand still.
    for (place, client) in clients.iter().enumerate() {
        let before = place as u64 + 1;
        client.await_near(before);
        set(before + 1);
        // Time is the fault here.
        std::thread::sleep(PAUSE);
        let (n, tier, unproven) = client.read();
        if place < 2 {
            assert_eq!((n, tier), (before + 1, Tier::Server), "{place}");
        } else {
            // With leave it says how old the answer may be.
            assert_eq!((n, tier), (before, Tier::Near));
            assert!(unproven.is_some_and(|age| age >= PAUSE), "{unproven:?}");
        }
        client.await_near(before + 1);
    }
}

/// What the process does: it answers each line of its input, the key of a state, by what it has read.
#[test]
#[ignore = "a process of other tests"]
fn an_application_server() {
    let Ok(parameters) = std::env::var(PARAMETERS) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let builder = || -> Builder {
        let builder = StateCache::builder().connection(&parameters);
        let builder = match std::env::var_os(SLOW) {
            None => builder.following(SOON),
            Some(_) => builder,
        };
        let link = std::env::var(LINK).unwrap();
        if link == "listen" {
            return builder;
        }
        builder.l2(L2Options {
            prefix: PREFIX.to_owned(),
            tracking: link == "redis",
            max_lag: Duration::ZERO,
            ..L2Options::new(&std::env::var(REDIS).unwrap())
        })
    };
    let mut made = None;
    eventually("the client to connect", || {
        made = runtime.block_on(builder().connect()).ok();
        made.is_some()
    });
    let cache = made.unwrap();
    cache.enable_near(std::env::var(LINK).unwrap() != "far");
    // Ends what the test harness has begun to say.
    println!("\nready");
    for key in std::io::stdin().lock().lines() {
        let key = key.unwrap();
        match runtime.block_on(cache.read::<Json>("config", &key)) {
            Ok(answer) => {
                let n = number(answer.document.as_deref());
                println!("{key} {n} {:?}", answer.tier);
            }
            Err(error) => println!("{key} failed {error}"),
        }
    }
}

/// Starts the process, by a clock of its own if there is one.
fn start(stage: &Stage, link: &str, is_slow: bool, clock: Option<&Clock>) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("client::paused::an_application_server")
        .env(PARAMETERS, stage.home.database.parameters())
        .env(REDIS, stage.redis.address())
        .env(LINK, link)
        .stdin(Stdio::piped());
    if is_slow {
        command.env(SLOW, "yes");
    }
    if let Some(clock) = clock {
        clock.set(&mut command);
    }
    let mut server = Running::start(command);
    server.says("ready");
    server
}

/// What it answers first: number and tier.
fn ask(server: &mut Running) -> (u64, String) {
    loop {
        server.tell("x");
        if let Some(answer) = answer(server) {
            return answer;
        }
    }
}

/// Its next answer; `None` if it has none: a connection may have ended, or be slow.
fn answer(server: &mut Running) -> Option<(u64, String)> {
    let answer = server.says("x ");
    let (n, tier) = answer.split_once(' ').unwrap();
    Some((n.parse().ok()?, tier.to_owned()))
}

fn await_answer(server: &mut Running, expected: (u64, &str)) {
    eventually("the application server to answer so", || {
        let (n, tier) = ask(server);
        (n, tier.as_str()) == expected
    });
}

/// A process that is stopped while a state changes, twice; its connections end in the second pause. Redis has the
/// version from before, and no feeder: whoever still believes in what it has is wrong.
fn stopped(name: &str, link: &str, pause: Duration, is_slow: bool) {
    let mut stage = Stage::new(name);
    stage.set("x", 1);
    stage.redis.write("config", "x", 1, Some(r#"{"n": 1}"#));
    let mut server = start(&stage, link, is_slow, None);
    await_answer(&mut server, (1, "Near"));
    for (n, connections_end) in [(2, false), (3, true)] {
        server.signal("STOP");
        eventually("the process to be stopped", || server.is_stopped());
        let stopped = Instant::now();
        stage.redis.end_alive();
        stage.set("x", n);
        if connections_end {
            stage.session.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
        }
        // Time is the fault here.
        std::thread::sleep(pause.saturating_sub(stopped.elapsed()));
        for _ in 0..3 {
            server.tell("x");
        }
        server.signal("CONT");
        for _ in 0..3 {
            if let Some((found, tier)) = answer(&mut server) {
                assert_eq!(found, n, "from {tier}");
            }
        }
        // It catches up by itself.
        let document = format!(r#"{{"n": {n}}}"#);
        stage.redis.write("config", "x", n, Some(&document));
        stage.redis.tell_meta(&mut stage.session, r#"["config"]"#);
        await_answer(&mut server, (n, "Near"));
    }
}

#[test]
fn a_stopped_process_that_postgresql_tells_answers_nothing_old() {
    stopped("paused_listen", "listen", PAUSE, false);
}

#[test]
fn a_stopped_process_with_three_tiers_answers_nothing_old() {
    stopped("paused_both", "both", PAUSE, false);
}

#[test]
fn a_stopped_process_that_redis_tells_answers_nothing_old() {
    stopped("paused_redis", "redis", PAUSE, false);
}

#[test]
fn a_wrong_clock_neither_keeps_a_state_too_long_nor_ends_it_early() {
    const DAY: i64 = 86_400;
    for (name, seconds) in [("clock_behind", -DAY), ("clock_ahead", DAY)] {
        let mut stage = Stage::new(name);
        let clock = Clock::wrong_by(seconds);
        // Without a near cache: what that holds nobody writes into Redis.
        let mut server = start(&stage, "far", false, Some(&clock));
        for n in 1..=2 {
            stage.session.run(&format!(
                "SELECT state_set('x', '{{\"n\": {n}}}', class => 'config', ttl => '30 minutes')"
            ));
            eventually("the fill", || {
                ask(&mut server);
                let value = stage.redis.value("config", "x");
                value.is_some_and(|value| value.version == n)
            });
            let left = stage.redis.left("config", "x");
            assert!((600_000..=1_800_000).contains(&left), "{name}: {left}");
        }
    }
}

/// `make soak`.
#[test]
#[ignore = "takes six minutes"]
fn after_a_minute_nothing_old_is_answered_with_what_a_client_has_by_default() {
    for link in ["listen", "both", "redis"] {
        stopped(
            &format!("paused_minute_{link}"),
            link,
            Duration::from_secs(60),
            true,
        );
    }
}
