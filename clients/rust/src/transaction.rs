//! Transactions that are run again when they meet others, and changes that are a transaction each.
//!
//! # What holds
//!
//! A transaction is run again as a whole, from its first read, and only after 40001 or 40P01, from a statement or
//! from COMMIT: the server has kept nothing of it then. After any other error, and where the connection ended during
//! COMMIT so that nobody knows ([`Error::CommitUnknown`]), nothing is run again.
//!
//! What a transaction has changed is forgotten by the near cache after COMMIT has answered, and also where nobody
//! knows: a copy too few is a read, a copy too many would be an old answer to who has just written. What it has read
//! counts as seen.
//!
//! A transaction that is dropped half-way (its future is cancelled) takes its connection out of the pool and closes
//! it: the server rolls back, and nobody else gets a connection with an open transaction.

use crate::cache::{Inner, StateCache};
use crate::change::{
    Change, Checkpoint, Saved, SetOptions, Work, found, interval, json, only, saved,
    while_committing,
};
use crate::statements::Parameter;
use crate::{Error, Result};
use deadpool_postgres::Object;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// How isolated a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    #[default]
    ReadCommitted,
    /// All statements see what was committed before the first.
    RepeatableRead,
    /// As if transactions ran one after the other.
    Serializable,
}

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionOptions {
    /// How isolated it is.
    pub isolation: Isolation,
    /// Whether it opens an explicit batch: what it has read must still be so at COMMIT, else it is run again.
    pub batch: bool,
}

/// A transaction that is open. Clones are the same transaction.
#[derive(Clone)]
pub struct Transaction {
    inner: Arc<Opened>,
}

struct Opened {
    cache: Arc<Inner>,
    /// The connection, until the end.
    connection: Mutex<Option<Object>>,
    noted: StdMutex<Noted>,
}

/// What is to be done when the transaction has ended.
#[derive(Default)]
struct Noted {
    wrote: Vec<(String, String)>,
    saw: Vec<(String, String, i64)>,
    /// The first error of a statement: the server keeps nothing of the transaction, whatever comes next.
    failed: Option<Error>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get_mut().take() {
            // Its transaction is open: no one else may get it.
            drop(Object::take(connection));
        }
    }
}

impl Opened {
    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transaction {
    /// Does something on the connection, and notes its error.
    async fn on(&self, state: (&str, &str), work: Work<'_>) -> Result<Vec<Row>> {
        let connection = self.inner.connection.lock().await;
        let result = match &*connection {
            Some(connection) => {
                work.run(&self.inner.cache.statements, connection, state)
                    .await
            }
            None => return Err(Error::TransactionOver),
        };
        if let Err(error) = &result {
            let mut noted = self.inner.noted();
            noted.failed.get_or_insert_with(|| error.clone());
        }
        result
    }

    async fn change(&self, class: &str, key: &str, change: Change) -> Result<Row> {
        self.wrote(class, key);
        only(self.on((class, key), Work::Change(&change)).await?)
    }

    /// The document with its version, what this transaction has changed included.
    pub async fn get<T: DeserializeOwned>(
        &self,
        class: &str,
        key: &str,
    ) -> Result<Option<(i64, T)>> {
        let query = "SELECT version, state::pg_catalog.text FROM @state_get_if_newer($1, 0, $2)";
        let parameters: [Parameter<'_>; 2] = [(&key, Type::TEXT), (&class, Type::TEXT)];
        let rows = self
            .on((class, key), Work::Ours(query, &parameters))
            .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let version = row.try_get(0)?;
        self.inner
            .noted()
            .saw
            .push((class.to_owned(), key.to_owned(), version));
        Ok(Some((version, serde_json::from_str(row.try_get(1)?)?)))
    }

    /// Replaces the whole document.
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        document: &T,
    ) -> Result<()> {
        self.set_with(class, key, document, SetOptions::default())
            .await
    }

    /// Replaces the whole document.
    pub async fn set_with<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        document: &T,
        options: SetOptions,
    ) -> Result<()> {
        let change = Change::Set(json(document)?, options.expected_version, options.ttl);
        self.change(class, key, change).await.map(drop)
    }

