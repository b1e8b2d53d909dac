//! A standby of the measured server, for as long as a row is measured.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::wire::Connection;

/// How long the standby may take to come up, and to catch up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The standby: it listens beside its primary, on the next port.
pub struct Standby {
    port: u16,
    /// Stops it and removes its data.
    stop: String,
    primary: Connection,
}

impl Standby {
    /// Copies the primary and starts. Only the server's own user may do that, so the server does it itself.
    pub fn start(mut primary: Connection) -> Result<Self, Failure> {
        let bin = std::env::var("STATE_CACHE_BIN")
            .map_err(|_| "STATE_CACHE_BIN is not set; run this under scripts/with-server")?;
        let data: String = primary.value("SHOW data_directory")?;
        let sockets: String = primary.value("SHOW unix_socket_directories")?;
        let port: u16 = primary.value("SHOW port")?;
        let user: String = primary.value("SELECT session_user")?;
        let (copy, next) = (format!("{data}-standby"), port + 1);
        let stop = format!("{bin}/pg_ctl --pgdata={copy} --mode=immediate stop; rm -rf {copy}");
        let start = format!(
            "{bin}/pg_basebackup --write-recovery-conf --checkpoint=fast --host={sockets} --port={port} \
                --username={user} --pgdata={copy} && \
             {bin}/pg_ctl --pgdata={copy} --options=\"-p {next}\" --log={copy}/log --wait start"
        );
        run(&mut primary, &start)?;
        Ok(Self {
            port: next,
            stop,
            primary,
        })
    }

    /// A session on it.
    pub fn connect(&self, database: &str) -> Result<Connection, Failure> {
        Connection::open_at(self.port, database)
    }

    /// Waits until it has replayed what its primary has written.
    pub fn catch_up(&mut self) -> Result<(), Failure> {
        let target: String = self.primary.value("SELECT pg_current_wal_insert_lsn()")?;
        let mut standby = self.connect("postgres")?;
        let begin = Instant::now();
        while standby.value::<String>(&format!("SELECT pg_last_wal_replay_lsn() >= '{target}'"))?
            != "t"
        {
            if begin.elapsed() > PATIENCE {
                return Err("the standby does not catch up".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let stop = std::mem::take(&mut self.stop);
        if let Err(error) = run(&mut self.primary, &stop) {
            eprintln!("the standby was not stopped: {error}");
        }
    }
}

/// Lets the server run a command of the shell. What the command leaves running must not hold the server's pipes.
fn run(connection: &mut Connection, command: &str) -> Result<(), Failure> {
    connection.query(&format!(
        "COPY (SELECT 1) TO PROGRAM $$({command}) >/dev/null 2>&1 </dev/null$$"
    ))?;
    Ok(())
}
