//! `state-cache-l2`: keeps Redis right for state_cache. [`feeder`] says how.

#![forbid(unsafe_code)]

mod config;
mod error;
mod feeder;
mod inbox;
mod link;
mod message;
mod metrics;
mod sink;

use clap::Parser;
use config::{Config, Options};
use error::Error;
use feeder::Order;
use metrics::Metrics;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let given = Options::parse();
    let outcome = start(given);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Also where logging was not set up.
            eprintln!("state-cache-l2: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(given: Options) -> Result<(), Error> {
    let options = given.clone().with_file()?;
    log(&options)?;
    // An error only if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::new(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Configuration(error.to_string()))?;
    runtime.block_on(serve(given, config))
}

/// Feeds until told to end.
async fn serve(given: Options, mut config: Config) -> Result<(), Error> {
    let metrics =
        Arc::new(Metrics::new().map_err(|error| Error::Configuration(error.to_string()))?);
    let (sender, mut orders) = watch::channel(Order::Run);
    let signals = tokio::spawn(obey(sender));
    let shown = config
        .listen
        .map(|address| tokio::spawn(metrics::serve(address, metrics.clone())));
    let ended = async {
        match shown {
            None => std::future::pending().await,
            Some(task) => task.await.unwrap_or(Err(Error::Panicked)),
        }
    };
    let fed = async {
        loop {
            match feeder::run(&config, &metrics, &mut orders).await? {
                Order::Stop => return Ok(()),
                Order::Run => {}
                Order::Reload => match given
                    .clone()
                    .with_file()
                    .and_then(|options| Config::new(&options))
                {
                    Ok(read) => {
                        tracing::info!("the configuration was read again");
                        config = read;
                    }
                    Err(error) => tracing::error!(%error, "the configuration stays as it was"),
                },
            }
        }
    };
    let outcome = tokio::select! {
        outcome = fed => outcome,
        outcome = ended => outcome,
    };
    signals.abort();
    if let Err(error) = &outcome {
        tracing::error!(%error, "ending");
    }
    outcome
}

/// Turns signals into orders.
async fn obey(orders: watch::Sender<Order>) -> Result<(), std::io::Error> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let order = tokio::select! {
            _ = hangup.recv() => Order::Reload,
            _ = terminate.recv() => Order::Stop,
            _ = interrupt.recv() => Order::Stop,
        };
        tracing::info!(?order, "signal");
        orders.send_replace(order);
    }
}

fn log(options: &Options) -> Result<(), Error> {
    let wrong = |what: String| Error::Configuration(what);
    let filter = options.log.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(filter).map_err(|error| wrong(format!("log: {error}")))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match options.log_format.as_deref() {
        None | Some("json") => logs.json().flatten_event(true).init(),
        Some("text") => logs.init(),
        Some(other) => return Err(wrong(format!("log_format is json or text: {other}"))),
    }
    Ok(())
}
