//! Reads in a loop inside the server: no round trip, so what is left is the read itself.

use std::time::Duration;

use crate::document::Document;
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::{Connection, literal};
use crate::{Failure, size};

/// Iterations from which the number that fills a window is estimated.
const TRIAL: u64 = 500;
/// A field that every document has.
const FIELD: &str = "status";
/// A small field further down, that every document has too.
const PATH: &str = "{resourceLimits,maxCredits}";

/// A PL/pgSQL function that runs a statement many times and returns microseconds per iteration. The
/// variables: `k` the key, `v` and `w` jsonb, `b` and `c` bytea, `x` text, `p` a path.
pub fn create_loop(
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
pub fn run_loop(connection: &mut Connection, side: Side, turn: Duration) -> Result<Cost, Failure> {
    let name = match side {
        Side::Cached => "cached",
        Side::Plain => "plain",
        Side::Control => "copying",
    };
    let mut micros =
        |iterations: u64| connection.value::<f64>(&format!("SELECT pg_temp.{name}({iterations})"));
    let estimate = micros(TRIAL)?.max(0.01);
    let iterations = ((turn.as_micros() as f64 / estimate) as u64).max(TRIAL);
    let done = iterations as f64;
    Ok(Cost {
        done,
        seconds: micros(iterations)? * done / 1e6,
        wal: 0.0,
    })
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
    let rounds = plan.alternate([Side::Cached, Side::Plain, Side::Control], |side| {
        run_loop(connection, side, plan.turn)
    })?;
    let size = size(bytes);
    let against = "`SELECT … INTO` by primary key, with a field used".to_owned();
    Ok(vec![
        Comparison {
            measured: format!("`state_get` hit, {size}, server-side loop"),
            against: against.clone(),
            target: Target::AtLeast(target),
            sides: [0, 1],
        }
        .by_time(&rounds),
        Comparison {
            measured: format!("control: a plain memory copy of {size} in that loop"),
            against,
            target: Target::None,
            sides: [2, 1],
        }
        .by_time(&rounds),
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
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        run_loop(connection, side, plan.turn)
    })?;
    Ok(vec![
        Comparison {
            measured: format!("`state_get_path` of one small field, {}", size(bytes)),
            against: "`SELECT state #> …` by primary key".to_owned(),
            target: Target::AtLeast(target),
            sides: [0, 1],
        }
        .by_time(&rounds),
    ])
}

/// `state_set_text` of an unchanged document in a `behind` class, beside a cast of the text to `jsonb`: all of the
/// one call, of which the parser is the greatest part, against the parser alone of the other.
pub fn text(
    connection: &mut Connection,
    plan: &Plan,
    bytes: usize,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    const CLASS: &str = "text";
    crate::behind::define(connection, CLASS, 1)?;
    let document = literal(Document::with_size(connection, bytes)?.text());
    let key = format!("text-{bytes}");
    let prepare = format!("x := {document}; PERFORM state_set_text(k, x, class => '{CLASS}');");
    let read = format!("PERFORM state_set_text(k, x, class => '{CLASS}');");
    create_loop(connection, "cached", &key, &prepare, &read)?;
    create_loop(connection, "plain", &key, &prepare, "v := x::jsonb;")?;
    // The call without the parser.
    let given = format!("v := x::jsonb; PERFORM state_set(k, v, class => '{CLASS}');");
    let call = format!("PERFORM state_set(k, v, class => '{CLASS}');");
    create_loop(
        connection,
        "copying",
        &key,
        &format!("{prepare} {given}"),
        &call,
    )?;
    let rounds = plan.alternate([Side::Cached, Side::Plain, Side::Control], |side| {
        run_loop(connection, side, plan.turn)
    })?;
    let size = size(bytes);
    let against = "`jsonb_in` of the same text".to_owned();
    Ok(vec![
        Comparison {
            measured: format!(
                "`state_set_text` of an unchanged document, {size}, `behind`, server-side loop"
            ),
            against: against.clone(),
            target: Target::AtLeast(target),
            sides: [0, 1],
        }
        .by_rate(&rounds),
        Comparison {
            measured: format!("control: `state_set` of the same as a `jsonb`, {size}"),
            against,
            target: Target::None,
            sides: [2, 1],
        }
        .by_rate(&rounds),
    ])
}
