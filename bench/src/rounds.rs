//! Two sides in turns: whatever else the machine does meets both.

use std::time::Duration;

use crate::Failure;

/// Which side of a comparison runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is measured.
    Cached,
    /// What it is measured against.
    Plain,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Measured rounds; odd, so that one of them is the median.
    pub rounds: usize,
    /// How long a side runs in a round, where time is what is given.
    pub window: Duration,
    /// Transactions of each side in a round, where work is what is given.
    pub transactions: u64,
}

/// What both sides gave in one round.
#[derive(Clone, Copy)]
pub struct Round<T> {
    /// What is measured.
    pub cached: T,
    /// What it is measured against.
    pub plain: T,
}

impl Plan {
    /// Runs both sides in every round, after one that warms up and is not counted. The sides take turns
    /// in going first, so that neither gains from its place.
    pub fn alternate<T>(
        &self,
        mut run: impl FnMut(Side) -> Result<T, Failure>,
    ) -> Result<Vec<Round<T>>, Failure> {
        let mut rounds = Vec::new();
        for number in 0..=self.rounds {
            let round = if number % 2 == 0 {
                let plain = run(Side::Plain)?;
                let cached = run(Side::Cached)?;
                Round { cached, plain }
            } else {
                let cached = run(Side::Cached)?;
                let plain = run(Side::Plain)?;
                Round { cached, plain }
            };
            if number > 0 {
                rounds.push(round);
            }
        }
        Ok(rounds)
    }
}

/// One figure of every round.
pub fn each<T>(rounds: &[Round<T>], figure: impl Fn(&Round<T>) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}
