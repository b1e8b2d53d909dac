//! A model of credits: sessions that spend, allot, end, delete, restore and recover the same runs, in
//! batches of every kind, in transactions that are rolled back in part or as a whole, and while backends
//! are killed; and books of the test's own, which say after every step what each run must have used and
//! reserved.
//!
//! The books are tables that each transaction writes beside the runs, so that the database itself says
//! what has committed, whoever dies in between. `STATE_CACHE_CREDITS_SEED` sets the seed,
//! `STATE_CACHE_CREDITS_SECONDS` how long it plays.

mod books;
mod worker;

use books::{BOOKS, complaints};
use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, inconsistencies};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use worker::Worker;

/// Sessions that act at the same time.
const WORKERS: usize = 8;
/// Families of a round: few, so that sessions meet.
const FAMILIES: usize = 2;
/// Steps, which are transactions, that each session does in a round.
const STEPS: usize = 30;

/// Whatever the time, so many rounds are played, in which all that can happen has happened.
const AT_LEAST: usize = 3;

/// Statements that a difference is shown with.
const LAST: usize = 500;

/// What the sessions of a round know together.
#[derive(Default)]
struct Shared {
    seed: u64,
    round: usize,
    over: AtomicBool,
    /// Steps that sessions have done.
    steps: AtomicUsize,
    /// How often things were answered how.
    answers: Mutex<BTreeMap<String, u64>>,
    /// What was found wrong.
    differences: Mutex<Vec<String>>,
    /// What was said to the server, by whom, and what it answered.
    log: Mutex<Vec<String>>,
    /// Names of spendings whose COMMIT was answered.
    acknowledged: Mutex<Vec<String>>,
}

impl Shared {
    fn answered(&self, what: &str, answer: &str) {
        let mut answers = self.answers.lock().unwrap();
        *answers.entry(format!("{what} {answer}")).or_default() += 1;
    }

    /// Notes what is wrong, and the first time what was done before.
    fn differs(&self, difference: String) {
        let mut differences = self.differences.lock().unwrap();
        if differences.is_empty() {
            let log = self.log.lock().unwrap();
            let last = &log[log.len().saturating_sub(LAST)..];
            println!("{difference}\nafter\n{}", last.join("\n"));
        }
        differences.push(difference);
    }

    fn said(&self, session: usize, sql: &str, answer: &str) {
        let line = format!("{session}: {sql}; -- {answer}");
        self.log.lock().unwrap().push(line);
    }

    fn is_wrong(&self) -> bool {
        !self.differences.lock().unwrap().is_empty()
    }

    fn family(&self, number: usize) -> String {
        format!("{}-{number}", self.round)
    }
}

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// One round: two families, all sessions, and at the end the books of what is left.
fn round(server: &Server, shared: &Shared, kills: bool) {
    let mut client = server.connect();
    for family in 0..FAMILIES {
        let family = shared.family(family);
        client.run(&format!("SELECT create_root('{family}')"));
    }
    std::thread::scope(|threads| {
        let working: Vec<_> = (0..WORKERS)
            .map(|number| {
                let seed = shared.seed + (shared.round * WORKERS + number) as u64;
                let mut worker = Worker::new(server, shared, number, Dice::new(seed));
                threads.spawn(move || worker.work(STEPS))
            })
            .collect();
        let killing = kills.then(|| threads.spawn(|| kill_backends(server, shared)));
        let worked: Vec<_> = working.into_iter().map(|thread| thread.join()).collect();
        shared.over.store(true, Ordering::SeqCst);
        killing
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        worked.into_iter().for_each(|thread| thread.unwrap());
    });
    let mut client = server.connect();
    for family in 0..FAMILIES {
        settle(&mut client, shared, &shared.family(family));
    }
    let known = client.rows("SELECT name FROM spending");
    let known: std::collections::BTreeSet<String> = known.into_iter().flatten().collect();
    for name in shared.acknowledged.lock().unwrap().iter() {
        if !known.contains(name) {
            shared.differs(format!("the spending {name} was acknowledged, and is lost"));
        }
    }
}

