//! A session of the model of credits: its steps are transactions, each of some things done to any runs.

use super::books::complaints;
use super::{FAMILIES, Shared};
use postgres::{Client, Error};
use state_cache_server_tests::{Dice, PATIENCE, Server, code};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Ids of children in a family: few, so that ids are used again.
const NAMES: u64 = 7;

/// What a thing may answer where it is not what the caller hoped: ended, children running, limit reached, taken, not
/// there, moved. Two transactions that take runs of two families in different orders may deadlock.
const REFUSALS: [&str; 7] = [
    "55000", "55006", "54000", "42710", "42704", "40001", "40P01",
];

/// What a session hears of a server that goes down.
const GONE: [&str; 6] = [
    "connection lost",
    "57P01",
    "57P02",
    "57P03",
    "08006",
    "08P01",
];

fn is_gone(error: &Error) -> bool {
    error.is_closed() || GONE.contains(&code(error).as_str())
}

pub struct Worker<'a> {
    server: &'a Server,
    shared: &'a Shared,
    number: usize,
    dice: Dice,
    client: Client,
    /// Counts what this one has made, so that each has a name of its own.
    made: u64,
    /// Spendings of the transaction that goes on.
    pending: Vec<String>,
    /// Whether something failed that no savepoint takes back.
    failed: bool,
}

impl<'a> Worker<'a> {
    pub fn new(server: &'a Server, shared: &'a Shared, number: usize, dice: Dice) -> Self {
        Self {
            server,
            shared,
            number,
            dice,
            client: session(server),
            made: 0,
            pending: Vec::new(),
            failed: false,
        }
    }

