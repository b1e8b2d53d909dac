//! One backend, very many operations: its memory does not grow.
//!
//! The suite does 300,000 operations, `make soak` ten million.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, limit_memory};

/// What the private memory of a backend may grow by, in kB, whatever it does: the allocator's own noise.
/// A leak of 16 bytes per operation would be 2.5 MB in the suite, and 128 MB in the soak.
const SLACK_KB: i64 = 2048;

/// Private memory of a process, in kB.
fn private_kb(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Ten operations a round; one of them is undone, and one of them fails.
const ROUNDS: &str = r#"
    CREATE PROCEDURE rounds(first bigint, last bigint, transactions boolean) LANGUAGE plpgsql AS $$
    BEGIN
        FOR n IN first..last LOOP
            PERFORM state_get('k' || n % 40);
            PERFORM state_get_text('large' || n % 3);
            PERFORM state_get_path('large' || n % 3, '{n}');
            PERFORM count(*) FROM state_get_many(ARRAY['k1', 'k2', 'absent']);
            PERFORM state_update('k' || n % 40, jsonb_build_object('n', n));
            PERFORM state_set('k' || n % 7, jsonb_build_object('n', n, 'padding', repeat('x', 500)));
            PERFORM state_set('same', '{"n": 1}');
            BEGIN
                PERFORM state_merge('large' || n % 3, jsonb_build_object('n', n));
                PERFORM state_set('gone' || n % 5, '{}');
                PERFORM state_get_section('k1', 'no such section');
            EXCEPTION WHEN SQLSTATE '2203A' THEN NULL;
            END;
            IF transactions AND n % 5 = 0 THEN
                COMMIT;
            END IF;
            -- PostgreSQL itself remembers every row that a transaction writes twice, some 40 bytes each.
            IF n % (CASE WHEN transactions THEN 100 ELSE 1000 END) = 0 THEN
                PERFORM count(*) FROM state_batch_commit();
                PERFORM state_cache_clear();
            END IF;
        END LOOP;
    END $$;
"#;
const OPERATIONS_PER_ROUND: u64 = 10;

/// Rounds per call: between two calls the backend reports what it has left to VACUUM.
const ROUNDS_PER_CALL: u64 = 2_000;

/// What a backend grows by after the first fifth of its rounds, in kB.
fn growth(client: &mut Client, rounds: u64, transactions: bool) -> i64 {
    let pid = client.pid();
    let mut before = 0;
    let calls = rounds / ROUNDS_PER_CALL;
    for call in 0..calls {
        if call == calls / 5 {
            before = private_kb(pid);
        }
        let (first, last) = (call * ROUNDS_PER_CALL + 1, (call + 1) * ROUNDS_PER_CALL);
        client.run(&format!("CALL rounds({first}, {last}, {transactions})"));
    }
    private_kb(pid) - before
}

fn server() -> Server {
    let server = Server::new(&[
        "autovacuum_naptime = '1s'",
        "max_wal_size = '256MB'",
        "synchronous_commit = off",
    ]);
    let mut client = server.connect();
    client.run(ROUNDS);
    client.run("SELECT state_set('k' || n, '{\"n\": 0}') FROM generate_series(0, 39) n");
    client.run("SELECT state_set('large' || n, jsonb_build_object('n', 0, 'padding', repeat(md5(n::text), 1000))) \
        FROM generate_series(0, 2) n");
    server
}

fn does_not_grow(operations: u64, transactions: bool) {
    let server = server();
    let mut client = server.connect();
    if !transactions {
        client.run("BEGIN");
    }
    let grown = growth(&mut client, operations / OPERATIONS_PER_ROUND, transactions);
    println!("{operations} operations, many transactions: {transactions}: {grown} kB");
    assert!(
        grown < SLACK_KB,
        "{grown} kB more after {operations} operations"
    );
}

#[test]
fn many_transactions_in_one_backend_do_not_grow_it() {
    does_not_grow(200_000, true);
}

#[test]
fn one_long_transaction_does_not_grow_its_backend() {
    does_not_grow(100_000, false);
}

/// 50 MB of documents, and a backend that may have 16 MB more than it has.
#[test]
fn a_read_of_many_states_holds_one_document_at_a_time() {
    let server = Server::new(&["state_cache.memory = '128MB'", "work_mem = '64kB'"]);
    let mut writer = server.connect();
    writer.run("SELECT state_class_define('many')");
    let write = |text: &str| {
        format!(
            "SELECT state_set('k' || n, to_jsonb(repeat('{text}', 200000)), class => 'many') FROM \
                generate_series(1, 250) n"
        )
    };
    writer.run(&write("a"));
    let read = "SELECT count(*) FROM state_get_many((SELECT array_agg('k' || n) FROM generate_series(1, 250) n), \
        'many')
        WHERE length(state::text) = 200002";
    let limited = || {
        let mut client = server.connect();
        client.run("SELECT state_get('k1', 'many')");
        limit_memory(client.pid(), 16 << 20);
        client
    };
    // Out of L1.
    let hits = writer.counter("hits");
    assert_eq!(limited().number(read), 250);
    assert!(writer.counter("hits") >= hits + 250);
    // Past it.
    let mut client = limited();
    client.run("SET state_cache.enabled = off");
    assert_eq!(client.number(read), 250);
    // Out of the tables, since what L1 has is too new for the snapshot.
    let mut client = limited();
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT state_get('k1', 'many')");
    writer.run(&write("b"));
    let too_new = writer.counter("bypass_snapshot");
    assert_eq!(client.number(read), 250);
    client.run("COMMIT");
    assert!(writer.counter("bypass_snapshot") >= too_new + 250);
}

/// 600 MB of documents in a million rows, and a backend that may have 128 MB more than it has: the keys take half of
/// that.
#[test]
fn a_read_of_a_million_keys_keeps_none_of_the_documents() {
    let server = Server::new(&["state_cache.memory = '32MB'", "work_mem = '64kB'"]);
    let mut client = server.connect();
    client.run(
        "SELECT state_set('k' || n, to_jsonb(repeat('a', 600))) FROM generate_series(0, 999) n",
    );
    client.run("CREATE TABLE keys AS SELECT array_agg('k' || n % 1000) AS keys FROM generate_series(1, 1000000) n");
    let read =
        "SELECT count(*) FROM state_get_many((SELECT keys FROM keys)) WHERE state IS NOT NULL";
    client.run("SELECT state_get('k1')");
    limit_memory(client.pid(), 128 << 20);

    let hits = client.counter("hits");
    assert_eq!(client.number(read), 1_000_000);
    assert!(client.counter("hits") > hits + 900_000);
}

#[test]
#[ignore = "soak"]
fn ten_million_operations_in_one_backend_do_not_grow_it() {
    does_not_grow(10_000_000, true);
}

#[test]
#[ignore = "soak"]
fn a_transaction_of_a_million_operations_does_not_grow_its_backend() {
    does_not_grow(1_000_000, false);
}
