//! What is set for a database is for its sessions: the worker has settings of its own.

use state_cache_server_tests::{Server, Sql, eventually};

#[test]
fn what_is_set_for_the_database_does_not_stop_the_worker() {
    let server = Server::new(&["state_cache.tombstone_retention = 1s"]);
    let mut client = server.connect();
    client.run("CREATE ROLE nobody; SELECT state_class_define('late', write_mode => 'behind')");
    client.run("SELECT state_set('first', '1'), state_set('first', '1', class => 'late')");
    for (setting, value) in [
        ("role", "nobody"),
        ("session_authorization", "nobody"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
        ("statement_timeout", "1ms"),
        ("lock_timeout", "1ms"),
        ("idle_in_transaction_session_timeout", "1ms"),
        ("idle_session_timeout", "1ms"),
        ("row_security", "off"),
        ("session_replication_role", "replica"),
        ("transform_null_equals", "on"),
        ("standard_conforming_strings", "off"),
        ("search_path", "nowhere"),
    ] {
        client.run(&format!(
            "ALTER DATABASE postgres SET {setting} = '{value}'"
        ));
    }
    let pid = "SELECT pid FROM state_cache_workers WHERE database = 'postgres'";
    eventually("a worker that can be replaced", || {
        client.text(pid) != "NULL"
    });
    let before = client.text(pid);
    client.run(&format!("SELECT pg_terminate_backend({before})"));
    client.run("SELECT state_set('gone', '1'), state_set('a', '1', class => 'late')");
    client.run("SELECT state_set('brief', '1', ttl => '1 ms'), state_delete('gone')");
    eventually(
        "the worker to write, to expire and to drop tombstones",
        || {
            let pid = client.text(pid);
            pid != before
                && pid != "NULL"
                && client.rows("SELECT class, key FROM state_head ORDER BY 1, 2")
                    == [["late", "a"], ["late", "first"], ["run", "first"]]
        },
    );
    assert_eq!(
        client.rows(
            "SELECT failures, last_error FROM state_cache_workers WHERE database = 'postgres'"
        ),
        [["0", "NULL"]]
    );
}
