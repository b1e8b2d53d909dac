//! Replays a recorded agent run twice, through `state_cache` and through one plain upsert per change, and
//! prints what each cost, with the invalidations that a second connection heard of. Then the agents of a swarm make
//! a recorded run between them.
//!
//! `state_cache_demo [--rounds N] [--payloads N] FILE.jsonl[.gz]`, on the server that `PGHOST`, `PGPORT`,
//! `PGUSER` and `PGDATABASE` name, in a database that has the extension. It leaves its rows behind, so it is
//! meant for a throwaway server (`make demo`).

mod listener;
mod replay;
mod report;
mod script;
mod swarm;

use std::error::Error;
use std::process::ExitCode;

use lexopt::prelude::*;
use postgres::{Client, Config, NoTls};

use listener::Listener;
use replay::{Cost, Replay, Side};
use script::Script;
use state_cache_demo::{change, trace};

/// What the command line asks for.
struct Options {
    /// Recording to replay.
    file: String,
    /// Measured rounds of each side; the medians are shown.
    rounds: usize,
    /// How many invalidations are shown in full.
    payloads: usize,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, Box<dyn Error>> {
        let (mut file, mut rounds, mut payloads) = (None, 5, 3);
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("rounds") => rounds = arguments.value()?.parse::<usize>()?.max(1),
                Long("payloads") => payloads = arguments.value()?.parse()?,
                Value(name) => file = Some(name.string()?),
                _ => return Err(argument.unexpected().into()),
            }
        }
        let file = file.ok_or(
            "which recording? state_cache_demo [--rounds N] [--payloads N] FILE.jsonl[.gz]",
        )?;
        Ok(Options {
            file,
            rounds,
            payloads,
        })
    }
}

/// Connects to the server that the environment names.
fn connect() -> Result<Client, Box<dyn Error>> {
    let get = |name: &str| {
        std::env::var(name).map_err(|_| format!("{name} is not set; use scripts/with-server"))
    };
    Ok(Config::new()
        .host(&get("PGHOST")?)
        .port(get("PGPORT")?.parse()?)
        .user(&get("PGUSER")?)
        .dbname(&get("PGDATABASE")?)
        .application_name("state_cache_demo")
        // The listener counts the messages of each round: they go with the commits, before the end of the round.
        .options("-c state_cache.notify=commit")
        .connect(NoTls)?)
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    let recording = trace::read(&options.file)?;
    report::heading(&options.file, &recording);

    let listener = Listener::start(connect()?)?;
    let mut replay = Replay::new(connect()?, &recording)?;
    let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
    // Round 0 warms up. The sides take turns in going first, so that neither gains from its place.
    for round in 0..=options.rounds {
        let sides = if round % 2 == 0 {
            [Side::Plain, Side::StateCache]
        } else {
            [Side::StateCache, Side::Plain]
        };
        listener::begin_round(replay.client())?;
        for side in sides {
            let cost = replay.round(side, round)?;
            if round > 0 {
                costs[side as usize].push(cost);
            }
        }
    }
    replay.verify(options.rounds)?;
    let kept = replay.kept(options.rounds)?;
    let heard = listener.finish(replay.client())?;

    let [plain, cached] = costs.map(Cost::median);
    report::table(&recording, &plain, &cached, options.rounds);
    report::kept(&kept);
    report::invalidations(&heard, options.payloads);

    let script = Script::read()?;
    let listener = Listener::start(connect()?)?;
    let story = swarm::play(&script, connect)?;
    let heard = listener.finish(replay.client())?;
    report::swarm(&script, &story, &heard);
    report::more();
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What the server said is behind an error that only says that it is the server's.
            let cause = error
                .source()
                .map_or(String::new(), |cause| format!(": {cause}"));
            eprintln!("state_cache_demo: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, Box<dyn Error>> {
        Options::parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn options_are_read_in_any_order() {
        let options = parse(&["--rounds", "0", "run.jsonl", "--payloads=50"]).unwrap();
        assert_eq!(options.file, "run.jsonl");
        assert_eq!((options.rounds, options.payloads), (1, 50));
        let options = parse(&["run.jsonl"]).unwrap();
        assert_eq!((options.rounds, options.payloads), (5, 3));
    }

    #[test]
    fn what_is_no_option_is_an_error() {
        for wrong in [
            &[][..],
            &["--round", "f"],
            &["--rounds"],
            &["--rounds", "many", "f"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
