//! `tail`: what changes, as it changes.
//!
//! As every subscriber (docs/subscribers.md), in this order: LISTEN; `state_cursor()`, whose `seq` says which
//! messages the catch-up covers; `state_changes()` since the cursor before, if there is one; then messages. A message
//! whose number is not the next one, or a connection that was lost and made anew, leads back to the catch-up, so
//! nothing is missed in silence. A change may be told twice.

use crate::connect::{Database, Row};
use crate::failure::Failure;
use crate::output::{Output, Paint, clean};
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only changes of this class
    #[arg(short, long)]
    pub class: Option<String>,
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only this: set, delete or invalidate
    #[arg(long)]
    pub op: Option<String>,
    /// First what has changed since this cursor, or with "all" every state
    #[arg(long, value_name = "CURSOR")]
    pub since: Option<String>,
    /// End after the catch-up; the last line has the next cursor
    #[arg(long)]
    pub once: bool,
    /// End after so many changes
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<u64>,
    /// Show the documents too
    #[arg(long)]
    pub documents: bool,
}

/// A message, as docs/reference/messages.md has it.
#[derive(Deserialize)]
struct Message {
    class: Option<String>,
    op: String,
    #[serde(default)]
    changes: Vec<Change>,
    pattern: Option<String>,
    seq: Option<i64>,
    epoch: Option<String>,
}

#[derive(Deserialize)]
struct Change {
    key: String,
    version: Option<i64>,
}

/// How long one wait for messages is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the loop ends.
enum End {
    Enough,
}

/// A change that is told.
pub struct Told<'a> {
    /// The class; `None`: all classes.
    pub class: Option<&'a str>,
    /// The key, or a pattern of keys.
    pub key: &'a str,
    /// The version that the state has now.
    pub version: Option<i64>,
    /// What happened: set, delete or invalidate.
    pub op: &'a str,
    /// The document, where it was asked for.
    pub state: Option<&'a str>,
}

/// Who is told of changes.
pub trait Listener {
    /// Nothing that is committed from now on is missed.
    fn ready(&mut self) {}
    /// Messages cannot be heard until [`Listener::ready`] is called again.
    fn lost(&mut self, why: &str);
    /// A change.
    fn change(&mut self, told: &Told<'_>) -> Result<(), Failure>;
    /// The catch-up ends at this cursor, and nothing comes behind.
    fn end(&mut self, cursor: &str) -> Result<(), Failure>;
}

struct Tail<'a> {
    arguments: &'a Arguments,
    listener: &'a mut dyn Listener,
    /// Changes that were told.
    told: u64,
    /// The cursor that the next catch-up begins with.
    cursor: Option<String>,
    /// Epoch and number of the last message that is covered.
    position: (Option<String>, i64),
}

/// Prints changes until it is told to end.
pub fn run(
    arguments: &Arguments,
    database: Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    follow(arguments, database, &mut Printer { output })
}

/// Tells changes until there were enough.
pub fn follow(
    arguments: &Arguments,
    database: Database,
    listener: &mut dyn Listener,
) -> Result<ExitCode, Failure> {
    let mut tail = Tail {
        arguments,
        listener,
        told: 0,
        cursor: arguments.since.clone(),
        position: (None, 0),
    };
    let mut database = database;
    loop {
        let outcome = tail.follow(&mut database);
        let lost = match outcome {
            Ok(End::Enough) => return Ok(ExitCode::SUCCESS),
            Err(Failure::Connection(lost)) if tail.cursor.is_some() && !arguments.once => lost,
            Err(failure) => return Err(failure),
        };
        tail.listener.lost(&lost);
        database = loop {
            std::thread::sleep(Duration::from_secs(1));
            match database.another() {
                Ok(database) => break database,
                Err(Failure::Connection(_)) => {}
                Err(failure) => return Err(failure),
            }
        };
    }
}

