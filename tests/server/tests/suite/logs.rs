//! Logs beside states: through a dump and a crash, and gone with their tombstones.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};
use std::sync::atomic::{AtomicBool, Ordering};

const ALL: &str = "SELECT class, key, ref, id, entry, payload FROM state_log_entry ORDER BY number";

fn entries(client: &mut Client, key: &str) -> Vec<String> {
    let sql = format!("SELECT entry FROM state_log('{key}')");
    client.rows(&sql).iter().map(|row| row.join(" ")).collect()
}

#[test]
fn a_restored_log_is_the_same_and_goes_on() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    original.run(
        "SELECT state_log_append('k', jsonb_agg(n)) FROM generate_series(1, 100) n;
         SELECT state_log_append('k', '[\"a\", \"b\"]', 'r', '{x, y}', payloads => '{one, NULL}', class => 'config')",
    );
    let dump = server.host().join("dump");
    let dump = dump.to_str().unwrap();
    server.run_program("pg_dump", &["--dbname=postgres", "--file", dump]);
    original.run("CREATE DATABASE restored");
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--dbname=restored",
        "--file",
        dump,
    ];
    server.run_program("psql", &arguments);
    let mut restored = server.connect_to("restored");
    assert_eq!(restored.rows(ALL), original.rows(ALL));
    // Behind what is there, and each id once.
    restored.run("SELECT state_log_append('k', '[\"last\"]')");
    assert_eq!(entries(&mut restored, "k").last().unwrap(), "\"last\"");
    let again = "SELECT state_log_append('k', '[\"z\"]', 'r', '{x}', class => 'config')";
    assert_eq!(restored.number(again), 0);
}

/// Sessions append while the server is killed, and try again what was not acknowledged: each entry is there once.
#[test]
fn a_crash_loses_no_entry_and_doubles_none() {
    const WRITERS: usize = 3;
    const EACH: usize = 150;
    let server = Server::new(&[]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let server = &server;
                scope.spawn(move || {
                    let mut client = None;
                    for n in 0..EACH {
                        let call = format!(
                            "SELECT state_log_append('k', '[{n}]', 'w{writer}', '{{i{n}}}')"
                        );
                        eventually("the entry to be acknowledged", || {
                            if client.is_none() {
                                client = server.try_connect("postgres").ok();
                            }
                            let acknowledged =
                                client.as_mut().is_some_and(|client: &mut Client| {
                                    client.batch_execute(&call).is_ok()
                                });
                            if !acknowledged {
                                client = None;
                            }
                            acknowledged
                        });
                    }
                })
            })
            .collect();
        let (server, done) = (&server, &done);
        scope.spawn(move || {
            for _ in 0..3 {
                std::thread::sleep(std::time::Duration::from_millis(100));
                if done.load(Ordering::SeqCst) {
                    return;
                }
                let times_up = server.times_up();
                if let Ok(mut client) = server.try_connect("postgres") {
                    let pid = client.number("SELECT pg_backend_pid()");
                    state_cache_server_tests::kill(u32::try_from(pid).unwrap());
                    server.await_recovery(times_up);
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    let mut client = server.connect();
    for writer in 0..WRITERS {
        let sql = format!("SELECT entry FROM state_log('k', 'w{writer}')");
        let found: Vec<String> = client.rows(&sql).concat();
        let expected: Vec<String> = (0..EACH).map(|n| n.to_string()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_worker_drops_a_log_with_its_tombstone_unless_somebody_appends() {
    let server = Server::new(&["state_cache.tombstone_retention = 2"]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.run(
        "SELECT state_set(k, '1'), state_log_append(k, '[1]') FROM unnest('{free,busy}'::text[]) k",
    );
    client.run("SELECT state_log_append('never a state', '[1]')");
    client.run("SELECT state_delete('free'), state_delete('busy')");
    // After the deletion, which nobody is then known not to have seen.
    other.run("BEGIN; SELECT state_log_append('busy', '[2]')");
    eventually("the free tombstone to go", || {
        client.number("SELECT count(*) FROM state_head WHERE key = 'free'") == 0
    });
    assert!(entries(&mut client, "free").is_empty());
    assert_eq!(
        client.number("SELECT count(*) FROM state_head WHERE key = 'busy'"),
        1
    );
    other.run("COMMIT");
    eventually("the other tombstone to go", || {
        client.number("SELECT count(*) FROM state_head") == 0
    });
    assert!(entries(&mut client, "busy").is_empty());
    assert_eq!(entries(&mut client, "never a state"), ["1"]);
}
