//! `export`: the states of a class as JSON lines.
//!
//! All pages are read in one transaction at REPEATABLE READ, so the lines show one state of the database. They come
//! in the order of their keys: an export that was cut off goes on behind the last whole line of its file.

use crate::connect::Database;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The class
    pub class: String,
    /// Only keys that begin with this
    pub prefix: Option<String>,
    /// Into a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Go on behind the last whole line of the file; what is there already is not read again
    #[arg(long, requires = "output")]
    pub resume: bool,
}

/// States to a statement.
const PAGE: &str = "200";

/// What a line of a file must have.
#[derive(Deserialize)]
struct Line {
    class: String,
    key: String,
}

/// Exports.
pub fn run(
    arguments: &Arguments,
    database: &mut Database,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let mut after = None;
    let mut sink: Box<dyn Write> = match &arguments.output {
        None => Box::new(BufWriter::new(std::io::stdout().lock())),
        Some(path) => {
            let failed = |error: std::io::Error| Failure::file(path.display(), &error);
            let file = match arguments.resume {
                false => File::create(path).map_err(failed)?,
                true => {
                    let mut options = File::options();
                    let options = options.read(true).write(true).create(true).truncate(false);
                    let mut file = options.open(path).map_err(failed)?;
                    let (key, end) = last_whole_line(&file, path, &arguments.class)?;
                    file.set_len(end).map_err(failed)?;
                    file.seek(SeekFrom::Start(end)).map_err(failed)?;
                    after = key;
                    file
                }
            };
            Box::new(BufWriter::new(file))
        }
    };
    database.begin("ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let written = pages(arguments, database, after, &mut sink);
    let written = database.end(written)?;
    sink.flush()?;
    if arguments.output.is_some() {
        match output.json {
            true => output.line(&format!("{{\"states\":{written}}}"))?,
            false => output.line(&format!("{written} states were written"))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pages(
    arguments: &Arguments,
    database: &mut Database,
    mut after: Option<String>,
    sink: &mut dyn Write,
) -> Result<u64, Failure> {
    let class = arguments.class.as_str();
    let mut written = 0;
    loop {
        let mut last = None;
        database.each(
            "SELECT $1 AS class, k.key, s.version, k.updated_at, h.expires_at, s.state
                FROM @.state_keys(COALESCE($2, ''), $3, $4::integer, class => $1) k
                LEFT JOIN @.state_head h ON h.class = $1 AND h.key = k.key
                LEFT JOIN LATERAL @.state_get_many(ARRAY[k.key], class => $1) s ON true
                ORDER BY k.key COLLATE \"C\"",
            &[
                Some(class),
                arguments.prefix.as_deref(),
                after.as_deref(),
                Some(PAGE),
            ],
            |row| {
                last = row.text("key");
                // One that has just expired.
                if row.raw("state").is_some() {
                    sink.write_all(row.json.as_bytes())?;
                    sink.write_all(b"\n")?;
                    written += 1;
                }
                Ok(())
            },
        )?;
        match last {
            None => return Ok(written),
            last => after = last,
        }
    }
}

/// The key of the last line that is whole, and where that line ends.
fn last_whole_line(
    file: &File,
    path: &Path,
    class: &str,
) -> Result<(Option<String>, u64), Failure> {
    let failed = |error: std::io::Error| Failure::file(path.display(), &error);
    let mut reader = BufReader::new(file);
    let (mut line, mut whole, mut end) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if length == 0 || !line.ends_with(b"\n") {
            break;
        }
        end += length as u64;
        std::mem::swap(&mut line, &mut whole);
    }
    if whole.is_empty() {
        return Ok((None, 0));
    }
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let parsed: Line =
        serde_json::from_slice(&whole).map_err(|error| wrong(format!("the last line: {error}")))?;
    match parsed.class == class {
        true => Ok((Some(parsed.key), end)),
        false => Err(wrong(format!(
            "this is an export of class \"{}\"",
            parsed.class
        ))),
    }
}
