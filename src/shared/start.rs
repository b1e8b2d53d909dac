//! Which start of the server this is.
//!
//! A data directory that was copied and put back goes on where the copy was taken, under the same timeline: its
//! transaction ids and places in the WAL are given out again. What tells the two histories apart is the start: each
//! has a random name, a place in the WAL at which it began, and a number that is one above that of the start before.
//! The number is kept in a file of the data directory, so it is copied and put back with it.
//!
//! The launcher calls [`begin`] when the server is up, before it does anything else. Until then, on a standby, and
//! without preloading, place and number are not known, and nothing is said about earlier starts.

use super::block::state;
use crate::sys;
use pgrx::pg_sys;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

/// The file with the number of the last start.
const FILE: &str = "state_cache.starts";

/// A start whose place among the others is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Its name, never 0.
    pub name: u64,
    /// One more than that of the start before.
    pub number: u64,
    /// All that is written before this place in the WAL was written by earlier starts, all behind it by this one.
    pub position: u64,
}

/// The name of this start of the server, never 0.
pub fn name() -> u64 {
    match state() {
        Some(state) => state.starts.name.load(SeqCst),
        // SAFETY: plain globals of this process, set by the postmaster. No two starts of a data directory share both.
        None => unsafe {
            (pg_sys::PgStartTime as u64).rotate_left(16) ^ pg_sys::PostmasterPid as u64
        },
    }
}

/// This start, if its place among the others is known.
pub fn start() -> Option<Start> {
    let slot = &state()?.starts;
    let position = slot.position.load(SeqCst);
    (position != 0 && !sys::recovery_in_progress()).then(|| Start {
        name: slot.name.load(SeqCst),
        number: slot.number.load(SeqCst),
        position,
    })
}

/// Finds out and keeps where this start stands; does nothing the second time.
///
/// # Errors
/// Whatever the file system says; then nothing is known until the next start.
pub fn begin() -> io::Result<()> {
    let Some(slot) = state().map(|state| &state.starts) else {
        return Ok(());
    };
    if slot.position.load(SeqCst) != 0 {
        return Ok(());
    }
    // The checkpoint with which the server came up, or went down in order, lies where the WAL of earlier starts ends.
    // SAFETY: reads shared memory.
    let position = unsafe { pg_sys::GetRedoRecPtr() };
    let number = next_number(Path::new(FILE), sys::now() as u64)?;
    slot.number.store(number, SeqCst);
    slot.position.store(position, SeqCst);
    Ok(())
}

/// The number in the file plus one, written back; if there is none to be read, one that follows none.
fn next_number(file: &Path, otherwise: u64) -> io::Result<u64> {
    let last = std::fs::read_to_string(file).ok();
    let last = last.and_then(|text| text.trim_end().parse::<u64>().ok());
    let number = last.map_or(otherwise, |last| last.wrapping_add(1));
    let beside = file.with_extension("tmp");
    let mut new = std::fs::File::create(&beside)?;
    writeln!(new, "{number}")?;
    new.sync_all()?;
    std::fs::rename(&beside, file)?;
    // The new name must be on disk before anything of this start is: its number is not given out again.
    std::fs::File::open(".")?.sync_all()?;
    Ok(number)
}
