//! Reads that L1 answers once the head row has agreed: on a standby, at SERIALIZABLE, beside writers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::database::{CLASS, Database, Kept, key, replay};
use crate::document::Document;
use crate::recording::Recording;
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Cost, Plan};
use crate::standby::Standby;
use crate::wire::{Connection, literal};
use crate::{Failure, SMALL, size};

/// Reads from which the number that fills a turn is estimated.
const TRIAL: u64 = 200;
/// States that the writers change and the reader reads.
const BUSY: usize = 100;
/// Sessions that write meanwhile.
const WRITERS: usize = 8;
/// What each of them waits between two changes, so that both sides have as many of them.
const PACE: Duration = Duration::from_millis(4);

/// Makes the loops: each reads the given keys in turns, uses a field, and says how long a read took, in microseconds.
/// They are made on the primary, since a standby makes none.
fn create_loops(connection: &mut Connection) -> Result<(), Failure> {
    for (name, read) in [
        ("read_states", format!("v := state_get(k, '{CLASS}');")),
        (
            "read_rows",
            "SELECT state INTO v FROM latest WHERE run = k;".to_owned(),
        ),
    ] {
        connection.query(&format!(
            "CREATE FUNCTION {name}(keys text[], iterations bigint) RETURNS double precision
             LANGUAGE plpgsql AS $loop$
             DECLARE k text; v jsonb; x text; started timestamptz := clock_timestamp();
             BEGIN
                 FOR i IN 1 .. iterations LOOP
                     k := keys[i % cardinality(keys) + 1];
                     {read}
                     x := v ->> 'status';
                 END LOOP;
                 IF v IS NULL THEN RAISE EXCEPTION 'a read has found no state'; END IF;
                 RETURN extract(epoch FROM clock_timestamp() - started) * 1e6 / iterations;
             END $loop$"
        ))?;
    }
    Ok(())
}

/// The same keys in the class and in the plain table, with the same documents.
struct Keys(String);

impl Keys {
    fn new(keys: impl Iterator<Item = String>) -> Self {
        let keys: Vec<String> = keys.collect();
        Self(format!("'{{{}}}'::text[]", keys.join(",")))
    }

    /// Lets a loop run for about as long as asked for. `begin` begins its transaction.
    fn read(
        &self,
        connection: &mut Connection,
        begin: &str,
        name: &str,
        turn: Duration,
    ) -> Result<Cost, Failure> {
        let mut micros = |iterations: u64| -> Result<f64, Failure> {
            connection.query(begin)?;
            let keys = &self.0;
            let micros = connection.value(&format!("SELECT {name}({keys}, {iterations})"))?;
            connection.query("COMMIT")?;
            Ok(micros)
        };
        let estimate = micros(TRIAL)?.max(0.01);
        let iterations = ((turn.as_micros() as f64 / estimate) as u64).max(TRIAL);
        let done = iterations as f64;
        let seconds = micros(iterations)? * done / 1e6;
        Ok(Cost {
            done,
            seconds,
            wal: 0.0,
        })
    }
}

/// How often a validated read was answered.
fn validated(connection: &mut Connection) -> Result<u64, Failure> {
    connection.value(&format!(
        "SELECT coalesce(sum(validated), 0) FROM state_cache_stats WHERE class = '{CLASS}'"
    ))
}

/// What is compared: the states through L1, from the tables, and rows of a plain table.
const SIDES: [(&str, &str); 3] = [
    ("SET state_cache.enabled = on", "read_states"),
    ("SET state_cache.enabled = off", "read_states"),
    ("SET state_cache.enabled = on", "read_rows"),
];

/// Lets the three sides read in turns on one connection; fails if L1 did not take part.
fn in_turns(
    plan: &Plan,
    connection: &mut Connection,
    keys: &Keys,
    isolation: &str,
) -> Result<Vec<[Cost; 3]>, Failure> {
    let before = validated(connection)?;
    let begin = format!("BEGIN ISOLATION LEVEL {isolation}");
    let rounds = plan.alternate([0, 1, 2], |side: usize| {
        let (set, name) = SIDES[side];
        connection.query(set)?;
        keys.read(connection, &begin, name, plan.turn)
    })?;
    if validated(connection)? < before + TRIAL {
        return Err("L1 has answered no validated read".into());
    }
    Ok(rounds)
}

fn row(rounds: &[[Cost; 3]], measured: String, against: &str, target: f64, side: usize) -> Row {
    Comparison {
        measured,
        against: against.to_owned(),
        target: Target::AtLeast(target),
        sides: [0, side],
    }
    .by_time(rounds)
}

