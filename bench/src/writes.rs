//! Changes: many in one transaction, none at all, and one per transaction.

use std::fmt::Write;
use std::time::Instant;

use crate::Failure;
use crate::crew::{CLIENTS, Crew, Until};
use crate::document::Document;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Plan, Round, Side, each};
use crate::wire::{Connection, literal};
use crate::{MIDDLE, SMALL, store_for_all};

/// Updates in one transaction.
const UPDATES: u64 = 20;
/// Key of the state that is updated so often.
const UPDATED: &str = "updated";
/// What a client writes in the pass that counts WAL bytes.
const COUNTED: u64 = 1000;
const UPSERT: &str = "INSERT INTO plain VALUES ($1, $2) \
                      ON CONFLICT (key) DO UPDATE SET state = excluded.state";

/// WAL bytes and seconds.
#[derive(Clone, Copy)]
struct Cost {
    wal: f64,
    seconds: f64,
}

/// Where the WAL ends, in bytes.
fn wal_position(connection: &mut Connection) -> Result<f64, Failure> {
    connection.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
}

/// What vacuum would do at some time of its own choosing, between rounds.
fn tidy(connection: &mut Connection) -> Result<(), Failure> {
    connection.query("VACUUM plain, state_head, state_snapshot")?;
    Ok(())
}

fn size(bytes: usize) -> String {
    format!("{} KB", bytes / 1024)
}

/// What one round of updates is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Updating {
    Cached,
    Plain,
    /// As many round trips, and one upsert of the result: what no batch can do without.
    Least,
}

