//! Short ways to say something in SQL.

use postgres::{Client, SimpleQueryMessage};

/// The SQLSTATE of an error, "connection lost" where the server was gone.
pub fn code(error: &postgres::Error) -> String {
    error.code().map_or_else(
        || "connection lost".into(),
        |state| state.code().to_string(),
    )
}

/// What the tests ask of a session. Statements go by the simple protocol: several in one string are one
/// transaction, values come as text.
pub trait Sql {
    /// Runs statements that must succeed.
    fn run(&mut self, sql: &str);
    /// Runs statements that must fail, and gives the SQLSTATE.
    fn error(&mut self, sql: &str) -> String;
    /// All rows of a query, a NULL as "NULL".
    fn rows(&mut self, sql: &str) -> Vec<Vec<String>>;
    /// The one value that a query gives, a NULL as "NULL".
    fn text(&mut self, sql: &str) -> String;
    /// The one number that a query gives.
    fn number(&mut self, sql: &str) -> i64;
    /// The one truth that a query gives.
    fn flag(&mut self, sql: &str) -> bool;
    /// A cursor of now.
    fn cursor(&mut self) -> String;
    /// A counter of this database, by its column in `state_cache_stats`.
    fn counter(&mut self, column: &str) -> i64;
    /// The process that serves this session.
    fn pid(&mut self) -> u32;
}

impl Sql for Client {
    fn run(&mut self, sql: &str) {
        self.batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn error(&mut self, sql: &str) -> String {
        match self.batch_execute(sql) {
            Ok(()) => panic!("{sql}: did not fail"),
            Err(error) => {
                // The server tells of an error before it undoes what failed, and answers the next thing
                // after that. It may also be gone.
                let _ = self.batch_execute("");
                code(&error)
            }
        }
    }

    fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let messages = self
            .simple_query(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).unwrap_or("NULL").to_string())
                    .collect(),
            ),
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    fn text(&mut self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert!(
            rows.len() == 1 && rows[0].len() == 1,
            "{sql}: not one value but {rows:?}"
        );
        rows[0][0].clone()
    }

    fn number(&mut self, sql: &str) -> i64 {
        let text = self.text(sql);
        text.parse()
            .unwrap_or_else(|_| panic!("{sql}: no number: {text}"))
    }

    fn flag(&mut self, sql: &str) -> bool {
        match self.text(sql).as_str() {
            "t" => true,
            "f" => false,
            other => panic!("{sql}: neither true nor false: {other}"),
        }
    }

    fn cursor(&mut self) -> String {
        self.text("SELECT cursor FROM state_cursor()")
    }

    fn counter(&mut self, column: &str) -> i64 {
        self.number(&format!(
            "SELECT {column} FROM state_cache_stats WHERE class IS NULL"
        ))
    }

    fn pid(&mut self) -> u32 {
        self.number("SELECT pg_backend_pid()").try_into().unwrap()
    }
}
