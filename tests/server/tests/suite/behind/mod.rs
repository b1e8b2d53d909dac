//! Write-behind: what the worker writes and when, and what becomes of changes that L3 does not hold yet when
//! something goes wrong.

mod crash;
mod damage;
mod faults;
mod installations;
mod leaving;
mod poison;
mod rate;
mod rows_go;
mod stress;
mod writers;

use postgres::Client;
use state_cache_server_tests::{Server, Sql, eventually};
use std::time::{Duration, Instant};

/// So that the worker writes nothing by itself.
pub const LONG: &str = "state_cache.flush_interval = '1h'";

/// A server with a `behind` class `left` whose worker takes changes.
fn server(settings: &[&str]) -> Server {
    let server = Server::new(settings);
    let mut client = server.connect();
    client.run("SELECT state_class_define('left', write_mode => 'behind')");
    await_accepting(&mut client);
    server
}

/// Waits until commits of this session are left to the worker, and leaves nothing dirty itself.
pub fn await_accepting(client: &mut Client) {
    let before = client.counter("left_behind");
    let mut tries = 0;
    eventually("the worker to accept changes", || {
        tries += 1;
        client.run(&format!(
            "SELECT state_set('accepting', '{tries}', class => 'left')"
        ));
        client.counter("left_behind") > before
    });
    client.run("SELECT state_delete('accepting', class => 'left')");
    client.run("DELETE FROM state_head WHERE class = 'left' AND key = 'accepting'");
}

/// Keys of the class that L3 does not hold in their newest version.
fn unwritten(client: &mut Client) -> Vec<String> {
    client
        .rows("SELECT key FROM state_cache_unwritten WHERE class = 'left' ORDER BY 1")
        .into_iter()
        .map(|row| row[0].clone())
        .collect()
}

/// Waits until nothing of the class is dirty, and says how long that took.
fn await_written(client: &mut Client) -> Duration {
    let start = Instant::now();
    eventually("the worker to write", || unwritten(client).is_empty());
    start.elapsed()
}

/// Version and document of a state of the class as the functions have them, and as the tables do.
fn seen_and_stored(client: &mut Client, key: &str) -> (String, String) {
    let seen = client.text(&format!(
        "SELECT coalesce('v' || state_version('{key}', class => 'left') || ' ' || state_get_text('{key}', class => \
            'left'), 'absent')"
    ));
    let stored = client.text(&format!(
        "SELECT coalesce((SELECT 'v' || version || ' ' || state FROM state_current
            WHERE class = 'left' AND key = '{key}'), 'absent')"
    ));
    (seen, stored)
}

/// The worker's process, 0 while there is none.
fn worker(client: &mut Client) -> u32 {
    let sql = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity
        WHERE backend_type = 'state_cache worker' AND datname = current_database()";
    client.number(sql).try_into().unwrap()
}

/// Changes the configuration while the server runs.
fn reload(server: &Server, setting: &str) {
    server.configure(&[setting]);
    server.connect().run("SELECT pg_reload_conf()");
}
