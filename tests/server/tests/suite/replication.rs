//! Logical replication of the tables into another server: its apply worker is one more who changes them
//! by hand (promise 8).

use crate::snapshots::DOCUMENT;
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use state_cache_server_tests::{Server, Sql, eventually, inconsistencies};
use std::collections::BTreeMap;

/// Waits until the subscriber has applied all that the publisher has committed.
pub fn applied(publisher: &mut Client) {
    let target = publisher.text("SELECT pg_current_wal_insert_lsn()");
    eventually("the subscriber to apply", || {
        publisher.flag(&format!(
            "SELECT coalesce(bool_and(replay_lsn >= '{target}'), false) FROM pg_stat_replication"
        ))
    });
}

fn compare(subscriber: &mut Client) -> Vec<Vec<String>> {
    subscriber.rows(
        "SELECT h.key, state_version(h.key), c.version FROM state_head h LEFT JOIN state_current c USING (class, key)
             WHERE state_get(h.key) IS DISTINCT FROM c.state OR state_version(h.key) IS DISTINCT FROM c.version",
    )
}

#[test]
fn the_cache_of_a_subscriber_follows_what_is_applied() {
    // The listener looks once what the commits have told.
    let target = Server::new(&["state_cache.notify = commit"]);
    let source = Server::new(&["wal_level = logical"]);
    let (mut publisher, mut subscriber, mut listener) =
        (source.connect(), target.connect(), target.connect());
    publisher.run(
        "SELECT state_set('k' || n, jsonb_build_object('n', 0)) FROM generate_series(1, 10) n",
    );
    publisher.run("CREATE PUBLICATION states FOR TABLE state_head, state_snapshot");
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION states CONNECTION 'host={} port=5432 user=postgres dbname=postgres' PUBLICATION states",
        source.host().display()
    ));
    eventually("the first copy", || {
        subscriber.flag("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
    });
    assert_eq!(
        subscriber.text("SELECT count(state_get('k' || n)) FROM generate_series(1, 10) n"),
        "10"
    );
    listener.run("LISTEN state_updated; LISTEN cache_invalidate");

    let hits = subscriber.counter("hits");
    for n in 1..=100 {
        publisher.run(&format!(
            "BEGIN; SELECT state_update('k{}', '{{\"n\": {n}}}'); SELECT state_update('k10', \
            '{{\"n\": {n}}}'); COMMIT",
            1 + n % 9
        ));
        assert_eq!(compare(&mut subscriber), Vec::<Vec<String>>::new());
        if n % 10 == 0 {
            applied(&mut publisher);
            assert_eq!(
                subscriber.text("SELECT state_get('k10') -> 'n'"),
                n.to_string()
            );
        }
    }
    publisher.run("SELECT state_delete('k1')");
    applied(&mut publisher);
    assert_eq!(subscriber.text("SELECT state_get('k1')"), "NULL");
    assert!(subscriber.counter("hits") > hits);
    assert_eq!(inconsistencies(&mut subscriber), Vec::<Vec<String>>::new());
    assert_eq!(
        subscriber.rows("SELECT key, version, state FROM state_current ORDER BY 1"),
        publisher.rows("SELECT key, version, state FROM state_current ORDER BY 1")
    );

    // Documents that head rows hold, one of which TOAST stores apart and a new expiry leaves as it is.
    let flag = "SELECT version || ' ' || (state_get(key, class) ->> 'n') || ' ' || (expires_at IS NOT NULL)
        FROM state_head WHERE class = 'config'";
    for (n, size) in [(1, 10), (2, 10_000), (3, 20_000)] {
        publisher.run(&format!(
            "SELECT state_set('flag', jsonb_build_object('n', {n}, 'text', (SELECT string_agg(md5(i::text), '')
                FROM generate_series(1, {size} / 32) i)), class => 'config')"
        ));
        applied(&mut publisher);
        assert_eq!(subscriber.text(flag), format!("{n} {n} false"));
    }
    publisher.run("SELECT state_touch('flag', '1 hour', class => 'config')");
    applied(&mut publisher);
    assert_eq!(subscriber.text(flag), "3 3 true");
    assert_eq!(inconsistencies(&mut subscriber), Vec::<Vec<String>>::new());

    // The subscriber's own listeners heard of the newest version of every state that changed.
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    let mut deleted = false;
    listener.run("SELECT");
    for notification in listener.notifications().iter().iterator() {
        let notification = notification.unwrap();
        let message: serde_json::Value = serde_json::from_str(notification.payload()).unwrap();
        for change in message["changes"].as_array().unwrap() {
            let key = change["key"].as_str().unwrap();
            deleted |= message["op"] == "delete" && key == "k1";
            newest.insert(key.to_string(), change["version"].as_i64().unwrap());
        }
    }
    assert!(deleted, "{newest:?}");
    for row in
        publisher.rows("SELECT key, version FROM state_head WHERE class = 'run' AND version > 1")
    {
        assert_eq!(
            newest.get(&row[0]).map(i64::to_string),
            Some(row[1].clone()),
            "{}",
            row[0]
        );
    }
    subscriber.run("DROP SUBSCRIPTION states");
}

