//! What can go wrong, and the exit code that says so. `docs/operations/command-line.md` lists the codes for scripts.

use core::fmt;
use std::io;
use std::process::ExitCode;

/// Findings of `doctor` and `verify`, differences of `diff`: no error, and not nothing.
pub const FINDINGS: u8 = 1;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// Arguments, or files that they name, make no sense.
    Usage(String),
    /// No server, or it does not let us in.
    Connection(String),
    /// The role lacks a privilege.
    NotPermitted(Said),
    /// There is no such state, version, run, budget, ...
    NotFound(String),
    /// Somebody else was faster; the same command may work now.
    Conflict(Said),
    /// The server refuses for another reason.
    Server(Said),
    /// A file, or what reads our output.
    File(String),
    /// Who read our output has enough.
    Closed,
}

/// An error of the server.
#[derive(Debug)]
pub struct Said {
    /// SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// The detail, if there is one.
    pub detail: Option<String>,
    /// The hint, if there is one.
    pub hint: Option<String>,
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Closed => 0,
            Self::Usage(_) => 2,
            Self::Connection(_) => 3,
            Self::NotPermitted(_) => 4,
            Self::NotFound(_) => 5,
            Self::Conflict(_) => 6,
            Self::Server(_) => 7,
            Self::File(_) => 8,
        })
    }

    /// Of a file: its name, and what the system says.
    pub fn file(name: impl fmt::Display, error: &io::Error) -> Self {
        Self::File(format!("{name}: {error}"))
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "\ndetail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::NotFound(what) | Self::File(what) => f.write_str(what),
            Self::Connection(what) => write!(f, "no connection: {what}"),
            Self::NotPermitted(said) => write!(f, "not permitted: {said}"),
            Self::Conflict(said) | Self::Server(said) => said.fmt(f),
            Self::Closed => Ok(()),
        }
    }
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // The library keeps what the system said in the source of its error.
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                source = inner.source();
            }
            return Self::Connection(text);
        };
        let said = Said {
            code: db.code().code().to_owned(),
            message: db.message().to_owned(),
            detail: db.detail().map(str::to_owned),
            hint: db.hint().map(str::to_owned),
        };
        let code = said.code.as_str();
        // The second list: no such database; the server starts, stops, has no place, is gone.
        if ["08", "28"].iter().any(|class| code.starts_with(class))
            || ["3D000", "57P01", "57P02", "57P03", "53300"].contains(&code)
        {
            return Self::Connection(said.to_string());
        }
        match code {
            "42501" => Self::NotPermitted(said),
            "42704" => Self::NotFound(said.to_string()),
            "40001" | "40P01" | "55P03" => Self::Conflict(said),
            _ => Self::Server(said),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::File(error.to_string()),
        }
    }
}
