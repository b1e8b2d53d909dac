//! Many changes of one state in one transaction, by one client.

use std::time::Instant;

use crate::document::Document;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Comparison, Cost, Plan, Side, each};
use crate::wire::{Connection, literal};
use crate::{Failure, MIDDLE, UPSERT, size, tidy, wal_position};

/// Changes in one transaction.
const UPDATES: u64 = 20;
/// Transactions that a side makes before it is another's turn.
const TRANSACTIONS: u64 = 5;
/// Key of the state that is changed.
const KEY: &str = "updated";

/// Both sides over the wire, a round trip for each statement; and, as a control, as many round trips that do
/// nothing with one upsert of what comes out of the changes, which no batch can do without.
fn over_the_wire(
    connection: &mut Connection,
    side: Side,
    step: &mut u64,
    document: &Document,
) -> Result<(), Failure> {
    let statement = match side {
        Side::Cached => "cached",
        Side::Plain => "plain",
        Side::Control => "nothing",
    };
    connection.execute("begin", &[])?;
    for _ in 0..UPDATES {
        *step += 1;
        let change = format!(
            "{{\"checkpoint\":\"step-{step:010}\",\"intermediate\":{{\"lastTool\":\"search\",\"attempts\":{},\
                \"output\":\"{step:04} of the records match, the others need a review by the owner of the \
                account\"}}}}",
            *step % 7
        );
        connection.execute(statement, &[KEY, &change])?;
    }
    if side == Side::Control {
        let mut whole = String::new();
        document.revise(&mut whole, *step);
        connection.execute("upsert", &[KEY, &whole])?;
    }
    connection.execute("commit", &[])?;
    Ok(())
}

/// Both sides in a PL/pgSQL function: one round trip for the transaction.
fn inside(connection: &mut Connection, side: Side, step: &mut u64) -> Result<(), Failure> {
    let function = if side == Side::Cached {
        "cached"
    } else {
        "plain"
    };
    *step += UPDATES;
    connection.query(&format!("SELECT pg_temp.updates_{function}({step})"))?;
    Ok(())
}

/// A function that makes all changes of one transaction.
fn create_function(
    connection: &mut Connection,
    name: &str,
    statement: &str,
) -> Result<(), Failure> {
    connection.query(&format!(
        r#"CREATE FUNCTION pg_temp.updates_{name}(last bigint) RETURNS void LANGUAGE plpgsql AS $loop$
           DECLARE
               k text := '{KEY}'; change jsonb;
           BEGIN
               FOR step IN last - {UPDATES} + 1 .. last LOOP
                   change := jsonb_build_object('checkpoint', 'step-' || step, 'intermediate',
                       jsonb_build_object('lastTool', 'search', 'attempts', step % 7, 'output',
                           step || ' of the records match, the others need a review by the owner of the account'));
                   {statement};
               END LOOP;
           END $loop$"#
    ))?;
    Ok(())
}

/// Runs one side's turn.
fn turn(
    connection: &mut Connection,
    mut transaction: impl FnMut(&mut Connection) -> Result<(), Failure>,
) -> Result<Cost, Failure> {
    tidy(connection)?;
    let position = wal_position(connection)?;
    let started = Instant::now();
    for _ in 0..TRANSACTIONS {
        transaction(connection)?;
    }
    Ok(Cost {
        done: TRANSACTIONS as f64,
        seconds: started.elapsed().as_secs_f64(),
        wal: wal_position(connection)? - position,
    })
}

fn prepare(connection: &mut Connection, document: &Document) -> Result<(), Failure> {
    let text = literal(document.text());
    connection.query(&format!(
        "INSERT INTO plain VALUES ('{KEY}', {text}) ON CONFLICT (key) DO NOTHING;
         SELECT state_set('{KEY}', {text})"
    ))?;
    for (name, sql) in [
        ("begin", "BEGIN"),
        ("commit", "COMMIT"),
        ("cached", "SELECT state_update($1, $2)"),
        (
            "plain",
            "UPDATE plain SET state = state || $2 WHERE key = $1",
        ),
        ("nothing", "SELECT $1::text, $2::jsonb"),
        ("upsert", UPSERT),
    ] {
        connection.prepare(name, sql)?;
    }
    create_function(connection, "cached", "PERFORM state_update(k, change)")?;
    create_function(
        connection,
        "plain",
        "UPDATE plain SET state = state || change WHERE key = k",
    )
}

/// Twenty shallow merges into one state in one transaction. The wait for the disk at commit is the same on
/// both sides, and may be most of what there is: the times are measured with and without it.
pub fn updates(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, MIDDLE)?;
    prepare(connection, &document)?;
    let measured = format!(
        "{UPDATES} updates of one {} state in one transaction",
        size(MIDDLE)
    );
    let against = format!("{UPDATES} × `UPDATE … SET state = state \\|\\| …`");
    let mut rows = Vec::new();
    let mut step = 0;
    for (synchronous_commit, suffix) in [("on", ""), ("off", ", `synchronous_commit` off")] {
        connection.query(&format!("SET synchronous_commit = {synchronous_commit}"))?;
        let wire = plan.alternate([Side::Cached, Side::Plain, Side::Control], |side| {
            turn(connection, |connection| {
                over_the_wire(connection, side, &mut step, &document)
            })
        })?;
        let function = plan.alternate([Side::Cached, Side::Plain], |side| {
            turn(connection, |connection| inside(connection, side, &mut step))
        })?;
        let compare = |what: String, target: Target, sides: [usize; 2]| Comparison {
            measured: format!("{what}{suffix}"),
            against: against.clone(),
            target,
            sides,
        };
        let waits = suffix.is_empty();
        if waits {
            rows.push(wal_row(&measured, &against, &wire));
        }
        let target = if waits {
            Target::AtLeast(4.0)
        } else {
            Target::None
        };
        rows.push(
            compare(format!("{measured}: time, over the wire"), target, [0, 1]).by_time(&wire),
        );
        rows.push(
            compare(
                format!("control: {UPDATES} idle round trips and one upsert of the outcome"),
                Target::None,
                [2, 1],
            )
            .by_time(&wire),
        );
        rows.push(
            compare(
                format!("{measured}: time, in a PL/pgSQL function"),
                Target::None,
                [0, 1],
            )
            .by_time(&function),
        );
    }
    connection.query("RESET synchronous_commit")?;
    Ok(rows)
}

fn wal_row(measured: &str, against: &str, rounds: &[[Cost; 3]]) -> Row {
    let kilobytes =
        |side: usize| median(&each(rounds, |round| round[side].wal / round[side].done)) / 1e3;
    Row {
        measured: format!("{measured}: WAL"),
        against: against.to_owned(),
        target: Target::AtLeast(10.0),
        unit: Unit::Times,
        figures: each(rounds, |round| round[1].wal / round[0].wal),
        sides: format!("{:.1} against {:.1} kB", kilobytes(0), kilobytes(1)),
    }
}
