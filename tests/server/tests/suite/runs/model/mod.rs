//! Random histories of one root with several children, beside a model of the contract that knows nothing of the
//! implementation. After every step all that the functions and tables say of the runs must be what the model says, in
//! the session that made the step and, as of the last commit, in another.
//!
//! A difference is shown with the seed and the statements; `STATE_CACHE_MODEL_SEED` repeats one seed.

mod answer;
mod check;
mod exports;
mod history;
mod merge;
// The model is what this module is about.
#[allow(clippy::module_inception)]
mod model;
mod pick;
mod step;
mod values;

use history::History;
use model::Flaw;
use state_cache_server_tests::{Server, Sql, inconsistencies};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Seeds of the suite.
const SEEDS: std::ops::Range<u64> = 0..150;

/// How long the suite plays at most; on a machine with much else to do it does not get through all seeds.
const SUITE: Duration = Duration::from_secs(20);

/// So many it plays in any case, in which all that can happen has happened.
const AT_LEAST: usize = 80;

/// How long the soak looks for differences.
const SOAK: Duration = Duration::from_secs(600);

fn server() -> Server {
    let server = Server::new(&["synchronous_commit = off"]);
    server.connect().run("SELECT state_class_define('kept')");
    server
}

fn within(limit: Duration, seeds: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let start = Instant::now();
    let enough = move |played: usize| played >= AT_LEAST && start.elapsed() >= limit;
    let numbered = seeds
        .enumerate()
        .take_while(move |(played, _)| !enough(*played));
    numbered.map(|(_, seed)| seed)
}

/// Plays histories, and sees that all that can happen has happened.
fn behave_as_the_model(seeds: impl Iterator<Item = u64>) {
    let server = server();
    let one = std::env::var("STATE_CACHE_MODEL_SEED").ok();
    let one: Option<u64> = one.map(|text| text.parse().unwrap());
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut histories = 0;
    for seed in seeds {
        let played = History::new(&server, one.unwrap_or(seed), Flaw::None).play();
        for (what, count) in played.unwrap_or_else(|difference| panic!("{difference}")) {
            *counts.entry(what).or_default() += count;
        }
        histories += 1;
        if one.is_some() {
            return;
        }
    }
    println!("{histories} histories, no difference: {counts:?}");
    for what in [
        "Child",
        "Set",
        "Append",
        "Patch",
        "ByHand",
        "Merge",
        "Mark",
        "Complete",
        "Resolve",
        "COMMIT",
        "ROLLBACK",
        "undone",
        "22023",
        "22039",
        "42501",
        "42710",
        "55000",
        "55006",
        "parent_context",
        "blackboard",
        "persistent_store",
        "external_system",
        "only the child changed it",
        "both made the same change",
        "only its sensitivity rose",
        "it is immutable in the parent",
        "it is blocked by an open conflict",
        "both changed it, the parent wins",
        "both changed it, the child wins",
        "both changed it, the parent's value is later",
        "both changed it, the parent's value is not later",
        "both changed it, the objects were merged",
        "both changed it, the arrays were concatenated",
        "both changed it, a person decides",
    ] {
        assert!(counts.contains_key(what), "never seen: {what}");
    }
    let mut client = server.connect();
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn histories_of_runs_go_as_the_model_says() {
    behave_as_the_model(within(SUITE, SEEDS));
}

#[test]
#[ignore = "soak"]
fn many_histories_of_runs_go_as_the_model_says() {
    behave_as_the_model(within(SOAK, 1_000..));
}

/// A model with a mistake in it must be contradicted by the seeds that do not contradict the right one, or the
/// comparison proves nothing.
#[test]
fn the_comparison_notices_a_wrong_model_of_runs() {
    let server = server();
    for flaw in [
        Flaw::MergesTwoWay,
        Flaw::ComparesWithTheBeginning,
        Flaw::SensitivityOfTheChosen,
        Flaw::BlocksNothing,
        Flaw::InheritsAll,
        Flaw::ExportOverwrites,
    ] {
        let mut differences = SEEDS.map(|seed| History::new(&server, seed, flaw).play().is_err());
        let noticed = differences.position(|differs| differs);
        println!("{flaw:?}: noticed in history {noticed:?}");
        assert!(noticed.is_some(), "{flaw:?} was not noticed");
    }
}
