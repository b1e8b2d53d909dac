//! Random transactions beside a model of the contract. After every step the functions, the tables and,
//! between transactions, L1 must say what the model says.
//!
//! A case is a number of transactions made from a seed. A second session reads along, so that L1 is in
//! play; with two sessions it also commits changes while the first has its own staged. A difference is
//! shown with the seed and the statements of its transaction; `STATE_CACHE_MODEL_SEED` repeats one seed.

mod case;
mod check;
mod transaction;

use case::Case;
use state_cache_server_tests::{Server, Sql, inconsistencies};
use std::time::{Duration, Instant};
use transaction::Flaw;

/// Seeds of the suite, for each number of sessions.
const SEEDS: std::ops::Range<u64> = 0..30;

/// How long the soak looks for differences, for each number of sessions.
const SOAK: Duration = Duration::from_secs(600);

fn server() -> Server {
    let server = Server::new(&["state_cache.memory = '1MB'", "synchronous_commit = off"]);
    server.connect().run(case::FUNCTIONS);
    server
}

/// What is wrong in any of these cases, the first only; and how many were tried.
fn differences(
    server: &Server,
    sessions: usize,
    seeds: impl Iterator<Item = u64>,
    flaw: Flaw,
) -> (u64, Option<String>) {
    let one = std::env::var("STATE_CACHE_MODEL_SEED").ok();
    let one: Option<u64> = one.map(|text| text.parse().unwrap());
    let mut cases = 0;
    for seed in seeds.map(|seed| one.unwrap_or(seed)) {
        cases += 1;
        if let Err(difference) = Case::new(server, sessions, seed, flaw).run() {
            return (cases, Some(difference));
        }
        if one.is_some() {
            break;
        }
    }
    (cases, None)
}

/// Runs cases, and sees that L1 has answered in some and the tables are whole.
fn behaves_as_the_model(sessions: usize, seeds: impl Iterator<Item = u64>) {
    let server = server();
    let (cases, difference) = differences(&server, sessions, seeds, Flaw::None);
    if let Some(difference) = difference {
        panic!("{difference}");
    }
    let mut client = server.connect();
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
    for counter in [
        "hits",
        "fills",
        "bypass_own",
        "duplicates_skipped",
        "states_deleted",
        "conflicts",
    ] {
        assert!(client.counter(counter) > 0, "{counter}");
    }
    println!("{cases} cases of {sessions} sessions: no difference");
}

/// The seeds for as long as the soak lasts, none of them in the suite.
fn seeds_of_the_soak() -> impl Iterator<Item = u64> {
    let start = Instant::now();
    (1_000..).take_while(move |_| start.elapsed() < SOAK)
}

#[test]
fn one_session_behaves_as_the_model() {
    behaves_as_the_model(1, SEEDS);
}

#[test]
fn a_session_behaves_as_the_model_while_another_commits() {
    behaves_as_the_model(2, SEEDS);
}

#[test]
#[ignore = "soak"]
fn one_session_behaves_as_the_model_for_long() {
    behaves_as_the_model(1, seeds_of_the_soak());
}

#[test]
#[ignore = "soak"]
fn a_session_behaves_as_the_model_while_another_commits_for_long() {
    behaves_as_the_model(2, seeds_of_the_soak());
}

/// A model with a mistake in it must be contradicted by the seeds that do not contradict the right one, or
/// the comparison proves nothing.
#[test]
fn the_comparison_notices_a_wrong_model() {
    let server = server();
    for (flaw, sessions) in [
        (Flaw::RollbackToKeepsStaged, 1),
        (Flaw::DeleteMakesNoVersion, 1),
        (Flaw::DuplicateIsWritten, 1),
        (Flaw::OperationsOverwrite, 2),
        (Flaw::ErrorIgnoresReads, 2),
    ] {
        let (cases, difference) = differences(&server, sessions, SEEDS, flaw);
        println!("{flaw:?}: noticed in case {cases}");
        assert!(difference.is_some(), "{flaw:?} was not noticed");
    }
}
