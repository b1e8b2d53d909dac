//! Which states L1 holds, written down at a clean shutdown and read after the next start: a file for each
//! database, in the data directory. Only names are in it, so one that is out of date does no harm.
//!
//! The launcher writes the files at a clean shutdown. At a start it gives them the name under which the worker of a
//! database takes its own (`warm`), or without `state_cache.warm_on_start` removes them. The two names keep apart
//! what an early shutdown writes and what a worker has not taken yet: both may happen at once, since the server tells
//! launcher and workers together that it stops. A crash or an immediate shutdown writes no file; one that was handed
//! out and not taken stays. Without a file the next start is a cold one.

use crate::settings;
use crate::shared;
use crate::worker::Errand;
use state_cache_formats::resident::{List, Name, read};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

/// What the launcher does with the files.
pub const RESIDENT: Errand = Errand {
    about: "the list of what L1 holds",
    at_start: || match settings::warm_on_start() {
        true => hand_out_all(),
        false => discard_all(),
    },
    at_stop: || match settings::warm_on_start() {
        true => write_all(),
        false => Ok(()),
    },
};

/// Name of the files, before the OID of the database.
const PREFIX: &str = "state_cache.resident.";

/// End of the name of a file that the worker may take.
const HANDED_OUT: &str = "handed_out";

/// The file of a database, as the launcher writes it. The server's processes run in its data directory.
fn written(database: u32) -> PathBuf {
    PathBuf::from(format!("{PREFIX}{database}"))
}

/// The file of a database, as its worker takes it.
fn handed_out(database: u32) -> PathBuf {
    written(database).with_added_extension(HANDED_OUT)
}

/// Writes down what L1 holds, for each database; files of earlier go.
///
/// # Errors
/// Whatever the file system says of one database's file; the others are written all the same.
pub fn write_all() -> io::Result<()> {
    discard_all()?;
    let Some(l1) = shared::l1() else {
        return Ok(());
    };
    let mut lists: HashMap<u32, List> = HashMap::new();
    l1.for_each_resident(|database, incarnation, class, key| {
        lists
            .entry(database)
            .or_default()
            .push(incarnation, class, key);
    })
    .map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut outcome = Ok(());
    for (database, list) in lists {
        outcome = outcome.and(list.write(&written(database)));
    }
    outcome
}

/// Takes the list of a database that the last shutdown wrote: its names, those used last first. The file is gone
/// then.
pub fn take(database: u32) -> Vec<Name> {
    let path = handed_out(database);
    let names = read(&path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    names
}

/// Lets the workers take the files of all databases.
///
/// # Errors
/// Whatever the file system says.
fn hand_out_all() -> io::Result<()> {
    for path in all()? {
        let database = path.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(Ok(database)) = database.map(str::parse) {
            std::fs::rename(path, handed_out(database))?;
        }
    }
    Ok(())
}

/// Removes the files of all databases, under either name.
///
/// # Errors
/// Whatever the file system says.
fn discard_all() -> io::Result<()> {
    all()?.into_iter().try_for_each(std::fs::remove_file)
}

/// The files of all databases, under either name, half-written ones too.
fn all() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(".")? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with(PREFIX) {
            found.push(name.into());
        }
    }
    Ok(found)
}
