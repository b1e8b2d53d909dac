//! Telling subscribers: what it costs the commits, and how long it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::crew::{CLIENTS, Crew, Until};
use crate::document::Document;
use crate::report::{Row, Target, Unit, median};
use crate::rounds::{Comparison, Plan, Side};
use crate::subscriber::{Subscriber, is_overflow};
use crate::wire::Connection;
use crate::{CLASS, Failure, store_for_all, tidy};

/// Size of the states here, in bytes of binary jsonb: small, so that it is the commits that cost.
const TINY: usize = 1024;
/// Where the figures are taken of how messages slow commits down.
const CROWDS: [usize; 2] = [16, 64];
/// Turns of a round: there are three sides, at two numbers of clients.
const TURNS: usize = 3;
/// How long one mode is measured in a round.
const WINDOW: Duration = Duration::from_millis(750);
/// Pause between two commits whose messages are waited for: longer than the worker rests between two
/// messages, so that the idle figures are those of an idle worker. It varies by up to as much again.
const PAUSE: Duration = Duration::from_millis(12);
/// When a message is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names that the commits take in turns whose messages are waited for.
const PROBES: u64 = 100;

/// How the sessions of a side tell subscribers.
fn mode(side: Side) -> &'static str {
    match side {
        Side::Cached => "SET state_cache.notify = worker",
        _ => "SET state_cache.notify = off",
    }
}

/// Commits per second while the worker tells one subscriber, against commits that tell nothing, and commits
/// that each send a notification of the same form.
pub fn commits(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, TINY)?;
    let plan = Plan {
        turns: plan.turns.min(TURNS),
        ..*plan
    };
    let mut rows = Vec::new();
    for clients in CROWDS {
        store_for_all(connection, CLASS, clients, &document)?;
        let mut crew = Crew::connect(
            clients,
            &[
                ("change", "SELECT state_set($1, $2)"),
                (
                    "notify",
                    "SELECT state_set($1, $2), pg_notify('state_updated', $3)",
                ),
            ],
        )?;
        let overflows = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&overflows);
        let subscriber = Subscriber::start(move |payload, _| {
            heard.fetch_add(u64::from(is_overflow(payload)), Ordering::Relaxed);
        })?;
        let rounds = plan.alternate([Side::Cached, Side::Plain, Side::Control], |side| {
            tidy(connection)?;
            crew.query(mode(side))?;
            crew.work(Until::Elapsed(plan.turn), |client| {
                let (number, mut text) = (client.number(), String::new());
                document.revise(&mut text, number);
                if side == Side::Control {
                    let key = client.key_name();
                    let payload = format!(
                        "{{\"class\":\"run\",\"op\":\"update\",\"changes\":[{{\"key\":\"{key}\",\
                            \"version\":{number}}}],\"seq\":{number},\"epoch\":\"0123456789abcdef\"}}"
                    );
                    client.execute_for_key("notify", &[&text, &payload])?;
                } else {
                    client.execute_for_key("change", &[&text])?;
                }
                Ok(())
            })
        })?;
        subscriber.end(connection)?;
        let compare = |against: &str, target: f64, side: usize| {
            let mut row = Comparison {
                measured: format!("commits, `notify` = `worker`, {clients} clients"),
                against: against.to_owned(),
                target: Target::AtLeast(target),
                sides: [0, side],
            }
            .by_rate(&rounds);
            row.sides += &format!("; {} overflows", overflows.load(Ordering::Relaxed));
            row
        };
        rows.push(compare("`notify` = `off`", 0.95, 1));
        rows.push(compare(
            "`notify` = `off` and one `pg_notify` per transaction",
            1.5,
            2,
        ));
    }
    Ok(rows)
}

/// What a subscriber heard.
enum Heard {
    /// The state of this number has changed.
    Probe(u64),
    /// Anything may have changed.
    Overflow,
}

/// Changes states now and then, and measures how long it takes from sending the COMMIT until the subscriber has
/// the message.
struct Prober {
    connection: Connection,
    document: Document,
    heard: Receiver<(Heard, Instant)>,
    number: u64,
    overflows: u64,
}

impl Prober {
    /// Probes for some time and returns milliseconds, one for each commit.
    fn probe(&mut self, mode: &str, window: Duration) -> Result<Vec<f64>, Failure> {
        self.connection
            .query(&format!("SET state_cache.notify = {mode}"))?;
        let (mut millis, mut text) = (Vec::new(), String::new());
        let started = Instant::now();
        while started.elapsed() < window {
            self.number += 1;
            let number = self.number % PROBES;
            self.document.revise(&mut text, self.number);
            self.connection.execute("begin", &[])?;
            self.connection
                .execute("change", &[&probe_name(number), &text])?;
            let sent = Instant::now();
            self.connection.execute("commit", &[])?;
            millis.push(self.receipt(number, sent)?.as_secs_f64() * 1e3);
            // 5 and 8 have no common divisor: every eighth of the pause has its turn.
            let part = u32::try_from(self.number * 5 % 8)?;
            std::thread::sleep(PAUSE + PAUSE * part / 8);
        }
        Ok(millis)
    }

