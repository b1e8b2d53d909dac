//! Writers, two feeders, and random kills of each part: after quiet Redis is as the tables are.

use crate::support::*;
use state_cache_server_tests::{Dice, Sql};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// `STATE_CACHE_L2_STRESS_SECONDS` says how long.
fn seconds() -> u64 {
    std::env::var("STATE_CACHE_L2_STRESS_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

#[test]
fn killed_at_random_it_is_as_the_tables_are_in_the_end() {
    let (server, mut client, mut redis) = servers();
    let options = ["--catch-up-ms", "500", "--batch", "7"];
    let start = || Feeder::start(&server.parameters(), &redis.url(), &options);
    let mut feeders = [start(), start()];
    let url = redis.url();
    let done = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        for writer in 0..4 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut client = server.connect();
                let mut dice = Dice::new(writer);
                while !done.load(Ordering::Relaxed) {
                    let (key, n) = (dice.roll(200), dice.roll(1 << 40));
                    let statement = match dice.roll(12) {
                        0 => format!("SELECT state_delete('k{key}', class => 'shared')"),
                        1 => format!(
                            "SELECT state_set('k' || n, '{n}', class => 'shared') FROM generate_series(1, 40) n"
                        ),
                        2 => format!("SELECT state_set('k{key}', '{n}', class => 'shared', ttl => '1 second')"),
                        3 => format!("DELETE FROM state_head WHERE class = 'shared' AND key = 'k{key}'"),
                        _ => format!("SELECT state_set('k{key}', '{n}', class => 'shared')"),
                    };
                    // Writers meet in a conflict now and then.
                    let _ = client.batch_execute(&statement);
                    std::thread::sleep(Duration::from_millis(dice.roll(10)));
                }
            });
        }
        let mut dice = Dice::new(99);
        let (begin, mut kills) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(seconds()) {
            std::thread::sleep(Duration::from_millis(300 + dice.roll(900)));
            kills += 1;
            match dice.roll(6) {
                0 => {
                    if dice.roll(2) == 0 {
                        redis.forget();
                    }
                    redis.kill();
                    redis.restart();
                }
                1 => {
                    let _ = redis::cmd("SAVE").query::<()>(&mut redis.connect());
                }
                _ => {
                    let n = usize::try_from(dice.roll(2)).unwrap();
                    feeders[n].kill();
                    feeders[n] = Feeder::start(&server.parameters(), &url, &options);
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        kills
    });
    println!("{kills} faults");
    // States with a ttl end, and are removed.
    std::thread::sleep(Duration::from_secs(2));
    await_equal(&mut client, &mut redis.connect(), "shared", false);
    feeders[0].await_alive();
    feeders[1].await_alive();
    await_equal(&mut client, &mut redis.connect(), "shared", false);
    assert_eq!(
        client.text("SELECT count(*) > 0 FROM state_head WHERE class = 'shared'"),
        "t"
    );
}
