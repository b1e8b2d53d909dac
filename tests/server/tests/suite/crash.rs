//! Crashes: what was acknowledged is there afterwards, nothing else is half there, and L1 works again.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, inconsistencies, kill};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads through the functions equal the tables, and L1 serves hits.
fn serves_again(server: &Server) {
    let mut client = server.connect();
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    let read = "SELECT count(state_get(key, class)) FROM state_head WHERE NOT deleted";
    let live = client.number("SELECT count(*) FROM state_current");
    assert_eq!(client.number(read), live);
    let hits = client.counter("hits");
    assert_eq!(client.number(read), live);
    assert_eq!(
        client.counter("hits") - hits,
        live,
        "every read of a second round is a hit"
    );
}

/// Both states of the transaction, as another session reads them.
fn pair(client: &mut Client) -> String {
    client.text(
        "SELECT concat_ws(' ', state_get('a') -> 'n', state_get('b') -> 'n', state_version('a'), \
        state_version('b'))",
    )
}

/// Kills the backend at a point of its commit.
fn commit_killed_at(point: &str) -> (Server, String) {
    let server = Server::new(&["fsync = on"]);
    let mut client = server.connect();
    client.run("SELECT state_set('a', '{\"n\": 1}'), state_set('b', '{\"n\": 1}'), state_set('bystander', '{}')");
    client.run("SELECT state_get('a'), state_get('b'), state_get('bystander')");

    let times_up = server.times_up();
    client.run(&format!(
        "BEGIN; SET LOCAL state_cache.test_kill_at = '{point}'"
    ));
    client.run("SELECT state_set('a', '{\"n\": 2}'), state_update('b', '{\"n\": 2}')");
    assert_eq!(client.error("COMMIT"), "connection lost");
    server.await_recovery(times_up);

    serves_again(&server);
    let found = pair(&mut server.connect());
    // The states can be written again.
    server
        .connect()
        .run("SELECT state_set('a', '{\"n\": 3}'), state_update('b', '{\"n\": 3}')");
    let next = if found == "1 1 1 1" {
        "3 3 2 2"
    } else {
        "3 3 3 3"
    };
    assert_eq!(pair(&mut server.connect()), next);
    (server, found)
}

#[test]
fn a_backend_killed_after_its_flush_has_written_nothing() {
    assert_eq!(commit_killed_at("after_flush").1, "1 1 1 1");
}

#[test]
fn a_backend_killed_after_marking_has_written_nothing() {
    assert_eq!(commit_killed_at("marked").1, "1 1 1 1");
}

#[test]
fn a_backend_killed_before_publishing_has_committed_all() {
    assert_eq!(commit_killed_at("visible").1, "2 2 2 2");
}

#[test]
fn a_backend_killed_before_filling_harms_nobody() {
    let server = Server::new(&["fsync = on"]);
    let mut client = server.connect();
    client.run("SELECT state_set('a', '{\"n\": 1}'), state_set('b', '{\"n\": 1}')");
    client.run("SELECT state_cache_clear()");
    let times_up = server.times_up();
    client.run("SET state_cache.test_kill_at = 'before_fill'");
    assert_eq!(client.error("SELECT state_get('a')"), "connection lost");
    server.await_recovery(times_up);
    serves_again(&server);
    assert_eq!(pair(&mut server.connect()), "1 1 1 1");
}

/// Sessions that write under load.
const WRITERS: usize = 8;
/// Acknowledged transactions per round before the crash.
const ACKNOWLEDGED: usize = 300;
const ROUNDS: usize = 3;

/// What a writer knows of its own transactions.
struct Ledger {
    /// Number of the last transaction whose COMMIT was acknowledged.
    acknowledged: i64,
    /// Number of the last one that was tried.
    tried: i64,
}

/// Writes until the connection is lost: each transaction sets two states of this writer to its number and
/// appends it to a log that all share.
fn write(server: &Server, writer: usize, ledger: &Mutex<Ledger>, acknowledged: &AtomicUsize) {
    let Ok(mut client) = server.try_connect("postgres") else {
        return;
    };
    loop {
        let number = {
            let mut ledger = ledger.lock().unwrap();
            ledger.tried = ledger.tried.max(ledger.acknowledged) + 1;
            ledger.tried
        };
        let change = format!(
            "BEGIN;
             SELECT state_set('left {writer}', '{{\"n\": {number}}}');
             SELECT state_update('right {writer}', '{{\"n\": {number}}}');
             SELECT state_append('log', '{{}}', '\"{writer}/{number}\"');
             COMMIT"
        );
        if client.batch_execute(&change).is_err() {
            return;
        }
        ledger.lock().unwrap().acknowledged = number;
        acknowledged.fetch_add(1, Ordering::SeqCst);
        if client
            .query(
                "SELECT state_get('log'), state_get($1)",
                &[&format!("left {writer}")],
            )
            .is_err()
        {
            return;
        }
    }
}

