//! Steps of recorded sessions kept by several clients at once.

use crate::Failure;
use crate::crew::{CLIENTS, Crew, Until};
use crate::database::{CLASS, Database, INSERT, Kept, keep};
use crate::recording::{Recording, Step};
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Plan};
use crate::wire::Connection;

/// Steps that each client keeps in a turn. Both sides keep the same steps of the same sessions in the same
/// turn: their documents grow, so a turn of so many seconds would give the faster side the larger ones.
const STEPS: u64 = 100;
/// The plain `INSERT`, announced as the extension announces its own. Parameter beside those: the payload.
const NOTIFYING: &str = "SELECT pg_notify('state_updated', $4)";

/// A client that replays the sessions one after another, and again under other keys.
struct Replayer<'a> {
    connection: Connection,
    /// Whose sessions these are.
    name: String,
    /// Every step, with the name of its run.
    steps: Vec<(&'a str, &'a Step)>,
    next: usize,
}

impl Replayer<'_> {
    /// Keeps the next step; where `notifying`, it is inserted and announced.
    fn keep_next(&mut self, kept: Kept, notifying: bool) -> Result<(), Failure> {
        let pass = self.next / self.steps.len();
        let (run, step) = self.steps[self.next % self.steps.len()];
        let key = format!("{run}-{}-{pass}", self.name);
        self.next += 1;
        if !notifying {
            return keep(&mut self.connection, kept, &key, step);
        }
        let number = step.number.to_string();
        let payload = format!(
            "{{\"class\":\"{CLASS}\",\"op\":\"update\",\"changes\":[{{\"key\":\"{key}\",\"version\":{number}}}],\
                \"seq\":{},\"epoch\":\"0123456789abcdef\"}}",
            self.next
        );
        let parameters = [key.as_str(), &number, &step.state, &payload];
        self.connection.execute("notifying", &parameters)?;
        Ok(())
    }
}

/// Clients that begin with different sessions: documents of all sizes are written at a time.
fn crew<'a>(
    database: &Database,
    recording: &'a Recording,
    name: &str,
    setting: &str,
) -> Result<Crew<Replayer<'a>>, Failure> {
    let mut number = 0;
    Crew::of(CLIENTS, || {
        let mut connection = database.connect_to_keep()?;
        connection.query(setting)?;
        connection.prepare(
            "notifying",
            &format!("WITH written AS ({INSERT}) {NOTIFYING}"),
        )?;
        let mut sessions: Vec<_> = recording.sessions.iter().collect();
        sessions.rotate_left(number * recording.sessions.len() / CLIENTS);
        number += 1;
        Ok(Replayer {
            connection,
            name: format!("{name}-{number}"),
            steps: sessions
                .iter()
                .flat_map(|session| {
                    session
                        .steps
                        .iter()
                        .map(|step| (session.run.as_str(), step))
                })
                .collect(),
            next: 0,
        })
    })
}

/// Steps per second, beside whole documents inserted. The extension announces every change as it does by
/// default and the plain `INSERT` none; two more rows compare like with like, both announced and neither.
pub fn rate(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let recording = Recording::read()?;
    let rounds = Database::with_fresh(connection, |database| {
        let mut tidying = database.connect()?;
        let default = "RESET state_cache.notify";
        let off = "SET state_cache.notify = off";
        let mut crews = [
            crew(database, &recording, "announced", default)?,
            crew(database, &recording, "silent", off)?,
            crew(database, &recording, "inserted", default)?,
            crew(database, &recording, "inserted-announced", default)?,
        ];
        let mut saved = 0.0;
        let rounds = plan.alternate([0, 1, 2, 3], |side: usize| {
            tidying.query("VACUUM history, state_head, state_snapshot")?;
            let kept = if side < 2 {
                Kept::Saved
            } else {
                Kept::Inserted
            };
            let crew = &mut crews[side];
            let cost = crew.work(Until::Done(STEPS), |client| {
                client.connection.keep_next(kept, side == 3)
            })?;
            if kept == Kept::Saved {
                saved += cost.done;
            }
            Ok(cost)
        })?;
        let versions: f64 = tidying.value("SELECT count(*) FROM state_snapshot")?;
        if versions != saved {
            return Err(format!("{versions} of {saved} versions were kept").into());
        }
        Ok(rounds)
    })?;
    let compare = |suffix: &str, against: &str, target: f64, sides| {
        Comparison {
            measured: format!("one step per transaction, {CLIENTS} clients{suffix}"),
            against: against.to_owned(),
            target: Target::AtLeast(target),
            sides,
        }
        .by_rate(&rounds)
    };
    let insert = "an `INSERT` of the whole document";
    let announced = "the same `INSERT`, with the same NOTIFY";
    Ok(vec![
        compare("", insert, 1.1, [0, 2]),
        compare("", announced, 1.0, [0, 3]),
        compare(", `state_cache.notify` off", insert, 1.0, [1, 2]),
    ])
}
