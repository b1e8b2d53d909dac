//! Replaying a recording on each side, one transaction per step on both, and measuring what it cost.

use std::error::Error;
use std::time::{Duration, Instant};

use postgres::types::{ToSql, Type};
use postgres::{Client, Statement};
use serde_json::Value;

use crate::change::Change;
use crate::trace::Recording;

/// How the changes of a step are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// One `INSERT … ON CONFLICT DO UPDATE` of the whole document per change.
    Plain = 0,
    /// One function of the extension per change, flushed at commit.
    StateCache = 1,
}

/// What one replay of the recording cost.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// Wall-clock time from the first BEGIN to the last COMMIT.
    pub time: Duration,
    /// Bytes of WAL that the server wrote in that time.
    pub wal: u64,
    /// Documents inserted or replaced.
    pub documents: u64,
    /// Rows inserted, updated or deleted in any table.
    pub rows: u64,
    /// Changes that left a document as it was stored and were not written.
    pub skipped: u64,
}

impl Cost {
    /// The median of each figure.
    pub fn median(costs: Vec<Cost>) -> Cost {
        fn middle<T: Ord + Copy + Default>(costs: &[Cost], figure: impl Fn(&Cost) -> T) -> T {
            let mut figures: Vec<T> = costs.iter().map(figure).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        }
        Cost {
            time: middle(&costs, |cost| cost.time),
            wal: middle(&costs, |cost| cost.wal),
            documents: middle(&costs, |cost| cost.documents),
            rows: middle(&costs, |cost| cost.rows),
            skipped: middle(&costs, |cost| cost.skipped),
        }
    }
}

/// The server's own counters, whose differences make a [`Cost`].
struct Counters {
    wal: i64,
    documents: i64,
    rows: i64,
    skipped: i64,
}

/// The versions that are kept; sizes in bytes of binary form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    /// How many there are.
    pub versions: i64,
    /// How many of them can be read.
    pub readable: i64,
    /// What they take.
    pub stored: u64,
    /// What their documents would take.
    pub whole: u64,
    /// What the last documents take.
    pub last: u64,
}

/// A statement of one step with its arguments after the key, made ready outside the measured time.
struct Call {
    statement: Statement,
    arguments: Vec<String>,
}

/// Both sides of a recording, ready to run.
pub struct Replay<'a> {
    client: Client,
    recording: &'a Recording,
    /// Per side, per step, the calls of its transaction.
    calls: [Vec<Vec<Call>>; 2],
}

impl<'a> Replay<'a> {
    /// Makes the plain table and all calls of both sides.
    pub fn new(mut client: Client, recording: &'a Recording) -> Result<Self, Box<dyn Error>> {
        client.batch_execute(
            "CREATE TABLE plain_state (
                key text PRIMARY KEY,
                state jsonb NOT NULL,
                updated_at timestamptz NOT NULL DEFAULT now())",
        )?;
        let statements = Statements::prepare(&mut client)?;
        let mut documents = std::collections::HashMap::new();
        let mut calls = [Vec::new(), Vec::new()];
        for step in &recording.steps {
            let document: &mut Value = documents.entry(step.run.as_str()).or_insert(Value::Null);
            let mut upserts = Vec::new();
            for change in &step.changes {
                change.apply(document);
                upserts.push(Call {
                    statement: statements.upsert.clone(),
                    arguments: vec![document.to_string()],
                });
            }
            calls[Side::Plain as usize].push(upserts);
            calls[Side::StateCache as usize].push(
                step.changes
                    .iter()
                    .map(|change| statements.call(change))
                    .collect(),
            );
        }
        Ok(Replay {
            client,
            recording,
            calls,
        })
    }

    /// The connection that writes.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Replays the recording once, under keys of its own, and says what it cost.
    pub fn round(&mut self, side: Side, round: usize) -> Result<Cost, postgres::Error> {
        let keys: Vec<String> = self
            .recording
            .steps
            .iter()
            .map(|step| key(&step.run, round))
            .collect();
        let before = counters(&mut self.client, side)?;
        let start = Instant::now();
        for (key, calls) in keys.iter().zip(&self.calls[side as usize]) {
            let mut transaction = self.client.transaction()?;
            for call in calls {
                let mut arguments: Vec<&(dyn ToSql + Sync)> = vec![key];
                arguments.extend(
                    call.arguments
                        .iter()
                        .map(|argument| argument as &(dyn ToSql + Sync)),
                );
                transaction.execute(&call.statement, &arguments)?;
            }
            transaction.commit()?;
        }
        let time = start.elapsed();
        let after = counters(&mut self.client, side)?;
        Ok(Cost {
            time,
            wal: after.wal.abs_diff(before.wal),
            documents: after.documents.abs_diff(before.documents),
            rows: after.rows.abs_diff(before.rows),
            skipped: after.skipped.abs_diff(before.skipped),
        })
    }

    /// What is kept of a round, by the history of its runs.
    pub fn kept(&mut self, round: usize) -> Result<Kept, postgres::Error> {
        let mut kept = Kept::default();
        for run in self.recording.last_states().keys() {
            let row = self.client.query_one(
                "SELECT count(*), count(state_at($1, version)), sum(bytes_stored)::bigint, sum(bytes)::bigint,
                    max(bytes) FILTER (WHERE version = state_version($1))
                 FROM state_history($1)",
                &[&key(run, round)],
            )?;
            kept.versions += row.get::<_, i64>(0);
            kept.readable += row.get::<_, i64>(1);
            kept.stored += row.get::<_, i64>(2).unsigned_abs();
            kept.whole += row.get::<_, i64>(3).unsigned_abs();
            kept.last += row.get::<_, i64>(4).unsigned_abs();
        }
        Ok(kept)
    }

    /// Checks that both sides ended a round with the documents that were recorded.
    pub fn verify(&mut self, round: usize) -> Result<(), Box<dyn Error>> {
        for (run, recorded) in self.recording.last_states() {
            let row = self.client.query_one(
                "SELECT state_get($1)::text, (SELECT state::text FROM plain_state WHERE key = $1)",
                &[&key(run, round)],
            )?;
            for (column, name) in ["state_get", "the plain table"].iter().enumerate() {
                let found: Option<String> = row.try_get(column)?;
                if found
                    .map(|text| serde_json::from_str::<Value>(&text))
                    .transpose()?
                    .as_ref()
                    != Some(recorded)
                {
                    return Err(format!("{name} does not hold the recorded state of {run}").into());
                }
            }
        }
        Ok(())
    }
}

