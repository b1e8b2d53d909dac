//! A blocking client of PostgreSQL's protocol, version 3, that does little beside moving bytes: with as
//! many clients as here, what a client costs is taken from the server's share of the machine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::net::UnixStream;

use crate::Failure;

/// Protocol 3.0, as the startup message names it.
const PROTOCOL: u32 = 3 << 16;
/// Length of a message's header: a byte of type and four of length.
const HEADER: usize = 5;
/// Room for the replies of one exchange with small states; grows when a message is longer.
const INPUT_BYTES: usize = 64 * 1024;

/// What a connection runs over.
trait Stream: Read + Write + Send {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// Rows of a query, each column as text, `None` for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// One session on the server that `PGHOST`, `PGPORT`, `PGUSER` and `PGDATABASE` name.
pub struct Connection {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// The part of `input` that was received and not yet looked at.
    unread: Range<usize>,
    output: Vec<u8>,
}

impl Connection {
    /// Connects and waits until the server is ready. Fails where the server wants a password: throwaway
    /// servers trust.
    pub fn open() -> Result<Self, Failure> {
        Connection::open_database(&setting("PGDATABASE")?)
    }

    /// The same with another database.
    pub fn open_database(database: &str) -> Result<Self, Failure> {
        Connection::open_at(setting("PGPORT")?.parse()?, database)
    }