    /// Merges an object into the top level of the document, replacing values whole.
    pub async fn update<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        updates: &T,
    ) -> Result<()> {
        self.change(class, key, Change::Update(json(updates)?))
            .await
            .map(drop)
    }

    /// Merges a patch into the document (RFC 7396).
    pub async fn merge<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        patch: &T,
    ) -> Result<()> {
        self.change(class, key, Change::Merge(json(patch)?))
            .await
            .map(drop)
    }

    /// Appends to the array at a path.
    pub async fn append<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        path: &[&str],
        value: &T,
    ) -> Result<()> {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        self.change(class, key, Change::Append(path, json(value)?))
            .await
            .map(drop)
    }

    /// Deletes a state. Whether there was one.
    pub async fn delete(&self, class: &str, key: &str) -> Result<bool> {
        found(&self.change(class, key, Change::Delete(None)).await?)
    }

    /// Saves a checkpoint.
    pub async fn save<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        document: &T,
        checkpoint: Checkpoint<'_>,
    ) -> Result<Saved> {
        self.wrote(class, key);
        let document = json(document)?;
        let rows = self
            .on((class, key), Work::Save(&document, &checkpoint))
            .await?;
        saved(&only(rows)?)
    }

    /// Any other statement. States that it changes are to be named by [`Transaction::wrote`].
    pub async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        self.on(("", ""), Work::Theirs(sql, parameters)).await
    }

    /// This transaction changes a state by a statement of the application's own.
    pub fn wrote(&self, class: &str, key: &str) {
        self.inner
            .noted()
            .wrote
            .push((class.to_owned(), key.to_owned()));
    }

    async fn begin(cache: Arc<Inner>, options: TransactionOptions) -> Result<Self> {
        let begin = match options.isolation {
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        };
        let connection = cache.connection().await?;
        let transaction = Self {
            inner: Arc::new(Opened {
                cache,
                connection: Mutex::new(Some(connection)),
                noted: StdMutex::default(),
            }),
        };
        let statements = &transaction.inner.cache.statements;
        let begin = match options.batch {
            true => format!(
                "{begin}; {}",
                statements.text("SELECT @state_batch_begin()")
            ),
            false => begin.to_owned(),
        };
        if let Some(connection) = &*transaction.inner.connection.lock().await {
            connection.batch_execute(&begin).await?;
        }
        Ok(transaction)
    }

    /// Ends it. `keep` says whether the work wants it to be kept.
    async fn end(self, keep: bool) -> Result<()> {
        let Some(connection) = self.inner.connection.lock().await.take() else {
            return Err(Error::TransactionOver);
        };
        let failed = self.inner.noted().failed.take();
        if failed.is_some() || !keep {
            match connection.batch_execute("ROLLBACK").await {
                Ok(()) => drop(connection),
                Err(_) => drop(Object::take(connection)),
            }
            return failed.map_or(Ok(()), Err);
        }
        // Whoever drops this future while COMMIT is under way must not leave its connection to others.
        let guard = Guard::new(connection);
        let committed = guard.connection()?.batch_execute("COMMIT").await;
        let refused = committed.err().map(|error| while_committing(error.into()));
        if refused.as_ref().is_none_or(|error| error.code().is_some()) {
            // It has ended either way.
            guard.release();
        }
        if refused
            .as_ref()
            .is_none_or(|error| matches!(error, Error::CommitUnknown(_)))
        {
            self.settle();
        }
        refused.map_or(Ok(()), Err)
    }

    fn settle(&self) {
        let noted = std::mem::take(&mut *self.inner.noted());
        let mut near = self.inner.cache.near();
        for (class, key, version) in &noted.saw {
            // What it has changed itself it saw in a version that is not the last.
            if !noted.wrote.iter().any(|(of, it)| (of, it) == (class, key)) {
                near.saw(class, key, *version);
            }
        }
        for (class, key) in &noted.wrote {
            near.wrote(class, key);
        }
    }
}

/// A connection in a transaction: closed, unless the transaction is known to have ended.
pub(crate) struct Guard(Option<Object>);

