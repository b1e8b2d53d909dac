//! Where there is no L1, not preloaded or switched off, and where it answers validated reads only, in recovery.

use crate::snapshots::DOCUMENT;
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, inconsistencies};

fn l1(client: &mut Client) -> String {
    client.text("SELECT l1 FROM state_cache_stats WHERE class IS NULL")
}

#[test]
fn a_server_that_does_not_preload_works_on_the_tables() {
    let server = Server::without_extension(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.run("CREATE EXTENSION state_cache");
    client.run("SELECT state_set('a', '{\"n\": 1}'), state_set('b', '{\"log\": []}')");
    other.run("LISTEN state_updated");
    client.run("BEGIN; SELECT state_update('a', '{\"n\": 2}'); SELECT state_append('b', '{log}', '1'); SAVEPOINT s; \
        SELECT state_delete('a'); ROLLBACK TO s; COMMIT");
    assert_eq!(other.text("SELECT state_get('a')"), "{\"n\": 2}");
    assert_eq!(other.text("SELECT state_get('b')"), "{\"log\": [1]}");
    assert_eq!(other.text("SELECT state_version('a')"), "2");
    assert_eq!(
        client.error("SELECT state_set('a', '{}', expected_version => 1)"),
        "40001"
    );
    other.run("UPDATE state_snapshot SET state = '{\"n\": 3}', hash = state_hash('{\"n\": 3}') WHERE key = 'a'");
    assert_eq!(client.error("SELECT state_get('a')"), "XX001");
    other.run("UPDATE state_head SET hash = state_hash('{\"n\": 3}') WHERE key = 'a'");
    assert_eq!(client.text("SELECT state_get('a')"), "{\"n\": 3}");
    assert_eq!(client.number("SELECT state_cache_clear()"), 0);
    assert_eq!(l1(&mut client), "off (not preloaded)");
    assert_eq!(client.number("SELECT count(*) FROM state_cache_entries"), 0);
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn a_session_with_the_cache_disabled_reads_right_and_keeps_l1_right() {
    let server = Server::new(&[]);
    let (mut with, mut without) = (server.connect(), server.connect());
    with.run("SELECT state_set('a', '{\"n\": 1}')");
    without.run("SET state_cache.enabled = off");
    assert_eq!(l1(&mut without), "off (disabled)");
    for n in 2..10 {
        let (writer, reader) = if n % 2 == 0 {
            (&mut without, &mut with)
        } else {
            (&mut with, &mut without)
        };
        writer.run(&format!("SELECT state_set('a', '{{\"n\": {n}}}')"));
        assert_eq!(reader.text("SELECT state_get('a') -> 'n'"), n.to_string());
    }
    let hits = with.counter("hits");
    without.run("SELECT state_get('a')");
    assert_eq!(with.counter("hits"), hits);
}

#[test]
fn a_standby_validates_what_l1_holds_and_promotion_changes_nothing_about_that() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run(
        "SELECT state_set('k' || n, jsonb_build_object('n', n)) FROM generate_series(1, 50) n",
    );
    let standby = primary.standby();
    let mut reader = standby.connect();
    assert_eq!(l1(&mut reader), "on (recovery)");

    for n in 1..=20 {
        writer.run(&format!(
            "SELECT state_update('k1', '{{\"n\": {n}}}'), state_delete('k2')"
        ));
        standby.catch_up_with(&primary);
        assert_eq!(
            reader.text("SELECT state_get_path('k1', '{n}')"),
            n.to_string()
        );
        assert_eq!(reader.text("SELECT state_get('k2')"), "NULL");
    }
    let differences =
        "SELECT count(*) FROM state_head h LEFT JOIN state_current c USING (class, key)
         WHERE state_get(h.key, h.class) IS DISTINCT FROM c.state";
    assert_eq!(reader.number(differences), 0);
    for change in [
        "SELECT state_set('k1', '{}')",
        "SELECT state_delete('k1')",
        "SELECT state_append('k1', '{}', '1')",
    ] {
        assert_eq!(reader.error(change), "25006", "{change}");
    }
    assert_eq!(reader.counter("hits"), 0);
    // All 50 but the one deleted were filled when they were compared, and answer now.
    assert_eq!(
        reader.number("SELECT count(*) FROM state_cache_entries"),
        49
    );
    let validated = reader.counter("validated");
    assert_eq!(reader.number(differences), 0);
    assert_eq!(reader.counter("validated"), validated + 49);

    standby.promote();
    drop(primary);
    // The first read of an entry from before proves it, the next one is a hit.
    let (validated, hits) = (reader.counter("validated"), reader.counter("hits"));
    for n in 3..=50 {
        let read = format!("SELECT state_get_path('k{n}', '{{n}}')");
        for _ in 1..=2 {
            assert_eq!(reader.text(&read), n.to_string());
        }
    }
    assert_eq!(reader.counter("validated"), validated + 48);
    assert_eq!(reader.counter("hits"), hits + 48);
    // The session from before and a new one.
    for mut client in [reader, standby.connect()] {
        assert_eq!(l1(&mut client), "on");
        assert_eq!(client.text("SELECT state_get_path('k1', '{n}')"), "20");
        client.run("SELECT state_update('k1', '{\"n\": 20, \"more\": 1}')");
        client.run("SELECT state_get('k1')");
        let hits = client.counter("hits");
        assert_eq!(client.text("SELECT state_get_path('k1', '{n}')"), "20");
        assert_eq!(client.counter("hits"), hits + 1);
        assert_eq!(client.number(differences), 0);
        assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    }
}

// What is changed by hand may keep its version. The head row's hash says so.
#[test]
fn a_standby_compares_the_hash_and_not_the_version_alone() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('a', '{\"n\": 1}')");
    let standby = primary.standby();
    let mut reader = standby.connect();
    let read = "SELECT state_get('a')";
    for _ in 1..=2 {
        assert_eq!(reader.text(read), "{\"n\": 1}");
    }
    assert_eq!(reader.counter("validated"), 1);
    writer.run(
        "BEGIN; UPDATE state_head SET hash = state_hash('{\"n\": 2}') WHERE key = 'a';
         UPDATE state_snapshot SET state = '{\"n\": 2}', hash = state_hash('{\"n\": 2}') WHERE key = 'a'; COMMIT",
    );
    standby.catch_up_with(&primary);
    reader.run("SET state_cache.test_unsafe = 'no_validation'");
    assert_eq!(reader.text(read), "{\"n\": 1}");
    reader.run("RESET state_cache.test_unsafe");
    assert_eq!(reader.text(read), "{\"n\": 2}");
    // That read has replaced the entry.
    let validated = reader.counter("validated");
    assert_eq!(reader.text(read), "{\"n\": 2}");
    assert_eq!(reader.counter("validated"), validated + 1);
}

