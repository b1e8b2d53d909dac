//! Redis between the near cache and the server. What stands in Redis is written by hand, so that each of its
//! states comes exactly where it is wanted.

use super::stage::Stage;
use serde_json::{Value as Json, json};
use state_cache_client::{L2Options, StateCache, Tier};
use state_cache_l2::{Content, Value};
use state_cache_server_tests::{Sql, eventually};
use std::time::Duration;

impl Stage {
    /// A client that remembers answers of Redis, or not. Nothing of it is used before it has looked at Redis.
    fn remembering(&self, max_lag: Duration) -> StateCache {
        let options = L2Options {
            prefix: self.redis.prefix.as_str().to_owned(),
            max_lag,
            ..L2Options::new(&self.redis.address())
        };
        let cache = self.home.connect(StateCache::builder().l2(options));
        eventually("Redis to be usable", || cache.is_l2_usable("config"));
        cache
    }

    fn forgetful(&self) -> StateCache {
        self.remembering(Duration::from_secs(3600))
    }
}

fn n(n: u32) -> Option<Json> {
    Some(json!({"n": n}))
}

#[test]
fn what_one_server_has_read_another_finds_in_redis() {
    let mut tiers = Stage::new("tiers_fill");
    tiers.set("x", 1);
    let (a, b) = (tiers.forgetful(), tiers.forgetful());
    assert_eq!(tiers.read(&a, "x"), (n(1), Tier::Server));
    assert_eq!(tiers.read(&b, "x"), (n(1), Tier::L2));
    let stats = b.stats().l2;
    assert_eq!((stats.hits, stats.misses), (1, 0));
    // Large ones are packed.
    let long = "x".repeat(5000);
    tiers.session.run(&format!(
        "SELECT state_set('long', '{{\"n\": \"{long}\"}}', class => 'config')"
    ));
    tiers.read(&a, "long");
    assert_eq!(tiers.read(&b, "long"), (Some(json!({"n": long})), Tier::L2));
    let stats = b.stats().l2;
    assert!(stats.wire_bytes < stats.bytes / 10, "{stats:?}");
    // What is not there is known to be not there only if it was: of a state that never was there is no version.
    assert_eq!(tiers.read(&a, "never"), (None, Tier::Server));
    assert_eq!(
        tiers.redis.bytes("config", "never"),
        None,
        "no lease is left behind"
    );
    tiers
        .session
        .run("SELECT state_delete('x', class => 'config')");
    tiers.redis.write("config", "x", 2, None);
    let c = tiers.forgetful();
    assert_eq!(tiers.read(&c, "x"), (None, Tier::L2));
}

/// Whoever writes it: under a lease, or over an older version.
#[test]
fn a_fill_ends_when_its_state_does() {
    let mut tiers = Stage::new("tiers_ends");
    let cache = tiers.forgetful();
    cache.enable_near(false);
    for version in 1..=2 {
        tiers.session.run(&format!(
            "SELECT state_set('x', '{{\"n\": {version}}}', class => 'config', ttl => '10 minutes')"
        ));
        eventually("the fill", || {
            // It has seen the version, so it writes over what Redis has.
            cache.enable_l2(false);
            tiers.read(&cache, "x");
            cache.enable_l2(true);
            tiers.read(&cache, "x");
            let value = tiers.redis.value("config", "x");
            value.is_some_and(|value| value.version == version)
        });
        let left = tiers.redis.left("config", "x");
        assert!((1..=600_000).contains(&left), "version {version}: {left}");
    }
    // One that has no end of its own is held for as long as its class says.
    tiers.set("y", 1);
    eventually("the fill", || {
        tiers.read(&cache, "y");
        let value = tiers.redis.value("config", "y");
        value.is_some_and(|value| value.version == 1)
    });
    let left = tiers.redis.left("config", "y");
    assert!(left > 1_800_000, "{left}");
}

