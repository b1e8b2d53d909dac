//! What becomes of a standby beside replay: pauses, restarts, a crash in the middle of its promotion, a primary that
//! is rewound to follow it, a backup that is restored to an earlier point. L1 answers as the tables say throughout.

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually, inconsistencies, kill};
use std::path::PathBuf;

/// How many states L1 and the tables tell differently.
const DIFFERENCES: &str =
    "SELECT count(*) FROM state_head h LEFT JOIN state_current c USING (class, key)
     WHERE state_get(h.key, h.class) IS DISTINCT FROM c.state
        OR state_get_text(h.key, h.class)::jsonb IS DISTINCT FROM c.state";

/// The numbers in 20 states together.
const SUM: &str = "SELECT sum((state_get('k' || n) -> 'n')::int) FROM generate_series(1, 20) n";

/// Sets `n` of these states.
fn set(client: &mut Client, from: u32, to: u32, n: i32) {
    client.run(&format!(
        "SELECT state_set('k' || k, '{{\"n\": {n}}}') FROM generate_series({from}, {to}) k"
    ));
}

/// Fills L1, and sees it answer rightly: each state is validated at the second comparison.
fn warm(client: &mut Client) {
    assert_eq!(client.number(DIFFERENCES), 0);
    let before = client.counter("validated");
    assert_eq!(client.number(DIFFERENCES), 0);
    let states = client.number("SELECT count(*) FROM state_current");
    assert!(client.counter("validated") >= before + states);
}

fn is_in_recovery(client: &mut Client) -> bool {
    client.flag("SELECT pg_is_in_recovery()")
}

fn is_refused(client: &mut Client, cursor: &str) {
    for call in [
        format!("SELECT * FROM state_changes('{cursor}')"),
        format!("SELECT state_wait_for('{cursor}', '1 s')"),
    ] {
        let error = client.simple_query(&call).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000", "{call}");
        let reason = error.detail().unwrap_or_default();
        assert!(!reason.is_empty(), "{call}");
    }
}

/// Keys that were set since, by name.
fn told(client: &mut Client, since: &str) -> Vec<String> {
    let sql = format!(
        "SELECT key FROM state_changes('{since}') WHERE op <> 'end' ORDER BY length(key), key"
    );
    client.rows(&sql).concat()
}

#[test]
fn a_warm_cache_stays_right_while_replay_is_paused_and_after() {
    let primary = Server::new(&[]);
    let (mut writer, mut keeper) = (primary.connect(), primary.connect());
    set(&mut writer, 1, 20, 1);
    let standby = primary.standby();
    let (mut reader, mut old) = (standby.connect(), standby.connect());
    warm(&mut reader);
    for round in 1..=3 {
        let before = reader.number(SUM);
        // Keeps the rows that `old` sees: were they pruned, replay would end its session after half a minute.
        keeper.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM state_head");
        reader.run("SELECT pg_wal_replay_pause()");
        eventually("the pause", || {
            reader.text("SELECT pg_get_wal_replay_pause_state()") == "paused"
        });
        set(&mut writer, 1, 10 + round, round as i32 * 10);
        writer.run("SELECT state_delete('k1')");
        old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        for client in [&mut reader, &mut old] {
            assert_eq!(client.number(SUM), before);
        }
        reader.run("SELECT pg_wal_replay_resume()");
        standby.catch_up_with(&primary);
        let now = writer.number(SUM);
        for _ in 1..=2 {
            assert_eq!(reader.number(SUM), now);
            assert_eq!(old.number(SUM), before);
        }
        old.run("COMMIT");
        keeper.run("COMMIT");
        assert_eq!(old.number(SUM), now);
        warm(&mut reader);
    }
}

