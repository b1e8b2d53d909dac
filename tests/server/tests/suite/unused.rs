//! A server that preloads the library and does not use it is a server as any other; and where it is used,
//! what changes nothing writes nothing.

use postgres::Client;
use state_cache_server_tests::{Server, Sql};

/// What a WAL range holds of one transaction, record by record.
fn wal_of(client: &mut Client, from: &str, transaction: &str) -> Vec<Vec<String>> {
    client.rows(&format!(
        "SELECT resource_manager, record_type FROM pg_get_wal_records_info('{from}', pg_current_wal_flush_lsn())
             WHERE xid = '{transaction}' ORDER BY start_lsn"
    ))
}

/// Ordinary work, and what it left: results, catalogs, processes, WAL.
fn ordinary_work(settings: &[&str]) -> Vec<Vec<String>> {
    let server = Server::without_extension(&[&["autovacuum = off"], settings].concat());
    let mut client = server.connect();
    client.run("CREATE EXTENSION pg_walinspect; CREATE TABLE t (id int PRIMARY KEY, value text); CREATE INDEX ON t \
        (value); CHECKPOINT");
    let from = client.text("SELECT pg_current_wal_insert_lsn()");
    client.run("BEGIN; INSERT INTO t SELECT n, 'value ' || n FROM generate_series(1, 100) n; SAVEPOINT s; DELETE \
        FROM t WHERE id < 50; ROLLBACK TO s");
    client.run("UPDATE t SET value = value || '!' WHERE id % 2 = 0; NOTIFY something");
    let transaction = client.text("SELECT pg_current_xact_id()");
    client.run("COMMIT; SELECT count(*) FROM t");
    client.run("BEGIN; INSERT INTO t VALUES (1000, ''); PREPARE TRANSACTION 'p'");
    client.run("COMMIT PREPARED 'p'");

    let mut seen = wal_of(&mut client, &from, &transaction);
    assert!(seen.len() > 100);
    for sql in [
        "SELECT count(*), md5(string_agg(value, ',' ORDER BY id)) FROM t",
        "SELECT relname, relnamespace::regnamespace, relkind FROM pg_class WHERE relname NOT LIKE 'pg_toast%' ORDER \
            BY 1, 2",
        "SELECT count(*), max(oid::int) FROM pg_proc",
        "SELECT extname FROM pg_extension ORDER BY 1",
        "SELECT count(*) FROM pg_trigger",
        "SELECT count(*) FROM pg_event_trigger",
        "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'state\\_cache.%' AND name <> \
            'shared_preload_libraries'
             AND name NOT LIKE 'shared_memory_size%' AND name NOT IN ('config_file', 'data_directory', 'hba_file', \
             'ident_file', 'unix_socket_directories')
             ORDER BY 1",
        // The launcher is there, and a worker looks into each database once.
        "SELECT backend_type FROM pg_stat_activity WHERE backend_type NOT LIKE 'state\\_cache %' ORDER BY 1",
    ] {
        let rows = client.rows(sql);
        assert!(!rows.is_empty());
        seen.extend(rows);
    }
    seen
}

#[test]
fn preloaded_and_unused_it_changes_nothing() {
    let settings = ["max_prepared_transactions = 2"];
    let plain = ordinary_work(&settings);
    let preloaded =
        ordinary_work(&[&settings[..], &["shared_preload_libraries = 'state_cache'"]].concat());
    let differences: Vec<_> = plain
        .iter()
        .zip(&preloaded)
        .filter(|(plain, preloaded)| plain != preloaded)
        .collect();
    assert_eq!(differences, []);
    assert_eq!(plain.len(), preloaded.len());
}

#[test]
fn transactions_that_change_nothing_write_no_wal() {
    // With checksums, which 18's initdb turns on, and with this setting, hint bits are logged.
    let server = Server::new(&[
        "autovacuum = off",
        "bgwriter_delay = '10s'",
        "wal_log_hints = on",
    ]);
    let mut client = server.connect();
    client.run("CREATE EXTENSION pg_walinspect; SELECT state_set('a', '{\"n\": 1}'), state_set('log', '[]')");
    // A first look at fresh pages may set hint bits and prune; that is over before it counts.
    let quiet = [
        "SELECT state_get('a')",
        "SELECT state_get('absent')",
        "BEGIN; SELECT state_set('a', '{\"n\": 1}'); COMMIT",
        "SELECT state_set('a', '{\"n\": 1}', expected_version => 1)",
        "SELECT state_update('a', '{}')",
        "SELECT state_merge('a', '{\"absent\": null}')",
        "BEGIN; SELECT state_set('a', '{\"n\": 2}'); ROLLBACK",
        "BEGIN; SELECT state_set('a', '{\"n\": 2}'); SELECT state_set('a', '{\"n\": 1}'); COMMIT",
        "SELECT state_delete('absent')",
        "SELECT state_cache_clear()",
        "SELECT state_get('a')",
    ];
    // So no row of ours has a hint bit to be set, by the worker either.
    client.run("VACUUM (FREEZE)");
    client.run("CHECKPOINT");
    for sql in quiet {
        client.run(sql);
    }
    let from = client.text("SELECT pg_current_wal_insert_lsn()");
    let next = client.text("SELECT pg_snapshot_xmax(pg_current_snapshot())");
    for sql in quiet {
        client.run(sql);
    }
    assert_eq!(
        client.text("SELECT pg_snapshot_xmax(pg_current_snapshot())"),
        next,
        "a transaction id was taken"
    );
    // Something of ours must follow, else there is nothing to look at.
    client.run("SELECT state_set('a', '{\"n\": 3}')");
    let to = client.text("SELECT pg_current_wal_flush_lsn()");
    // A hint bit in a catalog of the server is set by whoever looks first.
    let is_ours = "EXISTS (SELECT FROM ours WHERE block_ref LIKE '%/' || filenode || ' fork %')";
    client.run(
        "CREATE TEMP TABLE ours AS WITH members AS (
             SELECT objid FROM pg_depend WHERE deptype = 'e' AND classid = 'pg_class'::regclass AND refobjid =
                 (SELECT oid FROM pg_extension WHERE extname = 'state_cache')),
         tables AS (SELECT objid AS id FROM members UNION ALL SELECT reltoastrelid FROM pg_class JOIN members ON \
         oid = objid),
         relations AS (SELECT id FROM tables UNION ALL SELECT indexrelid FROM pg_index JOIN tables ON indrelid = id)
         SELECT pg_relation_filenode(id) AS filenode FROM relations WHERE pg_relation_filenode(id) IS NOT NULL",
    );
    let records = client.rows(&format!(
        "SELECT resource_manager, record_type, xid, block_ref
             FROM pg_get_wal_records_info('{from}', '{to}')
             WHERE resource_manager <> 'Standby' AND xid <> '{next}' AND (record_type <> 'FPI_FOR_HINT' OR {is_ours})"
    ));
    assert_eq!(records, Vec::<Vec<String>>::new());
    // That is how a record of ours would be known.
    let written = format!(
        "SELECT count(*) FROM pg_get_wal_records_info('{from}', '{to}') WHERE xid = '{next}' AND {is_ours}"
    );
    assert!(client.number(&written) > 1);
}