/// Now and then the process of a session is killed, and the server with it restarts.
fn kill_backends(server: &Server, shared: &Shared) {
    let mut dice = Dice::new(shared.seed ^ shared.round as u64);
    let mut steps = 0;
    while !shared.over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
        // Each time after so many steps of the sessions, however slow the machine.
        let done = shared.steps.load(Ordering::SeqCst);
        if done < steps + 20 + dice.roll(40) as usize {
            continue;
        }
        steps = done;
        let Ok(mut client) = server.try_connect("postgres") else {
            continue;
        };
        let sessions = client.simple_query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'credits' ORDER BY pid",
        );
        let pids: Vec<u32> = sessions
            .into_iter()
            .flatten()
            .filter_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            })
            .collect();
        if pids.is_empty() {
            continue;
        }
        let times_up = server.times_up();
        let pid = pids[dice.roll(pids.len() as u64) as usize];
        let command = format!("kill -KILL {pid} 2>/dev/null");
        let _ = Command::new("sh").args(["-c", &command]).status();
        // One that was about to end by itself is no crash.
        let killed = Instant::now();
        while server.times_up() == times_up && killed.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if server.times_up() > times_up {
            shared.answered("kill", "done");
        }
    }
}

/// What a family has when nobody acts: first as it is, then with all its runs ended.
fn settle(client: &mut Client, shared: &Shared, family: &str) {
    for what in ["at rest", "in the end"] {
        for complaint in complaints(client, family).unwrap() {
            shared.differs(format!("{what}: {complaint}"));
        }
        // The deepest first.
        let running = client.rows(&format!(
            "SELECT name FROM life WHERE family = '{family}' AND NOT ended ORDER BY depth DESC"
        ));
        for run in running.concat() {
            client.run(&format!("SELECT end_run('{run}', 'cancelled')"));
        }
    }
    // All have ended: what was spent under any run of the family is what the root has used.
    let spent = format!(
        "SELECT coalesce(sum(s.cents), 0) FROM spending s JOIN life l ON l.id = s.life WHERE l.family = '{family}'"
    );
    let spent = client.number(&spent);
    let used = client.number(&format!(
        "SELECT (100 * coalesce((state_context_get('{family}')#>>'{{usage,credits}}')::numeric, 0))::bigint"
    ));
    if spent != used {
        shared.differs(format!(
            "{family}: {spent} cents were spent, {used} are charged to the root"
        ));
    }
}

/// Rounds for so long; how often things were answered how.
fn keep_books(
    server: &Server,
    seed: u64,
    duration: Duration,
    kills: bool,
) -> BTreeMap<String, u64> {
    println!("STATE_CACHE_CREDITS_SEED={seed}");
    server.connect().run(BOOKS);
    let (start, mut answers, mut rounds) = (Instant::now(), BTreeMap::<String, u64>::new(), 0);
    while rounds < AT_LEAST || start.elapsed() < duration {
        let shared = Shared {
            seed,
            round: rounds,
            ..Shared::default()
        };
        round(server, &shared, kills);
        let differences = shared.differences.into_inner().unwrap();
        let first = differences.first();
        assert_eq!(
            first, None,
            "STATE_CACHE_CREDITS_SEED={seed}, round {rounds}"
        );
        for (answer, count) in shared.answers.into_inner().unwrap() {
            *answers.entry(answer).or_default() += count;
        }
        rounds += 1;
    }
    println!("{rounds} rounds: {answers:?}");
    assert_eq!(
        inconsistencies(&mut server.connect()),
        Vec::<Vec<String>>::new()
    );
    answers
}

fn has_happened(answers: &BTreeMap<String, u64>, what: &[&str]) {
    for answer in what {
        let count = answers.get(*answer).copied().unwrap_or_default();
        assert!(count > 0, "never: {answer}: {answers:?}");
    }
}

