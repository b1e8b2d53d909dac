//! Reads and single writes.

use super::{Home, aside};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state_cache_client::{Checkpoint, Error, SetOptions, StateCache, StatementCache, Tier};
use state_cache_server_tests::{Sql, eventually};
use std::time::Duration;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Limits {
    rows: u32,
    names: Vec<String>,
}

fn limits(rows: u32) -> Limits {
    Limits {
        rows,
        names: vec!["a".to_owned()],
    }
}

#[test]
fn documents_are_values_of_ones_own_types() {
    let home = Home::new("client_types");
    for statements in [StatementCache::PerConnection, StatementCache::None] {
        let cache = home.connect(StateCache::builder().statement_cache(statements));
        home.run(async {
            cache.delete("config", "limits").await.unwrap();
            assert!(
                cache
                    .get::<Limits>("config", "limits")
                    .await
                    .unwrap()
                    .is_none()
            );
            cache.set("config", "limits", &limits(3)).await.unwrap();
            let read = cache
                .get::<Limits>("config", "limits")
                .await
                .unwrap()
                .unwrap();
            assert_eq!(*read, limits(3));
            // Of another type: refused, and as good as before.
            let wrong = cache.get::<Vec<u8>>("config", "limits").await;
            assert!(matches!(wrong, Err(Error::Document(_))), "{wrong:?}");
            assert_eq!(
                cache
                    .get::<Value>("config", "limits")
                    .await
                    .unwrap()
                    .unwrap()["rows"],
                3
            );
            cache
                .update("config", "limits", &json!({"rows": 4}))
                .await
                .unwrap();
            cache
                .append("config", "limits", &["names"], "b")
                .await
                .unwrap();
            cache
                .merge("config", "limits", &json!({"deep": {"er": 1}}))
                .await
                .unwrap();
            cache
                .update_section("config", "limits", "deep", &json!({"est": 2}))
                .await
                .unwrap();
            let whole = cache
                .get::<Value>("config", "limits")
                .await
                .unwrap()
                .unwrap();
            let expected = json!({"rows": 4, "names": ["a", "b"], "deep": {"er": 1, "est": 2}});
            assert_eq!(*whole, expected);
            assert!(
                cache
                    .touch("config", "limits", Duration::from_secs(3600))
                    .await
                    .unwrap()
            );
            assert!(cache.delete("config", "limits").await.unwrap());
            assert!(!cache.delete("config", "limits").await.unwrap());
            assert!(
                cache
                    .get::<Limits>("config", "limits")
                    .await
                    .unwrap()
                    .is_none()
            );
        });
    }
}

#[test]
fn a_second_read_makes_no_round_trip_and_shares_the_value() {
    let home = Home::new("client_hits");
    let cache = home.client();
    home.run(async { cache.set("config", "x", &limits(1)).await.unwrap() });
    eventually("a hit", || {
        let answer = home.run(cache.read::<Limits>("config", "x")).unwrap();
        answer.tier == Tier::Near && answer.unproven.is_none()
    });
    let value = || {
        let read = home.run(cache.get::<Limits>("config", "x")).unwrap();
        read.unwrap().into_value()
    };
    let before = cache.stats();
    assert!(std::sync::Arc::ptr_eq(&value(), &value()));
    let after = cache.stats();
    assert_eq!(after.near.hits - before.near.hits, 2);
    assert_eq!(after.server.hits, before.server.hits);
    cache.enable_near(false);
    assert_eq!(
        home.run(cache.read::<Limits>("config", "x")).unwrap().tier,
        Tier::Server
    );
}