#[test]
fn a_standby_that_was_away_reads_what_its_primary_has_written_meanwhile() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    set(&mut writer, 1, 20, 1);
    let standby = primary.standby();
    for (round, ends) in [Server::stop, Server::kill_everything]
        .into_iter()
        .enumerate()
    {
        let mut reader = standby.connect();
        warm(&mut reader);
        let seen = reader.number("SELECT sum(version) FROM state_head");
        ends(&standby);
        set(&mut writer, 5, 15, round as i32 + 2);
        writer.run("SELECT state_delete('k20')");
        let cursor = writer.cursor();
        standby.start();
        let mut reader = standby.connect();
        reader.run(&format!("SELECT state_wait_for('{cursor}', '1 min')"));
        assert!(reader.number("SELECT sum(version) FROM state_head") > seen);
        assert_eq!(reader.number(SUM), writer.number(SUM));
        warm(&mut reader);
    }
    standby.promote();
    let mut reader = standby.connect();
    assert_eq!(reader.number(SUM), writer.number(SUM));
}

// The standby sees the privileges and policies of its primary, whatever L1 holds, and after a promotion too.
#[test]
fn a_role_sees_on_a_standby_what_the_primary_lets_it_see() {
    let primary = Server::new(&[]);
    let mut writer = primary.connect();
    set(&mut writer, 1, 20, 1);
    writer.run(
        "CREATE ROLE reader; GRANT USAGE ON SCHEMA public TO reader;
         GRANT SELECT ON state_head, state_snapshot TO reader",
    );
    let standby = primary.standby();
    let (mut all, mut role) = (standby.connect(), standby.connect());
    warm(&mut all);
    role.run("SET ROLE reader");
    let seen = "SELECT count(state_get('k' || n)) FROM generate_series(1, 20) n";
    assert_eq!(role.number(seen), 20);
    for (change, answer) in [
        ("ALTER TABLE state_head ENABLE ROW LEVEL SECURITY", 0),
        ("CREATE POLICY p ON state_head USING (key < 'k15')", 6),
        ("ALTER POLICY p ON state_head USING (key < 'k11')", 2),
    ] {
        writer.run(change);
        standby.catch_up_with(&primary);
        for _ in 1..=2 {
            assert_eq!(role.number(seen), answer, "{change}");
        }
        assert_eq!(all.number(seen), 20);
    }
    set(&mut writer, 1, 20, 2);
    standby.catch_up_with(&primary);
    assert_eq!(role.text("SELECT state_get('k1')"), "{\"n\": 2}");
    assert_eq!(role.text("SELECT state_get('k2')"), "NULL");
    writer.run("REVOKE SELECT ON state_head FROM reader");
    standby.catch_up_with(&primary);
    assert_eq!(role.error("SELECT state_get('k1')"), "42501");
    writer.run("GRANT SELECT ON state_head TO reader");
    standby.catch_up_with(&primary);
    all.number(SUM);
    standby.promote();
    for _ in 1..=2 {
        assert_eq!(role.number(seen), 2);
        assert_eq!(all.number(SUM), 40);
    }
    let mut owner = standby.connect();
    owner.run("REVOKE SELECT ON state_head FROM reader");
    assert_eq!(role.error("SELECT state_get('k1')"), "42501");
}

/// For commands of recovery: while there is a file `hold` beside the data directory, says so and waits.
const HOLD: &str =
    "if test -e ../hold; then touch ../held; while test -e ../hold; do sleep 0.02; done; fi";

/// Where a promotion is held up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// It has been asked for, and the new timeline has not begun.
    Asked,
    /// The new timeline has begun, and the server is in recovery yet.
    Begun,
}

/// What ends a promotion that is held up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Crash {
    /// All processes are killed.
    Server,
    /// A session is killed, and the postmaster begins anew with new shared memory.
    Session,
}

