//! PostgreSQL becomes another one while the feeder is halfway through writing all states anew.
//!
//! The way to Redis takes only so much until it is opened: so the feeder stands still in the middle of a write, for
//! as long as the test likes, and what it has read before arrives in Redis after the fault.

use crate::proxy::Gate;
use crate::support::*;
use redis::Commands;
use state_cache_client::{L2Options, StateCache};
use state_cache_l2::field;
use state_cache_server_tests::{Server, Sql, eventually};
use std::time::Duration;

/// States, each about a kilobyte of what compresses badly.
const STATES: usize = 400;
/// What Redis takes before it stops: about a quarter of them.
const MOST: u64 = 100_000;
/// A document that is another one for each number.
const DOCUMENT: &str =
    "(SELECT to_jsonb(string_agg(md5(n::text || part), '')) FROM generate_series(1, 30) part)";

fn set(client: &mut postgres::Client, keys: &str, from: usize, to: usize, salt: usize) {
    let document = DOCUMENT.replace("n::text", &format!("n::text || '/{salt}/'"));
    client.run(&format!(
        "SELECT state_set('{keys}' || n, {document}, class => 'shared') FROM generate_series({from}, {to}) n"
    ));
}

/// What happens to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The postmaster is killed, and started again. Nothing is lost.
    Crash,
    /// The same, and a backup from before the last commits is put back.
    SetBack,
    /// The machine is lost, and a standby is promoted that did not have the last commits.
    Promotion,
}

/// How many states a generation holds in Redis.
fn held(redis: &mut redis::Connection, generation: u64) -> usize {
    let pattern = format!("{PREFIX}{generation}:*");
    redis.keys::<_, Vec<String>>(pattern).unwrap().len()
}

/// Changes a tenth of the states, deletes some, and makes some.
fn change(client: &mut postgres::Client) {
    set(client, "k", 1, STATES / 10, 2);
    client.run("SELECT state_delete('k' || n, class => 'shared') FROM generate_series(100, 110) n");
    set(client, "new", 1, 20, 2);
}

/// Reads every state as an application does that has seen none of them: Redis answers, and as PostgreSQL would.
fn readers_are_answered_right(server: &Server, client: &mut postgres::Client, redis: &Redis) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = L2Options {
        prefix: PREFIX.to_owned(),
        patience: Duration::from_secs(30),
        ..L2Options::new(&redis.url())
    };
    let builder = StateCache::builder()
        .connection(&server.parameters())
        .l2(options);
    let cache = runtime.block_on(builder.connect()).unwrap();
    cache.enable_near(false);
    for (key, (version, document)) in tables(client, "shared") {
        eventually("Redis to be asked", || cache.is_l2_usable("shared"));
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let read = cache.read::<serde_json::Value>("shared", &key);
        let answer = runtime.block_on(read).unwrap();
        let found = answer.document.unwrap();
        assert_eq!(
            (u64::try_from(found.version), &*found),
            (Ok(version), &document),
            "{key} from {:?}",
            answer.tier
        );
    }
    assert!(cache.stats().l2.hits > 0, "{:?}", cache.stats());
}

/// The feeder is halfway through filling when the fault happens. What it has read before arrives in Redis after that,
/// and belongs to a generation that nobody reads any more.
fn epoch_changes_while_it_fills(fault: Fault) {
    let (server, mut client, redis) = servers();
    set(&mut client, "k", 1, STATES, 1);
    let mut parameters = server.parameters();
    let standby = (fault == Fault::Promotion).then(|| server.standby());
    if let Some(standby) = &standby {
        let hosts = [server.host(), standby.host()].map(|host| host.display().to_string());
        parameters = format!("{parameters} target_session_attrs=read-write")
            .replace(&hosts[0], &hosts.join(","));
        standby.stop_following();
    }
    if fault == Fault::SetBack {
        server.back_up_data("past");
    }
    change(&mut client);
    let gate = Gate::new(&redis, MOST);
    let mut feeder = Feeder::patient(&parameters, &gate.url());
    gate.await_full();
    let mut connection = redis.connect();
    let first = generation(&mut connection);
    let written = held(&mut connection, first);
    assert!((1..STATES).contains(&written), "{written} states");
    assert_ne!(
        meta(&mut connection, field::FILLED).as_deref(),
        Some("done")
    );
    assert_eq!(feeder.metric("fill_done"), 0.0);
    match fault {
        Fault::Crash => {
            server.kill_postmaster();
            server.start();
        }
        Fault::SetBack => {
            server.kill_everything();
            server.put_back("past");
            server.start();
        }
        Fault::Promotion => {
            server.kill_everything();
            standby.as_ref().unwrap().promote();
        }
    }
    let server = standby.as_ref().unwrap_or(&server);
    let mut client = server.connect();
    gate.open();
    eventually("another generation", || generation(&mut connection) > first);
    eventually("it to be filled", || {
        meta(&mut connection, field::FILLED).as_deref() == Some("done")
    });
    assert!(feeder.metric("generations_total{why=\"epoch\"}") >= 1.0);
    assert_eq!(feeder.metric("fill_done"), 1.0);
    let states = tables(&mut client, "shared").len();
    assert_eq!(feeder.metric("filled_states"), states as f64);
    await_equal(&mut client, &mut connection, "shared", true);
    assert!(
        held(&mut connection, first) >= written,
        "nothing of it is left to be read"
    );
    readers_are_answered_right(server, &mut client, &redis);
    // The same versions once more, with another content where the first one was lost.
    change(&mut client);
    await_equal(&mut client, &mut connection, "shared", true);
    feeder.kill();
}

#[test]
fn postgresql_crashes_while_a_generation_is_filled() {
    epoch_changes_while_it_fills(Fault::Crash);
}

#[test]
fn postgresql_is_set_back_while_a_generation_is_filled() {
    epoch_changes_while_it_fills(Fault::SetBack);
}

#[test]
fn a_standby_is_promoted_while_a_generation_is_filled() {
    epoch_changes_while_it_fills(Fault::Promotion);
}