/// What must have happened, or the run was not what it claims to be.
const HAPPENED: [&str; 21] = [
    "spend done",
    "spend 54000",
    "spend 55000",
    "allot done",
    "allot 54000",
    "share done",
    "end done",
    "end 55006",
    "set done",
    "restore done",
    "recover done",
    "delete done",
    "begin error done",
    "begin reapply done",
    "begin overwrite done",
    "batch rollback done",
    "batch commit done",
    "savepoint done",
    "COMMIT done",
    "ROLLBACK done",
    "again done",
];

#[test]
fn credits_are_conserved_in_every_run_at_every_step() {
    let server = Server::new(&["deadlock_timeout = '20ms'", "synchronous_commit = off"]);
    let seed = number_of("STATE_CACHE_CREDITS_SEED", 1);
    let seconds = number_of("STATE_CACHE_CREDITS_SECONDS", 12);
    let answers = keep_books(&server, seed, Duration::from_secs(seconds), false);
    has_happened(&answers, &HAPPENED);
}

#[test]
#[ignore = "soak"]
fn credits_are_conserved_for_long_and_when_backends_are_killed() {
    let seed = number_of("STATE_CACHE_CREDITS_SEED", 1_000);
    let seconds = Duration::from_secs(number_of("STATE_CACHE_CREDITS_SECONDS", 300));
    for kills in [false, true] {
        let server = Server::new(&["deadlock_timeout = '20ms'"]);
        let answers = keep_books(&server, seed, seconds, kills);
        has_happened(&answers, &HAPPENED);
        if kills {
            has_happened(&answers, &["kill done", "lost done"]);
        }
    }
}

/// Books that leave out what somebody has done must be contradicted, or the comparison proves nothing.
#[test]
fn the_comparison_notices_wrong_books_of_credits() {
    let server = Server::new(&["synchronous_commit = off"]);
    let mut client = server.connect();
    client.run(BOOKS);
    client.run(
        "SELECT create_root('f');
         SELECT create_child('f', 'f', 'f/allotted', 500);
         SELECT create_child('f', 'f/allotted', 'f/shared', NULL);
         SELECT spend('f/shared', 30, 'one'), spend('f', 7, 'two');
         SELECT create_child('f', 'f', 'f/gone', 100);
         SELECT end_run('f/gone', 'failed'), delete_run('f/gone');
         SELECT state_recover('f/gone', 'restart', 'run')",
    );
    let complaints_after = |client: &mut Client, wrong: &str| {
        client.run("BEGIN");
        client.run(wrong);
        let found = complaints(client, "f").unwrap();
        client.run("ROLLBACK");
        found.len()
    };
    assert_eq!(complaints_after(&mut client, "SELECT 1"), 0);
    for wrong in [
        // Lost, twice, charged to another.
        "DELETE FROM spending WHERE name = 'one'",
        "INSERT INTO spending SELECT 'three', life, cents FROM spending WHERE name = 'two'",
        "UPDATE spending SET life = (SELECT id FROM life WHERE name = 'f') WHERE name = 'one'",
        // A limit and an allotment that are none.
        "UPDATE life SET most = most - 1 WHERE name = 'f'",
        "UPDATE life SET allotted = allotted - 1 WHERE name = 'f/allotted'",
        // Ended and running, there and gone.
        "UPDATE life SET ended = true WHERE name = 'f/shared'",
        "UPDATE life SET ended = false WHERE name = 'f/gone'",
        "UPDATE life SET deleted = true WHERE name = 'f/shared'",
        "UPDATE life SET deleted = false WHERE name = 'f/gone'; DELETE FROM state_snapshot WHERE key = 'f/gone'",
        // The documents, past their rules.
        "SELECT state_update('f', '{\"usage\": {\"credits\": 0.06}}', 'run'), state_batch_commit()",
        "SELECT state_update('f', '{\"reservations\": {}}', 'run'), state_batch_commit()",
    ] {
        let found = complaints_after(&mut client, wrong);
        assert!(found > 0, "not noticed: {wrong}");
    }
}