    /// Does so many steps, and looks at the books after each.
    pub fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.shared.is_wrong() {
                return;
            }
            let family = self.shared.family(self.dice.roll(FAMILIES as u64) as usize);
            let result = self
                .step(&family)
                .and_then(|()| complaints(&mut self.client, &family));
            self.shared.steps.fetch_add(1, Ordering::SeqCst);
            match result {
                Ok(complaints) => {
                    for complaint in complaints {
                        self.shared.differs(complaint);
                    }
                }
                Err(error) if is_gone(&error) => {
                    self.shared.answered("lost", "done");
                    self.client = session(self.server);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// A transaction.
    fn step(&mut self, family: &str) -> Result<(), Error> {
        self.pending.clear();
        self.failed = false;
        // A step may be one call outside of any block.
        if self.dice.roll(4) == 0 {
            let done = self.thing(family, false)?;
            self.acknowledge(done);
            return Ok(());
        }
        let level =
            ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ"][self.dice.roll(3) as usize];
        self.say(&format!("BEGIN ISOLATION LEVEL {level}"))?;
        if self.dice.roll(2) == 0 {
            let mode = ["error", "reapply", "overwrite"][self.dice.roll(3) as usize];
            self.say(&format!("SELECT state_batch_begin('{mode}')"))?;
            self.shared.answered(&format!("begin {mode}"), "done");
        }
        for _ in 0..1 + self.dice.roll(4) {
            match self.dice.roll(10) {
                0 => self.batch("rollback")?,
                1 => self.batch("commit")?,
                2..4 => self.undo(family)?,
                _ => {
                    self.thing(family, true)?;
                }
            }
            if self.failed {
                break;
            }
        }
        let ends = if self.failed || self.dice.roll(5) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        };
        match self.say(ends) {
            Ok(()) => {
                self.shared.answered(ends, "done");
                self.acknowledge(ends == "COMMIT");
                Ok(())
            }
            Err(error) => self.refused(ends, error),
        }
    }

    fn say(&mut self, sql: &str) -> Result<(), Error> {
        let result = self.client.batch_execute(sql);
        let answer = result.as_ref().err().map_or("done".to_owned(), code);
        self.shared.said(self.number, sql, &answer);
        result
    }

    fn acknowledge(&mut self, committed: bool) {
        if committed {
            self.shared
                .acknowledged
                .lock()
                .unwrap()
                .append(&mut self.pending);
        }
    }

    /// An error that may be.
    fn refused(&mut self, what: &str, error: Error) -> Result<(), Error> {
        if is_gone(&error) {
            return Err(error);
        }
        let code = code(&error);
        assert!(REFUSALS.contains(&code.as_str()), "{what}: {error:?}");
        self.shared.answered(what, &code);
        Ok(())
    }

    fn batch(&mut self, how: &str) -> Result<(), Error> {
        let what = format!("batch {how}");
        match self.say(&format!("SELECT state_batch_{how}()")) {
            Ok(()) => self.shared.answered(&what, "done"),
            Err(error) => {
                self.failed = true;
                self.refused(&what, error)?;
            }
        }
        Ok(())
    }

    /// Some things that a savepoint takes back.
    fn undo(&mut self, family: &str) -> Result<(), Error> {
        self.say("SAVEPOINT outer_one")?;
        let pending = self.pending.len();
        for _ in 0..1 + self.dice.roll(2) {
            self.thing(family, true)?;
        }
        if self.dice.roll(4) == 0 {
            self.batch("rollback")?;
        }
        self.say("ROLLBACK TO outer_one")?;
        self.failed = false;
        self.pending.truncate(pending);
        self.shared.answered("savepoint", "done");
        Ok(())
    }

    /// One thing, in a savepoint of its own if a transaction goes on, which an error leaves as it was. Whether it was
    /// done.
    fn thing(&mut self, family: &str, in_transaction: bool) -> Result<bool, Error> {
        if self.failed {
            return Ok(false);
        }
        let (what, sql) = self.pick(family);
        let pending = self.pending.len();
        if in_transaction {
            self.say("SAVEPOINT one")?;
        }
        match self.say(&sql) {
            Ok(()) => {
                self.shared.answered(what, "done");
                if what == "spend" {
                    self.pending.push(self.name());
                }
                Ok(true)
            }
            Err(error) => {
                self.refused(what, error)?;
                self.pending.truncate(pending);
                if in_transaction {
                    self.say("ROLLBACK TO one")?;
                }
                Ok(false)
            }
        }
    }

    /// The name of the spending that was made last.
    fn name(&self) -> String {
        format!("{} {} {}", self.shared.round, self.number, self.made)
    }

    fn run(&mut self, family: &str) -> String {
        match self.dice.roll(NAMES + 2) {
            child @ 0..NAMES => format!("{family}/{child}"),
            _ => family.to_owned(),
        }
    }

    fn child(&mut self, family: &str) -> String {
        format!("{family}/{}", self.dice.roll(NAMES))
    }

    /// Mostly no more than this, at times more than most runs have.
    fn cents(&mut self, mostly: u64) -> u64 {
        let most = if self.dice.roll(4) == 0 { 4000 } else { mostly };
        1 + self.dice.roll(most)
    }

    /// What it is, and how it is said.
    fn pick(&mut self, family: &str) -> (&'static str, String) {
        self.made += 1;
        let run = self.run(family);
        let child = self.child(family);
        match self.dice.roll(100) {
            0..32 => {
                let cents = self.cents(90);
                (
                    "spend",
                    format!("SELECT spend('{run}', {cents}, '{}')", self.name()),
                )
            }
            32..44 => {
                let cents = self.cents(400);
                (
                    "allot",
                    format!("SELECT create_child('{family}', '{run}', '{child}', {cents})"),
                )
            }
            44..54 => (
                "share",
                format!("SELECT create_child('{family}', '{run}', '{child}', NULL)"),
            ),
            54..66 => {
                let outcome = ["completed", "failed", "cancelled"][self.dice.roll(3) as usize];
                ("end", format!("SELECT end_run('{child}', '{outcome}')"))
            }
            66..76 => match self.dice.roll(2) {
                0 => (
                    "set",
                    format!("SELECT state_context_set('{run}', 'note', '{}')", self.made),
                ),
                _ => (
                    "set",
                    format!(
                        "SELECT state_context_append('{run}', 'log', '{}')",
                        self.made
                    ),
                ),
            },
            76..83 => (
                "restore",
                format!(
                    "SELECT state_restore('{run}', version, class => 'run')
                        FROM (SELECT version FROM state_history('{run}', 'run')
                            ORDER BY md5(version || ' {}'), version LIMIT 1) v",
                    self.name()
                ),
            ),
            83..91 => {
                let kind = ["rollback", "resume", "restart"][self.dice.roll(3) as usize];
                (
                    "recover",
                    format!("SELECT * FROM state_recover('{run}', '{kind}', 'run')"),
                )
            }
            91..97 => ("delete", format!("SELECT delete_run('{child}')")),
            // An id that was used, at once.
            _ => (
                "again",
                format!(
                    "SELECT delete_run('{child}'); SELECT create_child('{family}', '{family}', '{child}', 50)"
                ),
            ),
        }
    }
}

/// A session, once the server is there.
fn session(server: &Server) -> Client {
    let start = Instant::now();
    loop {
        match server.try_connect("postgres") {
            Ok(mut client) => {
                if client
                    .batch_execute("SET application_name = 'credits'")
                    .is_ok()
                {
                    return client;
                }
            }
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
