//! A history checker: sessions run transactions of every kind against every kind of class while they are
//! disturbed, all that they ask and are told is recorded, and a checker finds what no history may contain.
//!
//! - `record`: what a history consists of.
//! - `arena`: the server, its classes and states.
//! - `session`, `workload`: what the sessions do, and how that is recorded.
//! - `nemesis`: cleared caches, changes of mode, rows deleted by hand, TRUNCATE, ended sessions and workers, and
//!   short delays in the moments that matter.
//! - `life`: a stretch of all that, which ends quietly or with `kill -9`.
//! - `check`: the checker. Its own tests are histories made by hand.
//!
//! A run prints its seed; `STATE_CACHE_HISTORY_SEED` repeats one as far as the scheduler does. How many
//! operations there are, `STATE_CACHE_HISTORY_OPERATIONS` says. Each life has its modes of telling others about
//! changes; `STATE_CACHE_HISTORY_NOTIFY` names one for all. The last life is
//! written to the file that `STATE_CACHE_HISTORY_DUMP` names.

mod arena;
mod check;
mod life;
mod nemesis;
mod record;
mod session;
mod workload;

use arena::Arena;
use check::{Anomaly, Kind, check};
use life::{Plan, live};
use record::{Clock, Outcome};
use state_cache_server_tests::Sql;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Operations of the suite, and of the soak test.
const OPERATIONS: (u64, u64) = (6_000, 500_000);
/// Operations of one life.
const LIFE: (u64, u64) = (1_500, 8_000);
/// Modes of one life after the other: what keeps reads exact must be none of them.
const NOTIFY: [&[&str]; 4] = [
    &["commit", "worker", "auto", "off"],
    &["off"],
    &["worker"],
    &["commit"],
];
/// Operations after which nobody believes that the checker finds anything. What a fill does that does not look at the
/// generation took 3,000 to 23,000.
const HOPELESS: u64 = 400_000;
/// Anomalies that are printed; the others may well follow from these.
const PRINTED: usize = 5;

/// What must have happened in a run: answers from L1 and past it, each way of writing.
const COUNTERS: [&str; 10] = [
    "hits",
    "validated",
    "fills",
    "bypass_own",
    "bypass_writers",
    "bypass_snapshot",
    "bypass_serializable",
    "left_behind",
    "written_through",
    "states_deleted",
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap())
}

/// What came of a run.
#[derive(Default)]
struct Tally {
    operations: u64,
    transactions: usize,
    committed: usize,
    unknown: usize,
    crashes: usize,
    parked: usize,
    counters: [i64; COUNTERS.len()],
    anomalies: Vec<Anomaly>,
    differences: Vec<String>,
}

/// Lives one life after the other until there were enough operations, or something was found.
fn run(arena: &Arena, operations: u64, of_a_life: u64, seed: u64, leave_out: &str) -> Tally {
    let (clock, start, mut tally) = (Clock::new(), Instant::now(), Tally::default());
    let mut checking = Duration::ZERO;
    let one_mode = std::env::var("STATE_CACHE_HISTORY_NOTIFY").ok();
    let one_mode = one_mode.as_deref();
    for life in 0.. {
        let plan = Plan {
            number: life,
            operations: of_a_life,
            crash: life % 3 == 2,
            notify: one_mode
                .as_ref()
                .map_or(NOTIFY[life % NOTIFY.len()], std::slice::from_ref),
            leave_out,
            seed,
        };
        let (history, differences) = live(arena, clock, &plan);
        let mut client = arena.server.connect();
        for (sum, counter) in tally.counters.iter_mut().zip(COUNTERS) {
            // They begin anew with a crash.
            *sum += client.counter(counter);
        }
        let before = Instant::now();
        tally.anomalies = check(&history);
        checking += before.elapsed();
        tally.differences = differences;
        let outcomes = |wanted| {
            let all = history.transactions.iter();
            all.filter(|transaction| transaction.outcome == wanted)
                .count()
        };
        tally.operations += history.operations();
        tally.transactions += history.transactions.len();
        tally.committed += outcomes(Outcome::Committed);
        tally.unknown += outcomes(Outcome::Unknown);
        tally.crashes += usize::from(plan.crash);
        tally.parked += history.crash.as_ref().map_or(0, |crash| crash.parked.len());
        if !tally.anomalies.is_empty()
            || !tally.differences.is_empty()
            || tally.operations >= operations
        {
            if let Ok(file) = std::env::var("STATE_CACHE_HISTORY_DUMP") {
                std::fs::write(file, history.to_string()).unwrap();
            }
            break;
        }
    }
    println!(
        "seed {seed}: {} operations in {} transactions, {} committed, {} not known; \
         {} crashes, {} states parked then; {:.1} s, {:.1} s of it checking",
        tally.operations,
        tally.transactions,
        tally.committed,
        tally.unknown,
        tally.crashes,
        tally.parked,
        start.elapsed().as_secs_f64(),
        checking.as_secs_f64()
    );
    for anomaly in tally.anomalies.iter().take(PRINTED) {
        println!("{}", anomaly.text);
    }
    for difference in tally.differences.iter().take(PRINTED) {
        println!("at the end: {difference}");
    }
    tally
}

