//! Whole states written by several clients at once: as they were, and changed.

use std::fmt::Write;

use crate::Failure;
use crate::crew::{CLIENTS, Crew, Until};
use crate::document::Document;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Comparison, Cost, Plan, Side};
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
            target: Target::AtLeast(3.5),
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
    /// The same by `state_set_text`: the client has the document as text.
    Text,
    /// `state_set` in a class that keeps every version.
    All,
    /// The plain upsert with the same NOTIFY.
    Telling,
    /// The plain upsert, which tells nobody.
    Silent,
}

const WRITERS: [Writer; 5] = [
    Writer::One,
    Writer::All,
    Writer::Telling,
    Writer::Silent,
    Writer::Text,
];

/// Where the sides are compared: clients at once, and the settings of all sessions.
const CROWDS: [(usize, &str, &str); 4] = [
    (CLIENTS, "", ""),
    (CLIENTS, ", where a flush takes 3 ms", SLOW_FLUSH),
    (4 * CLIENTS, "", ""),
    (4 * CLIENTS, ", where a flush takes 3 ms", SLOW_FLUSH),
];

/// Lets each flush of the WAL wait for 3 ms, as it does on many rented disks.
const SLOW_FLUSH: &str = "SET commit_siblings = 0; SET commit_delay = 3000";

/// Lets the writers change a state each, in a transaction of its own.
fn change(
    crew: &mut Crew,
    writer: Writer,
    until: Until,
    document: &Document,
) -> Result<Cost, Failure> {
    crew.work(until, |client| {
        let mut text = String::with_capacity(document.text().len());
        document.revise(&mut text, client.number());
        match writer {
            Writer::One => client.execute_for_key("one", &[&text])?,
            Writer::Text => client.execute_for_key("text", &[&text])?,
            Writer::All => client.execute_for_key("all", &[&text])?,
            Writer::Silent => client.execute_for_key("silent", &[&text])?,
            Writer::Telling => {
                let mut payload = String::new();
                write!(
                    payload,
                    "{{\"class\":\"run\",\"op\":\"update\",\"changes\":[{{\"key\":\"{}\",\"version\":{}}}],\
                        \"seq\":{},\"epoch\":\"0123456789abcdef\"}}",
                    client.key_name(),
                    client.number(),
                    client.number()
                )?;
                client.execute_for_key("telling", &[&text, &payload])?
            }
        };
        Ok(())
    })
}

/// So many clients, with the statements of all writers.
fn writers(clients: usize, settings: &str) -> Result<Crew, Failure> {
    let telling = format!("WITH written AS ({UPSERT}) SELECT pg_notify('state_updated', $3)");
    let mut crew = Crew::connect(
        clients,
        &[
            ("one", "SELECT state_set($1, $2, class => 'swarm')"),
            ("text", "SELECT state_set_text($1, $2, class => 'swarm')"),
            ("all", "SELECT state_set($1, $2)"),
            ("telling", &telling),
            ("silent", UPSERT),
        ],
    )?;
    if !settings.is_empty() {
        crew.query(settings)?;
    }
    Ok(crew)
}

/// A changed state in a transaction of its own, with the messages that are the default.
pub fn changed(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    let most = CROWDS
        .map(|(clients, ..)| clients)
        .into_iter()
        .max()
        .unwrap_or(CLIENTS);
    store_for_all(connection, "swarm", most, &document)?;
    store_for_all(connection, CLASS, most, &document)?;
    let mut rows = Vec::new();
    for (clients, disk, settings) in CROWDS {
        let mut crew = writers(clients, settings)?;
        let rounds = plan.alternate(WRITERS, |writer| {
            tidy(connection)?;
            change(&mut crew, writer, Until::Elapsed(plan.turn), &document)
        })?;
        let changed = format!(
            "one changed {} state per transaction, {clients} clients{disk}",
            size(SMALL)
        );
        let silent = "the plain upsert, which tells nobody";
        let telling = "the plain upsert of the same, with the same NOTIFY";
        for (what, against, target, sides) in [
            ("", silent, Target::AtLeast(1.0), [0, 3]),
            ("", telling, Target::AtLeast(1.5), [0, 2]),
            (
                ", by `state_set_text`",
                silent,
                Target::AtLeast(1.0),
                [4, 3],
            ),
            (", every version kept", silent, Target::None, [1, 3]),
            (", every version kept", telling, Target::None, [1, 2]),
        ] {
            rows.push(
                Comparison {
                    measured: format!("{changed}{what}"),
                    against: against.to_owned(),
                    target,
                    sides,
                }
                .by_rate(&rounds),
            );
        }
    }
    Ok(rows)
}

/// The same by one client who does not wait for the disk: what the server does for it.
pub fn changed_alone(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, "swarm", 1, &document)?;
    let mut crew = writers(1, "SET synchronous_commit = off")?;
    let writers = [Writer::One, Writer::Silent, Writer::Text];
    let rounds = plan.alternate(writers, |writer| {
        tidy(connection)?;
        change(&mut crew, writer, Until::Elapsed(plan.turn), &document)
    })?;
    let compared = |what: &str, sides| {
        Comparison {
            measured: format!(
                "one changed {} state per transaction, 1 client, `synchronous_commit` off{what}",
                size(SMALL)
            ),
            against: "the plain upsert, which tells nobody".to_owned(),
            target: Target::AtLeast(1.2),
            sides,
        }
        .by_time(&rounds)
    };
    Ok(vec![
        compared("", [0, 1]),
        compared(", by `state_set_text`", [2, 1]),
    ])
}
