//! From 0.1.0 to this release: the library of this one works with an installation of that one, the step from one to
//! the other leaves what a new installation has, and all that was stored.

mod data;
mod library;
mod live;
mod surface;

use postgres::Client;
use state_cache_server_tests::{Server, Sql};

/// The release that installations are updated from.
const OLD: &str = "0.1.0";

/// A server that preloads the library, and has no extension yet.
fn server(settings: &[&str]) -> Server {
    Server::without_extension(&[&["shared_preload_libraries = 'state_cache'"], settings].concat())
}

/// A session in a database of its own that has what the old release installed, in a schema of its own.
fn old_installation(server: &Server, database: &str) -> Client {
    server
        .connect()
        .run(&format!("CREATE DATABASE \"{database}\""));
    let mut client = server.connect_to(database);
    client.run(&format!("CREATE EXTENSION state_cache VERSION '{OLD}'"));
    client
}

/// The version of what is installed.
fn installed(client: &mut Client) -> String {
    client.text("SELECT extversion FROM pg_extension WHERE extname = 'state_cache'")
}