#[test]
fn a_standby_warms_its_cache_after_a_restart_and_has_another_worker_once_promoted() {
    let primary = Server::new(&["state_cache.warm_on_start = on"]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('k' || n, '{\"n\": 1}') FROM generate_series(1, 30) n");
    let standby = primary.standby();
    let mut reader = standby.connect();
    let entries = "SELECT count(*) FROM state_cache_entries";
    assert_eq!(reader.number("SELECT state_warm('run', 20)"), 20);
    assert_eq!(reader.number(entries), 20);
    drop(reader);
    standby.stop();
    writer.run("SELECT state_set('k' || n, '{\"n\": 2}') FROM generate_series(1, 15) n");
    standby.start();
    let mut reader = standby.connect();
    eventually("the worker to fill L1", || reader.number(entries) == 20);
    assert!(reader.flag("SELECT pg_is_in_recovery()"));
    standby.catch_up_with(&primary);
    let sum = "SELECT sum((state_get('k' || n) -> 'n')::int) FROM generate_series(1, 30) n";
    assert_eq!(reader.number(sum), 45);
    // The worker of the standby has nothing to do with messages nor with what has expired.
    writer.run("SELECT state_set('short', '1', ttl => '1 ms')");
    standby.catch_up_with(&primary);
    let worker = "SELECT pid FROM state_cache_workers WHERE database = current_database()";
    let before = reader.text(worker);
    primary.stop();
    assert!(reader.flag("SELECT pg_promote()"));
    eventually("a worker of the new primary", || {
        ![before.clone(), "NULL".to_owned()].contains(&reader.text(worker))
    });
    let expired = "SELECT deleted FROM state_head WHERE key = 'short'";
    eventually("the expired state to go", || reader.text(expired) != "f");
    let mut listener = standby.connect();
    listener.run("LISTEN state_updated");
    reader.run("SELECT state_set('told', '1')");
    eventually("the message", || {
        listener.run("SELECT 1");
        !listener.notifications().is_empty()
    });
}

#[test]
fn the_worker_of_a_standby_audits_what_l1_holds_there() {
    let primary = Server::new(&[]);
    let standby = primary.standby();
    // In a database that is there since the standby's start there is a worker already.
    primary.connect().run("CREATE DATABASE later");
    let mut writer = primary.connect_to("later");
    writer.run("CREATE EXTENSION state_cache");
    writer.run("SELECT state_set('k' || n, '{\"n\": 1}') FROM generate_series(1, 30) n");
    standby.catch_up_with(&primary);
    standby.configure(&["state_cache.audit_rate = 60000"]);
    let mut reader = standby.connect_to("later");
    reader.run("SELECT pg_reload_conf()");
    let audit_rate = "SELECT current_setting('state_cache.audit_rate')";
    eventually("the setting", || reader.text(audit_rate) == "60000");
    let sum = "SELECT sum((state_get('k' || n) -> 'n')::int) FROM generate_series(1, 30) n";
    assert_eq!(reader.number(sum), 30);
    let reported = |what: &str| {
        format!(
            "SELECT coalesce(max({what}), 0) FROM state_cache_workers WHERE database = current_database()"
        )
    };
    eventually("an audit of all", || {
        reader.number(&reported("audited")) >= 30
    });
    // An entry that the head row does not let answer takes no part.
    writer.run("SELECT state_set('k' || n, '{\"n\": 2}') FROM generate_series(1, 15) n");
    standby.catch_up_with(&primary);
    let before = reader.number(&reported("audited"));
    eventually("an audit of the others", || {
        reader.number(&reported("audited")) >= before + 15
    });
    assert_eq!(reader.number(&reported("differing")), 0);
    assert_eq!(reader.number(&reported("failures")), 0);
    // Who does not ask the head row finds that such entries are not what the tables hold.
    standby.configure(&["state_cache.test_unsafe = 'no_validation'"]);
    reader.run("SELECT pg_reload_conf()");
    eventually("an audit that finds them", || {
        reader.number(&reported("differing")) > 0
    });
    assert!(
        standby
            .log()
            .contains("entries of the cache are not what they are copies of")
    );
    // The table says what the primary has found, which has not looked.
    assert_eq!(reader.number("SELECT count(*) FROM state_audits"), 0);
}

// Whether the primary preloads makes no difference to its standby, nor the other way round.
#[test]
fn either_of_primary_and_standby_may_do_without_preloading() {
    for (on_primary, on_standby) in [("", "state_cache"), ("state_cache", "")] {
        let preload = |what: &str| format!("shared_preload_libraries = '{what}'");
        let primary = Server::without_extension(&[&preload(on_primary)]);
        let mut writer = primary.connect();
        writer.run("CREATE EXTENSION state_cache");
        writer.run("SELECT state_set('k' || n, '{\"n\": 1}') FROM generate_series(1, 10) n");
        let standby = primary.standby();
        standby.stop();
        standby.configure(&[&preload(on_standby)]);
        standby.start();
        let mut reader = standby.connect();
        let sum = "SELECT sum((state_get('k' || n) -> 'n')::int) FROM generate_series(1, 10) n";
        assert_eq!(reader.number(sum), 10);
        writer.run("SELECT state_set('k' || n, '{\"n\": 2}') FROM generate_series(1, 5) n");
        standby.catch_up_with(&primary);
        for _ in 1..=2 {
            assert_eq!(reader.number(sum), 15);
        }
        assert_eq!(reader.number("SELECT state_wait('k1', 2)"), 2);
        let has_l1 = l1(&mut reader) == "on (recovery)";
        assert_eq!(has_l1, on_standby == "state_cache");
        drop(primary);
        standby.promote();
        reader.run("SELECT state_set('k1', '{\"n\": 3}')");
        assert_eq!(reader.number(sum), 16);
    }
}

// A transaction that began before a promotion goes on with a snapshot of the standby.
#[test]
fn a_snapshot_of_a_standby_stays_exact_after_the_promotion() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run("SELECT state_set('k' || n, '{\"n\": 1}') FROM generate_series(1, 20) n");
    let standby = primary.standby();
    let (mut old, mut new) = (standby.connect(), standby.connect());
    let sum = "SELECT sum((state_get('k' || n) -> 'n')::int) FROM generate_series(1, 20) n";
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(old.number(sum), 20);
    writer.run("SELECT state_set('k' || n, '{\"n\": 2}') FROM generate_series(1, 10) n");
    standby.catch_up_with(&primary);
    assert_eq!(new.number(sum), 30);
    assert_eq!(old.number(sum), 20);
    standby.promote();
    drop(primary);
    new.run("SELECT state_set('k' || n, '{\"n\": 3}') FROM generate_series(6, 15) n");
    for _ in 1..=2 {
        assert_eq!(new.number(sum), 5 * 2 + 10 * 3 + 5);
        assert_eq!(old.number(sum), 20);
    }
    old.run("COMMIT");
    assert_eq!(old.number(sum), 5 * 2 + 10 * 3 + 5);
}

