//! Figures from the views `state_cache_stats` and `state_cache_workers`.

use crate::connect::{Database, Row};
use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::time::Instant;

/// Samples that sparklines show at most.
const KEPT: usize = 240;

/// Counters whose rates are told.
pub const COUNTERS: [&str; 27] = [
    "hits",
    "validated",
    "misses",
    "bypass_own",
    "bypass_writers",
    "bypass_snapshot",
    "bypass_serializable",
    "bypass_privileges",
    "bypass_off",
    "fills",
    "fills_refused",
    "evictions",
    "expirations",
    "too_large",
    "flushes",
    "states_written",
    "states_deleted",
    "duplicates_skipped",
    "conflicts",
    "notifications",
    "left_behind",
    "written_through",
    "behind_flushed",
    "evaluations",
    "flush_ms",
    "misses_changed",
    "misses_evicted",
];

/// What the views said at one moment.
pub struct Sample {
    at: Instant,
    /// The row of the whole database.
    pub total: Row,
    /// The rows of the classes.
    pub classes: Vec<Row>,
    /// The worker of this database and the others.
    pub workers: Vec<Row>,
    /// The name of the database, and the server's time.
    pub database: Row,
}

impl Sample {
    /// Asks the views.
    pub fn take(database: &mut Database) -> Result<Self, Failure> {
        let mut total = None;
        let mut classes = Vec::new();
        database.each(
            "SELECT * FROM @.state_cache_stats ORDER BY class",
            &[],
            |row| {
                match row.raw("class") {
                    None => total = Some(row),
                    Some(_) => classes.push(row),
                }
                Ok(())
            },
        )?;
        let workers = database.rows(
            "SELECT *, round(extract(epoch FROM lag), 1) AS lag_seconds, database = current_database() AS own
                FROM @.state_cache_workers ORDER BY database <> current_database(), backlog DESC, database",
            &[],
        )?;
        let about =
            "SELECT current_database() AS name, to_char(clock_timestamp(), 'HH24:MI:SS') AS time";
        let missing = || Failure::File("the views show nothing".to_owned());
        Ok(Self {
            at: Instant::now(),
            total: total.ok_or_else(missing)?,
            classes,
            workers,
            database: database.one(about, &[])?.ok_or_else(missing)?,
        })
    }
}

/// Rates, now and before.
pub struct Figures {
    /// The last sample.
    pub now: Sample,
    before: Option<Sample>,
    /// Reads, misses, writes and messages a second, the last ones at the end.
    pub history: [VecDeque<u64>; 4],
}

/// The counters that sparklines add up.
const LINES: [&[&str]; 4] = [
    &["hits", "validated"],
    &["misses"],
    &["states_written", "states_deleted"],
    &["notifications"],
];

impl Figures {
    /// Begins with a sample, which gives no rates yet.
    pub fn new(first: Sample) -> Self {
        Self {
            now: first,
            before: None,
            history: Default::default(),
        }
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: Sample) {
        self.before = Some(std::mem::replace(&mut self.now, sample));
        for (index, names) in LINES.iter().enumerate() {
            let rate: f64 = names.iter().map(|name| self.rate(name)).sum();
            let line = &mut self.history[index];
            line.push_back(rate.round() as u64);
            if line.len() > KEPT {
                line.pop_front();
            }
        }
    }

    /// How much a counter of the database has grown in a second.
    pub fn rate(&self, name: &str) -> f64 {
        let before = self.before.as_ref();
        before.map_or(0.0, |before| {
            growth(&self.now.total, Some(&before.total), name) / self.seconds()
        })
    }

    /// How much a counter of a class has grown in a second.
    pub fn class_rate(&self, class: &Row, name: &str) -> f64 {
        let Some(before) = &self.before else {
            return 0.0;
        };
        let former = before
            .classes
            .iter()
            .find(|row| row.raw("class") == class.raw("class"));
        growth(class, former, name) / self.seconds()
    }

