//! A data directory that was put back, a backup that was started as it is, a standby that lagged: what was given out
//! in the future that is lost means nothing in the one that comes.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};

/// What became visible since, without the last row, in order: `op key version`.
fn told(client: &mut Client, since: &str) -> Vec<String> {
    let sql = format!(
        "SELECT op, key, version FROM state_changes('{since}') WHERE op <> 'end' ORDER BY key, op"
    );
    client
        .rows(&sql)
        .into_iter()
        .map(|row| row.join(" "))
        .collect()
}

fn is_refused(client: &mut Client, cursor: &str) {
    assert_eq!(
        client.error(&format!("SELECT * FROM state_changes('{cursor}')")),
        "55000"
    );
}

/// Gives out so many transaction ids, and writes as much WAL.
fn pass_ids(client: &mut Client, count: usize) {
    for _ in 0..count {
        client.run("SELECT pg_current_xact_id(); SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000))");
    }
}

#[test]
fn a_cursor_of_a_future_that_is_lost_is_refused_for_good() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_set('a', '1')");
    let before = client.cursor();
    drop(client);
    server.stop();
    server.copy_data("copy");

    server.start();
    let mut client = server.connect();
    client.run("SELECT state_set('a', '2'), state_set('lost', '1')");
    let lost = client.cursor();
    drop(client);
    server.stop();
    server.put_back("copy");

    server.start();
    let mut client = server.connect();
    is_refused(&mut client, &lost);
    client.run("SELECT state_set('a', '3')");
    pass_ids(&mut client, 200);
    is_refused(&mut client, &lost);
    assert_eq!(told(&mut client, &before), ["set a 2"]);
    // Neither another start nor a standby takes it for one of theirs.
    drop(client);
    server.stop();
    server.start();
    let standby = server.standby();
    for mut client in [server.connect(), standby.connect()] {
        is_refused(&mut client, &lost);
        assert_eq!(told(&mut client, &before), ["set a 2"]);
    }
}

/// Of one start, that of the copy and that of the future: only the place in the WAL tells them apart.
#[test]
fn a_cursor_taken_after_a_backup_is_refused_where_the_backup_is_started_as_it_is() {
    let server = Server::new(&[]);
    let (mut client, mut open) = (server.connect(), server.connect());
    client.run("SELECT state_set('a', '1')");
    let before = client.cursor();
    open.run("BEGIN; SELECT state_set('a', '2')");
    open.run("SELECT count(*) FROM state_batch_commit()");
    server.back_up_data("copy");
    // In the future that is lost this is committed, in the one that comes it never was.
    open.run("COMMIT");
    let lost = client.cursor();
    assert_eq!(told(&mut client, &before), ["set a 2"]);
    drop((client, open));
    server.stop();
    server.put_back("copy");

    server.start();
    let mut client = server.connect();
    assert_eq!(client.text("SELECT state_get('a')"), "1");
    is_refused(&mut client, &lost);
    pass_ids(&mut client, 200);
    is_refused(&mut client, &lost);
    assert_eq!(told(&mut client, &before), [""; 0]);
}

#[test]
fn a_cursor_is_refused_where_a_start_is_not_known() {
    let server = Server::new(&[]);
    server.connect().run("CREATE DATABASE idle");
    let mut client = server.connect_to("idle");
    client.run("CREATE EXTENSION state_cache; SELECT state_set('a', '1')");
    let before = client.cursor();
    drop(client);
    server.stop();
    server.copy_data("copy");
    server.start();
    let mut client = server.connect_to("idle");
    client.run("SELECT state_set('a', '2')");
    let lost = client.cursor();
    drop(client);
    server.stop();
    server.put_back("copy");

    // A start of which this database hears nothing, which writes more than what was lost.
    server.configure(&["state_cache.max_workers = 0"]);
    server.start();
    pass_ids(&mut server.connect(), 200);
    server.stop();
    server.start();
    let mut client = server.connect_to("idle");
    is_refused(&mut client, &lost);
    // What it does not know it does not guess, though nothing was lost of this one.
    is_refused(&mut client, &before);
    let anew = client.cursor();
    client.run("SELECT state_set('a', '3')");
    assert_eq!(told(&mut client, &anew), ["set a 2"]);
}

#[test]
fn a_cursor_outlives_starts_and_crashes_that_the_worker_has_noted() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_set('a', '1')");
    let first = client.cursor();
    drop(client);
    let noted = "SELECT count(DISTINCT name) FROM state_start";
    for n in 2..=4 {
        if n % 2 == 0 {
            server.kill_everything();
        } else {
            server.stop();
        }
        server.start();
        let mut client = server.connect();
        eventually("the worker to note the start", || client.number(noted) == n);
        assert_eq!(told(&mut client, &first), [""; 0]);
    }
    let mut client = server.connect();
    client.run("SELECT state_set('b', '1')");
    assert_eq!(told(&mut client, &first), ["set b 1"]);
    // Who may not write takes cursors all the same, and leaves no note.
    client.run("SET default_transaction_read_only = on");
    let here = client.cursor();
    assert_eq!(told(&mut client, &here), [""; 0]);
}

