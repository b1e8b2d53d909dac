//! What the worker sends, and when.

use super::{
    CHANNELS, Listener, assert_consecutive, await_told, call_worker, last_message, server, shown,
    while_nobody_can_notify,
};
use state_cache_server_tests::{Server, Sql, eventually};
use std::time::{Duration, Instant};

/// Bytes of the smallest ring.
const TINY: i64 = 16 * 1024;

#[test]
fn a_ring_that_overflows_is_told_as_one_invalidation_in_a_new_epoch() {
    let server = Server::new(&[
        "state_cache.notify = worker",
        "state_cache.notify_buffer = '16kB'",
    ]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    call_worker(&mut client);
    let (epoch, _) = last_message(&mut client);
    while_nobody_can_notify(&server, || {
        client.run(
            "DO $$ BEGIN
                FOR n IN 1..1000 LOOP
                    PERFORM state_set('k' || n, '{}');
                    COMMIT;
                END LOOP;
            END $$",
        );
        assert!(shown(&mut client, "untold").parse::<i64>().unwrap() > TINY);
        // The worker does not wait for others for long.
        eventually("the worker to say so", || {
            shown(&mut client, "last_error").contains("55P03")
        });
    });
    await_told(&mut client);
    client.run("SELECT state_set('after', '{}')");
    let heard = listener.await_version("run", "after", 1);
    assert!(
        heard[0].tells("run", "stopped", 1) && heard[0].epoch() == epoch,
        "{heard:?}"
    );
    let anew = &heard[1..];
    assert_consecutive(anew);
    assert_ne!(anew[0].epoch(), epoch);
    assert_eq!(anew[0].seq(), 1);
    let (everything, after) = anew.split_at(CHANNELS.len());
    let channels: Vec<&str> = everything.iter().map(|message| &*message.channel).collect();
    assert_eq!(channels, CHANNELS);
    assert!(everything.iter().all(|message| message.drops_everything()));
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(
        last_message(&mut client),
        (anew[0].epoch().to_owned(), after[0].seq())
    );
}

/// The ring is the server's: what others put into it is no loss of a database that is told all.
#[test]
fn another_database_that_fills_the_ring_costs_nothing() {
    let server = Server::new(&[
        "state_cache.notify = worker",
        "state_cache.notify_buffer = '16kB'",
    ]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    client.run("CREATE DATABASE other");
    let mut other = server.connect_to("other");
    other.run("CREATE EXTENSION state_cache");
    call_worker(&mut client);
    call_worker(&mut other);
    client.run("SELECT state_set('a', '{\"n\": 0}')");
    listener.await_version("run", "a", 1);
    for n in 1..=5 {
        other.run(&format!(
            "SELECT state_set('k' || k, '{{\"n\": {n}}}') FROM generate_series(1, 100) k"
        ));
        for _ in 0..10 {
            other.run("SELECT state_update('k1', jsonb_build_object('r', random()))");
            other.run("SELECT state_set('k' || k, jsonb_build_object('r', random())) FROM generate_series(1, 100) k");
        }
        await_told(&mut other);
        client.run(&format!("SELECT state_set('a', '{{\"n\": {n}}}')"));
        let heard = listener.await_version("run", "a", n + 1);
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].seq(), n as u64 + 1);
    }
}

#[test]
fn the_worker_sends_no_more_often_than_it_may() {
    const INTERVAL: Duration = Duration::from_millis(300);
    let server = Server::new(&[
        "state_cache.notify = worker",
        "state_cache.notify_interval = '300ms'",
    ]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    call_worker(&mut client);
    let (start, mut changes) = (Instant::now(), 0);
    while start.elapsed() < INTERVAL * 6 {
        changes += 1;
        client.run(&format!("SELECT state_set('a', '{{\"n\": {changes}}}')"));
    }
    let heard = listener.await_version("run", "a", changes);
    // One at the start, one for each interval that has begun since; each tells of one state only.
    let most = 1 + start.elapsed().as_millis().div_ceil(INTERVAL.as_millis());
    assert!(
        heard.len() as u128 <= most,
        "{} messages, {most} allowed",
        heard.len()
    );
    assert!(heard.len() > 1);
    assert!(
        changes > 10 * heard.len() as i64,
        "{changes} changes in {} messages",
        heard.len()
    );
    assert_consecutive(&heard);
}

/// Neither the commit nor NOTIFY may cost them a transaction id: the worker tells of them, whatever the setting.
#[test]
fn changes_that_are_left_to_the_worker_are_heard_in_every_mode_but_off() {
    let server = server(&["state_cache.flush_interval = '1h'"]);
    let (mut client, mut listener) = (server.connect(), Listener::new(&server));
    let next_id = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    for (version, mode) in ["off", "commit", "worker", "auto"].iter().enumerate() {
        let newest = 20 * (version as i64 + 1);
        // So that the worker's own transactions take no id meanwhile.
        while_nobody_can_notify(&server, || {
            let (left, id) = (client.counter("left_behind"), client.number(next_id));
            client.run(&format!("SET state_cache.notify = {mode}"));
            for n in newest - 19..=newest {
                client.run(&format!(
                    "SELECT state_set('a', '{{\"n\": {n}}}', class => 'left')"
                ));
            }
            assert_eq!(client.number(next_id), id, "{mode}");
            assert_eq!(client.counter("left_behind"), left + 20, "{mode}");
        });
        await_told(&mut client);
        client.run(&format!(
            "SET state_cache.notify = commit; SELECT state_set('end', '{{\"n\": {newest}}}')"
        ));
        let heard = listener.await_version("run", "end", version as i64 + 1);
        let told: Vec<_> = heard
            .iter()
            .filter(|message| message.class() == "left")
            .flat_map(|message| message.changes())
            .collect();
        if *mode == "off" {
            assert_eq!(told, []);
        } else {
            // The first one may have been on its way alone.
            assert_eq!(told.last(), Some(&("a".to_owned(), newest)), "{mode}");
            assert!(told.len() <= 2, "{mode}: {told:?}");
        }
        assert_consecutive(&heard);
    }
}
