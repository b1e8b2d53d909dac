//! Redis tells the near cache what has changed. Most of what stands in Redis is written by hand, so that each of its
//! states comes exactly where it is wanted.

use super::Home;
use super::redis::{Cluster, Feeder, PREFIX};
use super::stage::Stage;
use ::redis::Commands;
use serde_json::{Value as Json, json};
use state_cache_client::{L2Options, StateCache, Tier, WhileDown};
use state_cache_l2::{Compression, Value, script};
use state_cache_server_tests::{Sql, eventually};
use std::time::Duration;

fn options(address: &str) -> L2Options {
    L2Options {
        prefix: PREFIX.to_owned(),
        tracking: true,
        patience: Duration::from_secs(5),
        ..L2Options::new(address)
    }
}

impl Stage {
    /// A client whose near cache Redis keeps right, once it is sure.
    fn told(&self, while_down: WhileDown) -> StateCache {
        let builder = StateCache::builder()
            .while_down(while_down)
            .l2(options(&self.redis.address()));
        let cache = self.home.connect(builder);
        eventually("the near cache to be sure", || cache.is_sure());
        cache
    }

    /// Changes a state in PostgreSQL, and as the feeder does in Redis.
    fn set_in_both(&mut self, key: &str, n: u64) {
        self.set(key, n);
        self.redis
            .write("config", key, n, Some(&format!(r#"{{"n": {n}}}"#)));
    }

    /// Reads until the near cache answers with this.
    fn await_near(&self, cache: &StateCache, key: &str, expected: Option<Json>) {
        let expected = (expected, Tier::Near);
        eventually("the near cache to answer", || {
            self.read(cache, key) == expected
        });
    }
}

fn n(n: u64) -> Option<Json> {
    Some(json!({"n": n}))
}

#[test]
fn redis_tells_what_has_changed() {
    let mut stage = Stage::new("tracking_told");
    stage.set_in_both("x", 1);
    let cache = stage.told(WhileDown::Bypass);
    let listens = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND query ILIKE 'listen%'";
    assert_eq!(stage.session.text(listens), "0");
    stage.await_near(&cache, "x", n(1));
    stage.set_in_both("x", 2);
    stage.await_near(&cache, "x", n(2));
    // A tombstone.
    stage
        .session
        .run("SELECT state_delete('x', class => 'config')");
    stage.redis.write("config", "x", 3, None);
    stage.await_near(&cache, "x", None);
    // What is written through the client is read back at once, though nobody tells.
    stage.await_near(&cache, "x", None);
    stage
        .home
        .run(cache.set("config", "x", &json!({"n": 4})))
        .unwrap();
    assert_eq!(stage.read(&cache, "x"), (n(4), Tier::Server));
}

#[test]
fn what_redis_does_not_hold_is_not_remembered() {
    let mut stage = Stage::new("tracking_held");
    stage.set_in_both("x", 1);
    let cache = stage.told(WhileDown::Bypass);
    stage.await_near(&cache, "x", n(1));
    // Deleted, expired, turned out, or all of it flushed: nobody would tell of the next change.
    let name = stage.redis.name("config", "x");
    for command in [
        ["DEL", &name].as_slice(),
        &["PEXPIRE", &name, "1"],
        &["FLUSHALL"],
    ] {
        stage.set_in_both("x", 1);
        stage.await_near(&cache, "x", n(1));
        ::redis::cmd(command[0])
            .arg(&command[1..])
            .query::<::redis::Value>(&mut stage.redis.connect())
            .unwrap();
        eventually("the copy to be dropped", || {
            cache.peek("config", "x").is_none()
        });
        stage.redis.tell_meta(&mut stage.session, r#"["config"]"#);
        stage.redis.write("config", "x", 1, Some(r#"{"n": 1}"#));
        eventually("the near cache to be sure", || cache.is_sure());
    }
    // A class that is not in Redis.
    stage
        .session
        .run("SELECT state_set('y', '1', class => 'run')");
    for _ in 0..3 {
        let read = stage.home.run(cache.read::<Json>("run", "y")).unwrap();
        assert_eq!(read.tier, Tier::Server);
    }
    // An answer of the server, which the client fills into Redis, and then one of Redis.
    stage.set("z", 1);
    assert_eq!(stage.read(&cache, "z"), (n(1), Tier::Server));
    assert!(cache.peek("config", "z").is_none());
    stage.await_near(&cache, "z", n(1));
}

#[test]
fn without_redis_it_is_bypassed_or_says_how_old_it_is() {
    let mut stage = Stage::new("tracking_killed");
    stage.set_in_both("x", 1);
    let cache = stage.told(WhileDown::Bypass);
    let bold = stage.told(WhileDown::ServeUpTo(Duration::from_secs(3600)));
    stage.await_near(&cache, "x", n(1));
    stage.await_near(&bold, "x", n(1));
    stage.redis.kill();
    stage.set("x", 2);
    eventually("the end of the proof", || {
        !cache.is_sure() && !bold.is_sure()
    });
    assert_eq!(stage.read(&cache, "x"), (n(2), Tier::Server));
    let answer = stage.home.run(bold.read::<Json>("config", "x")).unwrap();
    assert_eq!(answer.tier, Tier::Near);
    assert!(answer.unproven.is_some());
    assert_eq!(bold.stats().unproven, 1);
    // It comes back empty, and with the same generation.
    stage.redis.revive();
    stage.redis.tell_meta(&mut stage.session, r#"["config"]"#);
    eventually("the near caches to be sure", || {
        cache.is_sure() && bold.is_sure()
    });
    for cache in [&cache, &bold] {
        assert_eq!(stage.read(cache, "x").0, n(2));
        stage.await_near(cache, "x", n(2));
    }
    stage.set_in_both("x", 3);
    stage.await_near(&cache, "x", n(3));
}

#[test]
fn without_a_feeder_nothing_is_sure() {
    let mut stage = Stage::new("tracking_feeder");
    stage.set_in_both("x", 1);
    let cache = stage.told(WhileDown::Bypass);
    stage.await_near(&cache, "x", n(1));
    stage
        .redis
        .connect()
        .del::<_, ()>(stage.redis.prefix.alive())
        .unwrap();
    stage.set("x", 2);
    eventually("the silence to be noticed", || !cache.is_sure());
    assert_eq!(stage.read(&cache, "x"), (n(2), Tier::Server));
    // Another generation, which has what the former one had: nobody tells of that one any more.
    stage.set("y", 1);
    stage.redis.write("config", "y", 1, Some(r#"{"n": 1}"#));
    stage.redis.tell_meta(&mut stage.session, r#"["config"]"#);
    stage.await_near(&cache, "y", n(1));
    stage.redis.generation = 2;
    stage.redis.tell_meta(&mut stage.session, r#"["config"]"#);
    stage.set_in_both("y", 2);
    stage.await_near(&cache, "y", n(2));
    // A feeder that only deletes would delete what is not there, and nobody would tell.
    stage
        .redis
        .connect()
        .hset::<_, _, _, ()>(stage.redis.prefix.meta(), "mode", "delete")
        .unwrap();
    eventually("the mode to be noticed", || !cache.is_sure());
    assert_eq!(stage.read(&cache, "y").0, n(2));
    assert!(cache.peek("config", "y").is_none());
}

#[test]
fn ten_thousand_keys_are_invalidated_at_once() {
    const KEYS: usize = 10_000;
    let mut stage = Stage::new("tracking_many");
    let class = "SELECT count(state_set('k' || n, '{}', class => 'config')) FROM generate_series(1, 10000) n";
    stage.session.run(class);
    let limits = state_cache_client::ClassLimits {
        entries: KEYS,
        ..state_cache_client::ClassLimits::default()
    };
    let builder = StateCache::builder()
        .class("config", limits)
        .l2(options(&stage.redis.address()));
    let cache = stage.home.connect(builder);
    eventually("the near cache to be sure", || cache.is_sure());
    let write = |version: u64, document: &str| {
        let mut pipe = ::redis::pipe();
        for n in 1..=KEYS {
            let key = format!("k{n}");
            let packing = Compression::default();
            let value = Value::document("config", &key, version, document, packing).unwrap();
            pipe.cmd("EVAL").arg(script::WRITE).arg(1);
            pipe.arg(stage.redis.name("config", &key))
                .arg(value)
                .arg(3_600_000);
        }
        pipe.query::<()>(&mut stage.redis.connect()).unwrap();
    };
    write(1, "{}");
    let held = || {
        (1..=KEYS)
            .filter(|n| cache.peek("config", &format!("k{n}")).is_some())
            .count()
    };
    eventually("all to be held", || {
        for n in 1..=KEYS {
            stage.read(&cache, &format!("k{n}"));
        }
        held() == KEYS
    });
    write(2, r#"{"n": 2}"#);
    eventually("all copies to be dropped", || held() == 0);
    for n in [1, 5000, KEYS] {
        assert_eq!(
            stage.read(&cache, &format!("k{n}")).0,
            Some(json!({"n": 2}))
        );
    }
}

#[test]
fn a_cluster_holds_the_states_and_each_node_tells() {
    const KEYS: u64 = 60;
    let home = Home::new("tracking_cluster");
    let mut session = home.database.session();
    session.run("SELECT state_class_define('config', l2_ttl => '1 hour')");
    let cluster = Cluster::start("tracking_cluster");
    let feeder = ["--heartbeat-ms", "300", "--alive-ms", "3000"];
    let addresses = cluster.addresses();
    let _feeder = Feeder::start(&home.database.parameters(), &addresses.join(","), &feeder);
    let of_cluster = |tracking| L2Options {
        addresses: addresses.clone(),
        cluster: true,
        tracking,
        ..options("")
    };
    // The one is told by Redis, the other remembers nothing.
    let told = home.connect(StateCache::builder().l2(of_cluster(true)));
    let other = home.connect(StateCache::builder().l2(of_cluster(false)));
    other.enable_near(false);
    let mut set = |n: u64| {
        session.run(&format!(
            "SELECT count(state_set('k' || k, '{{\"n\": {n}}}', class => 'config'))
             FROM generate_series(1, {KEYS}) k"
        ));
    };
    let await_all = |cache: &StateCache, n: u64, tier: Tier| {
        for k in 1..=KEYS {
            eventually("the state", || {
                let read = home.run(cache.read::<Json>("config", &format!("k{k}")));
                read.is_ok_and(|answer| {
                    let is_new = answer.document.is_some_and(|it| *it == json!({"n": n}));
                    is_new && answer.tier == tier
                })
            });
        }
    };
    set(1);
    await_all(&other, 1, Tier::L2);
    await_all(&told, 1, Tier::Near);
    for node in 0..3 {
        assert!(cluster.states(node) > 0, "node {node}");
    }
    set(2);
    await_all(&told, 2, Tier::Near);
    // Slots move while states are held.
    cluster.move_slots(500);
    set(3);
    await_all(&told, 3, Tier::Near);
    await_all(&other, 3, Tier::L2);
}