/// Message numbers of two histories are never taken for one another.
#[test]
fn the_epoch_of_messages_is_another_after_a_copy_was_put_back() {
    let server = Server::new(&[]);
    let epoch = |client: &mut Client| client.text("SELECT epoch FROM state_cursor()");
    let mut seen = vec![epoch(&mut server.connect())];
    server.stop();
    server.copy_data("copy");
    for _ in 0..2 {
        server.start();
        seen.push(epoch(&mut server.connect()));
        server.stop();
        server.put_back("copy");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// Claims, opens a conflict and exports, and gives the numbers that were drawn for it.
fn drawn(client: &mut Client, run: &str) -> [i64; 3] {
    client.run(&format!(
        "SELECT state_context_create('{run}', inputs => '{{\"v\": 0}}');
         SELECT state_context_child('{run}', '{run}/a')"
    ));
    client.run(&format!(
        "SELECT state_context_set('{run}', 'v', '1'), state_context_set('{run}/a', 'v', '2');
         SELECT state_context_mark_export('{run}/a', 'v', 'external_system', target => 'mail')"
    ));
    let conflict = client.number(&format!(
        "SELECT conflict FROM state_context_merge('{run}/a', 'manual_review')"
    ));
    client.run(&format!("SELECT state_context_complete('{run}/a')"));
    [
        client.number(&format!("SELECT state_context_claim('{run}', 'me')")),
        conflict,
        client.number(&format!(
            "SELECT id FROM state_outbox WHERE run_id = '{run}/a'"
        )),
    ]
}

fn assert_all_above(new: &[i64; 3], old: &[i64; 3]) {
    for (new, old) in new.iter().zip(old) {
        assert!(new > old, "{new} after {old}");
    }
}

/// More than a crash of the sequence would skip.
fn draw_many(client: &mut Client) -> [i64; 3] {
    (0..40)
        .map(|n| drawn(client, &format!("lost{n}")))
        .last()
        .unwrap()
}

/// Whoever was the owner in a future that is lost writes nothing in the one that comes.
#[test]
fn no_number_is_given_out_twice_where_a_copy_was_put_back() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    let before = drawn(&mut client, "first");
    client.run("SELECT state_context_create('run')");
    drop(client);
    server.stop();
    server.copy_data("copy");
    server.start();
    let mut client = server.connect();
    let lost = draw_many(&mut client);
    let token = client.number("SELECT state_context_claim('run', 'of the lost future')");
    assert_all_above(&lost, &before);
    drop(client);
    server.stop();
    server.put_back("copy");
    server.start();
    let mut client = server.connect();
    // Also before anybody has claimed it anew.
    let write = format!("SELECT state_context_set('run', 'x', '1', token => {token})");
    assert_eq!(client.error(&write), "40001");
    let after = drawn(&mut client, "next");
    assert_all_above(&after, &lost);
    client.run("SELECT state_context_claim('run', 'of now')");
    assert_eq!(client.error(&write), "40001");
    // The clock of a server may be behind: what was drawn here before is never reached again.
    client.run("SELECT setval('state_claim_token', 4000000000000000)");
    assert_eq!(
        client.number(
            "SELECT state_context_claim('next/b', 'me') FROM state_context_child('next', 'next/b')"
        ),
        4_000_000_000_000_001
    );
}

#[test]
fn no_number_is_given_out_twice_after_a_lagging_standby_was_promoted() {
    let primary = Server::new(&[]);
    let mut client = primary.connect();
    drawn(&mut client, "first");
    client.run("SELECT state_context_create('run')");
    let standby = primary.standby();
    // It hears of nothing more.
    let mut other = standby.connect();
    other.run("ALTER SYSTEM SET primary_conninfo = ''");
    other.run("SELECT pg_reload_conf()");
    eventually("the standby to lag", || {
        other.number("SELECT count(*) FROM pg_stat_wal_receiver") == 0
    });
    let lost = draw_many(&mut client);
    let token = client.number("SELECT state_context_claim('run', 'of the lost future')");
    primary.kill_everything();
    assert!(other.flag("SELECT pg_promote()"));
    eventually("the promotion", || {
        !other.flag("SELECT pg_is_in_recovery()")
    });
    assert_eq!(
        other.number("SELECT count(*) FROM state_claim WHERE run_id LIKE 'lost%'"),
        0
    );
    let write = format!("SELECT state_context_set('run', 'x', '1', token => {token})");
    assert_eq!(other.error(&write), "40001");
    assert_all_above(&drawn(&mut other, "next"), &lost);
    other.run("SELECT state_context_claim('run', 'of now')");
    assert_eq!(other.error(&write), "40001");
}

#[test]
fn no_number_is_given_out_twice_where_a_dump_was_restored() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    let dump = server.host().join("dump");
    let dump = dump.to_str().unwrap();
    drawn(&mut client, "first");
    server.run_program("pg_dump", &["--dbname=postgres", "--file", dump]);
    let lost = draw_many(&mut client);
    client.run("CREATE DATABASE restored");
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--dbname=restored",
        "--file",
        dump,
    ];
    server.run_program("psql", &arguments);
    assert_all_above(&drawn(&mut server.connect_to("restored"), "next"), &lost);
}
