//! What the command line asks for.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::prelude::*;

use crate::rounds::Plan;
use crate::{Failure, ROWS};

/// The most states of the row `scale` unless said otherwise.
const SCALE: usize = 100_000;

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    /// Names of the rows to measure.
    pub rows: Vec<String>,
    /// How much is measured of each.
    pub plan: Plan,
    /// The most states of the row `scale`.
    pub scale: usize,
    /// Draw what was measured before, and measure nothing.
    pub draw: bool,
    /// The options as they were given.
    given: Vec<String>,
    is_whole: bool,
}

impl Options {
    /// Reads the arguments.
    pub fn parse(mut arguments: lexopt::Parser) -> Result<Self, Failure> {
        let given = arguments.raw_args()?.as_slice().to_vec();
        let given = given.into_iter().map(OsString::into_string);
        let given = given
            .collect::<Result<_, _>>()
            .map_err(|_| "an option is no text")?;
        let mut rows: Vec<String> = ROWS.map(str::to_owned).to_vec();
        let (mut rounds, mut quick, mut scale, mut draw) = (None, false, SCALE, false);
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("rows") => {
                    let names = arguments.value()?.string()?;
                    rows = names.split(',').map(str::to_owned).collect();
                }
                Long("rounds") => rounds = Some(arguments.value()?.parse::<usize>()?),
                Long("scale") => scale = arguments.value()?.parse()?,
                Long("quick") => quick = true,
                Long("draw") => draw = true,
                _ => return Err(argument.unexpected().into()),
            }
        }
        if let Some(unknown) = rows.iter().find(|row| !ROWS.contains(&row.as_str())) {
            return Err(format!("no row {unknown}; there are {}", ROWS.join(", ")).into());
        }
        let plan = Plan {
            // An even number would have no middle one.
            rounds: rounds.unwrap_or(if quick { 3 } else { 7 }).max(1) | 1,
            turns: if quick { 2 } else { 8 },
            turn: Duration::from_millis(if quick { 150 } else { 250 }),
        };
        let is_whole = rows == ROWS && !quick;
        Ok(Options {
            rows,
            plan,
            scale,
            draw,
            given,
            is_whole,
        })
    }

    /// Whether all rows are measured, and none shortened: what the pages show is of such a run.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What somebody types to have the same measured.
    pub fn command(&self) -> String {
        match self.given.as_slice() {
            [] => "make bench".to_owned(),
            given => format!("make bench BENCH_OPTIONS='{}'", given.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, Failure> {
        Options::parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn without_options_all_is_measured() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.rows, ROWS);
        assert_eq!((options.plan.rounds, options.scale), (7, SCALE));
        assert!(options.is_whole() && !options.draw);
        assert_eq!(options.command(), "make bench");
    }

    #[test]
    fn options_are_read_and_repeated() {
        let options =
            parse(&["--rows", "updates,redis", "--rounds=4", "--scale", "10000"]).unwrap();
        assert_eq!(options.rows, ["updates", "redis"]);
        assert_eq!((options.plan.rounds, options.scale), (5, 10_000));
        assert!(!options.is_whole());
        assert_eq!(
            options.command(),
            "make bench BENCH_OPTIONS='--rows updates,redis --rounds=4 --scale 10000'"
        );
        assert!(!parse(&["--quick"]).unwrap().is_whole());
        assert!(parse(&["--scale", "1000000"]).unwrap().is_whole());
        assert!(parse(&["--draw"]).unwrap().draw);
    }

    #[test]
    fn what_is_no_option_is_an_error() {
        for wrong in [
            &["--row", "redis"][..],
            &["redis"],
            &["--rows"],
            &["--rows", "no"],
            &["--scale", "x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