#[test]
fn redis_is_not_believed_below_what_was_seen() {
    let mut tiers = Stage::new("tiers_seen");
    for version in 1..=3 {
        tiers.set("x", version);
    }
    let cache = tiers.forgetful();
    cache.enable_near(false);
    cache.enable_l2(false);
    assert_eq!(tiers.read(&cache, "x"), (n(3), Tier::Server));
    tiers.redis.write("config", "x", 2, Some(r#"{"n": 2}"#));
    cache.enable_l2(true);
    assert_eq!(tiers.read(&cache, "x"), (n(3), Tier::Server));
    // The reader has put it right, so the next one finds it.
    assert_eq!(tiers.redis.value("config", "x").unwrap().version, 3);
    assert_eq!(tiers.read(&cache, "x"), (n(3), Tier::L2));
}

#[test]
fn what_was_written_is_read_back_whatever_redis_says() {
    let mut tiers = Stage::new("tiers_written");
    tiers.set("x", 1);
    tiers.redis.write("config", "x", 1, Some(r#"{"n": 1}"#));
    let cache = tiers.forgetful();
    cache.enable_near(false);
    assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::L2));
    tiers
        .home
        .run(cache.set("config", "x", &json!({"n": 2})))
        .unwrap();
    assert_eq!(tiers.read(&cache, "x"), (n(2), Tier::Server));
}

#[test]
fn what_was_heard_is_not_older_in_redis() {
    let mut tiers = Stage::new("tiers_heard");
    tiers.set("x", 1);
    tiers.redis.write("config", "x", 1, Some(r#"{"n": 1}"#));
    let cache = tiers.remembering(Duration::ZERO);
    assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::L2));
    assert!(cache.peek("config", "x").is_some(), "it is remembered");
    // The feeder does not come to write this one.
    tiers.set("x", 2);
    eventually("the message", || cache.peek("config", "x").is_none());
    assert_eq!(tiers.read(&cache, "x"), (n(2), Tier::Server));
}

#[test]
fn answers_of_redis_are_remembered_once_no_change_can_be_old_news() {
    let mut tiers = Stage::new("tiers_news");
    tiers.set("x", 1);
    tiers.redis.write("config", "x", 1, Some(r#"{"n": 1}"#));
    let cache = tiers.remembering(Duration::from_secs(2));
    // The client has just begun: Redis may hold what was changed before it listened.
    assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::L2));
    assert!(cache.peek("config", "x").is_none());
    eventually("it to be remembered", || {
        tiers.read(&cache, "x");
        cache.peek("config", "x").is_some()
    });
    tiers.session.run("SELECT state_invalidate('*', 'config')");
    eventually("the message", || cache.peek("config", "x").is_none());
    tiers.read(&cache, "x");
    assert!(
        cache.peek("config", "x").is_none(),
        "which states have changed, nobody has said"
    );
}

#[test]
fn what_is_no_value_is_dropped_and_counted() {
    let mut tiers = Stage::new("tiers_foreign");
    tiers.set("x", 1);
    tiers.redis.write("config", "other", 7, Some(r#"{"n": 7}"#));
    tiers.redis.write("config", "x", 1, Some(r#"{"n": 1}"#));
    let good = tiers.redis.bytes("config", "x").unwrap();
    let other = tiers.redis.bytes("config", "other").unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut newer_format = good.clone();
    newer_format[4] = 9;
    let bad = [
        b"hello".to_vec(),
        good[..good.len() - 1].to_vec(),
        flipped,
        newer_format,
        other,
        Vec::new(),
    ];
    let cache = tiers.forgetful();
    cache.enable_near(false);
    for (n_th, bytes) in bad.iter().enumerate() {
        tiers.redis.put("config", "x", bytes);
        assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::Server), "{n_th}");
        assert_eq!(cache.stats().l2.errors, n_th as u64 + 1);
        // It is dropped; the next read fills.
        assert_eq!(tiers.read(&cache, "x").0, n(1));
        assert_eq!(
            tiers.redis.value("config", "x").map(|it| it.version),
            Some(1),
            "{n_th}"
        );
    }
}

#[test]
fn a_fill_whose_lease_was_taken_away_is_dropped() {
    let mut tiers = Stage::new("tiers_lease");
    tiers.set("x", 1);
    let cache = tiers.forgetful();
    // The read of the server waits; meanwhile the state changes, and the feeder writes.
    let mut blocker = tiers.home.database.session();
    blocker.run("BEGIN; LOCK TABLE state_class IN ACCESS EXCLUSIVE MODE");
    let reader = {
        let cache = cache.clone();
        tiers
            .home
            .runtime
            .spawn(async move { cache.read::<Json>("config", "x").await.unwrap().tier })
    };
    eventually("the lease", || {
        tiers
            .redis
            .value("config", "x")
            .is_some_and(|it| it.content == Content::Lease)
    });
    tiers.redis.write("config", "x", 2, Some(r#"{"n": 2}"#));
    blocker.run("COMMIT");
    assert_eq!(tiers.home.run(reader).unwrap(), Tier::Server);
    assert_eq!(
        tiers.redis.value("config", "x").unwrap().version,
        2,
        "the older one was not put back"
    );
}

#[test]
fn a_lease_of_somebody_else_is_waited_for_a_little_and_never_taken() {
    let mut tiers = Stage::new("tiers_waiting");
    tiers.set("x", 1);
    let cache = tiers.forgetful();
    let lease = Value::lease("config", "x", [7; 16]);
    tiers.redis.put("config", "x", &lease);
    assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::Server));
    assert_eq!(tiers.redis.bytes("config", "x"), Some(lease));
    assert!(cache.stats().l2.timed > 1, "it looked again");
}

#[test]
fn redis_of_others_or_without_a_feeder_is_not_asked() {
    let mut tiers = Stage::new("tiers_owner");
    tiers.set("x", 1);
    tiers.redis.write("config", "x", 1, Some(r#"{"n": 1}"#));
    let cache = tiers.forgetful();
    cache.enable_near(false);
    let meta = tiers.redis.prefix.meta();
    let breaks: [&[&str]; 4] = [
        &["HSET", &meta, "owner", "1/2/public"],
        &["HSET", &meta, "format", "2"],
        &["HSET", &meta, "classes", "[]"],
        &["DEL", &tiers.redis.prefix.alive()],
    ];
    for words in breaks {
        assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::L2));
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
            .query::<::redis::Value>(&mut tiers.redis.connect())
            .unwrap();
        eventually("it to be noticed", || !cache.is_l2_usable("config"));
        assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::Server), "{words:?}");
        tiers.redis.tell_meta(&mut tiers.session, r#"["config"]"#);
        eventually("it to be usable", || cache.is_l2_usable("config"));
    }
}

#[test]
fn without_redis_everything_goes_on() {
    let mut tiers = Stage::new("tiers_killed");
    tiers.set("x", 1);
    let cache = tiers.forgetful();
    cache.enable_near(false);
    tiers.read(&cache, "x");
    assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::L2));
    tiers.redis.kill();
    assert_eq!(tiers.read(&cache, "x"), (n(1), Tier::Server));
    tiers.redis.revive();
    tiers.redis.generation = 2;
    tiers.redis.tell_meta(&mut tiers.session, r#"["config"]"#);
    eventually("it to be usable", || cache.is_l2_usable("config"));
    eventually("the new generation", || {
        tiers.read(&cache, "x") == (n(1), Tier::L2)
    });
    assert_eq!(tiers.redis.value("config", "x").unwrap().version, 1);
}