/// Runs so many operations and finds nothing wrong.
fn holds(operations: u64, of_a_life: u64, seed: u64) {
    let operations = number("STATE_CACHE_HISTORY_OPERATIONS").unwrap_or(operations);
    let seed = number("STATE_CACHE_HISTORY_SEED").unwrap_or(seed);
    println!("seed {seed}");
    let arena = Arena::new();
    let tally = run(&arena, operations, of_a_life, seed, "");
    let kinds: Vec<Kind> = tally.anomalies.iter().map(|anomaly| anomaly.kind).collect();
    assert!(
        kinds.is_empty() && tally.differences.is_empty(),
        "seed {seed}: {kinds:?}, {:?}",
        tally.differences
    );
    // The run was what it claims to be.
    assert!(tally.committed * 2 > tally.transactions);
    for (counter, count) in COUNTERS.iter().zip(tally.counters) {
        assert!(count > 0, "{counter}");
    }
}

#[test]
fn histories_hold_no_anomaly() {
    holds(OPERATIONS.0, LIFE.0, 1);
}

#[test]
#[ignore = "soak"]
fn half_a_million_operations_hold_no_anomaly() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    holds(OPERATIONS.1, LIFE.1, now.as_secs());
}

/// With a step of the protocol left out, the checker finds what comes of it: in the history, or when all is quiet and
/// L1 says other than the tables.
fn finds(leave_out: &str, expected: &[Kind]) {
    let seed = number("STATE_CACHE_HISTORY_SEED").unwrap_or(1);
    let tally = run(&Arena::new(), HOPELESS, LIFE.0, seed, leave_out);
    let kinds: Vec<Kind> = tally.anomalies.iter().map(|anomaly| anomaly.kind).collect();
    assert!(
        kinds.iter().any(|kind| expected.contains(kind)) || !tally.differences.is_empty(),
        "nothing like {expected:?} was found without {leave_out}, but {kinds:?}"
    );
}

/// What comes of an L1 that is not as the tables are: reads of an old document, and changes of one, which lose what
/// the newer document had, so that lists part and a version number is given twice.
const OLD: [Kind; 6] = [
    Kind::Stale,
    Kind::BrokenSnapshot,
    Kind::Absent,
    Kind::LostWrite,
    Kind::Order,
    Kind::Version,
];

#[test]
fn the_checker_finds_commits_that_do_not_mark() {
    finds("no_writers", &OLD);
}

#[test]
fn the_checker_finds_fills_that_do_not_look_at_the_generation() {
    finds("no_generation", &OLD);
}

#[test]
fn the_checker_finds_fills_under_the_callers_snapshot() {
    finds("fill_under_caller_snapshot", &OLD);
}

#[test]
fn the_checker_finds_late_commits_that_publish_over_newer_ones() {
    finds("no_publish_order", &OLD);
}

#[test]
fn the_checker_finds_changes_of_a_behind_class_without_a_lock() {
    finds(
        "no_state_lock",
        &[Kind::Order, Kind::LostWrite, Kind::Version],
    );
}
