//! When something is run again, and after which pause.

use crate::builder::Retries;
use crate::link::random;
use std::time::Duration;

impl Retries {
    /// The pause before an attempt, the first one being number 1; `None` if there is to be no further one.
    pub(crate) fn pause(&self, attempt: u32) -> Option<Duration> {
        if attempt > self.attempts {
            return None;
        }
        let doubled = self
            .first_pause
            .saturating_mul(1 << attempt.saturating_sub(2).min(20));
        // Half of it by chance: those who met must not meet again.
        let share = 0.5 + random() as f64 / u64::MAX as f64 / 2.0;
        Some(doubled.min(self.longest_pause).mul_f64(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_end() {
        let retries = Retries {
            attempts: 100,
            first_pause: Duration::from_millis(2),
            longest_pause: Duration::from_millis(50),
        };
        for attempt in 2..=100 {
            let whole =
                Duration::from_millis(2 << (attempt - 2).min(20)).min(retries.longest_pause);
            for _ in 0..20 {
                let pause = retries.pause(attempt).unwrap_or_default();
                assert!(pause <= whole && pause >= whole / 2, "{attempt}: {pause:?}");
            }
        }
        assert_eq!(retries.pause(101), None);
    }
}
