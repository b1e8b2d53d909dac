//! Prints what changes as it comes, until it is stopped.
//!
//! `subscriber 'host=… dbname=…'`

use state_cache_client::{Error, StateCache};
use std::process::ExitCode;
use tokio::sync::broadcast::error::RecvError;

async fn follow(parameters: &str) -> Result<(), Error> {
    let cache = StateCache::builder()
        .connection(parameters)
        .connect()
        .await?;
    let mut events = cache.events();
    loop {
        match events.recv().await {
            Ok(event) => println!("{event:?}"),
            Err(RecvError::Lagged(missed)) => println!("({missed} events not shown)"),
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let [parameters] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("subscriber 'host=… user=… dbname=…'".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(follow(parameters))?)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("subscriber: {error}");
            ExitCode::FAILURE
        }
    }
}
