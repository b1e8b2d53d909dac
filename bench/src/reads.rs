//! Reads over the wire, by several clients at once.

use crate::Failure;
use crate::crew::{CLIENTS, Client, Crew, Until};
use crate::document::Document;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Plan, Round, Side, each};
use crate::wire::{Connection, literal};
use crate::{SMALL, store_for_all};

/// Lets both sides read in turns; each has been prepared under its name.
fn measure(
    plan: &Plan,
    crew: &mut Crew,
    least_bytes: usize,
    plain: impl Fn(&mut Client) -> Result<usize, Failure> + Sync,
) -> Result<Vec<Round<f64>>, Failure> {
    let check = |bytes: usize| {
        if bytes < least_bytes {
            return Err(Failure::from("a read has found no state"));
        }
        Ok(())
    };
    plan.alternate(|side| {
        crew.work(Until::Elapsed(plan.window), |client| match side {
            Side::Cached => check(client.execute_for_key("cached", &[])?),
            Side::Plain => check(plain(client)?),
        })
    })
}

fn row(against: &str, target: f64, rounds: &[Round<f64>]) -> Row {
    Row {
        measured: format!(
            "`state_get_text` over the wire, {} KB, {CLIENTS} clients",
            SMALL / 1024
        ),
        against: against.to_owned(),
        target: Target::AtLeast(target),
        unit: Unit::Times,
        figures: each(rounds, |round| round.cached / round.plain),
        sides: format!(
            "{:.0} against {:.0} per second",
            median(&each(rounds, |round| round.cached)),
            median(&each(rounds, |round| round.plain))
        ),
    }
}

/// Against a statement that returns a constant text of the same length.
pub fn against_constant(
    connection: &mut Connection,
    plan: &Plan,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, &document)?;
    let text: String = connection.value("SELECT state_get_text('run-0-0')")?;
    let mut crew = Crew::connect(&[
        ("cached", "SELECT state_get_text($1)"),
        ("plain", &format!("SELECT {}::text", literal(&text))),
    ])?;
    let rounds = measure(plan, &mut crew, text.len(), |client| {
        client.connection.execute("plain", &[])
    })?;
    Ok(vec![row(
        "returning a constant of the same length",
        target,
        &rounds,
    )])
}

/// Against a read of the plain table.
pub fn against_select(
    connection: &mut Connection,
    plan: &Plan,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, &document)?;
    let length: usize = connection.value("SELECT length(state_get_text('run-0-0'))")?;
    let mut crew = Crew::connect(&[
        ("cached", "SELECT state_get_text($1)"),
        ("plain", "SELECT state FROM plain WHERE key = $1"),
    ])?;
    let rounds = measure(plan, &mut crew, length, |client| {
        client.execute_for_key("plain", &[])
    })?;
    Ok(vec![row("`SELECT state` by primary key", target, &rounds)])
}