#[test]
fn what_was_written_is_read_back_at_once() {
    let home = Home::new("client_read_back");
    let (cache, other) = (home.client(), home.client());
    home.run(async {
        let reader = tokio::spawn({
            let cache = cache.clone();
            async move {
                // Keeps reads under way that a write might join.
                for _ in 0..2000 {
                    cache.get::<u32>("config", "n").await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        for n in 0..300_u32 {
            if n % 3 == 0 {
                other.set("config", "n", &(1000 + n)).await.unwrap();
            }
            cache.set("config", "n", &n).await.unwrap();
            assert_eq!(*cache.get::<u32>("config", "n").await.unwrap().unwrap(), n);
        }
        reader.await.unwrap();
    });
}

#[test]
fn reads_of_the_same_state_at_the_same_moment_are_one() {
    let home = Home::new("client_flights");
    let cache = home.client();
    home.database.session().run("SELECT state_set('x', '1')");
    // The read waits for the table, and the others for the read.
    let mut blocker = home.database.session();
    blocker.run("BEGIN; LOCK TABLE state_class IN ACCESS EXCLUSIVE MODE");
    let before = cache.stats();
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let cache = cache.clone();
            home.runtime
                .spawn(async move { cache.get::<u32>("run", "x").await.unwrap().map(|it| *it) })
        })
        .collect();
    eventually("all to ask", || cache.stats().joined - before.joined == 49);
    blocker.run("COMMIT");
    for reader in readers {
        assert_eq!(home.run(reader).unwrap(), Some(1));
    }
    assert_eq!(cache.stats().server.hits - before.server.hits, 1);
}

#[test]
fn many_are_read_in_one_go_in_the_order_asked_for() {
    let home = Home::new("client_many");
    let cache = home.client();
    home.database
        .session()
        .run("SELECT state_set('k' || n, to_jsonb(n)) FROM generate_series(1, 9) n");
    home.run(async {
        cache.get::<u32>("run", "k2").await.unwrap();
        let before = cache.stats();
        let read = cache
            .get_many::<u32>("run", &["k3", "none", "k2", "k9", "k3"])
            .await
            .unwrap();
        let values: Vec<_> = read.into_iter().map(|it| it.map(|it| *it)).collect();
        assert_eq!(values, [Some(3), None, Some(2), Some(9), Some(3)]);
        assert!(
            cache.stats().server.timed - before.server.timed <= 1,
            "one round trip"
        );
    });
}

#[test]
fn paths_come_from_the_copy_or_alone() {
    let home = Home::new("client_paths");
    let cache = home.client();
    let session = |sql: &str| home.database.session().run(sql);
    session(r#"SELECT state_set('x', '{"a": [{"b": 1}, {"b": 2}], "n": null}')"#);
    let asked: [(&[&str], Option<Value>); 6] = [
        (&["a", "0", "b"], Some(json!(1))),
        (&["a", "-1", "b"], Some(json!(2))),
        (&["a", "7"], None),
        (&["n"], Some(Value::Null)),
        (&["none", "x"], None),
        (&[], Some(json!({"a": [{"b": 1}, {"b": 2}], "n": null}))),
    ];
    for held in [false, true] {
        if held {
            eventually("it to be held", || {
                home.run(cache.get_text("run", "x")).unwrap();
                cache.peek("run", "x").is_some()
            });
        }
        for (path, expected) in &asked {
            let read: Option<Value> = home.run(cache.get_path("run", "x", path)).unwrap();
            assert_eq!(&read, expected, "{path:?}, held: {held}");
        }
        assert_eq!(
            home.run(cache.get_path::<Value>("run", "absent", &["a"]))
                .unwrap(),
            None
        );
    }
}

#[test]
fn a_version_that_a_colleague_names_is_read_or_said_not_to_be_there() {
    let home = Home::new("client_at_least");
    let cache = home.client();
    let mut session = home.database.session();
    home.run(async {
        cache.set("run", "x", &1).await.unwrap();
        cache.get::<u32>("run", "x").await.unwrap();
        aside(|| session.run("SET state_cache.notify = off; SELECT state_set('x', '2')"));
        let read = cache
            .get_at_least::<u32>("run", "x", 2)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((*read, read.version), (2, 2));
        let missing = cache.get_at_least::<u32>("run", "x", 3).await;
        assert!(
            matches!(
                missing,
                Err(Error::NotYet {
                    wanted: 3,
                    found: 2
                })
            ),
            "{missing:?}"
        );
        aside(|| session.run("SELECT state_delete('x')"));
        assert!(
            cache
                .get_at_least::<u32>("run", "x", 3)
                .await
                .unwrap()
                .is_none()
        );
    });
}

#[test]
fn errors_are_kinds_by_sqlstate() {
    let home = Home::new("client_errors");
    let cache = home.client();
    home.run(async {
        let unknown = cache.set("no class", "x", &1).await.unwrap_err();
        assert!(matches!(unknown, Error::Unknown(_)), "{unknown:?}");
        cache.set("run", "x", &json!({"a": 1})).await.unwrap();
        let missing = cache
            .update_section("run", "x", "s", &json!({}))
            .await
            .unwrap_err();
        assert!(matches!(missing, Error::Missing(_)), "{missing:?}");
        let shape = cache
            .update_section("run", "x", "a", &json!({}))
            .await
            .unwrap_err();
        assert!(matches!(shape, Error::OtherShape(_)), "{shape:?}");
        let empty = cache.set("run", "", &1).await.unwrap_err();
        assert!(matches!(empty, Error::BadArgument(_)), "{empty:?}");
        let before = cache.stats().retried;
        let options = SetOptions {
            expected_version: Some(7),
            ..SetOptions::default()
        };
        let moved = cache.set_with("run", "x", &1, options).await.unwrap_err();
        assert!(
            matches!(moved, Error::Conflict(_)) && moved.code() == Some("40001"),
            "{moved:?}"
        );
        assert_eq!(
            cache.stats().retried,
            before,
            "it is the answer to the question that was asked"
        );
    });
}

#[test]
fn the_extension_may_be_in_any_schema() {
    let home = Home::new("client_schema");
    home.database.session().run(
        r#"DROP EXTENSION state_cache; CREATE SCHEMA "My ""agents";
        CREATE EXTENSION state_cache SCHEMA "My ""agents""#,
    );
    let cache = home.connect(StateCache::builder().schema("My \"agents"));
    home.run(async {
        cache.set("run", "x", &1).await.unwrap();
        assert_eq!(*cache.get::<u32>("run", "x").await.unwrap().unwrap(), 1);
        assert_eq!(cache.get_many::<u32>("run", &["x"]).await.unwrap().len(), 1);
        assert_eq!(
            cache.get_path::<u32>("run", "x", &[]).await.unwrap(),
            Some(1)
        );
        let batcher = cache.batcher(Default::default());
        batcher.set("run", "x", &2).await.unwrap();
        batcher.close(Duration::from_secs(60)).await.unwrap();
        assert_eq!(*cache.get::<u32>("run", "x").await.unwrap().unwrap(), 2);
        cache.run("r").create(&json!({"n": 1})).await.unwrap();
    });
}

#[test]
fn runs_and_checkpoints() {
    let home = Home::new("client_runs");
    let cache = home.client();
    home.run(async {
        let run = cache.run("r");
        run.create(&json!({"n": 1, "log": []})).await.unwrap();
        run.set("n", &2).await.unwrap();
        run.append("log", "two").await.unwrap();
        let state = cache.get::<Value>("run", "r").await.unwrap().unwrap();
        assert_eq!(state["variables"]["n"]["value"], 2);
        assert_eq!(state["variables"]["log"]["value"], json!(["two"]));
        let token = run.claim("me", Duration::from_secs(30)).await.unwrap();
        let held = run.claim("you", Duration::from_secs(30)).await.unwrap_err();
        assert!(matches!(held, Error::Held(_)), "{held:?}");
        run.renew(token, Duration::from_secs(60)).await.unwrap();
        run.release(token).await.unwrap();
        run.child("c", &json!({"m": 1})).await.unwrap();
        let child = cache.run("c");
        child.set("n", &3).await.unwrap();
        child.complete("completed").await.unwrap();
        run.merge_child("c", "child_wins").await.unwrap();
        let state = cache.get::<Value>("run", "r").await.unwrap().unwrap();
        assert_eq!(state["variables"]["n"]["value"], 3);
        run.complete("completed").await.unwrap();
        assert_eq!(
            cache.get::<Value>("run", "r").await.unwrap().unwrap()["status"],
            "completed"
        );

        let checkpoint = Checkpoint {
            checkpoint_type: "critical",
            recovery_point: true,
            ..Checkpoint::default()
        };
        let saved = cache
            .save("config", "plan", &json!({"step": 1}), checkpoint)
            .await
            .unwrap();
        assert_eq!((saved.action.as_str(), saved.version), ("saved", 1));
        for expected in ["saved", "unchanged"] {
            let document = json!({"step": 2});
            let saved = cache
                .save("config", "plan", &document, Checkpoint::default())
                .await
                .unwrap();
            assert_eq!((saved.action.as_str(), saved.version), (expected, 2));
        }
    });
}