impl Tail<'_> {
    fn follow(&mut self, database: &mut Database) -> Result<End, Failure> {
        let channels = database.rows(
            "SELECT quote_ident(channel) AS channel FROM @.state_class UNION SELECT 'cache_invalidate'
                UNION SELECT 'state_updated'",
            &[],
        )?;
        let listen = |row: &Row| {
            row.text("channel")
                .map(|channel| format!("LISTEN {channel};"))
        };
        database.run(&channels.iter().filter_map(listen).collect::<String>())?;
        if let Some(End::Enough) = self.catch_up(database)? {
            return Ok(End::Enough);
        }
        if self.arguments.once {
            return Ok(End::Enough);
        }
        self.listener.ready();
        loop {
            let Some(heard) = database.hear(PATIENCE)? else {
                // Also proves that the connection is alive.
                self.note_cursor(database)?;
                continue;
            };
            // Others may use the channel too: what cannot be read is none of ours.
            let Ok(message) = serde_json::from_str::<Message>(heard.payload()) else {
                continue;
            };
            match self.place(&message) {
                Place::Covered => continue,
                Place::Next => {}
                Place::Gap => {
                    eprintln!("state-cache: messages were missed; catching up");
                    if let Some(End::Enough) = self.catch_up(database)? {
                        return Ok(End::Enough);
                    }
                    continue;
                }
            }
            if let Some(End::Enough) = self.tell(&message, database)? {
                return Ok(End::Enough);
            }
        }
    }

    /// Where a message stands; notes it as the last one if it is the next.
    fn place(&mut self, message: &Message) -> Place {
        let (Some(seq), Some(epoch)) = (message.seq, &message.epoch) else {
            // Without preloading there are no numbers.
            return Place::Next;
        };
        if self.position.0.as_ref() != Some(epoch) {
            return Place::Gap;
        }
        match seq - self.position.1 {
            1 => {
                self.position.1 = seq;
                Place::Next
            }
            ahead if ahead <= 0 => Place::Covered,
            _ => Place::Gap,
        }
    }

    /// Moves cursor and position to now without telling anything: all messages up to here were heard.
    fn note_cursor(&mut self, database: &mut Database) -> Result<(), Failure> {
        let row = database.one("SELECT * FROM @.state_cursor()", &[])?;
        if let Some(row) = row {
            let seq = row.number("seq").unwrap_or(0.0) as i64;
            // A cursor beyond what was heard would hide what is on its way.
            if row.text("epoch") == self.position.0 && seq <= self.position.1 {
                self.cursor = row.text("cursor");
            }
        }
        Ok(())
    }

    fn catch_up(&mut self, database: &mut Database) -> Result<Option<End>, Failure> {
        let now = database
            .one("SELECT * FROM @.state_cursor()", &[])?
            .ok_or_else(|| Failure::File("state_cursor() gave nothing".to_owned()))?;
        self.position = (now.text("epoch"), now.number("seq").unwrap_or(0.0) as i64);
        let since = match self.cursor.take() {
            None => {
                self.cursor = now.text("cursor");
                return Ok(None);
            }
            Some(all) if all == "all" => None,
            Some(cursor) => Some(cursor),
        };
        let sql = "SELECT c.*, CASE WHEN $2::boolean AND c.op = 'set' AND c.key <> '*'
                THEN @.state_get(c.key, c.class) END AS state FROM @.state_changes($1) c";
        let documents = self.arguments.documents.to_string();
        let mut enough = None;
        let (mut end, mut heard) = (None, Vec::new());
        database.each(sql, &[since.as_deref(), Some(&documents)], |row| {
            match row.text("op").as_deref() {
                Some("end") => end = row.text("cursor"),
                _ => heard.push(row),
            }
            Ok(())
        })?;
        for row in heard {
            let (class, key) = (row.text("class"), row.text("key").unwrap_or_default());
            let version = row.number("version").map(|version| version as i64);
            let op = row.text("op").unwrap_or_default();
            if self.tell_one(class.as_deref(), &key, version, &op, row.raw("state"))? {
                enough = Some(End::Enough);
                break;
            }
        }
        self.cursor = end;
        if self.arguments.once {
            let cursor = self.cursor.clone().unwrap_or_default();
            self.listener.end(&cursor)?;
        }
        Ok(enough)
    }

    fn tell(&mut self, message: &Message, database: &mut Database) -> Result<Option<End>, Failure> {
        let class = message.class.as_deref();
        if message.op == "invalidate" {
            let pattern = message.pattern.as_deref().unwrap_or("*");
            let enough = self.tell_one(class, pattern, None, "invalidate", None)?;
            return Ok(enough.then_some(End::Enough));
        }
        let op = if message.op == "delete" {
            "delete"
        } else {
            "set"
        };
        for change in &message.changes {
            let mut state = None;
            if self.arguments.documents && op == "set" && self.wanted(class, &change.key, op) {
                let row = database.one(
                    "SELECT @.state_get($1, $2) AS state",
                    &[Some(&change.key), class],
                )?;
                state = row.and_then(|row| row.raw("state").map(str::to_owned));
            }
            if self.tell_one(class, &change.key, change.version, op, state.as_deref())? {
                return Ok(Some(End::Enough));
            }
        }
        Ok(None)
    }

    fn wanted(&self, class: Option<&str>, key: &str, op: &str) -> bool {
        let Arguments {
            class: own,
            prefix,
            op: only,
            ..
        } = self.arguments;
        // What concerns all classes, or keys by a pattern, concerns those that were asked for.
        let all = class.is_none() || op == "invalidate";
        own.as_deref()
            .is_none_or(|own| class.is_none_or(|class| class == own))
            && prefix
                .as_deref()
                .is_none_or(|prefix| all || key.starts_with(prefix))
            && only.as_deref().is_none_or(|only| only == op)
    }

    /// Tells a change if it is wanted; whether there were enough now.
    fn tell_one(
        &mut self,
        class: Option<&str>,
        key: &str,
        version: Option<i64>,
        op: &str,
        state: Option<&str>,
    ) -> Result<bool, Failure> {
        if !self.wanted(class, key, op) {
            return Ok(false);
        }
        self.listener.change(&Told {
            class,
            key,
            version,
            op,
            state,
        })?;
        self.told += 1;
        Ok(self.arguments.count.is_some_and(|count| self.told >= count))
    }
}

