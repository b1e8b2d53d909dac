//! A Redis of its own to measure against, and a client that does as little as the one of `wire`.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a Redis writes to its disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    None,
    /// Every command, and waits for the disk once a second: what write-behind promises, nearly.
    EverySecond,
}

impl Persistence {
    /// As the table says it.
    pub fn described(self) -> &'static str {
        match self {
            Persistence::None => "without persistence",
            Persistence::EverySecond => "`appendfsync everysec`",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Persistence::None => &["--appendonly", "no"],
            // A rewrite of the file would run on into the turns of others.
            Persistence::EverySecond => &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "everysec",
                "--auto-aof-rewrite-percentage",
                "0",
            ],
        }
    }
}

/// A running server in a directory of its own, both gone when this is.
pub struct Redis {
    process: Child,
    directory: PathBuf,
}

impl Redis {
    /// Starts a server, or returns `None` where none is installed.
    pub fn start(persistence: Persistence) -> Result<Option<Self>, Failure> {
        // Where the throwaway server's files are, so on the same disk.
        let parent = std::env::var_os("PGHOST")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(std::env::temp_dir);
        let directory = parent.join(format!("redis.{}", std::process::id()));
        std::fs::create_dir(&directory)?;
        let started = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocketperm", "700"])
            .args([
                OsStr::new("--unixsocket"),
                directory.join("socket").as_os_str(),
            ])
            .args([OsStr::new("--dir"), directory.as_os_str()])
            .args(persistence.options())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                std::fs::remove_dir(&directory)?;
                return match error.kind() {
                    ErrorKind::NotFound => Ok(None),
                    _ => Err(format!("redis-server: {error}").into()),
                };
            }
        };
        let mut redis = Redis { process, directory };
        redis.wait()?;
        Ok(Some(redis))
    }

    /// Waits until the server answers.
    fn wait(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let answer = self
                .connect()
                .and_then(|mut client| client.command(&["PING"], b"+PONG\r\n"));
            let Err(error) = answer else {
                return Ok(());
            };
            if let Some(status) = self.process.try_wait()? {
                return Err(format!("redis-server ended: {status}").into());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("redis-server does not answer: {error}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it is, for the `redis` crate.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.join("socket").display())
    }

    /// Opens a connection.
    pub fn connect(&self) -> Result<Client, Failure> {
        Ok(Client {
            stream: UnixStream::connect(self.directory.join("socket"))?,
            output: Vec::new(),
            input: Vec::new(),
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A process that has ended already, and files that are gone already, are no loss.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// One connection to a Redis.
pub struct Client {
    stream: UnixStream,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Client {
    /// Stores a value, in one round trip.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        self.command(&["SET", key, value], b"+OK\r\n")
    }

    /// Removes a key, which need not be there.
    pub fn delete(&mut self, key: &str) -> Result<(), Failure> {
        // DEL answers how many keys it has removed.
        self.set(key, "")?;
        self.command(&["DEL", key], b":1\r\n")
    }

    /// Stores the same value under many keys, sent together.
    pub fn set_many(&mut self, keys: &[String], value: &str) -> Result<(), Failure> {
        self.output.clear();
        for key in keys {
            encode(&mut self.output, &["SET", key, value])?;
        }
        self.stream.write_all(&self.output)?;
        let expected = b"+OK\r\n".repeat(keys.len());
        self.input.clear();
        self.input.resize(expected.len(), 0);
        self.stream.read_exact(&mut self.input)?;
        match self.input == expected {
            true => Ok(()),
            false => Err("redis-server refused a SET".into()),
        }
    }

    /// Reads a value.
    pub fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.bulk(&["GET", key])
    }

    /// Reads a field of a hash.
    pub fn field(&mut self, key: &str, field: &str) -> Result<Option<String>, Failure> {
        Ok(self
            .bulk(&["HGET", key, field])?
            .map(String::from_utf8)
            .transpose()?)
    }

    /// Sends a command whose reply is a text, or none.
    fn bulk(&mut self, words: &[&str]) -> Result<Option<Vec<u8>>, Failure> {
        self.output.clear();
        encode(&mut self.output, words)?;
        self.stream.write_all(&self.output)?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        match head.strip_prefix('$').map(str::trim_end) {
            Some("-1") => Ok(None),
            Some(length) => {
                let mut text = vec![0; length.parse::<usize>()? + 2];
                self.stream.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                Ok(Some(text))
            }
            None => Err(format!("redis-server replied {head}").into()),
        }
    }

    /// Sends a command and waits for the one reply that is not an error.
    fn command(&mut self, words: &[&str], expected: &[u8]) -> Result<(), Failure> {
        self.output.clear();
        encode(&mut self.output, words)?;
        self.stream.write_all(&self.output)?;
        self.input.clear();
        self.input.resize(expected.len(), 0);
        self.stream.read_exact(&mut self.input)?;
        if self.input != expected {
            let reply = String::from_utf8_lossy(&self.input);
            return Err(format!("redis-server replied {reply}").into());
        }
        Ok(())
    }
}

/// Appends a command as RESP has it: an array of texts, each with its length.
fn encode(output: &mut Vec<u8>, words: &[&str]) -> Result<(), Failure> {
    write!(output, "*{}\r\n", words.len())?;
    for word in words {
        write!(output, "${}\r\n{word}\r\n", word.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lengths_count_bytes() {
        let mut output = Vec::new();
        encode(&mut output, &["SET", "é", ""]).unwrap();
        assert_eq!(
            output,
            "*3\r\n$3\r\nSET\r\n$2\r\né\r\n$0\r\n\r\n".as_bytes()
        );
    }
}
