//! Catching up: what a cursor covers, whatever was in flight when it was taken.

use postgres::Client;
use state_cache_server_tests::{Dice, RaiseOnDrop, Server, Sql, eventually};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cursor of now.
fn cursor(client: &mut Client) -> String {
    client.text("SELECT cursor FROM state_cursor()")
}

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

#[test]
fn what_was_in_flight_is_told_once_it_has_committed() {
    let server = Server::new(&[]);
    let (mut subscriber, mut early, mut late) =
        (server.connect(), server.connect(), server.connect());
    let start = cursor(&mut subscriber);
    // Its transaction id is older than one that commits before it.
    early.run("BEGIN");
    early.run("SELECT state_set('early', '1')");
    early.run("SELECT count(*) FROM state_batch_commit()");
    late.run("SELECT state_set('late', '1')");
    assert_eq!(told(&mut subscriber, &start), ["set late 1"]);
    let between = cursor(&mut subscriber);
    late.run("SELECT state_set('later', '1')");
    early.run("COMMIT");
    assert_eq!(
        told(&mut subscriber, &between),
        ["set early 1", "set later 1"]
    );
    let end = cursor(&mut subscriber);
    assert_eq!(told(&mut subscriber, &end), [""; 0]);
}

/// A row carries the id of the subtransaction that wrote it, and that is not among the ids that
/// `pg_current_snapshot()` lists.
#[test]
fn subtransactions_in_flight_are_told_once_they_have_committed() {
    let server = Server::new(&[]);
    let (mut subscriber, mut writer, mut other) =
        (server.connect(), server.connect(), server.connect());
    writer.run("BEGIN; SELECT pg_current_xact_id(); SAVEPOINT a");
    writer.run("SELECT state_set('in a', '1')");
    writer.run("SELECT count(*) FROM state_batch_commit()");
    writer.run("RELEASE a; SAVEPOINT b");
    writer.run("SELECT state_set('in b', '1')");
    writer.run("SELECT count(*) FROM state_batch_commit()");
    writer.run("SAVEPOINT c");
    writer.run("SELECT state_set('rolled back', '1')");
    writer.run("SELECT count(*) FROM state_batch_commit()");
    writer.run("ROLLBACK TO c");
    // Raises the upper bound of snapshots above the ids of the subtransactions.
    other.run("SELECT state_set('other', '1')");
    let between = cursor(&mut subscriber);
    writer.run("COMMIT");
    assert_eq!(
        told(&mut subscriber, &between),
        ["set in a 1", "set in b 1"]
    );
}

/// A snapshot lists 64 subtransactions of each process. With more, ids between its bounds may be in progress
/// that it does not list.
#[test]
fn more_subtransactions_than_a_snapshot_lists_are_told_as_well() {
    const SUBTRANSACTIONS: usize = 100;
    let server = Server::new(&[]);
    let (mut subscriber, mut writer, mut other) =
        (server.connect(), server.connect(), server.connect());
    writer.run("BEGIN");
    for n in 0..SUBTRANSACTIONS {
        writer.run(&format!("SAVEPOINT s{n}"));
        writer.run(&format!("SELECT state_set('k{n}', '1')"));
        writer.run("SELECT count(*) FROM state_batch_commit()");
    }
    other.run("SELECT state_set('other', '1')");
    let between = cursor(&mut subscriber);
    // Told again rather than not at all.
    assert_eq!(told(&mut subscriber, &between), ["set other 1"]);
    writer.run("COMMIT");
    let told = told(&mut subscriber, &between);
    assert_eq!(told.len(), SUBTRANSACTIONS + 1, "{told:?}");
}

