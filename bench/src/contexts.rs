//! Runs: documents of a wanted size, and one variable set in a transaction of its own.

use std::fmt::Write;

use crate::crew::{CLIENTS, Crew, Until, all_keys};
use crate::document::{Document, Random};
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Comparison, Cost, Plan, each};
use crate::wire::{Connection, literal};
use crate::{CLASS, Failure, size, tidy, wal_position};

/// Size of the run whose variable is set, in bytes of binary jsonb.
const BYTES: usize = 20 * 1024;
/// The variable that is set, and what it is at first.
const FIRST: (&str, &str) = (
    "progress",
    r#"{"step":0,"finding":"000000 of the records match, the others need a review by the owner"}"#,
);
/// Announces a change as the extension announces its own. Parameter beside those of the update: the payload.
const NOTIFYING: &str = "SELECT pg_notify('state_updated', $3)";
/// The variable's record replaced in place. Parameters: key, record.
const UPDATE: &str =
    "UPDATE plain SET state = jsonb_set(state, '{variables,progress}', $2) WHERE key = $1";

/// The inputs of a run whose document has so many bytes of binary jsonb: the variables that are asked for, and
/// others, as many as there is room for.
pub fn inputs(
    connection: &mut Connection,
    bytes: usize,
    wanted: &[(String, String)],
) -> Result<String, Failure> {
    let composed = literal(Document::with_size(connection, 2 * bytes)?.text());
    let others = connection.query(&format!(
        "SELECT key, value -> 'value' FROM jsonb_each({composed}::jsonb -> 'variables')"
    ))?;
    let object = |members: &[(String, String)], note: &str| {
        let members: Vec<String> = members
            .iter()
            .map(|(name, value)| format!(r#""{name}":{value}"#))
            .collect();
        format!(r#"{{{},"note":"{note}"}}"#, members.join(","))
    };
    let mut members = wanted.to_vec();
    let fixed = size_of_run(connection, &object(&members, ""))?;
    if fixed > bytes {
        return Err(format!("{} variables take {fixed} of {bytes} bytes", wanted.len()).into());
    }
    for other in others {
        let [Some(name), Some(value)] = other.as_slice() else {
            return Err("a variable has no value".into());
        };
        members.push((name.clone(), value.clone()));
        if size_of_run(connection, &object(&members, ""))? > bytes {
            members.pop();
            break;
        }
    }
    let room = bytes - size_of_run(connection, &object(&members, ""))?;
    // A word has two bytes at least with the blank behind it.
    let note: String = Random::new(7)
        .sentence(room / 2 + 1)
        .chars()
        .take(room)
        .collect();
    Ok(object(&members, &note))
}

/// What the document of a run with these inputs takes. The run is not there afterwards.
fn size_of_run(connection: &mut Connection, inputs: &str) -> Result<usize, Failure> {
    let rows = connection.query(&format!(
        "BEGIN;
         SELECT state_context_create('run-1-1-sized', inputs => {});
         SELECT pg_column_size(state_get('run-1-1-sized'));
         ROLLBACK",
        literal(inputs)
    ))?;
    match rows.last().map(Vec::as_slice) {
        Some([Some(bytes)]) => Ok(bytes.parse()?),
        _ => Err("a run has no size".into()),
    }
}

/// Creates a run under every key of so many clients, and stores the same documents on the plain side.
fn create_for_all(
    connection: &mut Connection,
    clients: usize,
    inputs: &str,
) -> Result<(), Failure> {
    let (keys, inputs) = (all_keys(clients), literal(inputs));
    // Other rows have left states under these keys.
    for statement in [
        format!("SELECT count(state_delete(key)) FROM ({keys}) keys"),
        format!("SELECT count(state_context_create(key, inputs => {inputs})) FROM ({keys}) keys"),
        format!(
            "INSERT INTO plain SELECT key, state_get(key) FROM ({keys}) keys
             ON CONFLICT (key) DO UPDATE SET state = excluded.state"
        ),
        "VACUUM ANALYZE plain, state_head, state_snapshot".to_owned(),
    ] {
        connection.query(&statement)?;
    }
    Ok(())
}

/// Who sets the variable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setter {
    /// `state_context_set`, which announces the change as it does by default.
    Announced,
    /// `state_context_set` with `state_cache.notify` off.
    Silent,
    /// The plain `UPDATE`, which announces nothing.
    Plain,
    /// The plain `UPDATE`, announced on the same channel.
    PlainAnnounced,
}

const SETTERS: [Setter; 4] = [
    Setter::Announced,
    Setter::Silent,
    Setter::Plain,
    Setter::PlainAnnounced,
];

/// Clients of one side.
fn crew(clients: usize, setter: Setter) -> Result<Crew, Failure> {
    let statement = match setter {
        Setter::Announced | Setter::Silent => {
            format!("SELECT state_context_set($1, '{}', $2)", FIRST.0)
        }
        Setter::Plain => UPDATE.to_owned(),
        Setter::PlainAnnounced => format!("WITH written AS ({UPDATE}) {NOTIFYING}"),
    };
    let mut crew = Crew::connect(clients, &[("set", &statement)])?;
    if setter == Setter::Silent {
        crew.query("SET state_cache.notify = off")?;
    }
    Ok(crew)
}

/// One side's turn.
fn turn(
    connection: &mut Connection,
    crew: &mut Crew,
    setter: Setter,
    plan: &Plan,
) -> Result<Cost, Failure> {
    tidy(connection)?;
    let position = wal_position(connection)?;
    let cost = crew.work(Until::Elapsed(plan.turn), |client| {
        // No number is another crew's: its value would be there already, and a set that changes nothing is none.
        let number = client.number() * SETTERS.len() as u64 + setter as u64;
        let mut value = String::new();
        write!(
            value,
            "{{\"step\":{number},\"finding\":\"{number:06} of the records match, the others need a review by the \
                owner\"}}"
        )?;
        if matches!(setter, Setter::Announced | Setter::Silent) {
            client.execute_for_key("set", &[&value])?;
            return Ok(());
        }
        let record = format!(
            "{{\"key\":\"{}\",\"value\":{value},\"source\":\"step\",\"timestamp\":\"2026-11-21T09:17:05.{:06}Z\",\
                \"sensitivity\":\"internal\",\"mutable\":true}}",
            FIRST.0,
            number % 1_000_000
        );
        if setter == Setter::Plain {
            client.execute_for_key("set", &[&record])?;
            return Ok(());
        }
        let payload = format!(
            "{{\"class\":\"{CLASS}\",\"op\":\"update\",\"changes\":[{{\"key\":\"{}\",\"version\":{number}}}],\
                \"seq\":{number},\"epoch\":\"0123456789abcdef\"}}",
            client.key_name()
        );
        client.execute_for_key("set", &[&record, &payload])?;
        Ok(())
    })?;
    Ok(Cost {
        wal: wal_position(connection)? - position,
        ..cost
    })
}

/// The versions of all runs together. A run that was deleted and created again goes on counting.
fn versions(connection: &mut Connection, clients: usize) -> Result<f64, Failure> {
    connection.value(&format!(
        "SELECT sum(state_version(key)) FROM ({}) keys",
        all_keys(clients)
    ))
}

/// Fails unless every set has made a version of its run, and both sides have documents of the same size, but for
/// the digits of their numbers.
fn check_sets(
    connection: &mut Connection,
    clients: usize,
    made: f64,
    sets: f64,
) -> Result<(), Failure> {
    const DIGITS: usize = 64;
    let keys = all_keys(clients);
    if made != sets {
        return Err(format!("{sets} sets have made {made} versions").into());
    }
    let wrong: usize = connection.value(&format!(
        "SELECT count(*) FROM ({keys}) keys JOIN plain USING (key)
         WHERE abs(length(state::text) - length(state_get(key)::text)) > {DIGITS}"
    ))?;
    if wrong > 0 {
        return Err(format!("{wrong} documents of the two sides differ").into());
    }
    Ok(())
}

/// One variable of a run set in a transaction of its own, beside `jsonb_set` of the same document. The extension
/// announces every change as it does by default and the plain `UPDATE` none; two more rows compare like with like,
/// both announced and neither.
pub fn set(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let inputs = inputs(connection, BYTES, &[(FIRST.0.into(), FIRST.1.into())])?;
    let mut rows = Vec::new();
    for clients in [1, CLIENTS] {
        create_for_all(connection, clients, &inputs)?;
        let mut crews = Vec::new();
        for setter in SETTERS {
            crews.push(crew(clients, setter)?);
        }
        let (before, mut sets) = (versions(connection, clients)?, 0.0);
        let rounds = plan.alternate([0, 1, 2, 3], |side: usize| {
            let setter = SETTERS[side];
            let cost = turn(connection, &mut crews[side], setter, plan)?;
            if matches!(setter, Setter::Announced | Setter::Silent) {
                sets += cost.done;
            }
            Ok(cost)
        })?;
        let made = versions(connection, clients)? - before;
        check_sets(connection, clients, made, sets)?;
        let measured = format!(
            "one variable of a {} run set per transaction, {clients} client{}",
            size(BYTES),
            if clients == 1 { "" } else { "s" }
        );
        let compare = |suffix: &str, against: &str, target: f64, sides| {
            let comparison = Comparison {
                measured: format!("{measured}{suffix}"),
                against: against.to_owned(),
                target: Target::AtLeast(target),
                sides,
            };
            if clients == 1 {
                comparison.by_time(&rounds)
            } else {
                comparison.by_rate(&rounds)
            }
        };
        let update = "`UPDATE … SET state = jsonb_set(state, …)`";
        rows.extend([
            compare("", update, if clients == 1 { 1.0 } else { 1.3 }, [0, 2]),
            compare(
                "",
                &format!("the same {update}, with the same NOTIFY"),
                1.0,
                [0, 3],
            ),
            compare(", `state_cache.notify` off", update, 1.0, [1, 2]),
            wal_row(&measured, update, &rounds),
        ]);
    }
    Ok(rows)
}

fn wal_row(measured: &str, against: &str, rounds: &[[Cost; 4]]) -> Row {
    let bytes = |cost: &Cost| cost.wal / cost.done;
    let middle = |side: usize| median(&each(rounds, |round| bytes(&round[side])));
    Row {
        measured: format!("{measured}: WAL"),
        against: against.to_owned(),
        target: Target::AtLeast(8.0),
        unit: Unit::Times,
        figures: each(rounds, |round| bytes(&round[2]) / bytes(&round[0])),
        sides: format!("{:.0} against {:.0} bytes", middle(0), middle(2)),
    }
}
