//! States that L3 rejects: put aside, shown, tried again, and in nobody's way.

use super::{await_accepting, await_written, reload, seen_and_stored, server, unwritten};
use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(200);
/// What a flush may take on a machine that does much else.
const ONE_FLUSH: Duration = Duration::from_secs(5);

/// A server on which L3 rejects any state of 9 kB or more: an index entry cannot be that large. No code of
/// users runs for it, so such a state is left to the worker.
fn poisonous() -> Server {
    let server = server(&["state_cache.flush_interval = '200ms'"]);
    let mut client = server.connect();
    client.run("CREATE INDEX poison ON state_head (state)");
    client.run(
        "CREATE FUNCTION poison(n int) RETURNS jsonb LANGUAGE sql AS
            $$ SELECT to_jsonb(string_agg(md5((i * n)::text), '')) FROM generate_series(1, 300) i $$",
    );
    server
}

fn set(client: &mut Client, key: &str, document: &str) {
    client.run(&format!(
        "SELECT state_set('{key}', {document}, class => 'left')"
    ));
}

/// Keys that are put aside.
fn parked(client: &mut Client) -> Vec<String> {
    client
        .rows("SELECT key FROM state_cache_unwritten WHERE parked ORDER BY 1")
        .into_iter()
        .map(|row| row[0].clone())
        .collect()
}

fn await_parked(client: &mut Client, keys: &[&str]) {
    eventually("the states to be put aside", || parked(client) == keys);
}

#[test]
fn a_state_that_l3_rejects_is_put_aside_and_the_others_are_written() {
    let server = poisonous();
    let mut client = server.connect();
    client.run(
        "SELECT state_set('bad', poison(1), class => 'left'), state_set('a', '1', class => 'left'),
            state_set('z', '1', class => 'left')",
    );
    await_parked(&mut client, &["bad"]);
    eventually("the others to be written", || {
        unwritten(&mut client) == ["bad"]
    });
    assert_eq!(
        seen_and_stored(&mut client, "z"),
        ("v1 1".into(), "v1 1".into())
    );
    // It is shown, with the reason, and readers get it.
    let error = client
        .text("SELECT last_error FROM state_cache_workers WHERE database = current_database()");
    assert!(error.contains("54000"), "{error}");
    assert!(server.log().contains("state \"left/bad\" is put aside"));
    assert!(client.flag("SELECT state_get('bad', class => 'left') = poison(1)"));
    assert_eq!(seen_and_stored(&mut client, "bad").1, "absent");
    // Whoever changes it is told the error, and the newest version stays what it was.
    let change = "SELECT state_set('bad', poison(2), class => 'left')";
    assert_eq!(client.error(change), "54000");
    assert!(client.flag("SELECT state_get('bad', class => 'left') = poison(1)"));
    assert_eq!(parked(&mut client), ["bad"]);
    // A change that L3 takes mends it.
    set(&mut client, "bad", "'\"mended\"'");
    assert_eq!(unwritten(&mut client), Vec::<String>::new());
    assert_eq!(
        seen_and_stored(&mut client, "bad"),
        ("v2 \"mended\"".into(), "v2 \"mended\"".into())
    );
}

#[test]
fn a_state_that_l3_rejects_can_be_deleted() {
    let server = poisonous();
    let mut client = server.connect();
    set(&mut client, "bad", "poison(1)");
    await_parked(&mut client, &["bad"]);
    client.run("SELECT state_delete('bad', class => 'left')");
    assert_eq!(unwritten(&mut client), Vec::<String>::new());
    assert_eq!(
        seen_and_stored(&mut client, "bad"),
        ("absent".into(), "absent".into())
    );
    set(&mut client, "bad", "'1'");
    await_written(&mut client);
    assert_eq!(
        seen_and_stored(&mut client, "bad"),
        ("v3 1".into(), "v3 1".into())
    );
}

#[test]
fn a_state_that_was_put_aside_is_tried_again() {
    let server = poisonous();
    let mut client = server.connect();
    set(&mut client, "bad", "poison(1)");
    await_parked(&mut client, &["bad"]);
    client.run("DROP INDEX poison");
    await_written(&mut client);
    assert!(
        client.flag(
            "SELECT state = poison(1) FROM state_current WHERE class = 'left' AND key = 'bad'"
        )
    );
    let flushed = client.flag(
        "SELECT last_flush > last_error_at FROM state_cache_workers WHERE database = current_database()",
    );
    assert!(flushed);
}

#[test]
fn a_state_that_was_put_aside_does_not_delay_others() {
    let server = poisonous();
    let mut client = server.connect();
    set(&mut client, "bad", "poison(1)");
    // By then it is tried every eight seconds or less often.
    let failures = "SELECT failures FROM state_cache_workers WHERE database = current_database()";
    eventually("several attempts", || client.number(failures) >= 4);
    let start = Instant::now();
    set(&mut client, "good", "'1'");
    assert_eq!(unwritten(&mut client), ["bad", "good"]);
    eventually("the good one to be written", || {
        unwritten(&mut client) == ["bad"]
    });
    assert!(
        start.elapsed() < INTERVAL + ONE_FLUSH,
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn many_states_that_l3_rejects_do_not_keep_others_from_it() {
    let server = poisonous();
    let mut client = server.connect();
    client.run(
        "SELECT count(state_set('bad ' || i, poison(i), class => 'left')) FROM generate_series(1, 8) i",
    );
    client.run("SELECT state_set('good', '1', class => 'left')");
    let start = Instant::now();
    eventually("the good one to be written", || {
        !unwritten(&mut client).contains(&"good".into())
    });
    assert!(
        start.elapsed() < INTERVAL + Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    // Once they are gone, changes are left to the worker again.
    client.run(
        "SELECT count(state_delete('bad ' || i, class => 'left')) FROM generate_series(1, 8) i",
    );
    await_accepting(&mut client);
}

#[test]
fn what_cannot_be_written_does_not_hold_up_a_shutdown() {
    let server = poisonous();
    let mut client = server.connect();
    client.run("SELECT state_set('bad', poison(1), class => 'left')");
    await_parked(&mut client, &["bad"]);
    reload(&server, "state_cache.flush_interval = '1h'");
    client.run("SELECT state_set('good', '1', class => 'left')");
    drop(client);
    let start = Instant::now();
    server.stop();
    assert!(
        start.elapsed() < Duration::from_secs(45),
        "{:?}",
        start.elapsed()
    );
    server.start();
    let mut client = server.connect();
    assert_eq!(
        seen_and_stored(&mut client, "good"),
        ("v1 1".into(), "v1 1".into())
    );
    // It had never been in L3: that it is lost is in the log.
    assert_eq!(seen_and_stored(&mut client, "bad").0, "absent");
    assert!(server.log().contains("state \"left/bad\" is put aside"));
}

#[test]
fn a_parked_state_is_deleted_by_hand_and_set_anew_in_one_transaction() {
    let server = poisonous();
    let mut client = server.connect();
    set(&mut client, "bad", "'\"stored\"'");
    await_written(&mut client);
    set(&mut client, "bad", "poison(1)");
    await_parked(&mut client, &["bad"]);
    client.run(
        "BEGIN;
        DELETE FROM state_head WHERE class = 'left' AND key = 'bad';
        SELECT state_set('bad', '\"anew\"', class => 'left');
        COMMIT",
    );
    assert_eq!(unwritten(&mut client), Vec::<String>::new());
    // Version 2 was acknowledged, and is not used again.
    assert_eq!(
        seen_and_stored(&mut client, "bad"),
        ("v3 \"anew\"".into(), "v3 \"anew\"".into())
    );
}