#[test]
fn a_crash_in_the_middle_of_a_promotion_leaves_a_server_that_answers_as_its_tables_say() {
    for (moment, crash) in [
        (Moment::Asked, Crash::Server),
        (Moment::Begun, Crash::Server),
        (Moment::Begun, Crash::Session),
    ] {
        let primary = Server::new(&[]);
        let mut writer = primary.connect();
        set(&mut writer, 1, 20, 1);
        let standby = primary.standby();
        standby.stop();
        let command = match moment {
            Moment::Asked => format!("restore_command = '{HOLD}; false'"),
            Moment::Begun => format!("recovery_end_command = '{HOLD}'"),
        };
        standby.configure(&[&command]);
        standby.start();
        set(&mut writer, 1, 10, 2);
        let arrived = writer.cursor();
        standby.catch_up_with(&primary);
        let (mut reader, mut old) = (standby.connect(), standby.connect());
        warm(&mut reader);
        standby.stop_following();
        set(&mut writer, 1, 20, 3);
        let lost = writer.cursor();
        primary.stop();

        let file = |name: &str| -> PathBuf { standby.host().join(name) };
        std::fs::write(file("hold"), "").unwrap();
        old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        assert_eq!(old.number(SUM), 30);
        reader.run("SELECT pg_promote(false)");
        eventually("the promotion to be held up", || file("held").exists());
        assert!(is_in_recovery(&mut reader), "{moment:?}");
        assert_eq!(reader.number(SUM), 30);
        assert_eq!(old.number(SUM), 30);
        warm(&mut reader);
        assert_eq!(reader.error("SELECT state_set('k1', '{}')"), "25006");
        assert_eq!(
            reader.error("SELECT state_wait('k1', 3, '100 ms')"),
            "57014"
        );

        match crash {
            Crash::Server => {
                standby.kill_everything();
                std::fs::remove_file(file("hold")).unwrap();
                standby.start();
            }
            Crash::Session => {
                let times_up = standby.times_up();
                kill(old.pid());
                std::fs::remove_file(file("hold")).unwrap();
                standby.await_recovery(times_up);
            }
        }
        let mut reader = standby.connect();
        // Who had not left the old timeline is a standby as before.
        assert_eq!(is_in_recovery(&mut reader), moment == Moment::Asked);
        warm_or_hit(&mut reader);
        assert_eq!(reader.number(SUM), 30);
        if moment == Moment::Asked {
            standby.promote();
        }
        assert_eq!(reader.number(SUM), 30);
        reader.run(&format!("SELECT state_wait_for('{arrived}', '1 s')"));
        is_refused(&mut reader, &lost);
        // The versions that were lost are given out again.
        set(&mut reader, 5, 15, 4);
        for mut client in [reader, standby.connect()] {
            assert_eq!(client.number(SUM), 4 * 2 + 11 * 4 + 5);
            assert_eq!(client.number(DIFFERENCES), 0);
            assert_eq!(told(&mut client, &arrived).len(), 11);
            is_refused(&mut client, &lost);
            assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
        }
    }
}

/// Reads twice what L1 answers the second time, by a hit or a validated read.
fn warm_or_hit(client: &mut Client) {
    assert_eq!(client.number(DIFFERENCES), 0);
    let answered = |client: &mut Client| client.counter("validated") + client.counter("hits");
    let before = answered(client);
    assert_eq!(client.number(DIFFERENCES), 0);
    assert!(answered(client) >= before + 20);
}

