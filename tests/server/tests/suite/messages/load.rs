//! Many committers at the same time.

use super::{Listener, Message, await_worker, last_message, server};
use postgres::Client;
use state_cache_server_tests::{Dice, PATIENCE, RaiseOnDrop, Server, Sql, code};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 4;
/// Transactions of each of them.
const TRANSACTIONS: usize = 200;
/// Through classes of two channels, and one that is left to the worker.
const CLASSES: [&str; 3] = ["run", "config", "left"];
/// States of each class.
const KEYS: u64 = 6;

/// By class and key: version, and whether it deleted the state.
type Versions = BTreeMap<(String, String), (i64, bool)>;

/// One transaction, which may be rolled back.
fn transaction(dice: &mut Dice, modes: &[&str]) -> String {
    let mode = modes[dice.roll(modes.len() as u64) as usize];
    let mut sql = format!("SET state_cache.notify = {mode}; BEGIN;");
    let committed = dice.roll(8) != 0;
    if !committed {
        sql += "SELECT state_set('never', '{}');";
    }
    for _ in 0..=dice.roll(3) {
        let class = CLASSES[dice.roll(3) as usize];
        let (key, n) = (dice.roll(KEYS), dice.roll(1 << 40));
        sql += &match dice.roll(20) {
            0..14 => format!("SELECT state_set('k{key}', '{{\"n\": {n}}}', class => '{class}');"),
            14..16 => format!("SELECT state_delete('k{key}', class => '{class}');"),
            16 => format!("UPDATE state_head SET updated_at = now() WHERE class = 'run' AND key = 'k{key}';"),
            17 => format!("SELECT state_invalidate('k{key}', '{class}');"),
            18 => format!(
                "SAVEPOINT s; SELECT state_set('never', '{{\"n\": {n}}}', class => '{class}');
                 SELECT state_invalidate('never'); SELECT count(*) FROM state_batch_commit(); ROLLBACK TO s;"
            ),
            _ => format!(
                "SELECT state_set('k{key}', '{{\"n\": {n}}}', class => '{class}'); SELECT count(*) FROM \
                    state_batch_commit();"
            ),
        };
    }
    sql + if committed { "COMMIT" } else { "ROLLBACK" }
}

fn write(server: &Server, seed: u64, modes: &[&str]) {
    let (mut client, mut dice) = (server.connect(), Dice::new(seed));
    for _ in 0..TRANSACTIONS {
        let sql = transaction(&mut dice, modes);
        if let Err(error) = client.batch_execute(&sql) {
            let expected = ["40001", "40P01"].contains(&code(&error).as_str());
            assert!(expected, "{sql}: {error:?}");
            client.run("ROLLBACK");
        }
    }
}

/// What has been heard so far.
#[derive(Default)]
struct Heard {
    last: Option<Message>,
    newest: Versions,
    messages: usize,
}

impl Heard {
    /// A message arrives; `reader` looks at once what it tells of.
    fn add(&mut self, message: Message, reader: &mut Client) {
        assert!(!message.body.to_string().contains("never"), "{message:?}");
        for (key, version) in message.changes() {
            let class = message.class().to_owned();
            let seen = reader.number(&format!(
                "SELECT greatest(state_version('{key}', class => '{class}'),
                    (SELECT version FROM state_head WHERE class = '{class}' AND key = '{key}'), 0)"
            ));
            assert!(seen >= version, "saw {seen} after {message:?}");
            let deleted = message.op() == "delete";
            let newest = self.newest.entry((class, key)).or_default();
            *newest = (*newest).max((version, deleted));
        }
        if let Some(last) = &self.last {
            super::assert_consecutive(&[last.clone(), message.clone()]);
        }
        self.last = Some(message);
        self.messages += 1;
    }
}

/// Listens until the newest version of every state has been heard.
fn listen(
    server: &Server,
    first: (String, u64),
    finals: &Mutex<Option<Versions>>,
    listening: &AtomicBool,
) -> Heard {
    let (mut listener, mut reader) = (Listener::new(server), server.connect());
    listening.store(true, Ordering::SeqCst);
    let (mut heard, mut quiet) = (Heard::default(), Instant::now());
    loop {
        if let Some(message) = listener.next_within(Duration::from_millis(50)) {
            if heard.last.is_none() {
                assert_eq!((message.epoch(), message.seq()), (&*first.0, first.1 + 1));
            }
            heard.add(message, &mut reader);
            quiet = Instant::now();
            continue;
        }
        let finals = finals.lock().unwrap();
        let Some(finals) = finals.as_ref() else {
            continue;
        };
        let missing: Vec<_> = finals
            .iter()
            .filter(|(name, newest)| heard.newest.get(*name) != Some(newest))
            .collect();
        if missing.is_empty() {
            assert_eq!(finals.len(), heard.newest.len());
            return heard;
        }
        assert!(quiet.elapsed() < PATIENCE / 4, "never heard of {missing:?}");
    }
}

/// The newest version of every state, once all are written.
fn newest(client: &mut Client) -> Versions {
    client.run("SELECT state_flush()");
    let rows = client.rows("SELECT class, key, version, deleted FROM state_head");
    rows.into_iter()
        .map(|row| {
            let newest = (row[2].parse().unwrap(), row[3] == "t");
            ((row[0].clone(), row[1].clone()), newest)
        })
        .collect()
}

/// The messages of many committers: in order, visible, all.
fn are_told_well(settings: &[&str], modes: &[&str], end_workers: bool) {
    let server = server(settings);
    let mut client = server.connect();
    client.run("SELECT state_flush()");
    client.run("SET state_cache.notify = off; DELETE FROM state_snapshot; DELETE FROM state_head");
    super::await_told(&mut client);
    let first = last_message(&mut client);
    let (finals, listening, written) = (
        Mutex::new(None),
        AtomicBool::new(false),
        AtomicBool::new(false),
    );
    std::thread::scope(|threads| {
        let _written = RaiseOnDrop(&written);
        let listener = threads.spawn(|| listen(&server, first, &finals, &listening));
        while !listening.load(Ordering::SeqCst) && !listener.is_finished() {
            std::thread::yield_now();
        }
        if end_workers {
            threads.spawn(|| {
                let mut client = server.connect();
                while !written.load(Ordering::SeqCst) {
                    await_worker(&mut client);
                    client.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = \
                        'state_cache worker'");
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|seed| {
                threads.spawn({
                    let server = &server;
                    move || write(server, seed, modes)
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        written.store(true, Ordering::SeqCst);
        *finals.lock().unwrap() = Some(newest(&mut client));
        let heard = listener.join().unwrap();
        let (epoch, seq) = last_message(&mut client);
        let last = heard.last.unwrap();
        assert_eq!(last.epoch(), epoch);
        assert!(last.seq() <= seq);
        assert!(
            heard.messages > TRANSACTIONS / 10,
            "{} messages",
            heard.messages
        );
    });
}

#[test]
fn committers_that_notify_themselves_are_told_in_order_without_gaps() {
    are_told_well(&[], &["commit"], false);
}

#[test]
fn committers_that_leave_it_to_the_worker_are_told_in_order_without_gaps() {
    are_told_well(&[], &["worker"], false);
}

#[test]
fn committers_of_both_kinds_are_told_in_order_without_gaps() {
    are_told_well(
        &["state_cache.notify_interval = 0"],
        &["commit", "worker", "auto"],
        false,
    );
}

#[test]
fn nothing_is_lost_when_workers_are_ended_under_load() {
    are_told_well(&[], &["worker", "auto"], true);
}
