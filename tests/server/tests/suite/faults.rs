//! Too much of everything: the answer is right all the same, and comes from the tables where L1 cannot
//! give it (promise 6).

use postgres::Client;
use state_cache_server_tests::{Server, Sql, inconsistencies};
use std::sync::Barrier;

fn tiny() -> Server {
    Server::new(&["state_cache.memory = '1MB'"])
}

/// All states, by function and by table.
fn wrong_reads(client: &mut Client) -> i64 {
    client.number(
        "SELECT count(*) FROM state_current
             WHERE state_get(key, class) IS DISTINCT FROM state OR state_version(key, class) IS DISTINCT FROM \
             version",
    )
}

#[test]
fn a_full_l1_evicts_and_fails_nothing() {
    let server = tiny();
    let mut client = server.connect();
    client.run(
        "SELECT state_set('k' || n, jsonb_build_object('n', n, 'padding', repeat(md5(n::text), 90)))
             FROM generate_series(1, 2000) n",
    );
    for _ in 0..3 {
        assert_eq!(wrong_reads(&mut client), 0);
    }
    assert_eq!(client.number("SELECT count(*) FROM state_current"), 2000);
    assert!(client.counter("evictions") > 2000);
    let entries = client.counter("entries");
    assert!(
        (50..400).contains(&entries),
        "{entries} entries of 3 kB in 1 MB"
    );
    assert_eq!(
        client.number("SELECT count(*) FROM state_cache_entries"),
        entries
    );
    assert!(client.counter("memory_used") <= client.counter("memory_total"));
}

#[test]
fn a_state_too_large_for_l1_is_served_from_the_tables_and_counted() {
    let server = tiny();
    let mut client = server.connect();
    for n in 0..5 {
        client.run(&format!(
            "SELECT state_set('large {n}', jsonb_build_object('n', {n}, 'padding', repeat(md5('{n}'), 32768)))"
        ));
    }
    client.run("SELECT state_set('small', '{}')");
    let counted = client.counter("too_large");
    for _ in 0..2 {
        assert_eq!(wrong_reads(&mut client), 0);
        assert_eq!(client.text("SELECT state_get_path('large 3', '{n}')"), "3");
        assert_eq!(
            client.text("SELECT length(state_get_text('large 3'))"),
            client.text("SELECT length(state::text) FROM state_current WHERE key = 'large 3'")
        );
    }
    assert!(client.counter("too_large") > counted);
    assert_eq!(
        client.rows("SELECT key FROM state_cache_entries"),
        [["small"]]
    );
}

#[test]
fn large_and_small_states_take_turns_on_one_key() {
    let server = tiny();
    let mut client = server.connect();
    for round in 0..20 {
        let copies = [1, 40_000][round % 2];
        client.run(&format!("SELECT state_set('k', jsonb_build_object('n', {round}, 'padding', repeat('x', {copies} \
            * 30)))"));
        for _ in 0..2 {
            assert_eq!(wrong_reads(&mut client), 0);
            assert_eq!(
                client.text("SELECT state_get_path('k', '{n}')"),
                round.to_string()
            );
        }
    }
}