#[test]
fn a_primary_that_was_rewound_reads_what_its_new_primary_has() {
    let old = Server::new(&[
        "wal_log_hints = on",
        "wal_keep_size = 64MB",
        "state_cache.warm_on_start = on",
    ]);
    let mut writer = old.connect();
    set(&mut writer, 1, 20, 1);
    let arrived = writer.cursor();
    let new = old.standby();
    new.stop_following();
    // What the old primary alone has: other documents under the versions that the new one will give out.
    set(&mut writer, 1, 10, 100);
    writer.run("SELECT state_set('lost', '1'), state_delete('k20')");
    assert_eq!(writer.number(DIFFERENCES), 0);
    let lost = writer.cursor();
    drop(writer);
    old.stop();
    new.promote();
    let mut writer = new.connect();
    set(&mut writer, 5, 15, 2);
    writer.run("CHECKPOINT");

    old.rewind_to(&new);
    old.start();
    old.catch_up_with(&new);
    let mut reader = old.connect();
    assert!(is_in_recovery(&mut reader));
    assert_eq!(reader.number(SUM), 9 + 11 * 2);
    assert_eq!(reader.text("SELECT state_get('lost')"), "NULL");
    warm(&mut reader);
    assert_eq!(told(&mut reader, &arrived).len(), 11);
    is_refused(&mut reader, &lost);
    set(&mut writer, 1, 3, 7);
    old.catch_up_with(&new);
    assert_eq!(reader.number(SUM), 3 * 7 + 6 + 11 * 2);
    warm(&mut reader);
    let cursor = writer.cursor();
    reader.run(&format!("SELECT state_wait_for('{cursor}', '1 min')"));

    // And back again.
    drop(writer);
    new.stop();
    old.promote();
    warm_or_hit(&mut reader);
    set(&mut reader, 1, 20, 9);
    assert_eq!(reader.number(SUM), 180);
    assert_eq!(reader.number(DIFFERENCES), 0);
    reader.run(&format!("SELECT state_wait_for('{cursor}', '1 s')"));
    assert_eq!(told(&mut reader, &cursor).len(), 20);
    is_refused(&mut reader, &lost);
    assert_eq!(inconsistencies(&mut reader), Vec::<Vec<String>>::new());
}

#[test]
fn a_backup_that_is_restored_to_an_earlier_point_knows_nothing_of_what_came_after() {
    let server = Server::new(&[
        "archive_mode = on",
        "archive_command = 'mkdir -p ../archive && cp %p ../archive/%f'",
        "state_cache.warm_on_start = on",
    ]);
    let mut client = server.connect();
    set(&mut client, 1, 20, 1);
    server.back_up_data("backup");
    set(&mut client, 1, 10, 2);
    let before = client.cursor();
    client.run("SELECT pg_create_restore_point('here')");
    set(&mut client, 1, 20, 3);
    assert_eq!(client.number(SUM), 60);
    let beyond = client.cursor();
    client.run("SELECT pg_switch_wal()");
    drop(client);
    server.stop();
    server.put_back("backup");
    server.configure(&[
        "restore_command = 'cp ../archive/%f %p'",
        "recovery_target_name = 'here'",
        "recovery_target_action = pause",
    ]);
    server.recover_at_start();
    server.start();

    let (mut client, mut old) = (server.connect(), server.connect());
    eventually("the end of replay", || {
        client.text("SELECT pg_get_wal_replay_pause_state()") == "paused"
    });
    assert_eq!(client.number(SUM), 30);
    warm(&mut client);
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(old.number(SUM), 30);
    // A server in recovery may yet come to the place of the cursor.
    client.run(&format!("SELECT state_wait_for('{before}', '1 s')"));
    let wait = format!("SELECT state_wait_for('{beyond}', '100 ms')");
    assert_eq!(client.error(&wait), "57014");
    client.run("SELECT pg_wal_replay_resume()");
    eventually("the end of recovery", || !is_in_recovery(&mut client));

    // One that has ended recovery before it will not.
    is_refused(&mut client, &beyond);
    let hits = client.counter("hits");
    for _ in 1..=2 {
        assert_eq!(client.number(SUM), 30);
    }
    assert_eq!(client.counter("hits"), hits + 20);
    client.run(&format!("SELECT state_wait_for('{before}', '1 s')"));
    assert_eq!(told(&mut client, &before), [""; 0]);
    // The versions of then are given out again.
    set(&mut client, 5, 15, 4);
    for _ in 1..=2 {
        assert_eq!(client.number(SUM), 4 * 2 + 11 * 4 + 5);
        assert_eq!(old.number(SUM), 30);
    }
    assert_eq!(told(&mut client, &before).len(), 11);
    assert_eq!(client.error("SELECT state_wait('k1', 3)"), "40001");
    assert_eq!(client.number("SELECT state_wait('k5', 3)"), 3);
    is_refused(&mut client, &beyond);
    drop((client, old));
    server.stop();
    server.start();
    let mut client = server.connect();
    is_refused(&mut client, &beyond);
    assert_eq!(client.number(DIFFERENCES), 0);
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}