    fn seconds(&self) -> f64 {
        let before = self.before.as_ref().map(|before| before.at);
        let passed = before.map_or(1.0, |before| {
            self.now.at.duration_since(before).as_secs_f64()
        });
        passed.max(0.001)
    }

    /// Which part of the reads L1 has answered; none without reads.
    pub fn hit_rate(&self) -> Option<f64> {
        let hits = self.rate("hits") + self.rate("validated");
        let all = hits + self.rate("misses");
        (all > 0.0).then(|| 100.0 * hits / all)
    }

    /// How long a flush took; none without flushes, and without `state_cache.track_timing`.
    pub fn flush_ms(&self) -> Option<f64> {
        let (flushes, time) = (self.rate("flushes"), self.rate("flush_ms"));
        (flushes > 0.0 && time > 0.0).then(|| time / flushes)
    }

    /// A value of the database as it is now.
    pub fn value(&self, name: &str) -> f64 {
        self.now.total.number(name).unwrap_or(0.0)
    }

    /// The row of this database's worker.
    pub fn worker(&self) -> Option<&Row> {
        self.now.workers.iter().find(|row| row.flag("own"))
    }

    /// All of it for a program.
    pub fn json(&self) -> String {
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        let rates: Map<String, Value> = COUNTERS
            .iter()
            .map(|name| ((*name).to_owned(), json!(rounded(self.rate(name)))))
            .collect();
        let worker = self.worker();
        let of_worker = |name: &str| worker.and_then(|row| row.number(name));
        json!({
            "database": self.now.database.text("name"),
            "time": self.now.database.text("time"),
            "seconds": rounded(self.seconds()),
            "per_second": rates,
            "hit_percent": self.hit_rate().map(rounded),
            "flush_ms": self.flush_ms().map(rounded),
            "entries": self.value("entries"),
            "memory_used": self.value("memory_used"),
            "memory_total": self.value("memory_total"),
            "dirty": self.value("dirty"),
            "worker": worker.and_then(|row| row.text("state")),
            "backlog": of_worker("backlog"),
            "lag_seconds": of_worker("lag_seconds"),
            "untold": of_worker("untold"),
        })
        .to_string()
    }
}

/// How much a counter has grown; one that is smaller than before began anew.
fn growth(now: &Row, before: Option<&Row>, name: &str) -> f64 {
    let now = now.number(name).unwrap_or(0.0);
    let before = before.and_then(|row| row.number(name)).unwrap_or(0.0);
    if now >= before { now - before } else { now }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn sample(at: Instant, hits: u64, misses: u64) -> Sample {
        let row = |text: String| Row::parse(text).unwrap();
        let counts = format!("\"hits\": {hits}, \"misses\": {misses}");
        Sample {
            at,
            total: row(format!("{{\"class\": null, {counts}}}")),
            classes: vec![row(format!("{{\"class\": \"run\", {counts}}}"))],
            workers: Vec::new(),
            database: row("{\"name\": \"x\", \"time\": \"t\"}".to_owned()),
        }
    }

    #[test]
    fn rates_are_of_a_second_and_survive_a_restart() {
        let start = Instant::now();
        let mut figures = Figures::new(sample(start, 100, 0));
        assert_eq!(figures.rate("hits"), 0.0);
        figures.add(sample(start + Duration::from_secs(2), 280, 20));
        assert_eq!((figures.rate("hits"), figures.rate("misses")), (90.0, 10.0));
        assert_eq!(figures.hit_rate(), Some(90.0));
        let class = figures.now.classes[0].clone();
        assert_eq!(figures.class_rate(&class, "hits"), 90.0);
        figures.add(sample(start + Duration::from_secs(3), 5, 0));
        assert_eq!(figures.rate("hits"), 5.0);
        assert_eq!(figures.history[0], [90, 5]);
    }
}
