//! Many states in one transaction, and many changes of each, in a database of their own: what a load costs, and what
//! of the tables is left after updates.

use std::time::Instant;

use crate::Failure;
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::{Connection, literal};
use crate::{SMALL, document::Document, size, wal_position};

/// Name of that database.
const NAME: &str = "state_cache_bench_bulk";
/// The class that is loaded: it keeps the current version only, as the plain table does.
const CLASS: &str = "config";
/// Documents of one load.
const LOAD: usize = 100_000;
/// Rounds at most: each takes seconds.
const ROUNDS: usize = 3;
/// States that are updated again and again, and how often each.
const STATES: usize = 10_000;
const UPDATES: usize = 50;
/// Changes of one transaction there.
const TOGETHER: usize = 100;

/// The database with the extension and a table to compare it with, dropped when the work is done or has failed.
fn with_fresh<T>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let drop = format!("DROP DATABASE IF EXISTS {NAME} WITH (FORCE)");
    connection.query(&drop)?;
    connection.query(&format!("CREATE DATABASE {NAME}"))?;
    let outcome = Connection::open_database(NAME).and_then(|mut inside| {
        inside.query(
            "CREATE EXTENSION state_cache;
             CREATE TABLE plain (key text PRIMARY KEY, state jsonb NOT NULL)",
        )?;
        work(&mut inside)
    });
    connection.query(&drop)?;
    outcome
}

/// Loads by one statement: of documents that the statement makes, and out of a temporary table, as docs tell. The
/// latter holds them compressed, and the plain table takes them as they are.
pub fn load(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = literal(Document::with_size(connection, SMALL)?.text());
    let made = format!(
        "(SELECT 'state-' || n AS key, {document}::jsonb || jsonb_build_object('n', n) AS state
          FROM generate_series(1, {LOAD}) n) documents"
    );
    let plan = Plan {
        rounds: plan.rounds.min(ROUNDS),
        turns: 1,
        ..*plan
    };
    with_fresh(connection, |inside| {
        inside.query(&format!(
            "CREATE TEMPORARY TABLE documents AS SELECT * FROM {made};
             ANALYZE documents"
        ))?;
        let mut rows = Vec::new();
        for (what, documents) in [
            ("", made.as_str()),
            (", out of a temporary table", "documents"),
        ] {
            let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
                inside.query("TRUNCATE plain, state_head, state_snapshot; CHECKPOINT")?;
                let position = wal_position(inside)?;
                let started = Instant::now();
                inside.query(&match side {
                    Side::Cached => format!(
                        "SELECT count(state_set(key, state, class => '{CLASS}')) FROM {documents}"
                    ),
                    _ => format!("INSERT INTO plain SELECT key, state FROM {documents}"),
                })?;
                Ok(Cost {
                    done: LOAD as f64,
                    seconds: started.elapsed().as_secs_f64(),
                    wal: wal_position(inside)? - position,
                })
            })?;
            rows.push(
                Comparison {
                    measured: format!(
                        "load of {LOAD} documents of {} by one statement{what}",
                        size(SMALL)
                    ),
                    against: "`INSERT … SELECT` of the same".to_owned(),
                    target: Target::AtLeast(0.9),
                    sides: [0, 1],
                }
                .by_time(&rounds),
            );
        }
        Ok(rows)
    })
}

/// What is left after each of many states was updated many times, with autovacuum at work.
pub fn churn(connection: &mut Connection) -> Result<Vec<Row>, Failure> {
    let document = literal(Document::with_size(connection, SMALL)?.text());
    connection.query("ALTER SYSTEM SET autovacuum = on")?;
    connection.query("ALTER SYSTEM SET autovacuum_naptime = '1 s'")?;
    connection.query("SELECT pg_reload_conf()")?;
    let outcome = with_fresh(connection, |inside| {
        inside.query(&format!(
            "CREATE PROCEDURE change(statement text) LANGUAGE plpgsql AS $change$
             BEGIN
                 FOR round IN 0 .. {UPDATES} LOOP
                     FOR start IN 1 .. {STATES} BY {TOGETHER} LOOP
                         EXECUTE statement USING start, start + {TOGETHER} - 1, round;
                         COMMIT;
                     END LOOP;
                 END LOOP;
             END $change$"
        ))?;
        let changed = format!("{document}::jsonb || jsonb_build_object('round', $3)");
        let mut change = |statement: String, tables: &str| -> Result<[f64; 2], Failure> {
            let position = wal_position(inside)?;
            inside.query(&format!("CALL change({})", literal(&statement)))?;
            let wal = wal_position(inside)? - position;
            let bytes = inside.value(&format!(
                "SELECT sum(pg_total_relation_size(t)) FROM unnest('{{{tables}}}'::regclass[]) t"
            ))?;
            Ok([wal, bytes])
        };
        let plain = change(
            format!(
                "INSERT INTO plain SELECT 'state-' || n, {changed} FROM generate_series($1, $2) n
                 ON CONFLICT (key) DO UPDATE SET state = excluded.state"
            ),
            "plain",
        )?;
        let cached = change(
            format!(
                "SELECT count(state_set('state-' || n, {changed}, class => '{CLASS}')) FROM generate_series($1, $2) n"
            ),
            "state_head, state_snapshot",
        )?;
        let what = format!(
            "{UPDATES} updates of each of {STATES} states of {}",
            size(SMALL)
        );
        let row = |figure: usize, name: &str| {
            let [cached, plain] = [cached[figure], plain[figure]];
            Row {
                measured: format!("{what}, autovacuum on: {name}"),
                against: "the plain table".to_owned(),
                target: Target::AtMost(1.0),
                unit: crate::report::Unit::Times,
                figures: vec![cached / plain],
                sides: format!("{:.1} against {:.1} MB", cached / 1e6, plain / 1e6),
            }
        };
        Ok(vec![row(0, "WAL"), row(1, "tables and indexes")])
    });
    connection.query("ALTER SYSTEM RESET autovacuum")?;
    connection.query("ALTER SYSTEM RESET autovacuum_naptime")?;
    connection.query("SELECT pg_reload_conf()")?;
    outcome
}