#[test]
fn freezing_the_rows_changes_nothing() {
    let server = Server::new(&["autovacuum = off"]);
    let mut client = server.connect();
    client.run("SELECT state_set('before', '1')");
    let start = cursor(&mut client);
    client.run("SELECT state_set('after', '1'), state_set('gone', '1')");
    client.run("SELECT state_delete('gone')");
    // A transaction of the worker that is open at the moment holds it up.
    eventually("the rows to be frozen", || {
        client.run("VACUUM (FREEZE) state_head");
        client.number("SELECT age(relfrozenxid) FROM pg_class WHERE relname = 'state_head'") == 0
    });
    assert_eq!(told(&mut client, &start), ["set after 1", "delete gone 2"]);
    let end = cursor(&mut client);
    assert_eq!(told(&mut client, &end), [""; 0]);
    // The table written anew, its rows with their ids.
    client.run("VACUUM FULL state_head");
    assert_eq!(told(&mut client, &end), [""; 0]);
}

/// After a crash the server gives out again the ids that no WAL on disk mentions.
#[test]
fn a_cursor_outlives_a_crash() {
    // Nothing but the cursor itself may bring WAL to disk.
    let server = Server::new(&[
        "autovacuum = off",
        "checkpoint_timeout = 1h",
        "wal_writer_delay = 10s",
        "bgwriter_lru_maxpages = 0",
    ]);
    let mut client = server.connect();
    client.run("SELECT state_set('known', '1')");
    let starts = "SELECT count(*) FROM state_start";
    eventually("the first start to be noted", || client.number(starts) == 1);
    client.run("CHECKPOINT");
    client.run("SET synchronous_commit = off");
    // Ids that leave nothing behind but a record of their end.
    for _ in 0..20 {
        client.run("BEGIN; SELECT pg_current_xact_id(); ROLLBACK");
    }
    client.run("SELECT state_set('acknowledged', '1')");
    let before = client.number("SELECT pg_current_xact_id()::text::bigint");
    let start = cursor(&mut client);
    server.kill_postmaster();
    while client.batch_execute("SELECT 1").is_ok() {}
    server.start();
    let mut client = server.connect();
    client.run("SELECT state_set('anew', '1')");
    // The worker notes the start; until then the cursor is refused.
    eventually("the start to be noted", || client.number(starts) == 2);
    assert_eq!(told(&mut client, &start), ["set anew 1"]);
    assert_eq!(client.text("SELECT state_version('acknowledged')"), "1");
    let after = client.number("SELECT pg_current_xact_id()::text::bigint");
    assert!(after > before, "{after} is given out after {before}");
}

#[test]
fn a_cursor_is_worth_nothing_in_a_restored_dump() {
    let server = Server::new(&[]);
    let mut original = server.connect();
    original.run("SELECT state_set('k' || n, '1') FROM generate_series(1, 10) n");
    original.run("SELECT state_delete('k1')");
    original.run(
        "DELETE FROM state_head WHERE key = 'k2'; DELETE FROM state_snapshot WHERE key = 'k2'",
    );
    let start = cursor(&mut original);
    let dump = server.host().join("dump");
    server.run_program(
        "pg_dump",
        &["--dbname=postgres", "--file", dump.to_str().unwrap()],
    );
    original.run("CREATE DATABASE restored");
    let file = dump.to_str().unwrap();
    let arguments = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"];
    server.run_program(
        "psql",
        &[&arguments[..], &["--dbname=restored", "--file", file]].concat(),
    );
    let mut restored = server.connect_to("restored");
    assert_eq!(
        restored.error(&format!("SELECT * FROM state_changes('{start}')")),
        "55000"
    );
    let everything = "SELECT op, key, version FROM state_changes() WHERE op <> 'end' ORDER BY key";
    assert_eq!(original.rows(everything), restored.rows(everything));
    // Versions go on where they were, also of a state of which nothing is left.
    restored.run("SELECT state_set('k1', '2'), state_set('k2', '2')");
    assert_eq!(restored.text("SELECT state_version('k1')"), "3");
    assert_eq!(restored.text("SELECT state_version('k2')"), "2");
    // The extension created anew in the same database is another one.
    original.run("DROP EXTENSION state_cache; CREATE EXTENSION state_cache");
    assert_eq!(
        original.error(&format!("SELECT * FROM state_changes('{start}')")),
        "55000"
    );
}

