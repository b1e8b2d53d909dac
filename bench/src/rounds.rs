//! The sides of a comparison in turns: whatever else the machine does meets all of them.

use std::ops::AddAssign;
use std::time::Duration;

use crate::Failure;
use crate::report::{Row, Target, Unit, median};

/// Which side of a comparison runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is measured.
    Cached,
    /// What it is measured against.
    Plain,
    /// The least that what is measured could cost, to see what bounds it.
    Control,
}

/// What a side did, and what that took.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// Operations.
    pub done: f64,
    /// Time.
    pub seconds: f64,
    /// Bytes of WAL, where they are counted.
    pub wal: f64,
}

impl Cost {
    /// Operations per second.
    pub fn rate(&self) -> f64 {
        self.done / self.seconds
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.seconds += other.seconds;
        self.wal += other.wal;
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Measured rounds; odd, so that one of them is the median.
    pub rounds: usize,
    /// How often each side runs in a round. The shorter the turns, the less a burst of other work (a slow
    /// disk, say) falls on one side alone.
    pub turns: usize,
    /// How long a turn takes, where time is what is given.
    pub turn: Duration,
}

impl Plan {
    /// Lets the sides run in turns and returns what each did in each round. A first turn of each warms up
    /// and is not counted. Which side goes first changes from turn to turn, so that none gains from its
    /// place.
    pub fn alternate<S: Copy, const N: usize>(
        &self,
        sides: [S; N],
        mut run: impl FnMut(S) -> Result<Cost, Failure>,
    ) -> Result<Vec<[Cost; N]>, Failure> {
        for side in sides {
            run(side)?;
        }
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let mut round = [Cost::default(); N];
            for turn in 0..self.turns {
                let forward = turn % 2 == 0;
                for place in 0..N {
                    let n = if forward { place } else { N - 1 - place };
                    round[n] += run(sides[n])?;
                }
            }
            rounds.push(round);
        }
        Ok(rounds)
    }
}

/// Which of two sides is shown in the table, against which other, and how.
pub struct Comparison {
    /// What was measured.
    pub measured: String,
    /// What it was measured against.
    pub against: String,
    /// What it has to reach.
    pub target: Target,
    /// Positions of the two sides in a round.
    pub sides: [usize; 2],
}

impl Comparison {
    /// How many times as fast the first side is as the second, with the time that an operation of each
    /// took.
    pub fn by_time<const N: usize>(self, rounds: &[[Cost; N]]) -> Row {
        let micros = |side: usize| 1e6 / median(&each(rounds, |round| round[side].rate()));
        let sides = format!(
            "{:.2} against {:.2} µs",
            micros(self.sides[0]),
            micros(self.sides[1])
        );
        self.row(rounds, sides)
    }

    /// The same, with the rates of both.
    pub fn by_rate<const N: usize>(self, rounds: &[[Cost; N]]) -> Row {
        let rate = |side: usize| median(&each(rounds, |round| round[side].rate()));
        let sides = format!(
            "{:.0} against {:.0} per second",
            rate(self.sides[0]),
            rate(self.sides[1])
        );
        self.row(rounds, sides)
    }

    /// How many times as long as the second side the first takes, with the time that an operation of each
    /// took.
    pub fn by_duration<const N: usize>(self, rounds: &[[Cost; N]]) -> Row {
        let [first, second] = self.sides;
        let figures = each(rounds, |round| round[second].rate() / round[first].rate());
        Row {
            figures,
            ..self.by_time(rounds)
        }
    }

    fn row<const N: usize>(self, rounds: &[[Cost; N]], sides: String) -> Row {
        let [first, second] = self.sides;
        Row {
            measured: self.measured,
            against: self.against,
            target: self.target,
            unit: Unit::Times,
            figures: each(rounds, |round| round[first].rate() / round[second].rate()),
            sides,
        }
    }
}

/// One figure of every round.
pub fn each<const N: usize>(rounds: &[[Cost; N]], figure: impl Fn(&[Cost; N]) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PLAN: Plan = Plan {
        rounds: 3,
        turns: 2,
        turn: Duration::ZERO,
    };

    #[test]
    fn a_round_adds_up_the_turns_of_each_side() {
        let mut order = Vec::new();
        let rounds = PLAN
            .alternate([Side::Cached, Side::Plain], |side| {
                order.push(side == Side::Cached);
                Ok(Cost {
                    done: if side == Side::Cached { 30.0 } else { 10.0 },
                    seconds: 2.0,
                    wal: 1.0,
                })
            })
            .unwrap();
        assert_eq!(rounds.len(), 3);
        assert_eq!(each(&rounds, |round| round[0].done), [60.0; 3]);
        assert_eq!(each(&rounds, |round| round[1].rate()), [5.0; 3]);
        // One turn of each to warm up; then in turns, each going first in its turn.
        assert_eq!(order[..6], [true, false, true, false, false, true]);
    }

    #[test]
    fn an_error_ends_the_rounds() {
        assert!(PLAN.alternate([Side::Plain], |_| Err("no".into())).is_err());
    }
}