/// Runs transactions with many shallow merges into one state each.
fn update(
    connection: &mut Connection,
    kind: Updating,
    transactions: u64,
    step: &mut u64,
    document: &Document,
) -> Result<Cost, Failure> {
    tidy(connection)?;
    let position = wal_position(connection)?;
    let started = Instant::now();
    let mut whole = String::new();
    for _ in 0..transactions {
        connection.execute("begin", &[])?;
        for _ in 0..UPDATES {
            *step += 1;
            let change = format!(
                r#"{{"checkpoint":"step-{step:010}","intermediate":{{"lastTool":"search","attempts":{},"output":"{step:04} of the records match, the others need a review by the owner of the account"}}}}"#,
                *step % 7
            );
            let statement = match kind {
                Updating::Cached => "cached",
                Updating::Plain => "plain",
                Updating::Least => "nothing",
            };
            connection.execute(statement, &[UPDATED, &change])?;
        }
        if kind == Updating::Least {
            document.revise(&mut whole, *step);
            connection.execute("upsert", &[UPDATED, &whole])?;
        }
        connection.execute("commit", &[])?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let wal = wal_position(connection)? - position;
    Ok(Cost { wal, seconds })
}

/// Twenty shallow merges into one state in one transaction, by one client, a round trip each; with the wait
/// for the disk at commit and, as its rest may be small beside that, without.
pub fn updates(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, MIDDLE)?;
    let text = literal(document.text());
    connection.query(&format!(
        "INSERT INTO plain VALUES ('{UPDATED}', {text}) ON CONFLICT (key) DO NOTHING;
         SELECT state_set('{UPDATED}', {text})"
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
    let mut rows = Vec::new();
    let mut step = 0;
    for waiting in [true, false] {
        let setting = if waiting { "on" } else { "off" };
        connection.query(&format!("SET synchronous_commit = {setting}"))?;
        let mut least = Vec::new();
        let rounds = plan.alternate(|side| {
            let mut run = |kind| update(connection, kind, plan.transactions, &mut step, &document);
            if side == Side::Cached {
                least.push(run(Updating::Least)?);
                run(Updating::Cached)
            } else {
                run(Updating::Plain)
            }
        })?;
        // The round that warms up is not counted.
        least.remove(0);
        if waiting {
            rows.push(wal_row(plan, &rounds));
        }
        let suffix = if waiting {
            ""
        } else {
            ", `synchronous_commit` off"
        };
        let (cached, plain) = (
            each(&rounds, |round| round.cached.seconds),
            each(&rounds, |round| round.plain.seconds),
        );
        let least: Vec<f64> = least.iter().map(|cost| cost.seconds).collect();
        let target = if waiting {
            Target::AtLeast(4.0)
        } else {
            Target::None
        };
        rows.push(time_row(
            plan,
            format!("{}{suffix}: time", updates_name()),
            target,
            &cached,
            &plain,
        ));
        rows.push(time_row(
            plan,
            format!("control: {UPDATES} round trips and one upsert{suffix}: time"),
            Target::None,
            &least,
            &plain,
        ));
    }
    connection.query("RESET synchronous_commit")?;
    Ok(rows)
}

fn updates_name() -> String {
    format!(
        "{UPDATES} updates of one {} state in one transaction",
        size(MIDDLE)
    )
}

fn updates_against() -> String {
    format!("{UPDATES} × `UPDATE … SET state = state \\|\\| …`")
}

fn wal_row(plan: &Plan, rounds: &[Round<Cost>]) -> Row {
    let kilobytes = |figures: Vec<f64>| median(&figures) / plan.transactions as f64 / 1e3;
    Row {
        measured: format!("{}: WAL", updates_name()),
        against: updates_against(),
        target: Target::AtLeast(10.0),
        unit: Unit::Times,
        figures: each(rounds, |round| round.plain.wal / round.cached.wal),
        sides: format!(
            "{:.1} against {:.1} kB",
            kilobytes(each(rounds, |round| round.cached.wal)),
            kilobytes(each(rounds, |round| round.plain.wal))
        ),
    }
}

fn time_row(plan: &Plan, measured: String, target: Target, cached: &[f64], plain: &[f64]) -> Row {
    let millis = |figures: &[f64]| median(figures) / plan.transactions as f64 * 1e3;
    Row {
        measured,
        against: updates_against(),
        target,
        unit: Unit::Times,
        figures: plain
            .iter()
            .zip(cached)
            .map(|(plain, cached)| plain / cached)
            .collect(),
        sides: format!("{:.2} against {:.2} ms", millis(cached), millis(plain)),
    }
}

fn rate_row(measured: String, against: &str, target: f64, rounds: &[Round<f64>]) -> Row {
    Row {
        measured,
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

/// A whole state written again as it is.
pub fn unchanged(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, &document)?;
    let mut crew = Crew::connect(&[("cached", "SELECT state_set($1, $2)"), ("plain", UPSERT)])?;
    let rounds = plan.alternate(|side| {
        tidy(connection)?;
        let statement = match side {
            Side::Cached => "cached",
            Side::Plain => "plain",
        };
        crew.work(Until::Elapsed(plan.window), |client| {
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
        rate_row(measured.clone(), "the plain upsert", 3.0, &rounds),
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

/// A changed state in a transaction of its own, announced on the same channel on both sides.
pub fn changed(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    store_for_all(connection, &document)?;
    let notifying = format!("WITH written AS ({UPSERT}) SELECT pg_notify('state_updated', $3)");
    let mut crew = Crew::connect(&[
        ("cached", "SELECT state_set($1, $2)"),
        ("plain", &notifying),
    ])?;
    let rounds = plan.alternate(|side| {
        tidy(connection)?;
        crew.work(Until::Elapsed(plan.window), |client| {
            let mut text = String::with_capacity(document.text().len());
            document.revise(&mut text, client.number());
            match side {
                Side::Cached => client.execute_for_key("cached", &[&text])?,
                Side::Plain => {
                    let mut payload = String::new();
                    write!(
                        payload,
                        r#"{{"class":"run","op":"update","changes":[{{"key":"{}","version":{}}}],"seq":{},"epoch":"0123456789abcdef"}}"#,
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
    Ok(vec![rate_row(
        format!(
            "one changed {} state per transaction, {CLIENTS} clients",
            size(SMALL)
        ),
        "the plain upsert of the same, with the same NOTIFY",
        0.9,
        &rounds,
    )])
}