/// Prints what is told.
struct Printer<'a> {
    output: &'a Output,
}

impl Listener for Printer<'_> {
    fn lost(&mut self, why: &str) {
        eprintln!("state-cache: {}; connecting again", clean(why));
    }

    fn end(&mut self, cursor: &str) -> Result<(), Failure> {
        match self.output.json {
            true => self
                .output
                .line(&json!({"op": "end", "cursor": cursor}).to_string()),
            false => self
                .output
                .line(&self.output.paint(Paint::Dim, &format!("cursor {cursor}"))),
        }
    }

    fn change(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        let Told {
            class,
            key,
            version,
            op,
            state,
        } = *told;
        if self.output.json {
            let told =
                json!({"op": op, "class": class, "key": key, "version": version}).to_string();
            match state {
                None => self.output.line(&told)?,
                Some(state) => {
                    let open = told.trim_end_matches('}');
                    self.output.line(&format!("{open},\"state\":{state}}}"))?;
                }
            }
        } else {
            let paint = match op {
                "set" => Paint::Green,
                "delete" => Paint::Red,
                _ => Paint::Yellow,
            };
            let op = self.output.paint(paint, &format!("{op:<10}"));
            let version = version
                .map(|version| format!(" v{version}"))
                .unwrap_or_default();
            let name = format!("{} {}", clean(class.unwrap_or("*")), clean(key));
            let state = state
                .map(|state| format!("  {}", clean(state)))
                .unwrap_or_default();
            self.output.line(&format!("{op} {name}{version}{state}"))?;
        }
        Ok(())
    }
}

/// Where a message stands among the others.
enum Place {
    /// It was heard before, or the catch-up has told what it says.
    Covered,
    /// It is the next one.
    Next,
    /// Others before it were missed.
    Gap,
}
