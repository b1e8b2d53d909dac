//! What is committed is in Redis soon after.

use crate::support::*;
use redis::Commands;
use state_cache_l2::{Codec, Content, Header, Value};
use state_cache_server_tests::{Sql, eventually};

#[test]
fn changes_arrive_and_deleted_states_leave_a_tombstone() {
    let (server, mut client, redis) = servers();
    client.run("SELECT state_set('before', '{\"n\": 0}', class => 'shared')");
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    // What was there before is filled.
    await_equal(&mut client, &mut redis, "shared", true);
    client.run("SELECT state_set('a', '{\"n\": 1}', class => 'shared'), state_set('run', '{}')");
    eventually("version 1", || {
        document(&mut redis, "shared", "a").is_some()
    });
    assert_eq!(
        document(&mut redis, "shared", "a"),
        Some((1, "{\"n\": 1}".into()))
    );
    client.run("SELECT state_update('a', '{\"n\": 2}', class => 'shared')");
    eventually("version 2", || {
        document(&mut redis, "shared", "a") == Some((2, "{\"n\": 2}".into()))
    });
    client.run("SELECT state_delete('a', class => 'shared')");
    let tombstone = Value {
        version: 3,
        content: Content::Tombstone,
    };
    eventually("a tombstone", || {
        read(&mut redis, "shared", "a") == Ok(Some(tombstone.clone()))
    });
    let name = redis_key(&mut redis, "shared", "a");
    let ttl: i64 = redis.pttl(name).unwrap();
    assert!((1..=300_000).contains(&ttl), "{ttl}");
    // A class that is not in L2.
    let keys: Vec<String> = redis.keys(format!("{PREFIX}*run:run*")).unwrap();
    assert_eq!(keys, Vec::<String>::new());
    assert!(feeder.metric("delay_seconds_count") >= 3.0);
}

#[test]
fn values_live_no_longer_than_their_states() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    client.run(
        "SELECT state_set('long', '1', class => 'shared'),
            state_set('short', '1', class => 'shared', ttl => '30 seconds')",
    );
    eventually("both", || document(&mut redis, "shared", "short").is_some());
    eventually("both", || document(&mut redis, "shared", "long").is_some());
    let mut ttl = |key: &str| -> i64 {
        let name = redis_key(&mut redis, "shared", key);
        redis.pttl(name).unwrap()
    };
    assert!((1..=30_000).contains(&ttl("short")));
    assert!((500_000..=600_000).contains(&ttl("long")));
}

#[test]
fn large_documents_are_packed_as_the_class_says() {
    let (server, mut client, redis) = servers();
    client.run("SELECT state_class_define('zipped', l2_ttl => '1 hour', l2_codec => 'gzip', l2_above => 100)");
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    for class in ["shared", "zipped"] {
        client.run(&format!(
            "SELECT state_set('big', jsonb_build_object('t', repeat('abc ', 1000)), class => '{class}'),
                state_set('small', '{{\"a\": 1}}', class => '{class}')"
        ));
        await_equal(&mut client, &mut redis, class, true);
    }
    let mut codec = |class: &str, key: &str| {
        let name = redis_key(&mut redis, class, key);
        let bytes: Vec<u8> = redis.get(name).unwrap();
        (Header::read(&bytes).unwrap().codec, bytes.len())
    };
    assert_eq!(codec("shared", "small").0, Codec::Plain);
    let (packed, length) = codec("shared", "big");
    assert_eq!((packed, length < 400), (Codec::Zstd, true));
    assert_eq!(codec("zipped", "big").0, Codec::Gzip);
    assert!(
        feeder.metric("bytes_total{form=\"document\"}")
            > feeder.metric("bytes_total{form=\"stored\"}")
    );
}

#[test]
fn classes_come_and_go_while_it_runs() {
    let (server, mut client, redis) = servers();
    client.run("SELECT state_class_define('late'), state_set('a', '1', class => 'late')");
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    let first = generation(&mut redis);
    client
        .run("SELECT state_class_define('late', l2_ttl => '1 hour', channel => 'another_channel')");
    eventually("it is filled", || {
        document(&mut redis, "late", "a").is_some()
    });
    assert_eq!(
        generation(&mut redis),
        first,
        "a class that is new needs no other generation"
    );
    client.run("SELECT state_set('b', '2', class => 'late')");
    eventually("it is followed", || {
        document(&mut redis, "late", "b").is_some()
    });
    // Its values would grow old.
    client.run("SELECT state_class_define('late', l2_ttl => '0')");
    eventually("another generation", || generation(&mut redis) > first);
    client
        .run("SELECT state_set('b', '3', class => 'late'), state_set('x', '1', class => 'shared')");
    eventually("the other class", || {
        document(&mut redis, "shared", "x").is_some()
    });
    assert_eq!(read(&mut redis, "late", "b"), Ok(None));
}

