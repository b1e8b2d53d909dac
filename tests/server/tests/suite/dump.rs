//! pg_dump, and a restore into another database.

use state_cache_server_tests::{Server, Sql, inconsistencies};

#[test]
fn a_restored_dump_holds_the_same_states_and_classes() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    original.run(
        "SELECT state_class_define('run', keep => 5, channel => 'runs');
         SELECT state_class_define('mine', dedup => false, ttl => '1 day', max_entries => 10);
         SELECT state_set('k' || n, jsonb_build_object('n', n, 'text', E'\\u00e9\\t\"\\\\ ' || n)) FROM generate_series(1, 50) n;
         SELECT state_set('mine', '[1.0, 1.00, null]', class => 'mine')",
    );
    original.run("SELECT state_update('k' || n, jsonb_build_object('more', n)) FROM generate_series(1, 20) n");
    original.run("SELECT state_delete('k1'), state_touch('k2', '1 hour')");
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
    for table in ["state_class", "state_head", "state_snapshot"] {
        let rows = format!("SELECT t::text FROM {table} t ORDER BY 1");
        let (before, after) = (original.rows(&rows), restored.rows(&rows));
        assert!(!before.is_empty());
        assert_eq!(before, after, "{table}");
    }
    assert_eq!(inconsistencies(&mut restored), Vec::<Vec<String>>::new());
    let states = "SELECT key, class, state_version(key, class), state_get_text(key, class) FROM state_head ORDER BY 1, 2";
    assert_eq!(original.rows(states), restored.rows(states));

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