    /// The same on a server that listens beside it, on another port.
    pub fn open_at(port: u16, database: &str) -> Result<Self, Failure> {
        let host = setting("PGHOST")?;
        let stream: Box<dyn Stream> = if host.starts_with('/') {
            Box::new(UnixStream::connect(format!("{host}/.s.PGSQL.{port}"))?)
        } else {
            let stream = TcpStream::connect(format!("{host}:{port}"))?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        let mut connection = Connection {
            stream,
            input: vec![0; INPUT_BYTES],
            unread: 0..0,
            output: Vec::with_capacity(INPUT_BYTES),
        };
        let user = setting("PGUSER")?;
        let parameters =
            format!("user\0{user}\0database\0{database}\0application_name\0state_cache_bench\0\0");
        let length = u32::try_from(8 + parameters.len())?;
        connection.output.extend(length.to_be_bytes());
        connection.output.extend(PROTOCOL.to_be_bytes());
        connection.output.extend(parameters.as_bytes());
        connection.exchange(|_| Ok(()))?;
        Ok(connection)
    }

    /// Runs statements by the simple protocol and returns the rows of all of them.
    pub fn query(&mut self, sql: &str) -> Result<Rows, Failure> {
        self.put(b'Q', |body| {
            put_text(body, sql);
            Ok(())
        })?;
        let mut rows = Rows::new();
        self.exchange(|row| {
            rows.push(columns(row)?);
            Ok(())
        })
        .map_err(|error| format!("{error}\nin: {}", shortened(sql)))?;
        Ok(rows)
    }

    /// Runs a query that returns one row of one column that is not NULL.
    pub fn value<T>(&mut self, sql: &str) -> Result<T, Failure>
    where
        T: std::str::FromStr,
        Failure: From<T::Err>,
    {
        let rows = self.query(sql)?;
        match rows.as_slice() {
            [row] => match row.as_slice() {
                [Some(text)] => Ok(text.parse()?),
                _ => Err(format!("not one value: {}", shortened(sql)).into()),
            },
            _ => Err(format!("not one row: {}", shortened(sql)).into()),
        }
    }

    /// Prepares a statement; the server infers the types of its parameters.
    pub fn prepare(&mut self, name: &str, sql: &str) -> Result<(), Failure> {
        self.put(b'P', |body| {
            put_text(body, name);
            put_text(body, sql);
            body.extend(0_u16.to_be_bytes());
            Ok(())
        })?;
        self.put(b'S', |_| Ok(()))?;
        self.exchange(|_| Ok(()))
            .map_err(|error| format!("{error}\nin: {}", shortened(sql)).into())
    }

    /// Executes a prepared statement with parameters and results in text form, in one round trip, and
    /// returns how many bytes of rows came back.
    pub fn execute(&mut self, name: &str, parameters: &[&str]) -> Result<usize, Failure> {
        self.put(b'B', |body| {
            body.push(0);
            put_text(body, name);
            body.extend(0_u16.to_be_bytes());
            body.extend(u16::try_from(parameters.len())?.to_be_bytes());
            for parameter in parameters {
                body.extend(u32::try_from(parameter.len())?.to_be_bytes());
                body.extend(parameter.as_bytes());
            }
            body.extend(0_u16.to_be_bytes());
            Ok(())
        })?;
        self.put(b'E', |body| {
            body.push(0);
            body.extend(0_u32.to_be_bytes());
            Ok(())
        })?;
        self.put(b'S', |_| Ok(()))?;
        let mut bytes = 0;
        self.exchange(|row| {
            bytes += row.len();
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Waits for the next notification of a channel that this session listens on, and returns its payload.
    /// One that arrives during another exchange is lost.
    pub fn notification(&mut self) -> Result<String, Failure> {
        loop {
            let (kind, body) = self.receive()?;
            let mut body = &self.input[body];
            match kind {
                b'A' => {
                    // After the process id: channel and payload, each with its end.
                    take(&mut body, 4)?;
                    let payload = body.split(|byte| *byte == 0).nth(1);
                    let payload = payload.ok_or("a notification has no payload")?;
                    return Ok(String::from_utf8(payload.to_vec())?);
                }
                b'E' => return Err(error_text(body).into()),
                _ => {}
            }
        }
    }

    /// Appends a message to the output.
    fn put(
        &mut self,
        kind: u8,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.output.push(kind);
        let start = self.output.len();
        self.output.extend([0; 4]);
        body(&mut self.output)?;
        let length = u32::try_from(self.output.len() - start)?;
        self.output[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Sends the output and reads replies until the server is ready again. The first error that the
    /// server reports is returned then.
    fn exchange(
        &mut self,
        mut row: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        let mut failure = None;
        loop {
            let (kind, body) = self.receive()?;
            let body = &self.input[body];
            match kind {
                b'D' => row(body)?,
                b'E' => failure = failure.or_else(|| Some(error_text(body))),
                b'R' if body != [0; 4] => return Err("the server wants a password".into()),
                b'Z' => return failure.map_or(Ok(()), |text| Err(text.into())),
                _ => {}
            }
        }
    }

    /// Waits for one whole message; its body lies in `input`.
    fn receive(&mut self) -> Result<(u8, Range<usize>), Failure> {
        loop {
            let unread = &self.input[self.unread.clone()];
            let mut needed = HEADER;
            if let [kind, a, b, c, d, ..] = *unread {
                needed = 1 + usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
                if unread.len() >= needed {
                    let start = self.unread.start;
                    self.unread.start += needed;
                    return Ok((kind, start + HEADER..start + needed));
                }
            }
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            if self.input.len() < needed {
                self.input.resize(needed, 0);
            }
            match self.stream.read(&mut self.input[self.unread.end..])? {
                0 => return Err("the server closed the connection".into()),
                read => self.unread.end += read,
            }
        }
    }
}

/// Where the server is, from the environment.
pub fn setting(name: &str) -> Result<String, Failure> {
    std::env::var(name)
        .map_err(|_| format!("{name} is not set; run this under scripts/with-server").into())
}

/// Appends a text as the protocol ends it.
fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.as_bytes());
    body.push(0);
}

/// Takes the first `count` bytes off what is left of a message.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Failure> {
    let (taken, left) = rest
        .split_at_checked(count)
        .ok_or("a message ends too early")?;
    *rest = left;
    Ok(taken)
}

/// Columns of a DataRow message.
fn columns(mut body: &[u8]) -> Result<Vec<Option<String>>, Failure> {
    let count = u16::from_be_bytes(take(&mut body, 2)?.try_into()?);
    let mut columns = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes(take(&mut body, 4)?.try_into()?);
        columns.push(match usize::try_from(length) {
            Ok(length) => Some(String::from_utf8(take(&mut body, length)?.to_vec())?),
            // -1 stands for NULL.
            Err(_) => None,
        });
    }
    Ok(columns)
}

/// SQLSTATE and message of an ErrorResponse.
fn error_text(body: &[u8]) -> String {
    let field = |code: u8| {
        body.split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
            .unwrap_or_default()
    };
    format!("{}: {}", field(b'C'), field(b'M'))
}

/// The beginning of a statement, for messages.
fn shortened(sql: &str) -> String {
    const SHOWN: usize = 300;
    sql.chars().take(SHOWN).collect()
}

/// A text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
