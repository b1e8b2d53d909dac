//! How many tasks there are of each status.

use crate::status::Status;
use serde::{Deserialize, Serialize};

/// A number for each status: how many tasks there are, or how many more there are than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([i64; 5]);

/// How many tasks a job has, as its document says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// All tasks.
    pub total: i64,
    /// Those that wait.
    pub pending: i64,
    /// Those that somebody works on.
    pub running: i64,
    /// Those that ended well.
    pub completed: i64,
    /// Those that ended in an error.
    pub failed: i64,
    /// Those that were given up.
    pub cancelled: i64,
    /// Whether there are tasks, and all have ended.
    pub is_complete: bool,
}

impl Counts {
    /// The number of a status.
    #[must_use]
    pub fn of(&self, status: Status) -> i64 {
        self.0[status as usize]
    }

    /// Counts so many tasks more, or fewer.
    pub fn add(&mut self, status: Status, tasks: i64) {
        let count = &mut self.0[status as usize];
        *count = count.saturating_add(tasks);
    }

    /// Counts a task that had one status and has another.
    pub fn moves(&mut self, from: Status, to: Status) {
        self.add(from, -1);
        self.add(to, 1);
    }

    /// All tasks.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.0
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Those that have not ended.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.of(Status::Pending)
            .saturating_add(self.of(Status::Running))
    }

    /// Whether there are tasks, and all have ended.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.total() > 0 && self.open() == 0
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 5]
    }

    /// These with others added to them; `None` where a number would be below zero, which no tasks can make.
    #[must_use]
    pub fn plus(&self, others: &Self) -> Option<Self> {
        let mut sum = *self;
        for (count, other) in sum.0.iter_mut().zip(others.0) {
            *count = count.checked_add(other).filter(|sum| *sum >= 0)?;
        }
        Some(sum)
    }

    /// As a job's document says them.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            total: self.total(),
            pending: self.of(Status::Pending),
            running: self.of(Status::Running),
            completed: self.of(Status::Completed),
            failed: self.of(Status::Failed),
            cancelled: self.of(Status::Cancelled),
            is_complete: self.is_complete(),
        }
    }
}

impl From<&Summary> for Counts {
    fn from(summary: &Summary) -> Self {
        let mut counts = Self::default();
        counts.add(Status::Pending, summary.pending);
        counts.add(Status::Running, summary.running);
        counts.add(Status::Completed, summary.completed);
        counts.add(Status::Failed, summary.failed);
        counts.add(Status::Cancelled, summary.cancelled);
        counts
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_job_without_tasks_is_not_complete() {
        assert!(!Counts::default().is_complete());
        let mut counts = Counts::default();
        counts.add(Status::Completed, 1);
        assert!(counts.is_complete());
        counts.add(Status::Running, 1);
        assert!(!counts.is_complete());
    }

    #[test]
    fn counts_never_go_below_zero() {
        let mut one_less = Counts::default();
        one_less.add(Status::Pending, -1);
        assert_eq!(Counts::default().plus(&one_less), None);
        let mut one = Counts::default();
        one.add(Status::Pending, 1);
        assert_eq!(one.plus(&one_less), Some(Counts::default()));
    }
}