#[test]
fn a_standby_tells_too_and_goes_on_with_its_cursors_once_promoted() {
    let server = Server::new(&[]);
    let mut primary = server.connect();
    primary.run("SELECT state_set('a', '1')");
    let start = cursor(&mut primary);
    let standby = server.standby();
    let mut reader = standby.connect();
    assert_eq!(told(&mut reader, &start), [""; 0]);
    primary.run("SELECT state_set('b', '1'), state_delete('a')");
    primary.run("DELETE FROM state_head WHERE key = 'a'");
    standby.catch_up_with(&server);
    assert_eq!(told(&mut reader, &start), ["delete a NULL", "set b 1"]);
    let there = cursor(&mut reader);
    assert_eq!(told(&mut reader, &there), [""; 0]);
    primary.run("SELECT state_set('c', '1')");
    assert_eq!(told(&mut primary, &there), ["set c 1"]);
    server.stop();
    standby.run_program(
        "psql",
        &[
            "--no-psqlrc",
            "--dbname=postgres",
            "--command=SELECT pg_promote()",
        ],
    );
    let mut promoted = standby.connect();
    assert_eq!(
        told(&mut promoted, &start),
        ["delete a NULL", "set b 1", "set c 1"]
    );
    assert_eq!(told(&mut promoted, &there), ["set c 1"]);
    let anew = cursor(&mut promoted);
    promoted.run("SELECT state_set('d', '1')");
    assert_eq!(told(&mut promoted, &anew), ["set d 1"]);
}

#[test]
fn a_restart_ends_no_cursor() {
    let server = Server::new(&[]);
    let mut client = server.connect();
    client.run("SELECT state_set('a', '1')");
    let start = cursor(&mut client);
    client.run("SELECT state_set('b', '1')");
    drop(client);
    server.stop();
    server.start();
    let mut client = server.connect();
    client.run("SELECT state_set('c', '1')");
    assert_eq!(told(&mut client, &start), ["set b 1", "set c 1"]);
}

/// States that the random transactions change.
const KEYS: u64 = 12;
/// Random transactions of each session.
const TRANSACTIONS: usize = 150;
/// Sessions that run them.
const WRITERS: u64 = 4;

