//! SQL with the extension's schema in it, sent as the proxy in between allows.

use crate::builder::StatementCache;
use crate::{Error, Result};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// A parameter with its type, so that nobody has to ask the server for it.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How statements are written and sent.
pub(crate) struct Statements {
    /// What stands before each name of the extension.
    prefix: String,
    cache: StatementCache,
}

impl Statements {
    pub fn new(schema: Option<&str>, cache: StatementCache) -> Self {
        let quoted = |schema: &str| format!("\"{}\".", schema.replace('"', "\"\""));
        Self {
            prefix: schema.map(quoted).unwrap_or_default(),
            cache,
        }
    }

    /// A statement in which `@` stands before each name of the extension.
    pub fn text(&self, sql: &str) -> String {
        sql.replace('@', &self.prefix)
    }

    /// Runs a statement in which `@` stands before each name of the extension.
    pub async fn query(
        &self,
        client: &ClientWrapper,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>> {
        let text = self.text(sql);
        Ok(match self.cache {
            StatementCache::None => client.query_typed(&text, parameters).await?,
            StatementCache::PerConnection => {
                let types: Vec<Type> = parameters.iter().map(|(_, of)| of.clone()).collect();
                let statement = client.prepare_typed_cached(&text, &types).await?;
                let values: Vec<&(dyn ToSql + Sync)> =
                    parameters.iter().map(|(value, _)| *value).collect();
                client.query(&statement, &values).await?
            }
        })
    }

    /// As [`Statements::query`], of a statement that gives one row.
    pub async fn row(
        &self,
        client: &ClientWrapper,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row> {
        let rows = self.query(client, sql, parameters).await?;
        rows.into_iter().next().ok_or(Error::Closed)
    }
}
