//! Classes whose changes are left to the worker: what a change costs, and what is written of many.

use std::time::{Duration, Instant};

use crate::crew::{CLIENTS, Client, Crew, Until};
use crate::document::Document;
use crate::redis::{self, Persistence, Redis};
use crate::report::{Row, Target, Unit};
use crate::rounds::{Comparison, Cost, Plan, Side};
use crate::wire::Connection;
use crate::{Failure, SMALL, size, store_for_all, tidy};

/// The class that is measured.
const CLASS: &str = "behind";
/// The class whose written versions are counted.
const COUNTED: &str = "counted";
/// The interval of the worker's writes, as the server has it by default.
const INTERVAL: &str = "2s";
/// A turn of the class: two of the worker's writes belong to it, at the end of each interval.
const TURN: Duration = Duration::from_millis(4200);
/// A turn of a side that has nothing of that kind.
const OTHER_TURN: Duration = Duration::from_millis(1000);
/// The most rounds of such turns.
const ROUNDS: usize = 5;
/// How long a worker may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Few rounds of one long turn of each side.
fn long_turns(plan: &Plan, rounds: usize) -> Plan {
    Plan {
        rounds: plan.rounds.min(rounds),
        turns: 1,
        turn: TURN,
    }
}

/// Makes a class of write mode `behind` and waits until its changes are left to the worker.
pub fn define(connection: &mut Connection, class: &str, keep: u32) -> Result<(), Failure> {
    let interval: String = connection.value("SHOW state_cache.flush_interval")?;
    if interval != INTERVAL {
        return Err(format!("state_cache.flush_interval is {interval}, not {INTERVAL}").into());
    }
    connection.query(&format!(
        "SELECT state_class_define('{class}', write_mode => 'behind', keep => {keep})"
    ))?;
    let started = Instant::now();
    let mut number = 0;
    loop {
        number += 1;
        let left = format!(
            "SELECT state_set('wait', '{{\"number\": {number}}}', class => '{class}');
             SELECT count(*) FROM state_cache_unwritten WHERE class = '{class}' AND key = 'wait'"
        );
        let rows = connection.query(&left)?;
        if rows.last().and_then(|row| row.first()) == Some(&Some("1".to_owned())) {
            connection.query(&format!("SELECT state_flush('{class}')"))?;
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err("no worker accepts changes".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What became of the changes of the class so far: left to the worker, written through at once, written
/// by the worker (one for all changes of a state since its last write).
fn outcomes(connection: &mut Connection, class: &str) -> Result<[f64; 3], Failure> {
    let rows = connection.query(&format!(
        "SELECT left_behind, written_through, behind_flushed FROM state_cache_stats
         WHERE class = '{class}'"
    ))?;
    let mut outcomes = [0.0; 3];
    for (outcome, text) in outcomes.iter_mut().zip(rows.iter().flatten()) {
        *outcome = text.as_deref().unwrap_or("0").parse()?;
    }
    Ok(outcomes)
}

/// What to say of a row: a change that was written through was none of those that are measured.
fn remark(connection: &mut Connection, class: &str, before: [f64; 3]) -> Result<String, Failure> {
    let [left, through, flushed] = outcomes(connection, class)?;
    Ok(format!(
        "; the worker wrote {:.0} of {:.0} versions, {:.0} were written through",
        flushed - before[2],
        left - before[0],
        through - before[1]
    ))
}

/// One turn of changes in the class, which begins with nothing unwritten.
fn change(
    connection: &mut Connection,
    crew: &mut Crew,
    document: &Document,
    statement: &str,
) -> Result<Cost, Failure> {
    let cost = crew.work(Until::Elapsed(TURN), |client| {
        let text = revised(document, client);
        client.execute_for_key(statement, &[&text])?;
        Ok(())
    })?;
    // What is left must not be written in another side's turn.
    connection.query(&format!("SELECT state_flush('{CLASS}')"))?;
    Ok(cost)
}

/// The document as no client has written it before.
fn revised<C>(document: &Document, client: &Client<C>) -> String {
    let mut text = String::with_capacity(document.text().len());
    document.revise(&mut text, client.number());
    text
}

fn crew(clients: usize) -> Result<Crew, Failure> {
    let cached = format!("SELECT state_set($1, $2, class => '{CLASS}')");
    let text = format!("SELECT state_set_text($1, $2, class => '{CLASS}')");
    Crew::connect(
        clients,
        &[
            ("cached", &cached),
            ("text", &text),
            ("plain", "UPDATE plain SET state = $2 WHERE key = $1"),
            ("parse", "SELECT $1::text, $2::jsonb IS NULL"),
        ],
    )
}

/// A changed state in a transaction of its own, by one client.
pub fn one_client(
    connection: &mut Connection,
    plan: &Plan,
    target: f64,
) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    define(connection, CLASS, 1)?;
    store_for_all(connection, CLASS, 1, &document)?;
    let mut crew = crew(1)?;
    let before = outcomes(connection, CLASS)?;
    let rounds = long_turns(plan, ROUNDS).alternate([Side::Cached, Side::Plain], |side| {
        tidy(connection)?;
        if side == Side::Cached {
            return change(connection, &mut crew, &document, "cached");
        }
        crew.work(Until::Elapsed(OTHER_TURN), |client| {
            let text = revised(&document, client);
            client.execute_for_key("plain", &[&text])?;
            Ok(())
        })
    })?;
    let mut row = Comparison {
        measured: format!(
            "one changed {} state per transaction, `behind`, 1 client",
            size(SMALL)
        ),
        against: "the plain `UPDATE` to the same".to_owned(),
        target: Target::AtLeast(target),
        sides: [0, 1],
    }
    .by_rate(&rounds);
    row.sides += &remark(connection, CLASS, before)?;
    Ok(vec![row])
}

/// The same by several clients, against a Redis of each persistence; the one without any has the target. Against
/// the latter also with the document as text, for which there is a target of its own.
pub fn against_redis(
    connection: &mut Connection,
    plan: &Plan,
    target: f64,
    text_target: f64,
) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, SMALL)?;
    define(connection, CLASS, 1)?;
    store_for_all(connection, CLASS, CLIENTS, &document)?;
    let mut crew = crew(CLIENTS)?;
    let mut rows = Vec::new();
    let (cached, text) = ("cached", "text");
    for (statement, persistence, rounds, target) in [
        (cached, Persistence::None, ROUNDS, Target::AtLeast(target)),
        (cached, Persistence::EverySecond, 3, Target::None),
        (
            text,
            Persistence::None,
            ROUNDS,
            Target::AtLeast(text_target),
        ),
    ] {
        let by = if statement == text {
            " by `state_set_text`"
        } else {
            ""
        };
        let what = Comparison {
            measured: format!(
                "one changed {} state per transaction{by}, `behind`, {CLIENTS} clients",
                size(SMALL)
            ),
            against: format!("Redis `SET` of the same bytes, {}", persistence.described()),
            target,
            sides: [0, 1],
        };
        match Redis::start(persistence)? {
            Some(redis) => {
                let plan = long_turns(plan, rounds);
                rows.extend(beside(
                    connection, &plan, &mut crew, &document, statement, &redis, what,
                )?);
            }
            None => {
                let why = "redis-server is not installed; scripts/setup installs it";
                eprintln!("state_cache_bench: {why}");
                rows.push(Row {
                    measured: what.measured,
                    against: what.against,
                    target,
                    unit: Unit::Times,
                    figures: Vec::new(),
                    sides: why.to_owned(),
                });
            }
        }
    }
    Ok(rows)
}

/// Against one Redis. Where there is a target, a control beside it shows what any statement must cost that
/// takes a jsonb.
fn beside(
    connection: &mut Connection,
    plan: &Plan,
    crew: &mut Crew,
    document: &Document,
    statement: &str,
    redis: &Redis,
    what: Comparison,
) -> Result<Vec<Row>, Failure> {
    let mut others = Crew::<redis::Client>::of(CLIENTS, || redis.connect())?;
    let before = outcomes(connection, CLASS)?;
    let mut turn = |side: Side| {
        tidy(connection)?;
        match side {
            Side::Cached => change(connection, crew, document, statement),
            Side::Plain => others.work(Until::Elapsed(OTHER_TURN), |client| {
                let (key, text) = (client.key_name().to_owned(), revised(document, client));
                client.connection.set(&key, &text)
            }),
            Side::Control => crew.work(Until::Elapsed(OTHER_TURN), |client| {
                client.execute_for_key("parse", &[&revised(document, client)])?;
                Ok(())
            }),
        }
    };
    // The control reads a parameter of type jsonb, which the text is not.
    let mut rows = if matches!(what.target, Target::None) || statement != "cached" {
        let rounds = plan.alternate([Side::Cached, Side::Plain], &mut turn)?;
        vec![what.by_rate(&rounds)]
    } else {
        let control = Comparison {
            measured: format!("control: a statement that only reads the jsonb, {CLIENTS} clients"),
            against: what.against.clone(),
            target: Target::None,
            sides: [2, 1],
        };
        let rounds = plan.alternate([Side::Cached, Side::Plain, Side::Control], &mut turn)?;
        vec![what.by_rate(&rounds), control.by_rate(&rounds)]
    };
    if let Some(row) = rows.first_mut() {
        row.sides += &remark(connection, CLASS, before)?;
    }
    Ok(rows)
}

/// How many versions are written of many changes of few states.
pub fn written(connection: &mut Connection, target: f64) -> Result<Vec<Row>, Failure> {
    const CHANGES: u32 = 1000;
    const STATES: u32 = 10;
    const TIME: Duration = Duration::from_secs(10);
    define(connection, COUNTED, CHANGES)?;
    let document = Document::with_size(connection, SMALL)?;
    connection.prepare(
        "counted",
        &format!("SELECT state_set($1, $2, class => '{COUNTED}')"),
    )?;
    // The states of a run before this one must not be there.
    connection.query(&format!(
        "DELETE FROM state_snapshot WHERE class = '{COUNTED}';
         DELETE FROM state_head WHERE class = '{COUNTED}'"
    ))?;
    let started = Instant::now();
    let mut text = String::new();
    for number in 0..CHANGES {
        document.revise(&mut text, u64::from(number));
        connection.execute("counted", &[&format!("state-{}", number % STATES), &text])?;
        let next = TIME * (number + 1) / CHANGES;
        std::thread::sleep(next.saturating_sub(started.elapsed()));
    }
    connection.query(&format!("SELECT state_flush('{COUNTED}')"))?;
    let changed: u32 = connection.value(&format!(
        "SELECT sum(version) FROM state_head WHERE class = '{COUNTED}'"
    ))?;
    if changed < CHANGES {
        return Err(format!("{changed} of {CHANGES} changes arrived").into());
    }
    let rows: f64 = connection.value(&format!(
        "SELECT count(*) FROM state_snapshot WHERE class = '{COUNTED}'"
    ))?;
    Ok(vec![Row {
        measured: format!(
            "versions written for {CHANGES} changes of {STATES} states in {} s, `behind`",
            TIME.as_secs()
        ),
        against: String::new(),
        target: Target::AtMost(target),
        unit: Unit::Count,
        figures: vec![rows],
        sides: format!("{:.1} s", started.elapsed().as_secs_f64()),
    }])
}
