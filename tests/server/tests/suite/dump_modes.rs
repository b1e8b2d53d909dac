//! pg_dump and pg_restore with the options that people use: data only, without triggers, in parallel.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, inconsistencies};

/// States, classes of the user's, two of the standard classes changed, and a damaged snapshot that was put aside.
fn fill(client: &mut Client) {
    client.run(
        "SELECT state_class_define('run', keep => 5, channel => 'runs');
         SELECT state_class_define('config', keep => 3);
         SELECT state_class_define('mine', dedup => false, ttl => '1 day', max_entries => 10);
         SELECT state_class_define('yours', write_mode => 'behind')",
    );
    client.run("SELECT state_set('k' || n, to_jsonb(n)) FROM generate_series(1, 20) n");
    client.run("SELECT state_set('k' || n, to_jsonb(-n)) FROM generate_series(1, 20) n");
    client.run("SELECT state_delete('k1'), state_set('m', '1', class => 'mine')");
    client.run(
        "BEGIN;
         ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changed;
         UPDATE state_snapshot SET hash = state_hash('0') WHERE key LIKE 'k2_' AND version = 2 OR key = 'k2' AND \
         version = 2;
         ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changed; COMMIT",
    );
    client.run("SELECT state_cache_clear(); SELECT state_verify(repair => true)");
    client.run("SELECT state_context_create('a'), state_context_claim('a', 'me')");
}

const TABLES: [&str; 7] = [
    "state_class",
    "state_head",
    "state_snapshot",
    "state_recovery_log",
    "state_damaged",
    "state_context",
    "state_claim",
];

/// That a table holds what it held; of a class that has two rows, the one that counts.
fn compare(original: &mut Client, restored: &mut Client, case: &str) {
    for table in TABLES {
        let rows = match table {
            "state_class" => "SELECT DISTINCT ON (class) class, t::text FROM state_class t ORDER BY class, changed \
                DESC".into(),
            _ => format!("SELECT t::text FROM {table} t ORDER BY 1"),
        };
        let before = original.rows(&rows);
        assert!(!before.is_empty(), "{table}");
        assert_eq!(restored.rows(&rows), before, "{case}: {table}");
    }
    assert_eq!(
        inconsistencies(restored),
        Vec::<Vec<String>>::new(),
        "{case}"
    );
    assert_eq!(
        restored.rows("SELECT * FROM state_verify()"),
        Vec::<Vec<String>>::new(),
        "{case}"
    );
    // The classes are in force.
    restored.run("SELECT state_save('kept', to_jsonb(n)) FROM generate_series(1, 9) n");
    assert_eq!(
        restored.number("SELECT count(*) FROM state_snapshot WHERE key = 'kept'"),
        5,
        "{case}"
    );
    restored.run("SELECT state_class_define('run', keep => 4)");
    assert_eq!(
        restored.rows("SELECT keep, channel FROM state_class WHERE class = 'run'"),
        [["4", "runs"]],
        "{case}"
    );
}

#[test]
fn dumps_restore_in_every_mode() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    fill(&mut original);
    let file = |name: &str| server.host().join(name).to_str().unwrap().to_owned();
    let (custom, data) = (file("custom"), file("data_only"));
    server.run_program(
        "pg_dump",
        &["--dbname=postgres", "--format=custom", "--file", &custom],
    );
    server.run_program(
        "pg_dump",
        &["--dbname=postgres", "--data-only", "--file", &data],
    );

    original.run("CREATE DATABASE parallel");
    for attempt in 0..3 {
        original.run("DROP DATABASE parallel");
        original.run("CREATE DATABASE parallel");
        server.run_program(
            "pg_restore",
            &["--dbname=parallel", "--jobs=4", "--exit-on-error", &custom],
        );
        let mut restored = server.connect_to("parallel");
        compare(
            &mut original,
            &mut restored,
            &format!("in parallel, {attempt}"),
        );
    }

    for (database, triggers) in [("quiet", "--disable-triggers"), ("loud", "--verbose")] {
        original.run(&format!("CREATE DATABASE {database}"));
        let mut restored = server.connect_to(database);
        restored.run("CREATE EXTENSION state_cache");
        let name = format!("--dbname={database}");
        server.run_program(
            "pg_restore",
            &[&name, "--data-only", triggers, "--exit-on-error", &custom],
        );
        compare(&mut original, &mut restored, triggers);
    }

    original.run("CREATE DATABASE replica");
    let mut restored = server.connect_to("replica");
    restored.run("CREATE EXTENSION state_cache");
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--dbname=replica",
        "--command=SET session_replication_role = replica",
        "--file",
        &data,
    ];
    server.run_program("psql", &arguments);
    compare(&mut original, &mut restored, "as replica");
}
