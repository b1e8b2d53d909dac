//! Starting, being killed, being two, and whose prefix it is.

use crate::support::*;
use redis::Commands;
use state_cache_l2::field;
use state_cache_server_tests::{Server, Sql, eventually};
use std::process::Command;

#[test]
fn a_feeder_goes_on_where_another_was_killed() {
    let (server, mut client, redis) = servers();
    let mut feeder = Feeder::start(&server.parameters(), &redis.url(), &["--fill", "false"]);
    feeder.await_alive();
    let mut connection = redis.connect();
    let first = generation(&mut connection);
    client.run("SELECT state_set('a', '1', class => 'shared')");
    eventually("a", || document(&mut connection, "shared", "a").is_some());
    feeder.kill();
    client.run(
        "SELECT state_set('a', '2', class => 'shared'), state_set('b', '1', class => 'shared')",
    );
    client.run("SELECT state_delete('b', class => 'shared')");
    eventually("readers are told", || {
        let alive = state_cache_l2::Prefix::new(PREFIX).unwrap().alive();
        !connection.exists::<_, bool>(alive).unwrap()
    });
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &["--fill", "false"]);
    feeder.await_alive();
    await_equal(&mut client, &mut connection, "shared", true);
    assert_eq!(generation(&mut connection), first);
}

#[test]
fn a_cursor_that_is_too_old_begins_a_generation() {
    let (server, mut client, redis) = servers();
    let mut feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    let mut connection = redis.connect();
    let first = generation(&mut connection);
    client.run("SELECT state_set('a', '1', class => 'shared')");
    await_equal(&mut client, &mut connection, "shared", true);
    feeder.kill();
    client
        .run("TRUNCATE state_head, state_snapshot; SELECT state_set('b', '1', class => 'shared')");
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    assert!(generation(&mut connection) > first);
    assert!(feeder.metric("generations_total{why=\"cursor\"}") >= 1.0);
    await_equal(&mut client, &mut connection, "shared", true);
    assert_eq!(read(&mut connection, "shared", "a"), Ok(None));
}

#[test]
fn more_changes_than_are_remembered_begin_a_generation() {
    let (server, mut client, redis) = servers();
    let options = ["--max-pending", "100"];
    let mut feeder = Feeder::start(&server.parameters(), &redis.url(), &options);
    feeder.await_alive();
    feeder.kill();
    client.run("SELECT state_set('k' || n, '1', class => 'shared') FROM generate_series(1, 500) n");
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &options);
    feeder.await_alive();
    assert!(feeder.metric("generations_total{why=\"cursor\"}") >= 1.0);
    await_equal(&mut client, &mut redis.connect(), "shared", true);
}

#[test]
fn a_prefix_belongs_to_one_database() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    client.run("CREATE DATABASE other");
    server
        .connect_to("other")
        .run("CREATE EXTENSION state_cache");
    let parameters = server
        .parameters()
        .replace("dbname=postgres", "dbname=other");
    let mut second = Feeder::start(&parameters, &redis.url(), &[]);
    second.await_failure();
    assert!(
        second.said().contains("belongs to another database"),
        "{}",
        second.said()
    );
    // Nor does one of a later format know what to do.
    drop(feeder);
    let mut connection = redis.connect();
    let meta = state_cache_l2::Prefix::new(PREFIX).unwrap().meta();
    connection
        .hset::<_, _, _, ()>(meta, field::FORMAT, 99)
        .unwrap();
    let mut old = Feeder::start(&server.parameters(), &redis.url(), &[]);
    old.await_failure();
    assert!(old.said().contains("of format 99"), "{}", old.said());
}

#[test]
fn a_promoted_standby_begins_a_generation() {
    let (server, mut client, redis) = servers();
    client.run("SELECT state_set('a', '1', class => 'shared')");
    let standby = server.standby();
    let hosts = format!("{},{}", server.host().display(), standby.host().display());
    let parameters = server
        .parameters()
        .replace(&server.host().display().to_string(), &hosts);
    let parameters = format!("{parameters} target_session_attrs=read-write");
    let feeder = Feeder::start(&parameters, &redis.url(), &[]);
    feeder.await_alive();
    let mut connection = redis.connect();
    await_equal(&mut client, &mut connection, "shared", true);
    let first = generation(&mut connection);
    server.kill_everything();
    let mut client = standby.connect();
    assert!(client.flag("SELECT pg_promote()"));
    eventually("another generation", || generation(&mut connection) > first);
    client.run("SELECT state_set('a', '\"promoted\"', class => 'shared')");
    await_equal(&mut client, &mut connection, "shared", true);
}

#[test]
fn configuration_comes_from_file_environment_and_arguments_and_is_read_again() {
    let (server, mut client, redis) = servers();
    let path = std::env::temp_dir().join(format!("state_cache_l2.{}.toml", redis.port));
    let write = |tombstone: u64| {
        let text = format!(
            "postgres = \"{}\"\nredis = [\"redis://wrong:1\"]\nprefix = \"{PREFIX}\"\ntombstone_ms = {tombstone}\n\
             heartbeat_ms = 200\n",
            server.parameters()
        );
        std::fs::write(&path, text).unwrap();
    };
    write(100_000);
    let port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_state-cache-l2"));
    command
        .arg("--config")
        .arg(&path)
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .env("STATE_CACHE_L2_REDIS", redis.url());
    let feeder = Feeder::run(command, port);
    feeder.await_alive();
    let mut connection = redis.connect();
    let mut ttl = |client: &mut postgres::Client, key: &str| -> i64 {
        client.run(&format!(
            "SELECT state_set('{key}', '1', class => 'shared')"
        ));
        client.run(&format!("SELECT state_delete('{key}', class => 'shared')"));
        eventually("a tombstone", || {
            read(&mut connection, "shared", key)
                .unwrap()
                .is_some_and(|value| value.version == 2)
        });
        let name = redis_key(&mut connection, "shared", key);
        connection.pttl(name).unwrap()
    };
    assert!(ttl(&mut client, "a") <= 100_000);
    write(900_000);
    signal(feeder.child.id(), "HUP");
    feeder.await_said("was read again");
    assert!(ttl(&mut client, "b") > 100_000);
    // What makes no sense changes nothing.
    std::fs::write(&path, "tombstone = 1").unwrap();
    signal(feeder.child.id(), "HUP");
    feeder.await_said("stays as it was");
    assert!(ttl(&mut client, "c") > 100_000);
    signal(feeder.child.id(), "TERM");
    let mut feeder = feeder;
    eventually("it ends", || feeder.child.try_wait().unwrap().is_some());
    assert!(feeder.child.wait().unwrap().success());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn nothing_waits_for_a_feeder_that_is_stopped() {
    let (server, mut client, redis) = servers();
    let feeder = Feeder::start(&server.parameters(), &redis.url(), &[]);
    feeder.await_alive();
    signal(feeder.child.id(), "STOP");
    for n in 0..200 {
        client.run(&format!(
            "SELECT state_set('k{}', '{n}', class => 'shared')",
            n % 20
        ));
    }
    // What Redis has is old now, and readers are told: they believe it no longer than a heartbeat promised.
    let mut connection = redis.connect();
    eventually("readers to be told", || !is_alive(&mut connection));
    signal(feeder.child.id(), "CONT");
    await_equal(&mut client, &mut connection, "shared", true);
    eventually("readers to be told", || is_alive(&mut connection));
    let _: Server = server;
}
