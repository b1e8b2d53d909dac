//! Many sessions on few states of a `behind` class, with an L1 so small that it is full of dirty entries half
//! of the time, while the worker is ended, the class changes its mode and the cache is cleared.
//!
//! What must hold while the server does not crash: a read gives at least the version that was acknowledged, to
//! anybody, before it began; a session never sees an older version than before; every version has one
//! document; no append is lost or made twice; and in the end L3 holds what readers see.

use super::{LONG, await_accepting, server, unwritten};
use postgres::{Client, Error};
use state_cache_server_tests::{Dice, Server, Sql, code, eventually, inconsistencies};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// States that are set, changed, touched and deleted. Together more bytes than L1 has.
const ORDINARY: usize = 40;
/// States that are only appended to.
const LOGS: usize = 4;
const STATES: usize = ORDINARY + LOGS;
/// Sessions that read and write.
const SESSIONS: usize = 10;
/// Reads of the suite, and of the soak test; `STATE_CACHE_STRESS_READS` says otherwise.
const READS: (u64, u64) = (20_000, 500_000);
/// What a session may meet that competes with others: conflicts, deadlocks, a class that was redefined.
const EXPECTED: [&str; 3] = ["40001", "40P01", "55P03"];
/// The differences worth keeping.
const KEPT: usize = 10;

fn name(state: usize) -> String {
    match state {
        0..ORDINARY => format!("state {state}"),
        _ => format!("log {}", state - ORDINARY),
    }
}

/// What becomes of the class's write mode meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Stays,
    Changes,
}

/// What all sessions know together.
struct Board {
    target: u64,
    mode: Mode,
    over: AtomicBool,
    reads: AtomicU64,
    commits: AtomicU64,
    failures: AtomicU64,
    acknowledged: [AtomicI64; STATES],
    /// Hash of each version's document, as first seen.
    documents: Mutex<HashMap<(usize, i64), String>>,
    appended: Mutex<Vec<String>>,
    differences: Mutex<Vec<String>>,
}

impl Board {
    fn new(target: u64, mode: Mode) -> Self {
        Self {
            target,
            mode,
            over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            acknowledged: [const { AtomicI64::new(0) }; STATES],
            documents: Mutex::default(),
            appended: Mutex::default(),
            differences: Mutex::default(),
        }
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Runs a thread's work; if it panics, the others stop too.
    fn guard(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.over.store(true, Ordering::SeqCst);
            resume_unwind(panic);
        }
    }

    fn differs(&self, difference: String) {
        let mut differences = self.differences.lock().unwrap();
        if differences.len() < KEPT {
            differences.push(difference);
        }
    }

    fn acknowledged(&self) -> [i64; STATES] {
        std::array::from_fn(|state| self.acknowledged[state].load(Ordering::SeqCst))
    }
}

/// One session.
struct Session<'a> {
    client: Client,
    board: &'a Board,
    dice: Dice,
    number: usize,
    /// The newest version that this session saw of each state.
    newest: [i64; STATES],
    appends: u64,
}

