//! What the application servers have said, counted for each act: which tier has answered, how old the answers were.
//!
//! An answer is old if the next version was known to be committed before the read began; it is as old as the time
//! between the two. So what is counted as old is old for certain, and its age is never less than what is shown.

use std::collections::HashMap;
use std::time::Duration;

use crate::Failure;

/// The tiers as they are shown, in the order of [`state_cache_client::Tier::ALL`].
const TIERS: [&str; 3] = ["near cache", "Redis", "PostgreSQL"];

/// A read that was answered.
struct Read {
    tier: usize,
    key: String,
    version: i64,
    start: u64,
}

/// All that was said.
#[derive(Default)]
pub struct Tally {
    /// When each version was known to be committed, in microseconds since 1970.
    commits: HashMap<(String, i64), u64>,
    reads: Vec<Read>,
    failures: Vec<u64>,
    /// Reads that went back.
    pub back: Vec<String>,
    /// After quiet: what was said of each key.
    pub quiet: Vec<(String, [i64; 3])>,
}

impl Tally {
    /// Takes in a line (see `server`), heard at a time.
    pub fn take(&mut self, line: &str, heard: u64) -> Result<(), Failure> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["w", key, version, time] => {
                let place = (key.to_owned(), version.parse()?);
                self.commits.entry(place).or_insert(time.parse()?);
            }
            ["r", tier, key, version, start] => {
                let of = |tier: &state_cache_client::Tier| tier.name();
                let tier = state_cache_client::Tier::ALL
                    .iter()
                    .map(of)
                    .position(|it| it == tier);
                self.reads.push(Read {
                    tier: tier.ok_or_else(|| format!("no such tier: {line}"))?,
                    key: key.to_owned(),
                    version: version.parse()?,
                    start: start.parse()?,
                });
            }
            ["f"] => self.failures.push(heard),
            ["back", ..] => self.back.push(line.to_owned()),
            ["q", key, server, redis, near] => {
                let versions = [server.parse()?, redis.parse()?, near.parse()?];
                self.quiet.push((key.to_owned(), versions));
            }
            _ => return Err(format!("an application server said: {line}").into()),
        }
        Ok(())
    }

    /// How many answers each tier has given to reads that began since a time.
    pub fn answers_since(&self, from: u64) -> [usize; 3] {
        let mut answers = [0; 3];
        let since = self.reads.iter().filter(|read| read.start >= from);
        since.for_each(|read| answers[read.tier] += 1);
        answers
    }

    /// The age of an answer, if it was old.
    fn age(&self, read: &Read) -> Option<Duration> {
        let next = self.commits.get(&(read.key.clone(), read.version + 1))?;
        let age = read.start.checked_sub(*next).filter(|age| *age > 0)?;
        Some(Duration::from_micros(age))
    }

    /// The longest age of all.
    pub fn oldest(&self) -> Duration {
        self.reads
            .iter()
            .filter_map(|read| self.age(read))
            .max()
            .unwrap_or_default()
    }

    /// The lines about an act.
    pub fn lines(&self, from: u64, to: u64) -> Vec<String> {
        let during = |time: u64| (from..to).contains(&time);
        let reads: Vec<&Read> = self
            .reads
            .iter()
            .filter(|read| during(read.start))
            .collect();
        let mut lines = vec![format!(
            "  {:<12}{:>9}{:>8}{:>17}{:>14}{:>10}{:>10}",
            "tier", "answers", "share", "not the newest", "old by p50", "p99", "most"
        )];
        for (tier, name) in TIERS.iter().enumerate() {
            let of_tier: Vec<&&Read> = reads.iter().filter(|read| read.tier == tier).collect();
            let mut ages: Vec<Duration> =
                of_tier.iter().filter_map(|read| self.age(read)).collect();
            ages.sort_unstable();
            let age = |share: f64| percentile(&ages, share).map_or("-".to_owned(), milliseconds);
            let share = 100.0 * of_tier.len() as f64 / reads.len().max(1) as f64;
            lines.push(format!(
                "  {name:<12}{:>9}{:>8}{:>17}{:>14}{:>10}{:>10}",
                of_tier.len(),
                format!("{share:.1} %"),
                ages.len(),
                age(0.5),
                age(0.99),
                age(1.0)
            ));
        }
        let commits = self.commits.values().filter(|time| during(**time)).count();
        let failures = self.failures.iter().filter(|time| during(**time)).count();
        lines.push(format!(
            "  {commits} commits, {failures} reads or writes that failed"
        ));
        lines
    }
}

fn milliseconds(age: Duration) -> String {
    format!("{:.1} ms", age.as_secs_f64() * 1000.0)
}

fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let place = (sorted.len() as f64 * share) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.take(line, 50).unwrap();
        }
        tally
    }

    #[test]
    fn an_answer_is_as_old_as_the_next_version() {
        let tally = tally(&[
            "w k 1 1000",
            "w k 2 5000",
            // Saved again without a change.
            "w k 2 9000",
            "r near k 1 4000",
            "r l2 k 1 6000",
            "r l2 k 1 8000",
            "r server k 2 8000",
        ]);
        assert_eq!(tally.answers_since(0), [1, 2, 1]);
        assert_eq!(tally.answers_since(6001), [0, 1, 1]);
        assert_eq!(tally.oldest(), Duration::from_millis(3));
        let lines = tally.lines(0, 8001);
        assert!(
            lines[1].contains("near cache") && lines[1].ends_with('-'),
            "{lines:#?}"
        );
        assert!(
            lines[2].contains("Redis") && lines[2].contains("50.0 %"),
            "{lines:#?}"
        );
        assert!(lines[2].ends_with("3.0 ms"), "{lines:#?}");
        assert_eq!(lines[4].trim(), "2 commits, 0 reads or writes that failed");
        let lines = tally.lines(0, 8000);
        assert!(lines[2].ends_with("1.0 ms"), "{lines:#?}");
    }

    #[test]
    fn lines_that_nobody_says_are_errors() {
        let mut tally = tally(&["f", "back k 1 2", "q k 1 2 3"]);
        assert_eq!(tally.back, ["back k 1 2"]);
        assert_eq!(tally.quiet, [("k".to_owned(), [1, 2, 3])]);
        assert!(tally.lines(0, 100)[4].ends_with("1 reads or writes that failed"));
        for line in ["gone", "r moon k 1 2", "w k one 2", ""] {
            assert!(tally.take(line, 0).is_err(), "{line}");
        }
    }
}