impl Guard {
    pub fn new(connection: Object) -> Self {
        Self(Some(connection))
    }

    pub fn connection(&self) -> Result<&Object> {
        self.0.as_ref().ok_or(Error::TransactionOver)
    }

    /// The transaction has ended: the pool gets the connection back.
    pub fn release(mut self) {
        self.0.take();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

impl StateCache {
    /// Runs `work` in a transaction, and again as a whole after 40001 and 40P01, COMMIT included, with growing
    /// pauses and a bound ([`crate::Retries`]). What `work` does elsewhere may thus be done twice.
    ///
    /// ```no_run
    /// # async fn example(cache: state_cache_client::StateCache) -> state_cache_client::Result<()> {
    /// use state_cache_client::SetOptions;
    ///
    /// let count = cache
    ///     .transaction(|tx| async move {
    ///         let (version, count) = tx.get::<u64>("run", "count").await?.unwrap_or((0, 0));
    ///         let options = SetOptions { expected_version: Some(version), ..SetOptions::default() };
    ///         tx.set_with("run", "count", &(count + 1), options).await?;
    ///         Ok::<u64, state_cache_client::Error>(count + 1)
    ///     })
    ///     .await?;
    /// # let _ = count;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transaction<T, E, W>(&self, work: impl FnMut(Transaction) -> W) -> Result<T, E>
    where
        W: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.transaction_with(TransactionOptions::default(), work)
            .await
    }

    /// As [`StateCache::transaction`], begun as `options` say.
    pub async fn transaction_with<T, E, W>(
        &self,
        options: TransactionOptions,
        mut work: impl FnMut(Transaction) -> W,
    ) -> Result<T, E>
    where
        W: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let mut attempt = 1;
        loop {
            let transaction = Transaction::begin(self.inner.clone(), options).await?;
            let result = work(transaction.clone()).await;
            // An error of the server decides, whatever the work has made of it: nothing is kept.
            let error = match (transaction.end(result.is_ok()).await, result) {
                (Err(error), _) if error.is_retryable() => error,
                (Err(_), Err(error)) | (Ok(()), Err(error)) => return Err(error),
                (Err(error), Ok(_)) => return Err(error.into()),
                (Ok(()), Ok(value)) => return Ok(value),
            };
            attempt += 1;
            let Some(pause) = self.inner.retries.pause(attempt) else {
                return Err(error.into());
            };
            tracing::debug!(%error, attempt, "the transaction is run again");
            self.inner.counters.retried.add();
            sleep(pause).await;
        }
    }

    /// Does something that is a transaction of its own, and again after conflicts, unless it said itself in which
    /// version the state must be.
    #[tracing::instrument(level = "debug", skip(self, work))]
    pub(crate) async fn alone(
        &self,
        class: &str,
        key: &str,
        expects: bool,
        work: Work<'_>,
    ) -> Result<Row> {
        let mut attempt = 1;
        loop {
            let connection = self.inner.connection().await?;
            let done = work
                .run(&self.inner.statements, &connection, (class, key))
                .await;
            drop(connection);
            let error = match done.map_err(while_committing) {
                Ok(rows) => {
                    self.inner.near().wrote(class, key);
                    return only(rows);
                }
                Err(error) => error,
            };
            if matches!(error, Error::CommitUnknown(_)) {
                self.inner.near().wrote(class, key);
            }
            attempt += 1;
            match self.inner.retries.pause(attempt) {
                Some(pause) if error.is_retryable() && !expects => {
                    self.inner.counters.retried.add();
                    sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn change(&self, class: &str, key: &str, change: Change) -> Result<Row> {
        self.alone(class, key, change.expects(), Work::Change(&change))
            .await
    }

    /// Replaces the whole document.
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        document: &T,
    ) -> Result<()> {
        self.set_with(class, key, document, SetOptions::default())
            .await
    }

    /// Replaces the whole document. With an expected version, another one is [`Error::Conflict`].
    pub async fn set_with<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        document: &T,
        options: SetOptions,
    ) -> Result<()> {
        let change = Change::Set(json(document)?, options.expected_version, options.ttl);
        self.change(class, key, change).await.map(drop)
    }

    /// Merges an object into the top level of the document, replacing values whole. An absent state counts as `{}`.
    pub async fn update<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        updates: &T,
    ) -> Result<()> {
        self.change(class, key, Change::Update(json(updates)?))
            .await
            .map(drop)
    }

    /// Merges an object into one section of the document.
    pub async fn update_section<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        section: &str,
        updates: &T,
    ) -> Result<()> {
        let change = Change::UpdateSection(section.to_owned(), json(updates)?);
        self.change(class, key, change).await.map(drop)
    }