    /// Waits for the message about a state, or one that says that all must be dropped.
    fn receipt(&mut self, number: u64, sent: Instant) -> Result<Duration, Failure> {
        loop {
            let heard = self.heard.recv_timeout(PATIENCE);
            let (heard, at) = heard.map_err(|_| "a change was not told")?;
            match heard {
                Heard::Probe(other) if other == number => return Ok(at.duration_since(sent)),
                Heard::Overflow if at >= sent => {
                    self.overflows += 1;
                    return Ok(at.duration_since(sent));
                }
                _ => {}
            }
        }
    }
}

/// Name of the state with a number, in a form that is easily found in a message.
fn probe_name(number: u64) -> String {
    format!("probe-{number}-")
}

/// Numbers of all probes in a message.
fn probes(payload: &str) -> impl Iterator<Item = u64> {
    payload
        .split(r#""probe-"#)
        .skip(1)
        .filter_map(|rest| rest.split_once('-')?.0.parse().ok())
}

/// The figure below which a part of all lies; no figures give none.
pub fn percentile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Time from COMMIT to the subscriber's receipt, without other load and with writers as fast as they can.
pub fn receipt(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let document = Document::with_size(connection, TINY)?;
    store_for_all(connection, CLASS, CLIENTS, &document)?;
    let mut session = Connection::open()?;
    for (name, sql) in [
        ("begin", "BEGIN"),
        ("change", "SELECT state_set($1, $2)"),
        ("commit", "COMMIT"),
    ] {
        session.prepare(name, sql)?;
    }
    let mut crew = Crew::connect(CLIENTS, &[("change", "SELECT state_set($1, $2)")])?;
    let (tell, heard) = channel();
    let subscriber = Subscriber::start(move |payload, at| {
        // The other end is gone when the measurement has failed.
        if is_overflow(payload) {
            let _ = tell.send((Heard::Overflow, at));
        }
        for number in probes(payload) {
            let _ = tell.send((Heard::Probe(number), at));
        }
    })?;
    let mut prober = Prober {
        connection: session,
        document,
        heard,
        number: 0,
        overflows: 0,
    };
    let load = Document::with_size(connection, TINY)?;
    let mut rows = Vec::new();
    for loaded in [false, true] {
        let modes = ["worker", "commit"];
        let mut rounds: [Vec<Vec<f64>>; 2] = Default::default();
        prober.overflows = 0;
        for round in 0..plan.rounds {
            for place in 0..modes.len() {
                let n = (round + place) % modes.len();
                crew.query(&format!("SET state_cache.notify = {}", modes[n]))?;
                tidy(connection)?;
                rounds[n].push(if loaded {
                    std::thread::scope(|scope| {
                        let prober = &mut prober;
                        let probing = scope.spawn(move || {
                            prober
                                .probe(modes[n], WINDOW)
                                .map_err(|error| error.to_string())
                        });
                        crew.work(Until::Elapsed(WINDOW), |client| {
                            let mut text = String::new();
                            load.revise(&mut text, client.number());
                            client.execute_for_key("change", &[&text])?;
                            Ok(())
                        })?;
                        let probed = probing.join().map_err(|_| "the prober panicked")?;
                        probed.map_err(Failure::from)
                    })?
                } else {
                    prober.probe(modes[n], WINDOW)?
                });
            }
        }
        let shown = |mode: usize| {
            let all: Vec<f64> = rounds[mode].concat();
            let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|part| percentile(&all, part));
            format!("{p50:.2}, {p95:.2}, {p99:.2} ms of {}", all.len())
        };
        let load = match loaded {
            false => "idle".to_owned(),
            true => format!("beside {CLIENTS} writers"),
        };
        rows.push(Row {
            measured: format!("COMMIT to the subscriber's receipt, {load}, `notify` = `worker`"),
            against: "`notify` = `commit`".to_owned(),
            target: Target::None,
            unit: Unit::Millis,
            figures: rounds[0].iter().map(|millis| median(millis)).collect(),
            sides: format!(
                "p50, p95, p99: {} against {}; {} overflows",
                shown(0),
                shown(1),
                prober.overflows
            ),
        });
    }
    subscriber.end(connection)?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_of_a_message_is_found() {
        let payload = r#"{"changes":[{"key":"run-1-2"},{"key":"probe-7-"},{"key":"probe-12-"}]}"#;
        assert_eq!(probes(payload).collect::<Vec<_>>(), [7, 12]);
        assert_eq!(probes(r#"{"key":"run-1-2"}"#).count(), 0);
        assert!(probes(&format!(r#""{}""#, probe_name(3))).eq([3]));
    }

    #[test]
    fn percentiles_are_figures_that_were_measured() {
        let figures: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            [0.5, 0.95, 0.99, 1.0].map(|part| percentile(&figures, part)),
            [50.0, 95.0, 99.0, 100.0]
        );
        assert_eq!(percentile(&[3.0], 0.5), 3.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
