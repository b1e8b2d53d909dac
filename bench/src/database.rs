//! A database of its own for a row that counts what tables hold: theirs begin empty, and are gone after.

use crate::Failure;
use crate::recording::{Recording, Session, Step};
use crate::wire::Connection;

/// Name of that database.
const NAME: &str = "state_cache_bench_sessions";
/// The class whose states are kept in all their versions.
pub const CLASS: &str = "sessions";

/// Saves one step. Parameters: key, document, checkpoint type.
pub const SAVE: &str = "SELECT action, version \
                        FROM state_save($1, $2, checkpoint_type => $3, class => 'sessions')";
/// Writes a whole document over the one before. Parameters: run, document.
pub const UPSERT: &str = "INSERT INTO latest VALUES ($1, $2) \
                          ON CONFLICT (run) DO UPDATE SET state = excluded.state";
/// Writes a whole document beside those before. Parameters: run, step, document.
pub const INSERT: &str = "INSERT INTO history VALUES ($1, $2, $3)";

/// How a step is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// By the extension.
    Saved,
    /// As a row that holds the latest document of its run.
    Upserted,
    /// As a row of its own.
    Inserted,
}

/// The database, for as long as a row is measured.
pub struct Database(());

impl Database {
    /// Makes the database with a class that keeps all versions and tables to compare it with, and drops it
    /// when the work is done or has failed.
    pub fn with_fresh<T>(
        connection: &mut Connection,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let drop = format!("DROP DATABASE IF EXISTS {NAME} WITH (FORCE)");
        // An earlier run may have been stopped.
        connection.query(&drop)?;
        connection.query(&format!("CREATE DATABASE {NAME}"))?;
        let database = Database(());
        let outcome = database.furnish().and_then(|()| work(&database));
        connection.query(&drop)?;
        outcome
    }

    fn furnish(&self) -> Result<(), Failure> {
        self.connect()?.query(&format!(
            "CREATE EXTENSION state_cache;
             CREATE EXTENSION pg_walinspect;
             SELECT state_class_define('{CLASS}', keep => 0);
             CREATE TABLE latest (run text PRIMARY KEY, state jsonb NOT NULL);
             CREATE TABLE history (run text, step bigint, state jsonb NOT NULL, PRIMARY KEY (run, step))"
        ))?;
        Ok(())
    }

    /// What it is called.
    pub fn name(&self) -> String {
        NAME.to_owned()
    }

    /// A session in it.
    pub fn connect(&self) -> Result<Connection, Failure> {
        Connection::open_database(NAME)
    }

    /// A session in it with the statements that keep steps.
    pub fn connect_to_keep(&self) -> Result<Connection, Failure> {
        let mut connection = self.connect()?;
        for (name, sql) in [("save", SAVE), ("upsert", UPSERT), ("insert", INSERT)] {
            connection.prepare(name, sql)?;
        }
        Ok(connection)
    }
}

/// Keeps one step, in a transaction of its own.
pub fn keep(
    connection: &mut Connection,
    kept: Kept,
    key: &str,
    step: &Step,
) -> Result<(), Failure> {
    match kept {
        Kept::Saved => connection.execute("save", &[key, &step.state, &step.checkpoint])?,
        Kept::Upserted => connection.execute("upsert", &[key, &step.state])?,
        Kept::Inserted => {
            connection.execute("insert", &[key, &step.number.to_string(), &step.state])?
        }
    };
    Ok(())
}

/// Name of a copy of a session: a recording replayed several times has other keys each time.
pub fn key(session: &Session, copy: usize) -> String {
    format!("{}-{copy}", session.run)
}

/// Keeps all steps of a recording, so many times under different keys.
pub fn replay(
    connection: &mut Connection,
    kept: Kept,
    recording: &Recording,
    copies: usize,
) -> Result<(), Failure> {
    for copy in 0..copies {
        for session in &recording.sessions {
            let key = key(session, copy);
            for step in &session.steps {
                keep(connection, kept, &key, step)?;
            }
        }
    }
    Ok(())
}

/// Fails unless every version that was inserted is also saved, and reads back as the same document.
pub fn check_saved(connection: &mut Connection) -> Result<(), Failure> {
    let wrong: u64 = connection.value(&format!(
        "SELECT count(*) FROM history
         WHERE state_at(run, step, class => '{CLASS}') IS DISTINCT FROM state"
    ))?;
    if wrong > 0 {
        return Err(format!("{wrong} versions do not read back as they were saved").into());
    }
    Ok(())
}
