//! Reads in a loop inside the server: no round trip, so what is left is the read itself.

use std::time::Duration;

use crate::Failure;
use crate::document::Document;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Plan, Round, Side, each};
use crate::wire::{Connection, literal};

/// Iterations from which the number that fills a window is estimated.
const TRIAL: u64 = 500;
/// A field that every document has.
const FIELD: &str = "status";
/// A small field further down, that every document has too.
const PATH: &str = "{resourceLimits,maxCredits}";

/// A PL/pgSQL function that runs a statement many times and returns microseconds per iteration. The
/// variables: `k` the key, `v` and `w` jsonb, `b` and `c` bytea, `x` text, `p` a path.
fn create_loop(
    connection: &mut Connection,
    name: &str,
    key: &str,
    prepare: &str,
    body: &str,
) -> Result<(), Failure> {
    connection.query(&format!(
        "CREATE OR REPLACE FUNCTION pg_temp.{name}(iterations bigint) RETURNS double precision
         LANGUAGE plpgsql AS $loop$
         DECLARE
             k text := {}; p text[] := {};
             v jsonb; w jsonb; b bytea; c bytea; x text; started timestamptz;
         BEGIN
             {prepare}
             started := clock_timestamp();
             FOR i IN 1 .. iterations LOOP
                 {body}
             END LOOP;
             RETURN extract(epoch FROM clock_timestamp() - started) * 1e6 / iterations;
         END $loop$",
        literal(key),
        literal(PATH)
    ))?;
    Ok(())
}

/// Runs a loop for about as long as asked for.
fn run_loop(connection: &mut Connection, name: &str, window: Duration) -> Result<f64, Failure> {
    let mut micros =
        |iterations: u64| connection.value::<f64>(&format!("SELECT pg_temp.{name}({iterations})"));
    let estimate = micros(TRIAL)?.max(0.01);
    micros(((window.as_micros() as f64 / estimate) as u64).max(TRIAL))
}

/// Stores a document under a key of its size, on both sides.
fn store(connection: &mut Connection, bytes: usize) -> Result<String, Failure> {
    let document = literal(Document::with_size(connection, bytes)?.text());
    let key = format!("loop-{bytes}");
    connection.query(&format!(
        "INSERT INTO plain VALUES ('{key}', {document})
         ON CONFLICT (key) DO UPDATE SET state = excluded.state"
    ))?;
    connection.query(&format!("SELECT state_set('{key}', {document})"))?;
    Ok(key)
}

fn measure(connection: &mut Connection, plan: &Plan) -> Result<Vec<Round<f64>>, Failure> {
    plan.alternate(|side| {
        let name = match side {
            Side::Cached => "cached",
            Side::Plain => "plain",
        };
        run_loop(connection, name, plan.window)
    })
}

fn row(measured: String, against: String, target: Target, plain: &[f64], cached: &[f64]) -> Row {
    Row {
        measured,
        against,
        target,
        unit: Unit::Times,
        figures: plain
            .iter()
            .zip(cached)
            .map(|(plain, cached)| plain / cached)
            .collect(),
        sides: format!("{:.2} against {:.2} µs", median(cached), median(plain)),
    }
}

/// `state_get` of a document of so many bytes, with a field of it used; and, as a control, the same loop
/// with a plain copy of as many bytes in place of `state_get`.
pub fn whole(
    connection: &mut Connection,
    plan: &Plan,
    bytes: usize,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    let key = store(connection, bytes)?;
    let field = format!("x := v ->> '{FIELD}';");
    create_loop(
        connection,
        "cached",
        &key,
        "",
        &format!("v := state_get(k); {field}"),
    )?;
    create_loop(
        connection,
        "plain",
        &key,
        "",
        &format!("SELECT state INTO v FROM plain WHERE key = k; {field}"),
    )?;
    // A concatenation with nothing allocates and copies, and does nothing else. The header of a varlena
    // counts as part of the size on both sides.
    create_loop(
        connection,
        "copying",
        &key,
        &format!("v := state_get(k); c := convert_to(repeat('x', {bytes} - 4), 'UTF8');"),
        &format!("b := c || ''::bytea; {field}"),
    )?;
    let mut copying = Vec::new();
    let rounds = plan.alternate(|side| {
        if side == Side::Cached {
            copying.push(run_loop(connection, "copying", plan.window)?);
            run_loop(connection, "cached", plan.window)
        } else {
            run_loop(connection, "plain", plan.window)
        }
    })?;
    // The round that warms up is not counted.
    copying.remove(0);
    let size = format!("{} KB", bytes / 1024);
    let against = "`SELECT … INTO` by primary key, with a field used".to_owned();
    let plain = each(&rounds, |round| round.plain);
    Ok(vec![
        row(
            format!("`state_get` hit, {size}, server-side loop"),
            against.clone(),
            Target::AtLeast(target),
            &plain,
            &each(&rounds, |round| round.cached),
        ),
        row(
            format!("control: a plain memory copy of {size} in that loop"),
            against,
            Target::None,
            &plain,
            &copying,
        ),
    ])
}

/// `state_get_path` of one small field of a document of so many bytes.
pub fn path(
    connection: &mut Connection,
    plan: &Plan,
    bytes: usize,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    let key = store(connection, bytes)?;
    create_loop(connection, "cached", &key, "", "w := state_get_path(k, p);")?;
    create_loop(
        connection,
        "plain",
        &key,
        "",
        "SELECT state #> p INTO w FROM plain WHERE key = k;",
    )?;
    let rounds = measure(connection, plan)?;
    Ok(vec![row(
        format!("`state_get_path` of one small field, {} KB", bytes / 1024),
        "`SELECT state #> …` by primary key".to_owned(),
        Target::AtLeast(target),
        &each(&rounds, |round| round.plain),
        &each(&rounds, |round| round.cached),
    )])
}
