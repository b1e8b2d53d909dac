//! One life: from a moment at which nothing is under way to the next one, which may be after a crash.

use super::arena::{Arena, Place, REACH, look, places};
use super::nemesis;
use super::record::{Clock, Crash, History, Span, State};
use super::session::Board;
use super::workload::Worker;
use postgres::Client;
use state_cache_server_tests::{Dice, RaiseOnDrop, Sql, eventually, inconsistencies};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Connections that work.
const SESSIONS: usize = 16;
/// After so many lives other keys are used, lest the lists get too long.
const LIVES_OF_A_GENERATION: usize = 3;

/// What a life is to be.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// How many lives were before.
    pub number: usize,
    /// So many operations are wanted.
    pub operations: u64,
    /// It ends with `kill -9` of a process of the server.
    pub crash: bool,
    /// Values of `state_cache.notify`.
    pub notify: &'a [&'a str],
    /// The step of the protocol that is left out, if any.
    pub leave_out: &'a str,
    /// What chance comes from.
    pub seed: u64,
}

/// Lives it. What the tables and the functions say differently at the end comes with the history.
pub fn live(arena: &Arena, clock: Clock, plan: &Plan<'_>) -> (History, Vec<String>) {
    let mut dice = Dice::new(plan.seed.wrapping_add(plan.number as u64));
    let places = places(plan.number / LIVES_OF_A_GENERATION);
    let mut client = arena.server.connect();
    prepare(arena, &mut client, &places, &mut dice);
    let first = look(&mut client, &places);
    let board = Board {
        arena,
        places: &places,
        clock,
        target: plan.operations,
        notify: plan.notify,
        leave_out: plan.leave_out,
        over: AtomicBool::new(false),
        doomed: AtomicBool::new(false),
        operations: AtomicU64::new(0),
        processes: Mutex::default(),
        transactions: Mutex::default(),
    };
    let crash = run(&board, &mut client, plan, &mut dice);
    let mut client = arena.server.connect();
    let from = clock.now();
    let last = look(&mut client, &places);
    let last_span = Span {
        from,
        to: clock.now(),
    };
    let differences = settle(&mut client);
    let states = places
        .iter()
        .map(|place| (format!("{}/{}", place.class, place.key), place.promise))
        .collect();
    let transactions = board.transactions.into_inner().unwrap();
    let history = History {
        states,
        first,
        transactions,
        last,
        last_span,
        crash,
    };
    (history, differences)
}

/// Makes most of the states that are not there.
fn prepare(arena: &Arena, client: &mut Client, places: &[Place], dice: &mut Dice) {
    for seen in look(client, places) {
        let place = &places[seen.state];
        if seen.value.is_none() && dice.roll(8) > 0 {
            client.run(&format!(
                "SELECT state_set('{}', '{{\"log\": [{}]}}', class => '{}')",
                place.key,
                arena.element(),
                place.class
            ));
        }
    }
}

/// Lets the sessions work until there were enough operations.
fn run(board: &Board<'_>, client: &mut Client, plan: &Plan<'_>, dice: &mut Dice) -> Option<Crash> {
    let server = &board.arena.server;
    std::thread::scope(|threads| {
        let _over = RaiseOnDrop(&board.over);
        let mut all = Vec::new();
        for number in 0..SESSIONS {
            let seed = dice.roll(u64::MAX);
            all.push(threads.spawn(move || Worker::new(board, number, seed).work()));
        }
        let [one, other] = [dice.roll(u64::MAX), dice.roll(u64::MAX)];
        all.push(threads.spawn(move || nemesis::disturb(board, one)));
        all.push(threads.spawn(move || nemesis::hold_up(board, other)));
        eventually("enough operations", || {
            board.enough() || all.iter().any(|thread| thread.is_finished())
        });
        if !plan.crash {
            return None;
        }
        let times_up = server.times_up();
        let parked = parked(client, board.places);
        board.doomed.store(true, Ordering::SeqCst);
        let now = board.clock.now();
        eventually("the crash", || {
            strike(client, dice);
            std::thread::sleep(Duration::from_millis(20));
            client.batch_execute("").is_err()
        });
        board.over.store(true, Ordering::SeqCst);
        for thread in all {
            thread.join().unwrap();
        }
        server.await_recovery(times_up);
        Some(Crash {
            from: now.saturating_sub(REACH),
            parked,
        })
    })
}

/// States that the tables have not accepted so far.
fn parked(client: &mut Client, places: &[Place]) -> std::collections::BTreeSet<State> {
    let rows = client.rows("SELECT class, key FROM state_cache_unwritten WHERE parked");
    let find = |row: &Vec<String>| {
        places
            .iter()
            .position(|place| place.class == row[0] && place.key == row[1])
    };
    rows.iter().filter_map(find).collect()
}

/// Kills a session, or the worker. It may have ended by itself meanwhile.
fn strike(client: &mut Client, dice: &mut Dice) {
    let kind = ["client backend", "client backend", "state_cache worker"][dice.roll(3) as usize];
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()
             ORDER BY backend_type = '{kind}' DESC, backend_type = 'client backend' DESC, random() LIMIT 1"
    );
    if let Ok(row) = client.query_one(&sql, &[]) {
        let victim: i32 = row.get(0);
        let command = format!("kill -KILL {victim} 2>/dev/null");
        let _ = Command::new("sh").args(["-c", &command]).status();
    }
}

/// Writes what is unwritten, and compares what the functions say with the tables.
fn settle(client: &mut Client) -> Vec<String> {
    client.run("SELECT state_flush()");
    inconsistencies(client)
        .into_iter()
        // What is made by hand goes with the next change.
        .filter(|row| row[0] != "more versions than kept")
        .map(|row| row.join(" "))
        .collect()
}