#[test]
fn ten_thousand_classes_are_only_slower() {
    let server = Server::new(&["state_cache.memory = '8MB'"]);
    let mut client = server.connect();
    client.run(
        "DO $$ BEGIN
             FOR n IN 1..10000 LOOP
                 PERFORM state_class_define('class ' || n, keep => 1 + n % 3, max_entries => 10);
                 PERFORM state_set('k', jsonb_build_object('n', n), class => 'class ' || n);
                 IF n % 500 = 0 THEN COMMIT; END IF;
             END LOOP;
         END $$",
    );
    let mut other = server.connect();
    for client in [&mut client, &mut other] {
        assert_eq!(client.number("SELECT count(*) FROM state_class"), 10_004);
        assert_eq!(
            client.number(
                "SELECT count(*) FROM generate_series(1, 10000) n WHERE state_get('k', 'class ' || \
            n) = jsonb_build_object('n', n)"
            ),
            10_000
        );
        assert_eq!(wrong_reads(client), 0);
    }
    // A class beyond those that L1 has room to know is as good as any.
    client.run("SELECT state_set('k', '{\"n\": 0}', class => 'class 10000')");
    assert_eq!(
        other.text("SELECT state_get('k', 'class 10000')"),
        "{\"n\": 0}"
    );
    client.run("SELECT state_class_define('class 10000', keep => 2, channel => 'elsewhere')");
    assert_eq!(
        other.number("SELECT keep FROM state_class WHERE class = 'class 10000'"),
        2
    );
    assert!(client.number("SELECT count(*) FROM state_cache_stats") >= 1);
    assert!(client.counter("hits") > 0);
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

/// Sessions at once, and what each does.
const SESSIONS: usize = 200;
const CHANGES: usize = 10;

#[test]
fn two_hundred_sessions_at_once_lose_nothing() {
    let server = Server::new(&[
        "max_connections = 220",
        "state_cache.memory = '1MB'",
        "shared_buffers = '32MB'",
    ]);
    server
        .connect()
        .run("SELECT state_set('shared', '{\"log\": []}')");
    let together = Barrier::new(SESSIONS);
    std::thread::scope(|threads| {
        for session in 0..SESSIONS {
            let (server, together) = (&server, &together);
            threads.spawn(move || {
                let client = server.try_connect("postgres");
                together.wait();
                let mut client = client.unwrap();
                for n in 1..=CHANGES {
                    client.run(&format!(
                        "SELECT state_set('own {session}', '{{\"n\": {n}}}')"
                    ));
                    assert_eq!(
                        client.text(&format!("SELECT state_get('own {session}') -> 'n'")),
                        n.to_string()
                    );
                }
                client.run(&format!(
                    "SELECT state_append('shared', '{{log}}', '{session}')"
                ));
                assert_eq!(wrong_reads(&mut client), 0);
            });
        }
    });
    let mut client = server.connect();
    assert_eq!(
        client.number(
            "SELECT count(DISTINCT entry) FROM jsonb_array_elements(state_get('shared') -> 'log') \
        entry"
        ),
        SESSIONS as i64
    );
    assert_eq!(
        client.number("SELECT jsonb_array_length(state_get('shared') -> 'log')"),
        SESSIONS as i64
    );
    assert_eq!(
        client.number(&format!(
            "SELECT count(*) FROM state_current WHERE key LIKE 'own %' AND version = {CHANGES}"
        )),
        SESSIONS as i64
    );
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

/// A snapshot that lists the subtransactions of one session and not of another, which has too many: its copies
/// say how many it lists, and have no list.
#[test]
fn reading_is_safe_beside_more_subtransactions_than_a_snapshot_lists() {
    let server = Server::new(&[]);
    // The server goes through its sessions in an order of its own, and stops listing where it meets too many.
    let (mut before, mut many, mut after) = (server.connect(), server.connect(), server.connect());
    let mut reader = server.connect();
    reader.run("CREATE TABLE t (n int)");
    reader.run("SELECT state_set('k', '1')");
    for client in [&mut before, &mut after] {
        client.run("BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1); RELEASE s");
    }
    many.run("BEGIN");
    for n in 0..70 {
        many.run(&format!("SAVEPOINT s{n}; INSERT INTO t VALUES ({n})"));
    }
    // Raises the upper bound of snapshots above all of these.
    reader.run("SELECT state_set('other', '1')");
    let times_up = server.times_up();
    // An entry that is missing: the snapshots of reader and filler are compared.
    reader.run("SELECT state_cache_clear()");
    assert_eq!(reader.text("SELECT state_get('k')"), "1");
    assert_eq!(reader.counter("fills"), 1);
    assert_eq!(server.times_up(), times_up, "nobody has crashed");
}