#[test]
fn a_standby_reads_every_kept_version() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run(DOCUMENT);
    let save = "SELECT state_save('a', document('a', n), 'manual', recovery_point => n % 20 = 0) FROM \
        generate_series";
    writer.run(&format!("{save}(1, 30) n"));
    let standby = primary.standby();
    let mut reader = standby.connect();
    let versions = "SELECT v.version, v.encoding, v.recovery_point, state_at('a', v.version)
        FROM state_history('a') v ORDER BY 1";
    let wrong = "SELECT v.version FROM state_history('a') v
        WHERE state_at('a', v.version) IS DISTINCT FROM document('a', v.version)";
    for change in [
        format!("{save}(31, 50) n"),
        "SELECT state_prune('run', keep => 7)".to_owned(),
        format!("{save}(51, 55) n"),
    ] {
        writer.run(&change);
        standby.catch_up_with(&primary);
        assert_eq!(reader.rows(wrong), Vec::<Vec<String>>::new(), "{change}");
        assert_eq!(reader.rows(versions), writer.rows(versions), "{change}");
    }
    assert!(reader.rows(versions).iter().any(|row| row[1] == "delta"));
    let difference = "SELECT state_diff('a', 52, 55)";
    assert_eq!(reader.text(difference), writer.text(difference));
    writer.run("SELECT state_save('a', document('a', 56), label => 'last', payload => 'bytes')");
    standby.catch_up_with(&primary);
    for list in [
        "SELECT * FROM state_list('a')",
        "SELECT * FROM state_list(prefix => '', before => NULL, states => false, filter => NULL)",
        "SELECT state, payload FROM state_list('a', label => 'last')",
        "SELECT * FROM state_keys()",
    ] {
        let found = reader.rows(list);
        assert!(!found.is_empty(), "{list}");
        assert_eq!(found, writer.rows(list), "{list}");
    }
    assert_eq!(
        reader.rows("SELECT * FROM state_verify()"),
        Vec::<Vec<String>>::new()
    );
    for change in [
        "SELECT state_save('a', '{}')",
        "SELECT state_purge('{a}')",
        "SELECT state_purge('{a}', keep => 1)",
        "SELECT state_copy('a', 'b')",
        "SELECT state_restore('a', 40)",
        "SELECT state_recover('a')",
        "SELECT state_prune('run', keep => 1)",
        "SELECT state_verify(repair => true)",
    ] {
        assert_eq!(reader.error(change), "25006", "{change}");
    }

    standby.promote();
    drop(primary);
    reader.run(&format!("{save}(57, 60) n"));
    assert_eq!(reader.rows(wrong), Vec::<Vec<String>>::new());
    reader.run("SELECT state_restore('a', 40)");
    assert_eq!(
        reader.text("SELECT state_get('a') = document('a', 40)"),
        "t"
    );
    assert_eq!(inconsistencies(&mut reader), Vec::<Vec<String>>::new());
}