    /// Merges a patch into the document (RFC 7396).
    pub async fn merge<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        patch: &T,
    ) -> Result<()> {
        self.change(class, key, Change::Merge(json(patch)?))
            .await
            .map(drop)
    }

    /// Appends to the array at a path.
    pub async fn append<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        path: &[&str],
        value: &T,
    ) -> Result<()> {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        self.change(class, key, Change::Append(path, json(value)?))
            .await
            .map(drop)
    }

    /// Deletes a state. Whether there was one.
    pub async fn delete(&self, class: &str, key: &str) -> Result<bool> {
        found(&self.change(class, key, Change::Delete(None)).await?)
    }

    /// Gives a state a new time to live. Whether there is one.
    pub async fn touch(&self, class: &str, key: &str, ttl: Duration) -> Result<bool> {
        found(&self.change(class, key, Change::Touch(ttl)).await?)
    }

    /// Saves a checkpoint: the document as it is now, kept beside the versions before it.
    pub async fn save<T: Serialize + ?Sized>(
        &self,
        class: &str,
        key: &str,
        document: &T,
        checkpoint: Checkpoint<'_>,
    ) -> Result<Saved> {
        let document = json(document)?;
        let expects = checkpoint.expected_version.is_some();
        let row = self
            .alone(class, key, expects, Work::Save(&document, &checkpoint))
            .await?;
        saved(&row)
    }

    /// The functions for runs.
    pub fn run<'a>(&'a self, run_id: &'a str) -> Run<'a> {
        Run {
            cache: self,
            run_id,
        }
    }
}

/// A run, by its id: the functions `state_context_...`. See the page on runs.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    cache: &'a StateCache,
    run_id: &'a str,
}

/// The class that runs are in.
const RUN: &str = "run";

