//! A connection to a database that has the extension.
//!
//! Every query gives its rows as JSON that the server has made, in the order of its columns. So numbers and documents
//! are printed as the server has them, digit for digit, and `--json` prints what a table shows.
//!
//! Queries write `@.` before the name of each object of the extension; its schema takes that place. They have no name
//! on the server, so a proxy that pools transactions can stand in between.
//!
//! What reads does so in a READ ONLY transaction whose search_path is pg_catalog, so that a command that shows
//! something changes nothing, and no object of somebody else takes the place of the server's. What writes runs under
//! the caller's own search_path, which triggers of users may rely upon, and names nothing without its schema.

use super::parameters::{self, Options, Parameters};
use super::tls;
use crate::failure::Failure;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{Client, NoTls, Notification};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::time::Duration;

/// A row: names of columns, and their values as JSON.
#[derive(Debug, Clone)]
pub struct Row {
    /// The row as the server has written it.
    pub json: String,
    columns: Vec<(String, Box<RawValue>)>,
}

struct Columns(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Columns;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    columns.push(entry);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Row {
    /// Reads a JSON object.
    pub fn parse(json: String) -> Result<Self, serde_json::Error> {
        let Columns(columns) = serde_json::from_str(&json)?;
        Ok(Self { json, columns })
    }

    /// Names and values.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns
            .iter()
            .map(|(name, value)| (name.as_str(), value.get()))
    }

    /// A value as JSON; `None` for null, and for a column that is not there.
    pub fn raw(&self, name: &str) -> Option<&str> {
        let found = self.columns.iter().find(|(column, _)| column == name);
        found
            .map(|(_, value)| value.get())
            .filter(|value| *value != "null")
    }

    /// A value as text: a string without its quotes, all else as JSON.
    pub fn text(&self, name: &str) -> Option<String> {
        let raw = self.raw(name)?;
        match raw.starts_with('"') {
            true => serde_json::from_str(raw).ok(),
            false => Some(raw.to_owned()),
        }
    }

    /// A value as a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.raw(name)?.parse().ok()
    }

    /// Whether a value is true.
    pub fn flag(&self, name: &str) -> bool {
        self.raw(name) == Some("true")
    }

    /// A value that is an object.
    pub fn object(&self, name: &str) -> Option<Row> {
        Self::parse(self.raw(name)?.to_owned()).ok()
    }
}

/// The connection.
pub struct Database {
    client: Client,
    parameters: Parameters,
    schema: String,
    /// Whether a transaction that only reads is open.
    reads: bool,
}

impl Database {
    /// Connects, and looks where the extension is.
    pub fn open(options: &Options) -> Result<Self, Failure> {
        Self::connect(parameters::collect(options)?)
    }

    /// One more connection to the same database.
    pub fn another(&self) -> Result<Self, Failure> {
        Self::connect(self.parameters.clone())
    }

    /// What the connection was made with.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Connects with these parameters.
    pub fn connect(parameters: Parameters) -> Result<Self, Failure> {
        let config = parameters::configure(&parameters)?;
        // There is no TLS on a Unix socket, as with libpq.
        let hosts = parameters.get("host").map_or("", String::as_str);
        let local = hosts.split(',').all(|host| host.starts_with('/'))
            && !parameters.contains_key("hostaddr");
        let connected = match local
            || parameters
                .get("sslmode")
                .is_some_and(|mode| mode == "disable")
        {
            true => config.connect(NoTls),
            false => config.connect(tls::connector(&parameters)?),
        };
        let client = connected.map_err(|error| {
            // Whatever the server says at the door is about the connection.
            match Failure::from(error) {
                Failure::Server(said) | Failure::NotPermitted(said) => {
                    Failure::Connection(said.to_string())
                }
                other => other,
            }
        })?;
        let mut database = Self {
            client,
            parameters,
            schema: String::new(),
            reads: false,
        };
        let found = database.one(
            "SELECT pg_catalog.quote_ident(n.nspname) AS schema FROM pg_catalog.pg_extension e
                JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
                WHERE e.extname OPERATOR(pg_catalog.=) 'state_cache'",
            &[],
        )?;
        let found = found.and_then(|row| row.text("schema"));
        database.schema = found.ok_or_else(|| {
            let name = database.parameters.get("dbname").map_or("", String::as_str);
            Failure::NotFound(format!(
                "the database \"{name}\" has no extension state_cache; CREATE EXTENSION state_cache makes it"
            ))
        })?;
        Ok(database)
    }

    /// A statement with the schema of the extension in its place.
    fn complete(&self, sql: &str) -> String {
        sql.replace("@.", &format!("{}.", self.schema))
    }

    /// Gives each row of a query that only reads to `take`, as it comes.
    pub fn each(
        &mut self,
        sql: &str,
        parameters: &[Option<&str>],
        take: impl FnMut(Row) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.reads {
            return self.stream(sql, parameters, take);
        }
        self.begin("READ ONLY")?;
        let outcome = self.stream(sql, parameters, take);
        self.end(outcome)
    }

    /// Begins a transaction that only reads: what is asked until [`Database::end`] sees one state of the database,
    /// if `mode` says so.
    pub fn begin(&mut self, mode: &str) -> Result<(), Failure> {
        self.client.batch_execute(&format!(
            "BEGIN {mode}; SET LOCAL search_path = pg_catalog, pg_temp"
        ))?;
        self.reads = true;
        Ok(())
    }

    /// Ends the transaction, as what was done in it has ended.
    pub fn end<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        self.reads = false;
        match outcome {
            Ok(done) => {
                self.client.batch_execute("COMMIT")?;
                Ok(done)
            }
            Err(failure) => {
                // The first error counts; a connection that is gone needs no ROLLBACK.
                let _ = self.client.batch_execute("ROLLBACK");
                Err(failure)
            }
        }
    }

    /// All rows of a statement that writes.
    pub fn write(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        self.stream(sql, parameters, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    fn stream(
        &mut self,
        sql: &str,
        parameters: &[Option<&str>],
        mut take: impl FnMut(Row) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let sql = self.complete(&format!(
            "SELECT pg_catalog.row_to_json(r)::text FROM (\n{sql}\n) r"
        ));
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = parameters
            .iter()
            .map(|value| (value as &(dyn ToSql + Sync), Type::TEXT))
            .collect();
        let mut rows = self.client.query_typed_raw(&sql, typed)?;
        while let Some(row) = rows.next()? {
            let json: String = row.try_get(0)?;
            take(Row::parse(json).map_err(|error| Failure::File(error.to_string()))?)?;
        }
        Ok(())
    }

    /// All rows of a query that only reads.
    pub fn rows(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        self.each(sql, parameters, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The first row of a query.
    pub fn one(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Option<Row>, Failure> {
        Ok(self.rows(sql, parameters)?.into_iter().next())
    }

    /// Runs statements that give nothing.
    pub fn run(&mut self, sql: &str) -> Result<(), Failure> {
        let sql = self.complete(sql);
        Ok(self.client.batch_execute(&sql)?)
    }

    /// Waits for a notification, for so long at most.
    pub fn hear(&mut self, patience: Duration) -> Result<Option<Notification>, Failure> {
        Ok(self.client.notifications().timeout_iter(patience).next()?)
    }
}
