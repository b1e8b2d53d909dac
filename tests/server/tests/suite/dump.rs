//! pg_dump, and a restore into another database.

use crate::snapshots::DOCUMENT;
use state_cache_server_tests::{Server, Sql, inconsistencies};

#[test]
fn a_restored_dump_holds_the_same_states_and_classes() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    original.run(
        "SELECT state_class_define('run', keep => 5, channel => 'runs', notify => 'off');
         SELECT state_class_define('mine', dedup => false, ttl => '1 day', max_entries => 10);
         SELECT state_set('k' || n, jsonb_build_object('n', n, 'text', E'\\u00e9\\t\"\\\\ ' || n)) FROM \
         generate_series(1, 50) n;
         SELECT state_set('mine', '[1.0, 1.00, null]', class => 'mine')",
    );
    original.run("SELECT state_update('k' || n, jsonb_build_object('more', n)) FROM generate_series(1, 20) n");
    original.run("SELECT state_delete('k1'), state_touch('k2', '1 hour')");
    original.run(
        "SELECT state_claim('k3', 'owner', '1 day'), state_claim('none', 'owner', '1 day', 'mine')",
    );
    original.run("SELECT state_set(E'odd \\\\ \\' \" \\n key', '{}')");

    let dump = server.host().join("dump");
    server.run_program(
        "pg_dump",
        &["--dbname=postgres", "--file", dump.to_str().unwrap()],
    );
    original.run("CREATE DATABASE restored");
    server.run_program(
        "psql",
        &[
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--dbname=restored",
            "--file",
            dump.to_str().unwrap(),
        ],
    );

    let mut restored = server.connect_to("restored");
    for table in ["state_class", "state_head", "state_snapshot", "state_lease"] {
        let rows = format!("SELECT t::text FROM {table} t ORDER BY 1");
        let (before, after) = (original.rows(&rows), restored.rows(&rows));
        assert!(!before.is_empty());
        assert_eq!(before, after, "{table}");
    }
    assert_eq!(inconsistencies(&mut restored), Vec::<Vec<String>>::new());
    let states = "SELECT key, class, state_version(key, class), state_get_text(key, class) FROM state_head ORDER BY \
        1, 2";
    assert_eq!(original.rows(states), restored.rows(states));

    // A claim is in force, and a later one has a greater token.
    restored.run(
        "BEGIN; SELECT state_fence('k3', token) FROM state_lease WHERE key = 'k3'; SELECT state_set('k3', '{}');
         COMMIT",
    );
    let greater = "SELECT state_claim('k3', 'owner') > max(token) FROM state_lease";
    assert_eq!(restored.text(greater), "t");
    // It goes on where the original was.
    restored.run(
        "SELECT state_set('k1', '{\"again\": true}'), state_update('k2', '{\"again\": true}')",
    );
    assert_eq!(restored.text("SELECT state_version('k1')"), "4");
    assert_eq!(restored.text("SELECT state_version('k2')"), "3");
    assert_eq!(
        restored.number("SELECT count(*) FROM state_snapshot WHERE key = 'k2'"),
        3
    );
    // A dump of the restored database restores as well.
    server.run_program(
        "pg_dump",
        &["--dbname=restored", "--file", dump.to_str().unwrap()],
    );
    original.run("CREATE DATABASE again");
    server.run_program(
        "psql",
        &[
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--dbname=again",
            "--file",
            dump.to_str().unwrap(),
        ],
    );
    assert_eq!(
        server.connect_to("again").rows(states),
        restored.rows(states)
    );
}

/// Versions of a state with its documents as text, read one by one.
const VERSIONS: &str =
    "SELECT h.key, v.version, v.encoding, v.recovery_point, state_at(h.key, v.version, h.class)
    FROM state_head h, state_history(h.key, h.class) v ORDER BY 1, 2";

#[test]
fn a_restored_dump_holds_every_kept_version() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    original.run(DOCUMENT);
    original.run(
        "DO $$ BEGIN FOR n IN 1..60 LOOP
            PERFORM state_save('run', document('run', n), 'manual', recovery_point => n % 20 = 0, expected_version \
            => n - 1);
        END LOOP; END $$;
        SELECT state_prune('run', keep => 30)",
    );
    original.run(
        "SELECT state_save('hurt', document('hurt', n), 'manual') FROM generate_series(1, 3) n",
    );
    original.run(
        "BEGIN;
         ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changed;
         UPDATE state_snapshot SET hash = state_hash('0') WHERE key = 'hurt' AND version = 3;
         ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changed; COMMIT",
    );
    original.run("SELECT state_cache_clear(); SELECT state_verify(repair => true)");

    let dump = server.host().join("dump");
    server.run_program(
        "pg_dump",
        &["--dbname=postgres", "--file", dump.to_str().unwrap()],
    );
    original.run("CREATE DATABASE restored");
    server.run_program(
        "psql",
        &[
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--dbname=restored",
            "--file",
            dump.to_str().unwrap(),
        ],
    );

    let mut restored = server.connect_to("restored");
    let versions = original.rows(VERSIONS);
    assert!(versions.iter().any(|row| row[2] == "delta"));
    assert_eq!(restored.rows(VERSIONS), versions);
    for table in ["state_recovery_log", "state_damaged"] {
        let rows = format!("SELECT t::text FROM {table} t ORDER BY 1");
        assert!(!original.rows(&rows).is_empty());
        assert_eq!(restored.rows(&rows), original.rows(&rows), "{table}");
    }
    let wrong = "SELECT v.version FROM state_history('run') v
        WHERE state_at('run', v.version) IS DISTINCT FROM document('run', v.version)";
    assert_eq!(restored.rows(wrong), Vec::<Vec<String>>::new());
    assert_eq!(
        restored.rows("SELECT * FROM state_verify()"),
        Vec::<Vec<String>>::new()
    );
    // It goes on: a delta upon what was restored, an entry after those that were.
    restored.run("SELECT state_save('run', document('run', 61), 'manual')");
    assert_eq!(
        restored.text("SELECT encoding FROM state_history('run') LIMIT 1"),
        "delta"
    );
    assert_eq!(restored.rows(wrong), Vec::<Vec<String>>::new());
    restored.run("SELECT state_recover('run')");
    assert_eq!(
        restored.text("SELECT state_get('run') = document('run', 60)"),
        "t"
    );
    assert_eq!(inconsistencies(&mut restored), Vec::<Vec<String>>::new());
}