impl Run<'_> {
    async fn call(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Row> {
        // A token that does not own the run any more is 40001 too, and stays so.
        let work = Work::Ours(sql, parameters);
        self.cache.alone(RUN, self.run_id, false, work).await
    }

    /// Creates a root whose variables are the members of `inputs`. Its version.
    pub async fn create<T: Serialize + ?Sized>(&self, inputs: &T) -> Result<i64> {
        let (run, inputs) = (self.run_id, json(inputs)?);
        let sql =
            "SELECT @state_context_create($1, inputs => $2::pg_catalog.jsonb)::pg_catalog.int8";
        self.call(sql, &[(&run, Type::TEXT), (&inputs, Type::TEXT)])
            .await?
            .try_get(0)
            .map_err(Error::from)
    }

    /// Creates a child of this run. Its version.
    pub async fn child<T: Serialize + ?Sized>(
        &self,
        child_run_id: &str,
        inputs: &T,
    ) -> Result<i64> {
        let (run, inputs) = (self.run_id, json(inputs)?);
        let sql =
            "SELECT @state_context_child($1, $2, inputs => $3::pg_catalog.jsonb)::pg_catalog.int8";
        let parameters: [Parameter<'_>; 3] = [
            (&run, Type::TEXT),
            (&child_run_id, Type::TEXT),
            (&inputs, Type::TEXT),
        ];
        let row = self.call(sql, &parameters).await?;
        self.cache.inner.near().wrote(RUN, child_run_id);
        Ok(row.try_get(0)?)
    }

    /// Sets a variable.
    pub async fn set<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<()> {
        let (run, value) = (self.run_id, json(value)?);
        let sql = "SELECT @state_context_set($1, $2, $3::pg_catalog.jsonb)::pg_catalog.text";
        self.call(
            sql,
            &[
                (&run, Type::TEXT),
                (&name, Type::TEXT),
                (&value, Type::TEXT),
            ],
        )
        .await
        .map(drop)
    }

    /// Appends to a variable that is an array.
    pub async fn append<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<()> {
        let (run, value) = (self.run_id, json(value)?);
        let sql = "SELECT @state_context_append($1, $2, $3::pg_catalog.jsonb)::pg_catalog.text";
        self.call(
            sql,
            &[
                (&run, Type::TEXT),
                (&name, Type::TEXT),
                (&value, Type::TEXT),
            ],
        )
        .await
        .map(drop)
    }

    /// Spends of a limit, for instance `credits`. The amount is a decimal, as is what is left.
    pub async fn spend(&self, what: &str, amount: &str) -> Result<String> {
        let run = self.run_id;
        let sql = "SELECT @state_context_spend($1, $2, $3::pg_catalog.numeric)::pg_catalog.text";
        let row = self
            .call(
                sql,
                &[
                    (&run, Type::TEXT),
                    (&what, Type::TEXT),
                    (&amount, Type::TEXT),
                ],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Claims the run for an owner. The token; [`Error::Held`] while another owner has it.
    pub async fn claim(&self, owner: &str, lease: Duration) -> Result<i64> {
        let (run, lease) = (self.run_id, interval(lease));
        let sql = "SELECT @state_context_claim($1, $2, $3::pg_catalog.interval)";
        let row = self
            .call(
                sql,
                &[
                    (&run, Type::TEXT),
                    (&owner, Type::TEXT),
                    (&lease, Type::TEXT),
                ],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Renews a claim.
    pub async fn renew(&self, token: i64, lease: Duration) -> Result<()> {
        let (run, lease) = (self.run_id, interval(lease));
        let sql = "SELECT @state_context_renew($1, $2, $3::pg_catalog.interval)::pg_catalog.text";
        self.call(
            sql,
            &[
                (&run, Type::TEXT),
                (&token, Type::INT8),
                (&lease, Type::TEXT),
            ],
        )
        .await
        .map(drop)
    }

    /// Gives a claim back.
    pub async fn release(&self, token: i64) -> Result<()> {
        let run = self.run_id;
        let sql = "SELECT @state_context_release($1, $2)::pg_catalog.text";
        self.call(sql, &[(&run, Type::TEXT), (&token, Type::INT8)])
            .await
            .map(drop)
    }

    /// Merges a completed child into its parent by a strategy, for instance `merge_objects`.
    pub async fn merge_child(&self, child_run_id: &str, strategy: &str) -> Result<()> {
        let sql = "SELECT pg_catalog.count(*) FROM @state_context_merge($1, $2)";
        self.call(sql, &[(&child_run_id, Type::TEXT), (&strategy, Type::TEXT)])
            .await?;
        self.cache.inner.near().wrote(RUN, child_run_id);
        Ok(())
    }

    /// Completes the run with an outcome, `completed` or `failed`.
    pub async fn complete(&self, outcome: &str) -> Result<()> {
        let run = self.run_id;
        // Exports change the parent and the swarm too, and this client is to read what it has written.
        let sql = "SELECT pg_catalog.array_agg(c.parent), pg_catalog.array_agg(c.swarm) FROM (
                SELECT g ->> 'parentRunId' AS parent, g ->> 'swarmId' AS swarm FROM @state_context_get($1) g) c,
            LATERAL (SELECT pg_catalog.count(*) FROM @state_context_complete($1, $2)) d";
        let row = self
            .call(sql, &[(&run, Type::TEXT), (&outcome, Type::TEXT)])
            .await?;
        let mut near = self.cache.inner.near();
        for (class, at) in [(RUN, 0), ("swarm", 1)] {
            let changed: Option<Vec<Option<String>>> = row.try_get(at)?;
            for key in changed.into_iter().flatten().flatten() {
                near.wrote(class, &key);
            }
        }
        Ok(())
    }
}
