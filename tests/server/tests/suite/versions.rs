//! Numbers of versions where one index does not keep them apart, where a worker makes them, and what a pass of
//! retention keeps of a class that is redefined under it.

use super::partitions::partition;
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

const TASKS: &str = "
    CREATE FUNCTION state_cache_test_expire() RETURNS boolean LANGUAGE c AS '$libdir/state_cache';
    CREATE FUNCTION state_cache_test_retain() RETURNS bigint LANGUAGE c AS '$libdir/state_cache'";

/// Versions `n` = 1 to 5 of `k`, large enough to be stored as differences, in the partition of next month.
fn five_versions_in_another_month(client: &mut Client) {
    client.run("SELECT state_class_define('t', keep => 0)");
    partition(client);
    for n in 1..=5 {
        set(client, n);
    }
    client.run(
        "BEGIN; SET LOCAL session_replication_role = replica;
         UPDATE state_snapshot SET created_at = now() + interval '1 month' WHERE class = 't';
         COMMIT",
    );
}

fn set(client: &mut Client, n: i64) {
    client.run(&format!(
        "SELECT state_set('k', jsonb_build_object('n', {n}, 'log', (SELECT jsonb_agg(md5(i::text)) FROM \
            generate_series(1, 60) i)), class => 't')"
    ));
}

fn move_head_back(client: &mut Client, version: i64) {
    client.run(&format!(
        "UPDATE state_head SET version = {version}, hash = (SELECT hash FROM state_snapshot s WHERE s.class = 't' \
            AND s.version = {version} ORDER BY created_at LIMIT 1)
         WHERE class = 't'"
    ));
}

/// Version and number of each that is kept, newest first.
fn history(client: &mut Client) -> String {
    client.text(
        "SELECT string_agg(version || ':' || (state_at('k', version, 't') ->> 'n'), ' ' ORDER BY version DESC) FROM \
            state_history('k', 't')",
    )
}

fn verify(client: &mut Client, repair: bool) -> Vec<Vec<String>> {
    client.rows(&format!(
        "SELECT key, version, fault FROM state_verify('t', {repair})"
    ))
}

#[test]
fn a_partitioned_table_makes_no_version_twice() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    five_versions_in_another_month(&mut client);
    move_head_back(&mut client, 3);
    set(&mut client, 6);
    assert_eq!(history(&mut client), "6:6 5:5 4:4 3:3 2:2 1:1");
    move_head_back(&mut client, 2);
    client.run(
        "SELECT state_set('other', '1', class => 't'), state_append('k', '{log}', '1', class => 't')",
    );
    assert_eq!(history(&mut client), "7:2 6:6 5:5 4:4 3:3 2:2 1:1");
    assert!(verify(&mut client, false).is_empty());
}

/// The other session makes versions and moves the head row back while this one waits for it: no index says that the
/// number is taken.
#[test]
fn a_partitioned_table_makes_no_version_twice_while_a_flush_waits() {
    let server = Server::new(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    five_versions_in_another_month(&mut client);
    move_head_back(&mut client, 3);
    client.run("DELETE FROM state_snapshot WHERE class = 't' AND version > 3");
    other.run("BEGIN; SELECT 1 FROM state_head WHERE class = 't' FOR UPDATE");
    let waiting = std::thread::spawn(move || {
        set(&mut client, 9);
        client
    });
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT \
        state_set%' AND pid <> pg_backend_pid())";
    let mut watch = server.connect();
    eventually("the flush waits", || watch.flag(waits));
    set(&mut other, 4);
    other.run("SELECT state_batch_commit()");
    other.run("SET LOCAL session_replication_role = replica; UPDATE state_snapshot SET created_at = now() + \
        interval '1 month' WHERE class = 't'");
    other.run("SET LOCAL session_replication_role = origin");
    move_head_back(&mut other, 3);
    other.run("COMMIT");
    let mut client = waiting.join().unwrap();
    assert_eq!(history(&mut client), "5:9 4:4 3:3 2:2 1:1");
    assert!(verify(&mut client, false).is_empty());
}

/// As an earlier release has left it: versions 4 and 5 are there twice.
#[test]
fn verification_finds_a_version_that_is_kept_twice_and_repair_keeps_the_later_one() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    five_versions_in_another_month(&mut client);
    client.run(
        "CREATE TABLE twice AS SELECT * FROM state_snapshot WHERE class = 't' AND version > 3;
         UPDATE twice SET created_at = now(), delta = NULL, state = jsonb_build_object('n', version + 10);
         UPDATE twice SET hash = state_hash(state);
         INSERT INTO state_snapshot SELECT * FROM twice",
    );
    let doubled = [
        ["k", "5", "it is kept twice"],
        ["k", "4", "it is kept twice"],
    ];
    assert_eq!(verify(&mut client, false), doubled);
    assert_eq!(verify(&mut client, true), doubled);
    assert!(verify(&mut client, false).is_empty());
    // Those in the partition of next month were written last.
    assert_eq!(history(&mut client), "5:5 4:4 3:3 2:2 1:1");
    assert_eq!(client.text("SELECT state_get('k', 't') ->> 'n'"), "5");
    assert_eq!(
        client.text("SELECT string_agg(version || ' ' || (state ->> 'n'), ', ' ORDER BY version) FROM state_damaged"),
        "4 14, 5 15"
    );
    // The other way round: what the head names was written first, and is made current again.
    client.run(
        "UPDATE twice SET created_at = now() + interval '2 months';
         INSERT INTO state_snapshot SELECT * FROM twice WHERE version = 5",
    );
    assert_eq!(
        verify(&mut client, true),
        [
            ["k", "5", "head and snapshot have different hashes"],
            ["k", "5", "it is kept twice"]
        ]
    );
    assert!(verify(&mut client, false).is_empty());
    assert_eq!(history(&mut client), "6:15 5:15 4:4 3:3 2:2 1:1");
}

#[test]
fn an_expired_state_ends_above_all_that_is_kept_of_it() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run(TASKS);
    client.run("SELECT state_class_define('t', keep => 0)");
    for n in 1..=4 {
        client.run(&format!(
            "SELECT state_set('k', '{n}', ttl => '1 hour', class => 't')"
        ));
    }
    client.run("UPDATE state_head SET version = 2, expires_at = now() WHERE class = 't'");
    client.run("SELECT state_cache_test_expire()");
    assert_eq!(
        client.rows("SELECT version, deleted FROM state_head WHERE class = 't'"),
        [["5", "t"]]
    );
}

/// A trigger redefines the class when the first snapshot goes.
#[test]
fn a_pass_of_retention_keeps_what_the_class_keeps_by_then() {
    let server = Server::new(&["state_cache.max_workers = 0"]);
    let mut client = server.connect();
    client.run(TASKS);
    client.run("SELECT state_class_define('t', keep => 0)");
    for key in ["a", "b", "c"] {
        for n in 1..=3 {
            client.run(&format!("SELECT state_set('{key}', '{n}', class => 't')"));
        }
    }
    client.run(
        "UPDATE state_class SET keep = 1 WHERE class = 't';
         CREATE FUNCTION redefine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM state_class_define('t', keep => 0); RETURN NULL;
         END $$;
         CREATE TRIGGER redefine AFTER DELETE ON state_snapshot FOR EACH STATEMENT EXECUTE FUNCTION redefine()",
    );
    client.run("SELECT state_cache_test_retain()");
    let kept =
        "SELECT key, count(*) FROM state_snapshot WHERE class = 't' GROUP BY key ORDER BY key";
    assert_eq!(client.rows(kept), [["a", "1"], ["b", "3"], ["c", "3"]]);
}
