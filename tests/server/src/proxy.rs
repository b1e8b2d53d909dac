//! A connection pooler in front of a server.

use crate::home::as_server_user;
use crate::{Server, eventually};
use std::path::Path;
use std::process::{Child, Stdio};

const PORT: u16 = 6432;

/// A `pgbouncer` of one's own. It goes when dropped.
pub struct Proxy {
    parameters: String,
    keeper: Child,
}

impl Proxy {
    /// In front of `server`, with a `pool_mode`, and `pool` connections to the server for all clients.
    pub fn new(server: &Server, pool_mode: &str, pool: u32) -> Self {
        let home = server.host().display();
        let configuration = server.host().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             postgres = host={home} port=5432 user=postgres\n\
             [pgbouncer]\n\
             listen_port = {PORT}\n\
             unix_socket_dir = {home}\n\
             auth_type = any\n\
             pool_mode = {pool_mode}\n\
             default_pool_size = {pool}\n\
             logfile = {home}/pgbouncer.log\n"
        );
        std::fs::write(&configuration, text).unwrap();
        let keeper = as_server_user(Path::new("sh"))
            .args(["-c", KEEP, "keeper"])
            .arg(&configuration)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Self {
            parameters: format!("host={home} port={PORT} user=postgres dbname=postgres"),
            keeper,
        };
        eventually("pgbouncer to start (scripts/setup installs it)", || {
            postgres::Client::connect(&proxy.parameters, postgres::NoTls).is_ok()
        });
        proxy
    }

    /// How to connect through it.
    pub fn parameters(&self) -> &str {
        &self.parameters
    }
}

/// The end of the input comes whatever ends the process. The path is that of Debian's package, which is not
/// on everybody's PATH.
const KEEP: &str = r#"
trap '' INT TERM HUP
PATH=$PATH:/usr/sbin
pgbouncer --quiet "$1" &
read -r _
kill -KILL $!
wait
"#;

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
