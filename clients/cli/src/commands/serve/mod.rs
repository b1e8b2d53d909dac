//! `serve`: a page for a browser that shows runs, their versions and the cache's figures.
//!
//! `guard` decides which requests are answered, `answers` answers them, `visible` says what of a document the viewer
//! may see, `live` tells browsers of changes, `shared` holds the connections. The page itself is in `page/`; the
//! program carries a copy.
//!
//! Whoever can reach the port and knows the token sees what the program's role may read. So the port is one of this
//! machine unless `--listen` says otherwise, and nothing is answered without the token.

mod answers;
mod guard;
mod live;
mod shared;
mod visible;

use crate::connect::Database;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use visible::Sensitivity;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The address and the port to listen on; port 0: one that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// A further name, with its port, that browsers may call the page by
    #[arg(long, value_name = "HOST:PORT")]
    pub host_name: Vec<String>,
    /// Show nothing of documents that is more sensitive
    #[arg(long, value_enum, default_value_t)]
    pub sensitivity: Sensitivity,
}

/// Answers until the program is stopped.
pub fn run(
    arguments: &Arguments,
    database: Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let address = arguments.listen;
    let wrong = |error: std::io::Error| Failure::file(address, &error);
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(address))
        .map_err(wrong)?;
    let bound = listener.local_addr().map_err(wrong)?;
    let guard = guard::Guard::new(bound, &arguments.host_name)?;
    let url = format!("http://{bound}/?token={}", guard.token());
    let live = live::start(database.parameters().clone());
    let shared = Arc::new(shared::Shared::new(database, arguments.sensitivity, live)?);
    let routes = answers::routes(shared, Arc::new(guard));
    if !bound.ip().is_loopback() {
        eprintln!(
            "state-cache: {bound} can be reached from other machines, and what is said there is not encrypted"
        );
    }
    // Connections wait in the listener's queue from here on.
    match output.json {
        true => output.line(&json!({ "url": url }).to_string())?,
        false => output.line(&url)?,
    }
    let served = runtime.block_on(async { axum::serve(listener, routes).await });
    runtime.shutdown_background();
    served.map_err(wrong)?;
    Ok(ExitCode::SUCCESS)
}
