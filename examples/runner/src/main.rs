//! A runner: takes runs, does their steps, and stops when it has lost one. `docs/clients/runner.md` says why so.
//!
//! `runner 'host=… user=… dbname=…' OWNER LEASE_SECONDS`
//!
//! The variable `steps` of a run says how many steps there are, and `seconds` how long one takes. The exit
//! status is 0 when no run runs any more, 3 when another runner has its run now.

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

/// Takes the run that waits longest; waits as long as others have all that run. `None`: no run runs any more.
fn claim_next(
    client: &mut Client,
    owner: &str,
    lease: f64,
) -> Result<Option<Claim>, postgres::Error> {
    loop {
        let taken = client.query_opt(
            "SELECT run_id, token FROM state_context_claim_next($1, make_interval(secs => $2))",
            &[&owner, &lease],
        )?;
        if let Some(taken) = taken {
            return Ok(Some(Claim {
                run: taken.try_get(0)?,
                token: taken.try_get(1)?,
                lease,
            }));
        }
        let running = client.query_opt(
            "SELECT format('%s is owned by %s until %s', run_id, owner, lease_until) \
             FROM state_context_list(status => 'running', \"limit\" => 1)",
            &[],
        )?;
        let Some(running) = running else {
            return Ok(None);
        };
        println!("waiting: {}", running.try_get::<_, String>(0)?);
        thread::sleep(Duration::from_secs_f64(lease / 3.0));
    }
}

/// Why a runner stops.
enum Failure {
    /// Another runner has the run, or had it and has completed or deleted it.
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
        Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
            Err(Failure::Lost(said(&error))) // 40001
        }
        Err(error) => Err(error.into()),
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
        let again = [
            SqlState::T_R_SERIALIZATION_FAILURE, // 40001
            SqlState::T_R_DEADLOCK_DETECTED,     // 40P01
        ];
        if !error.code().is_some_and(|code| again.contains(code)) {
            return Err(error.into());
        }
        renew(client, claim)?; // fails with Lost if that is the reason
        // The run is ours: another change was faster, so once more.
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
        // One version: the result, that the step is done, and which one is next.
        under_claim(client, claim, |transaction| {
            transaction.execute(
                "SELECT state_context_append($1, 'results', $2)",
                &[&claim.run, &result],
            )?;
            transaction.execute(
                "SELECT state_context_set($1, 'done', $2)",
                &[&claim.run, &json!(step)],
            )?;
            transaction.execute(
                "SELECT state_context_step($1, $2)",
                &[&claim.run, &format!("step {}", step + 1)],
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

/// What the server says of an error: its message, and of a lost claim what has become of the run.
fn said(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => match error.detail() {
            Some(detail) if error.code() == &SqlState::T_R_SERIALIZATION_FAILURE => {
                detail.to_owned()
            }
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
    let [parameters, owner, seconds] = &arguments[..] else {
        return Err("runner 'host=… user=… dbname=…' OWNER LEASE_SECONDS".into());
    };
    let config: Config = parameters.parse()?;
    let lease = seconds.parse()?;
    let mut client = config.connect(NoTls)?;
    while let Some(claimed) = claim_next(&mut client, owner, lease).map_err(|error| said(&error))? {
        println!("claimed {} {}", claimed.run, claimed.token);
        match run_it(&config, &mut client, &claimed) {
            Ok(()) => println!("completed {}", claimed.run),
            Err(Failure::Lost(reason)) => {
                println!("lost: {reason}");
                return Ok(ExitCode::from(3));
            }
            Err(failure) => return Err(failure.to_string().into()),
        }
    }
    println!("nothing to do");
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        eprintln!("runner: {error}");
        ExitCode::FAILURE
    })
}
