//! One connection: it sends statements, and writes down what was asked and answered.

use super::arena::{Arena, Place};
use super::record::{Act, Change, Clock, Level, Outcome, Seen, Span, State, Step, Transaction};
use postgres::{Client, SimpleQueryMessage};
use state_cache_server_tests::{Dice, code};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What all sessions of one life have in common.
pub struct Board<'a> {
    /// The server.
    pub arena: &'a Arena,
    /// The states.
    pub places: &'a [Place],
    /// The time.
    pub clock: Clock,
    /// So many operations are wanted.
    pub target: u64,
    /// Ways of telling others about changes, of which each session has one for some time.
    pub notify: &'a [&'a str],
    /// The step of the protocol that sessions leave out, if any.
    pub leave_out: &'a str,
    /// The life is over.
    pub over: AtomicBool,
    /// A crash is about to end the life: who connects from here on may meet the server as it is afterwards.
    pub doomed: AtomicBool,
    /// Operations so far.
    pub operations: AtomicU64,
    /// The process behind each session.
    pub processes: Mutex<Vec<u32>>,
    /// All transactions that have ended.
    pub transactions: Mutex<Vec<Transaction>>,
}

impl Board<'_> {
    /// Whether the sessions are to end.
    pub fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether nobody is to connect any more.
    fn takes_nobody(&self) -> bool {
        self.over() || self.doomed.load(Ordering::SeqCst)
    }

    /// Whether there were enough operations.
    pub fn enough(&self) -> bool {
        self.operations.load(Ordering::SeqCst) >= self.target
    }
}

/// Why a statement was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server refused it, with this SQLSTATE; the session lives.
    Refused(String),
    /// The connection is lost.
    Lost,
}

/// Rows as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// SQLSTATEs that sessions may meet which compete with others. Absent states cannot be appended to (2203A).
const EXPECTED: [&str; 4] = ["40001", "40P01", "55P03", "2203A"];

/// One connection and the transaction that it is in.
pub struct Session<'a> {
    /// What all share.
    pub board: &'a Board<'a>,
    /// Chance.
    pub dice: Dice,
    /// Who it is.
    pub name: String,
    client: Option<Client>,
    /// The transaction under way.
    pub now: Transaction,
    /// What it has changed.
    pub changed: BTreeSet<State>,
}

impl<'a> Session<'a> {
    /// A session that connects when it first needs to.
    pub fn new(board: &'a Board<'a>, name: String, seed: u64) -> Self {
        Self {
            board,
            dice: Dice::new(seed),
            client: None,
            now: transaction(&name, "", Level::Committed),
            changed: BTreeSet::new(),
            name,
        }
    }

    /// Connects if it must; false if there is no server to connect to any more.
    pub fn connect(&mut self, settings: &str) -> bool {
        while self.client.is_none() {
            if self.board.takes_nobody() {
                return false;
            }
            let client = self.board.arena.server.try_connect("postgres").ok();
            let ready = client.and_then(|mut client| {
                client.batch_execute(settings).ok()?;
                let process = client.query_one("SELECT pg_backend_pid()", &[]).ok()?;
                let process: i32 = process.get(0);
                self.board
                    .processes
                    .lock()
                    .unwrap()
                    .push(process.try_into().unwrap());
                Some(client)
            });
            match ready {
                // The server may have crashed, and be up again, since we looked.
                Some(_) if self.board.takes_nobody() => return false,
                Some(client) => self.client = Some(client),
                None => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        }
        true
    }

    /// Sends statements and waits for the answer.
    pub fn ask(&mut self, sql: &str) -> (Span, Result<Rows, Failure>) {
        let Some(client) = self.client.as_mut() else {
            let now = self.board.clock.now();
            return (Span { from: now, to: now }, Err(Failure::Lost));
        };
        let from = self.board.clock.now();
        let answer = client.simple_query(sql);
        let to = self.board.clock.now();
        let answer = match answer {
            Ok(messages) => Ok(rows(messages)),
            Err(error) => {
                let code = code(&error);
                // Those of class 57P end the session, and may come when the commit is done already.
                if code == "connection lost" || code.starts_with("57P") {
                    self.client = None;
                    Err(Failure::Lost)
                } else {
                    assert!(
                        EXPECTED.contains(&&*code),
                        "{}: {sql}: {error:?}",
                        self.name
                    );
                    Err(Failure::Refused(code))
                }
            }
        };
        (Span { from, to }, answer)
    }

    /// The same in a transaction; a failure is written down.
    pub fn ask_within(&mut self, sql: &str) -> (Span, Result<Rows, Failure>) {
        let (span, rows) = self.ask(sql);
        if rows.is_err() {
            self.note(span, Act::Nothing);
        }
        (span, rows)
    }

    /// Begins to write down a transaction.
    pub fn open(&mut self, what: &str, level: Level) {
        self.now = transaction(&self.name, what, level);
        self.changed.clear();
    }

    /// Writes down a statement that did something.
    pub fn note(&mut self, span: Span, act: Act) {
        if let Act::Change(state, _) = &act {
            self.changed.insert(*state);
        }
        if matches!(act, Act::Read(_) | Act::Change(..)) {
            self.board.operations.fetch_add(1, Ordering::SeqCst);
        }
        self.now.steps.push(Step { span, act });
    }

    /// Sends a statement that reads, and writes down what it found.
    pub fn read(
        &mut self,
        sql: &str,
        found: impl FnOnce(&Rows) -> Vec<Seen>,
    ) -> Result<Vec<Seen>, Failure> {
        let (span, rows) = self.ask_within(sql);
        let seen = found(&rows?);
        self.note(span, Act::Read(seen.clone()));
        Ok(seen)
    }

    /// Sends a statement that changes a state. It is written down also if it fails: what it wrote must then not
    /// be seen.
    pub fn change(&mut self, sql: &str, state: State, change: Change) -> Result<Rows, Failure> {
        let (span, rows) = self.ask(sql);
        self.note(span, Act::Change(state, change));
        rows
    }

    /// Writes down how the transaction ended.
    pub fn close(&mut self, end: Span, outcome: Outcome) {
        let none = transaction(&self.name, "", Level::Committed);
        let mut ended = std::mem::replace(&mut self.now, none);
        (ended.end, ended.outcome) = (end, outcome);
        self.board.transactions.lock().unwrap().push(ended);
    }

    /// Ends a transaction of one statement, which has been answered.
    pub fn close_alone(&mut self, answer: &Result<(), Failure>) {
        let now = self.board.clock.now();
        let end = self
            .now
            .steps
            .last()
            .map_or(Span { from: now, to: now }, |step| step.span);
        let outcome = match answer {
            Ok(()) => Outcome::Committed,
            Err(Failure::Refused(_)) => Outcome::Aborted,
            Err(Failure::Lost) => Outcome::Unknown,
        };
        self.close(end, outcome);
    }

    /// Ends a block whose statements were all answered well, or not.
    pub fn finish(&mut self, answer: &Result<(), Failure>, commit: bool) {
        let sql = if commit && answer.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        let (end, answered) = self.ask(sql);
        let outcome = match (sql, answered) {
            ("COMMIT", Ok(_)) => Outcome::Committed,
            ("COMMIT", Err(Failure::Lost)) => Outcome::Unknown,
            _ => Outcome::Aborted,
        };
        self.close(end, outcome);
    }
}

fn transaction(name: &str, what: &str, level: Level) -> Transaction {
    Transaction {
        who: format!("{name}{what}"),
        level,
        steps: Vec::new(),
        end: Span { from: 0, to: 0 },
        outcome: Outcome::Aborted,
        wipes: false,
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_string))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}
