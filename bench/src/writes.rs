//! Whole states written by several clients at once: as they were, and changed.

use std::fmt::Write;

use crate::Failure;
use crate::crew::{CLIENTS, Crew, Until};
use crate::document::Document;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Comparison, Plan, Side};
use crate::wire::Connection;
use crate::{CLASS, SMALL, UPSERT, size, store_for_all, tidy, wal_position};

/// What a client writes in the pass that counts WAL bytes.
const COUNTED: u64 = 1000;

/// A whole state written again as it is.
pub fn unchanged(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, CLASS, CLIENTS, &document)?;
    let mut crew = Crew::connect(
        CLIENTS,
        &[("cached", "SELECT state_set($1, $2)"), ("plain", UPSERT)],
    )?;
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        tidy(connection)?;
        let statement = match side {
            Side::Cached => "cached",
            _ => "plain",
        };
        crew.work(Until::Elapsed(plan.turn), |client| {
            client.execute_for_key(statement, &[document.text()])?;
            Ok(())
        })
    })?;
    // A pass of its own, in which nobody else writes.
    let (mut bytes, mut xids) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let next_xid = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
        let (position, xid) = (
            wal_position(connection)?,
            connection.value::<u64>(next_xid)?,
        );
        crew.work(Until::Done(COUNTED), |client| {
            client.execute_for_key("cached", &[document.text()])?;
            Ok(())
        })?;
        bytes.push(wal_position(connection)? - position);
        xids.push((connection.value::<u64>(next_xid)? - xid) as f64);
    }
    let measured = format!(
        "`state_set` that changes nothing, {}, {CLIENTS} clients",
        size(SMALL)
    );
    let writes = COUNTED * CLIENTS as u64;
    Ok(vec![
        Comparison {
            measured: measured.clone(),
            against: "the plain upsert".to_owned(),
            target: Target::AtLeast(3.0),
            sides: [0, 1],
        }
        .by_rate(&rounds),
        Row {
            measured: format!("WAL of {writes} × {measured}"),
            against: String::new(),
            target: Target::Zero,
            unit: Unit::Bytes,
            figures: bytes,
            sides: format!("{:.0} transaction ids", median(&xids)),
        },
    ])
}

/// Who changes states.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// `state_set` in a class that keeps the current version only, as the plain table does.
    One,
    /// `state_set` in a class that keeps every version.
    All,
    /// The plain upsert.
    Plain,
}

/// A changed state in a transaction of its own, announced on the same channel on all sides.
pub fn changed(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, "swarm", CLIENTS, &document)?;
    store_for_all(connection, CLASS, CLIENTS, &document)?;
    let notifying = format!("WITH written AS ({UPSERT}) SELECT pg_notify('state_updated', $3)");
    let mut crew = Crew::connect(
        CLIENTS,
        &[
            ("one", "SELECT state_set($1, $2, class => 'swarm')"),
            ("all", "SELECT state_set($1, $2)"),
            ("plain", &notifying),
        ],
    )?;
    let rounds = plan.alternate([Writer::One, Writer::All, Writer::Plain], |writer| {
        tidy(connection)?;
        crew.work(Until::Elapsed(plan.turn), |client| {
            let mut text = String::with_capacity(document.text().len());
            document.revise(&mut text, client.number());
            match writer {
                Writer::One => client.execute_for_key("one", &[&text])?,
                Writer::All => client.execute_for_key("all", &[&text])?,
                Writer::Plain => {
                    let mut payload = String::new();
                    write!(
                        payload,
                        "{{\"class\":\"run\",\"op\":\"update\",\"changes\":[{{\"key\":\"{}\",\"version\":{}}}],\
                            \"seq\":{},\"epoch\":\"0123456789abcdef\"}}",
                        client.key_name(),
                        client.number(),
                        client.number()
                    )?;
                    client.execute_for_key("plain", &[&text, &payload])?
                }
            };
            Ok(())
        })
    })?;
    let changed = format!(
        "one changed {} state per transaction, {CLIENTS} clients",
        size(SMALL)
    );
    let against = "the plain upsert of the same, with the same NOTIFY".to_owned();
    Ok(vec![
        Comparison {
            measured: changed.clone(),
            against: against.clone(),
            target: Target::AtLeast(0.9),
            sides: [0, 2],
        }
        .by_rate(&rounds),
        Comparison {
            measured: format!("{changed}, every version kept"),
            against,
            target: Target::None,
            sides: [1, 2],
        }
        .by_rate(&rounds),
    ])
}