/// What was acknowledged is there; of the rest at most the last, and that one wholly.
fn settle(server: &Server, ledgers: &[Mutex<Ledger>]) {
    let mut client = server.connect();
    for (writer, ledger) in ledgers.iter().enumerate() {
        let mut ledger = ledger.lock().unwrap();
        let left = client.number(&format!("SELECT state_get_path('left {writer}', '{{n}}')"));
        let right = client.number(&format!("SELECT state_get_path('right {writer}', '{{n}}')"));
        let logged = client.number(&format!(
            "SELECT coalesce(max(split_part(entry, '/', 2)::bigint), 0)
                 FROM jsonb_array_elements_text(state_get('log')) entry WHERE entry LIKE '{writer}/%'"
        ));
        assert!(
            (ledger.acknowledged..=ledger.tried).contains(&left),
            "writer {writer}: {left}"
        );
        assert_eq!(
            (left, left),
            (right, logged),
            "writer {writer} has half a transaction"
        );
        ledger.acknowledged = left;
    }
    let twice = client.number(
        "SELECT count(*) - count(DISTINCT entry) FROM jsonb_array_elements_text(state_get('log')) entry",
    );
    assert_eq!(twice, 0, "an append was applied twice");
}

/// Loads the server, crashes it with `crash`, and looks at what is there; several times.
fn survives(crash: impl Fn(&Server)) {
    let server = Server::new(&["fsync = on"]);
    let mut client = server.connect();
    client.run("SELECT state_set('log', '[]')");
    let ledgers: Vec<_> = (0..WRITERS)
        .map(|_| {
            Mutex::new(Ledger {
                acknowledged: 0,
                tried: 0,
            })
        })
        .collect();
    for writer in 0..WRITERS {
        client.run(&format!(
            "SELECT state_set('left {writer}', '{{\"n\": 0}}'), state_set('right {writer}', \
            '{{\"n\": 0}}')"
        ));
    }
    drop(client);
    for _ in 0..ROUNDS {
        let acknowledged = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            let (server, acknowledged) = (&server, &acknowledged);
            for (writer, ledger) in ledgers.iter().enumerate() {
                threads.spawn(move || write(server, writer, ledger, acknowledged));
            }
            state_cache_server_tests::eventually("enough commits", || {
                acknowledged.load(Ordering::SeqCst) >= ACKNOWLEDGED
            });
            crash(server);
        });
        settle(&server, &ledgers);
        serves_again(&server);
    }
}

#[test]
fn what_was_acknowledged_survives_a_killed_postmaster() {
    survives(|server| {
        server.kill_postmaster();
        server.start();
    });
}

#[test]
fn what_was_acknowledged_survives_killed_backends() {
    survives(|server| {
        let times_up = server.times_up();
        let mut client = server.connect();
        let victim = client.number(
            "SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        );
        kill(victim.try_into().unwrap());
        server.await_recovery(times_up);
    });
}

/// A claim that was given is in force after a crash, and what its owner before writes still fails; a claim that was
/// not committed never was one.
#[test]
fn claims_outlive_a_crash() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_class_define('claimed'); CREATE TABLE mine (who text, token bigint)");
    client.run("INSERT INTO mine SELECT 'one', state_claim('k', 'one', '1 us', 'claimed')");
    client.run("INSERT INTO mine SELECT 'two', state_claim('k', 'two', '1 day', 'claimed')");
    client.run("BEGIN; SELECT state_claim('open', 'one', '1 day', 'claimed')");
    server.kill_everything();
    server.start();

    let mut client = server.connect();
    assert_eq!(
        client.error("SELECT state_claim('k', 'one', class => 'claimed')"),
        "55P03"
    );
    client.run("SELECT state_claim('open', 'two', class => 'claimed')");
    let write_as = |who: &str| {
        format!(
            "BEGIN; SELECT state_fence('k', token, 'claimed') FROM mine WHERE who = '{who}'; \
             SELECT state_set('k', to_jsonb('{who}'::text), class => 'claimed'); COMMIT"
        )
    };
    assert_eq!(client.error(&write_as("one")), "40001");
    client.run("ROLLBACK");
    client.run(&write_as("two"));
    assert_eq!(client.text("SELECT state_get('k', 'claimed')"), "\"two\"");
}
