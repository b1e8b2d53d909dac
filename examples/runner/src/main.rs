//! A runner: claims a run, does its steps, and stops when it has lost the run. `docs/clients/runner.md` says why so.
//!
//! `runner 'host=… user=… dbname=…' RUN OWNER LEASE_SECONDS`
//!
//! The variable `steps` of the run says how many steps there are, and `seconds` how long one takes. The exit
//! status is 0 when the run has ended, 3 when another runner has it now.

use postgres::error::SqlState;
use postgres::{Client, Config, NoTls, Transaction};
use serde_json::{Value, json};
use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// The run that this process owns, as long as nobody else claims it.
struct Claim {
    run: String,
    token: i64,
    /// In seconds. The driver has no type for intervals, so SQL makes one of the number.
    lease: f64,
}

/// Waits until nobody else has the run. 55000: it has ended; 42704: there is no such run.
fn claim(
    client: &mut Client,
    run: &str,
    owner: &str,
    lease: f64,
) -> Result<Claim, postgres::Error> {
    loop {
        match client.query_one(
            "SELECT state_context_claim($1, $2, make_interval(secs => $3))",
            &[&run, &owner, &lease],
        ) {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                println!("waiting: {}", said(&error)); // 55P03
                thread::sleep(Duration::from_secs_f64(lease / 3.0));
            }
            row => {
                return Ok(Claim {
                    run: run.to_owned(),
                    token: row?.try_get(0)?,
                    lease,
                });
            }
        }
    }
}

/// Why a runner stops.
enum Failure {
    /// Another runner has the run (40001), or had it and has completed (55000) or deleted it (42704).
    Lost(String),
    /// Anything else.
    Other(postgres::Error),
}

fn renew(client: &mut Client, claim: &Claim) -> Result<(), Failure> {
    let renewed = client.execute(
        "SELECT state_context_renew($1, $2, make_interval(secs => $3))",
        &[&claim.run, &claim.token, &claim.lease],
    );
    match renewed {
        Ok(_) => Ok(()),
        Err(error) => match error.code().map(SqlState::code) {
            Some("40001" | "55000" | "42704") => Err(Failure::Lost(said(&error))),
            _ => Err(error.into()),
        },
    }
}

/// Renews three times in a lease, on connections of its own, until the run is lost or `done` is dropped.
fn keep(config: &Config, claim: &Claim, done: &Receiver<()>, lost: &Sender<()>) {
    let interval = Duration::from_secs_f64(claim.lease / 3.0);
    while done.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let renewed = match config.connect(NoTls) {
            Ok(mut client) => renew(&mut client, claim),
            Err(error) => Err(error.into()),
        };
        match renewed {
            Ok(()) => {}
            Err(Failure::Other(error)) => eprintln!("not renewed: {error}"), // the next attempt may still be in time
            Err(Failure::Lost(reason)) => {
                eprintln!("not renewed: {reason}");
                let _ = lost.send(()); // who waits for it may be gone already
                return;
            }
        }
    }
}

