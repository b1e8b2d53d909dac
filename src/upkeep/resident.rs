//! Which states L1 holds, written down at a clean shutdown and read after the next start: a file for each
//! database, in the data directory. Only names are in it, so one that is out of date does no harm.
//!
//! The launcher writes the files at a clean shutdown, and removes them at a start without
//! `state_cache.warm_on_start`; the worker of a database takes the file of its own (`warm`). After a crash or an
//! immediate shutdown there is none, and without a file the next start is a cold one.

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
        true => Ok(()),
        false => discard_all(),
    },
    at_stop: || match settings::warm_on_start() {
        true => write_all(),
        false => Ok(()),
    },
};

/// Name of the files, before the OID of the database.
const PREFIX: &str = "state_cache.resident.";

/// The file of a database. The server's processes run in its data directory.
fn path(database: u32) -> PathBuf {
    PathBuf::from(format!("{PREFIX}{database}"))
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
        outcome = outcome.and(list.write(&path(database)));
    }
    outcome
}

/// Takes the list of a database: its names, those used last first. The file is gone then.
pub fn take(database: u32) -> Vec<Name> {
    let names = read(&path(database)).unwrap_or_default();
    let _ = std::fs::remove_file(path(database));
    names
}

/// Removes the files of all databases.
///
/// # Errors
/// Whatever the file system says.
fn discard_all() -> io::Result<()> {
    for entry in std::fs::read_dir(".")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
