//! Where there is no L1: not preloaded, switched off, or in recovery, until promotion.

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
fn a_standby_reads_the_tables_and_l1_starts_with_promotion() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    writer.run(
        "SELECT state_set('k' || n, jsonb_build_object('n', n)) FROM generate_series(1, 50) n",
    );
    let standby = primary.standby();
    let mut reader = standby.connect();
    assert_eq!(l1(&mut reader), "off (recovery)");

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
    assert_eq!(reader.number("SELECT count(*) FROM state_cache_entries"), 0);

    assert!(reader.flag("SELECT pg_promote()"));
    eventually("the promotion", || {
        !reader.flag("SELECT pg_is_in_recovery()")
    });
    drop(primary);
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
    assert_eq!(
        reader.rows("SELECT * FROM state_verify()"),
        Vec::<Vec<String>>::new()
    );
    for change in [
        "SELECT state_save('a', '{}')",
        "SELECT state_restore('a', 40)",
        "SELECT state_recover('a')",
        "SELECT state_prune('run', keep => 1)",
        "SELECT state_verify(repair => true)",
    ] {
        assert_eq!(reader.error(change), "25006", "{change}");
    }

    assert!(reader.flag("SELECT pg_promote()"));
    eventually("the promotion", || {
        !reader.flag("SELECT pg_is_in_recovery()")
    });
    drop(primary);
    reader.run(&format!("{save}(56, 60) n"));
    assert_eq!(reader.rows(wrong), Vec::<Vec<String>>::new());
    reader.run("SELECT state_restore('a', 40)");
    assert_eq!(
        reader.text("SELECT state_get('a') = document('a', 40)"),
        "t"
    );
    assert_eq!(inconsistencies(&mut reader), Vec::<Vec<String>>::new());
}