/// Runs `work` on the run in a transaction that is committed only if the run is still ours.
fn under_claim<T>(
    client: &mut Client,
    claim: &Claim,
    mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, postgres::Error>,
) -> Result<T, Failure> {
    loop {
        let error = match attempt(client, claim, &mut work) {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        let code = error.code().map_or("", SqlState::code).to_owned();
        if !["40001", "40P01", "55000", "42704"].contains(&code.as_str()) {
            return Err(error.into());
        }
        renew(client, claim)?; // fails with Lost if that is the reason
        if code == "55000" || code == "42704" {
            return Err(error.into()); // the run is ours: the work itself is wrong
        }
        // 40001 or 40P01, and the run is ours: another change was faster, so once more.
    }
}

fn attempt<T>(
    client: &mut Client,
    claim: &Claim,
    work: &mut impl FnMut(&mut Transaction<'_>) -> Result<T, postgres::Error>,
) -> Result<T, postgres::Error> {
    let mut transaction = client.transaction()?;
    transaction.execute(
        "SELECT state_context_fence($1, $2)",
        &[&claim.run, &claim.token],
    )?;
    let result = work(&mut transaction)?; // an error drops the transaction, which rolls back
    transaction.commit()?;
    Ok(result)
}

fn do_steps(client: &mut Client, claim: &Claim, lost: &Receiver<()>) -> Result<(), Failure> {
    let run: Value = under_claim(client, claim, |transaction| {
        transaction
            .query_one("SELECT state_context_get($1)", &[&claim.run])?
            .try_get(0)
    })?;
    let variable = |name: &str| &run["variables"][name]["value"];
    let steps = variable("steps").as_u64().unwrap_or(0);
    for step in variable("done").as_u64().unwrap_or(0) + 1..=steps {
        println!("step {step} begins");
        // Outside a transaction: it may take long.
        let Some(result) = do_step(step, variable("seconds").as_f64().unwrap_or(0.0), lost) else {
            return Err(Failure::Lost("its lease could not be renewed".to_owned()));
        };
        // One version: the result, and that the step is done.
        under_claim(client, claim, |transaction| {
            transaction.execute(
                "SELECT state_context_append($1, 'results', $2)",
                &[&claim.run, &result],
            )?;
            transaction.execute(
                "SELECT state_context_set($1, 'done', $2)",
                &[&claim.run, &json!(step)],
            )?;
            Ok(())
        })?;
        println!("step {step} saved");
    }
    Ok(())
}

/// What a step does. Here it takes its time; nothing if the run is lost meanwhile.
fn do_step(step: u64, seconds: f64, lost: &Receiver<()>) -> Option<Value> {
    let waited = lost.recv_timeout(Duration::from_secs_f64(seconds));
    (waited == Err(RecvTimeoutError::Timeout)).then(|| json!({"step": step}))
}

fn run_it(config: &Config, client: &mut Client, claim: &Claim) -> Result<(), Failure> {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        let (lost, is_lost) = mpsc::channel();
        scope.spawn(move || keep(config, claim, &is_done, &lost));
        let ended = do_steps(client, claim, &is_lost).and_then(|()| {
            under_claim(client, claim, |transaction| {
                transaction.execute("SELECT * FROM state_context_complete($1)", &[&claim.run])?;
                Ok(())
            })
        });
        if let Err(Failure::Other(_)) = ended {
            // Another runner need not wait for the end of the lease. If this fails too, it will.
            let _ = client.execute(
                "SELECT state_context_release($1, $2)",
                &[&claim.run, &claim.token],
            );
        }
        drop(done);
        ended
    })
}

/// What the server says of an error: its message, and the detail of a claim that others hold.
fn said(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => match error.detail() {
            Some(detail) if error.code() == &SqlState::LOCK_NOT_AVAILABLE => detail.to_owned(),
            _ => error.message().to_owned(),
        },
        None => error.to_string(),
    }
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        Self::Other(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(reason) => f.write_str(reason),
            Self::Other(error) => f.write_str(&said(error)),
        }
    }
}

fn start() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [parameters, run, owner, seconds] = &arguments[..] else {
        return Err("runner 'host=… user=… dbname=…' RUN OWNER LEASE_SECONDS".into());
    };
    let config: Config = parameters.parse()?;
    let mut client = config.connect(NoTls)?;
    let claimed = match claim(&mut client, run, owner, seconds.parse()?) {
        Ok(claimed) => claimed,
        Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
            println!("nothing to do: {}", said(&error)); // 55000
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(said(&error).into()),
    };
    println!("claimed {}", claimed.token);
    match run_it(&config, &mut client, &claimed) {
        Ok(()) => {
            println!("completed");
            Ok(ExitCode::SUCCESS)
        }
        Err(Failure::Lost(reason)) => {
            println!("lost: {reason}");
            Ok(ExitCode::from(3))
        }
        Err(failure) => Err(failure.to_string().into()),
    }
}

fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        eprintln!("runner: {error}");
        ExitCode::FAILURE
    })
}