impl Session<'_> {
    fn work(&mut self) {
        while !self.board.over() {
            let done = match self.dice.roll(10) {
                0..5 => self.read(),
                5..9 => self.change(),
                _ => self.read_repeatedly(),
            };
            if let Err(error) = done {
                let code = code(&error);
                assert!(EXPECTED.contains(&&*code), "{error:?}");
                self.board.failures.fetch_add(1, Ordering::SeqCst);
                self.client.run("ROLLBACK");
            }
        }
    }

    fn state(&mut self) -> usize {
        match self.dice.roll(4) {
            0 => ORDINARY + self.dice.roll(LOGS as u64) as usize,
            1 => self.dice.roll(4) as usize,
            _ => self.dice.roll(ORDINARY as u64) as usize,
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        let state = self.state();
        let before = self.board.acknowledged()[state];
        let row = self.client.query_one(
            "SELECT r.version, md5(r.state::text) FROM (SELECT) one
                LEFT JOIN state_get_many(ARRAY[$1], class => 'left') r ON true",
            &[&name(state)],
        )?;
        self.saw(state, row.get(0), row.get(1), before);
        Ok(())
    }

    /// A transaction with one snapshot: it too gets the newest version each time, as long as the class is a
    /// `behind` class.
    fn read_repeatedly(&mut self) -> Result<(), Error> {
        let isolation = match self.board.mode {
            Mode::Changes => "READ COMMITTED",
            Mode::Stays => "REPEATABLE READ",
        };
        self.client
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        for _ in 0..3 {
            self.read()?;
        }
        self.client.batch_execute("COMMIT")
    }

    fn saw(&mut self, state: usize, version: Option<i64>, hash: Option<String>, before: i64) {
        let board = self.board;
        if let (Some(version), Some(hash)) = (version, hash) {
            let least = before.max(self.newest[state]);
            if version < least {
                board.differs(format!("{}: version {version} after {least}", name(state)));
            }
            self.newest[state] = least.max(version);
            let mut documents = board.documents.lock().unwrap();
            let first = documents.entry((state, version)).or_insert(hash.clone());
            if *first != hash {
                let of = name(state);
                drop(documents);
                board.differs(format!("{of}: two documents of version {version}"));
            }
        } else if state >= ORDINARY {
            board.differs(format!("{} is absent", name(state)));
        }
        if board.reads.fetch_add(1, Ordering::SeqCst) >= board.target {
            board.over.store(true, Ordering::SeqCst);
        }
    }

    fn change(&mut self) -> Result<(), Error> {
        let state = self.state();
        let key = name(state);
        let isolation = [
            "READ COMMITTED",
            "READ COMMITTED",
            "READ COMMITTED",
            "REPEATABLE READ",
            "SERIALIZABLE",
        ][self.dice.roll(5) as usize];
        self.client
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        let mut appended = None;
        if state >= ORDINARY {
            self.appends += 1;
            let entry = format!("{}/{}", self.number, self.appends);
            self.client.execute(
                "SELECT state_append($1, '{log}', to_jsonb($2::text), class => 'left')",
                &[&key, &entry],
            )?;
            appended = Some(entry);
        } else {
            self.change_ordinary(&key)?;
        }
        let flushed = self.client.query(
            "SELECT version, action FROM state_batch_commit() WHERE key = $1",
            &[&key],
        )?;
        // A touch or a duplicate makes no version.
        let made = flushed
            .iter()
            .filter(|row| row.get::<_, &str>(1) == "written")
            .map(|row| row.get::<_, i64>(0))
            .max();
        if self.dice.roll(8) == 0 {
            return self.client.batch_execute("ROLLBACK");
        }
        self.client.batch_execute("COMMIT")?;
        if let Some(version) = made {
            self.board.acknowledged[state].fetch_max(version, Ordering::SeqCst);
        }
        if let Some(entry) = appended {
            self.board.appended.lock().unwrap().push(entry);
        }
        self.board.commits.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn change_ordinary(&mut self, key: &str) -> Result<(), Error> {
        let length = match self.dice.roll(6) {
            0 => 20_000 + self.dice.roll(40_000),
            1 | 2 => self.dice.roll(4_000),
            _ => self.dice.roll(100),
        };
        let document = format!(
            "{{\"n\": {}, \"padding\": \"{}\"}}",
            self.dice.roll(1 << 40),
            self.dice.digits(length as usize)
        );
        let sql = match self.dice.roll(12) {
            0 => "SELECT state_delete($1, class => 'left')",
            1 => "SELECT state_touch($1, '1 hour', class => 'left')",
            2..5 => {
                let number = self.dice.roll(1 << 40) as i64;
                let sql =
                    "SELECT state_update($1, jsonb_build_object('m', $2::bigint), class => 'left')";
                return self.client.execute(sql, &[&key, &number]).map(drop);
            }
            5 => {
                // What the savepoint takes back was never there.
                self.client.batch_execute("SAVEPOINT s")?;
                let sql = "SELECT state_set($1, '{\"undone\": true}', class => 'left')";
                self.client.execute(sql, &[&key])?;
                self.client
                    .batch_execute("SELECT state_batch_commit(); ROLLBACK TO s")?;
                return self.set(key, &document);
            }
            _ => return self.set(key, &document),
        };
        self.client.execute(sql, &[&key]).map(drop)
    }

    fn set(&mut self, key: &str, document: &str) -> Result<(), Error> {
        let sql = "SELECT state_set($1, $2::text::jsonb, class => 'left')";
        self.client.execute(sql, &[&key, &document]).map(drop)
    }
}

/// A session that disturbs the others.
fn disturb(server: &Server, board: &Board) {
    let (mut client, mut dice) = (server.connect(), Dice::new(99));
    let statements = [
        "SELECT state_flush()",
        "SELECT state_flush('left')",
        "BEGIN; SELECT state_flush(); ROLLBACK",
        "SELECT state_cache_clear()",
        "SELECT state_invalidate('state*', 'left')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'state_cache worker'",
        // Rows of no state that the sessions change.
        "UPDATE state_head SET size = size WHERE class = 'left' AND key = 'bystander'",
        "DELETE FROM state_head WHERE class = 'left' AND key = 'no such key'",
    ];
    let modes = [
        "SELECT state_class_define('left', write_mode => 'through')",
        "SELECT state_class_define('left', write_mode => 'behind')",
    ];
    while !board.over() {
        let statement = if board.mode == Mode::Changes && dice.roll(4) == 0 {
            modes[dice.roll(2) as usize]
        } else {
            statements[dice.roll(statements.len() as u64) as usize]
        };
        if let Err(error) = client.batch_execute(statement) {
            let code = code(&error);
            assert!(EXPECTED.contains(&&*code), "{statement}: {error:?}");
            client.run("ROLLBACK");
        }
        std::thread::sleep(Duration::from_millis(dice.roll(60)));
    }
    client.run("SELECT state_class_define('left', write_mode => 'behind')");
}

fn stress(reads: u64, mode: Mode) {
    let reads =
        std::env::var("STATE_CACHE_STRESS_READS").map_or(reads, |text| text.parse().unwrap());
    let server = server(&[
        LONG,
        "state_cache.flush_interval = '100ms'",
        "state_cache.memory = '1MB'",
        "deadlock_timeout = '20ms'",
    ]);
    let mut client = server.connect();
    client.run("SELECT state_set('bystander', '1', class => 'left')");
    for log in 0..LOGS {
        client.run(&format!(
            "SELECT state_set('log {log}', '{{\"log\": []}}', class => 'left')"
        ));
    }
    let board = Board::new(reads, mode);
    std::thread::scope(|threads| {
        for number in 0..SESSIONS {
            let mut session = Session {
                client: server.connect(),
                board: &board,
                dice: Dice::new(number as u64),
                number,
                newest: [0; STATES],
                appends: 0,
            };
            threads.spawn(move || session.board.guard(|| session.work()));
        }
        threads.spawn(|| board.guard(|| disturb(&server, &board)));
    });
    println!(
        "{} reads, {} commits, {} failures, {} appends; left behind {}, written through {}",
        board.reads.load(Ordering::SeqCst),
        board.commits.load(Ordering::SeqCst),
        board.failures.load(Ordering::SeqCst),
        board.appended.lock().unwrap().len(),
        client.counter("left_behind"),
        client.counter("written_through"),
    );
    assert_eq!(*board.differences.lock().unwrap(), Vec::<String>::new());
    // The run was what it claims to be.
    for counter in [
        "left_behind",
        "written_through",
        "behind_flushed",
        "states_deleted",
        "evictions",
    ] {
        assert!(client.counter(counter) > 0, "{counter}");
    }
    await_accepting(&mut client);
    // Before anything is written by order: the newest version of each state is there.
    for (state, acknowledged) in board.acknowledged().into_iter().enumerate() {
        let key = name(state);
        let sql = format!(
            "SELECT coalesce(state_version('{key}', class => 'left'), (SELECT version FROM state_head WHERE class = \
                'left' AND key = '{key}'), 0)"
        );
        let version = client.number(&sql);
        assert!(version >= acknowledged, "{key}: {version} < {acknowledged}");
    }
    eventually("everything to be written", || {
        unwritten(&mut client).is_empty()
    });
    let mut appended = board.appended.lock().unwrap().clone();
    appended.sort();
    let found = "SELECT e FROM generate_series(0, 3) i,
        jsonb_array_elements_text((SELECT state -> 'log' FROM state_current WHERE class = 'left' AND key = 'log ' \
        || i)) e";
    let mut found: Vec<String> = client
        .rows(found)
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    found.sort();
    assert_eq!(found, appended);
    assert_eq!(
        client.number("SELECT count(*) FROM state_kept WHERE state ? 'undone'"),
        0
    );
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn nothing_acknowledged_is_lost_or_taken_back_under_stress() {
    stress(READS.0, Mode::Stays);
}

#[test]
fn nothing_acknowledged_is_lost_or_taken_back_while_the_mode_changes() {
    stress(READS.0, Mode::Changes);
}

#[test]
#[ignore = "soak"]
fn nothing_acknowledged_is_lost_or_taken_back_under_long_stress() {
    stress(READS.1, Mode::Stays);
    stress(READS.1, Mode::Changes);
}
