//! The batcher: few writes, in order, nothing lost and nothing twice.

use super::{Home, aside};
use serde_json::{Value, json};
use state_cache_client::{BatcherOptions, Error};
use state_cache_server_tests::{Dice, Sql};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Writes only when asked to.
fn on_demand() -> BatcherOptions {
    BatcherOptions {
        interval: Duration::from_secs(3600),
        ..BatcherOptions::default()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_changes_of_a_state_are_one_version_in_one_transaction() {
    let home = Home::new("batcher_one");
    let cache = home.client();
    home.run(async {
        let batcher = cache.batcher(on_demand());
        for n in 0..100 {
            batcher
                .update("config", "x", &json!({"n": n}))
                .await
                .unwrap();
            batcher.append("config", "y", &["log"], &n).await.unwrap();
            batcher.set("config", "z", &n).await.unwrap();
        }
        let refused = batcher.flush().await.unwrap_err();
        assert_eq!(
            refused.refused.len(),
            100,
            "nothing is at the path of y: {refused}"
        );
        assert!(
            refused
                .refused
                .iter()
                .all(|it| it.key == "y" && matches!(it.error, Error::Missing(_)))
        );
        for (key, expected) in [("x", json!({"n": 99})), ("z", json!(99))] {
            let read = cache.get::<Value>("config", key).await.unwrap().unwrap();
            assert_eq!((&*read, read.version), (&expected, 1), "{key}");
        }
        batcher.set("config", "a", &1).await.unwrap();
        batcher.set("config", "b", &1).await.unwrap();
        batcher.flush().await.unwrap();
    });
    let mut session = home.database.session();
    assert_eq!(
        session.number("SELECT count(DISTINCT xmin::text) FROM state_head WHERE key IN ('a', 'b')"),
        1,
        "one transaction"
    );
}

#[test]
fn changes_of_a_state_keep_their_order() {
    let home = Home::new("batcher_order");
    let cache = home.client();
    home.run(async {
        let batcher = cache.batcher(BatcherOptions {
            changes: 7,
            ..on_demand()
        });
        let mut dice = Dice::new(1);
        let mut expected = json!({"log": []});
        batcher.set("config", "x", &expected).await.unwrap();
        for n in 0..500 {
            match dice.roll(4) {
                0 => {
                    batcher
                        .update("config", "x", &json!({"u": n, "m": {"only": n}}))
                        .await
                        .unwrap();
                    expected["u"] = json!(n);
                    expected["m"] = json!({"only": n});
                }
                1 => {
                    batcher
                        .merge("config", "x", &json!({"m": {"a": n, "b": null}}))
                        .await
                        .unwrap();
                    if !expected["m"].is_object() {
                        expected["m"] = json!({});
                    }
                    expected["m"]["a"] = json!(n);
                }
                2 => {
                    batcher.append("config", "x", &["log"], &n).await.unwrap();
                    expected["log"].as_array_mut().unwrap().push(json!(n));
                }
                _ => {
                    expected = json!({"log": [n]});
                    batcher.set("config", "x", &expected).await.unwrap();
                }
            }
        }
        batcher.close(MINUTE).await.unwrap();
        assert_eq!(
            *cache.get::<Value>("config", "x").await.unwrap().unwrap(),
            expected
        );
    });
}

#[test]
fn it_writes_at_its_interval_and_at_its_size() {
    let home = Home::new("batcher_when");
    let cache = home.client();
    home.run(async {
        let soon = cache.batcher(BatcherOptions {
            interval: Duration::from_millis(20),
            ..BatcherOptions::default()
        });
        soon.set("config", "x", &1)
            .await
            .unwrap()
            .written()
            .await
            .unwrap();
        let full = cache.batcher(BatcherOptions {
            changes: 3,
            ..on_demand()
        });
        let mut receipts = Vec::new();
        for key in ["a", "b", "c"] {
            receipts.push(full.set("config", key, &1).await.unwrap());
        }
        for receipt in receipts {
            receipt.written().await.unwrap();
        }
        let heavy = cache.batcher(BatcherOptions {
            bytes: 10_000,
            ..on_demand()
        });
        heavy
            .set("config", "d", &"x".repeat(10_000))
            .await
            .unwrap()
            .written()
            .await
            .unwrap();
    });
}

#[test]
fn who_gives_too_much_waits() {
    let home = Home::new("batcher_pressure");
    let cache = home.client();
    let mut session = home.database.session();
    session.run("BEGIN; LOCK TABLE state_head IN ACCESS EXCLUSIVE MODE");
    home.run(async {
        let batcher = cache.batcher(BatcherOptions {
            capacity: 20_000,
            interval: Duration::from_millis(1),
            ..BatcherOptions::default()
        });
        let document = "x".repeat(1_000);
        let mut given = 0;
        let fill = async {
            loop {
                batcher
                    .set("config", &format!("k{given}"), &document)
                    .await
                    .unwrap();
                given += 1;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(1), fill)
                .await
                .is_err(),
            "it never waited"
        );
        assert!((5..20).contains(&given), "{given}");
        aside(|| session.run("COMMIT"));
        batcher.flush().await.unwrap();
        // What waits is empty again.
        for n in 0..10 {
            batcher
                .set("config", &format!("l{n}"), &document)
                .await
                .unwrap();
        }
        batcher.close(MINUTE).await.unwrap();
    });
    let written = home
        .database
        .session()
        .number("SELECT count(*) FROM state_head WHERE key LIKE 'l%'");
    assert_eq!(written, 10);
}

#[test]
fn a_bad_change_is_named_and_takes_no_others_with_it() {
    let home = Home::new("batcher_bad");
    let cache = home.client();
    home.run(async {
        let batcher = cache.batcher(on_demand());
        let mut receipts = Vec::new();
        for n in 0..50 {
            let key = format!("k{n}");
            receipts.push((
                n,
                batcher.set("config", &key, &json!({"n": n})).await.unwrap(),
            ));
            if n % 10 == 3 {
                receipts.push((
                    100 + n,
                    batcher.append("config", &key, &["n"], &1).await.unwrap(),
                ));
                receipts.push((
                    n,
                    batcher
                        .update("config", &key, &json!({"after": true}))
                        .await
                        .unwrap(),
                ));
            }
        }
        batcher.set("no class", "x", &1).await.unwrap();
        let error = batcher.flush().await.unwrap_err();
        assert_eq!(error.refused.len(), 1, "the others have receipts: {error}");
        assert_eq!(
            (
                error.refused[0].class.as_str(),
                error.refused[0].key.as_str()
            ),
            ("no class", "x")
        );
        assert!(matches!(error.refused[0].error, Error::Unknown(_)));
        for (n, receipt) in receipts {
            let written = receipt.written().await;
            assert_eq!(written.is_ok(), n < 100, "{n}: {written:?}");
        }
        for n in 0..50 {
            let read = cache
                .get::<Value>("config", &format!("k{n}"))
                .await
                .unwrap()
                .unwrap();
            let expected = if n % 10 == 3 {
                json!({"n": n, "after": true})
            } else {
                json!({"n": n})
            };
            assert_eq!(*read, expected);
        }
    });
}

/// Each change appends its number: what is there tells whether one was lost, doubled, or out of order.
#[test]
fn nothing_is_lost_or_doubled_while_connections_are_killed() {
    let home = Home::new("batcher_killed");
    let cache = home.client();
    let over = Arc::new(AtomicBool::new(false));
    let killer = {
        let (over, mut session) = (over.clone(), home.database.session());
        std::thread::spawn(move || {
            let mut killed = 0;
            while !over.load(Ordering::SeqCst) {
                killed += session.number(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()
                         AND state <> 'idle' AND backend_type = 'client backend'",
                );
                std::thread::sleep(Duration::from_millis(7));
            }
            killed
        })
    };
    let unknown = home.run(async {
        for key in 0..4 {
            while cache
                .set("config", &format!("k{key}"), &json!({"log": []}))
                .await
                .is_err()
            {}
        }
        let batcher = cache.batcher(BatcherOptions {
            interval: Duration::from_millis(3),
            ..BatcherOptions::default()
        });
        let start = Instant::now();
        let mut receipts = Vec::new();
        let mut given = [0; 4];
        while start.elapsed() < Duration::from_secs(4) {
            for (key, n) in given.iter_mut().enumerate() {
                let receipt = batcher
                    .append("config", &format!("k{key}"), &["log"], n)
                    .await
                    .unwrap();
                receipts.push((key, *n, receipt));
                *n += 1;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        over.store(true, Ordering::SeqCst);
        batcher.close(MINUTE).await.unwrap();
        let mut unknown = Vec::new();
        for (key, n, receipt) in receipts {
            match receipt.written().await {
                Ok(()) => {}
                // It could be asked for only in an epoch that is known.
                Err(Error::CommitUnknown(_)) => unknown.push((key, n)),
                Err(error) => panic!("{key} {n}: {error:?}"),
            }
        }
        for (key, given) in given.iter().enumerate() {
            let read = cache
                .get::<Value>("config", &format!("k{key}"))
                .await
                .unwrap()
                .unwrap();
            let log: Vec<i64> = serde_json::from_value(read["log"].clone()).unwrap();
            assert!(
                log.is_sorted() && log.windows(2).all(|pair| pair[0] < pair[1]),
                "k{key}: {log:?}"
            );
            let missing = (0..*given).filter(|n| !log.contains(&i64::from(*n)));
            for n in missing {
                assert!(unknown.contains(&(key, n)), "k{key} has lost {n}");
            }
        }
        unknown.len()
    });
    let killed = killer.join().unwrap();
    println!("{killed} connections killed, {unknown} changes of unknown fate");
    assert!(killed > 5, "only {killed} connections were killed");
}

#[test]
fn dropped_without_a_close_it_writes_what_it_has() {
    let home = Home::new("batcher_dropped");
    let cache = home.client();
    home.run(async {
        let batcher = cache.batcher(on_demand());
        let receipt = batcher.set("config", "x", &1).await.unwrap();
        drop(batcher);
        receipt.written().await.unwrap();
    });
}

#[test]
fn a_close_that_runs_out_of_time_names_what_is_not_written() {
    let home = Home::new("batcher_late");
    let cache = home.client();
    let mut session = home.database.session();
    session.run("BEGIN; LOCK TABLE state_head IN ACCESS EXCLUSIVE MODE");
    home.run(async {
        let batcher = cache.batcher(on_demand());
        batcher.set("config", "x", &1).await.unwrap();
        let receipt = batcher.set("config", "y", &1).await.unwrap();
        let error = batcher.close(Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(error.refused.len(), 1);
        assert_eq!(error.refused[0].key, "x");
        assert!(receipt.written().await.is_err());
        aside(|| session.run("COMMIT"));
    });
}
