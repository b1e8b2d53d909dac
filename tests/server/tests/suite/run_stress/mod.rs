//! Many sessions that create, change, merge, charge, claim and end the same runs, and a checker that knows what must
//! come of it.
//!
//! It goes in rounds: some roots, sessions that do so many things each to any run of the families, and at the end all
//! is merged, ended and compared with what was acknowledged. `STATE_CACHE_RUN_STRESS_SECONDS` sets how long.

mod board;
mod checker;
mod worker;

use board::Board;
use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, inconsistencies};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use worker::Worker;

/// Sessions that change runs; one that looks comes on top.
const WORKERS: usize = 10;
/// Families of a round.
const ROOTS: usize = 2;
/// Things that each session does in a round.
const THINGS: usize = 60;

fn duration() -> Duration {
    let seconds = std::env::var("STATE_CACHE_RUN_STRESS_SECONDS");
    Duration::from_secs(seconds.map_or(17, |text| text.parse().unwrap()))
}

/// One round; what was found wrong, and how often calls were answered how.
fn round(
    number: usize,
    workers: &mut [Client],
    watcher: &mut Client,
) -> (Vec<String>, BTreeMap<String, u64>) {
    let board = Board::default();
    for root in 0..ROOTS {
        let name = format!("{number} root {root}");
        watcher.run(&format!(
            "SELECT state_context_create('{name}', inputs => '{{\"log\": []}}', swarm_id => 'swarm {number}',
                 resource_limits => '{{\"maxCredits\": 100.25, \"maxConcurrentBranches\": 5}}')"
        ));
        board.created(name, None);
    }
    std::thread::scope(|threads| {
        let board = &board;
        let looking = threads.spawn(|| checker::watch(watcher, board));
        let working: Vec<_> = workers
            .iter_mut()
            .enumerate()
            .map(|(worker, client)| {
                threads.spawn(move || {
                    let mut worker = Worker {
                        number: worker,
                        round: number,
                        board,
                        dice: Dice::new((number * WORKERS + worker) as u64),
                        made: 0,
                        claims: Vec::new(),
                    };
                    worker.work(client, THINGS);
                })
            })
            .collect();
        let worked: Vec<_> = working.into_iter().map(|thread| thread.join()).collect();
        board.finish();
        looking.join().unwrap();
        worked.into_iter().for_each(|thread| thread.unwrap());
    });
    if board.differences().is_empty() {
        checker::settle(watcher, &board, number);
    }
    (board.differences(), board.answers())
}

#[test]
fn runs_hold_what_was_acknowledged_under_stress() {
    let server = Server::new(&[
        "deadlock_timeout = '20ms'",
        "shared_buffers = '64MB'",
        "synchronous_commit = off",
    ]);
    let mut workers: Vec<_> = (0..WORKERS).map(|_| server.connect()).collect();
    let mut watcher = server.connect();
    let (start, mut answers, mut rounds) = (Instant::now(), BTreeMap::<String, u64>::new(), 0);
    while rounds == 0 || start.elapsed() < duration() {
        let (differences, answered) = round(rounds, &mut workers, &mut watcher);
        assert_eq!(differences, Vec::<String>::new());
        for (answer, count) in answered {
            *answers.entry(answer).or_default() += count;
        }
        rounds += 1;
    }
    println!("{rounds} rounds: {answers:?}");
    assert_eq!(inconsistencies(&mut watcher), Vec::<Vec<String>>::new());
    // The run was what it claims to be: all was done, and all that can be refused was.
    for answer in [
        "child done",
        "set done",
        "log done",
        "spend done",
        "merge done",
        "end done",
        "claim done",
        "fenced done",
        "renew done",
        "add done",
        "child 54000",
        "spend 54000",
        "spend 40001",
        "set 55000",
        "end 55006",
        "claim 55P03",
        "fenced 40001",
    ] {
        assert!(
            answers.get(answer).is_some_and(|count| *count > 0),
            "{answer}: {answers:?}"
        );
    }
}
