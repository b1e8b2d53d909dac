//! Reads over the wire, by several clients at once.

use crate::Failure;
use crate::crew::{CLIENTS, Client, Crew, Until};
use crate::document::Document;
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Plan, Side};
use crate::wire::{Connection, literal};
use crate::{CLASS, SMALL, size, store_for_all};

/// Lets both sides read in turns. A read that returns fewer bytes than the document's text has found none.
fn measure(
    plan: &Plan,
    crew: &mut Crew,
    document_bytes: usize,
    against: &str,
    target: f64,
    plain: impl Fn(&mut Client) -> Result<usize, Failure> + Sync,
) -> Result<Vec<Row>, Failure> {
    let check = |bytes: usize| {
        if bytes < document_bytes {
            return Err(Failure::from("a read has found no state"));
        }
        Ok(())
    };
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        crew.work(Until::Elapsed(plan.turn), |client| match side {
            Side::Cached => check(client.execute_for_key("cached", &[])?),
            _ => check(plain(client)?),
        })
    })?;
    Ok(vec![
        Comparison {
            measured: format!(
                "`state_get_text` over the wire, {}, {CLIENTS} clients",
                size(SMALL)
            ),
            against: against.to_owned(),
            target: Target::AtLeast(target),
            sides: [0, 1],
        }
        .by_rate(&rounds),
    ])
}

/// Against a statement that returns a constant text of the same length.
pub fn against_constant(
    connection: &mut Connection,
    plan: &Plan,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, CLASS, CLIENTS, &document)?;
    let text: String = connection.value("SELECT state_get_text('run-1-1')")?;
    let mut crew = Crew::connect(
        CLIENTS,
        &[
            ("cached", "SELECT state_get_text($1)"),
            ("plain", &format!("SELECT {}::text", literal(&text))),
        ],
    )?;
    let against = "returning a constant of the same length";
    measure(plan, &mut crew, text.len(), against, target, |client| {
        client.connection.execute("plain", &[])
    })
}

/// Against a read of the plain table.
pub fn against_select(
    connection: &mut Connection,
    plan: &Plan,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, CLASS, CLIENTS, &document)?;
    let length: usize = connection.value("SELECT length(state_get_text('run-1-1'))")?;
    let mut crew = Crew::connect(
        CLIENTS,
        &[
            ("cached", "SELECT state_get_text($1)"),
            ("plain", "SELECT state FROM plain WHERE key = $1"),
        ],
    )?;
    let against = "`SELECT state` by primary key";
    measure(plan, &mut crew, length, against, target, |client| {
        client.execute_for_key("plain", &[])
    })
}
