//! What happens to Redis.

use crate::support::*;
use redis::Commands;
use state_cache_l2::Unread;
use state_cache_server_tests::{Sql, eventually};

#[test]
fn redis_restarted_empty_begins_a_generation() {
    let (server, mut client, mut redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    client.run("SELECT state_set('k' || n, '1', class => 'shared') FROM generate_series(1, 50) n");
    await_equal(&mut client, &mut redis.connect(), "shared", true);
    let first = generation(&mut redis.connect());
    redis.kill();
    client.run("SELECT state_set('k1', '\"while away\"', class => 'shared')");
    redis.restart();
    let mut connection = redis.connect();
    eventually("another generation", || generation(&mut connection) > first);
    await_equal(&mut client, &mut connection, "shared", true);
}

#[test]
fn redis_set_back_is_caught_up() {
    let (server, mut client, mut redis) = servers();
    let feeder = Feeder::start(
        &server.parameters(),
        &redis.url(),
        &["--catch-up-ms", "300"],
    );
    feeder.await_alive();
    client.run("SELECT state_set('k' || n, '1', class => 'shared') FROM generate_series(1, 50) n");
    await_equal(&mut client, &mut redis.connect(), "shared", true);
    let first = generation(&mut redis.connect());
    redis::cmd("SAVE")
        .query::<()>(&mut redis.connect())
        .unwrap();
    client.run("SELECT state_set('k' || n, '2', class => 'shared') FROM generate_series(1, 20) n");
    client.run("SELECT state_delete('k30', class => 'shared')");
    await_equal(&mut client, &mut redis.connect(), "shared", true);
    // The cursor moves beyond what was saved.
    std::thread::sleep(std::time::Duration::from_millis(700));
    redis.kill();
    redis.restart();
    let mut connection = redis.connect();
    await_equal(&mut client, &mut connection, "shared", true);
    assert_eq!(
        generation(&mut connection),
        first,
        "a past state of a single server is gone on with"
    );
}

#[test]
fn values_that_are_not_ours_are_written_over() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut connection = redis.connect();
    client.run("SELECT state_set('k' || n, '1', class => 'shared') FROM generate_series(1, 5) n");
    await_equal(&mut client, &mut connection, "shared", true);
    let name = |n: u32| redis_key(&mut redis.connect(), "shared", &format!("k{n}"));
    let (foreign, list, newer, cut, flipped) = (name(1), name(2), name(3), name(4), name(5));
    connection.set::<_, _, ()>(&foreign, "hello").unwrap();
    connection.del::<_, ()>(&list).unwrap();
    connection.lpush::<_, _, ()>(&list, 1).unwrap();
    connection.setrange::<_, _, ()>(&newer, 4, b"\x09").unwrap();
    let bytes: Vec<u8> = connection.get(&cut).unwrap();
    connection
        .set::<_, _, ()>(&cut, &bytes[..bytes.len() - 1])
        .unwrap();
    // A version that nobody has written.
    connection
        .setrange::<_, _, ()>(&flipped, 9, b"\x01")
        .unwrap();
    assert_eq!(read(&mut connection, "shared", "k5"), Err(Unread::Checksum));
    client.run("SELECT state_set('k' || n, '2', class => 'shared') FROM generate_series(1, 5) n");
    eventually("the list is gone", || {
        redis::cmd("TYPE")
            .arg(&list)
            .query::<String>(&mut connection)
            .unwrap()
            == "string"
    });
    await_equal(&mut client, &mut connection, "shared", true);
    assert!(feeder.metric("states_total{outcome=\"over_foreign\"}") >= 4.0);
    assert!(feeder.metric("states_total{outcome=\"replaced\"}") >= 1.0);
}

#[test]
fn a_full_redis_holds_nothing_old() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(
        &server.parameters(),
        &redis.url(),
        &["--catch-up-ms", "300"],
    );
    feeder.await_alive();
    let mut connection = redis.connect();
    client.run("SELECT state_set('k' || n, '1', class => 'shared') FROM generate_series(1, 20) n");
    await_equal(&mut client, &mut connection, "shared", true);
    redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "1"])
        .query::<()>(&mut connection)
        .unwrap();
    for n in 1..=20 {
        client.run(&format!("SELECT state_set('k{n}', '2', class => 'shared')"));
    }
    eventually("nothing old is there", || {
        differences(&mut client, &mut connection, "shared", false).is_empty()
    });
    eventually("it was counted", || {
        feeder.metric("states_total{outcome=\"full\"}") >= 20.0
    });
    redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "0"])
        .query::<()>(&mut connection)
        .unwrap();
    feeder.await_alive();
    client.run("SELECT state_set('k' || n, '3', class => 'shared') FROM generate_series(1, 20) n");
    await_equal(&mut client, &mut connection, "shared", true);
}

#[test]
fn a_redis_that_does_not_answer_holds_up_nobody() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    redis.signal("STOP");
    let start = std::time::Instant::now();
    for n in 0..100 {
        client.run(&format!("SELECT state_set('k', '{n}', class => 'shared')"));
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(60));
    feeder.await_said("connecting anew");
    assert!(feeder.page("/healthz").unwrap().starts_with("HTTP/1.1 503"));
    redis.signal("CONT");
    feeder.await_alive();
    await_equal(&mut client, &mut redis.connect(), "shared", true);
}

#[test]
fn without_scripts_it_deletes_only() {
    let (server, mut client, _) = servers();
    let redis = Redis::start(&[
        "--rename-command",
        "EVAL",
        "",
        "--rename-command",
        "EVALSHA",
        "",
    ]);
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut connection = redis.connect();
    assert_eq!(meta(&mut connection, "mode").as_deref(), Some("delete"));
    let name = redis_key(&mut connection, "shared", "a");
    connection.set::<_, _, ()>(&name, "whatever").unwrap();
    client.run("SELECT state_set('a', '1', class => 'shared')");
    eventually("it is deleted", || {
        !connection.exists::<_, bool>(&name).unwrap()
    });
}

#[test]
fn an_old_protocol_will_do() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &["--resp", "2"]);
    feeder.await_alive();
    client.run("SELECT state_set('a', '1', class => 'shared')");
    await_equal(&mut client, &mut redis.connect(), "shared", true);
}
