//! Many sessions on few states, with an L1 so small that it evicts all the time, and a checker that
//! compares what the functions answer with the tables in the same snapshot.
//!
//! `STATE_CACHE_STRESS_READS` sets how many answers the suite compares; `make soak` compares a million.

mod board;
mod reader;
mod setup;
mod slow;
mod truncate;
mod worker;

use board::Board;
use setup::Arena;
use slow::Slow;
use state_cache_server_tests::{Sql, inconsistencies};

/// Sessions that read and write at random; those that are made to be slow come on top.
const WORKERS: usize = 16;

fn reads_of_the_suite() -> u64 {
    std::env::var("STATE_CACHE_STRESS_READS").map_or(60_000, |text| text.parse().unwrap())
}

/// Lets the workers, and one session slow in each of the ways `slow`, loose on an arena until they have
/// compared so many reads, or, when a step of the protocol is left out, found a difference.
fn run(arena: &Arena, reads: u64, slow: &[Slow], leave_out: &str) -> Board {
    let board = Board::new(reads, !leave_out.is_empty());
    std::thread::scope(|threads| {
        for number in 0..WORKERS {
            let board = &board;
            threads.spawn(move || board.guard(|| worker::work(arena, board, number, leave_out)));
        }
        for way in slow {
            let board = &board;
            threads.spawn(move || board.guard(|| slow::work(arena, board, *way, leave_out)));
        }
    });
    board
}

fn stress(reads: u64, notify: &str) {
    let arena = Arena::new(notify);
    let start = std::time::Instant::now();
    let board = run(&arena, reads, &Slow::ALL, "");
    println!(
        "notify = {notify}: {} in {:.1} s",
        board.summary(),
        start.elapsed().as_secs_f64()
    );
    assert_eq!(board.differences(), Vec::<String>::new());

    // The run was what it claims to be: every way an answer can take was taken, and L1 evicted.
    let mut client = arena.server.connect();
    for counter in [
        "hits",
        "validated",
        "misses",
        "fills",
        "evictions",
        "bypass_own",
        "bypass_writers",
        "bypass_snapshot",
        "bypass_serializable",
        "states_written",
        "states_deleted",
    ] {
        assert!(client.counter(counter) > 0, "{counter}");
    }
    assert!(board.commits() > 0 && board.conflicts() < board.commits());
    assert_eq!(arena.appended(&mut client), board.appended());
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    assert_eq!(arena.memory_lost(&mut client), 0);
}

#[test]
fn reads_equal_the_tables_under_stress() {
    stress(reads_of_the_suite() / 2, "commit");
}

// A commit that notifies holds a lock of NOTIFY until it ends, so that commits come one after the other. Reads must
// be exact without that.
#[test]
fn reads_equal_the_tables_under_stress_where_the_worker_sends_the_messages() {
    stress(reads_of_the_suite() / 2, "worker");
}

#[test]
fn reads_equal_the_tables_under_stress_without_messages() {
    stress(reads_of_the_suite() / 2, "off");
}

#[test]
#[ignore = "soak"]
fn reads_equal_the_tables_under_stress_a_million_times() {
    for notify in ["commit", "worker", "off"] {
        stress(350_000, notify);
    }
}

/// With a step left out, the checker must find a difference before so many reads are compared.
const READS_UNTIL_FOUND: u64 = 200_000;

fn finds(leave_out: &str, slow: &[Slow]) {
    let arena = Arena::new("off");
    let board = run(&arena, READS_UNTIL_FOUND, slow, leave_out);
    let differences = board.differences();
    println!("{}: {:?}", board.summary(), differences.first());
    assert!(
        !differences.is_empty(),
        "the checker found nothing wrong without {leave_out}"
    );
}

#[test]
fn the_checker_notices_commits_that_do_not_mark() {
    finds("no_writers", &[Slow::Visible]);
}

#[test]
fn the_checker_notices_commits_that_publish_over_newer_ones() {
    finds("no_publish_order", &[Slow::Overtaken]);
}

#[test]
fn the_checker_notices_fills_that_do_not_look_at_the_generation() {
    finds("no_generation", &[Slow::BeforeFill]);
}

#[test]
fn the_checker_notices_fills_under_the_callers_snapshot() {
    finds("fill_under_caller_snapshot", &[Slow::OldSnapshot]);
}
