//! What it takes to keep every step of a session: WAL, and room in the tables.

use crate::Failure;
use crate::database::{Database, Kept, check_saved, replay};
use crate::recording::Recording;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::Plan;
use crate::wire::Connection;

/// The most rounds: bytes differ little between them.
const ROUNDS: usize = 3;
/// How often the recording is kept where the size of tables is measured: with it once, an index of one page
/// would be most of a table, and what a row takes would not show.
const COPIES: usize = 5;

/// Bytes of WAL.
#[derive(Clone, Copy)]
struct Wal {
    /// All but the images: records, and the headers of WAL pages.
    records: f64,
    /// Full-page images: the first change of a page after a checkpoint writes it whole, which says more of
    /// when the checkpoint was than of what was written.
    images: f64,
}

/// The WAL of some work after a checkpoint. Nobody else may write.
fn wal_of(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<(), Failure>,
) -> Result<Wal, Failure> {
    connection.query("CHECKPOINT")?;
    let start: String = connection.value("SELECT pg_current_wal_insert_lsn()")?;
    work(connection)?;
    // The commit of the last step waited until its WAL was flushed.
    let end: String = connection.value("SELECT pg_current_wal_flush_lsn()")?;
    let bytes: f64 = connection.value(&format!("SELECT '{end}'::pg_lsn - '{start}'::pg_lsn"))?;
    let images: f64 = connection.value(&format!(
        "SELECT coalesce(sum(fpi_size), 0) FROM pg_get_wal_stats('{start}', '{end}')"
    ))?;
    Ok(Wal {
        records: bytes - images,
        images,
    })
}

/// WAL of one `state_save` and one commit per step, beside the final states, and beside whole documents.
pub fn wal(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let recording = Recording::read()?;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds.min(ROUNDS) {
        rounds.push(Database::with_fresh(connection, |database| {
            let mut connection = database.connect_to_keep()?;
            let mut kept = |kept| {
                wal_of(&mut connection, |session| {
                    replay(session, kept, &recording, 1)
                })
            };
            let sides = [
                kept(Kept::Saved)?,
                kept(Kept::Upserted)?,
                kept(Kept::Inserted)?,
            ];
            check_saved(&mut connection)?;
            Ok(sides)
        })?);
    }
    let megabytes = |side: usize, part: fn(&Wal) -> f64| {
        let figures: Vec<f64> = rounds.iter().map(|round| part(&round[side])).collect();
        median(&figures) / 1e6
    };
    let taken = |side: usize| {
        format!(
            "{:.2} MB (images: {:.2})",
            megabytes(side, |wal| wal.records),
            megabytes(side, |wal| wal.images)
        )
    };
    let measured = format!(
        "WAL without full-page images, {} steps of {} sessions, each a `state_save` and a commit",
        recording.steps(),
        recording.sessions.len()
    );
    let final_bytes = recording.final_bytes() as f64;
    let mut rows = vec![Row {
        measured: measured.clone(),
        against: "bytes of all final states as JSON text".to_owned(),
        target: Target::AtMost(3.5),
        unit: Unit::Times,
        figures: rounds
            .iter()
            .map(|round| round[0].records / final_bytes)
            .collect(),
        sides: format!("{} against {:.2} MB", taken(0), final_bytes / 1e6),
    }];
    for (side, against) in [
        (1, "a plain upsert of the whole document per step"),
        (
            2,
            "an `INSERT` of the whole document per step, history kept",
        ),
    ] {
        rows.push(Row {
            measured: measured.clone(),
            against: against.to_owned(),
            target: Target::AtLeast(5.0),
            unit: Unit::Times,
            figures: rounds
                .iter()
                .map(|round| round[side].records / round[0].records)
                .collect(),
            sides: format!("{} against {}", taken(0), taken(side)),
        });
    }
    Ok(rows)
}

/// Bytes of tables with their indexes and TOAST, all versions kept.
pub fn size(connection: &mut Connection) -> Result<Vec<Row>, Failure> {
    let recording = Recording::read()?;
    let [saved, whole] = Database::with_fresh(connection, |database| {
        let mut connection = database.connect_to_keep()?;
        let kept: u64 = connection.value(
            "SELECT (SELECT count(*) FROM state_head) + (SELECT count(*) FROM state_snapshot)",
        )?;
        if kept > 0 {
            return Err("the tables of a new database are not empty".into());
        }
        replay(&mut connection, Kept::Saved, &recording, COPIES)?;
        replay(&mut connection, Kept::Inserted, &recording, COPIES)?;
        check_saved(&mut connection)?;
        let sizes = [
            "SELECT pg_total_relation_size('state_head') + pg_total_relation_size('state_snapshot')",
            "SELECT pg_total_relation_size('history')",
        ];
        Ok([
            connection.value::<f64>(sizes[0])?,
            connection.value::<f64>(sizes[1])?,
        ])
    })?;
    Ok(vec![Row {
        measured: format!(
            "tables and indexes, all versions kept, {} sessions ({COPIES} times the {} recorded, under \
             different keys), {} steps",
            COPIES * recording.sessions.len(),
            recording.sessions.len(),
            COPIES * recording.steps()
        ),
        against: "a table of whole documents with its primary key".to_owned(),
        target: Target::AtLeast(8.0),
        unit: Unit::Times,
        figures: vec![whole / saved],
        sides: format!("{:.2} against {:.2} MB", saved / 1e6, whole / 1e6),
    }])
}
