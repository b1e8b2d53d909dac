//! The processes of the play: Redis, the feeder, the application servers. Each ends with its owner.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::{ALIVE, Failure, MAX_LAG, PREFIX, parameters};

/// How long a process may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, killed when dropped.
pub struct Process(Child);

impl Process {
    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The directory of the play, removed when dropped.
pub struct Stage {
    directory: PathBuf,
}

impl Stage {
    /// Makes the directory: where the throwaway server has its files, so that it goes with them, if there is one.
    pub fn new() -> Result<Self, Failure> {
        let parent = std::env::var_os("PGHOST")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let directory = parent.join(format!("tiers.{}", std::process::id()));
        std::fs::create_dir(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self { directory })
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("redis")
    }

    /// Where Redis is.
    pub fn redis_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Starts a Redis that keeps nothing, and waits until it answers.
    pub fn redis(&self) -> Result<Process, Failure> {
        let socket = self.socket();
        // Of one that was killed.
        let _ = std::fs::remove_file(&socket);
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--unixsocketperm", "700", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server: {error}: make setup installs it"))?;
        let mut process = Process(child);
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if let Some(status) = process.0.try_wait()? {
                return Err(format!("redis-server has ended: {status}").into());
            }
            if started.elapsed() > PATIENCE {
                return Err("redis-server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// Starts the feeder.
    pub fn feeder(&self) -> Result<Process, Failure> {
        let program = std::env::current_exe()?.with_file_name("state-cache-l2");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.feeder_log())?;
        let (alive, max_lag) = (ALIVE.to_string(), MAX_LAG.to_string());
        let child = Command::new(&program)
            .args(["--postgres", &parameters()?, "--redis", &self.redis_url()])
            .args(["--prefix", PREFIX, "--heartbeat-ms", "300"])
            .args(["--alive-ms", &alive, "--max-lag-ms", &max_lag])
            .args(["--log-format", "text"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| {
                format!(
                    "{}: {error}: build state_cache_l2_feeder",
                    program.display()
                )
            })?;
        Ok(Process(child))
    }

    fn feeder_log(&self) -> PathBuf {
        self.directory.join("feeder.log")
    }

    /// What the feeder has logged.
    pub fn feeder_said(&self) -> String {
        std::fs::read_to_string(self.feeder_log()).unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is gone already is no loss.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// An application server.
pub struct Server {
    process: Process,
    words: ChildStdin,
}

impl Server {
    /// Starts one, which reports each line to somebody, with the place it has among the servers.
    pub fn start(
        place: usize,
        name: &str,
        redis: &str,
        file: &Path,
        lines: Sender<(usize, String)>,
    ) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--server", name, "--redis", redis])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (words, output) = (child.stdin.take(), child.stdout.take());
        let process = Process(child);
        let (Some(words), Some(output)) = (words, output) else {
            return Err("an application server without pipes".into());
        };
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if lines.send((place, line)).is_err() {
                    return;
                }
            }
            // Nobody may be left to hear it.
            let _ = lines.send((place, "gone".to_owned()));
        });
        Ok(Self { process, words })
    }

    /// Gives it the word for its next part.
    pub fn tell(&mut self) -> Result<(), Failure> {
        writeln!(self.words, "quiet")?;
        Ok(self.words.flush()?)
    }

    /// Ends it.
    pub fn end(mut self) {
        self.process.kill();
    }
}
