//! What a save costs as its session grows.

use std::time::Instant;

use crate::Failure;
use crate::database::{Database, SAVE};
use crate::document::Random;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::Plan;

/// The most sessions that are grown.
const ROUNDS: usize = 5;
/// Bytes that a step adds to the document, as JSON text.
const MESSAGE: usize = 1024;
/// Steps of a session.
const STEPS: usize = 1000;

/// A stretch of a session over which times are taken together.
struct Window {
    /// Its name in the table.
    step: usize,
    first: usize,
    last: usize,
}

/// The stretches that are shown; the last two are compared. These are long enough for a few keyframes.
const WINDOWS: [Window; 3] = [
    Window {
        step: 10,
        first: 8,
        last: 12,
    },
    Window {
        step: 100,
        first: 68,
        last: 132,
    },
    Window {
        step: 1000,
        first: 936,
        last: STEPS,
    },
];

/// What was measured in one stretch of one session. Times in seconds.
#[derive(Default)]
struct Seen {
    saves: Vec<f64>,
    parses: Vec<f64>,
    bytes: f64,
}

/// The middle and nearly the worst of some times, in milliseconds.
fn percentiles(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let high = sorted.get(sorted.len() * 95 / 100).copied();
    (1e3 * median(times), 1e3 * high.unwrap_or(f64::NAN))
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}

/// A message of an agent as JSON text, so many bytes with the comma before it.
fn message(random: &mut Random) -> String {
    const FRAME: &str = r#",{"role":"assistant","content":""}"#;
    let room = MESSAGE - FRAME.len();
    // A word has two bytes at least with the blank behind it.
    let words: String = random.sentence(room / 2).chars().take(room).collect();
    format!(r#",{{"role":"assistant","content":"{words}"}}"#)
}

/// Grows one session. No save waits for the disk: the wait is the same for small documents and large ones, and
/// with it any growth would look small. In the stretches that are measured, each save follows a statement that
/// only reads the same document as jsonb.
fn grow(database: &Database, number: usize) -> Result<Vec<Seen>, Failure> {
    let mut connection = database.connect()?;
    connection.query("SET synchronous_commit = off")?;
    connection.prepare("save", SAVE)?;
    connection.prepare("parse", "SELECT $1::text, $2::jsonb IS NULL, $3::text")?;
    let mut random = Random::new(number as u64);
    let key = format!("growing-{number}");
    let mut messages = String::from(r#"{"role":"user","content":"begin"}"#);
    let mut seen: Vec<Seen> = WINDOWS.iter().map(|_| Seen::default()).collect();
    for step in 1..=STEPS {
        messages.push_str(&message(&mut random));
        let document = format!(
            r#"{{"runId":"{key}","routineId":"growing","intermediate":{{"step":{step}}},"messages":[{messages}]}}"#
        );
        let parameters = [key.as_str(), &document, "auto"];
        let mut timed = |statement: &str| -> Result<f64, Failure> {
            let started = Instant::now();
            connection.execute(statement, &parameters)?;
            Ok(started.elapsed().as_secs_f64())
        };
        let window = WINDOWS
            .iter()
            .position(|window| (window.first..=window.last).contains(&step));
        match window {
            Some(window) => {
                let seen = &mut seen[window];
                seen.parses.push(timed("parse")?);
                seen.saves.push(timed("save")?);
                seen.bytes += document.len() as f64;
            }
            None => {
                timed("save")?;
            }
        }
    }
    let kept: usize = connection.value(&format!(
        "SELECT count(*) FROM state_snapshot WHERE key = '{key}'"
    ))?;
    if kept != STEPS {
        return Err(format!("{kept} of {STEPS} versions were kept").into());
    }
    Ok(seen)
}

/// How much more a save takes at the end of a session than early in it, for each time that the document is
/// larger: 1 where the time grows as the document does.
pub fn growth(connection: &mut crate::wire::Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let rounds = Database::with_fresh(connection, |database| {
        // The first warms up.
        grow(database, 0)?;
        (1..=plan.rounds.min(ROUNDS))
            .map(|number| grow(database, number))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let row = |what: &str, target: Target, times: fn(&Seen) -> &[f64]| {
        let times_larger = |round: &Vec<Seen>| {
            let [.., early, late] = round.as_slice() else {
                return f64::NAN;
            };
            let documents =
                (late.bytes / late.saves.len() as f64) / (early.bytes / early.saves.len() as f64);
            mean(times(late)) / mean(times(early)) / documents
        };
        let points: Vec<String> = WINDOWS
            .iter()
            .enumerate()
            .map(|(place, window)| {
                let all: Vec<f64> = rounds
                    .iter()
                    .flat_map(|round| times(&round[place]).iter().copied())
                    .collect();
                let (middle, high) = percentiles(&all);
                format!("step {}: {middle:.2}, {high:.2} ms", window.step)
            })
            .collect();
        Row {
            measured: format!("{what}: time at {STEPS} messages of 1 KB over time at 100"),
            against: "the document at these steps".to_owned(),
            target,
            unit: Unit::Times,
            figures: rounds.iter().map(times_larger).collect(),
            sides: format!("50th and 95th percentile, {}", points.join("; ")),
        }
    };
    Ok(vec![
        row(
            "`state_save` of a growing session, `synchronous_commit` off",
            Target::AtMost(1.0),
            |seen| &seen.saves,
        ),
        row(
            "control: a statement that only reads the jsonb",
            Target::None,
            |seen| &seen.parses,
        ),
    ])
}
