//! When a task is called next.

use super::task::{Next, Round, Task};
use crate::error::Result;
use std::time::{Duration, Instant};

/// Pauses that double, from the first to the longest, until there is a success.
#[derive(Debug, Clone)]
pub struct Backoff {
    pause: Duration,
    longest: Duration,
    until: Option<Instant>,
}

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);

impl Backoff {
    /// No pause yet.
    pub fn new(longest: Duration) -> Self {
        Self {
            pause: FIRST,
            longest,
            until: None,
        }
    }

    /// It failed: the next pause begins.
    pub fn failed(&mut self, now: Instant) {
        self.until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(self.longest);
    }

    /// It worked.
    pub fn succeeded(&mut self) {
        self.pause = FIRST;
        self.until = None;
    }

    /// When the pause is over; `None` if there is none.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether there is a pause now.
    pub fn pauses(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// A task, and what its last call said.
pub struct Scheduled {
    task: Box<dyn Task>,
    next: Next,
    retry: Backoff,
    /// The error that was logged last.
    pub logged: Option<String>,
    /// Its last call found no tables.
    found_no_tables: bool,
}

/// The longest pause after errors of a task.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Scheduled {
    /// A task that has not been called yet.
    pub fn new(task: Box<dyn Task>) -> Self {
        Self {
            task,
            next: Next::Now,
            retry: Backoff::new(LONGEST_PAUSE),
            logged: None,
            found_no_tables: false,
        }
    }

    /// As `pg_stat_activity` shows it.
    pub fn name(&self) -> &'static str {
        self.task.name()
    }

    /// Whether only this worker can do what is left.
    pub fn holds_work(&self) -> bool {
        self.task.holds_work()
    }

    /// Whether it has stopped in the middle of its work.
    pub fn is_busy(&self) -> bool {
        self.next == Next::Now && self.retry.until().is_none()
    }

    /// When it wants to be called without being woken, in microseconds since 2000, if it says so.
    pub fn due(&self) -> Option<i64> {
        match self.next {
            Next::At(time) => Some(time),
            Next::Now => Some(i64::MIN),
            Next::Woken => None,
        }
    }

    /// Whether it is to be called in a round at `now`, or in any of a worker that is `leaving`; `woken`: someone has
    /// woken the worker, or the clock has jumped.
    pub fn is_due(&self, now: i64, woken: bool, leaving: bool) -> bool {
        if leaving {
            // It is the last chance, whatever has failed before.
            return true;
        }
        match self.retry.until() {
            Some(until) => Instant::now() >= until,
            None => woken || self.due().is_some_and(|due| due <= now),
        }
    }

    /// How long the worker may wait for it; `None` for as long as it likes.
    pub fn wait(&self, now: i64) -> Option<Duration> {
        if let Some(until) = self.retry.until() {
            return Some(until.saturating_duration_since(Instant::now()));
        }
        let micros = self.due()?.saturating_sub(now).max(0);
        Some(Duration::from_micros(micros as u64))
    }

    /// Calls it.
    pub fn call(&mut self, round: Round) -> Result<Next> {
        self.task.run(round)
    }

    /// Its call found no tables; whether the one before found none either.
    pub fn found_no_tables(&mut self) -> bool {
        std::mem::replace(&mut self.found_no_tables, true)
    }

    /// What it said; `None` for an error.
    pub fn said(&mut self, next: Option<Next>) {
        match next {
            Some(next) => {
                self.next = next;
                self.retry.succeeded();
                self.logged = None;
                self.found_no_tables = false;
            }
            None => self.retry.failed(Instant::now()),
        }
    }
}