#[test]
fn a_subscriber_holds_every_kept_version() {
    let (source, target) = (Server::new(&["wal_level = logical"]), Server::new(&[]));
    let (mut publisher, mut subscriber) = (source.connect(), target.connect());
    for client in [&mut publisher, &mut subscriber] {
        client.run(DOCUMENT);
        client.run("SELECT state_class_define('run', keep => 40)");
    }
    let save = "SELECT state_save('a', document('a', n), 'manual', recovery_point => n % 20 = 0) FROM \
        generate_series";
    publisher.run(&format!("{save}(1, 20) n"));
    publisher.run("CREATE PUBLICATION states FOR TABLE state_head, state_snapshot");
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION states CONNECTION 'host={} port=5432 user=postgres dbname=postgres' PUBLICATION states",
        source.host().display()
    ));
    eventually("the first copy", || {
        subscriber.flag("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
    });
    let versions = "SELECT v.version, v.encoding, v.recovery_point, state_at('a', v.version)
        FROM state_history('a') v ORDER BY 1";
    let wrong = "SELECT v.version FROM state_history('a') v
        WHERE state_at('a', v.version) IS DISTINCT FROM document('a', v.version)";
    for change in [
        format!("{save}(21, 100) n"),
        "SELECT state_prune('run', keep => 15)".to_owned(),
        format!("{save}(101, 110) n"),
        "SELECT state_prune('run', keep => 3, recovery_points => true)".to_owned(),
    ] {
        publisher.run(&change);
        applied(&mut publisher);
        assert_eq!(
            subscriber.rows(wrong),
            Vec::<Vec<String>>::new(),
            "{change}"
        );
        assert_eq!(
            subscriber.rows(versions),
            publisher.rows(versions),
            "{change}"
        );
        assert_eq!(
            subscriber.rows("SELECT * FROM state_verify()"),
            Vec::<Vec<String>>::new(),
            "{change}"
        );
    }
    publisher.run(&format!("{save}(111, 115) n"));
    applied(&mut publisher);
    assert!(
        subscriber
            .rows(versions)
            .iter()
            .any(|row| row[1] == "delta")
    );
    assert_eq!(inconsistencies(&mut subscriber), Vec::<Vec<String>>::new());
    // Once it is on its own it goes on.
    subscriber.run("DROP SUBSCRIPTION states");
    subscriber.run(&format!("{save}(116, 120) n"));
    assert_eq!(subscriber.rows(wrong), Vec::<Vec<String>>::new());
    assert_eq!(subscriber.text("SELECT state_version('a')"), "120");
}

/// A touch leaves the document where it is, out of line, and what is applied of it does not hold the document.
#[test]
fn a_subscriber_holds_what_head_rows_hold() {
    let (source, target) = (Server::new(&["wal_level = logical"]), Server::new(&[]));
    let (mut publisher, mut subscriber) = (source.connect(), target.connect());
    publisher.run("SELECT state_class_define('one')");
    // What its own class says matters once it is on its own.
    subscriber.run("SELECT state_class_define('one', keep => 3, compression => false)");
    let set = |n: u32| {
        format!(
            "SELECT state_set('small', '{n}', class => 'one'), state_set('large', jsonb_build_object('n', {n}, 'text',
                (SELECT string_agg(md5((i * {n})::text), '') FROM generate_series(1, 500) i)), class => 'one')"
        )
    };
    publisher.run(&set(1));
    publisher.run("CREATE PUBLICATION states FOR TABLE state_head, state_snapshot");
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION states CONNECTION 'host={} port=5432 user=postgres dbname=postgres' PUBLICATION states",
        source.host().display()
    ));
    eventually("the first copy", || {
        subscriber.flag("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
    });
    let touch = "SELECT state_touch(key, '1 hour', class => 'one') FROM unnest('{small,large}'::text[]) key";
    let save =
        "SELECT * FROM state_save('large', '\"point\"', recovery_point => true, class => 'one')";
    let seen = "SELECT key, state_version(key, 'one'), md5(state_get_text(key, 'one')),
            md5(state_get(key, 'one')::text), (SELECT md5(state::text) FROM state_current c WHERE c.key = h.key),
            ARRAY(SELECT version || CASE WHEN in_head THEN '^' ELSE '' END || md5(state::text)
                FROM state_kept k WHERE k.key = h.key ORDER BY version)::text
        FROM state_head h ORDER BY key";
    for (change, keep) in [
        (set(2), 1),
        (touch.to_owned(), 1),
        (set(3), 3),
        (touch.to_owned(), 3),
        (set(4), 1),
        (save.to_owned(), 1),
        (set(5), 1),
        ("SELECT state_delete('small', class => 'one')".to_owned(), 2),
        (set(6), 1),
    ] {
        // Whole documents, so that plain SQL can compare them.
        publisher.run(&format!(
            "SELECT state_class_define('one', keep => {keep}, compression => false)"
        ));
        publisher.run(&change);
        applied(&mut publisher);
        // The second time from L1.
        for _ in 0..2 {
            assert_eq!(subscriber.rows(seen), publisher.rows(seen), "{change}");
        }
        assert_eq!(inconsistencies(&mut subscriber), Vec::<Vec<String>>::new());
    }
    subscriber.run("DROP SUBSCRIPTION states");
    subscriber.run(&set(7));
    assert_eq!(
        subscriber.rows(
            "SELECT key, ARRAY(SELECT version FROM state_history(key, 'one'))::text
             FROM state_head ORDER BY key"
        ),
        [["large", "{8,7,5}"], ["small", "{8,7}"]]
    );
    assert_eq!(inconsistencies(&mut subscriber), Vec::<Vec<String>>::new());
}
