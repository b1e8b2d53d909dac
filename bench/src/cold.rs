//! Reads of kept versions that find nothing in L1.

use std::time::Instant;

use crate::Failure;
use crate::database::{CLASS, Database, Kept, check_saved, key, replay};
use crate::document::Random;
use crate::recording::Recording;
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::Connection;

/// How often the recording is kept under different keys. A pass reads one version under each key of all
/// copies but the first, whose keys warm the session up.
const COPIES: usize = 11;

/// A version to read, and the least bytes that it has as text.
struct Wanted {
    key: String,
    version: String,
    bytes: usize,
}

/// Which versions a pass reads.
#[derive(Clone, Copy)]
enum Version {
    Random,
    Current,
}

/// One version under each key of some copies, in random order.
fn wanted(
    recording: &Recording,
    copies: std::ops::Range<usize>,
    version: Version,
    random: &mut Random,
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for copy in copies {
        for session in &recording.sessions {
            let place = match version {
                Version::Random => random.below(session.steps.len()),
                Version::Current => session.steps.len() - 1,
            };
            let step = &session.steps[place];
            wanted.push(Wanted {
                key: key(session, copy),
                version: step.number.to_string(),
                // jsonb writes what is one escape of six bytes in the recording as two or more.
                bytes: step.state.len() / 3,
            });
        }
    }
    for last in (1..wanted.len()).rev() {
        wanted.swap(last, random.below(last + 1));
    }
    wanted
}

/// Reads all of them, one after another.
fn read(
    connection: &mut Connection,
    side: Side,
    version: Version,
    wanted: &[Wanted],
) -> Result<(), Failure> {
    for Wanted {
        key,
        version: number,
        bytes,
    } in wanted
    {
        let received = match (side, version) {
            (Side::Cached, Version::Current) => connection.execute("get", &[key])?,
            (Side::Cached, Version::Random) => connection.execute("at", &[key, number])?,
            _ => connection.execute("plain", &[key, number])?,
        };
        if received < *bytes {
            return Err(format!("version {number} of {key} was not found").into());
        }
    }
    Ok(())
}

/// How often L1 has answered.
fn hits(connection: &mut Connection) -> Result<u64, Failure> {
    connection.value(&format!(
        "SELECT coalesce(sum(hits), 0) FROM state_cache_stats WHERE class = '{CLASS}'"
    ))
}

/// One pass, in a new session: what an earlier one may have kept in its own memory is gone.
fn pass(
    database: &Database,
    recording: &Recording,
    side: Side,
    version: Version,
    random: &mut Random,
) -> Result<Cost, Failure> {
    let mut connection = database.connect()?;
    for (name, sql) in [
        ("get", format!("SELECT state_get($1, class => '{CLASS}')")),
        ("at", format!("SELECT state_at($1, $2, class => '{CLASS}')")),
        (
            "plain",
            "SELECT state FROM history WHERE run = $1 AND step = $2".to_owned(),
        ),
    ] {
        connection.prepare(name, &sql)?;
    }
    let warming = wanted(recording, 0..1, version, random);
    read(&mut connection, side, version, &warming)?;
    let wanted = wanted(recording, 1..COPIES, version, random);
    connection.query("SELECT state_cache_clear()")?;
    let before = hits(&mut connection)?;
    let started = Instant::now();
    read(&mut connection, side, version, &wanted)?;
    let seconds = started.elapsed().as_secs_f64();
    if hits(&mut connection)? > before {
        return Err("L1 has answered a read that was to miss".into());
    }
    Ok(Cost {
        done: wanted.len() as f64,
        seconds,
        wal: 0.0,
    })
}

/// `state_at` of a random version and `state_get` of a current one, each state read once in a pass that
/// begins with an empty L1. The tables of both sides lie in shared buffers.
pub fn reads(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let recording = Recording::read()?;
    Database::with_fresh(connection, |database| {
        let mut connection = database.connect_to_keep()?;
        replay(&mut connection, Kept::Saved, &recording, COPIES)?;
        replay(&mut connection, Kept::Inserted, &recording, COPIES)?;
        check_saved(&mut connection)?;
        connection.query("VACUUM ANALYZE history, state_head, state_snapshot")?;
        let mut rows = Vec::new();
        for (version, measured) in [
            (Version::Random, "`state_at` of a random version"),
            (Version::Current, "`state_get` of a current one"),
        ] {
            // Both sides draw the same versions in the same order.
            let mut random = [Random::new(1), Random::new(1)];
            let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
                let random = &mut random[usize::from(side == Side::Plain)];
                pass(database, &recording, side, version, random)
            })?;
            rows.push(
                Comparison {
                    measured: format!("{measured}, nothing in L1"),
                    against: "`SELECT state` of the whole document by primary key".to_owned(),
                    target: Target::AtMost(5.0),
                    sides: [0, 1],
                }
                .by_duration(&rounds),
            );
        }
        Ok(rows)
    })
}