/// The last documents of the recorded sessions, which are stored as deltas, and small ones beside them.
pub fn reads(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let recording = Recording::read()?;
    let small = literal(Document::with_size(connection, SMALL)?.text());
    Database::with_fresh(connection, |database| {
        let mut primary = database.connect_to_keep()?;
        replay(&mut primary, Kept::Saved, &recording, 1)?;
        replay(&mut primary, Kept::Upserted, &recording, 1)?;
        for n in 1..=BUSY {
            primary.query(&format!(
                "SELECT state_set('small-{n}', {small}, class => '{CLASS}');
                 INSERT INTO latest VALUES ('small-{n}', {small})"
            ))?;
        }
        create_loops(&mut primary)?;
        primary.query("VACUUM ANALYZE latest, state_head, state_snapshot")?;
        let sessions = Keys::new(recording.sessions.iter().map(|session| key(session, 0)));
        let states = Keys::new((1..=BUSY).map(|n| format!("small-{n}")));
        let bytes: usize = primary.value(&format!(
            "SELECT avg(pg_column_size(state || '{{}}'))::bigint FROM latest WHERE run = ANY({})",
            sessions.0
        ))?;
        let (large, little) = (size(bytes), size(SMALL));
        let mut rows = Vec::new();

        let rounds = in_turns(plan, &mut primary, &sessions, "SERIALIZABLE")?;
        let measured = format!("`state_get` of a delta, {large}, SERIALIZABLE, server-side loop");
        let plain = "`SELECT … INTO` by primary key, SERIALIZABLE";
        rows.push(row(&rounds, measured, plain, 4.0, 2));

        let mut standby = Standby::start(database.connect()?)?;
        standby.catch_up()?;
        let mut reader = standby.connect(&database.name())?;
        let plain = "`SELECT … INTO` by primary key, there";
        let rounds = in_turns(plan, &mut reader, &sessions, "READ COMMITTED")?;
        let measured = format!("`state_get` of a delta, {large}, on a standby, server-side loop");
        rows.push(row(
            &rounds,
            measured.clone(),
            "the same from the tables",
            20.0,
            1,
        ));
        rows.push(row(&rounds, measured, plain, 4.0, 2));
        let rounds = in_turns(plan, &mut reader, &states, "READ COMMITTED")?;
        let measured = format!("`state_get`, {little}, on a standby, server-side loop");
        rows.push(row(&rounds, measured, plain, 2.0, 2));
        drop((reader, standby));

        rows.push(beside_writers(plan, database, &states, &small)?);
        Ok(rows)
    })
}

/// One session reads in a loop what others change at a steady pace, each side its own.
fn beside_writers(
    plan: &Plan,
    database: &Database,
    states: &Keys,
    document: &str,
) -> Result<Row, Failure> {
    let mut reader = database.connect()?;
    let rounds = plan.alternate([0, 2], |side: usize| {
        let stop = AtomicBool::new(false);
        let change = |n: usize, revision: u64| match side {
            0 => format!(
                "SELECT state_set('small-{n}', {document}::jsonb || '{{\"revision\": {revision}}}',
                     class => '{CLASS}')"
            ),
            _ => format!(
                "UPDATE latest SET state = {document}::jsonb || '{{\"revision\": {revision}}}'
                     WHERE run = 'small-{n}'"
            ),
        };
        std::thread::scope(|threads| {
            let mut writers = Vec::new();
            for number in 0..WRITERS {
                let mut writer = database.connect()?;
                let (stop, change) = (&stop, &change);
                writers.push(threads.spawn(move || -> Result<(), String> {
                    let mut revision = 0;
                    while !stop.load(Ordering::Relaxed) {
                        revision += 1;
                        let n = (number + WRITERS * revision as usize) % BUSY + 1;
                        let done = writer.query(&change(n, revision));
                        done.map_err(|error| error.to_string())?;
                        std::thread::sleep(PACE);
                    }
                    Ok(())
                }));
            }
            let cost = states.read(&mut reader, "BEGIN", SIDES[side].1, plan.turn);
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.join().map_err(|_| "a writer panicked")??;
            }
            cost
        })
    })?;
    Ok(Comparison {
        measured: format!(
            "`state_get`, {}, beside {WRITERS} writers of the same {BUSY} states",
            size(SMALL)
        ),
        against: "`SELECT … INTO` by primary key beside as many UPDATEs".to_owned(),
        target: Target::AtLeast(3.0),
        sides: [0, 1],
    }
    .by_rate(&rounds))
}
