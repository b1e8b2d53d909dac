//! Three tiers at work: two application servers play recorded runs against their near caches, Redis and PostgreSQL,
//! while Redis and its feeder are killed and come back; for each act it is shown which tier has answered, and how old
//! the answers were. In the end every tier must hold what PostgreSQL holds.
//!
//! `state_cache_tiers_demo [--seconds N] FILE.jsonl[.gz]`, on the server that `PGHOST`, `PGPORT`, `PGUSER` and
//! `PGDATABASE` name, in a database that has the extension, beside the program `state-cache-l2`. It leaves its rows
//! behind, so it is meant for a throwaway server (`make demo-tiers`). An application server is this program again,
//! with `--server NAME --redis URL`.

mod acts;
mod server;
mod stage;
mod tally;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

/// What goes wrong anywhere here.
type Failure = Box<dyn Error + Send + Sync>;

/// The application servers.
const SERVERS: [&str; 2] = ["A", "B"];
/// Runs that each of them plays at the same time.
const AGENTS: usize = 3;
/// The class of the runs, the one that recordings of runs go to.
const CLASS: &str = "run";
/// What the names of all keys in Redis begin with.
const PREFIX: &str = "demo:";
/// How far behind an answer of Redis may be here, at most: `max_lag_ms` and `alive_ms` of the feeder, and a second.
const BOUND: Duration = Duration::from_millis(MAX_LAG + ALIVE + 1000);
/// The feeder's `max_lag_ms`.
const MAX_LAG: u64 = 1000;
/// The feeder's `alive_ms`.
const ALIVE: u64 = 1500;

/// What the command line asks for.
struct Options {
    /// Recording to play.
    file: String,
    /// How long an act lasts at least.
    act: Duration,
    /// The name of an application server, and where Redis is: then the program is this server.
    server: Option<(String, String)>,
}

impl Options {
    fn parse(mut arguments: lexopt::Parser) -> Result<Self, Failure> {
        let (mut file, mut seconds, mut server, mut redis) = (None, 4.0, None, None);
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("seconds") => seconds = arguments.value()?.parse()?,
                Long("server") => server = Some(arguments.value()?.string()?),
                Long("redis") => redis = Some(arguments.value()?.string()?),
                Value(name) => file = Some(name.string()?),
                _ => return Err(argument.unexpected().into()),
            }
        }
        Ok(Options {
            file: file
                .ok_or("which recording? state_cache_tiers_demo [--seconds N] FILE.jsonl[.gz]")?,
            act: Duration::try_from_secs_f64(seconds)
                .map_err(|error| format!("--seconds {seconds}: {error}"))?,
            server: server.zip(redis),
        })
    }
}

/// The keys of all runs, those of both servers.
fn keys() -> Vec<String> {
    let of = |server: &&str| -> Vec<String> { (0..AGENTS).map(|n| key(server, n)).collect() };
    SERVERS.iter().flat_map(of).collect()
}

/// The key of a run that a server plays.
fn key(server: &str, agent: usize) -> String {
    format!("run-{server}-{agent}")
}

/// The connection string of the database that the environment names.
fn parameters() -> Result<String, Failure> {
    let get = |name: &str| {
        std::env::var(name).map_err(|_| format!("{name} is not set; use scripts/with-server"))
    };
    let (host, port, user, database) = (
        get("PGHOST")?,
        get("PGPORT")?,
        get("PGUSER")?,
        get("PGDATABASE")?,
    );
    Ok(format!(
        "host={host} port={port} user={user} dbname={database}"
    ))
}

fn run() -> Result<(), Failure> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    match &options.server {
        Some((name, redis)) => server::serve(name, redis, &options.file),
        None => acts::play(&options.file, options.act),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("state_cache_tiers_demo: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn options_are_read() {
        let parse = |words: &[&str]| Options::parse(lexopt::Parser::from_args(words));
        let options = parse(&["run.jsonl", "--seconds", "0.5"]).unwrap();
        assert_eq!(
            (options.file.as_str(), options.act),
            ("run.jsonl", Duration::from_millis(500))
        );
        assert!(options.server.is_none());
        let options = parse(&["--server", "A", "--redis", "redis://x", "f"]).unwrap();
        assert_eq!(
            options.server,
            Some(("A".to_owned(), "redis://x".to_owned()))
        );
        assert!(parse(&[]).is_err() && parse(&["f", "--seconds", "-1"]).is_err());
        assert!(parse(&["f", "--loud"]).is_err());
    }

    #[test]
    fn no_two_runs_share_a_key() {
        let mut keys = keys();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), SERVERS.len() * AGENTS);
    }
}
