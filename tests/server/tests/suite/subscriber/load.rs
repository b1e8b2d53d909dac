//! Under load, with connections that are cut all the time.

use super::{App, NAME};
use postgres::Client;
use state_cache_client::Following;
use state_cache_server_tests::{Dice, RaiseOnDrop, Server, Sql, code, eventually};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// States of each class.
const KEYS: u64 = 60;
const CLASSES: [&str; 3] = ["run", "config", "own"];
const WRITERS: u64 = 3;
/// How often the connections are cut.
const CUTS: u64 = 60;

/// All is told by the worker, which is lapped when it rests this long.
const TINY_RING: [&str; 3] = [
    "state_cache.notify = worker",
    "state_cache.notify_buffer = '16kB'",
    "state_cache.notify_interval = '500ms'",
];

/// One transaction that changes something.
fn change(client: &mut Client, dice: &mut Dice) -> Result<(), postgres::Error> {
    let n = dice.roll(1 << 40);
    let mut sql = "BEGIN;".to_owned();
    for _ in 0..=dice.roll(4) {
        let class = CLASSES[dice.roll(3) as usize];
        let key = format!("k{}", dice.roll(KEYS));
        sql += &match dice.roll(20) {
            0..14 => format!("SELECT state_set('{key}', '{{\"n\": {n}}}', class => '{class}');"),
            14..16 => format!("SELECT state_delete('{key}', class => '{class}');"),
            16 => format!("DELETE FROM state_head WHERE class = '{class}' AND key = '{key}';"),
            17 => format!(
                "SAVEPOINT s; SELECT state_set('{key}', '{{\"n\": {n}}}', class => '{class}');
                 SELECT count(*) FROM state_batch_commit(); ROLLBACK TO s;"
            ),
            18 => format!("SELECT state_invalidate('k1*', '{class}');"),
            _ => format!(
                "SAVEPOINT s; SELECT state_set('{key}', '{{\"n\": {n}}}', class => '{class}');
                 SELECT count(*) FROM state_batch_commit(); RELEASE s;"
            ),
        };
    }
    if dice.roll(200) == 0 {
        sql += "TRUNCATE state_head, state_snapshot;";
    }
    sql += if dice.roll(10) == 0 {
        "ROLLBACK"
    } else {
        "COMMIT"
    };
    client.batch_execute(&sql)
}

fn write(server: &Server, seed: u64, over: &AtomicBool, written: &AtomicU64) {
    let (mut client, mut dice) = (server.connect(), Dice::new(seed));
    while !over.load(Ordering::SeqCst) {
        match change(&mut client, &mut dice) {
            Ok(()) => written.fetch_add(1, Ordering::SeqCst),
            Err(error) => {
                // The order of the states is left to chance.
                assert!(
                    matches!(code(&error).as_str(), "40001" | "40P01"),
                    "{error:?}"
                );
                client.run("ROLLBACK");
                0
            }
        };
    }
}

/// Ends sessions of the subscriber: the one that listens, the one that reads, or both.
fn cut(client: &mut Client, dice: &mut Dice) {
    let some = [
        "true",
        "query LIKE '%state_get%'",
        "query NOT LIKE '%state_get%'",
    ];
    client.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{NAME}' AND {}",
        some[dice.roll(3) as usize]
    ));
}

/// What the tables hold, by class and key.
fn contents(client: &mut Client) -> HashMap<(String, String), String> {
    let rows = client.rows("SELECT class, key, state::text FROM state_current");
    rows.into_iter()
        .map(|mut row| {
            let state = row.pop().unwrap();
            let key = row.pop().unwrap();
            ((row.pop().unwrap(), key), state)
        })
        .collect()
}

/// `behind`: two of the classes are left to the worker.
fn ends_with_the_contents_of_the_tables(settings: &[&str], behind: bool) {
    let server = Server::new(settings);
    let mut client = server.connect();
    client.run("SELECT state_class_define('own', channel => 'own_changes')");
    if behind {
        client.run(
            "SELECT state_class_define(class, write_mode => 'behind')
                FROM unnest(ARRAY['run', 'own']) class",
        );
    }
    let options = Following {
        heartbeat: Duration::from_millis(200),
        patience: Duration::from_secs(30),
        ..Following::default()
    };
    let app = App::new(&server.parameters(), options);
    let epoch = client.text("SELECT epoch FROM state_cursor()");
    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut from_memory = 0;
    std::thread::scope(|threads| {
        let _over = RaiseOnDrop(&over);
        for writer in 0..WRITERS {
            let (server, over, written) = (&server, &over, &written);
            threads.spawn(move || write(server, writer, over, written));
        }
        let mut dice = Dice::new(1_000);
        for _ in 0..CUTS {
            let enough = written.load(Ordering::SeqCst) + 50;
            eventually("something to be written", || {
                for _ in 0..50 {
                    let class = CLASSES[dice.roll(3) as usize];
                    let key = format!("k{}", dice.roll(KEYS));
                    from_memory += usize::from(app.subscriber.peek(class, &key).is_some());
                    // It fails where its connection is cut; the application would ask again.
                    let _ = app.try_get(class, &key);
                }
                written.load(Ordering::SeqCst) >= enough
            });
            cut(&mut client, &mut dice);
        }
    });
    assert!(from_memory > 0, "nothing was ever answered from memory");
    // It was lapped where it should be, and only there.
    let anew = client.text("SELECT epoch FROM state_cursor()") != epoch;
    assert_eq!(anew, settings.contains(&TINY_RING[1]));

    // The last of all changes may have been TRUNCATE.
    client.run("SELECT state_set('k0', '{\"n\": 0}', class => 'config'); SELECT state_flush()");
    let expected = contents(&mut client);
    assert!(!expected.is_empty());
    let mut different = Vec::new();
    // What is held and wrong now stays so: nothing changes any more, and catching up by the clock is far off.
    eventually("the subscriber to hold all states", || {
        different.clear();
        let mut held = true;
        for class in CLASSES {
            for key in (0..KEYS).map(|key| format!("k{key}")) {
                let Ok(read) = app.try_get(class, &key) else {
                    held = false;
                    continue;
                };
                held &= app.subscriber.peek(class, &key).is_some();
                let name = (class.to_owned(), key);
                if read.as_ref() != expected.get(&name) {
                    different.push((name, read));
                }
            }
        }
        held && different.is_empty()
    });
    assert_eq!(different, []);
}

#[test]
fn under_load_with_cut_connections_it_ends_with_the_contents_of_the_tables() {
    ends_with_the_contents_of_the_tables(&[], false);
}

/// What the ring loses is told as "drop everything", in a new epoch.
#[test]
fn under_load_with_a_tiny_ring_it_ends_with_the_contents_of_the_tables() {
    ends_with_the_contents_of_the_tables(&TINY_RING, false);
}

#[test]
fn under_load_with_a_tiny_ring_and_behind_classes_it_ends_with_the_contents_of_the_tables() {
    ends_with_the_contents_of_the_tables(&TINY_RING, true);
}

#[test]
fn under_load_on_behind_classes_it_ends_with_the_contents_of_the_tables() {
    ends_with_the_contents_of_the_tables(&[], true);
}
