//! What can be done to a state, as SQL.

use crate::statements::{Parameter, Statements};
use crate::{Error, Result};
use deadpool_postgres::ClientWrapper;
use serde::Serialize;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// How a state is set or saved.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetOptions {
    /// The version that the state must be in, 0 for absent; another one is [`Error::Conflict`].
    pub expected_version: Option<i64>,
    /// After so long the state reads as absent.
    pub ttl: Option<Duration>,
}

/// A checkpoint, beside its document.
#[derive(Debug, Clone)]
pub struct Checkpoint<'a> {
    /// `auto`, `manual`, `critical`, ...; `auto`, `intermediate` and `pipeline_complete` may be skipped as
    /// duplicates.
    pub checkpoint_type: &'a str,
    /// The phase of the agent.
    pub agent_phase: Option<&'a str>,
    /// Whether `state_recover` may come back to it.
    pub recovery_point: bool,
    /// The version that the state must be in, 0 for absent.
    pub expected_version: Option<i64>,
}

impl Default for Checkpoint<'_> {
    fn default() -> Self {
        Self {
            checkpoint_type: "auto",
            agent_phase: None,
            recovery_point: false,
            expected_version: None,
        }
    }
}

/// What became of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// `saved`, `unchanged` or `deferred`.
    pub action: String,
    /// The version that holds the document.
    pub version: i64,
}

/// A change of one state, its documents as JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Set(String, Option<i64>, Option<Duration>),
    Update(String),
    UpdateSection(String, String),
    Merge(String),
    Append(Vec<String>, String),
    Delete(Option<i64>),
    Touch(Duration),
}

/// A value as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// An interval as SQL takes it.
pub(crate) fn interval(duration: Duration) -> String {
    format!("{} microseconds", duration.as_micros())
}

impl Change {
    /// Bytes of its documents.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Set(document, ..) | Self::Update(document) | Self::Merge(document) => {
                document.len()
            }
            Self::UpdateSection(section, document) => section.len() + document.len(),
            Self::Append(path, document) => {
                path.iter().map(String::len).sum::<usize>() + document.len()
            }
            Self::Delete(_) | Self::Touch(_) => 0,
        }
    }

    /// Whether it says which version the state must be in: then a conflict is an answer, and no reason to try again.
    pub fn expects(&self) -> bool {
        matches!(self, Self::Set(_, Some(_), _) | Self::Delete(Some(_)))
    }

    /// Makes the change.
    pub async fn run(
        &self,
        statements: &Statements,
        client: &ClientWrapper,
        class: &str,
        key: &str,
    ) -> Result<Row> {
        let (class, key) = ((&class as _, Type::TEXT), (&key as _, Type::TEXT));
        match self {
            Self::Set(document, expected, ttl) => {
                let ttl = ttl.map(interval);
                let parameters: [Parameter<'_>; 5] = [
                    key,
                    (document, Type::TEXT),
                    (expected, Type::INT8),
                    (&ttl, Type::TEXT),
                    class,
                ];
                let query = "SELECT @state_set_text($1, $2, $3, $4::pg_catalog.interval,
                    class => $5)::pg_catalog.text";
                statements.row(client, query, &parameters).await
            }
            Self::Update(updates) => {
                let query = "SELECT @state_update($1, $2::pg_catalog.jsonb, $3)::pg_catalog.text";
                statements
                    .row(client, query, &[key, (updates, Type::TEXT), class])
                    .await
            }
            Self::UpdateSection(section, updates) => {
                let query = "SELECT @state_update_section($1, $2, $3::pg_catalog.jsonb, $4)::pg_catalog.text";
                let parameters: [Parameter<'_>; 4] =
                    [key, (section, Type::TEXT), (updates, Type::TEXT), class];
                statements.row(client, query, &parameters).await
            }
            Self::Merge(patch) => {
                let query = "SELECT @state_merge($1, $2::pg_catalog.jsonb, $3)::pg_catalog.text";
                statements
                    .row(client, query, &[key, (patch, Type::TEXT), class])
                    .await
            }
            Self::Append(path, value) => {
                let query =
                    "SELECT @state_append($1, $2, $3::pg_catalog.jsonb, $4)::pg_catalog.text";
                let parameters: [Parameter<'_>; 4] =
                    [key, (path, Type::TEXT_ARRAY), (value, Type::TEXT), class];
                statements.row(client, query, &parameters).await
            }
            Self::Delete(expected) => {
                let query = "SELECT @state_delete($1, $2, $3)::pg_catalog.text";
                statements
                    .row(client, query, &[key, (expected, Type::INT8), class])
                    .await
            }
            Self::Touch(ttl) => {
                let ttl = interval(*ttl);
                let query = "SELECT @state_touch($1, $2::pg_catalog.interval, $3)::pg_catalog.text";
                statements
                    .row(client, query, &[key, (&ttl, Type::TEXT), class])
                    .await
            }
        }
    }
}

/// Whether a change that answers with a boolean has found its state.
pub(crate) fn found(row: &Row) -> Result<bool> {
    let answer: &str = row.try_get(0)?;
    Ok(answer == "true")
}

/// What is done on a connection. A value and no closure: a future that borrows from its caller's arguments is `Send`
/// only where the compiler sees all of its types.
pub(crate) enum Work<'a> {
    /// A change of a state.
    Change(&'a Change),
    /// A checkpoint of a document.
    Save(&'a str, &'a Checkpoint<'a>),
    /// A statement of the client, `@` before each name of the extension.
    Ours(&'a str, &'a [Parameter<'a>]),
    /// A statement of the application.
    Theirs(&'a str, &'a [Parameter<'a>]),
}

impl Work<'_> {
    /// Does it, to a state if it is about one.
    pub async fn run(
        &self,
        statements: &Statements,
        client: &ClientWrapper,
        (class, key): (&str, &str),
    ) -> Result<Vec<Row>> {
        match self {
            Self::Change(change) => Ok(vec![change.run(statements, client, class, key).await?]),
            Self::Save(document, checkpoint) => {
                let query =
                    "SELECT action, version FROM @state_save_text($1, $2, checkpoint_type => $3,
                    agent_phase => $4, recovery_point => $5, expected_version => $6, class => $7)";
                let parameters: [Parameter<'_>; 7] = [
                    (&key, Type::TEXT),
                    (document, Type::TEXT),
                    (&checkpoint.checkpoint_type, Type::TEXT),
                    (&checkpoint.agent_phase, Type::TEXT),
                    (&checkpoint.recovery_point, Type::BOOL),
                    (&checkpoint.expected_version, Type::INT8),
                    (&class, Type::TEXT),
                ];
                statements.query(client, query, &parameters).await
            }
            Self::Ours(sql, parameters) => statements.query(client, sql, parameters).await,
            Self::Theirs(sql, parameters) => Ok(client.query_typed(sql, parameters).await?),
        }
    }
}

/// The only row.
pub(crate) fn only(rows: Vec<Row>) -> Result<Row> {
    rows.into_iter().next().ok_or(Error::Closed)
}

/// What became of a checkpoint.
pub(crate) fn saved(row: &Row) -> Result<Saved> {
    Ok(Saved {
        action: row.try_get(0)?,
        version: row.try_get::<_, Option<i64>>(1)?.unwrap_or(0),
    })
}

/// What the end of a connection means while a statement that commits by itself is under way.
pub(crate) fn while_committing(error: Error) -> Error {
    match error {
        Error::Connection(error) => Error::CommitUnknown(error),
        other => other,
    }
}
