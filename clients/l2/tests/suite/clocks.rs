//! Hosts whose clocks differ: those of the feeder and of Redis are days away from PostgreSQL's, which alone says when
//! a state ends.

use crate::support::*;
use redis::Commands;
use state_cache_server_tests::{Clock, Server, Sql, eventually};
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;

fn states_end_by_the_clock_of_postgresql(of_feeder: i64, of_redis: i64) {
    let server = Server::new(&["fsync = off"]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('shared', l2_ttl => '1 day')");
    let redis = Redis::on_host(&[], Some(Clock::wrong_by(of_redis)));
    let mut connection = redis.connect();
    let (at, _): (i64, i64) = redis::cmd("TIME").query(&mut connection).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    assert!(
        (at - now - of_redis).abs() < HOUR,
        "the clock of Redis is right"
    );
    let host = Clock::wrong_by(of_feeder);
    let mut feeder = Feeder::on_host(&server.parameters(), &redis.url(), &host);
    feeder.await_alive();
    // The number of the first generation is the feeder's clock, in milliseconds.
    let first = generation(&mut connection);
    let at = i64::try_from(first).unwrap() / 1000;
    assert!(
        (at - now - of_feeder).abs() < HOUR,
        "the clock of the feeder is right"
    );
    client.run(
        "SELECT state_set('long', '1', class => 'shared'),
            state_set('hours', '1', class => 'shared', ttl => '2 hours'),
            state_set('moment', '1', class => 'shared', ttl => '1 second')",
    );
    for (key, most) in [("long", DAY), ("hours", 2 * HOUR)] {
        eventually("the state", || {
            document(&mut connection, "shared", key).is_some()
        });
        let name = redis_key(&mut connection, "shared", key);
        let left: i64 = connection.pttl(name).unwrap();
        assert!(
            (most - HOUR..=most).contains(&(left / 1000)),
            "{key}: {left} ms"
        );
    }
    eventually("the end of a state", || {
        document(&mut connection, "shared", "moment").is_none()
    });
    await_equal(&mut client, &mut connection, "shared", false);
    // A feeder on a host whose clock is behind that of the first one begins the next generation: a later one.
    feeder.kill();
    client.run(
        "TRUNCATE state_head, state_snapshot; SELECT state_set('new', '1', class => 'shared')",
    );
    let host = Clock::wrong_by(of_feeder - 2 * DAY);
    let feeder = Feeder::on_host(&server.parameters(), &redis.url(), &host);
    feeder.await_alive();
    assert!(generation(&mut connection) > first);
    await_equal(&mut client, &mut connection, "shared", true);
}

#[test]
fn the_feeder_is_ahead_and_redis_behind() {
    states_end_by_the_clock_of_postgresql(DAY, -DAY);
}

#[test]
fn the_feeder_is_behind_and_redis_ahead() {
    states_end_by_the_clock_of_postgresql(-DAY, DAY);
}
