//! How often the worker writes: once per interval, however often a state has changed.

use super::{LONG, await_written, reload, server, unwritten};
use postgres::Client;
use state_cache_server_tests::{Sql, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const STATES: usize = 10;
const CHANGES: usize = 1000;
/// The default of `state_cache.flush_interval`.
const INTERVAL: Duration = Duration::from_secs(2);
/// What a flush may take on a machine that does much else.
const ONE_FLUSH: Duration = Duration::from_secs(5);

/// Has the worker, which is idle, report what it has counted.
fn wake_worker(client: &mut Client) {
    client.run("SELECT pg_reload_conf()");
}

/// Rows of the heads that the server has inserted or updated. What a session has counted shows late.
fn rows_written(client: &mut Client) -> i64 {
    client.number(
        "SELECT n_tup_ins + n_tup_upd FROM pg_stat_all_tables WHERE relid = 'state_head'::regclass",
    )
}

/// The age of the oldest change that is not written.
fn oldest(client: &mut Client) -> Duration {
    let ms = client.number(
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - since) * 1000), 0)::bigint FROM \
            state_cache_unwritten",
    );
    Duration::from_millis(ms.max(0).unsigned_abs())
}

#[test]
fn a_thousand_changes_of_ten_states_in_ten_seconds_are_sixty_rows_at_most() {
    let server = server(&[]);
    let mut client = server.connect();
    for state in 0..STATES {
        client.run(&format!(
            "SELECT state_set('doc {state}', '0', class => 'left')"
        ));
    }
    await_written(&mut client);
    wake_worker(&mut client);
    eventually("the statistics", || {
        rows_written(&mut client) >= STATES as i64
    });
    let through = client.counter("written_through");
    let (flushed, rows) = (client.counter("behind_flushed"), rows_written(&mut client));
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let (elapsed, oldest) = std::thread::scope(|threads| {
        let watcher = threads.spawn(|| {
            let (mut client, mut longest) = (server.connect(), Duration::ZERO);
            while !over.load(Ordering::SeqCst) {
                longest = longest.max(oldest(&mut client));
                std::thread::sleep(Duration::from_millis(50));
            }
            longest
        });
        for change in 0..CHANGES {
            let due = Duration::from_millis(10 * change as u64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            client.run(&format!(
                "SELECT state_set('doc {}', '{}', class => 'left')",
                change % STATES,
                change + 1
            ));
        }
        let elapsed = start.elapsed();
        over.store(true, Ordering::SeqCst);
        (elapsed, watcher.join().unwrap())
    });
    await_written(&mut client);
    // Ten seconds have five intervals; what was changed in the last one is written once more.
    let intervals = elapsed.as_secs_f64() / INTERVAL.as_secs_f64();
    let most = STATES as i64 * (intervals.floor() as i64 + 1);
    let flushed = client.counter("behind_flushed") - flushed;
    println!(
        "{CHANGES} changes in {elapsed:?}: {flushed} states written, the oldest unwritten change was {oldest:?} old"
    );
    assert!(
        (STATES as i64..=most).contains(&flushed),
        "{flushed} of at most {most}"
    );
    let mut counted = 0;
    wake_worker(&mut client);
    eventually("the statistics", || {
        counted = rows_written(&mut client) - rows;
        counted >= flushed
    });
    assert!(counted <= most, "{counted} rows");
    // States that never rest are written all the same.
    assert!(oldest < INTERVAL + ONE_FLUSH, "{oldest:?}");
    assert_eq!(client.counter("written_through"), through);
}

#[test]
fn a_new_interval_holds_from_the_reload_on() {
    let server = server(&[LONG]);
    let mut client = server.connect();
    let through = client.counter("written_through");
    client.run("SELECT state_set('doc', '1', class => 'left')");
    assert_eq!(unwritten(&mut client), ["doc"]);
    reload(&server, "state_cache.flush_interval = '10ms'");
    await_written(&mut client);
    // Reloads under load, from the shortest interval to the longest: nothing is lost, and all is written in
    // the end.
    for n in 0..40 {
        let interval = ["10ms", "1h", "300ms"][n % 3];
        reload(
            &server,
            &format!("state_cache.flush_interval = '{interval}'"),
        );
        client.run(&format!(
            "SELECT count(state_set('doc ' || i, '{n}', class => 'left')) FROM generate_series(1, 150) i"
        ));
    }
    reload(&server, "state_cache.flush_interval = '10ms'");
    await_written(&mut client);
    let wrong = "SELECT count(*) FROM generate_series(1, 150) i
        LEFT JOIN state_current c ON c.class = 'left' AND c.key = 'doc ' || i WHERE c.state IS DISTINCT FROM '39'";
    assert_eq!(client.number(wrong), 0);
    assert_eq!(client.counter("written_through"), through);
}