#[test]
fn many_keys_at_once_are_one_catching_up() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    client.run("SELECT state_set('k' || n, to_jsonb(n), class => 'shared') FROM generate_series(1, 10000) n");
    await_equal(&mut client, &mut redis, "shared", true);
    let before = feeder.metric("catch_ups_total{why=\"invalidated\"}");
    client.run("SELECT state_set('k' || n, to_jsonb(-n), class => 'shared') FROM generate_series(1, 10000) n");
    await_equal(&mut client, &mut redis, "shared", true);
    assert!(feeder.metric("catch_ups_total{why=\"invalidated\"}") <= before + 2.0);
    client.run(
        "SELECT state_delete('k' || n, class => 'shared') FROM generate_series(1, 10000, 2) n",
    );
    await_equal(&mut client, &mut redis, "shared", true);
}

#[test]
fn changes_by_hand_arrive_too() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    client.run(
        "SELECT state_set('a', '1', class => 'shared'), state_set('b', '1', class => 'shared')",
    );
    await_equal(&mut client, &mut redis, "shared", true);
    // Each change of the loop is a version.
    for n in 2..6 {
        client.run(&format!("SELECT state_set('a', '{n}', class => 'shared')"));
    }
    eventually("version 5", || {
        document(&mut redis, "shared", "a").is_some_and(|held| held.0 == 5)
    });
    // A version that goes back.
    client.run("UPDATE state_head SET version = 3, state = '\"old\"', hash = state_hash('\"old\"') WHERE key = 'a'");
    eventually("version 3", || {
        document(&mut redis, "shared", "a") == Some((3, "\"old\"".into()))
    });
    assert!(feeder.metric("states_total{outcome=\"replaced\"}") >= 1.0);
    client.run("DELETE FROM state_head WHERE key = 'b'");
    eventually("it is gone", || {
        document(&mut redis, "shared", "b").is_none()
    });
    client.run("SELECT state_set('b', '\"anew\"', class => 'shared')");
    await_equal(&mut client, &mut redis, "shared", true);
    client.run("TRUNCATE state_head, state_snapshot");
    eventually("all is gone", || {
        document(&mut redis, "shared", "a").is_none()
    });
    client.run("SELECT state_set('a', '\"after\"', class => 'shared')");
    await_equal(&mut client, &mut redis, "shared", true);
}

#[test]
fn behind_classes_are_followed_and_a_crash_begins_a_generation() {
    let (server, mut client, redis) = servers();
    client.run("SELECT state_class_define('quick', l2_ttl => '1 hour', write_mode => 'behind')");
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    let first = generation(&mut redis);
    client.run("SELECT state_set('a', '1', class => 'quick')");
    eventually("an unwritten version", || {
        document(&mut redis, "quick", "a") == Some((1, "1".into()))
    });
    server.kill_everything();
    server.start();
    let mut client = server.connect();
    eventually("another generation", || generation(&mut redis) > first);
    client.run(
        "SELECT state_set('a', '2', class => 'quick'), state_set('b', '2', class => 'shared')",
    );
    eventually("what came after", || {
        document(&mut redis, "shared", "b").is_some()
    });
    await_equal(&mut client, &mut redis, "quick", false);
}

#[test]
fn without_preloading_it_asks_after_each_message() {
    let server = state_cache_server_tests::Server::without_extension(&["fsync = off"]);
    let mut client = server.connect();
    client.run(
        "CREATE EXTENSION state_cache; SELECT state_class_define('shared', l2_ttl => '1 hour')",
    );
    let redis = Redis::start(&[]);
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    for n in 1..5 {
        client.run(&format!("SELECT state_set('a', '{n}', class => 'shared')"));
        await_equal(&mut client, &mut redis, "shared", true);
    }
}

#[test]
fn states_that_no_client_could_read_do_not_stop_it() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut redis = redis.connect();
    // Keys that look like tags, and documents with what jsonb refuses.
    for key in ["{x}", "}{", "%7B", "a:b", "漢字", "'"] {
        client
            .execute("SELECT state_set($1, '1', class => 'shared')", &[&key])
            .unwrap();
    }
    client.run(r#"SELECT state_set_text('nul', '{"a": "\u0000"}', on_invalid => 'replace', class => 'shared')"#);
    client.run("SELECT state_set('after', '1', class => 'shared')");
    await_equal(&mut client, &mut redis, "shared", true);
}