/// The key of a run in a round.
fn key(run: &str, round: usize) -> String {
    format!("{run}/{round}")
}

/// One prepared statement per kind of change.
struct Statements {
    upsert: Statement,
    set: Statement,
    update: Statement,
    update_section: Statement,
    append: Statement,
    merge: Statement,
}

impl Statements {
    fn prepare(client: &mut Client) -> Result<Self, postgres::Error> {
        let mut prepare = |sql| {
            client.prepare_typed(sql, &[Type::TEXT, Type::TEXT, Type::TEXT][..arguments(sql)])
        };
        Ok(Statements {
            upsert: prepare(
                "INSERT INTO plain_state (key, state) VALUES ($1, $2::jsonb)
                 ON CONFLICT (key) DO UPDATE SET state = EXCLUDED.state, updated_at = now()",
            )?,
            set: prepare("SELECT state_set($1, $2::jsonb)")?,
            update: prepare("SELECT state_update($1, $2::jsonb)")?,
            update_section: prepare("SELECT state_update_section($1, $2, $3::jsonb)")?,
            append: prepare("SELECT state_append($1, ARRAY[$2], $3::jsonb)")?,
            merge: prepare("SELECT state_merge($1, $2::jsonb)")?,
        })
    }

    fn call(&self, change: &Change) -> Call {
        let (statement, arguments) = match change {
            Change::Set(whole) => (&self.set, vec![whole.to_string()]),
            Change::Update(members) => {
                (&self.update, vec![Value::from(members.clone()).to_string()])
            }
            Change::UpdateSection(section, members) => (
                &self.update_section,
                vec![section.clone(), Value::from(members.clone()).to_string()],
            ),
            Change::Append(key, value) => (&self.append, vec![key.clone(), value.to_string()]),
            Change::Merge(patch) => (&self.merge, vec![patch.to_string()]),
        };
        Call {
            statement: statement.clone(),
            arguments,
        }
    }
}

/// How many arguments a statement takes.
fn arguments(sql: &str) -> usize {
    if sql.contains("$3") { 3 } else { 2 }
}

/// Reads the server's counters for one side.
fn counters(client: &mut Client, side: Side) -> Result<Counters, postgres::Error> {
    // Row counts are published when a transaction ends and otherwise at most once a second.
    client.batch_execute("SELECT pg_stat_force_next_flush()")?;
    let row = match side {
        Side::Plain => client.query_one(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, n_tup_ins + n_tup_upd,
                    n_tup_ins + n_tup_upd + n_tup_del, 0::bigint
             FROM pg_stat_user_tables WHERE relname = 'plain_state'",
            &[],
        )?,
        Side::StateCache => client.query_one(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,
                    (sum(n_tup_ins + n_tup_upd) FILTER (WHERE relname = 'state_snapshot'))::bigint,
                    sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint,
                    (SELECT coalesce(sum(duplicates_skipped), 0)::bigint FROM state_cache_stats WHERE class = 'run')
             FROM pg_stat_user_tables WHERE relname IN ('state_head', 'state_snapshot')",
            &[],
        )?,
    };
    Ok(Counters {
        wal: row.try_get(0)?,
        documents: row.try_get(1)?,
        rows: row.try_get(2)?,
        skipped: row.try_get(3)?,
    })
}
