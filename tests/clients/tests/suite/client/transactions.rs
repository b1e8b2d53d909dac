//! Transactions: run again as a whole, or not at all.

use super::Home;
use serde_json::json;
use state_cache_client::{Error, Isolation, Retries, SetOptions, StateCache, TransactionOptions};
use state_cache_server_tests::{Sql, eventually};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[test]
fn counters_of_many_tasks_lose_nothing() {
    let home = Home::new("client_counters");
    let retries = Retries {
        attempts: 1000,
        ..Retries::default()
    };
    let cache = home.connect(StateCache::builder().retries(retries));
    home.run(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let cache = cache.clone();
                // It can be spawned: its future is Send.
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let count = |tx: state_cache_client::Transaction| async move {
                            let (version, count) =
                                tx.get::<u64>("config", "count").await?.unwrap_or((0, 0));
                            let options = SetOptions {
                                expected_version: Some(version),
                                ..SetOptions::default()
                            };
                            tx.set_with("config", "count", &(count + 1), options).await
                        };
                        cache.transaction(count).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(
            *cache.get::<u64>("config", "count").await.unwrap().unwrap(),
            160
        );
    });
}

#[test]
fn what_meets_others_is_run_again_from_its_first_read() {
    let home = Home::new("client_retry");
    let (cache, other) = (home.client(), home.client());
    home.run(async {
        cache.set("run", "x", &json!({"step": 1})).await.unwrap();
        cache.set("run", "y", &0).await.unwrap();
        let attempts = AtomicU32::new(0);
        let options = TransactionOptions {
            batch: true,
            isolation: Isolation::ReadCommitted,
        };
        let done = cache
            .transaction_with(options, |tx| {
                let attempt = attempts.fetch_add(1, Ordering::SeqCst) + 1;
                let other = &other;
                async move {
                    let (_, x) = tx.get::<serde_json::Value>("run", "x").await?.unwrap();
                    tx.set("run", "y", &x["step"]).await?;
                    match attempt {
                        // What was read moves: only COMMIT finds out.
                        1 => other.update("run", "x", &json!({"step": 2})).await?,
                        2 => drop(
                            tx.query("DO $$ BEGIN RAISE deadlock_detected; END $$", &[])
                                .await?,
                        ),
                        _ => {}
                    }
                    Ok::<u32, Error>(attempt)
                }
            })
            .await;
        assert_eq!(done.unwrap(), 3);
        assert_eq!(*cache.get::<u32>("run", "y").await.unwrap().unwrap(), 2);
        assert_eq!(cache.stats().retried, 2);
    });
}

#[test]
fn attempts_have_a_bound_and_other_errors_none_at_all() {
    let home = Home::new("client_bound");
    let retries = Retries {
        attempts: 4,
        ..Retries::default()
    };
    let cache = home.connect(StateCache::builder().retries(retries));
    home.run(async {
        for (raise, expected) in [
            ("serialization_failure", 4),
            ("deadlock_detected", 4),
            ("division_by_zero", 1),
        ] {
            let attempts = AtomicU32::new(0);
            let result: Result<(), Error> = cache
                .transaction(|tx| {
                    attempts.fetch_add(1, Ordering::SeqCst);
                    async move {
                        // What the work makes of the error does not matter: nothing is kept.
                        let _ = tx
                            .query(&format!("DO $$ BEGIN RAISE {raise}; END $$"), &[])
                            .await;
                        Ok(())
                    }
                })
                .await;
            assert!(result.is_err(), "{raise}");
            assert_eq!(attempts.load(Ordering::SeqCst), expected, "{raise}");
        }
    });
}

#[test]
fn an_error_of_the_work_keeps_nothing() {
    let home = Home::new("client_work_error");
    let cache = home.client();
    home.run(async {
        cache.set("run", "x", &1).await.unwrap();
        let result: Result<(), Error> = cache
            .transaction(|tx| async move {
                tx.set("run", "x", &2).await?;
                Err(Error::Closed)
            })
            .await;
        assert!(matches!(result, Err(Error::Closed)));
        assert_eq!(*cache.get::<u32>("run", "x").await.unwrap().unwrap(), 1);
    });
}

#[test]
fn a_transaction_that_is_dropped_leaves_nothing_open() {
    let home = Home::new("client_dropped");
    let cache = home.connect(StateCache::builder().connections(1));
    home.run(async {
        let stuck = cache.transaction(|tx| async move {
            tx.set("run", "x", &1).await?;
            std::future::pending::<Result<(), Error>>().await
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(300), stuck)
                .await
                .is_err()
        );
        // The pool of one is not used up, and its connection is in no transaction.
        cache.set("run", "y", &1).await.unwrap();
        assert!(cache.get::<u32>("run", "x").await.unwrap().is_none());
    });
    let mut session = home.database.session();
    eventually("the transaction to be rolled back", || {
        session.number("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'")
            == 0
    });
}

#[test]
fn after_its_end_a_transaction_refuses() {
    let home = Home::new("client_over");
    let cache = home.client();
    home.run(async {
        let mut kept = None;
        cache
            .transaction(|tx| {
                kept = Some(tx.clone());
                async move { tx.set("run", "x", &1).await }
            })
            .await
            .unwrap();
        let late = kept.unwrap().set("run", "x", &2).await;
        assert!(matches!(late, Err(Error::TransactionOver)), "{late:?}");
    });
}

/// The connection ends while COMMIT is under way: nobody knows, so nothing is run again.
#[test]
fn a_commit_of_unknown_fate_is_not_run_again() {
    let home = Home::new("client_unknown");
    let cache = home.client();
    let mut session = home.database.session();
    // COMMIT waits for a lock that the session has.
    session.run(
        "CREATE TABLE gate (n int);
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON gate DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION wait();
         SELECT pg_advisory_lock(1)",
    );
    let attempts = AtomicU32::new(0);
    home.run(async {
        let work = cache.transaction(|tx| {
            attempts.fetch_add(1, Ordering::SeqCst);
            async move {
                tx.set("run", "x", &1).await?;
                tx.query("INSERT INTO gate VALUES (1)", &[]).await.map(drop)
            }
        });
        let kill = tokio::task::spawn_blocking(move || {
            eventually("COMMIT to wait", || {
                session.number(
                    "SELECT count(*) FROM pg_stat_activity
                         WHERE query = 'COMMIT' AND wait_event = 'advisory'",
                ) == 1
            });
            // The backend is told nothing that it could pass on: the network is gone.
            session.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE query = 'COMMIT' AND wait_event = 'advisory'",
            );
        });
        let result = work.await;
        kill.await.unwrap();
        let error = result.unwrap_err();
        // The server was still there to say that it had been told to stop; else nobody knows.
        assert!(!error.is_retryable(), "{error:?}");
        assert!(
            matches!(&error, Error::CommitUnknown(_)) || error.code() == Some("57P01"),
            "{error:?}"
        );
    });
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}