/// A transaction with savepoints, rollbacks, writes by hand, and now and then more subtransactions than a
/// snapshot lists. Serialization failures and the like end it early, which is as good as a rollback.
fn random_transaction(client: &mut Client, dice: &mut Dice) {
    let step = |client: &mut Client, dice: &mut Dice| {
        let key = format!("k{}", dice.roll(KEYS));
        let n = dice.roll(1 << 30);
        client.batch_execute(&match dice.roll(12) {
            0..=4 => format!("SELECT state_set('{key}', '{n}')"),
            5..=6 => format!("SELECT state_delete('{key}')"),
            7 => format!("SELECT state_touch('{key}', '1 day')"),
            8 => "SELECT count(*) FROM state_batch_commit()".into(),
            9 => format!("DELETE FROM state_head WHERE key = '{key}'; DELETE FROM state_snapshot WHERE key = \
                '{key}'"),
            10 => format!("UPDATE state_head SET updated_at = now() WHERE key = '{key}'"),
            _ => format!("UPDATE state_snapshot SET state = '{n}', hash = state_hash('{n}') WHERE key = '{key}';
                          UPDATE state_head SET hash = state_hash('{n}') WHERE key = '{key}'"),
        })
    };
    let isolation = ["READ COMMITTED", "REPEATABLE READ"][dice.roll(5) as usize / 4];
    client.run(&format!("BEGIN ISOLATION LEVEL {isolation}"));
    let mut open = 0;
    for _ in 0..=dice.roll(8) {
        let outcome = match dice.roll(8) {
            0..=1 => {
                open += 1;
                client.batch_execute("SAVEPOINT s")
            }
            2 if open > 0 => client.batch_execute("ROLLBACK TO s"),
            3 if open > 0 => {
                open -= 1;
                client.batch_execute("RELEASE s")
            }
            4 if dice.roll(10) == 0 => client.batch_execute(
                "DO $$ BEGIN FOR n IN 1..70 LOOP
                     BEGIN
                         PERFORM state_set('k' || n % 12, to_jsonb(n));
                         PERFORM * FROM state_batch_commit();
                     EXCEPTION WHEN division_by_zero THEN NULL;
                     END;
                 END LOOP; END $$",
            ),
            _ => step(client, dice),
        };
        if outcome.is_err() {
            break;
        }
    }
    let end = if dice.roll(5) == 0 {
        "ROLLBACK"
    } else {
        "COMMIT"
    };
    let _ = client.batch_execute(end);
    let _ = client.batch_execute("ROLLBACK");
}

/// What a subscriber holds: states with their documents, read when it was told of them.
#[derive(Default)]
struct Subscriber {
    cursor: Option<String>,
    held: BTreeMap<String, String>,
    told: usize,
    /// It has passed over something on purpose.
    forgetful: bool,
}

impl Subscriber {
    /// Catches up; under one snapshot with the answer it reads what it was told of, and all there is.
    fn catch_up(&mut self, client: &mut Client) -> BTreeMap<String, String> {
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let since = self
            .cursor
            .as_ref()
            .map_or("NULL".to_owned(), |cursor| format!("'{cursor}'"));
        let rows = client.rows(&format!(
            "SELECT op, c.key, coalesce(s.version || ' ' || s.state, 'absent'), cursor
             FROM state_changes({since}) c LEFT JOIN state_current s USING (class, key)"
        ));
        let all = client.rows("SELECT key, version || ' ' || state FROM state_current");
        client.run("COMMIT");
        for (n, row) in rows.iter().enumerate() {
            match row[0].as_str() {
                "end" => {
                    assert_eq!(n + 1, rows.len(), "the last row");
                    self.cursor = Some(row[3].clone());
                }
                _ if self.forgetful && n % 7 == 3 => {}
                // Two that write by hand may leave a head without its document between them.
                "set" | "delete" => {
                    self.told += 1;
                    self.held.remove(&row[1]);
                    if row[2] != "absent" {
                        assert_eq!(row[0], "set");
                        self.held.insert(row[1].clone(), row[2].clone());
                    }
                }
                other => panic!("{other}"),
            }
        }
        let pairs = all.into_iter().map(|row| (row[0].clone(), row[1].clone()));
        pairs.collect()
    }
}

/// Lets sessions change states at random while a subscriber catches up again and again; how often what it
/// held was something else than there was.
fn differences(seed: u64, forgetful: bool) -> usize {
    let server = Server::new(&["synchronous_commit = off", "deadlock_timeout = 10ms"]);
    let mut client = server.connect();
    let mut subscriber = Subscriber {
        forgetful,
        ..Subscriber::default()
    };
    let (done, mut wrong, mut rounds) = (AtomicBool::new(false), 0, 0);
    std::thread::scope(|threads| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let mut client = server.connect();
                let mut dice = Dice::new(seed * WRITERS + n);
                threads.spawn(move || {
                    for _ in 0..TRANSACTIONS {
                        random_transaction(&mut client, &mut dice);
                    }
                })
            })
            .collect();
        let waiting = threads.spawn(|| {
            let _raised = RaiseOnDrop(&done);
            writers
                .into_iter()
                .for_each(|writer| writer.join().unwrap());
        });
        loop {
            let last = done.load(Ordering::SeqCst);
            let all = subscriber.catch_up(&mut client);
            rounds += 1;
            if subscriber.held != all {
                wrong += 1;
                assert!(forgetful, "held {:?}\nthere {all:?}", subscriber.held);
            }
            if last {
                break;
            }
        }
        waiting.join().unwrap();
    });
    assert!(rounds > 20, "{rounds} rounds");
    assert!(subscriber.told > 100, "told of {} changes", subscriber.told);
    wrong
}

#[test]
fn a_subscriber_that_catches_up_holds_what_there_is() {
    for seed in 0..4 {
        assert_eq!(differences(seed, false), 0);
    }
}

#[test]
fn the_comparison_notices_a_change_that_is_passed_over() {
    assert_ne!(differences(0, true), 0);
}
